"""Slots: a table of columns whose rows are taken and given back, for windows that each group has on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.frame import Array, Ints

if TYPE_CHECKING:
    from collections.abc import Mapping

_LEAST = 64


class Slots:
    """Columns by slot, name -> (dtype, what a new row holds). Names are part of what is saved."""

    def __init__(self, columns: Mapping[str, tuple[Any, Any]]) -> None:
        self._kinds = columns
        self._anew()

    def _anew(self) -> None:
        self.columns = {name: np.full(_LEAST, fill, dtype) for name, (dtype, fill) in self._kinds.items()}
        self._used = np.zeros(_LEAST, np.bool_)
        self._free = np.arange(_LEAST)[::-1].copy()  # the last of them is taken next

    def __getitem__(self, name: str) -> Array:
        """The column of that name; it is another one after a `take` that had to make room."""
        return self.columns[name]

    def take(self, n: int) -> Ints:
        """As many new slots."""
        if n > len(self._free):
            self._grow(n)
        at = len(self._free) - n
        slots, self._free = self._free[at:][::-1], self._free[:at]
        self._used[slots] = True
        return slots

    def _grow(self, n: int) -> None:
        size = len(self._used)
        more = max(n, size)
        self.columns = {
            name: np.append(self.columns[name], np.full(more, fill, dtype))
            for name, (dtype, fill) in self._kinds.items()
        }
        self._used = np.append(self._used, np.zeros(more, np.bool_))
        self._free = np.append(np.arange(size, size + more)[::-1], self._free)

    def give_back(self, slots: Ints) -> None:
        for name, (_, fill) in self._kinds.items():
            self.columns[name][slots] = fill
        self._used[slots] = False
        self._free = np.append(self._free, slots)

    def used(self) -> Ints:
        return np.flatnonzero(self._used)

    def snapshot(self) -> dict[str, Array]:
        """The rows in use, as copies."""
        used = self.used()
        return {name: column[used] for name, column in self.columns.items()}

    def restore(self, columns: Mapping[str, Array]) -> Ints:
        """Back to what `snapshot` gave; the slots of its rows, which may be others than before."""
        self._anew()
        slots = self.take(len(next(iter(columns.values()))))
        for name, values in columns.items():
            self.columns[name][slots] = values
        return slots
