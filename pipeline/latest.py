"""The newest row of each key of a stream, as columns by key code; and of each alert, where a stream carries several."""

from __future__ import annotations

import numpy as np

from pipeline.alerts import alert_names
from pipeline.component import State
from pipeline.frame import DTYPES, NEVER, NO_PROGRESS, Column, Frame, Schema, concatenate, empty

# What is put in its places together: numpy's price is paid once a call, 70 µs for an update. A Frame of one row holds 1 kB.
WAITING_ROWS, WAITING_FRAMES = 512, 64


class Latest:
    """By event time, and of rows of one time the one that arrived last. Rows are put in their places when there are enough of
    them, or when somebody asks. Memory: 16 bytes and 9 a field for each key, and what waits."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.time = np.full(0, NEVER, np.int64)
        self.values = {name: np.zeros(0, DTYPES[f.kind]) for name, f in schema.fields.items()}
        self.present = {name: np.zeros(0, np.bool_) for name in schema.fields}
        self.waiting: list[Frame] = []
        self._rows = 0  # of those that wait

    def update(self, frame: Frame) -> None:
        """Take in rows that have become durable."""
        if rows := len(frame):
            self.waiting.append(frame)
            self._rows += rows
            if self._rows >= WAITING_ROWS or len(self.waiting) >= WAITING_FRAMES:
                self._settle()

    def _settle(self) -> None:
        """Put in their places the rows that wait."""
        if not self.waiting:
            return
        frame = concatenate(self.waiting)
        self.waiting, self._rows = [], 0
        self._grow(int(frame.key.max()) + 1)
        if len(frame) > 1 and bool((np.diff(frame.time) < 0).any()):
            frame = frame.take(np.argsort(frame.time, kind="stable"))
        newer = np.flatnonzero(frame.time >= self.time[frame.key])
        key = frame.key[newer]  # where a key is there twice, numpy keeps the last: the newest
        self.time[key] = frame.time[newer]
        for name, (values, present) in frame.columns.items():
            self.values[name][key] = values[newer]
            self.present[name][key] = True if present is None else present[newer]

    def forget(self, key: int) -> bool:
        """Show nothing of a key, by code, until it has another row. Was there one?"""
        self._settle()
        shown = key < len(self.time) and int(self.time[key]) != NEVER
        if shown:
            self.time[key] = NEVER
        return shown

    def keys(self) -> int:
        """How many have had a row."""
        self._settle()
        return int(np.count_nonzero(self.time != NEVER))

    def _grow(self, keys: int) -> None:
        more = keys - len(self.time)
        if more <= 0:
            return
        more = max(more, len(self.time))
        self.time = np.append(self.time, np.full(more, NEVER, np.int64))
        for name, values in self.values.items():
            self.values[name] = np.append(values, np.zeros(more, values.dtype))
            self.present[name] = np.append(self.present[name], np.zeros(more, np.bool_))

    def frame(self) -> Frame:
        """A row for each key seen, by code."""
        self._settle()
        seen = np.flatnonzero(self.time != NEVER)
        columns = {name: Column(v[seen], self.present[name][seen]) for name, v in self.values.items()}
        return Frame(self.time[seen], seen.astype(np.int32), np.zeros(len(seen), np.int64), columns, NO_PROGRESS)

    def snapshot(self) -> State:
        frame = self.frame()
        columns = {name: [c.values, c.present] for name, c in frame.columns.items()}
        return {"time": frame.time, "key": frame.key, "columns": columns}

    def restore(self, state: State) -> None:
        columns = {name: Column(values, present) for name, (values, present) in state["columns"].items()}
        if columns.keys() == self.values.keys():
            seq = np.zeros(len(state["time"]), np.int64)
            self.update(Frame(state["time"], state["key"], seq, columns, NO_PROGRESS))


class LatestAlerts:
    """The newest row of each alert for each key: alerts merged into one stream do not hide each other there.

    Memory: that of a `Latest` for each alert.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.by_alert: dict[str, Latest] = {}

    def update(self, frame: Frame) -> None:
        """Take in rows that have become durable."""
        if not len(frame):
            return
        names = np.array(alert_names(frame, ""), object)
        for name in dict.fromkeys(names.tolist()):
            self.by_alert.setdefault(name, Latest(self.schema)).update(frame.where(names == name))

    def forget(self, key: int) -> None:
        for latest in self.by_alert.values():
            latest.forget(key)

    def frame(self) -> Frame:
        """A row for each alert and key seen."""
        if not self.by_alert:
            return empty(self.schema, NO_PROGRESS)
        return concatenate([latest.frame() for latest in self.by_alert.values()])

    def snapshot(self) -> State:
        return {name: latest.snapshot() for name, latest in self.by_alert.items()}

    def restore(self, state: State) -> None:
        for name, saved in state.items():
            self.by_alert.setdefault(name, Latest(self.schema)).restore(saved)
