"""What is committed, to all who listen.

commit -> Feed: its rows, filtered and encoded once a step for all who asked the same -> a queue for each Listener
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import orjson

from pipeline.expression import Expression
from pipeline.frame import Frame, KeyTable, Schema, rows
from pipeline.web import HttpProblem

if TYPE_CHECKING:
    from pipeline.component import Services

LISTENERS = 100  # at once; each holds a connection
QUEUE_BYTES = 1_000_000  # that wait for one listener
WAITING_ROWS = 100_000  # of steps that wait to be encoded, for all together
CATCH_UP = 20_000  # rows of a stream that are brought again at most
AT_ONCE = 1_000  # rows of those in an event, about
LARGE = 1_000  # rows from which on they are encoded beside the loop: about 2 ms of work


class Filter(NamedTuple):
    """Which rows of a stream. Equal ones share their encoding."""

    stream: str
    keys: tuple[str, ...] | None
    where: str | None


class Told(NamedTuple):
    """What a listener is told at once: JSON of the rows of each stream, how many they are, the `id` after them."""

    parts: Sequence[bytes]
    rows: int
    end: int


class Listener:
    """Who listens, and what waits for them."""

    def __init__(self, filters: Sequence[Filter], begins: int) -> None:
        self.filters = filters
        self.begins = begins  # what arrived before is in the history; what came later is put here
        self.queue: deque[Told] = deque()
        self.bytes = 0
        self.missed = 0  # rows, since the last time they were told
        self.closed = False
        self._news = asyncio.Event()

    def put(self, told: Told) -> None:
        """Never waits: a listener that is too slow misses what has waited longest."""
        self.queue.append(told)
        self.bytes += sum(map(len, told.parts))
        while self.bytes > QUEUE_BYTES:
            gone = self.queue.popleft()
            self.bytes -= sum(map(len, gone.parts))
            self.missed += gone.rows
        self._news.set()

    def take(self) -> Told | None:
        if not self.queue:
            return None
        told = self.queue.popleft()
        self.bytes -= sum(map(len, told.parts))
        return told

    def close(self) -> None:
        self.closed = True
        self._news.set()

    async def news(self, within_s: float) -> bool:
        """Wait until there is some. False: the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._news.wait()
        came = self._news.is_set()
        self._news.clear()
        return came


class Group:
    """Those who asked for the same rows of a stream."""

    def __init__(self, filter_: Filter, schema: Schema, where: Expression | None) -> None:
        self.filter = filter_
        self.schema = schema
        self.where = where
        self.listeners: set[Listener] = set()


