"""Session windows: a group's readings, each less than `gap` from another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from operators.window.parts import NEVER_DUE, Readings, Rows, joined
from pipeline.aggregate.slots import Slots
from pipeline.frame import by_code

if TYPE_CHECKING:
    from operators.window.groups import Groups
    from pipeline.aggregate import Aggregates
    from pipeline.component import State
    from pipeline.frame import Bools, Ints, Progress

_INT = np.iinfo(np.int64)
_NONE = -1
_SESSION = {
    "number": (np.int64, 0),
    "group": (np.int64, 0),
    "start": (np.int64, _INT.max),
    "last": (np.int64, _INT.min),
    "revision": (np.int64, -1),
    "open": (np.bool_, False),  # it has readings that no row has shown
    "other": (np.int64, _NONE),  # the slot of another session of the group
}


class _Runs(NamedTuple):
    """Readings of a Frame that make or lengthen one session each, by group and time."""

    rows: Ints  # in order of group and time
    run: Ints  # of each of `rows`
    slot: Ints  # of each run: the session that it lengthens, or _NONE
    slow: Bools  # of each run: its readings must be looked at one by one


class Sessions:
    """A slot for each session that is open or can be corrected.

    Mostly a group has one session, and each reading lengthens it or, after a gap, begins the next: such readings are
    added together. Where sessions merge, or a reading comes that was late for the session next to it, the group's
    readings of the Frame are taken one by one. `at_once`: each reading shows its session; then all are.
    """

    def __init__(self, gap: int, lateness: int, aggregates: Aggregates, groups: Groups, *, at_once: bool) -> None:
        self.gap = gap
        self.lateness = lateness
        self.aggregates = aggregates
        self.at_once = at_once
        self.table = Slots({**_SESSION, **aggregates.columns})
        self.kept = aggregates.store(self._wanted)
        self._ranks = groups.ranks
        self._first = np.full(64, _NONE, np.int64)  # by group: a session of it; `other` leads on
        self._numbers = 0  # sessions that there have been
        self._next = NEVER_DUE  # no open session ends before
        self._past = NEVER_DUE  # no session is past before

    def _wanted(self, cells: Ints) -> Bools:
        numbers = np.sort(self.table["number"][self.table.used()])
        if not len(numbers):
            return np.zeros(len(cells), np.bool_)
        found: Bools = numbers[np.minimum(np.searchsorted(numbers, cells), len(numbers) - 1)] == cells
        return found

    # --- a Frame ---

    def push(self, readings: Readings, progress: Progress) -> tuple[list[Rows], Ints | None]:
        shown: list[Rows] = []
        closed: list[Rows] = []
        late: list[int] = []
        if len(readings.time):
            self._grow(int(readings.group.max()) + 1)
            before = progress.before_rows(readings.seq)
            for i in self._together(readings, before).tolist():
                group, mark = int(readings.group[i]), int(before[i])
                closed += self._past_of(group, mark, progress)
                row = self._alone(readings.take(np.array([i])), mark)
                if row is None:
                    late.append(i)
                else:
                    shown += row
        if progress.ended or self._next <= progress.watermark:
            closed += self._close(progress)
        if self._past <= progress.watermark:
            self._forget(progress.watermark)
        if closed:
            rows = joined(closed)
            # Behind those of the same reading: it was judged before it moved the watermark.
            shown.append(rows.take(np.lexsort((self._ranks(rows.group), rows.end, rows.seq))))
        return shown, np.array(late) if late else None

    def _together(self, readings: Readings, before: Ints) -> Ints:
        """Add the readings that can be added together. Which cannot, in order of arrival."""
        if self.at_once or len(readings.time) == 1:
            return np.arange(len(readings.time))
        runs = self._runs(readings, before)
        alone = np.empty(0, np.int64)
        if runs.slow.any():
            group = readings.group[runs.rows]
            slow = np.isin(group, group[runs.slow[runs.run]])
            alone = np.sort(runs.rows[slow])
            runs = runs._replace(rows=runs.rows[~slow], run=runs.run[~slow])
        if len(runs.rows):
            self._lengthen(readings, runs)
        return alone

    def _runs(self, readings: Readings, before: Ints) -> _Runs:
        """Readings of a group less than `gap` apart, or from its session, are a run."""
        n = len(readings.time)
        spoke = np.unique(readings.group)
        known = self._first[spoke]
        known = known[known != _NONE]
        group = np.concatenate([readings.group, self.table["group"][known]])
        start = np.concatenate([readings.time, self.table["start"][known]])
        last = np.concatenate([readings.time, self.table["last"][known]])
        order = np.argsort(start, kind="stable")
        order = order[by_code(group[order])]
        begins = np.diff(group[order], prepend=-1) != 0
        reach = np.roll(last[order], 1)
        slot = self._first[group[order]]
        behind = (slot != _NONE) & (start[order] >= self.table["start"][slot])
        reach = np.where(behind, np.maximum(reach, self.table["last"][slot]), reach)
        run = np.cumsum(begins | (start[order] - reach >= self.gap)) - 1
        session = order >= n
        slots = np.full(int(run[-1]) + 1, _NONE, np.int64)
        slots[run[session]] = slot[session]
        slow = np.zeros(len(slots), np.bool_)
        slow[run[(slot != _NONE) & (self.table["other"][slot] != _NONE)]] = True
        rows, run = order[~session], run[~session]
        slow[run[~self._in_turn(rows, readings.time[rows], run, slots, before)]] = True
        return _Runs(rows, run, slots, slow)

    def _in_turn(self, rows: Ints, time: Ints, run: Ints, slots: Ints, before: Ints) -> Bools:
        """Which readings, when they came, found what had come of their run as one session that was open."""
        by_arrival = np.lexsort((rows, run))
        t, r = time[by_arrival], run[by_arrival]
        begins = np.diff(r, prepend=-1) != 0
        has = slots[r] != _NONE
        low = np.where(has, self.table["start"][slots[r]], t)
        high = np.where(has, self.table["last"][slots[r]], t)
        low_before = _running(-t, r, begins, -low)
        high_before = _running(t, r, begins, high)
        mark = before[rows[by_arrival]]
        good = (t - high_before < self.gap) & (-low_before - t < self.gap) & (mark - high_before < self.gap)
        found = np.empty(len(rows), np.bool_)
        found[by_arrival] = good
        return found

    def _lengthen(self, readings: Readings, runs: _Runs) -> None:
        first = np.flatnonzero(np.diff(runs.run, prepend=-1))  # of each run
        new = first[runs.slot[runs.run[first]] == _NONE]
        if len(new):
            runs.slot[runs.run[new]] = self._begin(readings.group[runs.rows[new]])
        order = np.argsort(runs.rows)
        rows, slots = runs.rows[order], runs.slot[runs.run[order]]
        self._add(readings if len(rows) == len(readings.time) else readings.take(rows), slots)

    def _begin(self, group: Ints) -> Ints:
        """New sessions of these groups; those of one group stand together."""
        slots = self.table.take(len(group))
        self.table["number"][slots] = np.arange(self._numbers, self._numbers + len(slots))
        self._numbers += len(slots)
        self.table["group"][slots] = group
        self._link(slots, group)
        return slots

    def _link(self, slots: Ints, group: Ints) -> None:
        same = np.diff(group, prepend=-1) == 0
        self.table["other"][slots] = np.where(same, np.roll(slots, 1), self._first[group])
        self._first[group] = slots

    def _add(self, readings: Readings, slots: Ints) -> None:
        table = self.table
        np.minimum.at(table["start"], slots, readings.time)
        np.maximum.at(table["last"], slots, readings.time)
        table["open"][slots] = True
        self.aggregates.add(table.columns, slots, readings.time, readings.values)
        if self.aggregates.keeps:
            self.kept.add(table["number"][slots], readings.time, readings.values)
        ends = int(table["last"][slots].min()) + self.gap
        self._next = min(self._next, ends)
        self._past = min(self._past, ends + self.lateness)

    # --- a reading at a time ---

    def _past_of(self, group: int, before: int, progress: Progress) -> list[Rows]:
        """Close the group's sessions that end before a reading comes."""
        table, rows = self.table, []
        for slot in self._of(group):
            end = int(table["last"][slot]) + self.gap
            if end <= before and table["open"][slot]:
                rows.append(self._rows(np.array([slot]), progress.reached(np.array([end]))))
            if end + self.lateness <= before:
                self._remove(slot)
        return rows

    def _alone(self, reading: Readings, before: int) -> list[Rows] | None:
        """Add one reading. The row that it shows, if any; None: it is too late."""
        table = self.table
        group, time = int(reading.group[0]), int(reading.time[0])
        near = [s for s in self._of(group) if table["start"][s] - self.gap < time < table["last"][s] + self.gap]
        if not near and time + self.gap + self.lateness <= before:
            return None
        slot = near[0] if near else int(self._begin(reading.group)[0])
        for other in near[1:]:
            self._merge(slot, other)
        self._add(reading, np.array([slot]))
        if self.at_once or table["last"][slot] + self.gap <= before:
            return [self._rows(np.array([slot]), reading.seq)]
        return []

    def _of(self, group: int) -> list[int]:
        """The sessions of a group, by time."""
        slots, slot = [], int(self._first[group])
        while slot != _NONE:
            slots.append(slot)
            slot = int(self.table["other"][slot])
        return sorted(slots, key=self.table["start"].__getitem__)

    def _merge(self, into: int, other: int) -> None:
        table = self.table
        table["last"][into] = max(table["last"][into], table["last"][other])
        table["revision"][into] = max(table["revision"][into], table["revision"][other])
        self.aggregates.merge(table.columns, into, other)
        if self.aggregates.keeps:
            self.kept.move(int(table["number"][other]), int(table["number"][into]))
        self._remove(other)

    def _remove(self, slot: int) -> None:
        group = int(self.table["group"][slot])
        left = np.array([s for s in self._of(group) if s != slot], np.int64)
        self._first[group] = _NONE
        self._link(left, np.full(len(left), group))
        self.table.give_back(np.array([slot]))

    # --- rows that leave ---

    def _close(self, progress: Progress) -> list[Rows]:
        """A row of every open session whose end the watermark has reached; at the end of the input, of all."""
        table = self.table
        slots = np.flatnonzero(table["open"])
        ends = table["last"][slots] + self.gap
        closes = ends <= (NEVER_DUE if progress.ended else progress.watermark)
        self._next = int(ends[~closes].min(initial=NEVER_DUE))
        if not closes.any():
            return []
        slots, ends = slots[closes], ends[closes]
        order = self._in_order(slots, ends)
        return [self._rows(slots[order], progress.reached(ends[order]))]

    def early(self, seq: int) -> Rows | None:
        slots = np.flatnonzero(self.table["open"])
        if not len(slots):
            return None
        self._next = NEVER_DUE
        slots = slots[self._in_order(slots, self.table["last"][slots])]
        return self._rows(slots, np.full(len(slots), seq))

    def _in_order(self, slots: Ints, ends: Ints) -> Ints:
        order: Ints = np.lexsort((self._ranks(self.table["group"][slots]), ends))
        return order

    def _rows(self, slots: Ints, seq: Ints) -> Rows:
        table = self.table
        table["open"][slots] = False
        revision = table["revision"][slots] + 1
        table["revision"][slots] = revision
        end = table["last"][slots] + self.gap
        kept = self.kept.select(table["number"][slots]) if self.aggregates.keeps else []
        aggregates = self.aggregates.result(table.columns, slots, end, kept)
        return Rows(seq, table["group"][slots], table["start"][slots], end, revision, aggregates)

    def _forget(self, watermark: int) -> None:
        """Give back the sessions that nothing can change any more."""
        table = self.table
        slots = table.used()
        until = table["last"][slots] + (self.gap + self.lateness)
        past = until <= watermark
        self._past = int(until[~past].min(initial=NEVER_DUE))
        group = table["group"][slots[past]]
        only = (self._first[group] == slots[past]) & (table["other"][slots[past]] == _NONE)
        self._first[group[only]] = _NONE
        table.give_back(slots[past][only])
        for slot in slots[past][~only].tolist():
            self._remove(slot)

    # --- time and state ---

    def _grow(self, groups: int) -> None:
        if groups > len(self._first):
            more = max(groups - len(self._first), len(self._first))
            self._first = np.append(self._first, np.full(more, _NONE, np.int64))

    def forget(self, groups: Ints) -> None:
        state = self.snapshot()
        left = ~np.isin(state["sessions"]["group"], groups)
        self.restore(state | {"sessions": {name: column[left] for name, column in state["sessions"].items()}})
        self.kept.leave_out(lambda cells: ~self._wanted(cells))

    def due(self) -> int | None:
        return None if self._next == NEVER_DUE else self._next

    def snapshot(self) -> State:
        sessions = self.table.snapshot()
        del sessions["other"]
        return {"sessions": sessions, "numbers": self._numbers, "rows": self.kept.snapshot()}

    def restore(self, state: State) -> None:
        sessions = state["sessions"]
        order = np.argsort(sessions["group"], kind="stable")
        group = sessions["group"][order]
        slots = self.table.restore({name: column[order] for name, column in sessions.items()})
        self._first = np.full(64, _NONE, np.int64)
        self._grow(int(group.max(initial=-1)) + 1)
        self._link(slots, group)
        self._numbers = state["numbers"]
        self.kept.restore(state["rows"])
        ends = self.table["last"][slots] + self.gap
        self._next = int(ends[self.table["open"][slots]].min(initial=NEVER_DUE))
        self._past = int(ends.min(initial=NEVER_DUE)) + self.lateness if len(ends) else NEVER_DUE


def _running(values: Ints, run: Ints, begins: Bools, first: Ints) -> Ints:
    """The highest of those before it in its run; before the first of a run stands its `first`."""
    # By rank, and each run's above those of the runs before it, so that one pass does for all runs.
    sizes, rank = np.unique(np.concatenate([values, first]), return_inverse=True)
    rank, rank_first = rank[: len(values)], rank[len(values) :]
    before = np.where(begins, rank_first, np.roll(rank, 1))
    base = run * len(sizes)
    highest: Ints = sizes[np.maximum.accumulate(before + base) - base]
    return highest
