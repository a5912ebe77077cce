"""How often each value came to a cell: what median, quantile, distinct and mode are computed from, in bounded memory.

Equal values of a cell are one row with a number, so a cell costs as much as it has different values. Two limits:
- Beyond `EXACT` values, quantiles are those of the values put into buckets: DDSketch (Masson, Rim and Lee, "DDSketch: a
  fast and fully-mergeable quantile sketch with relative-error guarantees", VLDB 2019). A bucket's value is within
  `ERROR` of all that is in it. There are 230 buckets to a factor of ten, and so many for each sign.
- Only the first `DIFFERENT` different values of a cell are told apart; `distinct` says no more, `mode` is one of them.
Both depend on what came to the cell and in which order, and not on when rows are put together: so no cut changes a bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.aggregate.kept import Kept
from pipeline.frame import Array, Bools, Column, Ints

if TYPE_CHECKING:
    from collections.abc import Callable

EXACT = 4_096
DIFFERENT = 4_096
ERROR = 0.005
_GAMMA = (1 + ERROR) / (1 - ERROR)
_TINY = 1e-300  # what is nearer to zero is zero


def bucketed(values: Array) -> Array:
    """The value of each one's bucket; that of a bucket is itself."""
    with np.errstate(all="ignore"):
        size = np.abs(values)
        middle = np.exp(np.ceil(np.log(size) / np.log(_GAMMA)) * np.log(_GAMMA)) * (2 / (_GAMMA + 1))
        found: Array = np.where(size < _TINY, 0.0, np.copysign(middle, values))
    return found


class Counts:
    """The values of one argument in cells numbered from 0 to `cells`, each with how often it came and when first."""

    def __init__(self, cell: Ints, first: Ints, times: Ints, values: Array, cells: int) -> None:
        self.cell, self.first, self.times, self.values = cell, first, times, values
        self.count = np.zeros(cells, np.int64)
        np.add.at(self.count, cell, times)

    def _spread(self, cells: Ints, values: Array) -> Array:
        """`values` of the cells that have some; zeros in the others."""
        n = len(self.count)
        result = np.full(n, "", object) if values.dtype == object else np.zeros(n, values.dtype)
        result[cells] = values
        return result

    def quantile(self, q: float) -> Array:
        """Between the two nearest values, linearly."""
        values = self.values.astype(np.float64) + 0.0  # makes 0 of -0
        many = self.count[self.cell] > EXACT
        values = np.where(many, bucketed(values), values)
        order = np.lexsort((values, self.cell))
        values, upto = values[order], np.cumsum(self.times[order])
        some = np.flatnonzero(self.count)
        before = (np.cumsum(self.count) - self.count)[some]
        exact = (self.count[some] - 1) * q
        below = np.floor(exact).astype(np.int64)
        low = values[np.searchsorted(upto, before + below, "right")]
        next_ = np.minimum(below + 1, self.count[some] - 1)
        high = values[np.searchsorted(upto, before + next_, "right")]
        between = low + (high - low) * (exact - below)
        return self._spread(some, np.where(low == high, low, between))

    def _different(self) -> tuple[Ints, Array, Ints, Ints]:
        """Each different value of each cell once, of a cell by value: the cell, the value, how often, when first."""
        return once(self.cell, self.first, self.times, self.values)

    def distinct(self) -> Ints:
        found = np.bincount(self._different()[0], minlength=len(self.count))
        return np.minimum(found, DIFFERENT)

    def mode(self) -> Array:
        """The most frequent one; of equally frequent ones the smallest."""
        cell, values, times, first = self._different()
        known = np.flatnonzero(among_first(cell, first))
        cell, values, times = cell[known], values[known], times[known]
        order = np.lexsort((np.arange(len(cell)), -times, cell))
        best = order[np.diff(cell[order], prepend=-1) != 0]
        return self._spread(cell[best], values[best])


def once(cell: Ints, first: Ints, times: Ints, values: Array) -> tuple[Ints, Array, Ints, Ints]:
    """Rows of one cell and one value made one; by cell, then value."""
    values = values + 0.0 if values.dtype == np.float64 else values
    different, which = np.unique(values, return_inverse=True)
    order = np.lexsort((first, which, cell))
    cell, which = cell[order], which[order]
    begins = np.flatnonzero((np.diff(cell, prepend=-1) != 0) | (np.diff(which, prepend=-1) != 0))
    if not len(begins):
        return cell, values, times, first
    return cell[begins], different[which[begins]], np.add.reduceat(times[order], begins), first[order][begins]


def among_first(cell: Ints, first: Ints) -> Bools:
    """Which values are among the first `DIFFERENT` of their cell."""
    order = np.lexsort((first, cell))
    begins = np.diff(cell[order], prepend=-1) != 0
    place = np.arange(len(order))
    found = np.empty(len(order), np.bool_)
    found[order] = place - np.maximum.accumulate(np.where(begins, place, 0)) < DIFFERENT
    return found


class Tally(Kept):
    """The values of one argument by cell, each with how often it came and the number of the reading that was first.

    `buckets`: they serve quantiles alone, so those of a cell with many may become those of their buckets.
    """

    def __init__(self, dtype: Any, live: Callable[[Ints], Bools], *, buckets: bool) -> None:
        super().__init__([np.int64, np.float64 if buckets else dtype], live)
        self._buckets = buckets
        self._came = 0

    def count(self, cells: Ints, column: Column) -> None:
        """Readings, in order of arrival."""
        number = np.arange(self._came, self._came + len(cells))
        self._came += len(cells)
        values = column.values
        if column.present is not None:
            there = np.flatnonzero(column.present)
            cells, number, values = cells[there], number[there], values[there]
        self.add(cells, number, [Column(np.ones(len(cells), np.int64)), Column(values)])

    def counts(self, cells: Ints) -> Counts:
        which, first, (times, values) = self.select(cells)
        return Counts(which, first, times.values, values.values, len(cells))

    def _squeezed(self, arrays: list[Array]) -> list[Array]:
        cell, first, times, known, values, _ = arrays
        if not len(cell):
            return arrays
        numbers, which = np.unique(cell, return_inverse=True)
        if self._buckets:
            total = np.zeros(len(numbers), np.int64)
            np.add.at(total, which, times)
            values = np.where(total[which] > EXACT, bucketed(values + 0.0), values)
        which, values, times, first = once(which.astype(np.int64), first, times, values)
        if not self._buckets:
            wanted = among_first(which, first)
            which, values, times, first = which[wanted], values[wanted], times[wanted], first[wanted]
        known = np.ones(len(which), np.bool_)
        return [numbers[which], first, times, known, values, known]

    def snapshot(self) -> list[Any]:
        return [*super().snapshot(), self._came]

    def restore(self, state: Any) -> None:
        *arrays, self._came = state
        super().restore(arrays)
