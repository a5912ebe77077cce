"""Aggregates that are kept up reading by reading: a few numbers for each cell, however many readings there are.

Every sum is added to in order of arrival (`ufunc.at` goes row by row), so it is the same to the last bit however the
readings were cut into Frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.frame import DTYPES, Array, Column, Ints

Columns = Mapping[str, Array]
_INT = np.iinfo(np.int64)
_LOWEST = {"float": -np.inf, "int": _INT.min, "time": _INT.min, "bool": False, "string": ""}
_HIGHEST = {"float": np.inf, "int": _INT.max, "time": _INT.max, "bool": True, "string": ""}

_NO_TIMES: Ints = np.empty(1, np.int64)
_ones = np.ones(1024, np.int64)


def ones(n: int) -> Ints:
    """`np.add.at` with a plain 1 is forty times as slow as with an array."""
    global _ones  # noqa: PLW0603 - a constant that grows
    if n > len(_ones):
        _ones = np.ones(2 * n, np.int64)
    return _ones[:n]


class Readings:
    """The readings of a Frame that have a value of one argument: their slots, times and values, in order of arrival."""

    __slots__ = ("_floats", "slots", "time", "values")

    def __init__(self, slots: Ints, time: Ints, column: Column | None) -> None:
        self._floats: Array | None = None
        if column is None:
            self.slots, self.time = slots, time
            return
        self.slots, self.time, self.values = slots, time, column.values
        if column.present is not None:
            there = np.flatnonzero(column.present)
            self.slots, self.time, self.values = slots[there], time[there], column.values[there]

    @property
    def floats(self) -> Array:
        if self._floats is None:
            self._floats = self.values.astype(np.float64, copy=False)
        return self._floats


class Accumulator:
    """What is kept for each cell of one argument's values. `columns`: name -> (dtype, what a new cell holds)."""

    def __init__(self, name: str, columns: dict[str, tuple[Any, Any]]) -> None:
        self.name = name
        self.columns = {f"{part} {name}" if part else name: kind for part, kind in columns.items()}

    def add(self, columns: Columns, readings: Readings) -> None:
        raise NotImplementedError

    def merge(self, columns: Columns, into: int, other: int) -> None:
        """What one cell holds is added to another. No value of the one is of the same time as one of the other."""
        raise NotImplementedError


class Count(Accumulator):
    """How many values there are. Always the last of an argument's to be told, so that others can ask whether theirs
    is the first one."""

    def __init__(self, text: str) -> None:
        super().__init__(f"count({text})", {"": (np.int64, 0)})

    def add(self, columns: Columns, readings: Readings) -> None:
        np.add.at(columns[self.name], readings.slots, ones(len(readings.slots)))

    def merge(self, columns: Columns, into: int, other: int) -> None:
        columns[self.name][into] += columns[self.name][other]


class Total(Accumulator):
    """Their sum, as a float."""

    def __init__(self, text: str) -> None:
        super().__init__(f"sum({text})", {"": (np.float64, 0.0)})

    def add(self, columns: Columns, readings: Readings) -> None:
        np.add.at(columns[self.name], readings.slots, readings.floats)

    def merge(self, columns: Columns, into: int, other: int) -> None:
        columns[self.name][into] += columns[self.name][other]


class WholeTotal(Accumulator):
    """Their sum as a whole number; wraps beyond 64 bits, which `Total` shows."""

    def __init__(self, text: str) -> None:
        super().__init__(f"whole sum({text})", {"": (np.int64, 0)})

    def add(self, columns: Columns, readings: Readings) -> None:
        np.add.at(columns[self.name], readings.slots, readings.values.astype(np.int64, copy=False))

    def merge(self, columns: Columns, into: int, other: int) -> None:
        columns[self.name][into] += columns[self.name][other]


