"""Waiting for what has to become true: how long it takes is the machine's, and no test's business."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

PATIENCE_S = 60.0  # for a loaded machine; nothing waits for it that has come
LOOK_S = 0.01

Found = TypeVar("Found")


def _never() -> object:
    return "it never came to hold"


@overload
async def eventually(holds: Callable[[], Awaitable[Found | None]], told: Callable[[], object] = ...) -> Found: ...
@overload
async def eventually(holds: Callable[[], Found | None], told: Callable[[], object] = ...) -> Found: ...
async def eventually(holds: Callable[[], Any], told: Callable[[], object] = _never) -> Any:
    """What `holds` gives, or what awaiting that gives, as soon as it is true. What `told` gives is said where it never is."""
    until = time.monotonic() + PATIENCE_S
    while True:
        late = time.monotonic() > until  # asked before the look: there is always one at the end
        found = holds()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        if late:
            raise AssertionError(told())
        await asyncio.sleep(LOOK_S)


def waited(holds: Callable[[], Found | None], told: Callable[[], object] = _never) -> Found:
    """The same where no loop runs."""
    until = time.monotonic() + PATIENCE_S
    while True:
        late = time.monotonic() > until
        if found := holds():
            return found
        if late:
            raise AssertionError(told())
        time.sleep(LOOK_S)
