"""Thinning: rows of an interval become one that says what they were, so that weeks fit where days did.

    21.0 at 12:00:01, 22.5 at :04, 21.7 at :09
    -> thinned 3, time 12:00:01, until 12:00:09, v 21.73, v_first 21.0, v_last 21.7, v_min 21.0, v_max 22.5, v_count 3

Rows are grouped by key and interval (aligned to 1970). A number gives its mean under its own name, and first, last, least,
greatest and count beside it; of anything else the last value stays. Thinned rows can be thinned again, to a longer
interval, and give what the readings themselves would have given.
"""

from __future__ import annotations

import numpy as np

from pipeline.frame import SECOND, Array, Bools, Column, Field, Frame, Ints, Schema

LADDER = tuple(s * SECOND for s in (10, 60, 300, 900, 3_600, 21_600, 86_400))  # level 1, 2, …: ns
_PARTS = ("first", "last", "min", "max")
_NUMBERS = ("float", "int")


def is_thinned(frame: Frame) -> bool:
    return "thinned" in frame.columns and "until" in frame.columns


def schema_of(schema: Schema, frame: Frame) -> Schema:
    """The schema of a Frame that may be thinned."""
    if not is_thinned(frame):
        return schema
    fields: dict[str, Field] = {"thinned": Field("int"), "until": Field("time")}
    for name, field in schema.fields.items():
        if field.kind not in _NUMBERS:
            fields[name] = Field(field.kind, True)
            continue
        fields[name] = Field("float", True)
        fields |= {f"{name}_{part}": Field(field.kind, True) for part in _PARTS}
        fields[f"{name}_count"] = Field("int")
    return Schema(schema.key, fields, schema.role)


def thin(frame: Frame, schema: Schema, level: int) -> Frame:
    """Rows of one stream, thinned or not, as one for each key and interval of `level`; by time."""
    if not is_thinned(frame):
        frame = _as_thinned(frame, schema)
    interval = frame.time // LADDER[level - 1]
    frame = frame.take(np.lexsort((frame.seq, frame.time, interval, frame.key)))
    interval = frame.time // LADDER[level - 1]
    new = np.ones(len(frame), np.bool_)
    new[1:] = (np.diff(frame.key) != 0) | (np.diff(interval) != 0)
    starts = np.flatnonzero(new)
    columns = {
        "thinned": Column(np.add.reduceat(frame["thinned"].values, starts)),
        "until": Column(np.maximum.reduceat(frame["until"].values, starts)),
    }
    for name, field in schema.fields.items():
        columns |= _number(frame, name, starts) if field.kind in _NUMBERS else {name: _last(frame[name], starts)}
    made = Frame(frame.time[starts], frame.key[starts], frame.seq[starts], columns, frame.progress)
    return made.take(np.lexsort((made.key, made.time)))


def _as_thinned(frame: Frame, schema: Schema) -> Frame:
    """Each row stands for itself."""
    columns = {"thinned": Column(np.ones(len(frame), np.int64)), "until": Column(frame.time)}
    for name, field in schema.fields.items():
        column = frame[name]
        columns[name] = column
        if field.kind in _NUMBERS:
            columns[name] = Column(column.values.astype(np.float64), column.present)
            columns |= {f"{name}_{part}": column for part in _PARTS}
            columns[f"{name}_count"] = Column(column.known().astype(np.int64))
    return Frame(frame.time, frame.key, frame.seq, columns, frame.progress)


def _number(frame: Frame, name: str, starts: Ints) -> dict[str, Column]:
    counts = frame[f"{name}_count"].values
    total = np.add.reduceat(counts, starts)
    some = total > 0
    present = None if bool(some.all()) else some
    weighted = np.where(counts > 0, frame[name].values * counts, 0.0)
    mean = np.divide(np.add.reduceat(weighted, starts), total, out=np.zeros(len(starts)), where=some)
    least, greatest = frame[f"{name}_min"], frame[f"{name}_max"]
    low = np.minimum.reduceat(_or(least, counts > 0, highest=True), starts)
    high = np.maximum.reduceat(_or(greatest, counts > 0, highest=False), starts)
    return {
        name: Column(mean, present),
        f"{name}_first": _first(frame[f"{name}_first"], starts),
        f"{name}_last": _last(frame[f"{name}_last"], starts),
        f"{name}_min": Column(np.where(some, low, np.zeros_like(low)), present),
        f"{name}_max": Column(np.where(some, high, np.zeros_like(high)), present),
        f"{name}_count": Column(total),
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
