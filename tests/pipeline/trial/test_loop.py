"""Virtual time: it passes when nothing can run, and by as much as is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from pipeline.trial.loop import SECOND, LoopClock, VirtualLoop


def run(make: Any) -> None:
    loop = VirtualLoop()
    work: Coroutine[Any, Any, None] = make(loop)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(work)


def test_sleeping_takes_no_time_and_is_exact() -> None:
    async def work(loop: VirtualLoop) -> None:
        for _ in range(1000):
            await asyncio.sleep(0.1)
        assert abs(loop.micros - 100_000_000) <= 1000  # each wait is rounded up to the next microsecond
        await loop.until(31_536_000 * SECOND)
        assert loop.micros == 31_536_000 * 1_000_000
        assert loop.passed == loop.time() == 31_536_000

    run(work)


def test_until_comes_before_the_timers_of_that_moment() -> None:
    async def work(loop: VirtualLoop) -> None:
        order: list[str] = []
        loop.call_at(5.0, order.append, "timer")
        await loop.until(5 * SECOND)
        order.append("until")
        await loop.settled()
        assert order == ["until", "timer"]
        assert loop.micros == 5_000_000

    run(work)


def test_settled_waits_for_all_that_can_run_now() -> None:
    async def work(loop: VirtualLoop) -> None:
        done: list[int] = []

        async def steps() -> None:
            for i in range(20):
                await asyncio.sleep(0)
                done.append(i)
            await asyncio.sleep(1)
            done.append(-1)

        task = asyncio.create_task(steps())
        await loop.settled()
        assert done == list(range(20))
        assert loop.micros == 0
        await task

    run(work)


def test_what_can_never_go_on_is_an_error() -> None:
    async def work(loop: VirtualLoop) -> None:
        await loop.create_future()

    with pytest.raises(RuntimeError, match="nothing will ever happen again"):
        run(work)


def test_the_clocks_of_a_device() -> None:
    async def work(loop: VirtualLoop) -> None:
        clock = LoopClock(loop, 100 * SECOND)
        await loop.until(5 * SECOND)
        clock.offset -= 50 * SECOND
        assert (clock.wall(), clock.monotonic()) == (55 * SECOND, 5 * SECOND)

    run(work)
