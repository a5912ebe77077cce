"""Staying connected to a peer that goes away: growing pauses with jitter, and one text for /health."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.component import Source

log = logging.getLogger("headwater")

FIRST_S = 0.5
LONGEST_S = 60.0


def pause(failures: int, random_: random.Random) -> float:
    """Seconds to wait after so many failures in a row: each up to twice as long as the one before, by chance a tenth of that.

    Chance keeps a hundred devices from coming back at the same moment after their broker was down.
    """
    longest: float = min(FIRST_S * 2.0 ** min(failures - 1, 20), LONGEST_S)
    return random_.uniform(0.1, 1.0) * longest


class Connection:
    """Keeps a source connected to its peer, whatever the peer does.

        connection = Connection(self, "mqtt://127.0.0.1:1883", (MqttError,))
        await connection.keep(self._session)

    `_session` connects, calls `connection.up()` once readings may come, and goes on until the connection is lost: it comes
    back, or raises. OSError, TimeoutError and the given errors are a lost connection, and only that; any other is a fault,
    and ends the source as it would without this.
    """

    def __init__(
        self,
        source: Source,
        peer: str,
        errors: tuple[type[Exception], ...] = (),
        *,
        random_: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.source = source
        self.name = source.context.name
        self.peer = peer  # as it is shown: without user and password
        self.errors: tuple[type[Exception], ...] = (OSError, TimeoutError, *errors)
        self.random = random_ or random.Random()
        self.failures = 0  # in a row
        self.sleep = sleep

    def up(self) -> None:
        """It is connected, and readings may come."""
        if self.source.trouble:
            log.warning("%s: connected to %s again", self.name, self.peer)
        self.source.trouble = ""
        self.failures = 0

    async def keep(self, session: Callable[[], Awaitable[None]]) -> None:
        """Run `session` again and again, with a pause before each but the first."""
        while True:
            try:
                await session()
                why = "the connection was closed"
            except self.errors as error:
                why = str(error) or type(error).__name__
            self._lost(why)
            self.failures += 1
            await self.sleep(pause(self.failures, self.random))

    def _lost(self, why: str) -> None:
        if why != self.source.trouble.partition(": ")[2]:  # said once, not at each try
            log.warning("%s: %s: %s; trying again", self.name, self.peer, why)
        self.source.trouble = f"{self.peer}: {why}"
