"""Time, real or virtual. Nothing else in Headwater asks the operating system what time it is."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """`wall` is what people call the time and may jump; `monotonic` only ever passes. Both in ns."""

    def wall(self) -> int: ...
    def monotonic(self) -> int: ...


class RealClock:
    wall = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic_ns)


KNOWN_S = 1_767_225_600  # 2026-01-01: a clock that says less has not been set since the device was switched on


class ArrivalClock:
    """The times that readings get which bring none: the wall clock's, but never falling.

    A device without a battery wakes up in 1970, or where it went to sleep; a clock may be set back by hours. Times that fell
    with it would make every reading late that comes until they are made up for. So they go on from the last one, at half
    the pace, until the clock has caught up. Meanwhile, and before the clock was ever set, they are `unsure`.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.last = -(2**63) + 1  # the newest time given; part of the state, so that a restart goes on from there
        self._at = clock.monotonic()

    def stamp(self) -> int:
        """ns since 1970, in whole milliseconds: finer is noise of the network, and costs bytes in every row."""
        wall, now = self.clock.wall(), self.clock.monotonic()
        passed, self._at = now - self._at, now
        self.last = wall if wall >= self.last else self.last + passed // 2
        return self.last // 1_000_000 * 1_000_000

    def unsure(self, wall: int) -> bool:
        """True if the clock, which says `wall`, has not been set, or was set back behind times that were given before."""
        return wall < KNOWN_S * 1_000_000_000 or wall < self.last


JUMP_NS = 3_600_000_000_000  # a clock that is further ahead than time has passed was set, or is wrong
HELD_NS = 3_600_000_000_000  # and must say so for this long before anything is dropped on the strength of it


class DroppingClock:
    """The time by which what is old is dropped: the wall clock's, but a jump ahead counts only after an hour.

    A clock that is set a year ahead by mistake would have the whole history dropped before anyone could set it right.
    """

    def __init__(self) -> None:
        self.last: int | None = None  # what it said last; part of the state. None: nothing yet
        self._at: int | None = None
        self._jumped_at: int | None = None

    def now(self, wall: int, monotonic: int) -> int:
        """What time it is; `monotonic` in the same ns."""
        passed = 0 if self._at is None else monotonic - self._at
        expected = wall if self.last is None else self.last + passed
        self._at = monotonic
        if wall - expected <= JUMP_NS:
            self._jumped_at = None
            self.last = wall
        else:
            self._jumped_at = monotonic if self._jumped_at is None else self._jumped_at
            self.last = wall if monotonic - self._jumped_at >= HELD_NS else expected
        return self.last


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
