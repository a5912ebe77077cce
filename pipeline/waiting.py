"""Readings that wait until the watermark has passed their time, and then are given in the order of their times."""

from __future__ import annotations

import numpy as np

from pipeline.frame import Array, Frame, concatenate

FAR = 2**63 - 1  # after all times
_MANY = 1_024  # Frames that lie by themselves: each takes far more memory than its rows
_PART = 8  # what came since is put in order with the rest once it is this part of it


class Waiting:
    """What came first lies in order, so that what is taken is its beginning; what came since is put in once it is many.

    Most Frames let a few rows go, or none: what they cost does not rise with all that waits.
    """

    def __init__(self, nothing: Frame) -> None:
        self._nothing = nothing
        self._ordered = nothing
        self._begin = 0  # the rows of `_ordered` before it have been taken
        self._recent: list[Frame] = []
        self._ordered_first = self._recent_first = FAR
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def first(self) -> int:
        """The earliest time."""
        return min(self._ordered_first, self._recent_first)

    def add(self, rows: Frame) -> None:
        """At least one."""
        self._recent.append(rows)
        self._recent_first = min(self._recent_first, int(rows.time.min()))
        self._count += len(rows)
        if len(self._recent) > _MANY:
            self._keep_recent(concatenate(self._recent))

    def take(self, before: int) -> Frame:
        """The rows dated before `before`, by time; of equal times in order of arrival."""
        if self.first >= before:
            return self._nothing
        parts = []
        if self._ordered_first < before:
            parts.append(self._take_ordered(before))
        if self._recent_first < before:
            parts.append(self._take_recent(before))
        taken = parts[0] if len(parts) == 1 else _by_time(parts)
        self._count -= len(taken)
        return taken

    def _take_ordered(self, before: int) -> Frame:
        time = self._ordered.time
        end = int(np.searchsorted(time, before))
        taken = self._ordered.take(slice(self._begin, end))
        if end < len(time):
            self._begin, self._ordered_first = end, int(time[end])
        else:
            self._ordered, self._begin, self._ordered_first = self._nothing, 0, FAR
        return taken

    def _take_recent(self, before: int) -> Frame:
        recent = concatenate(self._recent)
        goes = recent.time < before
        if goes.all():
            self._recent, self._recent_first = [], FAR
            return _by_time([recent])
        self._keep_recent(recent.where(~goes))
        return _by_time([recent.where(goes)])

    def _keep_recent(self, rows: Frame) -> None:
        waits = len(self._ordered.time) - self._begin
        if len(rows) * _PART > waits:
            self._put_in_order(_by_time([self._ordered.take(slice(self._begin, None)), rows]))
        else:
            self._recent, self._recent_first = [rows], int(rows.time.min())

    def rows(self) -> Frame:
        """All that waits, by time."""
        return _by_time([self._ordered.take(slice(self._begin, None)), *self._recent])

    def forget(self, keys: Array) -> None:
        """Nothing of these keys waits any more."""
        rows = self.rows()
        self.put_back(rows.where(~np.isin(rows.key, keys)))

    def put_back(self, rows: Frame) -> None:
        """All that waits from now on: what `rows` gave, or some of it."""
        self._put_in_order(rows)
        self._count = len(rows)

    def _put_in_order(self, rows: Frame) -> None:
        self._ordered, self._begin = rows, 0
        self._recent, self._recent_first = [], FAR
        self._ordered_first = int(rows.time[0]) if len(rows) else FAR


def _by_time(parts: list[Frame]) -> Frame:
    """Each part came after the one before it."""
    rows = concatenate(parts)
    return rows if len(rows) < 2 else rows.take(np.argsort(rows.time, kind="stable"))
