"""Count windows: every so many readings of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from operators.window.parts import Readings, Rows
from pipeline.aggregate.cells import SPAN
from pipeline.frame import by_code

if TYPE_CHECKING:
    from pipeline.aggregate import Aggregates
    from pipeline.component import State
    from pipeline.frame import Array, Bools, Ints, Progress

_LEAST = 64
_INT = np.iinfo(np.int64)
_GROUP = {
    "filled": (np.int64, 0),  # readings in the window that is open
    "full": (np.int64, 0),  # windows before it
    "start": (np.int64, _INT.max),
    "end": (np.int64, _INT.min),
}


class Counting:
    """One open window a group, in columns by the group's code. Time has no part in it."""

    def __init__(self, size: int, aggregates: Aggregates) -> None:
        self.size = size
        self.aggregates = aggregates
        self._kinds = {**_GROUP, **aggregates.columns}
        self.columns: dict[str, Array] = {n: np.full(_LEAST, fill, dtype) for n, (dtype, fill) in self._kinds.items()}
        self.kept = aggregates.store(self._wanted)

    def _wanted(self, cells: Ints) -> Bools:
        open_: Bools = cells >> 24 == self.columns["full"][cells & (SPAN - 1)]
        return open_

    def push(self, readings: Readings, progress: Progress) -> tuple[list[Rows], Ints | None]:
        if not len(readings.time):
            return [], None
        self._grow(int(readings.group.max()) + 1)
        return self._one(readings) if len(readings.time) == 1 else self._many(readings), None

    def _one(self, reading: Readings) -> list[Rows]:
        """A single reading: its group's columns take it where they are."""
        columns, slot = self.columns, reading.group
        self.aggregates.add(columns, slot, reading.time, reading.values)
        columns["start"][slot] = np.minimum(columns["start"][slot], reading.time)
        columns["end"][slot] = np.maximum(columns["end"][slot], reading.time)
        columns["filled"][slot] += 1
        number = (columns["full"][slot] << 24) + slot
        if self.aggregates.keeps:
            self.kept.add(number, reading.time, reading.values)
        if int(columns["filled"][slot[0]]) < self.size:
            return []
        rows = self._rows(columns, slot, slot, number, reading.seq)
        for name, (_, fill) in self._kinds.items():
            columns[name][slot] = columns[name][slot] + 1 if name == "full" else fill
        return rows

    def _many(self, readings: Readings) -> list[Rows]:
        order = by_code(readings.group)
        group = readings.group[order]
        begins = np.flatnonzero(np.diff(group, prepend=-1))
        counts = np.diff(begins, append=len(group))
        speakers = group[begins]
        filled = self.columns["filled"][speakers]
        place = np.arange(len(group)) + np.repeat(
            filled - begins, counts
        )  # among the readings since the open window began
        window = place // self.size
        # The cells of this Frame: of each group the open window, and those that begin here.
        first = np.flatnonzero((np.diff(group, prepend=-1) != 0) | (np.diff(window, prepend=-1) != 0))
        cell = np.empty(len(order), np.int64)
        cell[order] = np.repeat(np.arange(len(first)), np.diff(first, append=len(order)))
        cells = self._open(group[first], window[first])
        self.aggregates.add(cells, cell, readings.time, readings.values)
        np.minimum.at(cells["start"], cell, readings.time)
        np.maximum.at(cells["end"], cell, readings.time)
        number = (cells["full"] << 24) + group[first]
        if self.aggregates.keeps:
            self.kept.add(number[cell], readings.time, readings.values)
        total = filled + counts
        last = np.append(first[1:], len(order)) - 1  # of each cell
        cells["filled"] = place[last] - window[first] * self.size + 1
        full = np.flatnonzero(cells["filled"] == self.size)
        full = full[np.argsort(order[last[full]])]  # by the readings that filled them
        rows = []
        if len(full):
            rows = self._rows(cells, full, group[first[full]], number[full], readings.seq[order[last[full]]])
        self._keep_open(cells, np.cumsum(np.bincount(np.searchsorted(begins, first, "right") - 1)) - 1, speakers, total)
        return rows

    def _open(self, group: Ints, window: Ints) -> dict[str, Array]:
        """The columns of these windows: as they are for a group's open one, else new."""
        cells = {name: column[group] for name, column in self.columns.items()}
        cells["full"] = cells["full"] + window
        new = np.flatnonzero(window)
        for name, (_, fill) in self._kinds.items():
            if name != "full":
                cells[name][new] = fill
        return cells

    def _rows(self, columns: dict[str, Array], full: Ints, group: Ints, number: Ints, seq: Ints) -> list[Rows]:
        end = columns["end"][full]
        kept = self.kept.select(number) if self.aggregates.keeps else []
        aggregates = self.aggregates.result(columns, full, end, kept)
        return [Rows(seq, group, columns["start"][full], end, np.zeros(len(full), np.int64), aggregates)]

    def _keep_open(self, cells: dict[str, Array], newest: Ints, group: Ints, total: Ints) -> None:
        """The newest window of each group stays open; where it is full, the next one begins."""
        full = np.flatnonzero(total % self.size == 0)
        for name, (_, fill) in self._kinds.items():
            column = cells[name][newest]
            column[full] = column[full] + 1 if name == "full" else fill
            self.columns[name][group] = column

    def _grow(self, groups: int) -> None:
        size = len(self.columns["filled"])
        if groups > size:
            more = max(groups - size, size)
            self.columns = {
                name: np.append(self.columns[name], np.full(more, fill, dtype))
                for name, (dtype, fill) in self._kinds.items()
            }

    def early(self, seq: int) -> Rows | None:
        return None

    def forget(self, groups: Ints) -> None:
        self.kept.leave_out(lambda cells: np.isin(cells & (SPAN - 1), groups))
        there = groups[groups < len(self.columns["filled"])]
        for name, (_, fill) in self._kinds.items():
            self.columns[name][there] = fill

    def due(self) -> int | None:
        return None

    def snapshot(self) -> State:
        group = np.flatnonzero((self.columns["filled"] > 0) | (self.columns["full"] > 0))
        columns = {name: column[group] for name, column in self.columns.items()}
        return {"group": group, "columns": columns, "rows": self.kept.snapshot()}

    def restore(self, state: State) -> None:
        group = state["group"]
        self.columns = {n: np.full(_LEAST, fill, dtype) for n, (dtype, fill) in self._kinds.items()}
        self._grow(int(group.max(initial=-1)) + 1)
        for name, column in state["columns"].items():
            self.columns[name][group] = column
        self.kept.restore(state["rows"])