class Feed:
    """What is committed, to all who listen."""

    def __init__(self, services: Services, keys: KeyTable) -> None:
        self.services = services
        self.keys = keys
        self.groups: dict[Filter, Group] = {}
        self.listeners: set[Listener] = set()
        self.encoded = 0  # times that rows were encoded, for tests and for whoever wonders
        self.end = services.listen(self._heard)  # of the last step that listeners have been given
        self._steps: deque[tuple[Mapping[str, Frame], int]] = deque()
        self._waiting = 0  # rows in those
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._catching_up = asyncio.Semaphore(2)

    # --- who listens ---

    def add(self, filters: Mapping[Filter, tuple[Schema, Expression | None]]) -> Listener:
        """From the next step on. HttpProblem if there are too many."""
        if len(self.listeners) >= LISTENERS:
            raise HttpProblem(503, f"{LISTENERS} listen already", {"Retry-After": "30"})
        listener = Listener(tuple(filters), self.end)
        for filter_, (schema, where) in filters.items():
            self.groups.setdefault(filter_, Group(filter_, schema, where)).listeners.add(listener)
        self.listeners.add(listener)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="live")
        return listener

    def remove(self, listener: Listener) -> None:
        self.listeners.discard(listener)
        for filter_ in listener.filters:
            group = self.groups[filter_]
            group.listeners.discard(listener)
            if not group.listeners:
                del self.groups[filter_]
        if not self.listeners and self._task is not None:
            self._task.cancel()
            self._task = None
            if self._steps:
                self.end = self._steps[-1][1]
            self._steps.clear()
            self._waiting = 0

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()

    # --- what comes ---

    def _heard(self, history: Mapping[str, Frame], end: int) -> None:
        """In the loop, after a commit: only takes note."""
        if not self.listeners:
            self.end = end
            return
        self._steps.append((history, end))
        self._waiting += sum(map(len, history.values()))
        while self._waiting > WAITING_ROWS and len(self._steps) > 1:
            self._miss(*self._steps.popleft())
        self._news.set()

    def _miss(self, history: Mapping[str, Frame], end: int) -> None:
        """There is no time for this step. Its rows are not filtered, so the number is the most that it can be."""
        self._waiting -= sum(map(len, history.values()))
        self.end = end
        for listener in self.listeners:
            listener.missed += sum(len(history[f.stream]) for f in listener.filters if f.stream in history)

    async def _run(self) -> None:
        while True:
            while self._steps:
                history, end = self._steps.popleft()
                self._waiting -= sum(map(len, history.values()))
                await self._tell(history, end)
            self._news.clear()
            await self._news.wait()

    async def _tell(self, history: Mapping[str, Frame], end: int) -> None:
        """Who begins to listen meanwhile finds this step in the history, so it is not told of it here."""
        self.end = end
        told: dict[Listener, tuple[list[bytes], int]] = {}
        groups = [(g, list(g.listeners)) for g in self.groups.values() if g.filter.stream in history]
        for group, listeners in groups:
            part, count = await self.encode(group, history[group.filter.stream])
            if part:
                for listener in listeners:
                    parts, before = told.get(listener, ([], 0))
                    told[listener] = [*parts, part], before + count
        for listener, (parts, count) in told.items():
            listener.put(Told(parts, count, end))

    async def encode(self, group: Group, frame: Frame) -> tuple[bytes, int]:
        """The rows that pass the filter as JSON, and how many; none: no bytes."""
        if len(frame) < LARGE:
            return self._encode(group, frame)
        return await asyncio.to_thread(self._encode, group, frame)

    def _encode(self, group: Group, frame: Frame) -> tuple[bytes, int]:
        frame = self._passing(group, frame)
        if not len(frame):
            return b"", 0
        self.encoded += 1
        shown = rows(frame, group.schema, self.keys.names)
        return orjson.dumps({"stream": group.filter.stream, "rows": shown}), len(frame)

    def _passing(self, group: Group, frame: Frame) -> Frame:
        if group.filter.keys is not None:
            frame = frame.where(np.isin(frame.key, [self.keys.get(key, -1) for key in group.filter.keys]))
        if group.where is not None and len(frame):
            frame = frame.where(group.where.holds(frame))
        return frame

    # --- what has come before ---

    async def again(self, listener: Listener, first: int, end: int) -> list[Told]:
        """What a listener would have been told from `first` on to before `end`; what is too much counts as missed."""
        async with self._catching_up:
            found = []
            for filter_ in listener.filters:
                frame, left_out = await self.services.since(filter_.stream, first, end, filter_.keys, CATCH_UP)
                listener.missed += left_out
                if len(frame):
                    found.append((self.groups[filter_], frame))
            told = []
            for last in _cuts([frame for _, frame in found], end):
                parts, count = [], 0
                for group, frame in found:
                    at, to = np.searchsorted(frame.seq, [first, last]).tolist()
                    part, n = await self.encode(group, frame.take(slice(at, to)))
                    if part:
                        parts.append(part)
                        count += n
                if parts:
                    told.append(Told(parts, count, last))
                first = last
        return told


def _cuts(frames: Sequence[Frame], end: int) -> list[int]:
    """Arrival numbers between which are about AT_ONCE rows each; the last is `end`. Rows of one number stay together."""
    seq = np.sort(np.concatenate([frame.seq for frame in frames])) if frames else np.empty(0, np.int64)
    return [*np.unique(seq[AT_ONCE::AT_ONCE]).tolist(), end]
