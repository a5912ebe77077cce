"""Waiting for what has to become true: how long it takes is the machine's, and no test's business."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

PATIENCE_S = 30.0
LOOK_S = 0.01


async def eventually(holds: Callable[[], Any], told: Callable[[], object] = lambda: "it never came to hold") -> None:
    """Returns as soon as it holds. What `told` gives is said where it never does."""
    for _ in range(int(PATIENCE_S / LOOK_S)):
        if holds():
            return
        await asyncio.sleep(LOOK_S)
    raise AssertionError(told())
