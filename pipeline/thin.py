"""Thinning: rows of an interval become one that says what they were, so that weeks fit where days did.

    21.0 at 12:00:01, 22.5 at :04, 21.7 at :09
    -> thinned 3, time 12:00:01, until 12:00:09, v 21.73, v_first 21.0, v_last 21.7, v_min 21.0, v_max 22.5, v_count 3

Rows are grouped by key and interval (aligned to 1970). A number gives its mean under its own name, and first, last, least,
greatest and count beside it; of anything else the last value stays. Thinned rows can be thinned again, to a longer
interval, and give what the readings themselves would have given.

In store the columns that thinning adds have names that no field has; `shown` gives them those that people read.
"""

from __future__ import annotations

import numpy as np

from pipeline.frame import DTYPES, SECOND, Array, Bools, Column, Field, Frame, Ints, Schema

LADDER = tuple(s * SECOND for s in (10, 60, 300, 900, 3_600, 21_600, 86_400))  # level 1, 2, …: ns
PARTS = ("first", "last", "min", "max", "count")
_MARK = "\0"  # stands in the name of each column that thinning adds: "temperature\0min"
THINNED, UNTIL = f"{_MARK}thinned", f"{_MARK}until"
_KINDS = {"f": "float", "i": "int", "b": "bool", "O": "string"}  # of an array; times are whole numbers, too


def is_thinned(frame: Frame) -> bool:
    return THINNED in frame.columns


def readings(frame: Frame) -> int:
    """How many rows these were before they were thinned."""
    return int(frame[THINNED].values.sum()) if is_thinned(frame) else len(frame)


# --- what is shown ---------------------------------------------------------------------------------------------------


def shown(frame: Frame, schema: Schema | None) -> tuple[Frame, Schema]:
    """A Frame out of store and its schema, for people and programs outside: with the names that thinned rows show.

    `schema` is what the stream has by now; the pipeline file may have changed since the rows were stored, or have lost the
    stream (None). What was stored is shown as it was.
    """
    schema = schema or Schema("key", {})
    if schema.fields.keys() == frame.columns.keys() and all(_fits(f, frame[n]) for n, f in schema.fields.items()):
        return frame, schema
    taken = {schema.key or "", "time", "stream", "recovered", *(n for n in frame.columns if _MARK not in n)}
    columns: dict[str, Column] = {}
    fields: dict[str, Field] = {}
    for stored, column in frame.columns.items():
        of, mark, part = stored.partition(_MARK)
        name = of
        if mark:
            name = f"{of}_{part}" if of else part
            while name in taken:  # a stream with the fields t and t_min
                name = f"thinned_{name}"
            taken.add(name)
        known = Field("time") if stored == UNTIL else schema.fields.get(stored)
        columns[name] = column
        fields[name] = Field(known.kind if known and _fits(known, column) else _KINDS[column.values.dtype.kind], True)
    return Frame(frame.time, frame.key, frame.seq, columns, frame.progress), schema._replace(fields=fields)


def _fits(field: Field, column: Column) -> bool:
    return bool(DTYPES[field.kind] == column.values.dtype)


# --- thinning --------------------------------------------------------------------------------------------------------


def thin(frame: Frame, schema: Schema | None, level: int) -> Frame:
    """Rows of one stream, thinned or not, as one for each key and interval of `level`; by time."""
    again = is_thinned(frame)
    if not again:
        frame = _as_thinned(frame, schema)
    interval = frame.time // LADDER[level - 1]
    order = np.lexsort((frame.seq, frame.time, interval, frame.key))
    frame, interval = frame.take(order), interval[order]
    new = np.ones(len(frame), np.bool_)
    new[1:] = (np.diff(frame.key) != 0) | (np.diff(interval) != 0)
    starts = np.flatnonzero(new)
    by_end = frame
    if again:  # a late reading may lie before the end of a thinned row
        by_end = frame.take(np.lexsort((frame[UNTIL].values, np.cumsum(new))))
    columns = {
        THINNED: Column(np.add.reduceat(frame[THINNED].values, starts)),
        UNTIL: Column(np.maximum.reduceat(frame[UNTIL].values, starts)),
    }
    with np.errstate(all="ignore"):  # NaN and infinity are values
        for name in frame.columns:
            if _MARK not in name:
                number = f"{name}{_MARK}count" in frame.columns
                columns |= _number(frame, by_end, name, starts) if number else {name: _last(by_end[name], starts)}
    made = Frame(frame.time[starts], frame.key[starts], frame.seq[starts], columns, frame.progress)
    return made.take(np.lexsort((made.key, made.time)))


def _as_thinned(frame: Frame, schema: Schema | None) -> Frame:
    """Each row stands for itself."""
    columns = {THINNED: Column(np.ones(len(frame), np.int64)), UNTIL: Column(frame.time)}
    times = {name for name, field in schema.fields.items() if field.kind == "time"} if schema else set()
    for name, column in frame.columns.items():
        columns[name] = column
        if column.values.dtype.kind in "fi" and name not in times:
            columns[name] = Column(column.values.astype(np.float64), column.present)
            columns |= {f"{name}{_MARK}{part}": column for part in PARTS[:-1]}
            columns[f"{name}{_MARK}count"] = Column(column.known().astype(np.int64))
    return Frame(frame.time, frame.key, frame.seq, columns, frame.progress)


def _number(frame: Frame, by_end: Frame, name: str, starts: Ints) -> dict[str, Column]:
    first, last, least, greatest, count = (f"{name}{_MARK}{part}" for part in PARTS)
    counts = frame[count].values
    known = counts > 0
    total = np.add.reduceat(counts, starts)
    some = total > 0
    present = None if bool(some.all()) else some
    low = np.minimum.reduceat(_or(frame[least], known, highest=True), starts)
    high = np.maximum.reduceat(_or(frame[greatest], known, highest=False), starts)
    low, high = np.where(some, low, np.zeros_like(low)), np.where(some, high, np.zeros_like(high))
    # Shares and not sums: the sum of large numbers may be beyond what a float holds, their mean is not.
    share = counts / np.repeat(np.maximum(total, 1), np.diff(starts, append=len(frame)))
    mean = np.add.reduceat(np.where(known, frame[name].values * share, 0.0), starts)
    return {
        name: Column(np.clip(mean, low, high), present),
        first: _first(frame[first], starts),
        last: _last(by_end[last], starts),
        least: Column(low, present),
        greatest: Column(high, present),
        count: Column(total),
    }


def _or(column: Column, known: Bools, *, highest: bool) -> Array:
    """The values, and where there is none, one that no other is beyond."""
    values = column.values
    if values.dtype.kind == "f":
        return np.where(known, values, np.inf if highest else -np.inf)
    limits = np.iinfo(values.dtype)
    return np.where(known, values, limits.max if highest else limits.min)


def _first(column: Column, starts: Ints) -> Column:
    n = len(column.values)
    return _at(column, np.minimum.reduceat(np.where(column.known(), np.arange(n), n), starts), starts)


def _last(column: Column, starts: Ints) -> Column:
    return _at(column, np.maximum.reduceat(np.where(column.known(), np.arange(len(column.values)), -1), starts), starts)


def _at(column: Column, rows: Ints, starts: Ints) -> Column:
    """The values at these rows; where the row is none of its group, a missing one: that of the group's first row."""
    found = (rows >= 0) & (rows < len(column.values))
    if bool(found.all()):
        return Column(column.values[rows])
    return Column(column.values[np.where(found, rows, starts)], found)
