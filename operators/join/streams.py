"""The newest reading of another stream at or before each reading of the input, in event time.

A reading waits until the watermark has passed its time: then all that is not late has come. So readings leave in the order
of their times, and it is enough to give a late reading of `with` the time from which it is seen: its own, or the watermark
before it came. How readings came among each other is then told by times alone, and none has to be looked at by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from operators.join.given import Given
from pipeline.component import OperatorContext, State
from pipeline.frame import NO_PROGRESS, Array, Bools, Column, Field, Frame, Ints, Progress, by_code, concatenate, empty
from pipeline.parts import zeros
from pipeline.waiting import FAR, Waiting

GROUP = ".group"  # of a reading that waits, among its columns: no field can be called so
Groups = Callable[[Frame], Ints]  # the group of each row; -1: it matches nothing


class Seen(NamedTuple):
    """Readings of `with`."""

    group: Ints
    since: Ints  # the time from which it is seen; FAR: nothing is seen
    time: Ints  # its own
    columns: dict[str, Column]

    def take(self, rows: Array | slice) -> Seen:
        columns = {name: c.take(rows) for name, c in self.columns.items()}
        return Seen(self.group[rows], self.since[rows], self.time[rows], columns)

    def and_then(self, more: Seen) -> Seen:
        columns = {name: _joined(c, more.columns[name]) for name, c in self.columns.items()}
        group, since, time = (np.concatenate(pair) for pair in zip(self[:3], more[:3], strict=True))
        return Seen(group, since, time, columns)


class AsOf:
    """Readings that wait, and those of `with` that they may be given."""

    def __init__(
        self,
        context: OperatorContext,
        stream: str,
        fields: Mapping[str, Field],
        groups: tuple[Groups, Groups],
        *,
        tolerance: int,
        max_waiting: int,
    ) -> None:
        self.stream = stream
        self.fields = fields  # that are taken of it
        self.groups, self.groups_beside = groups  # of readings of the input, and of the stream
        self.tolerance = tolerance
        self.max_waiting = max_waiting
        self.late = context.output("late", context.schema)
        self.waiting = Waiting(empty(context.schema, NO_PROGRESS).with_columns({GROUP: Column(np.empty(0, np.int64))}))
        # Of `with`, by the time from which each is seen.
        self.recent = Waiting(_as_frame(self._unseen(0), NO_PROGRESS))
        # The newest that is seen by all readings to come, by the group's code.
        self.settled = self._unseen(0)
        self.nothing = Given(np.zeros(0, np.bool_), self.settled.columns)

    def _unseen(self, n: int) -> Seen:
        columns = {name: Column(zeros(f.kind, n), np.zeros(n, np.bool_)) for name, f in self.fields.items()}
        return Seen(np.arange(n), np.full(n, FAR), np.zeros(n, np.int64), columns)

    # --- a Frame ---

    def push(self, frame: Frame) -> list[tuple[Frame, Given]]:
        """The rows that leave, in order, and what each was given of the stream."""
        beside = frame.sides[self.stream]
        groups, groups_beside = self.groups(frame), self.groups_beside(beside)  # may raise: before any state changes
        if len(self.waiting) + len(frame) <= self.max_waiting and len(self.recent) + len(beside) <= self.max_waiting:
            return [self._step(frame, groups, beside, groups_beside)]
        # There may come to be too many. Which of them go is decided one arrival at a time, and before time passes.
        if halves := frame.halves():
            return [*self.push(halves[0]), *self.push(halves[1])]
        last = max(int(rows.seq.max(initial=-1)) for rows in (frame, beside))
        arrival, after = frame.cut(last + 1)
        left = self._step(arrival, groups, arrival.sides[self.stream], groups_beside)
        return [left, self._step(after, groups[:0], after.sides[self.stream], groups[:0])]

    def _step(self, frame: Frame, groups: Ints, beside: Frame, groups_beside: Ints) -> tuple[Frame, Given]:
        progress = frame.progress
        if len(beside):
            self._hear(beside, groups_beside)
        if len(frame):
            self._wait(frame, groups)
        rows = self._leave(progress)
        until = (
            progress.watermark
        )  # what is seen from then on concerns none of the rows that leave, unless they leave early
        if len(rows):
            until = max(until, int(rows.time.max()))
        seen = _in_order(self.recent.take(until + 1))
        given = self.nothing
        if len(rows):
            if len(seen.time) and seen.since.max() <= min(int(rows.time.min()), progress.watermark):
                # Each row sees all of them, as in most Frames of a few readings: then nothing has to be looked for.
                self._settle(seen)
                seen = seen.take(slice(0, 0))
            given = self._given(seen, rows.time, rows.columns[GROUP].values)
        self._settle_or_keep(seen, progress)
        return Frame(rows.time, rows.key, rows.seq, _without_group(rows), progress), given

    def _hear(self, beside: Frame, groups: Ints) -> None:
        """Readings of the stream. One that came late is seen from the watermark on that it found."""
        since = np.maximum(beside.time, beside.watermark_before())
        new = Seen(groups, since, beside.time, {name: self._column(name, beside) for name in self.fields})
        frame = _as_frame(new, beside.progress).where(groups >= 0)
        if len(frame):
            self.recent.add(frame)

    def _column(self, name: str, beside: Frame) -> Column:
        found = Column(beside.time) if name == "time" else beside[name]
        return Column(found.values, found.known())

    def _wait(self, frame: Frame, groups: Ints) -> None:
        late = frame.time < frame.watermark_before()
        if late.any():
            self.late(frame.where(late))
            frame, groups = frame.where(~late), groups[~late]
        if len(frame):
            self.waiting.add(frame.with_columns({GROUP: Column(groups)}))

    def _leave(self, progress: Progress) -> Frame:
        """The readings whose time the watermark has passed, in the order in which they leave."""
        rows = self.waiting.take(FAR if progress.ended else progress.watermark)
        seq = rows.seq
        if len(rows):
            seq = np.maximum(progress.reached(rows.time + 1), seq)
        if (over := len(self.waiting) - self.max_waiting) > 0:
            all_ = self.waiting.rows()
            earliest = all_.take(slice(0, over))
            self.waiting.put_back(all_.take(slice(over, None)))
            # They leave with the one arrival that this Frame holds.
            seq = np.append(seq, np.full(over, progress.next_seq - 1))
            rows = concatenate([rows, earliest])
        if len(rows) > 1:
            order = np.lexsort((rows.seq, rows.time, seq))
            rows, seq = rows.take(order), seq[order]
        return Frame(rows.time, rows.key, seq, rows.columns, progress)

    def _given(self, seen: Seen, time: Ints, group: Ints) -> Given:
        """For each reading that leaves the newest that it sees; missing where there is none within the tolerance."""
        settled = self.settled
        by_settled = (group >= 0) & (group < len(settled.time))
        code = np.where(by_settled, group, 0)
        if len(settled.time):
            by_settled &= (settled.since[code] <= time) & (time - settled.time[code] <= self.tolerance)
        found = [(by_settled, settled, code)]
        if len(seen.time):
            at = _last_before(seen.group, seen.since, group, time)
            by_seen = (at >= 0) & (time - seen.time[at] <= self.tolerance)
            if len(settled.time):
                # Where too many waited, what is settled may be the newer one.
                by_settled &= (at < 0) | (settled.time[code] > seen.time[at])
            by_seen &= ~by_settled
            found.append((by_seen, seen, at))
        columns = {}
        for name, field in self.fields.items():
            values, present = zeros(field.kind, len(time)), np.zeros(len(time), np.bool_)
            for some, source, rows in found:
                column = source.columns[name].take(rows[some])
                values[some], present[some] = column.values, column.known()
            columns[name] = Column(values, present)
        return Given(np.logical_or.reduce([some for some, _, _ in found]), columns)

    def _settle_or_keep(self, seen: Seen, progress: Progress) -> None:
        """All readings to come are dated from the watermark on: of what they all see only the newest is kept."""
        settles = seen.since <= progress.watermark
        if not settles.all():
            self.recent.add(_as_frame(seen.take(~settles), progress))
            seen = seen.take(settles)
        if (over := len(self.recent) - self.max_waiting) > 0:
            all_ = self.recent.rows()
            self.recent.put_back(all_.take(slice(over, None)))
            self._settle(seen)
            seen = _in_order(all_.take(slice(0, over)))
        self._settle(seen)

    def _settle(self, seen: Seen) -> None:
        if not len(seen.time):
            return
        rows = _last_of_each(seen.group)
        to = seen.group[rows]
        self._grow(int(to[-1]) + 1)
        newer = (self.settled.since[to] == FAR) | (seen.time[rows] >= self.settled.time[to])
        rows, to = rows[newer], to[newer]
        self.settled.since[to], self.settled.time[to] = seen.since[rows], seen.time[rows]
        for name, column in self.settled.columns.items():
            column.values[to] = seen.columns[name].values[rows]
            column.known()[to] = seen.columns[name].known()[rows]

    def _grow(self, groups: int) -> None:
        have = len(self.settled.time)
        if groups > have:
            self.settled = self.settled.and_then(self._unseen(max(groups - have, have, 16)))

    # --- state ---

    def forget(self, keys: Ints) -> None:
        """Readings of these keys that wait; and of `with` what is of these groups, which mostly are the keys."""
        self.waiting.forget(keys)
        self.recent.forget(keys)
        self.settled.since[keys[keys < len(self.settled.since)]] = FAR

    def due(self) -> int | None:
        first = self.waiting.first
        return first + 1 if first < FAR else None

    def snapshot(self) -> State:
        rows = self.waiting.rows()
        settled = self.settled
        known = np.flatnonzero(settled.since != FAR)
        group = rows.columns[GROUP].values.copy()
        return {
            "waiting": [rows.time.copy(), rows.key.copy(), rows.seq.copy(), group, _saved(_without_group(rows))],
            "recent": _saved_seen(_as_seen(self.recent.rows())),
            "settled": _saved_seen(settled._replace(group=np.arange(len(settled.time))).take(known)),
        }

    def restore(self, state: State) -> None:
        time, key, seq, group, columns = state["waiting"]
        self.waiting.put_back(Frame(time, key, seq, {**_loaded(columns), GROUP: Column(group)}, NO_PROGRESS))
        self.recent.put_back(_as_frame(_loaded_seen(state["recent"]), NO_PROGRESS))
        settled = _loaded_seen(state["settled"])
        self.settled = self._unseen(0)
        self._grow(int(settled.group.max(initial=-1)) + 1)
        to = settled.group
        self.settled.since[to], self.settled.time[to] = settled.since, settled.time
        for name, column in self.settled.columns.items():
            column.values[to], column.known()[to] = settled.columns[name].values, settled.columns[name].known()


def _as_frame(seen: Seen, progress: Progress) -> Frame:
    """To wait: its time is the one from which it is seen, its key the group, its `seq` its own time."""
    return Frame(seen.since, seen.group, seen.time, seen.columns, progress)


def _as_seen(frame: Frame) -> Seen:
    return Seen(frame.key, frame.time, frame.seq, dict(frame.columns))


def _without_group(rows: Frame) -> dict[str, Column]:
    return {name: c for name, c in rows.columns.items() if name != GROUP}


def _in_order(frame: Frame) -> Seen:
    """By group, then by the time from which it is seen; among these the newest is the last."""
    seen = _as_seen(frame)
    if len(frame) < 2:
        return seen
    order = np.lexsort((seen.time, seen.since))  # nearly as they are
    seen = seen.take(order[by_code(seen.group[order])])
    late = (seen.since > seen.time).any()
    return seen.take(np.flatnonzero(_is_newest(seen))) if late else seen


def _is_newest(seen: Seen) -> Bools:
    """Where no other that is seen as early is newer: only these will be given to anyone."""
    group = np.cumsum(np.diff(seen.group, prepend=-1) != 0)
    _, rank = np.unique(seen.time, return_inverse=True)
    place = group * (len(rank) + 1) + rank  # rises with the group, and with the time within one
    newest: Bools = place == np.maximum.accumulate(place)
    return newest


def _last_of_each(group: Ints) -> Ints:
    """The last row of each group; rows are by group."""
    if len(group) == 1:
        return np.zeros(1, np.int64)
    return np.append(np.flatnonzero(group[1:] != group[:-1]), len(group) - 1)


def _last_before(group: Ints, since: Ints, of: Ints, time: Ints) -> Ints:
    """For each (of, time) the last row of that group with `since` <= time; -1: there is none. Rows are by group and since."""
    n = len(group)
    if not n or not len(of):
        return np.full(len(of), -1)
    asks = np.repeat([False, True], [n, len(of)])
    order = np.lexsort((asks, np.concatenate([since, time])))
    order = order[by_code(np.concatenate([group, of])[order] + 1)]  # -1 matches nothing
    at = np.empty(len(order), np.int64)
    at[order] = np.maximum.accumulate(np.where(order < n, order, -1))
    found = at[n:]
    return np.where((found >= 0) & (group[found] == of), found, -1)


def _joined(a: Column, b: Column) -> Column:
    return Column(np.concatenate([a.values, b.values]), np.concatenate([a.known(), b.known()]))


def _saved(columns: Mapping[str, Column]) -> dict[str, list[Any]]:
    return {name: [c.values.copy(), None if c.present is None else c.present.copy()] for name, c in columns.items()}


def _loaded(saved: dict[str, list[Any]]) -> dict[str, Column]:
    return {name: Column(*parts) for name, parts in saved.items()}


def _saved_seen(seen: Seen) -> list[Any]:
    return [seen.group.copy(), seen.since.copy(), seen.time.copy(), _saved(seen.columns)]


def _loaded_seen(saved: list[Any]) -> Seen:
    group, since, time, columns = saved
    return Seen(group, since, time, _loaded(columns))
