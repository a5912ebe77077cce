"""`sample`: fewer readings of each key: one in so long, the last before a silence, the first or last of each period."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

import numpy as np
from msgspec import Meta

from pipeline.component import Memory, Operator, OperatorContext, Settings, State
from pipeline.frame import NO_PROGRESS, Array, Frame, Ints, KeyTable, by_code, concatenate, empty
from pipeline.frame_bytes import decode, encode
from pipeline.quantity import Duration
from pipeline.turns import RowOfKey, after, beyond, by_key, by_text, from_news, linked, width_of


class SampleSettings(Settings, frozen=True):
    method: Annotated[Literal["throttle", "debounce", "first", "last"], Meta(description="Which readings pass.")]
    period: Annotated[
        Duration,
        Meta(
            description="throttle: none for so long after one. debounce: the silence that must follow. Else: how long each is."
        ),
    ]
    offset: Annotated[Duration, Meta(description="By how much later than 1970 periods begin.")] = Duration(0)


class Sample(Operator):
    """Let fewer readings of each key pass, each as it came.

        temperature, every 4 s    1@0   2@4   3@8   4@12            (silence)
        throttle, 10 s            1@0               4@12
        debounce, 10 s                              4@12            (leaves when the watermark reaches 22 s)
        first, 10 s               1@0               4@12            (leave when it reaches 10 s, 20 s)
        last, 10 s                            3@8   4@12

        [operators.calm]
        type = "sample"
        input = "greenhouse"
        method = "throttle"
        period = "10 s"

    `throttle`: a reading passes, at once, if it is dated at least `period` after the key's last that passed. The first does.
    `debounce`: the newest reading of a key passes once none newer has come for `period`: when the watermark is so far past it,
    or when the key has a reading dated so much later.
    `first`, `last`: of each period of the key's readings the earliest or the latest by event time (of equal times the first or
    last to arrive), when the watermark reaches the period's end. Periods are aligned to 1970 plus `offset`.
    Rows that leave together leave by the time at which they do, then key. The end of a finite input lets go what waits.
    Late data: throttle drops what is dated before the last that passed. For the others a reading is late if the watermark had
    passed the moment at which it would have left; it goes to the output `late`.
    State: throttle the time of each key's last that passed, debounce the reading of each key that waits, first and last that
    of each key and open period. Memory: throttle 9 bytes for each key; debounce 9 for each key, and 8 for each field of it,
    9 if it may be missing; first and last 20 for each key and open period and the same for its fields, and up to three times
    that between two tidyings. Text counts as it is long.
    """

    def __init__(self, settings: SampleSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        if settings.period <= 0:
            context.problem("period", "must be longer than nothing")
        if settings.offset and settings.method in ("throttle", "debounce"):
            context.problem("offset", f'"{settings.method}" has no periods that could be moved')
        kinds: dict[str, type[_Way]] = {"throttle": _Throttle, "debounce": _Debounce, "first": _Edge, "last": _Edge}
        self.way = kinds[settings.method](settings, context)
        self.tick_by_tick = settings.method == "debounce"

    def on_frame(self, frame: Frame) -> Frame:
        return self.way.push(frame)

    def forget(self, keys: Ints, frame: Frame) -> None:
        super().forget(keys, frame)
        self.way.forget(keys)

    def due(self) -> int | None:
        return self.way.due()

    def memory(self) -> Memory:
        return self.way.memory()

    def snapshot(self) -> State:
        return self.way.snapshot()

    def restore(self, state: State) -> None:
        self.way.restore(state)


class _Way(Protocol):
    """A method."""

    def __init__(self, settings: SampleSettings, context: OperatorContext) -> None: ...
    def push(self, frame: Frame) -> Frame: ...
    def forget(self, keys: Ints) -> None: ...
    def due(self) -> int | None: ...
    def memory(self) -> Memory: ...
    def snapshot(self) -> State: ...
    def restore(self, state: State) -> None: ...


class _Throttle:
    """The times at which keys last passed. Which rows pass is a chain, as `pipeline/turns.py` says."""

    def __init__(self, settings: SampleSettings, context: OperatorContext) -> None:
        self.keys = context.keys
        self.period = max(int(settings.period), 1)
        self.last = RowOfKey({})

    def push(self, frame: Frame) -> Frame:
        if not len(frame):
            return frame
        self.last.grow(len(self.keys))
        new = ~self.last.has[frame.key] | (frame.time >= self.last.time[frame.key] + self.period)
        if not new.any():
            return frame.none()
        turns = from_news(frame.key, new)
        time = frame.time[turns.order]
        following = np.minimum(after(turns.begins), beyond(time, None, time + (self.period - 1), turns.longest))
        keep = np.sort(turns.order[linked(turns.first, following)])
        self.last.put_last(frame, keep)
        return frame.take(keep)

    def forget(self, keys: Ints) -> None:
        self.last.forget(keys)

    def due(self) -> int | None:
        return None

    def memory(self) -> Memory:
        return Memory(self.last.width)

    def snapshot(self) -> State:
        return self.last.snapshot(self.keys)

    def restore(self, state: State) -> None:
        self.last.restore(state)


class _Debounce:
    """The newest reading of each key, for as long as it may be followed by a newer one."""

    def __init__(self, settings: SampleSettings, context: OperatorContext) -> None:
        self.keys = context.keys
        self.wait = max(int(settings.period), 1)
        self.late = context.output("late", context.schema)
        self.waiting = RowOfKey(context.fields)
        self.nothing = empty(context.schema, NO_PROGRESS)
        self._first: int | None = (
            None  # before it no row leaves by time alone; the first that does leaves then or later
        )

    def push(self, frame: Frame) -> Frame:
        progress = frame.progress
        late = frame.time + self.wait <= frame.watermark_before()
        if late.any():
            self.late(frame.where(late))
            frame = frame.where(~late)
        left = [self._speak(frame)] if len(frame) else []
        if self._first is not None and (self._first <= progress.watermark or progress.ended):
            left.append(self._fall_silent(frame))
        if not any(map(len, left)):
            return self.nothing.with_progress(progress)
        return _as_they_leave(concatenate(left, progress), self.wait, self.keys)

    def _speak(self, frame: Frame) -> Frame:
        """The rows that a later one of their key lets go; the newest of each key waits."""
        self.waiting.grow(len(self.keys))
        once = len(frame) == 1 or len(np.unique(frame.key)) == len(frame)
        return self._one_each(frame) if once else self._several(frame)

    def _one_each(self, frame: Frame) -> Frame:
        """No key has two rows in the Frame, as where there are many keys or little comes: nothing need be sorted."""
        waits, before = self.waiting.has[frame.key], self.waiting.time[frame.key]
        until = before + self.wait
        passed = waits & (frame.watermark_before() >= until)
        goes = passed | (waits & (frame.time >= until))
        gone = self.nothing
        if goes.any():
            seq = np.where(passed, frame.progress.reached(until), frame.seq)[goes]
            gone = self.waiting.take(frame.key[goes], seq, frame.progress)
        newest = np.flatnonzero(~waits | (frame.time >= before))
        if len(newest):
            self._keep(frame.key[newest], frame, newest)
        return gone

    def _several(self, frame: Frame) -> Frame:
        keys = np.unique(frame.key)
        keys = keys[self.waiting.has[keys]]
        # What waited goes before the rows of its key, as one that came earlier.
        rows = concatenate([self.waiting.take(keys, np.full(len(keys), -1), frame.progress), frame])
        turns = by_key(rows.key)
        rows = rows.take(turns.order)
        # Ranks by key and time rise with every newer row, and from key to key: a running maximum finds the newest so far.
        ranked = np.lexsort((rows.time, rows.key))
        rank = np.empty(len(rows), np.int64)
        rank[ranked] = np.arange(len(rows))
        newest = ranked[np.maximum.accumulate(rank)]

        at = np.flatnonzero(~turns.begins)
        before = newest[at - 1]
        until = rows.time[before] + self.wait
        passed = frame.progress.before_rows(rows.seq[at]) >= until  # the watermark was there before the row came
        goes = passed | (rows.time[at] >= until)
        at, before, until, passed = at[goes], before[goes], until[goes], passed[goes]
        seq = np.where(passed, frame.progress.reached(until), rows.seq[at])
        self._keep(turns.keys, rows, newest[turns.last])
        gone = rows.take(before)
        return Frame(gone.time, gone.key, seq, gone.columns, frame.progress)

    def _keep(self, keys: Array, rows: Frame, newest: Ints) -> None:
        time = rows.time[newest]
        self.waiting.put(keys, time, {name: c.take(newest) for name, c in rows.columns.items()})
        first = int(time.min()) + self.wait
        self._first = first if self._first is None else min(self._first, first)

    def _fall_silent(self, frame: Frame) -> Frame:
        """The rows that the watermark lets go."""
        waits, until = self.waiting.has, self.waiting.time + self.wait
        keys = np.flatnonzero(waits if frame.ended else waits & (until <= frame.watermark))
        waits[keys] = False
        self._first = self._earliest()
        return self.waiting.take(keys, frame.progress.reached(until[keys]), frame.progress)

    def _earliest(self) -> int | None:
        waiting = self.waiting.time[self.waiting.has]
        return int(waiting.min()) + self.wait if len(waiting) else None

    def forget(self, keys: Ints) -> None:
        self.waiting.forget(keys)
        self._first = self._earliest()

    def due(self) -> int | None:
        return self._first

    def memory(self) -> Memory:
        return Memory(self.waiting.width)

    def snapshot(self) -> State:
        return self.waiting.snapshot(self.keys)

    def restore(self, state: State) -> None:
        self.waiting.restore(state)
        self._first = self._earliest()


class _Edge:
    """The first or the last reading of each key and period. Readings are put in piles, and of a pile that has become twice as
    high only the first or last are kept: so a Frame costs what it holds, and not what is open."""

    def __init__(self, settings: SampleSettings, context: OperatorContext) -> None:
        self.keys = context.keys
        self.size = max(int(settings.period), 1)
        self.offset = int(settings.offset)
        self.is_last = settings.method == "last"
        self.late = context.output("late", context.schema)
        self.schema = context.schema
        self.nothing = empty(context.schema, NO_PROGRESS)
        self.pile: list[Frame] = []
        self._height = 0  # rows in the pile
        self._tidy = 0  # rows that were left when it was last tidied
        self._first: int | None = None  # the end of the first open period

    def _end(self, time: Ints) -> Ints:
        end: Ints = ((time - self.offset) // self.size + 1) * self.size + self.offset
        return end

    def push(self, frame: Frame) -> Frame:
        progress = frame.progress
        if len(frame):
            end = self._end(frame.time)
            late = end <= frame.watermark_before()
            if late.any():
                self.late(frame.where(late))
                frame, end = frame.where(~late), end[~late]
            if len(frame):
                self._add(frame, int(end.min()))
        if self._first is not None and (self._first <= progress.watermark or progress.ended):
            return self._close(frame)
        if self._height > 2 * self._tidy + 1_024:
            self._set(self._kept())
        return self.nothing.with_progress(progress)

    def _add(self, frame: Frame, end: int) -> None:
        self.pile.append(frame)
        self._height += len(frame)
        self._first = end if self._first is None else min(self._first, end)

    def _kept(self) -> Frame:
        """Of each key and period the one reading that counts so far."""
        rows = concatenate(self.pile) if self.pile else self.nothing
        order = np.argsort(rows.time, kind="stable")  # of equal times in order of arrival
        order = order[by_code(rows.key[order])]
        period = np.unique(self._end(rows.time), return_inverse=True)[1]
        order = order[by_code(period[order])]
        differs = (np.diff(period[order]) != 0) | (np.diff(rows.key[order]) != 0)
        edge = np.append(differs, True) if self.is_last else np.append(True, differs)
        return rows.take(order[edge[: len(order)]])

    def _set(self, rows: Frame) -> None:
        self.pile = [rows] if len(rows) else []
        self._height = self._tidy = len(rows)
        self._first = int(self._end(rows.time).min()) if len(rows) else None

    def _close(self, frame: Frame) -> Frame:
        progress = frame.progress
        rows = self._kept()
        end = self._end(rows.time)
        leaves = end <= progress.watermark if not progress.ended else np.ones(len(rows), np.bool_)
        self._set(rows.where(~leaves))
        gone = rows.where(leaves)
        end = end[leaves]
        seq = progress.reached(end)
        order = np.lexsort((by_text(gone.key, self.keys), end, seq))
        gone = gone.take(order)
        return Frame(gone.time, gone.key, seq[order], gone.columns, progress)

    def forget(self, keys: Ints) -> None:
        rows = self._kept()
        self._set(rows.where(~np.isin(rows.key, keys)))

    def due(self) -> int | None:
        return self._first

    def memory(self) -> Memory:
        return Memory(
            3 * (20 + width_of(self.schema.fields)), "key and open period"
        )  # three times between two tidyings

    def snapshot(self) -> State:
        return {"rows": encode(self._kept())}

    def restore(self, state: State) -> None:
        self._set(decode(state["rows"], NO_PROGRESS))


def _as_they_leave(rows: Frame, wait: int, keys: KeyTable) -> Frame:
    """By what let them go; of what did so together, by the time at which they left, then key."""
    order = np.lexsort((by_text(rows.key, keys), rows.time + wait, rows.seq))
    return rows.take(order)
