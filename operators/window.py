"""`window`: aggregates over spans of event time, by key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from pipeline.aggregate import Aggregates
from pipeline.component import Operator, OperatorContext, Settings, State
from pipeline.frame import (
    NO_PROGRESS,
    Column,
    Field,
    Frame,
    Ints,
    KeyTable,
    Progress,
    Schema,
    column,
    concatenate,
    empty,
    in_order,
)
from pipeline.problem import did_you_mean
from pipeline.quantity import Duration

if TYPE_CHECKING:
    from collections.abc import Sequence

CELL = {"revision": (np.int64, -1), "open": (np.bool_, False)}  # what a cell holds beside its aggregates, at first
OWN_FIELDS = {"start": Field("time"), "end": Field("time"), "revision": Field("int")}
_MANY = 64  # windows between the first and the last of a Frame, of which more than there are rows are not listed


class WindowSettings(Settings, kw_only=True, frozen=True):
    window: Literal["tumbling"] = "tumbling"
    size: Duration
    offset: Duration = Duration(0)
    lateness: Duration = Duration(0)
    by: tuple[str, ...] | None = None
    aggregate: dict[str, str]


class Readings(NamedTuple):
    """The readings of a Frame: the group of each, and the values of every argument of the aggregates."""

    time: Ints
    seq: Ints
    group: Ints
    values: Sequence[Column]

    def take(self, rows: Ints) -> Readings:
        return Readings(self.time[rows], self.seq[rows], self.group[rows], [c.take(rows) for c in self.values])


class Rows(NamedTuple):
    """Rows that leave."""

    seq: Ints
    group: Ints
    start: Ints
    end: Ints
    revision: Ints
    aggregates: dict[str, Column]


class Windows(Protocol):
    """A way to put readings into windows. Its rows leave in the order in which it gives them."""

    def push(self, readings: Readings, progress: Progress) -> tuple[list[Rows], Ints | None]:
        """The readings and the time of one Frame -> rows that leave; which readings came too late (None: none)."""
        ...

    def due(self) -> int | None: ...
    def snapshot(self) -> State: ...
    def restore(self, state: State) -> None: ...


class Window(Operator):
    """Aggregates over windows of event time, by key.

        temperature of s1     21 @3 s   23 @8 s   25 @12 s
        size = "10 s"                             start 0, end 10, n 2, average 22
                                                  (leaves when the watermark reaches 10 s)

        [operators.ten_seconds]
        type = "window"
        input = "greenhouse"
        window = "tumbling"
        size = "10 s"
        aggregate = { n = "count()", average = "mean(temperature)" }

    A row: the key, `start`, `end`, `time` = `end`, `revision`, and the aggregates. Windows are half-open and aligned to
    1970 plus `offset`. Rows that leave together leave by `end`, then key. `by` names the fields that make a group: the
    key if absent, one group for all if empty. A group of one text field that is never missing has that text as its key;
    other groups show their fields as columns, and their key is the values as a JSON array.
    Late data: a reading is late when the watermark had reached the end of its window before it came. Within `lateness`
    it gives a corrected row at once (`revision` + 1); later than that it goes to the output `late`.
    The end of a finite input closes every window.
    At the limit: a reading of a new group when there are `max_keys` keys fails, and is set aside with that reason.
    State: the windows that can still change. Memory: about 150 bytes for each group and window with readings, and 16
    for each number kept of it (mean: a sum and a count; variance: four); twice that while the table grows.
    median, quantile, mode, distinct, rate and time_weighted_mean keep all readings of a window as well: 16 bytes each,
    and 9 for each expression that they are given.
    """

    def __init__(self, settings: WindowSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.groups = _Groups(settings.by, context)
        self.aggregates = Aggregates(
            settings.aggregate, context, {"revision": (np.int64, -1), "open": (np.bool_, False)}
        )
        shown = {**self.groups.fields, **OWN_FIELDS}
        for name in settings.aggregate:
            if name in {*shown, "time", self.groups.key} or not name.isidentifier():
                context.problem(f"aggregate.{name}", f'"{name}" cannot be the name of an aggregate; choose another')
        self.schema = Schema(self.groups.key, {**shown, **self.aggregates.fields}, "windows")
        self.nothing = empty(self.schema, NO_PROGRESS)
        self.late = context.output("late", context.schema)
        self.windows: Windows = {"tumbling": Tumbling}[settings.window](settings, self.aggregates, context)

    def on_frame(self, frame: Frame) -> Frame:
        # Both may raise: so they come before any state changes.
        readings = Readings(frame.time, frame.seq, self.groups.codes(frame), self.aggregates.evaluate(frame))
        rows, late = self.windows.push(readings, frame.progress)
        if late is not None:
            self.late(frame.take(late))
        if not rows:
            return self.nothing.with_progress(frame.progress)
        return in_order(concatenate([self._frame(r, frame.progress) for r in rows]))

    def _frame(self, rows: Rows, progress: Progress) -> Frame:
        own = {"start": Column(rows.start), "end": Column(rows.end), "revision": Column(rows.revision)}
        columns = {**self.groups.columns(rows.group), **own, **rows.aggregates}
        return Frame(rows.end, rows.group.astype(np.int32), rows.seq, columns, progress)

    def due(self) -> int | None:
        return self.windows.due()

    def snapshot(self) -> State:
        return self.windows.snapshot()

    def restore(self, state: State) -> None:
        self.windows.restore(state)


class _Groups:
    """What `by` makes of readings: the code of each one's group, and the fields that show a group."""

    def __init__(self, by: tuple[str, ...] | None, context: OperatorContext) -> None:
        schema = context.schema
        self.keys = context.keys
        self.key_name = schema.key
        self.by_key = by is None or by == (schema.key,)
        self.by = () if self.by_key or by is None else self._known(by, context)
        self.fields: dict[str, Field] = {}
        self.key = schema.key if self.by_key else None
        if len(self.by) == 1 and schema.fields.get(self.by[0]) == Field("string"):
            self.key = self.by[0]
        else:
            self.fields = {name: schema.fields.get(name, Field("string")) for name in self.by}
        self._seen: dict[tuple[Any, ...], int] = {}  # what spares making JSON of each reading; no part of the state

    @staticmethod
    def _known(by: tuple[str, ...], context: OperatorContext) -> tuple[str, ...]:
        known = [*([context.schema.key] if context.schema.key else []), *context.fields]
        for i, name in enumerate(by):
            if name not in known:
                context.problem("by", f'"{name}" is not a field of the input{did_you_mean(name, known)}')
            elif name in by[:i]:
                context.problem("by", f'"{name}" is named twice')
            elif name in context.fields and context.fields[name].nan:
                context.problem("by", f'"{name}" may be NaN, which equals nothing and makes no group')
            elif name in OWN_FIELDS:
                context.problem("by", f'the rows of a window have a "{name}" of their own; rename that of the input')
        return tuple(dict.fromkeys(name for name in by if name in known))

    def codes(self, frame: Frame) -> Ints:
        """The group of each row. ValueError where there can be no more groups."""
        if self.by_key or not len(frame):
            return frame.key.astype(np.int64)
        if not self.by:
            return np.full(len(frame), self.keys.whole(), np.int64)
        parts = [self._texts(frame) if n == self.key_name else frame[n].tolist() for n in self.by]
        codes = self._of_text(parts[0]) if self.key is not None else self._of_several(list(zip(*parts, strict=True)))
        if int(codes.min()) < 0:
            raise ValueError(f"too many groups (max_keys = {self.keys.limit:,}), or the text of one is too long")
        return codes

    def _texts(self, frame: Frame) -> list[str]:
        names = self.keys.names
        return [names[code] for code in frame.key.tolist()]

    def _of_text(self, texts: list[str]) -> Ints:
        whole = self.keys.whole() if "" in texts else -1
        return np.fromiter((self.keys[t] if t else whole for t in texts), np.int64, len(texts))

    def _of_several(self, groups: list[tuple[Any, ...]]) -> Ints:
        for group in set(groups).difference(self._seen):
            code = self.keys[json.dumps(group, ensure_ascii=False)]
            if code >= 0:
                self._seen[group] = code
        return np.fromiter((self._seen.get(g, -1) for g in groups), np.int64, len(groups))

    def columns(self, group: Ints) -> dict[str, Column]:
        """The fields of these groups, where they are not shown as the key."""
        if not self.fields:
            return {}
        groups = [json.loads(self.keys.names[code]) for code in group.tolist()]
        return {name: column(f.kind, [g[i] for g in groups]) for i, (name, f) in enumerate(self.fields.items())}


