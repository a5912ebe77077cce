"""A sink that delivers, with a real outbox and its courier: what the tests of such sinks share."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.clock import RealClock
from pipeline.component import Sink
from pipeline.delivery import Delivery
from pipeline.frame import NO_PROGRESS, Column, Field, Frame, Schema, column
from pipeline.journal import dead, outbox
from pipeline.journal.commit import Store

WINDOWS = Schema("id", {"average": Field("float", True)}, "windows")
ALERTS = Schema("id", {"state": Field("string")}, "alerts")
SCHEMAS = {"ten_seconds": WINDOWS, "hot": ALERTS}


def windows(*averages: float | None) -> Frame:
    n = np.arange(len(averages), dtype=np.int64)
    return Frame(n * 10**9, np.zeros(len(n), np.int32), n, {"average": column("float", averages)}, NO_PROGRESS)


def alert() -> Frame:
    n = np.zeros(1, np.int64)
    return Frame(n, np.zeros(1, np.int32), n, {"state": Column(np.array(["firing"], object))}, NO_PROGRESS)


class Rig:
    """The sink with a real outbox and its courier."""

    def __init__(self, folder: Path, sink: Sink, schemas: dict[str, Schema] | None = None) -> None:
        self.sink = sink
        self.name = sink.context.name
        self.store = Store(folder, "process")
        self.delivery = Delivery(
            {self.name: sink},
            self.store,
            RealClock(),
            sink.context.keys,
            schemas or sink.context.inputs,
            random_=random.Random(1),
        )

    async def put(self, stream: str, frame: Frame) -> None:
        keep = self.sink.context.inputs[stream].role == "alerts"
        await self.store.write(lambda db: outbox.put(db, self.name, stream, frame, keep=keep, clock=1))
        self.delivery.wake()

    async def letters(self) -> list[tuple[str, dict[str, Any]]]:
        """The dead letters: reason and row."""
        found = await self.store.read(lambda db: dead.letters(db, 1000))
        return [(letter.reason, json.loads(letter.row)) for letter in reversed(found)]

    async def status(self) -> dict[str, Any]:
        (status,) = await self.delivery.status()
        return status

    async def until(self, **wanted: Any) -> None:
        for _ in range(3000):
            status = await self.status()
            if all(status[k] == v for k, v in wanted.items()):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(status)


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(3000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to hold")


@asynccontextmanager
async def rig(folder: Path, sink: Sink) -> AsyncIterator[Rig]:
    made = Rig(folder, sink)
    await made.delivery.start()
    try:
        yield made
    finally:
        await made.delivery.close(0.0)
        made.store.close()


class Enqueued:
    def __init__(self) -> None:
        self.rows: list[tuple[str, int, bool]] = []

    def enqueue(self, sink: str, stream: str, frame: Frame, *, keep: bool) -> None:
        self.rows.append((stream, len(frame), keep))

    def record(self, stream: str, frame: Frame) -> None: ...
    def append(self, path: Path, data: bytes, header: bytes = b"") -> None: ...
