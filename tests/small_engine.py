"""The smallest of engines behind a source: an inbox with room for so many payloads, decoded and answered in the next round."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from pipeline.component import Payload, Receipt, Refused, Source
from pipeline.frame import instants
from tests.waiting import eventually


class SmallEngine:
    """`rows` are those taken, as plain values without what is missing; `held`: it takes no step for now."""

    def __init__(self, source: Any, room: int = 1_000) -> None:
        self.source: Source = source
        self.room = room
        self.held = False
        self.failed: str | None = None  # what a commit says
        self.ended = False
        self.turned_away = 0
        self.rows: list[dict[str, Any]] = []
        self.refused: list[Refused] = []
        self.payloads: list[Payload] = []  # all that were taken
        self._waiting: list[Payload] = []
        self._room = asyncio.Event()

    @asynccontextmanager
    async def running(self, position: Any = None) -> AsyncIterator[None]:
        """The source runs; a fault in it ends the test."""
        task = asyncio.create_task(self.source.run(self, position))
        try:
            yield
        finally:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, holds: Callable[[], Any]) -> None:
        await eventually(
            holds, lambda: f"rows {self.rows[-5:]}, refused {self.refused[-5:]}, trouble {self.source.trouble!r}"
        )

    async def have(self, count: int) -> list[dict[str, Any]]:
        """The rows, once there are so many."""
        await self.until(lambda: len(self.rows) >= count)
        return self.rows

    def values(self, field: str = "value") -> list[Any]:
        return [row.get(field) for row in self.rows]

    # --- the inbox ---

    def offer(self, payload: Payload) -> bool:
        if len(self._waiting) >= self.room:
            self.turned_away += 1
            return False
        self.payloads.append(payload)
        self._waiting.append(payload)
        if len(self._waiting) == 1 and not self.held:
            asyncio.get_running_loop().call_soon(self.step)
        return True

    async def put(self, payload: Payload) -> None:
        while len(self._waiting) >= self.room:
            self._room.clear()
            await self._room.wait()
        self.offer(payload)

    async def taken(self) -> None:
        while self._waiting:
            self._room.clear()
            await self._room.wait()

    def end(self) -> None:
        self.ended = True

    # --- its work ---

    def go_on(self) -> None:
        self.held = False
        self.step()

    def step(self) -> None:
        payloads, self._waiting = self._waiting, []
        self._room.set()
        if not payloads:
            return
        decoded = self.source.decode(payloads)
        self._keep(decoded)
        self.refused += decoded.refused
        for i, (payload, taken) in enumerate(zip(payloads, decoded.counts, strict=True)):
            if payload.done is not None:
                receipt = Receipt(int(taken), [r for r in decoded.refused if r.payload == i], self.failed)
                payload.done(receipt)

    def _keep(self, decoded: Any) -> None:
        names, key = self.source.context.keys.names, self.source.schema.key
        for i in range(sum(decoded.counts)):
            row = {name: c.values.tolist()[i] for name, c in decoded.columns.items() if c.known()[i]}
            if key is not None:
                code = decoded.keys[i]
                row[key] = names[code] if isinstance(code, np.integer) else str(code)
            if decoded.times is not None:
                row["time"] = instants(decoded.times[i : i + 1], "iso")[0]
            self.rows.append(row)
