"""Aggregates that need all values of a cell in the order of time, computed for many cells together."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from pipeline.frame import SECOND, Array, Column, Ints, by_code


class Values:
    """The values of one argument, in cells numbered from 0 to `cells`, sorted once."""

    def __init__(self, cell: Ints, time: Ints, column: Column, ends: Ints) -> None:
        if column.present is not None and not column.present.all():
            there = np.flatnonzero(column.present)
            cell, time, column = cell[there], time[there], column.take(there)
        self._cell = cell
        self._time = time
        self._values = column.values
        self._ends = ends
        self.count: Ints = np.bincount(cell, minlength=len(ends))
        self.some = np.flatnonzero(self.count)  # the cells that have values
        self._starts = (np.cumsum(self.count) - self.count)[self.some]

    def _spread(self, values: Array) -> Array:
        """`values` of the cells that have some; zeros in the others."""
        result = (
            np.full(len(self._ends), "", object) if values.dtype == object else np.zeros(len(self._ends), values.dtype)
        )
        result[self.some] = values
        return result

    # --- by time ---

    @cached_property
    def _by_time(self) -> tuple[Ints, Ints, Array]:
        """Cell, time and value; of equal times that which came first."""
        order = _grouped(self._cell, np.argsort(self._time, kind="stable"))
        return self._cell[order], self._time[order], self._values[order].astype(np.float64)

    def rate(self) -> Array:
        """Increase per second from the first to the last; a counter that fell has begun again at 0."""
        cell, time, value = self._by_time
        same = cell[1:] == cell[:-1]
        grown = value[1:] - value[:-1]
        grown = np.where(grown < 0, value[1:], grown)
        increase = np.zeros(len(self._ends))
        np.add.at(increase, cell[1:][same], grown[same])
        seconds = self._spread((time[self._starts + self.count[self.some] - 1] - time[self._starts]) / SECOND)
        result: Array = increase / seconds
        return result

    def time_weighted_mean(self) -> Array:
        """Each value weighs as long as it holds: until the next one, the last one until the cell's end."""
        cell, time, value = self._by_time
        until = np.append(time[1:], 0)
        last = self._starts + self.count[self.some] - 1
        until[last] = self._ends[self.some]
        first_value = self._spread(value[self._starts])
        first_time = self._spread(time[self._starts])
        # As distances to the first value, so that a value that never changes is its own mean to the last bit.
        weighed = np.zeros(len(self._ends))
        np.add.at(weighed, cell, (value - first_value[cell]) * (until - time))
        result: Array = first_value + weighed / (self._ends - first_time)
        return result


def _grouped(cell: Ints, order: Ints) -> Ints:
    """`order`, brought together by cell."""
    return order[by_code(cell[order])]
