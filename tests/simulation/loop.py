"""Time that passes only when nothing is left to do: an hour of waiting takes no time, and two runs of a seed are alike."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

SECOND = 1_000_000_000


class _Selector(selectors.SelectSelector):
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("nothing will ever happen again")
            self.loop.passed += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self.passed = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.passed


class LoopClock:
    """The clocks of a device on a virtual loop; the wall clock can be set."""

    def __init__(self, loop: VirtualLoop, wall: int) -> None:
        self.loop = loop
        self.offset = wall

    def monotonic(self) -> int:
        return round(self.loop.passed * SECOND)

    def wall(self) -> int:
        return self.offset + self.monotonic()
