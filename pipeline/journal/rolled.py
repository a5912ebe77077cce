"""Questions to rollups: which of them answers, and what it does not have.

what a rollup does not have yet    the tail of its stream, and chunks that it has missed
the ends of the span               where it does not begin or end with an interval: the next finer one
what the stream no longer has      the next coarser one
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import apsw
import numpy as np

from pipeline.component import RowsQuery
from pipeline.frame import NO_PROGRESS, Column, Field, Frame, Schema, concatenate
from pipeline.journal import history
from pipeline.journal.rollup import Known, Level, Said, said
from pipeline.quantity import Duration

STEP, ENOUGH = 256, 4_000  # intervals that are looked at first together, and of how many keys and intervals are enough
_OF_EACH = ("count", "sum", "mean", "min", "max")  # columns for each number
FINE = 4  # intervals of a pixel: rounded up to whole ones it grows by a fourth at most


def _every(level: Level) -> int:
    return level.every


def fitting(levels: Sequence[Level], width: int) -> Level | None:
    """The coarsest that is fine enough for pixels of this width."""
    return max((level for level in levels if level.every * FINE <= width), key=_every, default=None)


@dataclass(slots=True)
class Asked:
    """A question for rows, of which those are wanted that may be chosen for a chart; some of them come twice."""

    db: apsw.Connection
    query: RowsQuery
    schema: Schema
    codes: list[int] | None
    known: Known

    def frames(self, level: Level | None) -> Iterator[Frame]:
        """Of whole intervals of this rollup the rows that it keeps, of the rest of the span as many or more; None: all."""
        if level is None:
            yield from self._read(self.query)
            return
        yield from self._read(replace(self.query, stream=level.name))
        yield from self._read(self.query, lacking=level.bit)
        finer = max((each for each in self._levels() if each.every < level.every), key=_every, default=None)
        for start, end in _ends(self.query, level.every):
            yield from _within(self, start, end).frames(finer)

    def gone(self, level: Level | None) -> Iterator[Frame]:
        """What coarser rollups have of the time that this one, or the stream, has lost."""
        name, every = (self.query.stream, 0) if level is None else (level.name, level.every)
        start, end = self.query.start, self.query.end
        lost = self.known.gone.get(name)
        coarser = min((each for each in self._levels() if each.every > every), key=_every, default=None)
        if coarser is None or lost is None or (start is not None and start >= lost):
            return
        asked = _within(self, start, lost if end is None else min(end, lost))
        yield from asked._read(replace(asked.query, stream=coarser.name))
        yield from asked.gone(coarser)

    def _levels(self) -> list[Level]:
        return self.known.of(self.query.stream)

    def _read(self, query: RowsQuery, lacking: int = 0) -> Iterator[Frame]:
        for part in history.listed(self.db, query, self.codes, lacking=lacking):
            yield history.read(self.db, part, query, self.schema, self.codes)


def _within(asked: Asked, start: int | None, end: int | None) -> Asked:
    return replace(asked, query=replace(asked.query, start=start, end=end))


def _ends(query: RowsQuery, every: int) -> list[tuple[int, int]]:
    """The parts of a span that are no whole intervals."""
    start, end = query.start, query.end
    first = None if start is None else min(-(-start // every) * every, 2**63 - 1)
    last = None if end is None else end // every * every
    if start is not None and end is not None and first is not None and last is not None and first >= last:
        return [(start, end)]
    found = []
    if start is not None and first is not None and start < first:
        found.append((start, first))
    if end is not None and last is not None and last < end:
        found.append((last, end))
    return found


# --- by interval ----------------------------------------------------------------------------------------------------


def summaries(
    db: apsw.Connection,
    level: Level,
    schema: Schema,
    codes: list[int] | None,
    start: int,
    end: int,
    *,
    descending: bool,
) -> Iterator[Said]:
    """Of each key and interval that begins in this span, what all its rows come to; some intervals at a time, in order."""
    spans = [ends for name in (level.stream, level.name) if (ends := history.ends(db, name))]
    if not spans:
        return
    every = level.every
    low = max(-(-start // every), min(first for first, _ in spans) // every)  # numbers of intervals
    high = min(-(-end // every), max(last for _, last in spans) // every + 1)
    step = STEP
    while low < high:
        first, last = (max(low, high - step), high) if descending else (low, min(high, low + step))
        said = _said(db, level, schema, codes, first * every, last * every)
        if said is not None:
            yield said
        low, high = (low, first) if descending else (last, high)
        step = 2 * step if said is None or len(said.key) < ENOUGH else max(1, step // 2)


def _said(
    db: apsw.Connection, level: Level, schema: Schema, codes: list[int] | None, start: int, end: int
) -> Said | None:
    frames = []
    for stream, lacking in ((level.name, 0), (level.stream, level.bit)):
        query = RowsQuery(stream, None, start, end)
        parts = history.listed(db, query, codes, lacking=lacking)
        if found := [f for part in parts if len(f := history.read(db, part, query, schema, codes, counts=True))]:
            frame = concatenate(found)
            frames.append(frame.where(history.holds(frame)) if lacking and history.corrects(schema) else frame)
    return said(concatenate(frames), level.every) if frames else None


def called(level: Level) -> str:
    """As a table in SQL."""
    return f"{level.stream}_{str(Duration(level.every)).replace(' ', '')}"


def schema_of(schema: Schema) -> Schema:
    """Of that table."""
    fields = {"rows": Field("int")}
    for name, field in schema.fields.items():
        if field.kind in ("float", "int"):
            kinds = ("int", "float", "float", field.kind, field.kind)
            fields |= {f"{name}_{what}": Field(kind) for what, kind in zip(_OF_EACH, kinds, strict=True)}
    return Schema(schema.key, fields)


def frame_of(said: Said, *, descending: bool) -> Frame:
    """Its rows, by time."""
    columns = {"rows": Column(said.rows)}
    for name, (count, total, least, greatest) in said.fields.items():
        there = count > 0
        mean = total / np.maximum(count, 1)
        columns[f"{name}_count"] = Column(count)
        for what, values in zip(_OF_EACH[1:], (total, mean, least, greatest), strict=True):
            columns[f"{name}_{what}"] = Column(values, there)
    frame = Frame(said.start, said.key.astype(np.int32), said.rows, columns, NO_PROGRESS)
    order = np.lexsort((frame.key, frame.time))
    return frame.take(order[::-1] if descending else order)
