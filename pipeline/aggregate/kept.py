"""Rows that a window keeps for those aggregates that need all values at its end (median, rate, …)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.aggregate.cells import SPAN
from pipeline.frame import Array, Bools, Column, Ints

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEAST = 16


class _Rows:
    """Arrays that grow at their end."""

    __slots__ = ("arrays", "size")

    def __init__(self, dtypes: Sequence[Any]) -> None:
        self.size = 0
        self.arrays: list[Array] = [np.empty(_LEAST, dtype) for dtype in dtypes]

    def append(self, parts: Sequence[Array]) -> None:
        size = self.size + len(parts[0])
        if size > len(self.arrays[0]):
            self.arrays = [_longer(a, self.size, max(size, 2 * self.size)) for a in self.arrays]
        for array, part in zip(self.arrays, parts, strict=True):
            array[self.size : size] = part
        self.size = size


def _longer(array: Array, used: int, size: int) -> Array:
    longer = np.empty(size, array.dtype)
    longer[:used] = array[:used]
    return longer


class Kept:
    """Rows by window, in order of arrival: the group, the time, and for each argument its values and a mask."""

    def __init__(self, dtypes: Sequence[Any]) -> None:
        self._dtypes: list[Any] = [np.dtype(np.int64), np.dtype(np.int64)]
        for dtype in dtypes:
            self._dtypes += [np.dtype(dtype), np.dtype(np.bool_)]
        self.windows: dict[int, _Rows] = {}

    def add(self, window: int | Ints, group: Ints, time: Ints, columns: Sequence[Column]) -> None:
        arrays: list[Array] = [group, time]
        for c in columns:
            arrays += [c.values, c.known()]
        if isinstance(window, int):
            self._append(window, arrays)
            return
        order = np.argsort(window, kind="stable")
        arrays = [a[order] for a in arrays]
        window = window[order]
        starts = np.flatnonzero(np.diff(window, prepend=window[0] - 1))
        ends = [*starts[1:].tolist(), len(window)]
        for w, start, end in zip(window[starts].tolist(), starts.tolist(), ends, strict=True):
            self._append(w, [a[start:end] for a in arrays])

    def _append(self, window: int, arrays: Sequence[Array]) -> None:
        rows = self.windows.get(window)
        if rows is None:
            rows = self.windows[window] = _Rows(self._dtypes)
        rows.append(arrays)

    def drop(self, oldest: int) -> None:
        """Forget the windows before this one."""
        for window in [w for w in self.windows if w < oldest]:
            del self.windows[window]

    def select(self, window: Ints, group: Ints) -> tuple[Ints, Ints, list[Column]]:
        """The rows of these cells: for each the number of its cell, its time, its values; each cell's in order of
        arrival. Every cell has rows."""
        windows, cell_window = np.unique(window, return_inverse=True)
        found = [self.windows[w] for w in windows.tolist()]
        joined = [np.concatenate([r.arrays[i][: r.size] for r in found]) for i in range(len(self._dtypes))]
        row_window = np.repeat(np.arange(len(found)), [r.size for r in found])
        cell_id = cell_window.astype(np.int64) * SPAN + group
        row_id = row_window * SPAN + joined[0]
        order = np.argsort(cell_id, kind="stable")
        place = np.minimum(np.searchsorted(cell_id, row_id, sorter=order), len(order) - 1)
        cell: Ints = order[place]
        wanted: Bools = cell_id[cell] == row_id
        if not wanted.all():
            cell, joined = cell[wanted], [a[wanted] for a in joined]
        columns = [Column(joined[i], joined[i + 1]) for i in range(2, len(joined), 2)]
        return cell, joined[1], columns

    def snapshot(self) -> list[Any]:
        return [[w, *(a[: r.size].copy() for a in r.arrays)] for w, r in sorted(self.windows.items())]

    def restore(self, state: list[Any]) -> None:
        self.windows = {}
        for window, *arrays in state:
            self._append(window, arrays)
