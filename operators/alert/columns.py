"""Columns by key: the readings of each key together, and what came before each of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.frame import Array, Bools, Ints, by_code


class ByKey(NamedTuple):
    """Positions in a Frame, those of a key together and in order of arrival."""

    rows: Ints
    key: Array
    first: Bools  # the first of its key

    @classmethod
    def of(cls, key: Array, rows: Ints) -> ByKey:
        if len(rows) < 2:
            return cls.of_sorted(rows, key[rows])
        rows = rows[by_code(key[rows])]
        return cls.of_sorted(rows, key[rows])

    @classmethod
    def of_sorted(cls, rows: Ints, key: Array) -> ByKey:
        first = np.ones(len(key), np.bool_)
        np.not_equal(key[1:], key[:-1], out=first[1:])
        return cls(rows, key, first)

    def starts(self) -> Ints:
        return np.flatnonzero(self.first)

    def last(self) -> Bools:
        """The last of its key."""
        if len(self.first) < 2:
            return self.first
        last = np.empty(len(self.first), np.bool_)
        last[-1:] = True
        last[:-1] = self.first[1:]
        return last

    def before(self, values: Array, start: Array) -> Array:
        """The value before each; `start` of its key, where it is the first."""
        if len(values) < 2:
            return start
        result = np.empty_like(values)
        result[1:] = values[:-1]
        result[self.first] = start[self.first]
        return result

    def highest(self, values: Ints) -> Ints:
        """The highest so far of the key."""
        if len(values) < 2:
            return values
        falls = (values[1:] < values[:-1]) & ~self.first[1:]
        if not falls.any():
            return values
        highest = values.copy()
        starts = self.starts()
        longest = int(np.diff(starts, append=len(values)).max())
        ahead = 1
        while ahead < longest:  # of twice as many each time
            same = self.key[ahead:] == self.key[:-ahead]
            highest[ahead:] = np.where(same, np.maximum(highest[ahead:], highest[:-ahead]), highest[ahead:])
            ahead *= 2
        return highest
