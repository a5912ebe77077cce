"""How latches change: what one Frame brings, gathered level by level, then put into the order in which it happened."""

from __future__ import annotations

import heapq
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pipeline.frame import Frame

OFF, PENDING, SET = 0, 1, 2  # a level's latch; PENDING: `when` holds, but `for` is not over


class Latch(NamedTuple):
    """A key's latches while the flips of a Frame are applied: by level."""

    state: list[int]
    since: list[int]

    def highest(self) -> int:
        """The highest level that is set; -1: none."""
        for level in range(len(self.state) - 1, -1, -1):
            if self.state[level] == SET:
                return level
        return -1


class Wait(NamedTuple):
    """`when` holds, `for` is not over."""

    since: int
    until: int  # ns: when it fires
    began: int  # arrival number of the reading with which it began; -1: in an earlier step
    shows: Any  # of the last reading that held: its position in the Frame, or its values


class Flip(NamedTuple):
    """A level's latch changes. In the order of these fields."""

    row: int  # position in the Frame of the reading that does it, or before which time does it; its length: after all
    phase: int  # 0 fires before the reading itself is taken, 1 by what it says, 2 as the Frame leaves it
    time: int
    key: int
    level: int
    to: int
    since: int
    seq: int
    shows: Any  # as in a Wait


class Found:
    """The flips of one Frame, gathered level by level and key by key."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.flips: list[Flip] = []
        self.walked: set[tuple[int, int]] = set()  # (key, level) of which all has been said
        self._by_time: list[tuple[int, int, int, Wait]] = []  # row, key, level: fires because the watermark got there

    def fire(self, row: int, level: int, key: int, wait: Wait, seq: int | None) -> None:
        """A wait is over before `row`. `seq`: of the reading that shows it; None: the watermark does."""
        if seq is None:
            self._by_time.append((row, key, level, wait))
        else:
            self.flips.append(Flip(row, 0, wait.until, key, level, SET, wait.since, seq, wait.shows))

    def leave(self, level: int, key: int, wait: Wait | None) -> None:
        """The Frame leaves a latch waiting, or no longer so."""
        to, since, shows = (OFF, 0, ()) if wait is None else (PENDING, wait.since, wait.shows)
        self.flips.append(Flip(len(self.frame), 2, 0, key, level, to, since, -1, shows))

    def in_order(self) -> list[Flip]:
        """All flips, each key's as they happened."""
        if self._by_time:
            reached = self.frame.progress.reached(np.array([wait.until for *_, wait in self._by_time]))
            for (row, key, level, wait), seq in zip(self._by_time, reached.tolist(), strict=True):
                # A wait that began behind the watermark ends with the reading that began it.
                at = max(seq, wait.began)
                self.flips.append(Flip(row, 0, wait.until, key, level, SET, wait.since, at, wait.shows))
        self.flips.sort(key=itemgetter(0, 1, 2, 3, 4))
        return self.flips


class Waits:
    """What waits for its `for`, by (key, level), and what of it is due first: a heap, so that no step asks all keys."""

    def __init__(self) -> None:
        self.by_key: dict[tuple[int, int], Wait] = {}
        self._heap: list[tuple[int, int, int]] = []  # until, key, level; those that have ended are dropped when met

    def __bool__(self) -> bool:
        return bool(self.by_key)

    def put(self, key: int, level: int, wait: Wait | None) -> None:
        """It waits so; None: no longer."""
        before = self.by_key.pop((key, level), None)
        if wait is None:
            return
        self.by_key[key, level] = wait
        if before is None or before.until != wait.until:
            heapq.heappush(self._heap, (wait.until, key, level))
        if len(self._heap) > 2 * len(self.by_key) + 64:
            self._heap = sorted((w.until, *at) for at, w in self.by_key.items())

    def due(self) -> int | None:
        """When the first is."""
        while self._heap and not self._waits(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def reached(self, watermark: int) -> list[tuple[int, int]]:
        """Those that the watermark has reached; they are met only once."""
        met = {}
        while (until := self.due()) is not None and until <= watermark:
            _, key, level = heapq.heappop(self._heap)
            met[key, level] = until
        return list(met)

    def _waits(self, until: int, key: int, level: int) -> bool:
        wait = self.by_key.get((key, level))
        return wait is not None and wait.until == until

    def snapshot(self) -> list[list[Any]]:
        return [[key, level, list(wait.shows)] for (key, level), wait in self.by_key.items()]
