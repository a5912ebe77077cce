"""The pictures of the last moments, in memory: sources that see put them here, sinks that keep some take them."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple

LARGEST = 64_000_000  # bytes of all pictures together


class Picture(NamedTuple):
    time: int  # ns since 1970
    jpeg: bytes


class Pictures:
    """Of each key those that are not older than its newest by more than it was told to keep. Shared by all components of a
    pipeline. Bounded: beyond `LARGEST` bytes the key with the most loses its oldest."""

    def __init__(self, largest: int = LARGEST) -> None:
        self.largest = largest
        self.held = 0
        self._of: dict[str, list[Picture]] = {}

    def put(self, key: str, picture: Picture, keep: int) -> None:
        """`keep`: ns."""
        own = self._of.setdefault(key, [])
        insort(own, picture, key=lambda p: p.time)
        self.held += len(picture.jpeg)
        while own[0].time < own[-1].time - keep:
            self._drop(own)
        while self.held > self.largest:
            self._drop(max(self._of.values(), key=lambda pictures: sum(len(p.jpeg) for p in pictures)))

    def _drop(self, own: list[Picture]) -> None:
        self.held -= len(own.pop(0).jpeg)

    def nearest(self, key: str, time: int, within: int) -> Picture | None:
        """The one that is nearest in time, no further than `within` ns."""
        own = self._of.get(key, [])
        at = bisect_left(own, time, key=lambda p: p.time)
        near = min(own[max(at - 1, 0) : at + 1], key=lambda p: abs(p.time - time), default=None)
        return near if near is not None and abs(near.time - time) <= within else None
