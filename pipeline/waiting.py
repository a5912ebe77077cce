"""Readings that wait until the watermark has passed their time, and then are given in the order of their times."""

from __future__ import annotations

import numpy as np

from pipeline.frame import Frame, concatenate

FAR = 2**63 - 1  # after all times
_MANY = 1_024  # rows that are looked through for each Frame without being in order


class Waiting:
    """Most of what waits lies in order, so that what is taken is its beginning; what came since is put in once it is many."""

    def __init__(self, nothing: Frame) -> None:
        self.first = FAR  # the earliest time
        self._nothing = nothing
        self._ordered = nothing
        self._recent: list[Frame] = []

    def add(self, rows: Frame) -> None:
        self._recent.append(rows)
        self.first = min(self.first, int(rows.time.min()))

    def take(self, before: int) -> Frame:
        """The rows dated before `before`, by time; of equal times in order of arrival."""
        if self.first >= before:
            return self._nothing
        recent = concatenate(self._recent) if self._recent else self._nothing
        goes = recent.time < before
        stays = recent.where(~goes)
        end = int(np.searchsorted(self._ordered.time, before))
        taken = _by_time(self._ordered.take(slice(0, end)), recent.where(goes))
        self._ordered = self._ordered.take(slice(end, None))
        if len(stays) > _MANY + len(self._ordered) // 4:
            self._ordered, stays = _by_time(self._ordered, stays), self._nothing
        self._recent = [stays] if len(stays) else []
        self.first = min(int(part.time.min(initial=FAR)) for part in (self._ordered, stays))
        return taken

    def rows(self) -> Frame:
        """All that waits, by time."""
        return _by_time(self._ordered, *self._recent)

    def put_back(self, rows: Frame) -> None:
        """What `rows` gave, into one in which nothing waits."""
        self._ordered = rows
        self.first = int(rows.time.min(initial=FAR))


def _by_time(*parts: Frame) -> Frame:
    """Each part came after the one before it."""
    rows = concatenate(parts)
    return rows.take(np.argsort(rows.time, kind="stable"))
