"""Sliding windows: one that ends at each reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from operators.window.parts import Readings, Rows, joined
from pipeline.aggregate.kept import spans
from pipeline.frame import DTYPES, Column

if TYPE_CHECKING:
    from collections.abc import Callable

    from operators.window.groups import Groups
    from pipeline.aggregate import Aggregates
    from pipeline.component import State
    from pipeline.frame import Array, Ints, Progress

_WAITS = 2**63 - 1  # in `shown`: the row has not left
_MOST = 1 << 18  # readings of windows that are gathered at a time: bounds what a Frame needs beside the state
_FEW = 4  # rows that are looked for, or put in, one by one: all at once takes more calls


class Sliding:
    """All readings that a window may still need, by group, time and arrival.

    `number`: in order of arrival. `shown`: the number of the last reading that had come when its row left. So what was
    in a window when its row left can be asked at any time: the readings of its span with a number up to that one.
    """

    def __init__(self, size: int, lateness: int, aggregates: Aggregates, groups: Groups) -> None:
        self.size = size
        self.lateness = lateness
        self.aggregates = aggregates
        self._ranks = groups.ranks
        self.group, self.time, self.number, self.shown, self.revision = (np.empty(0, np.int64) for _ in range(5))
        self.values = [
            Column(np.empty(0, DTYPES[a.kind]), np.empty(0, np.bool_)) for a in aggregates.arguments.values()
        ]
        self._came = 0  # readings so far
        self._ended = False  # an early end of the input may have shown rows before their time
        self._watermark = -_WAITS

    # --- a Frame ---

    def push(self, readings: Readings, progress: Progress) -> tuple[list[Rows], Ints | None]:
        late = None
        if len(readings.time):
            before = progress.before_rows(readings.seq)
            # At its own time a reading is not late yet: its row leaves then.
            in_time = (readings.time >= before) | (readings.time + self.lateness > before)
            if not in_time.all():
                late, taken = np.flatnonzero(~in_time), np.flatnonzero(in_time)
                readings, before = readings.take(taken), before[taken]
        n = len(readings.time)
        if not n and not progress.ended and ((due := self.due()) is None or due > progress.watermark):
            return [], late
        new = self._insert(readings)
        first = self._came
        self._came += n
        row, seq, number, step = self._leaving(new, readings, first, progress)
        if n and (self.lateness or self._ended):
            corrected, by = self._corrected(new, before)
            row, seq = np.append(row, corrected), np.append(seq, readings.seq[by])
            number, step = np.append(number, first + by), np.append(step, by * 0)
        self._ended |= progress.ended
        self._watermark = max(self._watermark, progress.watermark)
        rows = self._rows(row, seq, number, step) if len(row) else []
        self._forget(progress.watermark)
        return rows, late

    def _insert(self, readings: Readings) -> Ints:
        """Put them into the store. The place of each."""
        order = np.lexsort((readings.time, readings.group))
        group, time = readings.group[order], readings.time[order]
        at = self._place(group, time, "right")
        fresh = {"group": group, "time": time, "number": self._came + order}
        fresh |= {"shown": np.full(len(order), _WAITS), "revision": np.full(len(order), -1)}
        put = _inserting(at, len(self.time))
        for name, values in fresh.items():
            setattr(self, name, put(getattr(self, name), values))
        self.values = [
            Column(put(c.values, r.values[order]), put(c.known(), r.known()[order]))
            for c, r in zip(self.values, readings.values, strict=True)
        ]
        places = np.empty(len(order), np.int64)
        places[order] = at + np.arange(len(order))
        return places

    def _place(self, group: Ints, time: Ints, side: Literal["left", "right"]) -> Ints:
        """Where rows of this group and time begin, or where they end."""
        low = self.group.searchsorted(group)
        high = self.group.searchsorted(group, "right")
        if len(group) <= _FEW:
            spans_ = zip(low.tolist(), high.tolist(), time.tolist(), strict=True)
            places = [a + int(self.time[a:b].searchsorted(t, side)) for a, b, t in spans_]
            return np.array(places, np.int64)
        while (searching := low < high).any():
            middle = np.minimum((low + high) >> 1, len(self.time) - 1)
            found = self.time[middle]
            lower = searching & (found < time if side == "left" else found <= time)
            low = np.where(lower, middle + 1, low)
            high = np.where(searching & ~lower, middle, high)
        return low

    def _leaving(self, new: Ints, readings: Readings, first: int, progress: Progress) -> tuple[Ints, Ints, Ints, Ints]:
        """The rows that leave for the first time: their places, the arrival number of the reading that lets each leave,
        the number of the last reading in it, and 0 if it leaves because its own reading was behind, else 1."""
        waits = self.shown == _WAITS
        row = np.flatnonzero(waits if progress.ended else waits & (self.time <= progress.watermark))
        seq = progress.reached(self.time[row])
        step = np.ones(len(row), np.int64)
        if not len(new):
            number = np.full(len(row), first - 1)
        else:
            own = np.full(len(self.time), -1)
            own[new] = np.arange(len(new))
            mine = own[row]
            seq = np.where(mine >= 0, np.maximum(seq, readings.seq[mine]), seq)
            behind = (mine >= 0) & (readings.time < progress.before_rows(readings.seq))[mine]
            number = first - 1 + np.searchsorted(readings.seq, seq, "right")
            number[behind] = first + mine[behind]
            step[behind] = 0
        self.shown[row] = number
        return row, seq, number, step

    def _corrected(self, new: Ints, before: Ints) -> tuple[Ints, Ints]:
        """Rows that had left and hold one of the new readings: their places, and which reading."""
        group, time = self.group[new], self.time[new]
        low = self._place(group, time, "left")
        counts = self._place(group, time + self.size, "left") - low
        row, which = spans(low, counts), np.repeat(np.arange(len(new)), counts)
        left = self.shown[row] < self.number[new][which]
        wanted = np.flatnonzero(left & (self.time[row] + self.lateness > before[which]))
        return row[wanted], which[wanted]

    # --- rows that leave ---

    def _rows(self, row: Ints, seq: Ints, number: Ints, step: Ints) -> list[Rows]:
        # Of one reading: what it shows at once, one after the other; then by end, then key, then arrival.
        after = np.where(step == 0, number, 0)
        rank = np.where(step == 0, 0, self._ranks(self.group[row]))
        order = np.lexsort((self.number[row], rank, self.time[row], after, step, seq))
        row, seq, number = row[order], seq[order], number[order]
        low = self._place(self.group[row], self.time[row] - self.size, "right")
        counts = self._place(self.group[row], self.time[row], "right") - low
        revision = self._revisions(row)
        parts = []
        total = np.cumsum(counts)
        start = 0
        while start < len(row):
            done = int(total[start - 1]) if start else 0
            stop = max(int(np.searchsorted(total, done + _MOST, "right")), start + 1)
            part = slice(start, stop)
            aggregates = self._aggregates(low[part], counts[part], number[part], self.time[row[part]])
            end = self.time[row[part]]
            parts.append(Rows(seq[part], self.group[row[part]], end - self.size, end, revision[part], aggregates))
            start = stop
        return [joined(parts)]

    def _revisions(self, row: Ints) -> Ints:
        """Of rows in the order in which they leave; a row may be there several times."""
        if not (self.lateness or self._ended):  # each leaves once
            self.revision[row] += 1
            return self.revision[row]
        order = np.argsort(row, kind="stable")
        begins = np.diff(row[order], prepend=-1) != 0
        place = np.arange(len(row))
        times = np.empty(len(row), np.int64)
        times[order] = place - np.maximum.accumulate(np.where(begins, place, 0))
        revision = self.revision[row] + 1 + times
        np.maximum.at(self.revision, row, revision)
        return revision

    def _aggregates(self, low: Ints, counts: Ints, number: Ints, ends: Ints) -> dict[str, Column]:
        at, cell = spans(low, counts), np.repeat(np.arange(len(low)), counts)
        come = np.flatnonzero(self.number[at] <= number[cell])
        at, cell = at[come], cell[come]
        return self.aggregates.of(cell, self.time[at], [c.take(at) for c in self.values], ends)

    def _forget(self, watermark: int, *, at_once: bool = False) -> None:
        """Leave out what no window needs any more, once it is a quarter of a span."""
        if not len(self.time):
            return
        limit = watermark - self.size - self.lateness
        if int(self.time.min()) + (0 if at_once else self.size // 4) > limit:
            return
        self._keep(np.flatnonzero(self.time > limit))

    def _keep(self, wanted: Ints) -> None:
        for name in ("group", "time", "number", "shown", "revision"):
            setattr(self, name, getattr(self, name)[wanted])
        self.values = [c.take(wanted) for c in self.values]

    def early(self, seq: int) -> Rows | None:
        return None

    # --- time and state ---

    def forget(self, groups: Ints) -> None:
        self._keep(np.flatnonzero(~np.isin(self.group, groups)))

    def due(self) -> int | None:
        waiting = self.time[self.shown == _WAITS]
        return int(waiting.min()) if len(waiting) else None

    def snapshot(self) -> State:
        self._forget(self._watermark, at_once=True)
        columns = [self.group, self.time, self.number, self.shown, self.revision]
        values = [[c.values.copy(), c.known().copy()] for c in self.values]
        mark = [self._came, self._ended, self._watermark]
        return {"rows": [c.copy() for c in columns], "values": values, "mark": mark}

    def restore(self, state: State) -> None:
        self.group, self.time, self.number, self.shown, self.revision = state["rows"]
        self.values = [Column(values, present) for values, present in state["values"]]
        self._came, self._ended, self._watermark = state["mark"]


def _inserting(at: Ints, n: int) -> Callable[[Array, Array], Array]:
    """Puts values into arrays of `n`, each before the place `at`, which rises: np.insert works out anew for each array where."""
    if len(at) == 1:
        place = int(at[0])
        return lambda into, values: np.concatenate((into[:place], values, into[place:]))
    new = np.zeros(n + len(at), np.bool_)
    new[at + np.arange(len(at))] = True
    old = ~new

    def put(into: Array, values: Array) -> Array:
        wider = np.empty(len(new), into.dtype)
        wider[new], wider[old] = values, into
        return wider

    return put
