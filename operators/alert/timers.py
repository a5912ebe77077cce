"""What time alone will do, by key: each key's next moment, and which of all comes first."""

from __future__ import annotations

import heapq

import numpy as np

from operators.alert.watch import FAR
from pipeline.frame import Array, Bools


class Timers:
    """A moment for each key, and a heap of them, so that no step asks all keys. Memory: 8 bytes a key, 100 for a moment."""

    def __init__(self) -> None:
        self.at = np.full(0, FAR, np.int64)
        self._heap: list[tuple[int, int]] = []  # moment, key; those that hold no more are dropped when met
        self._set = 0

    def grow(self, keys: int) -> None:
        if keys > len(self.at):
            more = np.full(max(keys, 2 * len(self.at), 16), FAR, np.int64)
            more[: len(self.at)] = self.at
            self.at = more

    def put(self, key: int, moment: int) -> None:
        """The key's next moment; FAR: none."""
        before = int(self.at[key])
        if moment == before:
            return
        self._set += (before == FAR) - (moment == FAR)
        self.at[key] = moment
        if moment != FAR:
            heapq.heappush(self._heap, (moment, key))
        if len(self._heap) > 2 * self._set + 64:
            keys = np.flatnonzero(self.at != FAR)
            self._heap = sorted(zip(self.at[keys].tolist(), keys.tolist(), strict=True))

    def due(self) -> int:
        """The first moment; FAR: none."""
        while self._heap and self.at[self._heap[0][1]] != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else FAR

    def reached(self, watermark: int) -> list[int]:
        """The keys whose moment the watermark has reached. They have none until they are given another."""
        keys = []
        while self.due() <= watermark:
            _, key = heapq.heappop(self._heap)
            self.at[key] = FAR
            self._set -= 1
            keys.append(key)
        return keys

    def near(self, key: Array, latest: int) -> Bools | None:
        """Of the keys of a Frame's readings, those whose moment may come within it; None: none at all."""
        if self.due() > latest:
            return None
        near: Bools = self.at[key] <= latest
        return near
