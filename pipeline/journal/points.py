"""Rows for a chart: of each pixel the first, the last and the extremes, which draw the same line as all rows would.

    M4 (Jugel et al., VLDB 2014): points / 4 equal spans of time; of each key in each span
    its first row, its last, and the least and the greatest of every number that is asked for

A chunk that lies within one span need not be opened: its summary has these four. Rows are whole ones, so that is enough only
where one field is asked for. Where spans are several intervals of a rollup (rolled.py) they become whole ones, and it is asked
instead: it has the rows that may be chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import apsw
import msgspec
import numpy as np

from pipeline.component import RowsQuery, Unanswerable
from pipeline.frame import NO_PROGRESS, Bools, Frame, Ints, Schema, column, concatenate, empty
from pipeline.journal import history, rolled, rollup
from pipeline.journal.history import Part
from pipeline.journal.rollup import Level
from pipeline.walk import pages

POOL = 200_000  # rows that are gathered before only those that a chart needs are kept
MOST_ROWS = 500_000  # of an answer
_FAR = 2**62  # ns
PAGE = 50_000  # rows of windows that are looked at together

_unpack = msgspec.msgpack.Decoder().decode


class _Grid(NamedTuple):
    """Equal spans of time, numbered from one that has no row before it."""

    start: int
    width: int

    def of(self, times: Ints) -> Ints:
        return (times - self.start) // self.width


def rows(db: apsw.Connection, query: RowsQuery, schema: Schema, codes: list[int] | None) -> Frame:
    """The rows of the chart, by time, key and arrival; fields that are not asked for are missing. Unanswerable: too many."""
    known = rollup.known(db)
    grid, level = _grid(db, query, known)
    if grid is None:
        return empty(schema, NO_PROGRESS)
    fields = {name: schema.fields[name].kind for name in query.fields}
    numbers = [name for name, kind in fields.items() if kind in ("float", "int")]
    single = numbers[0] if len(fields) == 1 and numbers else None
    picked = _Picked(grid, numbers)
    looked_at = schema if query.corrected else schema._replace(fields={name: schema.fields[name] for name in fields})
    asked = rolled.Asked(db, query, looked_at, codes, known)
    if query.corrected:
        for page in pages(query, PAGE, lambda q: history.rows(db, q, schema, codes)):
            picked.add(page)
    elif level is not None:
        for frame in asked.frames(level):
            picked.add(frame)
    else:
        for frame in _candidates(db, query, looked_at, codes, grid, single):
            picked.add(frame)
    for frame in asked.gone(level):
        picked.add(frame.where(history.holds(frame)) if query.corrected else frame)
    found = picked.frame()
    if found is None:
        return empty(schema, NO_PROGRESS)
    if single is not None:
        found = found.where(~_repeats(found, single))
    found = history.fitting(found.take(np.lexsort((found.seq, found.key, found.time))), schema)
    if known.of(query.stream):
        found = found.where(~_twice(found, list(fields)))
    return found.take(slice(None, None, -1)) if query.descending else found


def _grid(db: apsw.Connection, query: RowsQuery, known: rollup.Known) -> tuple[_Grid | None, Level | None]:
    """Over the span that is asked for; where it has no end, over what the stream has. None: there is nothing in it.

    And the rollup whose intervals it is made of, if they are fine enough.
    """
    levels = known.of(query.stream)
    start, end = query.start, query.end
    if start is None or end is None or end - start > _FAR:
        ends = [ends for name in (query.stream, *(each.name for each in levels)) if (ends := history.ends(db, name))]
        if not ends:
            return None, None
        oldest, newest = min(first for first, _ in ends), max(last for _, last in ends)
        start, end = oldest if start is None else start, newest + 1 if end is None else end
    else:
        oldest = start
    if end <= start:
        return None, None
    width = -(-(end - start) // max(1, query.points // 4))
    level = None if query.corrected else rolled.fitting(levels, width)
    if level is not None:
        start -= start % level.every
        width = -(-width // level.every) * level.every
    return _Grid(start + max(0, (oldest - start) // width) * width, width), level


# --- what is looked at ----------------------------------------------------------------------------------------------


def _candidates(
    db: apsw.Connection, query: RowsQuery, schema: Schema, codes: list[int] | None, grid: _Grid, single: str | None
) -> Iterator[Frame]:
    """All rows that may be chosen; of some chunks only what their summaries tell."""
    parts = history.listed(db, query, codes, by_key=True)
    known: list[tuple[int, int, Any]] = []  # time, key, value
    alone = _alone(parts) if single is not None else set()
    for part in parts:
        if single is not None and part.id in alone and part.table == "chunks" and _within(part, query, grid):
            ((summary,),) = db.execute("SELECT summary FROM chunks WHERE id = ?", (part.id,))
            if told := _told(part, _unpack(summary).get(single)):
                known += told
                continue
        yield history.read(db, part, query, schema, codes)
    if single is not None and known:
        yield _frame(known, schema, single)


def _frame(known: list[tuple[int, int, Any]], schema: Schema, single: str) -> Frame:
    """These rows; the fields that nobody asked for are missing."""
    times, keys, values = zip(*known, strict=True)
    n = len(known)
    columns = {
        name: column(field.kind, list(values) if name == single else [None] * n)
        for name, field in schema.fields.items()
    }
    return Frame(np.array(times, np.int64), np.array(keys, np.int32), np.arange(n), columns, NO_PROGRESS)


def _within(part: Part, query: RowsQuery, grid: _Grid) -> bool:
    inside = (query.start is None or part.first >= query.start) and (query.end is None or part.last < query.end)
    return inside and (part.first - grid.start) // grid.width == (part.last - grid.start) // grid.width


def _told(part: Part, summary: list[Any] | None) -> list[tuple[int, int, Any]] | None:
    """The rows that a summary stands for; None: it does not say enough."""
    if summary is None or summary[0] != part.rows:
        return None  # some are missing or NaN: it does not tell when the first row with a number was
    _, _, low, low_time, high, high_time, first, last = summary
    found = {(part.first, first), (low_time, low), (high_time, high), (part.last, last)}
    if len({time for time, _ in found}) < len(found):
        return None  # two of one time: it does not tell which came before the other
    return [(time, part.key, value) for time, value in found]


def _alone(parts: list[Part]) -> set[int]:
    """Chunks in whose time nothing else may hold a row of their key: what comes first and last in them does so at all."""
    tail = sorted((p.first, p.last) for p in parts if p.table == "frames")
    starts = np.array([first for first, _ in tail], np.int64)
    reach = np.maximum.accumulate(np.array([last for _, last in tail], np.int64)) if tail else starts
    chunks = sorted((p.key, p.first, p.last, p.id) for p in parts if p.table == "chunks")
    if not chunks:
        return set()
    key, first, last, ids = np.array(chunks, np.int64).T
    before = np.searchsorted(starts, last, "right")  # Frames of the tail that begin before a chunk ends
    free = before == 0
    free[~free] = reach[before[~free] - 1] < first[~free]
    same = key[1:] == key[:-1]
    free[1:] &= ~(same & (first[1:] <= _reached(key, last)[:-1]))
    free[:-1] &= ~(same & (first[1:] <= last[:-1]))
    return set(ids[free].tolist())


def _reached(key: Ints, last: Ints) -> Ints:
    """The latest time of a chunk and of those of its key before it."""
    reached = last.copy()
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    for start, end in pairwise([*starts.tolist(), len(key)]):
        np.maximum.accumulate(reached[start:end], out=reached[start:end])
    return reached


# --- what is chosen -------------------------------------------------------------------------------------------------


class _Picked:
    """The rows chosen of those that were added. What is chosen of some, and more, is chosen as from all of them."""

    def __init__(self, grid: _Grid, numbers: list[str]) -> None:
        self.grid = grid
        self.numbers = numbers
        self.pool: list[Frame] = []
        self.pooled = 0
        self.worth = POOL

    def add(self, frame: Frame) -> None:
        if not len(frame):
            return
        self.pool.append(frame)
        self.pooled += len(frame)
        if self.pooled >= self.worth:
            self.pool = [self._chosen()]
            self.pooled = len(self.pool[0])
            self.worth = POOL + 2 * self.pooled

    def frame(self) -> Frame | None:
        return self._chosen() if self.pool else None

    def _chosen(self) -> Frame:
        frame = concatenate(self.pool)
        frame = frame.take(np.lexsort((frame.seq, frame.time, frame.key)))
        span = self.grid.of(frame.time)
        begins = np.append(True, (np.diff(frame.key) != 0) | (np.diff(span) != 0))
        frame = frame.where(rollup.chosen(frame, np.flatnonzero(begins), self.numbers))
        if len(frame) > MOST_ROWS:
            raise Unanswerable(
                f"points: the answer would have more than {MOST_ROWS:,} rows; ask for fewer points, or for some keys"
            )
        return frame


def _repeats(frame: Frame, name: str) -> Bools:
    """True where a row, by key, time and arrival, says what the one before it says: a summary cannot tell them apart."""
    values, known = frame[name].values, frame[name].known()
    same = np.zeros(len(frame), np.bool_)
    alike = (frame.key[1:] == frame.key[:-1]) & (frame.time[1:] == frame.time[:-1])
    same[1:] = alike & known[1:] & known[:-1] & (values[1:] == values[:-1])
    return same


def _twice(frame: Frame, names: list[str]) -> Bools:
    """True where a row is the one before it: a rollup and what it was made of were both looked at."""
    same = np.zeros(len(frame), np.bool_)
    same[1:] = (np.diff(frame.key) == 0) & (np.diff(frame.time) == 0) & (np.diff(frame.seq) == 0)
    for name in names:
        values, known = frame[name].values, frame[name].known()
        equal = values[1:] == values[:-1]
        if values.dtype.kind == "f":
            equal |= np.isnan(values[1:]) & np.isnan(values[:-1])
        same[1:] &= (known[1:] == known[:-1]) & (equal | ~known[1:])
    return same