class Tumbling:
    """Windows side by side: each reading is in one. Window number w is [offset + w * size, offset + (w + 1) * size).

    A cell is `open` when readings have come to it that no row has shown. A reading that is not late always comes before
    its window closes; so those of a Frame are added all at once, then windows close, then late ones correct.
    """

    def __init__(self, settings: WindowSettings, aggregates: Aggregates, context: OperatorContext) -> None:
        if settings.size <= 0:
            context.problem("size", "a window must be longer than nothing")
        self.size = max(int(settings.size), 1)
        self.offset = int(settings.offset)
        self.lateness = int(settings.lateness)
        self.aggregates = aggregates
        self.cells = aggregates.cells
        self._ranks = _Ranks(context.keys)
        self._next: int | None = None  # the first window with an open cell

    def _number(self, time: Any) -> Any:
        return (time - self.offset) // self.size

    def _end(self, window: Any) -> Any:
        return (window + 1) * self.size + self.offset

    # --- a Frame ---

    def push(self, readings: Readings, progress: Progress) -> tuple[list[Rows], Ints | None]:
        window, late, behind = self._take(readings, progress) if len(readings.time) else (None, None, None)
        rows = []
        if self._next is not None and (progress.ended or self._end(self._next) <= progress.watermark):
            rows.append(self._close(progress))
        if behind is not None and window is not None:
            # Before rows of the same reading: it was judged before it moved the watermark.
            rows.insert(0, self._correct(readings.take(behind), window[behind]))
        self.aggregates.drop(self._number(progress.watermark - self.lateness))
        return rows, late

    def _take(self, readings: Readings, progress: Progress) -> tuple[Any, Ints | None, Ints | None]:
        """Add what is not late. The window of each reading; which are too late; which correct."""
        time = readings.time
        if len(time) == 1:
            low = high = self._number(int(time[0]))
        else:
            low, high = self._number(int(time.min())), self._number(int(time.max()))
        window: Any = low if low == high else self._number(time)
        if self._end(low) > progress.after:
            self._add(readings, window, low)
            return window, None, None
        on_time = readings.seq <= self._passed(progress, window, low, high, 0)
        if on_time.all():
            self._add(readings, window, low)
            return window, None, None
        window = np.broadcast_to(window, time.shape)
        rows = np.flatnonzero(on_time)
        if len(rows):
            self._add(readings.take(rows), window[rows], int(window[rows].min()))
        too_late = ~on_time
        if self.lateness:
            too_late &= readings.seq > self._passed(progress, window, low, high, self.lateness)
        late, behind = np.flatnonzero(too_late), np.flatnonzero(~on_time & ~too_late)
        return window, late if len(late) else None, behind if len(behind) else None

    def _passed(self, progress: Progress, window: Any, low: int, high: int, lateness: int) -> Ints:
        """The arrival number after which the watermark stood at or beyond the end of each window, plus `lateness`."""
        if low == high:
            return progress.passed(np.array([self._end(low) + lateness]))
        if high - low > max(_MANY, len(window)):
            return progress.passed(self._end(window) + lateness)
        passed: Ints = progress.passed(self._end(np.arange(low, high + 1)) + lateness)[window - low]
        return passed

    def _add(self, readings: Readings, window: int | Ints, first: int) -> None:
        slots = self.cells.find(window, readings.group)
        self.cells["open"][slots] = True
        self.aggregates.add(slots, window, readings.group, readings.time, readings.values)
        if self._next is None or first < self._next:
            self._next = first

    # --- rows that leave ---

    def _close(self, progress: Progress) -> Rows:
        """A row of every open cell whose window's end the watermark has reached; at the end of the input, of all."""
        is_open, windows = self.cells["open"], self.cells["window"]
        slots = np.flatnonzero(is_open)
        if not progress.ended:
            slots = slots[windows[slots] < self._number(progress.watermark)]
        slots = slots[np.lexsort((self._ranks(self.cells["group"][slots]), windows[slots]))]
        is_open[slots] = False
        left = windows[is_open]
        self._next = int(left.min()) if len(left) else None
        return self._rows(slots, progress.reached(self._end(windows[slots])))

    def _correct(self, readings: Readings, window: Ints) -> Rows:
        """A row for each reading: its cell as it was then. Each turn takes the next reading of every cell."""
        slots = self.cells.find(window, readings.group)
        order = np.argsort(slots, kind="stable")
        begins = np.diff(slots[order], prepend=-1) != 0
        place = np.arange(len(order))
        turn = np.empty(len(order), np.int64)
        turn[order] = place - np.maximum.accumulate(np.where(begins, place, 0))
        parts, turns = [], [np.flatnonzero(turn == t) for t in range(int(turn.max()) + 1)]
        for rows in turns:
            one = readings.take(rows)
            self.aggregates.add(slots[rows], window[rows], one.group, one.time, one.values)
            parts.append(self._rows(slots[rows], one.seq))
        return _joined(parts, np.argsort(np.concatenate(turns)))

    def _rows(self, slots: Ints, seq: Ints) -> Rows:
        revision = self.cells["revision"][slots] + 1
        self.cells["revision"][slots] = revision
        end = self._end(self.cells["window"][slots])
        return Rows(seq, self.cells["group"][slots], end - self.size, end, revision, self.aggregates.result(slots, end))

    # --- time and state ---

    def due(self) -> int | None:
        return None if self._next is None else self._end(self._next)

    def snapshot(self) -> State:
        return self.aggregates.snapshot()

    def restore(self, state: State) -> None:
        self.aggregates.restore(state)
        left = self.cells["window"][self.cells["open"]]
        self._next = int(left.min()) if len(left) else None


