"""A `[[test]]` block out of what was recorded: "this morning's false alarm", to be kept."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.frame import NEVER, Frame, instant_text, rows
from pipeline.trial.result import Instant
from pipeline.trial.written import after, key, text, written

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.graph import Graph
    from pipeline.trial.recorded import Recorded

SECOND = 1_000_000_000
MOST_READINGS = 10_000  # beyond, a file beside the pipeline is the better place
TOLD = ("state", "level", "time", "since")  # of an alert's row


class Unrecordable(Exception):
    """No test can be made of it; the text says why."""


def block(
    config: Config, graph: Graph, history: Recorded, name: str, start: int, end: int, keys: Collection[str] = ()
) -> str:
    """What came from `start` to before `end` (of some keys), and the alerts that were recorded then, as TOML."""
    start = start // SECOND * SECOND
    names = history.keys()
    codes = [code for code, known in enumerate(names) if known in keys] if keys else None
    recorded = _recorded(config, graph, history.streams)
    came = {n: _of(history.rows(of, graph.streams[n], start, end), codes) for n, of in recorded.items()}
    count = sum(map(len, came.values()))
    if not count:
        lacking = " and ".join(f'"{n}"' for n in graph.sources if n not in recorded)
        way_out = f": {lacking} must be among the inputs of a query_server" if lacking else ""
        raise Unrecordable(f"no readings are recorded there{way_out}")
    if count > MOST_READINGS:
        raise Unrecordable(f"{count:,} readings are more than {MOST_READINGS:,}: take a shorter span, or some --keys")
    alerts = [n for n in graph.edges if graph.streams[n].role == "alerts" and n in history.streams]
    if not alerts:
        raise Unrecordable("no alert is recorded: there is nothing to expect")
    at = _arrivals(came)
    lines = ["[[test]]", f"name = {text(name)}", f'start = "{instant_text(start)}"']
    for source, frame in came.items():
        if len(frame):
            if recorded[source] != source:
                lines.append(f"# what {key(recorded[source])} has let through: {key(source)} is not recorded")
            lines += _list(f"input.{source}", _given(config, graph, source, frame, at[source], names, start), start)
    for alert in alerts:
        schema = graph.streams[alert]
        told = [
            {n: Instant(v) if n in ("time", "since") else v for n, v in row.items() if n in (schema.key, *TOLD)}
            for row in rows(_of(history.rows(alert, schema, start, end), codes), schema, names, "ns")
        ]
        lines += _list(f"expect.{alert}", told, start)
    lines.append(f'until = "{after(end - start + config.pipeline.disorder)}"')
    return "\n".join(lines) + "\n"


def _recorded(config: Config, graph: Graph, there: Collection[str]) -> dict[str, str]:
    """Source -> the stream in which its readings were recorded, if need be without those that an operator leaves out."""
    behind: dict[str, str] = {}
    for name, edge in graph.edges.items():
        if name in there and edge.operator.only_leaves_out:
            (source, *others) = config.nodes[name].inputs
            if not others:
                behind.setdefault(source, name)
    found = {source: source if source in there else behind.get(source) for source in graph.sources}
    return {source: stream for source, stream in found.items() if stream is not None}


def _of(frame: Frame, codes: list[int] | None) -> Frame:
    return frame if codes is None else frame.where(np.isin(frame.key, codes))


def _arrivals(came: dict[str, Frame]) -> dict[str, list[int]]:
    """When each reading came: at its time, or along with a newer one before it."""
    seq = np.concatenate([frame.seq for frame in came.values()])
    order = np.argsort(seq, kind="stable")
    time = np.concatenate([frame.time for frame in came.values()])[order]
    clock = np.empty(len(time), np.int64)
    clock[order] = np.maximum.accumulate(time) if len(time) else NEVER
    ends = np.cumsum([len(frame) for frame in came.values()])
    return {name: part.tolist() for name, part in zip(came, np.split(clock, ends[:-1]), strict=True)}


def _given(
    config: Config, graph: Graph, source: str, frame: Frame, at: list[int], names: list[str], start: int
) -> Iterator[dict[str, Any]]:
    """Rows as a test gives them: the time only where it is not that of arrival."""
    time = getattr(config.nodes[source].settings, "time", None)
    schema = graph.streams[source]
    for row, arrived in zip(rows(frame, schema, names, "ns"), at, strict=True):
        own = row.pop("time")
        given: dict[str, Any] = {"at": Instant(arrived)}
        if time is not None and own != arrived:
            given[time] = Instant(own)
        yield {**given, **row}


def _list(name: str, told: Any, start: int) -> list[str]:
    shown = [f"    {written(row, start)}," for row in told]
    named = ".".join(key(part) for part in name.split("."))
    return [f"{named} = [", *shown, "]"] if shown else [f"{named} = []"]
