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
from pipeline.frame import NO_PROGRESS, Array, Bools, Column, Field, Frame, Ints, Progress, concatenate, empty
from pipeline.parts import zeros

FAR = 2**63 - 1  # the time from which nothing is ever seen
Groups = Callable[[Frame], Ints]  # the group of each row; -1: it matches nothing


class Seen(NamedTuple):
    """Readings of `with`."""

    group: Ints
    since: Ints  # the time from which it is seen
    time: Ints  # its own
    columns: dict[str, Column]

    def take(self, rows: Array) -> Seen:
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
        # In pieces, since most Frames let none of them go; of each reading `seq` is when it came.
        self.waiting: list[tuple[Frame, Ints]] = [(empty(context.schema, NO_PROGRESS), np.empty(0, np.int64))]
        self.first = FAR  # the earliest time that waits
        # By group, then by the time from which it is seen; among these the newest is the last.
        self.recent = self._unseen(0)
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
        if self._waits() + len(frame) <= self.max_waiting and len(self.recent.time) + len(beside) <= self.max_waiting:
            return [self._step(frame, groups, beside, groups_beside)]
        # There may come to be too many. Which of them go is decided one arrival at a time, and before time passes.
        if halves := frame.halves():
            return [*self.push(halves[0]), *self.push(halves[1])]
        last = max(int(rows.seq.max(initial=-1)) for rows in (frame, beside))
        arrival, after = frame.cut(last + 1)
        left = self._step(arrival, groups, arrival.sides[self.stream], groups_beside)
        return [left, self._step(after, groups[:0], after.sides[self.stream], groups[:0])]

    def _waits(self) -> int:
        return sum(len(rows) for rows, _ in self.waiting)

    def _step(self, frame: Frame, groups: Ints, beside: Frame, groups_beside: Ints) -> tuple[Frame, Given]:
        progress = frame.progress
        if len(beside):
            self._hear(beside, groups_beside)
        if len(frame):
            self._wait(frame, groups)
        rows, group = self._leave(progress)
        given = self._given(rows.time, group) if len(rows) else self.nothing
        self._settle(progress.watermark)
        return rows.with_progress(progress), given

    def _hear(self, beside: Frame, groups: Ints) -> None:
        """Readings of the stream. One that came late is seen from the watermark on that it found."""
        since = np.maximum(beside.time, beside.watermark_before())
        matching = np.flatnonzero(groups >= 0)
        new = Seen(groups, since, beside.time, {name: self._column(name, beside) for name in self.fields}).take(
            matching
        )
        both = self.recent.and_then(new)
        both = both.take(np.lexsort((both.time, both.since, both.group)))
        late = (both.since > both.time).any()
        self.recent = both.take(np.flatnonzero(_is_newest(both))) if late else both

    def _column(self, name: str, beside: Frame) -> Column:
        found = Column(beside.time) if name == "time" else beside[name]
        return Column(found.values, found.known())

    def _wait(self, frame: Frame, groups: Ints) -> None:
        late = frame.time < frame.watermark_before()
        if late.any():
            self.late(frame.where(late))
            frame, groups = frame.where(~late), groups[~late]
        if len(frame):
            self.waiting.append((frame, groups))
            self.first = min(self.first, int(frame.time.min()))

    def _leave(self, progress: Progress) -> tuple[Frame, Ints]:
        """The readings whose time the watermark has passed, in the order in which they leave."""
        crowded = self._waits() > self.max_waiting
        if not (self.first < progress.watermark or progress.ended or crowded):
            return self.waiting[0][0].none(), np.empty(0, np.int64)
        waiting = concatenate([rows for rows, _ in self.waiting])
        group = np.concatenate([g for _, g in self.waiting])
        seq = np.maximum(progress.reached(waiting.time + 1), waiting.seq)
        leaves = (waiting.time < progress.watermark) | progress.ended
        if crowded and (over := int((~leaves).sum()) - self.max_waiting) > 0:
            earliest = np.lexsort((waiting.seq, waiting.time, leaves))[:over]
            leaves[earliest] = True
            seq[earliest] = progress.next_seq - 1  # the one arrival that this Frame holds
        stays = np.flatnonzero(~leaves)
        self.waiting = [(waiting.take(stays), group[stays])]
        self.first = int(waiting.time[stays].min(initial=FAR))
        out = np.flatnonzero(leaves)
        out = out[np.lexsort((waiting.seq[out], waiting.time[out], seq[out]))]
        rows = waiting.take(out)
        return Frame(rows.time, rows.key, seq[out], rows.columns, progress), group[out]

    def _given(self, time: Ints, group: Ints) -> Given:
        """For each reading that leaves the newest that it sees; missing where there is none within the tolerance."""
        recent, settled = self.recent, self.settled
        at = _last_before(recent.group, recent.since, group, time)
        by_recent = at >= 0
        by_settled = (group >= 0) & (group < len(settled.time))
        code = np.where(by_settled, group, 0)
        if len(settled.time):
            by_settled &= settled.since[code] <= time
            # Where too many waited, what is settled may be the newer one.
            by_settled &= ~by_recent | (settled.time[code] > _at(recent.time, at))
            by_settled &= time - settled.time[code] <= self.tolerance
        by_recent &= ~by_settled & (time - _at(recent.time, at) <= self.tolerance)
        columns = {}
        for name, field in self.fields.items():
            values, present = zeros(field.kind, len(time)), np.zeros(len(time), np.bool_)
            for some, source, rows in ((by_recent, recent, at), (by_settled, settled, code)):
                column = source.columns[name].take(rows[some])
                values[some], present[some] = column.values, column.known()
            columns[name] = Column(values, present)
        return Given(by_recent | by_settled, columns)

    def _settle(self, watermark: int) -> None:
        """All readings to come are dated from the watermark on: of what they all see only the newest is kept."""
        recent = self.recent
        if not len(recent.time):
            return
        settles = recent.since <= watermark
        over = int((~settles).sum()) - self.max_waiting
        if over > 0:
            settles[np.lexsort((recent.since, settles))[:over]] = True
        if not settles.any():
            return
        rows = np.flatnonzero(settles)
        rows = rows[np.diff(recent.group[rows], append=-1) != 0]  # the last of each group
        to = recent.group[rows]
        self._grow(int(to[-1]) + 1)
        newer = (self.settled.since[to] == FAR) | (recent.time[rows] >= self.settled.time[to])
        rows, to = rows[newer], to[newer]
        self.settled.since[to], self.settled.time[to] = recent.since[rows], recent.time[rows]
        for name, column in self.settled.columns.items():
            column.values[to] = recent.columns[name].values[rows]
            column.known()[to] = recent.columns[name].known()[rows]
        self.recent = recent.take(np.flatnonzero(~settles))

    def _grow(self, groups: int) -> None:
        have = len(self.settled.time)
        if groups > have:
            self.settled = self.settled.and_then(self._unseen(max(groups - have, have, 16)))

    # --- state ---

    def due(self) -> int | None:
        return self.first + 1 if self.first < FAR else None

    def snapshot(self) -> State:
        rows = concatenate([rows for rows, _ in self.waiting])
        group = np.concatenate([g for _, g in self.waiting])
        settled = self.settled
        known = np.flatnonzero(settled.since != FAR)
        return {
            "waiting": [rows.time.copy(), rows.key.copy(), rows.seq.copy(), group, _saved(rows.columns)],
            "recent": _saved_seen(self.recent),
            "settled": _saved_seen(settled._replace(group=np.arange(len(settled.time))).take(known)),
        }

    def restore(self, state: State) -> None:
        time, key, seq, group, columns = state["waiting"]
        self.waiting = [(Frame(time, key, seq, _loaded(columns), NO_PROGRESS), group)]
        self.first = int(time.min(initial=FAR))
        self.recent = _loaded_seen(state["recent"])
        settled = _loaded_seen(state["settled"])
        self.settled = self._unseen(0)
        self._grow(int(settled.group.max(initial=-1)) + 1)
        to = settled.group
        self.settled.since[to], self.settled.time[to] = settled.since, settled.time
        for name, column in self.settled.columns.items():
            column.values[to], column.known()[to] = settled.columns[name].values, settled.columns[name].known()


