"""A week without a network: `python benchmarks/offline.py 7` (days), and `60` as second argument: seconds in a step.

100 sensors, a reading a second each, now and then an alert, a buffer of 100 MB that thins. What is printed: how large the
buffer and its file became, what it holds in the end and at which interval, and whether every alert came.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from pipeline.clock import VirtualClock
from pipeline.component import Batch, Buffer, Outcome, Sink
from pipeline.delivery import Delivery
from pipeline.frame import NO_PROGRESS, SECOND, Column, Field, Frame, KeyTable, Schema
from pipeline.journal import outbox
from pipeline.journal.commit import Store
from pipeline.thin import LADDER, readings

SENSORS = 100
ALERT_EVERY_S = 1_800
START = 1_790_000_000
LIMIT = 100_000_000
READINGS = Schema("id", {"temperature": Field("float")})
ALERTS = Schema("id", {"state": Field("string")}, "alerts")


class Away(Sink):
    """A peer that cannot be reached until `there`."""

    def __init__(self) -> None:
        super().__init__(None, SimpleNamespace(name="cloud"))  # type: ignore[arg-type]
        self.buffer = Buffer(LIMIT, "thin", rate=10_000_000, rows=10_000)
        self.there = False
        self.readings = self.rows = self.alerts = 0

    async def deliver(self, batch: Batch) -> Outcome:
        if not self.there:
            return Outcome(reason="no network", retry_after=3600)
        for stream, frame in batch.parts:
            if stream == "alerts":
                self.alerts += len(frame)
                continue
            self.rows += len(frame)
            self.readings += readings(frame)
        return Outcome(delivered=True)


def some(number: int, step: int, random: np.random.Generator) -> Frame:
    seconds = START + step * number + np.repeat(np.arange(step), SENSORS)
    key = np.tile(np.arange(SENSORS, dtype=np.int32), step)
    values = Column(np.round(20 + random.normal(0, 1, len(key)), 2))
    return Frame(seconds * SECOND, key, np.arange(len(key)), {"temperature": values}, NO_PROGRESS)


def alert(at: int) -> Frame:
    state = Column(np.array(["firing"], object))
    return Frame(np.array([at * SECOND]), np.zeros(1, np.int32), np.zeros(1, np.int64), {"state": state}, NO_PROGRESS)


def size_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


async def main(days: float, step: int) -> int:
    random = np.random.default_rng(1)
    schemas = {"readings": READINGS, "alerts": ALERTS}
    sink = Away()
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name), "process")
        delivery = Delivery({"cloud": sink}, store, VirtualClock(START * SECOND), KeyTable(), schemas)
        await delivery.start()
        steps = round(days * 86_400 / step)
        started = time.perf_counter()
        peak = file = log = alerts = 0
        for number in range(steps):
            frame, fires = some(number, step, random), number * step % ALERT_EVERY_S < step
            alerts += fires

            def work(db: Any, frame: Frame = frame, number: int = number, fires: bool = fires) -> None:
                outbox.put(db, "cloud", "readings", frame, keep=False, clock=number)
                if fires:
                    outbox.put(db, "cloud", "alerts", alert(START + step * number), keep=True, clock=number)

            await store.write(work)
            delivery.wake()
            if number % 10 == 0:
                await asyncio.sleep(0)
                peak = max(peak, await store.read(lambda db: outbox.held(db, "cloud")))
                file = max(file, size_of(Path(name) / "headwater.db"))
                log = max(log, size_of(Path(name) / "headwater.db-wal"))
        took = time.perf_counter() - started
        levels = await store.read(
            lambda db: list(db.execute("SELECT level, sum(rows), sum(size) FROM outbox GROUP BY level"))
        )
        print(f"{days:g} days, {steps * step * SENSORS:,} readings in {took:.1f} s")
        print(f"buffer at most {peak / 1e6:.1f} MB, file {file / 1e6:.1f} MB and its log {log / 1e6:.1f} MB")
        for level, rows, size in levels:
            interval = "as they came" if not level else f"{LADDER[level - 1] // SECOND} s"
            print(f"  {interval:14} {rows:10,} rows {size / 1e6:8.1f} MB")
        sink.there = True
        started = time.perf_counter()
        await delivery.close(1)
        again = Delivery({"cloud": sink}, store, VirtualClock((START + 10**7) * SECOND), KeyTable(), schemas)
        await again.start()
        while (await again.status())[0]["waiting"]:
            await asyncio.sleep(0.05)
        told = (await again.status())[0]
        await again.close(1)
        store.close()
        took = time.perf_counter() - started
        print(
            f"delivered: {sink.rows:,} rows for {sink.readings:,} readings, {told['dropped']:,} dropped; in {took:.1f} s"
        )
        print(f"alerts: {sink.alerts} of {alerts}")
        whole = sink.readings + told["dropped"] == steps * step * SENSORS
        return 0 if sink.alerts == alerts and whole and peak <= 1.1 * LIMIT else 1


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(asyncio.run(main(float(given[0]) if given else 7, int(given[1]) if len(given) > 1 else 60)))
