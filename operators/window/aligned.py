"""Tumbling and hopping windows: those that lie at the same times for all groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from operators.window.parts import NEVER_DUE, Readings, Rows, joined
from pipeline.aggregate.cells import SPAN, Cells, wrapped
from pipeline.aggregate.kept import spans
from pipeline.frame import NEVER

if TYPE_CHECKING:
    from operators.window.grid import Grid
    from operators.window.groups import Groups
    from pipeline.aggregate import Aggregates
    from pipeline.component import State
    from pipeline.frame import Bools, Ints, Progress

_CELL = {"revision": (np.int64, -1), "open": (np.bool_, False)}  # what a cell holds beside its aggregates, at first
_MANY = 64  # windows between the first and the last of a Frame, of which more than there are rows are not listed


class Aligned:
    """A cell for each window and group with readings. `open`: readings have come to it that no row has shown.

    A reading that is not late always comes before its window closes; so those of a Frame are added all at once, then
    windows close, then late ones correct. `at_once`: each reading shows its windows as they are after it.
    """

    def __init__(self, grid: Grid, lateness: int, aggregates: Aggregates, groups: Groups, *, at_once: bool) -> None:
        self.grid = grid
        self.lateness = lateness
        self.aggregates = aggregates
        self.at_once = at_once
        self.cells = Cells({**_CELL, **aggregates.columns})
        self.kept = aggregates.store(self._wanted)
        self._ranks = groups.ranks
        self._next: int | None = None  # the first window with an open cell

    def _wanted(self, cells: Ints) -> Bools:
        # Numbers wrap; the difference to a window that is open, or was just now, does not.
        return cells - wrapped(self.cells.oldest * SPAN) >= 0

    # --- a Frame ---

    def push(self, readings: Readings, progress: Progress) -> tuple[list[Rows], Ints | None]:
        shown, late = self._take(readings, progress) if len(readings.time) else (None, None)
        rows = []
        if self._next is not None and (progress.ended or self.grid.end(self._next) <= progress.watermark):
            rows.append(self._close(progress))
        if shown is not None:
            # Before rows of the same reading: it was judged before it moved the watermark.
            rows.insert(0, self._show(*shown))
        if progress.watermark != NEVER:
            self.cells.oldest = self.grid.first(progress.watermark - self.lateness)
        return rows, late

    def _take(self, readings: Readings, progress: Progress) -> tuple[tuple[Readings, Ints] | None, Ints | None]:
        """Add what waits for its window to close. What shows at once, with its windows; which readings are too late."""
        low, high, window, came = self._windows(readings.time)
        if came is not None:
            if not len(came):
                return None, None
            readings = readings.take(came)
        if not self.at_once and self.grid.end(low) > progress.after:
            self._add(readings, window, low)
            return None, None
        in_time = on_time = readings.seq <= self._passed(progress, window, low, high, 0, len(readings.time))
        late = None
        if not on_time.all():
            if self.lateness:
                limit = self._passed(progress, window, low, high, self.lateness, len(readings.time))
                in_time = readings.seq <= limit
            late = self._refused(in_time, came)
        window = np.broadcast_to(window, readings.time.shape)
        waits = np.flatnonzero(on_time & (not self.at_once))
        if len(waits):
            self._add(readings.take(waits), window[waits], int(window[waits].min()))
        shows = np.flatnonzero(in_time & (~on_time | self.at_once))
        return (readings.take(shows), window[shows]) if len(shows) else None, late

    def _windows(self, time: Ints) -> tuple[int, int, Any, Ints | None]:
        """The first and last window of these times, the windows of all, and which time each is of (None: they are
        one to one)."""
        grid = self.grid
        few = len(time) == 1
        earliest, latest = (int(time[0]),) * 2 if few else (int(time.min()), int(time.max()))
        low, high = grid.first(earliest), grid.last(latest)
        if grid.single:
            return low, high, low if low == high else grid.last(time), None
        first = grid.first(time)
        counts = grid.last(time) - first + 1
        return low, high, spans(first, counts), np.repeat(np.arange(len(time)), counts)

    @staticmethod
    def _refused(taken: Bools, came: Ints | None) -> Ints | None:
        """The readings that no window takes."""
        if came is not None:
            # Of a reading's windows the last one closes last.
            last = np.flatnonzero(np.diff(came, append=-1))
            late = came[last][~taken[last]]
        else:
            late = np.flatnonzero(~taken)
        return late if len(late) else None

    def _passed(self, progress: Progress, window: Any, low: int, high: int, lateness: int, n: int) -> Ints:
        """The arrival number after which the watermark stood at or beyond the end of each window, plus `lateness`."""
        if low == high:
            return progress.passed(np.array([self.grid.end(low) + lateness]))
        if high - low > max(_MANY, n):
            return progress.passed(self.grid.end(window) + lateness)
        passed: Ints = progress.passed(self.grid.end(np.arange(low, high + 1)) + lateness)[window - low]
        return passed

    def _add(self, readings: Readings, window: int | Ints, first: int) -> None:
        slots = self._added(readings, window)
        self.cells["open"][slots] = True
        if self._next is None or first < self._next:
            self._next = first

    def _added(self, readings: Readings, window: int | Ints) -> Ints:
        slots = self.cells.find(window, readings.group)
        self.aggregates.add(self.cells.columns, slots, readings.time, readings.values)
        if self.aggregates.keeps:
            self.kept.add(self._numbers(slots), readings.time, readings.values)
        return slots

    def _numbers(self, slots: Ints) -> Ints:
        numbers: Ints = self.cells["window"][slots] * SPAN + self.cells["group"][slots]
        return numbers

    # --- rows that leave ---

    def _close(self, progress: Progress) -> Rows:
        """A row of every open cell whose window's end the watermark has reached; at the end of the input, of all."""
        is_open, windows = self.cells["open"], self.cells["window"]
        slots = np.flatnonzero(is_open)
        if not progress.ended:
            slots = slots[windows[slots] < self.grid.first(progress.watermark)]
        slots = self._in_order(slots)
        is_open[slots] = False
        left = windows[is_open]
        self._next = int(left.min()) if len(left) else None
        return self._rows(slots, progress.reached(self.grid.end(windows[slots])))

    def early(self, seq: int) -> Rows | None:
        slots = self._in_order(np.flatnonzero(self.cells["open"]))
        if not len(slots):
            return None
        self.cells["open"][slots] = False
        self._next = None
        return self._rows(slots, np.full(len(slots), seq))

    def _in_order(self, slots: Ints) -> Ints:
        """By end, then key."""
        found: Ints = slots[np.lexsort((self._ranks(self.cells["group"][slots]), self.cells["window"][slots]))]
        return found

    def _show(self, readings: Readings, window: Ints) -> Rows:
        """A row for each reading: its cell as it was then. Each turn takes the next reading of every cell."""
        slots = self.cells.find(window, readings.group)
        order = np.argsort(slots, kind="stable")
        begins = np.diff(slots[order], prepend=-1) != 0
        place = np.arange(len(order))
        turn = np.empty(len(order), np.int64)
        turn[order] = place - np.maximum.accumulate(np.where(begins, place, 0))
        by_turn = np.argsort(turn, kind="stable")
        turns = np.split(by_turn, np.cumsum(np.bincount(turn))[:-1])
        parts = []
        for rows in turns:
            one = readings.take(rows)
            parts.append(self._rows(self._added(one, window[rows]), one.seq))
        return joined(parts).take(np.argsort(by_turn))

    def _rows(self, slots: Ints, seq: Ints) -> Rows:
        cells = self.cells
        revision = cells["revision"][slots] + 1
        cells["revision"][slots] = revision
        window = cells["window"][slots]
        start, end = self.grid.start(window), self.grid.end(window)
        kept = self.kept.select(self._numbers(slots)) if self.aggregates.keeps else []
        aggregates = self.aggregates.result(cells.columns, slots, end, kept)
        return Rows(seq, cells["group"][slots], start, end, revision, aggregates)

    # --- time and state ---

    def forget(self, groups: Ints) -> None:
        self.kept.leave_out(lambda cells: np.isin(cells & (SPAN - 1), groups))
        live, oldest = self.cells.live(), self.cells.oldest
        self.cells.restore(self.cells.snapshot(live[~np.isin(self.cells["group"][live], groups)]))
        self.cells.oldest = oldest
        self._look_ahead()

    def due(self) -> int | None:
        return None if self._next is None else min(self.grid.end(self._next), NEVER_DUE)

    def snapshot(self) -> State:
        return {"cells": self.cells.snapshot(self.cells.live()), "rows": self.kept.snapshot()}

    def restore(self, state: State) -> None:
        self.cells.restore(state["cells"])
        self.kept.restore(state["rows"])
        self._look_ahead()

    def _look_ahead(self) -> None:
        left = self.cells["window"][self.cells["open"]]
        self._next = int(left.min()) if len(left) else None
