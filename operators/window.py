"""`window`: aggregates over spans of event time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from pipeline.aggregate import ACCUMULATORS, Aggregates, Incremental, Values
from pipeline.component import Operator, OperatorContext, Settings, State
from pipeline.frame import Array, Bools, Column, Field, Frame, Ints, Schema, column, concatenate, in_order
from pipeline.problem import did_you_mean
from pipeline.quantity import Duration


class WindowSettings(Settings, frozen=True, kw_only=True):
    window: Literal["tumbling"] = "tumbling"
    size: Duration
    offset: Duration = Duration(0)
    lateness: Duration = Duration(0)
    by: tuple[str, ...] | None = None
    aggregate: dict[str, str]


class Panes:
    """The accumulators of the open windows: arrays of shape (rows, groups), a row for each window that is open."""

    def __init__(self, aggregates: Aggregates) -> None:
        self.aggregates = aggregates
        self.groups = 16
        self.rows: dict[int, int] = {}  # start of the window -> row
        self.emitted: set[int] = set()  # windows whose first row has left
        self.free: list[int] = []
        self.arrays: dict[tuple[str, str], list[Array]] = {}
        self.fills: dict[tuple[str, str], list[Any]] = {}
        self.revisions: Array = np.zeros((0, self.groups), np.int64)
        self.kept: dict[
            int, dict[str, list[tuple[Ints, Ints, Array]]]
        ] = {}  # window -> argument -> (group, time, value)
        for name, argument in aggregates.accumulators:
            fills = ACCUMULATORS[name].fills(aggregates.dtype(argument))
            self.fills[name, argument] = [fill for _, fill in fills]
            self.arrays[name, argument] = [np.full((0, self.groups), fill, dtype) for dtype, fill in fills]

    def flat(self) -> dict[tuple[str, str], list[Array]]:
        """The arrays by slot: row * groups + group."""
        return {key: [array.reshape(-1) for array in arrays] for key, arrays in self.arrays.items()}

    def grow(self, groups: int) -> None:
        if groups > self.groups:
            self._resize(len(self.revisions), max(groups, 2 * self.groups))

    def row(self, start: int) -> int:
        """The row of a window; it is opened if need be."""
        row = self.rows.get(start)
        if row is None:
            if not self.free:
                had = len(self.revisions)
                self._resize(had + 2, self.groups)
                self.free = [had + 1, had]
            row = self.rows[start] = self.free.pop()
        return row

    def _resize(self, rows: int, groups: int) -> None:
        had, width = self.revisions.shape
        self.groups = groups

        def larger(old: Array, fill: Any) -> Array:
            new = np.full((rows, groups), fill, old.dtype)
            new[:had, :width] = old
            return new

        self.revisions = larger(self.revisions, 0)
        for key, arrays in self.arrays.items():
            self.arrays[key] = [larger(a, f) for a, f in zip(arrays, self.fills[key], strict=True)]

    def drop(self, start: int) -> None:
        """Forget a window; its row is cleared for another one."""
        row = self.rows.pop(start)
        self.emitted.discard(start)
        self.kept.pop(start, None)
        self.revisions[row] = 0
        for key, arrays in self.arrays.items():
            for array, fill in zip(arrays, self.fills[key], strict=True):
                array[row] = fill
        self.free.append(row)

    def present(self, start: int) -> Ints:
        """The groups that have readings in a window."""
        return np.flatnonzero(self.arrays["count", ""][0][self.rows[start]])

    def keep(self, start: int, argument: str, new: Values, slots: Ints) -> None:
        """Hold on to values, for aggregates that need all of them. `slots` are those of this window's values."""
        chunk = (new.slots[slots] % self.groups, new.time[slots], new.values[slots])
        self.kept.setdefault(start, {}).setdefault(argument, []).append(chunk)

    def values(self, start: int, argument: str, groups: Ints) -> tuple[Ints, Ints, Array]:
        """The values held for some groups of a window, in order of arrival."""
        chunks = self.kept.get(start, {}).get(argument)
        if not chunks:
            dtype = self.aggregates.dtype(argument)
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, dtype)
        group, time, values = (np.concatenate(part) for part in zip(*chunks, strict=True))
        wanted = np.isin(group, groups)
        return group[wanted], time[wanted], values[wanted]

    def snapshot(self) -> State:
        starts = sorted(self.rows)
        rows = [self.rows[s] for s in starts]
        arrays = {f"{n}({a})": [x[rows] for x in arrays] for (n, a), arrays in self.arrays.items()}
        kept = {
            str(s): {a: [np.concatenate(p) for p in zip(*chunks, strict=True)] for a, chunks in of.items()}
            for s, of in sorted(self.kept.items())
        }
        return {
            "starts": starts,
            "emitted": sorted(self.emitted),
            "revisions": self.revisions[rows],
            "arrays": arrays,
            "kept": kept,
        }

    def restore(self, state: State) -> None:
        starts, width = state["starts"], state["revisions"].shape[1]
        self.rows, self.free, self.emitted = {s: i for i, s in enumerate(starts)}, [], set(state["emitted"])
        self.groups = width
        self.revisions = state["revisions"].copy()
        self.arrays = {(n, a): [x.copy() for x in state["arrays"][f"{n}({a})"]] for n, a in self.arrays}
        self.kept = {int(s): {a: [tuple(c)] for a, c in of.items()} for s, of in state["kept"].items()}


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
    1970 plus `offset`. `by` names the fields that make a group: the key if absent, one group if empty.
    Late data: with `lateness`, a reading for a window that has left gives a corrected row (`revision` + 1); what is later
    goes to the output `late`. The end of a finite input closes every window.
    Memory: about 16 bytes an aggregate for each group and open window; median, quantile, distinct, mode, rate and
    time_weighted_mean hold every value of an open window (24 bytes each).
    """

    def __init__(self, settings: WindowSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        for name in ("size", "lateness", "offset"):
            if getattr(settings, name) < (name == "size"):
                context.problem(name, "must be longer than nothing")
        self.size, self.offset, self.lateness = max(int(settings.size), 1), int(settings.offset), int(settings.lateness)
        key_name = context.schema.key
        self.by = (key_name or "",) if settings.by is None else settings.by
        self.by_key = settings.by is None or (len(self.by) == 1 and self.by[0] == key_name)
        self._check_by(context)
        self.aggregates = Aggregates(settings.aggregate, context)
        self.panes = Panes(self.aggregates)
        self.late = context.output("late", context.schema)
        self.schema = self._schema(context.schema)

    def _check_by(self, context: OperatorContext) -> None:
        known = [*context.fields, *([context.schema.key] if context.schema.key else [])]
        for name in () if self.by_key else self.by:
            if name not in known:
                context.problem("by", f'"{name}" is not a field of the input{did_you_mean(name, known)}')
        self.by = tuple(name for name in self.by if name in known or self.by_key)

    def _schema(self, schema: Schema) -> Schema:
        fields = {"start": Field("time"), "end": Field("time"), "revision": Field("int")}
        key = schema.key if self.by_key else None
        if not self.by_key:
            if len(self.by) == 1 and schema.fields[self.by[0]].kind == "string":
                key = self.by[0]
            else:
                fields = {n: schema.fields.get(n, Field("string")) for n in self.by} | fields
        return Schema(key, fields | self.aggregates.fields, "windows")

    # --- a Frame ---

    def on_frame(self, frame: Frame) -> Frame:
        out: list[Frame] = []
        corrections: Ints | None = None
        if len(frame):
            corrections = self._take(frame)
        if self.panes.rows:
            self._close(frame, out)
            if corrections is not None:
                self._correct(frame, corrections, out)
            self._forget(frame)
        if not out:
            return self._rows(frame, [], np.empty(0, np.int64), np.empty(0, np.int64))
        return in_order(concatenate(out, frame.progress))

    def _take(self, frame: Frame) -> Ints | None:
        """Add the readings whose windows have not left. The rows that correct one are given back; the rest is late."""
        low, high = self._start(int(frame.time.min())), self._start(int(frame.time.max()))
        if low == high:
            starts, which = np.array([low]), None
        else:
            starts, which = self._windows(frame.time, low, high)
        ends = starts + self.size
        passed = frame.progress.passed(ends)
        group = self._groups(frame)
        if int(passed.min()) >= int(frame.seq[-1]):  # none of these windows left before the last reading came
            self._add(frame, group, starts, which)
            return None
        row_passed = passed[0] if which is None else passed[which]
        on_time = frame.seq <= row_passed
        rows = np.flatnonzero(on_time)
        if len(rows):
            self._add(frame.take(rows), group[rows], starts, None if which is None else which[rows])
        return self._late(frame, ~on_time, ends, which)

    def _windows(self, time: Ints, low: int, high: int) -> tuple[Ints, Ints]:
        """The windows from the lowest to the highest, and which of them each row falls into."""
        count = (high - low) // self.size + 1
        if count <= max(64, len(time)):
            return low + self.size * np.arange(count), (time - low) // self.size
        starts, which = np.unique(self._start(time), return_inverse=True)
        return starts, which

    def _late(self, frame: Frame, late: Bools, ends: Ints, which: Ints | None) -> Ints | None:
        """Of the rows that came after their window left, those within `lateness`; the others are emitted as late."""
        if not late.any():
            return None
        last = frame.progress.passed(ends + self.lateness) if self.lateness else frame.progress.passed(ends)
        within = late & (frame.seq <= (last[0] if which is None else last[which]))
        if (late & ~within).any():
            self.late(frame.where(late & ~within))
        rows = np.flatnonzero(within)
        return rows if len(rows) else None

    def _start(self, time: Any) -> Any:
        return time - (time - self.offset) % self.size

    def _groups(self, frame: Frame) -> Array:
        """The code of each row's group."""
        if self.by_key:
            return frame.key
        if not self.by:
            return np.full(len(frame), self.context.keys.whole(), np.int32)
        columns = [self._by_column(frame, name) for name in self.by]
        if self.schema.key is not None:
            texts = ["" if v is None else v for v in columns[0]]
        else:
            texts = [json.dumps(group, ensure_ascii=False) for group in zip(*columns, strict=True)]
        codes = self.context.keys.codes(texts)
        if "" in texts:
            codes[[text == "" for text in texts]] = self.context.keys.whole()
        if len(codes) and int(codes.min()) < 0:
            raise ValueError(f"too many groups (max_keys = {self.context.keys.limit})")
        return codes

    def _by_column(self, frame: Frame, name: str) -> list[Any]:
        if name == self.context.schema.key:
            names = self.context.keys.names
            return [names[code] for code in frame.key.tolist()]
        return frame[name].tolist()

    def _add(self, frame: Frame, group: Array, starts: Ints, which: Ints | None) -> None:
        """Add readings to the accumulators. `which`: index of each row's window in `starts`; None: all in the first."""
        panes = self.panes
        panes.grow(int(group.max()) + 1)
        if which is None:
            rows: Any = panes.row(int(starts[0]))
        else:
            used = np.flatnonzero(np.bincount(which, minlength=len(starts)))
            table = np.zeros(len(starts), np.int64)
            table[used] = [panes.row(int(s)) for s in starts[used]]
            rows = table[which]
        slots = rows * panes.groups + group.astype(np.int64)
        values = self.aggregates.values(frame, slots)
        flat = panes.flat()
        for name, argument in self.aggregates.accumulators:
            ACCUMULATORS[name].add(flat[name, argument], values[argument])
        for argument in self.aggregates.kept:
            new = values[argument]
            row_of = new.slots // panes.groups
            for start in starts.tolist():
                if start in panes.rows and len(mine := np.flatnonzero(row_of == panes.rows[start])):
                    panes.keep(start, argument, new, mine)

    # --- rows that leave ---

    def _close(self, frame: Frame, out: list[Frame]) -> None:
        """The first row of every group of each window whose end the watermark has reached."""
        due = sorted(s for s in self.panes.rows if s not in self.panes.emitted)
        if not frame.ended:
            due = [s for s in due if s + self.size <= frame.watermark]
        if not due:
            return
        ranks = self.context.keys.ranks()
        reached = frame.progress.reached(np.array(due) + self.size)
        if frame.ended:
            reached = np.where(np.array(due) + self.size <= frame.watermark, reached, frame.progress.next_seq)
        for start, seq in zip(due, reached.tolist(), strict=True):
            groups = self.panes.present(start)
            groups = groups[np.argsort(ranks[groups])]
            out.append(self._rows(frame, [start], groups, np.full(len(groups), seq, np.int64)))
            self.panes.revisions[self.panes.rows[start], groups] = 1
            self.panes.emitted.add(start)

    def _correct(self, frame: Frame, rows: Ints, out: list[Frame]) -> None:
        """A corrected row for each late reading, one after the other: each shows what the window was after it."""
        for row in rows.tolist():
            one = frame.take(slice(row, row + 1))
            start = self._start(one.time)
            group = self._groups(one)
            self._add(one, group, start, None)
            at = int(start[0])
            self.panes.emitted.add(at)
            out.append(self._rows(frame, [at], group.astype(np.int64), one.seq))
            self.panes.revisions[self.panes.rows[at], group] += 1

    def _forget(self, frame: Frame) -> None:
        """Drop the windows that can change no more."""
        for start in [s for s in self.panes.emitted if s + self.size + self.lateness <= frame.watermark or frame.ended]:
            self.panes.drop(start)

    def _rows(self, frame: Frame, window: Sequence[int], groups: Ints, seq: Ints) -> Frame:
        """The rows of one window for some groups (none, without a window)."""
        n = len(groups)
        start = window[0] if window else 0
        row = self.panes.rows[start] if window else 0
        times = np.full(n, start + self.size, np.int64)
        columns = {
            "start": Column(np.full(n, start, np.int64)),
            "end": Column(times),
            "revision": Column(self.panes.revisions[row, groups] if n else np.empty(0, np.int64)),
        }
        columns |= self._by_columns(groups)
        slots = row * self.panes.groups + groups
        flat = self.panes.flat()
        for aggregate in self.aggregates.made:
            if isinstance(aggregate.how, Incremental):
                columns[aggregate.name] = self.aggregates.column(aggregate, flat, slots)
            else:
                values = self.panes.values(start, aggregate.argument, groups)
                columns[aggregate.name] = self.aggregates.whole(aggregate, groups, values, start + self.size)
        ordered = {name: columns[name] for name in self.schema.fields}
        return Frame(times, groups.astype(np.int32), seq, ordered, frame.progress)

    def _by_columns(self, groups: Ints) -> dict[str, Column]:
        """The fields that make a group, where it is not shown as the key."""
        if self.by_key or self.schema.key is not None or not self.by:
            return {}
        parts = [json.loads(self.context.keys.names[g]) for g in groups.tolist()]
        return {n: column(self.schema.fields[n].kind, [p[i] for p in parts]) for i, n in enumerate(self.by)}

    # --- time and state ---

    def due(self) -> int | None:
        waiting = [s for s in self.panes.rows if s not in self.panes.emitted]
        return min(waiting) + self.size if waiting else None

    def snapshot(self) -> State:
        return self.panes.snapshot()

    def restore(self, state: State) -> None:
        self.panes.restore(state)
