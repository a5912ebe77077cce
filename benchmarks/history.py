"""What the history costs and how quickly it answers: `python -m benchmarks.history [SECONDS]` (60: how long it is filled).

100 keys, a reading of each a second with two floats as sensors send them, 1,000 readings a commit, durability `power`: through
the store and the compactor, without source and operators. Beside it a table in SQLite with a row a reading and an index by key
and time, filled with the same readings in as many seconds. Bytes written are counted at an SQLite VFS beneath both; bytes held
are the pages in use.

Then one hour of one key to 500 points, over and over, in both: idle, and while readings come.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import numpy as np

from benchmarks.durability import Counted, probe
from pipeline.compactor import Compactor
from pipeline.component import RowsQuery
from pipeline.frame import NO_PROGRESS, SECOND, Array, Column, Field, Frame, Schema
from pipeline.journal import history, points
from pipeline.journal.commit import Store

KEYS = 100
A_COMMIT = 1_000
START = 1_790_000_000 * SECOND
SCHEMA = Schema("id", {"temperature": Field("float"), "humidity": Field("float")})
HOUR = 3_600 * SECOND
COMPACTED_EVERY = 300  # commits: at 10,000 readings a second about the 30 s of a running pipeline
ASKED = 300

Answer = Callable[[int, int], Awaitable[int]]  # key, start -> rows


class Readings:
    """Random walks, in steps of a sensor's resolution."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(1)
        self.rounds = 0
        self.at = np.array([2_150.0, 450.0])[:, None] * np.ones(KEYS)

    def next(self) -> tuple[Array, Array, Array, Array]:
        rounds = A_COMMIT // KEYS
        steps = self.random.integers(-3, 4, (rounds, 2, KEYS)).cumsum(axis=0)
        values = self.at + steps
        self.at = values[-1]
        times = START + (self.rounds + np.arange(rounds)) * SECOND
        self.rounds += rounds
        key = np.tile(np.arange(KEYS, dtype=np.int32), rounds)
        return np.repeat(times, KEYS), key, values[:, 0].ravel() / 100, values[:, 1].ravel() / 10

    def start_of_an_hour(self) -> int:
        return START + random.randrange(max(1, self.rounds - 3_600)) * SECOND


def told(name: str, db: apsw.Connection, rows: int, took: float, written: int) -> None:
    held = (db.pragma("page_count") - db.pragma("freelist_count")) * db.pragma("page_size")
    speed = f"{rows:11,} rows, {rows / took:9,.0f}/s"
    print(f"{name:8} {speed}, {held / rows:6.2f} bytes held and {written / rows:7.1f} written a reading")


async def measured(name: str, answer: Answer, readings: Readings) -> None:
    took, found = [], []
    for _ in range(ASKED):
        began = time.perf_counter()
        found.append(await answer(random.randrange(KEYS), readings.start_of_an_hour()))
        took.append(1_000 * (time.perf_counter() - began))
    took.sort()
    print(
        f"{name:32} p50 {took[ASKED // 2]:6.2f} ms, p99 {took[ASKED * 99 // 100]:6.2f} ms"
        f" ({statistics.mean(found):.0f} rows in the answer)"
    )


async def ours(folder: Path, vfs: Counted, seconds: float) -> None:
    store = Store(folder, "power", vfs="counted")
    compactor = Compactor(store, ["readings"], lambda _: KEYS)
    readings, rows, before, began = Readings(), 0, vfs.bytes, time.perf_counter()

    async def commit() -> None:
        nonlocal rows
        at, key, temperature, humidity = readings.next()
        columns = {"temperature": Column(temperature), "humidity": Column(humidity)}
        frame = Frame(at, key, np.arange(rows, rows + len(at)), columns, NO_PROGRESS)
        rows += len(at)
        await store.write(lambda db: history.put(db, 1, "readings", frame, journal=False, history=True))
        if rows // A_COMMIT % COMPACTED_EVERY == 0:
            await compactor.work()

    while time.perf_counter() - began < seconds:
        await commit()
    await compactor.work()
    took = time.perf_counter() - began
    await store.write(lambda db: told("history", db, rows, took, vfs.bytes - before))

    async def answer(key: int, start: int) -> int:
        query = RowsQuery("readings", None, start, start + HOUR, points=500, fields=("temperature",))
        return len(await store.read(lambda db: points.rows(db, query, SCHEMA, [key])))

    await measured("history, idle", answer, readings)

    async def coming() -> None:
        while True:
            await commit()
            await asyncio.sleep(A_COMMIT / 5_000)

    task = asyncio.create_task(coming())
    await measured("history, 5,000 readings/s coming", answer, readings)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    store.close()


async def sqlite(folder: Path, vfs: Counted, seconds: float) -> None:
    db = apsw.Connection(str(folder / "rows.db"), vfs="counted")
    db.pragma("journal_mode", "wal")
    db.pragma("synchronous", "full")
    db.execute("CREATE TABLE r (key INTEGER, time INTEGER, temperature REAL, humidity REAL)")
    db.execute("CREATE INDEX r_by_key ON r (key, time)")
    readings, rows, before, began = Readings(), 0, vfs.bytes, time.perf_counter()
    while time.perf_counter() - began < seconds:
        columns = [c.tolist() for c in readings.next()]
        with db:
            db.executemany(
                "INSERT INTO r (time, key, temperature, humidity) VALUES (?, ?, ?, ?)", zip(*columns, strict=True)
            )
        rows += A_COMMIT
    took = time.perf_counter() - began
    told("SQLite", db, rows, took, vfs.bytes - before)
    width = HOUR // 125
    sql = (
        "SELECT (time - :start) / :width, min(time), max(time), min(temperature), max(temperature) FROM r"
        " WHERE key = :key AND time >= :start AND time < :end GROUP BY 1"
    )

    async def answer(key: int, start: int) -> int:
        values = {"start": start, "width": width, "end": start + HOUR, "key": key}
        return 4 * len(await asyncio.to_thread(lambda: list(db.execute(sql, values))))

    await measured("SQLite, idle (only extremes)", answer, readings)
    db.close()


async def main(seconds: float) -> None:
    vfs = Counted()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        print(f"probe: {probe(place):.2f} ms for 4 kB with fsync in {place.parent}")
        for kind, fill in (("ours", ours), ("sqlite", sqlite)):
            (place / kind).mkdir()
            await fill(place / kind, vfs, seconds)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0))
