"""What a state folder has recorded, read from outside: in order of arrival, a bounded part at a time."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.component import RowsQuery
from pipeline.frame import NO_PROGRESS, Frame, KeyTable, Schema, concatenate, empty
from pipeline.journal import history, look, state

PART_ROWS = 500_000  # about so many rows are held at once
SHORTEST = 600_000_000_000  # ns of a part: longer than readings are dated ahead, or are swapped on their way
ALL = 2**62  # more rows than there can be


class Recorded:
    """The history of a state folder, whether its pipeline runs or not. Close it after use. apsw.Error if it is damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.db = look.connect(folder)

    def close(self) -> None:
        self.db.close()

    def keys(self) -> list[str]:
        return state.keys(self.db)

    @cached_property
    def streams(self) -> set[str]:
        """Those of which there are rows, or would be if any had come."""
        held = "SELECT stream FROM frames WHERE history GROUP BY stream UNION SELECT stream FROM chunks GROUP BY stream"
        found = {stream for (stream,) in self.db.execute(held)}
        for sink in self._file.get("sinks", {}).values():
            if sink.get("type") == "query_server" and sink.get("enabled", True):
                named = sink.get("inputs", sink.get("input", []))
                found |= {named} if isinstance(named, str) else set(named)
        return found

    @cached_property
    def _file(self) -> dict[str, Any]:
        """The pipeline file with which it was recorded."""
        for (text,) in self.db.execute("SELECT value FROM meta WHERE name = 'pipeline'"):
            return tomllib.loads(text.decode() if isinstance(text, bytes) else text)
        return {}

    def seen(self, clock: int) -> int:
        """The last moment at which its pipeline is known to have run; `clock`: now."""
        if look.in_use(self.folder):
            return clock
        _, states = state.load_checkpoint(self.db)
        return max([states.get(".engine", {}).get("dropping") or 0, *(e.clock for _, e in state.entries(self.db))])

    def span(self, streams: Mapping[str, Schema]) -> tuple[int, int] | None:
        """The earliest and the latest time in these streams; None: they have no rows."""
        found = [history.info(self.db, stream, schema) for stream, schema in streams.items()]
        times = [(i.oldest, i.newest) for i in found if i.oldest is not None and i.newest is not None]
        return (min(a for a, _ in times), max(b for _, b in times)) if times else None

    def rows(self, stream: str, schema: Schema, start: int | None, end: int | None) -> Frame:
        """The rows from `start` to before `end`, in order of arrival; those of one arrival by time."""
        with self.db:  # one state of the database: chunks are rearranged meanwhile
            found = history.rows(self.db, RowsQuery(stream, None, start, end, limit=ALL), schema, None)
        return found.take(np.argsort(found.seq, kind="stable"))

    def parts(self, streams: Mapping[str, Schema], start: int, end: int) -> Iterator[dict[str, Frame]]:
        """The same of several streams, part by part; what arrives later is in a later part.

        Rows are found by their time, so those that came before the first of the part after are told, and the others wait.
        """
        bounds = self._bounds(list(streams), start, end)
        kept = {stream: empty(schema, NO_PROGRESS) for stream, schema in streams.items()}
        for a, b in pairwise(bounds):
            came = {stream: self.rows(stream, schema, a, b) for stream, schema in streams.items()}
            first = min((int(frame.seq[0]) for frame in came.values() if len(frame)), default=None)
            if first is None:
                continue
            told = {stream: frame.where(frame.seq < first) for stream, frame in kept.items()}
            if any(map(len, told.values())):
                yield told
            kept = {stream: _joined(frame.where(frame.seq >= first), came[stream]) for stream, frame in kept.items()}
        if any(map(len, kept.values())):
            yield kept

    def _bounds(self, streams: Sequence[str], start: int, end: int) -> list[int]:
        """Times at which to cut: parts of about `PART_ROWS`."""
        with self.db:
            listed = [p for s in streams for p in history.listed(self.db, RowsQuery(s, None, start, end), None)]
        bounds, held = [start], 0
        for part in sorted(listed, key=lambda p: (p.first, p.last)):
            held += part.rows
            if held > PART_ROWS and part.first - bounds[-1] >= SHORTEST:
                bounds.append(part.first)
                held = part.rows
        return [*bounds, end]


def _joined(a: Frame, b: Frame) -> Frame:
    both = concatenate([a, b])
    return both.take(np.argsort(both.seq, kind="stable"))


def key_table(names: Sequence[str], limit: int) -> KeyTable:
    table = KeyTable(limit=limit)
    table.load(names)
    return table
