"""Time that passes only when nothing is left to do: an hour of waiting takes no time, and two runs are alike."""

from __future__ import annotations

import asyncio
import math
import selectors
from typing import Any

SECOND = 1_000_000_000
MICROSECOND = 1_000
_NOISE = 0.01  # microseconds: what sums of floats are off by after a year


class _Selector(selectors.SelectSelector):
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout != 0:
            self.loop.pass_time(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is counted in whole microseconds, so that "5 s" is 5 s after any number of waits."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self.micros = 0
        self._next_stop: tuple[int, asyncio.Future[None]] | None = None
        self._settling: list[asyncio.Future[None]] = []
        super().__init__(selector)
        self._clock_resolution = 1e-6  # a timer within this microsecond is due

    @property
    def passed(self) -> float:
        """Seconds since the loop was made."""
        return self.micros / 1e6

    @passed.setter
    def passed(self, seconds: float) -> None:
        """A process that was stopped: time has passed, and nothing has happened in it."""
        self.micros = round(seconds * 1e6)

    def time(self) -> float:
        return self.micros / 1e6

    def pass_time(self, timeout: float | None) -> None:
        """Nothing can run now: on to the next timer, or to whoever waits for this."""
        if self._settling:
            for settled in self._settling:
                settled.set_result(None)
            self._settling.clear()
            return
        at = None if timeout is None else max(math.ceil((self.passed + timeout) * 1e6 - _NOISE), self.micros + 1)
        if self._next_stop is not None and (at is None or self._next_stop[0] <= at):
            # Whoever waits in `until` runs before the timers of that moment.
            self.micros, waits = max(self._next_stop[0], self.micros), self._next_stop[1]
            self._next_stop = None
            if not waits.done():
                waits.set_result(None)
        elif at is None:
            raise RuntimeError("nothing will ever happen again")
        else:
            self.micros = at

    async def until(self, time: int) -> None:
        """Wait until `time`, ns since the loop was made; at that moment before everything else. For one caller only."""
        micros = time // MICROSECOND
        if micros > self.micros:
            self._next_stop = micros, self.create_future()
            await self._next_stop[1]

    async def settled(self) -> None:
        """Wait until nothing more happens without time passing."""
        settled = self.create_future()
        self._settling.append(settled)
        await settled


class LoopClock:
    """The clocks of a device on a virtual loop; the wall clock can be set."""

    def __init__(self, loop: VirtualLoop, wall: int) -> None:
        self.loop = loop
        self.offset = wall

    def monotonic(self) -> int:
        return self.loop.micros * MICROSECOND

    def wall(self) -> int:
        return self.offset + self.monotonic()
