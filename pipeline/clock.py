"""Time, real or virtual. Nothing else in Headwater asks the operating system what time it is."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """`wall` is what people call the time and may jump; `monotonic` only ever passes. Both in ns."""

    def wall(self) -> int: ...
    def monotonic(self) -> int: ...


class RealClock:
    def wall(self) -> int:
        return time.time_ns()

    def monotonic(self) -> int:
        return time.monotonic_ns()


class VirtualClock:
    """Stands still until told: for tests and replays."""

    def __init__(self, wall: int = 0) -> None:
        self._wall = wall
        self._monotonic = 0

    def wall(self) -> int:
        return self._wall

    def monotonic(self) -> int:
        return self._monotonic

    def advance(self, ns: int) -> None:
        """Let time pass."""
        self._wall += ns
        self._monotonic += ns

    def jump(self, ns: int) -> None:
        """Set the wall clock forward or back; no time passes."""
        self._wall += ns
