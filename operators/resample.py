"""`resample`: readings at regular moments, by key, from those that came when they did."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import numpy as np
from msgspec import Meta

from pipeline.component import Memory, Operator, OperatorContext, Settings, State
from pipeline.frame import NO_PROGRESS, Array, Column, Field, Frame, Ints, concatenate, empty
from pipeline.frame_bytes import decode, encode
from pipeline.quantity import Duration
from pipeline.turns import RowOfKey, by_key, by_text, width_of
from pipeline.waiting import FAR, Waiting

USUAL_GAP = 10  # points that a gap may have unless it is set
MOST_POINTS = 10_000  # of one reading: a key that comes back after a year must not bring a year of points at once


class ResampleSettings(Settings, frozen=True):
    every: Annotated[Duration, Meta(description="From one point to the next.")]
    method: Annotated[
        Literal["previous", "linear"], Meta(description="The last reading before the point, or the line between two.")
    ] = "previous"
    gap: Annotated[
        Duration | None,
        Meta(description="A longer gap between readings is left without points. Absent: 10 times `every`."),
    ] = None
    offset: Annotated[Duration, Meta(description="By how much later than 1970 the points begin.")] = Duration(0)


class Resample(Operator):
    """Give each key a row at every regular moment, from the readings around it.

        temperature, every 10 s   10@0         13@15             16@30
        previous                  10@0  10@10         13@20      16@30
        linear                    10@0  12@10         14@20      16@30

        [operators.even]
        type = "resample"
        input = "greenhouse"
        every = "10 s"
        method = "linear"
        gap = "1 min"

    Points are aligned to 1970 plus `offset`; a row is the key, `time` (the point) and the fields of the input.
    `previous`: the key's last reading dated at or before the point, if not more than `gap` before it; the row leaves when the
    watermark has passed the point. `linear`: numbers on the line between the readings before and after the point, if these
    are not more than `gap` apart; the row leaves when the watermark has passed the reading after it. A point at which there
    is a reading has just that.
    On the line, numbers have fractions; other fields, and numbers beside one that is not finite, are those of the reading
    before. A field that is missing in a reading (linear: in one of both) is missing at the points that it gives.
    Readings are taken by event time: each waits until the watermark has passed it, so their order of arrival means nothing,
    but that of equal times the last to come counts. Rows that leave together leave by time, then key. At the end of a finite
    input every reading is taken; no point lies after the last reading of its key, unless the watermark is there.
    Late data: a reading that the watermark had passed before it came goes to the output `late`.
    At the limit: `gap` may hold at most 10,000 points.
    State: the readings that wait, and the last of each key. Memory: 9 bytes for each key and 8 for each field of it, 9 if it
    may be missing; 20 for each reading that waits and the same for its fields. Text counts as it is long.
    """

    def __init__(self, settings: ResampleSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.every = max(int(settings.every), 1)
        self.offset = int(settings.offset)
        self.gap = USUAL_GAP * self.every if settings.gap is None else int(settings.gap)
        if settings.every <= 0:
            context.problem("every", "must be longer than nothing")
        elif self.gap > MOST_POINTS * self.every:
            context.problem("gap", f"holds more than {MOST_POINTS:,} points; make it shorter, or `every` longer")
        self.linear = settings.method == "linear"
        self.late = context.output("late", context.schema)
        self.schema = context.schema._replace(fields={n: self._field(f) for n, f in context.fields.items()})
        self.nothing = empty(self.schema, NO_PROGRESS)
        self.waiting = Waiting(empty(context.schema, NO_PROGRESS))
        self.last = RowOfKey(context.fields)  # of the readings taken
        self.done = -FAR  # readings before it are taken, and points before it have left
        self._alive = -FAR  # until then some key's last reading gives points (previous)

    def _field(self, field: Field) -> Field:
        return field._replace(kind="float") if self.linear and field.kind in ("int", "float") else field

    # --- a Frame ---

    def on_frame(self, frame: Frame) -> Frame:
        if len(frame):
            self._wait(frame)
        progress = frame.progress
        due = self.due()
        if not (progress.ended or (due is not None and due <= progress.watermark)):
            return self.nothing.with_progress(progress)
        taken = self.waiting.take(FAR if progress.ended else progress.watermark)
        self.done, done = max(self.done, progress.watermark), self.done
        if self.linear and self._reach_no_point(taken):
            self.last.put_last(taken, np.arange(len(taken)))
            return self.nothing.with_progress(progress)
        points = self._between(taken) if self.linear else self._held(taken, done, progress.watermark)
        if not len(points.time):
            return self.nothing.with_progress(progress)
        rows = self._rows(points)
        seq = progress.reached(points.known + 1)
        order = np.lexsort((by_text(rows.key, self.context.keys), rows.time, seq))
        rows = rows.take(order)
        return Frame(rows.time, rows.key, seq[order], rows.columns, progress)

    def _wait(self, frame: Frame) -> None:
        self.last.grow(len(self.context.keys))
        # At the end of an input readings are taken that the watermark has not passed: the second question is for what follows.
        late = frame.time < frame.watermark_before()
        late |= self.last.has[frame.key] & (frame.time <= self.last.time[frame.key])
        if late.any():
            self.late(frame.where(late))
            frame = frame.where(~late)
        if len(frame):
            self.waiting.add(frame)

    def _with_last(self, taken: Frame, keys: Array) -> tuple[Frame, Array, Ints]:
        """What was taken after the last readings of these keys, key by key; where a key begins; the place of its last row.

        Of a key's readings of one time only the last to come is left.
        """
        rows = concatenate([self.last.take(keys, np.full(len(keys), -1), taken.progress), taken])
        turns = by_key(rows.key)
        rows = rows.take(turns.order)
        again = np.append((np.diff(rows.key) == 0) & (np.diff(rows.time) == 0), False)
        if again.any():
            rows = rows.where(~again)
        turns = by_key(rows.key)
        last = turns.last
        self.last.put(turns.keys, rows.time[last], {name: c.take(last) for name, c in rows.columns.items()})
        return rows, turns.begins, last

    def _held(self, taken: Frame, done: int, watermark: int) -> _Points:
        """previous: every reading gives points until the key's next one, or the watermark."""
        keys = np.flatnonzero(self.last.has & (self.last.time >= done - self.gap))
        more = np.setdiff1d(taken.key[self.last.has[taken.key]], keys)
        rows, _, last = self._with_last(taken, np.append(keys, more))
        if len(taken):
            self._alive = max(self._alive, int(taken.time[-1]) + self.gap)
        old = rows.seq < 0
        # Of an earlier reading the points up to it, and before `done`, have left.
        start = np.maximum(np.where(old, rows.time + 1, rows.time), done)
        end = np.append(rows.time[1:], 0) - 1
        end[last] = np.maximum(watermark - 1, rows.time[last])
        which, time = self._grid(start, np.minimum(end, rows.time + self.gap))
        return _Points(rows, which, which, time, time)

    def _reach_no_point(self, taken: Frame) -> bool:
        """Whether no point lies after the last reading of a key and up to one of these: so it is with most single readings."""
        before = self.last.time[taken.key]
        same = (taken.time - self.offset) // self.every == (before - self.offset) // self.every
        return bool((same & self.last.has[taken.key]).all())

    def _between(self, taken: Frame) -> _Points:
        """linear: with every reading the points since the one before it are known."""
        keys = np.unique(taken.key)
        rows, begins, _ = self._with_last(taken, keys[self.last.has[keys]])
        before = np.maximum(np.arange(len(rows)) - 1, 0)
        joined = ~begins & (rows.time - rows.time[before] <= self.gap)
        end = np.where(rows.seq < 0, rows.time - 1, rows.time)  # what was taken earlier gives no point any more
        which, time = self._grid(np.where(joined, rows.time[before] + 1, rows.time), end)
        return _Points(rows, np.where(time == rows.time[which], which, before[which]), which, time, rows.time[which])

    def _grid(self, start: Ints, end: Ints) -> tuple[Ints, Ints]:
        """The points in each [start, end]: of which span each is, and its time."""
        first = -((self.offset - start) // self.every)
        count = np.maximum((end - self.offset) // self.every - first + 1, 0)
        which = np.repeat(np.arange(len(start)), count)
        number = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        return which, (first[which] + number) * self.every + self.offset

    def _rows(self, points: _Points) -> Frame:
        rows, before, after = points.rows, points.before, points.after
        columns = {}
        for name, field in self.schema.fields.items():
            a = rows.columns[name].take(before)
            if self.linear and field.kind == "float":
                a = _on_line(a, rows.columns[name].take(after), rows.time[before], rows.time[after], points.time)
            columns[name] = a
        return Frame(points.time, rows.key[after], rows.seq[after], columns, rows.progress)

    # --- time and state ---

    def forget(self, keys: Ints, frame: Frame) -> None:
        super().forget(keys, frame)
        self.waiting.forget(keys)
        self.last.forget(keys)

    def due(self) -> int | None:
        if self.linear:
            return None if self.waiting.first == FAR else self.waiting.first + 1
        point = self._next(self.done)
        if point > self._alive:
            point = self._next(max(self.waiting.first, self.done)) if self.waiting.first < FAR else FAR
        return None if point == FAR else point + 1

    def _next(self, time: int) -> int:
        """The first point at or after a time."""
        return -((self.offset - time) // self.every) * self.every + self.offset

    def memory(self) -> Memory:
        row = 20 + width_of(self.context.fields)
        return Memory(self.last.width, beyond=f"{row} B for each reading that waits for the watermark")

    def snapshot(self) -> State:
        return {
            "waiting": encode(self.waiting.rows()),
            "last": self.last.snapshot(self.context.keys),
            "done": self.done,
            "alive": self._alive,
        }

    def restore(self, state: State) -> None:
        self.waiting.put_back(decode(state["waiting"], NO_PROGRESS))
        self.last.restore(state["last"])
        self.done = state["done"]
        self._alive = state["alive"]


class _Points(NamedTuple):
    """Points, and of each: the reading that it is of or after, the one that ends its span, and what had to be passed."""

    rows: Frame
    before: Ints
    after: Ints
    time: Ints
    known: Ints  # the time that the watermark had to pass


def _on_line(a: Column, b: Column, start: Ints, end: Ints, time: Ints) -> Column:
    """Numbers between two readings; where both are the same one, its own."""
    x, y = a.values.astype(np.float64), b.values.astype(np.float64)
    share = (time - start) / np.maximum(end - start, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.where(np.isfinite(x) & np.isfinite(y), x + (y - x) * share, x)
    if a.present is None or b.present is None:
        return Column(values)
    present = a.present & b.present
    return Column(np.where(present, values, 0.0), present)
