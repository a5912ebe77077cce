"""Cells: one for each open window and group that has readings; where their running aggregates lie.

A hash table over columns. `find` gives the slots of all rows of a Frame in about ten numpy calls, whatever the number
of windows and groups, and costs nothing for groups that say nothing. A cell is not freed when its window is past:
when there is no more room, the table is built anew with those that are still wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.frame import NEVER, Array, Ints

if TYPE_CHECKING:
    from collections.abc import Mapping

SPAN = 1 << 24  # groups of one window: above every key code, as there are at most MOST_CODES
EMPTY = -1  # no cell's number: its group would be 2**24 - 1
_GOLDEN = 0.6180339887498949  # windows that follow each other start as far from each other as can be
_JUMP = 0x9E3779B1  # odd, so that it comes by every place
_LEAST = 64
_FIRST = 512  # rows in which most groups of a Frame have spoken


class Cells:
    """(window, group) -> slot, and columns by slot. Names of columns are part of what is saved."""

    def __init__(self, columns: Mapping[str, tuple[Any, Any]]) -> None:
        self._kinds = {"window": (np.int64, 0), "group": (np.int64, 0), **columns}
        self.oldest = NEVER  # windows before this one are past: their cells need not be kept
        self._anew(0)

    def __getitem__(self, name: str) -> Array:
        """The column of that name; it is another one after a `find` that had to make room."""
        return self.columns[name]

    def __len__(self) -> int:
        """Slots in use, those of past windows included."""
        return self._used

    def _anew(self, cells: int) -> None:
        self._used = 0
        self._limit = max(_LEAST, 2 * cells)
        places = 1 << (2 * self._limit - 1).bit_length()  # never more than half of them taken
        self._mask = places - 1
        self._stride = int(places * _GOLDEN) | 1
        self._ids = np.full(places, EMPTY, np.int64)
        self._slots = np.zeros(places, np.int64)
        self.columns = {name: np.full(self._limit, fill, dtype) for name, (dtype, fill) in self._kinds.items()}

    def find(self, window: int | Ints, group: Ints) -> Ints:
        """The slot of each row; cells that were not there are added."""
        # Products wrap at 64 bits: cells are one only if their windows lie a multiple of 2**40 apart. Open ones do not.
        base: Any
        home: Any
        if isinstance(window, int):
            base, home = wrapped(window * SPAN), window * self._stride & self._mask
        else:
            base, home = window * SPAN, window * self._stride
        ids = group + base
        at = (group + home) & self._mask
        strange = self._ids[at] != ids
        if strange.any():
            pending = np.flatnonzero(strange)
            # When a window begins, the first rows bring most of its groups, and it is cheap to look again.
            if not self._settle(window, group, ids, at, pending[:_FIRST]):
                return self.find(window, group)
            if len(pending) > _FIRST:
                pending = pending[self._ids[at[pending]] != ids[pending]]
                if not self._settle(window, group, ids, at, pending):
                    return self.find(window, group)
        slots: Ints = self._slots[at]
        return slots

    def _settle(self, window: int | Ints, group: Ints, ids: Ints, at: Ints, pending: Ints) -> bool:
        """Go on from `at`, for these rows, to the place of each one's cell, or to an empty place, where a new cell is
        made. False: there was no room; there is now, and places have changed."""
        while len(pending):
            place = at[pending]
            free = np.flatnonzero(self._ids[place] == EMPTY)
            if len(free) and not self._make(window, group, ids, at, pending[free]):
                return False
            pending = pending[self._ids[place] != ids[pending]]
            at[pending] = (at[pending] + _JUMP) & self._mask
        return True

    def _make(self, window: int | Ints, group: Ints, ids: Ints, at: Ints, rows: Ints) -> bool:
        """New cells for rows that came to an empty place. Many may want one place: the last to write its number there
        gets it."""
        place = at[rows]
        number = np.arange(len(rows))
        self._slots[place] = number
        rows = rows[self._slots[place] == number]
        if self._used + len(rows) > self._limit:
            self._make_room(len(rows))
            return False
        slots = np.arange(self._used, self._used + len(rows))
        self.columns["window"][slots] = window if isinstance(window, int) else window[rows]
        self.columns["group"][slots] = group[rows]
        self._ids[at[rows]] = ids[rows]
        self._slots[at[rows]] = slots
        self._used += len(rows)
        return True

    def _make_room(self, more: int) -> None:
        live = self.live()
        kept = self.snapshot(live)
        self._anew(len(live) + more)
        self._put(kept)

    def _put(self, columns: Mapping[str, Array]) -> None:
        n = len(columns["window"])
        slots = self.find(columns["window"], columns["group"]) if n else np.empty(0, np.int64)
        for name, values in columns.items():
            self.columns[name][slots] = values

    def live(self) -> Ints:
        """The slots of the windows that are not past."""
        return np.flatnonzero(self.columns["window"][: self._used] >= self.oldest)

    def snapshot(self, slots: Ints) -> dict[str, Array]:
        """These cells, as copies."""
        return {name: column[slots] for name, column in self.columns.items()}

    def restore(self, columns: Mapping[str, Array]) -> None:
        """Back to what `snapshot` gave, also from a later moment: none of these cells is past yet."""
        self.oldest = NEVER
        self._anew(len(columns["window"]))
        self._put(columns)


def wrapped(number: int) -> int:
    """As 64 bits hold it."""
    return (number + 2**63) % 2**64 - 2**63