class _Ranks:
    """Numbers in the order of the groups' texts. All keys are put in order only once as many were sorted singly."""

    def __init__(self, keys: KeyTable) -> None:
        self._keys = keys
        self._ordered = 0  # keys that there were when all were put in order
        self._sorted = 0  # groups sorted singly since

    def __call__(self, group: Ints) -> Ints:
        self._sorted += len(group)
        if len(self._keys) == self._ordered or self._sorted >= len(self._keys):
            self._ordered, self._sorted = len(self._keys), 0
            return self._keys.ranks()[group]
        distinct, which = np.unique(group, return_inverse=True)
        order = sorted(range(len(distinct)), key=[self._keys.names[code] for code in distinct.tolist()].__getitem__)
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        found: Ints = ranks[which]
        return found


def _joined(parts: list[Rows], order: Ints) -> Rows:
    seq, group, start, end, revision = (
        np.concatenate(arrays)[order] for arrays in zip(*(p[:5] for p in parts), strict=True)
    )
    aggregates = {name: _join([p.aggregates[name] for p in parts]).take(order) for name in parts[0].aggregates}
    return Rows(seq, group, start, end, revision, aggregates)


def _join(parts: list[Column]) -> Column:
    return Column(np.concatenate([c.values for c in parts]), np.concatenate([c.known() for c in parts]))