class Extreme(Accumulator):
    """The lowest or the highest of them."""

    def __init__(self, which: str, text: str, kind: str, count: Count) -> None:
        fill = (_HIGHEST if which == "min" else _LOWEST)[kind]
        super().__init__(f"{which}({text})", {"": (DTYPES[kind], fill)})
        self._extend: Any = (np.minimum if which == "min" else np.maximum).at
        self._count = count.name if kind == "string" else ""  # there is no text above all others to begin with

    def add(self, columns: Columns, readings: Readings) -> None:
        column = columns[self.name]
        if self._count:
            _begin(column, columns[self._count], readings.slots, readings.values)
        self._extend(column, readings.slots, readings.values)

    def merge(self, columns: Columns, into: int, other: int) -> None:
        column = columns[self.name]
        if not self._count or columns[self._count][other]:
            self.add(columns, Readings(np.array([into]), _NO_TIMES, Column(column[other : other + 1])))


class Edge(Accumulator):
    """The first or the last of them by time, and of equal times by arrival."""

    def __init__(self, which: str, text: str, kind: str) -> None:
        first = which == "first"
        zero = "" if kind == "string" else 0
        columns = {"": (DTYPES[kind], zero), "time": (np.int64, _INT.max if first else _INT.min)}
        super().__init__(f"{which}({text})", columns)
        self._earliest = first
        self._add = self._first if first else self._last

    def add(self, columns: Columns, readings: Readings) -> None:
        self._add(columns[self.name], columns[f"time {self.name}"], readings)

    @staticmethod
    def _first(column: Array, times: Ints, r: Readings) -> None:
        before = times[r.slots]
        np.minimum.at(times, r.slots, r.time)
        # Where slots repeat, the last row that is written stays: so they are written from the last to the first.
        rows = np.flatnonzero((r.time < before) & (r.time == times[r.slots]))[::-1]
        column[r.slots[rows]] = r.values[rows]

    @staticmethod
    def _last(column: Array, times: Ints, r: Readings) -> None:
        np.maximum.at(times, r.slots, r.time)
        rows = np.flatnonzero(r.time == times[r.slots])
        column[r.slots[rows]] = r.values[rows]

    def merge(self, columns: Columns, into: int, other: int) -> None:
        column, times = columns[self.name], columns[f"time {self.name}"]
        if times[other] < times[into] if self._earliest else times[other] > times[into]:
            column[into], times[into] = column[other], times[other]


class Moments(Accumulator):
    """Sums of the distance to the first value that came, and of its square.

    Shifted data, as in Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983). The first value
    is in the sample, so its distance from the mean, squared, is at most n times the variance: the relative error stays
    below about n times that of one float, 1e-10 for a million values, however far from zero they lie.
    """

    def __init__(self, text: str, count: Count) -> None:
        kinds = {"base": (np.float64, 0.0), "distance": (np.float64, 0.0), "square": (np.float64, 0.0)}
        super().__init__(f"variance({text})", kinds)
        self._count = count.name

    def add(self, columns: Columns, readings: Readings) -> None:
        base = columns[f"base {self.name}"]
        _begin(base, columns[self._count], readings.slots, readings.floats)
        distance = readings.floats - base[readings.slots]
        np.add.at(columns[f"distance {self.name}"], readings.slots, distance)
        np.add.at(columns[f"square {self.name}"], readings.slots, distance * distance)

    def variance(self, columns: Columns, slots: Ints) -> Array:
        """Of the sample; where there is one value, what 0 / 0 gives."""
        n = columns[self._count][slots]
        distance = columns[f"distance {self.name}"][slots]
        square = columns[f"square {self.name}"][slots]
        result: Array = np.maximum(square - distance * distance / n, 0.0) / (n - 1)
        return result

    def merge(self, columns: Columns, into: int, other: int) -> None:
        base, distance, square = (columns[f"{part} {self.name}"] for part in ("base", "distance", "square"))
        n = columns[self._count]
        if not n[into]:
            base[into] = base[other]
        apart = base[other] - base[into]
        square[into] += square[other] + 2 * apart * distance[other] + n[other] * apart * apart
        distance[into] += distance[other] + n[other] * apart


def _begin(column: Array, count: Ints, slots: Ints, values: Array) -> None:
    """Put the first value that came into the cells that had none."""
    fresh = np.flatnonzero(count[slots] == 0)
    if len(fresh):
        rows = fresh[::-1]  # where slots repeat, the last row that is written stays
        column[slots[rows]] = values[rows]