def _is_newest(seen: Seen) -> Bools:
    """Where no other that is seen as early is newer: only these will be given to anyone."""
    group = np.cumsum(np.diff(seen.group, prepend=-1) != 0)
    _, rank = np.unique(seen.time, return_inverse=True)
    place = group * (len(rank) + 1) + rank  # rises with the group, and with the time within one
    newest: Bools = place == np.maximum.accumulate(place)
    return newest


def _last_before(group: Ints, since: Ints, of: Ints, time: Ints) -> Ints:
    """For each (of, time) the last row of that group with `since` <= time; -1: there is none. Rows are by group and since."""
    n = len(group)
    if not n or not len(of):
        return np.full(len(of), -1)
    asks = np.repeat([False, True], [n, len(of)])
    order = np.lexsort((asks, np.concatenate([since, time]), np.concatenate([group, of])))
    at = np.empty(len(order), np.int64)
    at[order] = np.maximum.accumulate(np.where(order < n, order, -1))
    found = at[n:]
    return np.where((found >= 0) & (group[found] == of), found, -1)


def _at(values: Ints, rows: Ints) -> Ints:
    """The values at these rows; 0 for a row -1."""
    return np.where(rows >= 0, values[rows], 0) if len(values) else np.zeros(len(rows), np.int64)


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
