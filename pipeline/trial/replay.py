"""A pipeline file over what was recorded, or over files: which alerts come out, beside those that came out then.

The graph is pushed through as fast as it can, in steps of many readings. There is no engine: nothing is written, sent or
acknowledged, and sinks are left out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.clock import RealClock
from pipeline.frame import NO_PROGRESS, Frame, KeyTable, Schema, empty
from pipeline.graph import REFUSED, Graph
from pipeline.outside import Outside
from pipeline.trial import given, recorded, roots
from pipeline.trial.episodes import Comparison, Episode, compare, episodes
from pipeline.trial.pace import Pace
from pipeline.trial.recorded import Recorded

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.trial.roots import Roots

_AGE = re.compile(r"\bage\s*\(")  # what reads the clock
FAR = 2**62
RUN_OUT = 60_000_000_000  # ns beyond the end


class Unreplayable(Exception):
    """There is nothing that could be replayed; the text says why."""


@dataclass
class Wish:
    """What is asked for. Times in ns; None: as far as there is something."""

    start: int | None = None
    end: int | None = None
    warm_up: int = 0
    inputs: Mapping[str, Path] = field(default_factory=dict)  # source -> file


@dataclass
class Story:
    """What one pipeline file tells of the span."""

    alerts: dict[str, list[Episode]]  # by operator; those of the warm-up too
    errors: list[str] = field(default_factory=list)  # by operators that failed


@dataclass
class Outcome:
    start: int
    end: int
    newest: int  # time of a reading
    readings: dict[str, int]  # by stream that was replayed, the warm-up's too
    seconds: float
    stories: list[Story]  # of each candidate
    recorded: dict[str, list[Episode]]  # alerts of which rows were recorded
    notes: list[str]

    def comparison(self, story: Story) -> Comparison:
        one, two = ([e for name in self.recorded for e in told[name]] for told in (self.recorded, story.alerts))
        return compare(one, two, self.start, self.end)


def replay(candidates: Sequence[Config], graph: Graph, history: Recorded | None, wish: Wish, now: int) -> Outcome:
    """All candidates over the same readings; they are variations of one file, of whose first `graph` is the graph."""
    return _Replay(candidates, graph, history, wish, now).run()


class _Candidate:
    """One file: its graph, and what its alerts have told."""

    def __init__(self, config: Config, alerts: Sequence[str], keys: KeyTable) -> None:
        self.graph = Graph(config, keys, RealClock())
        self.came: dict[str, list[Frame]] = {name: [] for name in alerts}
        self.failed: dict[str, str] = {}
        for name, frames in self.came.items():
            self.graph.watch(name, _gatherer(frames))
        self.outside = Outside({name: edge.context for name, edge in self.graph.edges.items()}, lambda: None)
        self.outside.begin()
        self.ticks = any(edge.operator.tick_by_tick for edge in self.graph.edges.values())

    def push(self, frames: dict[str, Frame], first: int) -> None:
        files = {
            place: Frame(f.time, f.key, np.full(len(f), first), f.columns, f.progress)
            for place, f in self.outside.take(first)[0].items()
        }
        self.graph.push(frames, files)
        for guilty in self.graph.guilty:
            self.failed.setdefault(guilty.node, guilty.reason)

    def story(self) -> Story:
        streams, names = self.graph.streams, self.graph.keys.names
        told = {name: episodes(name, frames, streams[name], names) for name, frames in self.came.items()}
        return Story(told, [f"{node} failed: {reason}" for node, reason in self.failed.items()])


def _gatherer(frames: list[Frame]) -> Callable[[Frame], None]:
    def gather(frame: Frame) -> None:
        if len(frame):
            frames.append(frame)

    return gather


class _Replay:
    def __init__(
        self, candidates: Sequence[Config], graph: Graph, history: Recorded | None, wish: Wish, now: int
    ) -> None:
        self.first = candidates[0]
        self.graph = graph
        self.history = history
        self.wish = wish
        self.now = now
        self.notes: list[str] = []
        there = set(wish.inputs) | (history.streams if history else set())
        found = [roots.find(config, graph, there) for config in candidates]
        self.roots: Roots = found[0]
        self._look(self.roots)
        self.keys = recorded.key_table(history.keys() if history else [], candidates[0].pipeline.max_keys)
        self.candidates = [_Candidate(r.config, self.roots.alerts, self.keys) for r in found]
        self.streams = self.roots.streams
        self.refused = {
            f"{name}.invalid": REFUSED
            for name in self.streams
            if any(f"{name}.invalid" in node.inputs for node in self.roots.config.nodes.values())
        }
        self.readings = dict.fromkeys(self.streams, 0)
        self.first_seq = FAR  # of all readings; 0: nothing had come before what is recorded

    def _look(self, found: Roots) -> None:
        """What can be replayed, and what not."""
        for alert, sources in found.missing.items():
            lack = ", ".join(f'"{s}"' for s in sources)
            self.notes.append(
                f'"{alert}" is left out: {lack} {"is" if len(sources) == 1 else "are"} not recorded, and neither is what lies '
                "between; record it (inputs of a query_server), or give a file with --input"
            )
        if not found.alerts:
            raise Unreplayable(*self.notes[:1] or ["the file has no alert: there is nothing to compare"])
        for name in found.standing:
            self.notes.append(
                f'"{name}" is taken as it was recorded, since what it reads is not: changes of its settings, or before it, '
                "show nothing, and readings that it left out do not move time"
            )

    # --- its course ---

    def run(self) -> Outcome:
        start, end, since = self._span()
        began = time.perf_counter()
        config = self.first.pipeline
        live = {name: self.candidates[0].graph.sources[name].live for name in self.streams}
        pace = Pace(
            self.streams,
            live,
            disorder=config.disorder,
            idle=config.idle,
            singly=bool(_AGE.search(self.first.text)),
            due=self._due if any(candidate.ticks for candidate in self.candidates) else None,
        )
        # What is dated before the end may leave later: with the reading, or the silence, that tells that its time has come.
        until = end + config.disorder + config.idle + RUN_OUT if end < FAR else FAR
        for part in self._parts(since, until):
            self._count(part)
            for frames in pace.steps(part):
                self._push(frames, part)
        if pace.clock >= since:
            # Silence counts as long as somebody listened.
            seen = self.history.seen(self.now) if self.history and not self.files else 0
            for frames in pace.end(min(until, max(seen, pace.clock)), over=self.wish.end is None):
                self._push(frames, {})
        seconds = time.perf_counter() - began
        told = {name: self._told(name, since, end) for name in self.roots.alerts if self._is_recorded(name)}
        self._tell(since, [*told])
        stories = [candidate.story() for candidate in self.candidates]
        return Outcome(start, end, self.newest, self.readings, seconds, stories, told, self.notes)

    def _span(self) -> tuple[int, int, int]:
        """From when to before when is compared, and from when on is replayed."""
        spans = []
        asked = {name: s for name, s in self.streams.items() if name not in self.wish.inputs}
        if self.history and asked and (span := self.history.span(asked)):
            spans.append(span)
        self.files: dict[str, Frame] = {}
        for name, path in self.wish.inputs.items():
            if name in self.streams:
                self.files[name] = self._file(name, path)
                if len(self.files[name]):
                    spans.append((int(self.files[name].time.min()), int(self.files[name].time.max())))
        if not spans:
            raise Unreplayable(
                "there are no readings: nothing was recorded of " + ", ".join(f'"{s}"' for s in self.streams)
            )
        self.oldest, newest = min(a for a, _ in spans), max(b for _, b in spans)
        start = self.oldest if self.wish.start is None else self.wish.start
        end = FAR if self.wish.end is None else self.wish.end
        if newest < start or self.oldest >= end or start >= end:
            from pipeline.frame import instant_text

            raise Unreplayable(
                f"no readings lie in this span: there are some from {instant_text(self.oldest)} to {instant_text(newest)}"
            )
        self.newest = newest
        # Alerts are often kept longer than readings: what they tell of before cannot be compared.
        start = max(start, self.oldest)
        return start, end, max(self.oldest, start - self.wish.warm_up)

    def _file(self, name: str, path: Path) -> Frame:
        frame, refused = given.rows(self.first.nodes[name], self.streams[name], path, self.keys)
        if refused:
            self.notes.append(f"{path}: {len(refused)} readings were refused: {refused[0]}")
        return frame

    def _parts(self, start: int, end: int) -> Iterator[dict[str, Frame]]:
        """The readings of all streams (and what was refused of them, where that is read), in order of arrival."""
        if not self.files:
            assert self.history is not None
            yield from self.history.parts({**self.streams, **self.refused}, start, end)
            return
        found = dict(self.files)
        for name, schema in {**self.streams, **self.refused}.items():
            if name not in found:
                found[name] = (
                    self.history.rows(name, schema, start, end) if self.history else empty(schema, NO_PROGRESS)
                )
        cut = {name: f.where((f.time >= start) & (f.time < end)) for name, f in found.items()}
        yield numbered(cut)

    def _due(self) -> int | None:
        dues = [due for candidate in self.candidates if (due := candidate.graph.due()) is not None]
        return min(dues, default=None)

    def _count(self, part: Mapping[str, Frame]) -> None:
        for name in self.readings:
            self.readings[name] += len(part[name])
            if len(part[name]):
                self.first_seq = min(self.first_seq, int(part[name].seq[0]))

    def _push(self, frames: dict[str, Frame], part: Mapping[str, Frame]) -> None:
        step = dict(frames)
        first = min(int(f.progress.seq[0]) if len(f.progress.seq) else f.progress.next_seq for f in frames.values())
        for name, frame in frames.items():
            bad = part.get(f"{name}.invalid")
            if bad is not None:
                in_step = bad.where((bad.seq >= first) & (bad.seq < frame.progress.next_seq))
                step[f"{name}.invalid"] = in_step.with_progress(frame.progress)
            else:
                step[f"{name}.invalid"] = empty(REFUSED, frame.progress)
        for candidate in self.candidates:
            candidate.push(step, first)

    # --- what was recorded ---

    def _is_recorded(self, alert: str) -> bool:
        return self.history is not None and alert in self.history.streams

    def _told(self, alert: str, since: int, end: int) -> list[Episode]:
        assert self.history is not None
        schema: Schema = self.graph.streams[alert]
        names = self.history.keys()
        return episodes(alert, [self.history.rows(alert, schema, since, end)], schema, names)

    def _tell(self, since: int, told: Sequence[str]) -> None:
        """What the reader of the comparison must know."""
        for alert in self.roots.alerts:
            if self.history is not None and alert not in told:
                self.notes.append(f'"{alert}" is not recorded: nothing to compare it with (inputs of a query_server)')
        if self.history is None or self.files:
            return
        if since == self.oldest and self.first_seq:
            from pipeline.frame import instant_text

            self.notes.append(
                f"what was before {instant_text(self.oldest)} is no longer kept: windows and alerts begin anew there"
            )


def numbered(frames: Mapping[str, Frame]) -> dict[str, Frame]:
    """As if each reading had come at its time, or together with one before it that is newer; numbered in that order."""
    clock = [np.maximum.accumulate(f.time) if len(f) else f.time for f in frames.values()]
    order = np.argsort(np.concatenate(clock), kind="stable")
    seq = np.empty(len(order), np.int64)
    seq[order] = np.arange(len(order))
    at, made = 0, {}
    for name, frame in frames.items():
        made[name] = Frame(frame.time, frame.key, seq[at : at + len(frame)], frame.columns, NO_PROGRESS)
        at += len(frame)
    return made
