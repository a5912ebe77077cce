"""The courier and the room beside it: a buffer within its size whatever the peer does, and what follows an outage."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.clock import VirtualClock
from pipeline.component import Batch, Buffer, Outcome, Sink, SinkContext
from pipeline.delivery import Delivery, Room
from pipeline.frame import NO_PROGRESS, SECOND, Column, Field, Frame, KeyTable, Schema
from pipeline.journal import dead, outbox
from pipeline.journal.commit import Store
from pipeline.thin import readings
from tests.waiting import eventually

SCHEMAS = {
    "readings": Schema("id", {"value": Field("float")}),
    "alerts": Schema("id", {"value": Field("float")}, "alerts"),
}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reconnect.FIRST_S", 0.01)
    monkeypatch.setattr("pipeline.reconnect.LONGEST_S", 0.02)


class Peer(Sink):
    """Takes batches; can be told to be away, or to be silent."""

    def __init__(self, buffer: Buffer) -> None:
        super().__init__(None, SinkContext("cloud", SCHEMAS, KeyTable()))
        self.buffer = buffer
        self.away = False
        self.speaks = asyncio.Event()
        self.speaks.set()
        self.taken: list[tuple[float, Batch]] = []

    async def deliver(self, batch: Batch) -> Outcome:
        await self.speaks.wait()
        if self.away:
            return Outcome(reason="no network")
        self.taken.append((asyncio.get_running_loop().time(), batch))
        return Outcome(delivered=True)

    def count(self, stream: str) -> int:
        return sum(readings(part) for _, batch in self.taken for name, part in batch.parts if name == stream)


class Rig:
    def __init__(self, folder: Path, peer: Peer) -> None:
        self.peer = peer
        self.store = Store(folder, "process")
        self.clock = VirtualClock(10**18)
        self.delivery = Delivery({"cloud": peer}, self.store, self.clock, KeyTable(["s"]), SCHEMAS)
        self.seconds = 0

    @property
    def room(self) -> Room:
        return self.delivery.couriers["cloud"].room

    async def put(self, rows: int, stream: str = "readings") -> None:
        at = np.arange(self.seconds, self.seconds + rows)
        self.seconds += rows
        frame = Frame(at * SECOND, np.zeros(rows, np.int32), at, {"value": Column(at * 1.0)}, NO_PROGRESS)
        keep, clock = stream == "alerts", self.clock.wall()
        await self.store.write(lambda db: outbox.put(db, "cloud", stream, frame, keep=keep, clock=clock))
        self.delivery.wake()

    async def held(self) -> int:
        return await self.store.read(lambda db: outbox.held(db, "cloud"))

    async def until(self, holds: Callable[[outbox.Waiting], bool]) -> outbox.Waiting:
        status: list[outbox.Waiting] = []

        async def look() -> bool:
            status[:] = [await self.store.read(lambda db: outbox.status(db, "cloud"))]
            return holds(status[0])

        await eventually(look, lambda: status)
        return status[0]


@asynccontextmanager
async def rig(folder: Path, peer: Peer) -> AsyncIterator[Rig]:
    made = Rig(folder, peer)
    await made.delivery.start()
    try:
        yield made
    finally:
        await made.delivery.close(0.0)
        made.store.close()


@pytest.mark.parametrize("when_full", ["thin", "drop_oldest"])
async def test_a_request_that_hangs_does_not_let_the_buffer_grow(tmp_path: Path, when_full: str) -> None:
    """The first batch is on its way all the time; all others are counted, and room is made beside whoever writes."""
    peer = Peer(Buffer(size=50_000, when_full=when_full, rate=10**6, rows=100, wait=0))
    peer.speaks.clear()
    async with rig(tmp_path, peer) as r:
        for _ in range(50):
            for _ in range(20):
                await r.put(10)
            await r.until(lambda status: status.bytes <= 50_000)
        peer.speaks.set()
        status = await r.until(lambda status: not status.rows)
    assert status.sent + status.thinned + status.dropped == 10_000
    assert peer.count("readings") == (10_000 if when_full == "thin" else status.sent)
    assert status.sent > 500
    assert (status.dropped == 0) == (when_full == "thin")


async def test_the_running_total_is_that_of_the_outbox(tmp_path: Path) -> None:
    """While rows come, are thinned and go at the same time, and after a restart."""
    for number in range(2):
        peer = Peer(Buffer(size=20_000, when_full="thin", rate=10**6, rows=7, wait=0))
        async with rig(tmp_path, peer) as r:
            for i in range(300):
                peer.away = i % 100 < 50
                await r.put(1 + i % 20, "alerts" if i % 50 == 0 else "readings")
            peer.away = True
            await r.put(50)
            await r.until(lambda status: status.rows > 0)
            for _ in range(100):
                async with r.room._counting:
                    more, _ = await r.store.read(lambda db: outbox.grown(db, "cloud", r.room.counted))
                    assert r.room.held + more == await r.held()
                await asyncio.sleep(0.002)
            if number:
                peer.away = False
                await r.until(lambda status: not status.rows)
                await eventually(lambda: r.room.held == 0)


async def test_alerts_beyond_the_size_are_kept_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    peer = Peer(Buffer(size=2_000, when_full="thin", wait=0))
    peer.away = True
    async with rig(tmp_path, peer) as r:
        for _ in range(30):
            await r.put(1, "alerts")
            await r.put(1)

        async def status() -> Any:
            (told,) = await r.delivery.status()
            return told

        async def told_and_dropped() -> Any:
            now = await status()
            return now if now["warning"] and now["dropped"] else None

        assert (await eventually(told_and_dropped))["warning"].startswith("alerts alone take")
        assert sum("alerts alone" in record.message for record in caplog.records) == 1
        peer.away = False
        await r.until(lambda status: not status.rows)

        async def no_more() -> bool:
            return (await status())["warning"] is None

        await eventually(no_more)
    assert peer.count("alerts") == 30


async def test_what_comes_does_not_wait_for_what_was_left_behind(tmp_path: Path) -> None:
    """A slow `rate` holds up the backlog, not the live rows that have waited long enough."""
    peer = Peer(Buffer(rate=1, rows=50, wait=10**8))
    peer.away = True
    async with rig(tmp_path, peer) as r:
        await r.put(200)
        await r.until(lambda status: r.delivery.couriers["cloud"].failures > 0)
        r.clock.advance(SECOND)
        peer.away = False
        await r.until(lambda status: status.sent >= 100)  # what was under way, and the first of the backlog
        assert (await r.delivery.status())[0]["state"] == "catching up"
        await r.put(3)
        r.clock.advance(SECOND)
        status = await r.until(lambda status: status.sent >= 103)
    assert (status.rows, status.backlog) == (100, 100)
    assert [(len(b), b.recovered) for _, b in peer.taken] == [(50, False), (50, True), (3, False)]


async def test_a_backlog_goes_no_faster_than_its_rate(tmp_path: Path) -> None:
    peer = Peer(Buffer(rate=500, rows=20, wait=0))
    peer.away = True
    async with rig(tmp_path, peer) as r:
        await r.put(120)
        await r.until(lambda status: r.delivery.couriers["cloud"].failures > 0)
        peer.away = False
        await r.until(lambda status: not status.rows)
    times = [at for at, batch in peer.taken if batch.recovered]
    assert len(times) == 5
    assert times[-1] - times[0] >= 4 * 20 / 500 - 0.01


async def test_in_order_nothing_overtakes(tmp_path: Path) -> None:
    """Not what must be kept, and not what comes after the outage."""
    peer = Peer(Buffer(rows=1, wait=0, in_order=True))
    peer.away = True
    async with rig(tmp_path, peer) as r:
        for stream in ("readings", "alerts", "readings", "alerts"):
            await r.put(1, stream)
        await r.until(lambda status: r.delivery.couriers["cloud"].failures > 0)
        peer.away = False
        await r.put(1)
        status = await r.until(lambda status: not status.rows)
    assert status.sent == 5
    assert [part["value"].tolist() for _, batch in peer.taken for _, part in batch.parts] == [[0], [1], [2], [3], [4]]


class Picky(Peer):
    """Takes a batch but for its second row."""

    async def deliver(self, batch: Batch) -> Outcome:
        taken = await super().deliver(batch)
        return Outcome(delivered=True, rejected={1: "no such key"}) if taken.delivered else taken


async def test_a_row_that_is_refused_costs_only_itself(tmp_path: Path) -> None:
    """It is a dead letter with its reason, and known as refused; the rest of its batch is sent."""
    async with rig(tmp_path, Picky(Buffer(rows=3, wait=0))) as r:
        await r.put(3, "alerts")
        status = await r.until(lambda status: not status.rows)
        letters = await r.store.read(lambda db: dead.letters(db, 10))
    assert (status.sent, status.refused) == (2, 1)
    assert [(letter.reason, json.loads(letter.row)["value"]) for letter in letters] == [("no such key", 1.0)]


async def test_a_batch_of_an_earlier_life_says_so(tmp_path: Path) -> None:
    """It may have been sent then: who must not send twice is told. The next one is new."""
    peer = Peer(Buffer(rows=2, wait=0))
    peer.speaks.clear()
    async with rig(tmp_path, peer) as r:
        await r.put(4)
        await eventually(lambda: r.delivery.couriers["cloud"].sending)
    peer.speaks.set()
    async with rig(tmp_path, peer) as r:
        await r.until(lambda status: not status.rows)
    assert [batch.resumed for _, batch in peer.taken] == [True, False]
