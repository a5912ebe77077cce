"""Readings that are kept for those aggregates that need all values of a cell at its end (rate, time_weighted_mean, …)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.frame import Array, Bools, Column, Ints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LEAST = 16
_TAIL = 4096  # rows that wait to be sorted: looking through so many costs about as much as a search


class Growing:
    """Arrays that grow at their end."""

    __slots__ = ("_arrays", "size")

    def __init__(self, dtypes: Sequence[Any]) -> None:
        self.size = 0
        self._arrays: list[Array] = [np.empty(_LEAST, dtype) for dtype in dtypes]

    def append(self, parts: Sequence[Array]) -> None:
        size = self.size + len(parts[0])
        if size > len(self._arrays[0]):
            self._arrays = [_longer(a, self.size, max(size, 2 * self.size)) for a in self._arrays]
        for array, part in zip(self._arrays, parts, strict=True):
            array[self.size : size] = part
        self.size = size

    @property
    def arrays(self) -> list[Array]:
        return [a[: self.size] for a in self._arrays]


def _longer(array: Array, used: int, size: int) -> Array:
    longer = np.empty(size, array.dtype)
    longer[:used] = array[:used]
    return longer


def spans(starts: Ints, counts: Ints) -> Ints:
    """The numbers from each of `starts` on, as many as `counts` says, one span after the other."""
    before = np.cumsum(counts) - counts
    result: Ints = np.repeat(starts - before, counts) + np.arange(int(counts.sum()))
    return result


class Kept:
    """Rows of cells: the number of the cell, the time, and for each argument its values and a mask.

    Sorted by cell, but for the newest rows, which are sorted in once there are many; then those of cells that are past
    are left out. Within a cell rows stand in order of arrival. `live` tells which cell numbers are still wanted.
    """

    def __init__(self, dtypes: Sequence[Any], live: Callable[[Ints], Bools]) -> None:
        self._dtypes: list[Any] = [np.dtype(np.int64), np.dtype(np.int64)]
        for dtype in dtypes:
            self._dtypes += [np.dtype(dtype), np.dtype(np.bool_)]
        self._live = live
        self._sorted: list[Array] = [np.empty(0, dtype) for dtype in self._dtypes]
        self._tail = Growing(self._dtypes)

    def __len__(self) -> int:
        return len(self._sorted[0]) + self._tail.size

    def add(self, cells: Ints, time: Ints, columns: Sequence[Column]) -> None:
        arrays: list[Array] = [cells, time]
        for c in columns:
            arrays += [c.values, c.known()]
        self._tail.append(arrays)
        if self._tail.size > max(_TAIL, len(self._sorted[0]) // 2):
            self._sort()

    def _sort(self) -> None:
        arrays = [np.concatenate(pair) for pair in zip(self._sorted, self._tail.arrays, strict=True)]
        wanted = np.flatnonzero(self._live(arrays[0]))
        wanted = wanted[np.argsort(arrays[0][wanted], kind="stable")]
        self._sorted = self._squeezed([a[wanted] for a in arrays])
        self._tail = Growing(self._dtypes)

    def _squeezed(self, arrays: list[Array]) -> list[Array]:
        """Rows by cell that say the same with less."""
        return arrays

    def select(self, cells: Ints) -> tuple[Ints, Ints, list[Column]]:
        """The rows of these cells: for each the place of its cell among `cells`, its time, its values."""
        low = np.searchsorted(self._sorted[0], cells)
        counts = np.searchsorted(self._sorted[0], cells, "right") - low
        rows = spans(low, counts)
        which = np.repeat(np.arange(len(cells)), counts)
        arrays = [a[rows] for a in self._sorted]
        if self._tail.size:
            at, place = self._in_tail(cells)
            which = np.concatenate([which, place])
            arrays = [np.concatenate([a, b[at]]) for a, b in zip(arrays, self._tail.arrays, strict=True)]
        columns = [Column(arrays[i], arrays[i + 1]) for i in range(2, len(arrays), 2)]
        return which, arrays[1], columns

    def _in_tail(self, cells: Ints) -> tuple[Ints, Ints]:
        """The rows of the tail that are of these cells, and the place of each one's cell."""
        tail = self._tail.arrays[0]
        if len(cells) == 1:
            at = np.flatnonzero(tail == cells[0])
            return at, np.zeros(len(at), np.int64)
        order = np.argsort(cells)
        place = order[np.minimum(np.searchsorted(cells, tail, sorter=order), len(cells) - 1)]
        at = np.flatnonzero(cells[place] == tail)
        return at, place[at]

    def move(self, cell: int, to: int) -> None:
        """The rows of a cell become those of another one, which had none of the same times."""
        self._sort()
        low, high = np.searchsorted(self._sorted[0], [cell, cell + 1]).tolist()
        moved = [a[low:high] for a in self._sorted]
        moved[0] = np.full(high - low, to, np.int64)
        self._sorted = [np.delete(a, slice(low, high)) for a in self._sorted]
        self._tail.append(moved)

    def leave_out(self, gone: Callable[[Ints], Bools]) -> None:
        """Drop the rows of the cells of which this is true."""
        self._sort()
        left = ~gone(self._sorted[0])
        self._sorted = [a[left] for a in self._sorted]

    def snapshot(self) -> list[Any]:
        self._sort()
        return [a.copy() for a in self._sorted]

    def restore(self, state: Sequence[Array]) -> None:
        self._sorted = [np.array(a, dtype) for a, dtype in zip(state, self._dtypes, strict=True)]
        self._tail = Growing(self._dtypes)
