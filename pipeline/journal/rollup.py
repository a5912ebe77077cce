"""Rollups: of each key and interval the rows that a chart needs, and how many there were and their sums.

A rollup of NAME is a stream of the history like any other, `NAME/INTERVAL`. Its rows are rows of NAME: of each key in each
interval the first, the last, and the first of the least and of the greatest of every number. So what is chosen of them for a
chart whose pixels are whole intervals is what would be chosen of all rows. The first of them also says how many rows the
interval had (`#rows`), and of each number how many were there (`#n NAME`) and their sum (`#sum NAME`).

Each row of NAME enters a rollup once: when it leaves the tail of the history for a chunk, or is dropped before it got so
far, in that transaction. An interval that came in several parts is added up when it is read, and when the rollup is
rearranged itself. Windows may yet be corrected: they enter when they are dropped from the history, as they hold then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import apsw
import msgspec
import numpy as np

from pipeline.frame import Array, Bools, Column, Frame, Ints, Schema
from pipeline.quantity import Duration

_ROWS, _COUNT, _SUM = "#rows", "#n ", "#sum "  # names of columns, as they are in every database
_INTERVALS = 500_000  # of a key, kept unless the pipeline file says for how long: a minute's for almost a year
_LONGEST = 100 * 365 * 86_400 * 10**9  # ns
_DIGITS = 12  # of a sum of floats: short to write, and the same however the rows were cut, but for their very last bits


class Wanted(NamedTuple):
    """What the pipeline file says of the rollups of one stream."""

    every: tuple[int, ...]  # ns, each
    corrected: bool  # its rows are windows that may be corrected


NONE = Wanted((), False)


class Level(NamedTuple):
    """A rollup."""

    stream: str
    every: int
    bit: int  # in `chunks.rolled`

    @property
    def name(self) -> str:
        return f"{self.stream}/{self.every}"


def age_of(every: int) -> int:
    """How long a rollup is kept, ns, unless the pipeline file says so."""
    return min(every * _INTERVALS, _LONGEST)


def interval_of(stream: str) -> int | None:
    """Of a stream that is a rollup; no other has a slash in its name."""
    _, slash, every = stream.partition("/")
    return int(every) if slash else None


def in_words(stream: str) -> str:
    """A stream, or a rollup as a person calls it."""
    every = interval_of(stream)
    return stream if every is None else f"{stream.partition('/')[0]} every {Duration(every)}"


# --- which there are ------------------------------------------------------------------------------------------------


class Known(msgspec.Struct):
    """All that the database has had, also those that the pipeline file no longer names."""

    levels: dict[str, list[int]] = {}  # intervals, in the order of their bits
    gone: dict[str, int] = {}  # by stream or rollup: the time before which rows of it have been dropped

    def of(self, stream: str) -> list[Level]:
        """The finest first."""
        return sorted(Level(stream, every, 1 << i) for i, every in enumerate(self.levels.get(stream, ())))


def known(db: apsw.Connection) -> Known:
    for (value,) in db.execute("SELECT value FROM meta WHERE name = 'rollups'"):
        return msgspec.msgpack.decode(value, type=Known)
    return Known()


def _save(db: apsw.Connection, known: Known) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES ('rollups', ?)", (msgspec.msgpack.encode(known),))


def register(db: apsw.Connection, wanted: Mapping[str, Wanted]) -> None:
    """In a transaction: from now on these are made."""
    found, new = known(db), False
    for stream, of_stream in wanted.items():
        intervals = found.levels.setdefault(stream, [])
        for every in of_stream.every:
            if every not in intervals:
                intervals.append(every)
                new = True
    if new:
        _save(db, found)


def levels(db: apsw.Connection, stream: str, wanted: Wanted) -> list[Level]:
    """Those of a stream that are made."""
    return [level for level in known(db).of(stream) if level.every in wanted.every] if wanted.every else []


def mask_of(levels: Collection[Level]) -> int:
    return sum(level.bit for level in levels)


def lost(db: apsw.Connection, stream: str, before: int) -> None:
    """In a transaction: rows of this stream, or rollup, from before this time have been dropped."""
    found = known(db)
    if stream.partition("/")[0] in found.levels and found.gone.get(stream, before - 1) < before:
        found.gone[stream] = before
        _save(db, found)


# --- how they are made ----------------------------------------------------------------------------------------------


def reduced(frame: Frame, every: int) -> Frame:
    """What a rollup keeps of these rows: rows of its stream, or its own. By key and time."""
    frame = _counted(frame)
    frame = frame.take(np.lexsort((frame.seq, frame.time, frame.key)))
    begins = np.append(True, (np.diff(frame.key) != 0) | (np.diff(frame.time // every) != 0))
    starts = np.flatnonzero(begins)
    numbers = [name for name in frame.columns if _COUNT + name in frame.columns]
    keep = chosen(frame, starts, numbers)
    sums = {
        name: np.add.reduceat(column.values, starts) for name, column in frame.columns.items() if name.startswith("#")
    }
    for name in numbers:
        if frame[name].values.dtype.kind == "f":
            sums[_SUM + name] = _short(sums[_SUM + name])
    frame, first = frame.where(keep), begins[keep]
    columns = {}
    for name, values in sums.items():
        column = np.zeros(len(frame), values.dtype)
        column[first] = values
        columns[name] = Column(column, first)
    return frame.with_columns(columns)


def _counted(frame: Frame) -> Frame:
    """Rows of the stream with what each counts for; those of a rollup have that."""
    if _ROWS in frame.columns:
        return frame
    numbers = [name for name, column in frame.columns.items() if column.values.dtype.kind in "fi"]
    return frame.with_columns(_of_each(frame, numbers))


def _of_each(frame: Frame, numbers: Collection[str]) -> dict[str, Column]:
    columns = {_ROWS: Column(np.ones(len(frame), np.int64))}
    for name in numbers:
        there = numbers_of(frame[name])
        columns[_COUNT + name] = Column(there.astype(np.int64))
        columns[_SUM + name] = Column(np.where(there, frame[name].values, 0).astype(np.float64))
    return columns


def counts(frame: Frame, schema: Schema) -> dict[str, Column]:
    """What rows of a stream, or its rollup, count for, of the numbers of today: the pipeline file may have had others."""
    names = [name for name, field in schema.fields.items() if field.kind in ("float", "int")]
    old = [name for name in names if name in frame.columns and frame[name].values.dtype.kind in "fi"]
    found = {name: frame[name] for name in frame.columns if name.startswith("#")} or _of_each(frame, old)
    none = {_COUNT: Column(np.zeros(len(frame), np.int64)), _SUM: Column(np.zeros(len(frame)))}
    columns = {_ROWS: found[_ROWS]}
    for name in names:
        columns |= {what + name: found.get(what + name, none[what]) for what in (_COUNT, _SUM)}
    return columns


def _short(x: Array) -> Array:
    with np.errstate(all="ignore"):
        scale = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(np.abs(x))))
        rounded = np.rint(x * scale) / scale
    return np.where(np.isfinite(rounded), rounded, x)


def numbers_of(column: Column) -> Bools:
    """True where there is a number; NaN is none."""
    known = column.known()
    return known & ~np.isnan(column.values) if column.values.dtype.kind == "f" else known


def chosen(frame: Frame, starts: Ints, numbers: Collection[str]) -> Bools:
    """Of each group of rows that are in order, which begin at `starts`: the first, the last, and the first of the least and
    of the greatest of these columns."""
    lengths = np.diff(starts, append=len(frame))
    keep = np.zeros(len(frame), np.bool_)
    keep[starts] = True
    keep[starts + lengths - 1] = True
    group = np.repeat(np.arange(len(starts)), lengths)
    for name in numbers:
        values, there = frame[name].values, numbers_of(frame[name])
        for extreme in (np.minimum, np.maximum):
            best = extremes(frame[name], there, starts, extreme)
            hits = np.flatnonzero(there & (values == best[group]))
            keep[hits[np.append(True, np.diff(group[hits]) != 0)[: len(hits)]]] = True
    return keep


def extremes(column: Column, there: Bools, starts: Ints, extreme: np.ufunc) -> Array:
    """The least or the greatest of each group; of one without a number, what is worse than any."""
    if column.values.dtype.kind == "f":
        worst: float = np.inf if extreme is np.minimum else -np.inf
    else:
        bounds = np.iinfo(np.int64)
        worst = bounds.max if extreme is np.minimum else bounds.min
    found: Array = extreme.reduceat(np.where(there, column.values, worst), starts)
    return found


# --- what they say --------------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """Of each key and interval."""

    key: Ints
    start: Ints  # of the interval, ns
    rows: Ints
    fields: dict[str, tuple[Ints, Array, Array, Array]]  # of each number: how many, sum, least, greatest


def said(frame: Frame, every: int) -> Said:
    """Of rows of a stream or its rollup. The least and the greatest of none say nothing."""
    frame = reduced(frame, every)
    starts = np.flatnonzero(frame[_ROWS].known())
    fields = {}
    for name in [name for name in frame.columns if _COUNT + name in frame.columns]:
        there = numbers_of(frame[name])
        least, greatest = (extremes(frame[name], there, starts, e) for e in (np.minimum, np.maximum))
        counts, sums = frame[_COUNT + name].values[starts], frame[_SUM + name].values[starts]
        fields[name] = (counts, sums, least, greatest)
    at = frame.time[starts]
    return Said(frame.key[starts], at - at % every, frame[_ROWS].values[starts], fields)
