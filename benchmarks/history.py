"""What the history costs and how quickly it answers: `python -m benchmarks.history [small] [ours|sqlite|duckdb|pipeline ...]`.

ours      35 days of 15 keys that speak each second and 85 that speak each minute, two floats as sensors send them: 49.6 M
          readings in commits of about 1,000, with rollups of a minute and an hour; through the store and the compactor,
          without source and operators. Filled with durability `process`, which writes the same bytes and waits for no
          fsync; asked with `power`
sqlite    the same readings of 4 days in a table with a row a reading and an index by key and time, in as large commits
duckdb    the same readings in a Parquet file as they came, in row groups of 122,880; 35 days
pipeline  a real `headwater run`, 1,000 readings a second by HTTP into a window and a history, one commit a second, `power`

Bytes written are counted at an SQLite VFS beneath the first two, in /proc beneath the last; bytes held are the pages in use, or
the file. Then, over and over: one hour of one key to 500 points, idle and while 5,000 readings come each second; and all of
the span (a month) of one key to 500 points. The peers are asked for the extremes of as many parts.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import apsw
import numpy as np

from benchmarks import history_peers, history_pipeline
from benchmarks.durability import Counted, probe
from pipeline.compactor import Compactor
from pipeline.component import RowsQuery
from pipeline.frame import NO_PROGRESS, SECOND, Array, Column, Field, Frame, Schema
from pipeline.journal import history, points
from pipeline.journal.commit import Store
from pipeline.journal.rollup import Wanted

FAST, SLOW = 15, 85  # keys that speak each second, each minute
A_MINUTE = FAST * 60 + SLOW  # readings: a commit
START = 1_790_000_000 // 3_600 * 3_600 * SECOND
SCHEMA = Schema("id", {"temperature": Field("float"), "humidity": Field("float")})
MINUTE, HOUR = 60 * SECOND, 3_600 * SECOND
COMPACTED_EVERY = 300  # commits: at 10,000 readings a second about the 30 s of a running pipeline
PARTS = 125  # of a chart of 500 points

Answer = Callable[[int, int, int], Awaitable[int]]  # key, start, end -> rows


class Size(NamedTuple):
    days: float
    sqlite_days: float  # its table grows slowly
    seconds: float  # of the pipeline
    asked: int


FULL = Size(35.0, 4.0, 180.0, 300)
SMALL = Size(0.06, 0.03, 3.0, 10)


class Minute(NamedTuple):
    """A minute's readings of all keys, by time."""

    time: Array
    key: Array
    temperature: Array
    humidity: Array


class Readings:
    """Random walks, in steps of a sensor's resolution; the same ones each time."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(1)
        self.minutes = 0
        self.at = np.array([2_150.0, 450.0])[:, None] * np.ones(FAST + SLOW)
        second = np.concatenate([np.repeat(np.arange(60), FAST), np.zeros(SLOW, np.int64)])
        key = np.concatenate([np.tile(np.arange(FAST), 60), FAST + np.arange(SLOW)])
        self.order = np.lexsort((key, second))
        self.second, self.key = second[self.order] * SECOND, key[self.order].astype(np.int32)

    def next(self) -> Minute:
        steps = self.random.integers(-3, 4, (2, 60, FAST + SLOW)).astype(np.float64)
        steps[:, 1:, FAST:] = 0  # these speak once
        walked = self.at[:, None] + steps.cumsum(axis=1)
        self.at = walked[:, -1]
        values = np.concatenate([walked[:, :, :FAST].reshape(2, -1), walked[:, 0, FAST:]], axis=1)[:, self.order]
        start = START + self.minutes * MINUTE
        self.minutes += 1
        return Minute(start + self.second, self.key, np.rint(values[0]) / 100, np.rint(values[1]) / 10)


def told(name: str, rows: int, took: float, held: int, written: int | None) -> None:
    wrote = "" if written is None else f", {written / rows:7.1f} written"
    print(f"{name:9} {rows:11,} rows in {took:5.0f} s, {held / rows:6.2f} bytes held a reading{wrote}")


def pages(db: apsw.Connection) -> int:
    return int((db.pragma("page_count") - db.pragma("freelist_count")) * db.pragma("page_size"))


async def measured(name: str, answer: Answer, minutes: int, span: int, asked: int) -> None:
    """Of a key that speaks each second, and a span that begins anywhere."""
    took, found = [], []
    for _ in range(asked):
        start = START + random.randrange(max(1, minutes * 60 - span // SECOND)) * SECOND
        began = time.perf_counter()
        found.append(await answer(random.randrange(FAST), start, start + span))
        took.append(1_000 * (time.perf_counter() - began))
    took.sort()
    shown = f"{span / HOUR / 24:.3g} days" if span > 24 * HOUR else f"{span / HOUR:.2g} h"
    print(
        f"{name:42} {shown:9} p50 {took[asked // 2]:8.2f} ms, p99 {took[asked * 99 // 100]:8.2f} ms"
        f" ({statistics.mean(found):.0f} rows in the answer)"
    )


class Ours:
    """The history, filled as an engine would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.readings = Readings()
        self.rows = 0
        self.open("process")

    def open(self, durability: str) -> None:
        self.store = Store(self.folder, durability, vfs="counted")
        wanted = Wanted((MINUTE, HOUR), corrected=False)
        self.compactor = Compactor(self.store, ["readings"], lambda _: FAST + SLOW, {"readings": wanted})

    async def commit(self) -> None:
        minute = self.readings.next()
        columns = {"temperature": Column(minute.temperature), "humidity": Column(minute.humidity)}
        seq = np.arange(self.rows, self.rows + len(minute.time))
        frame = Frame(minute.time, minute.key, seq, columns, NO_PROGRESS)
        self.rows += len(frame)
        await self.store.write(lambda db: history.put(db, 1, "readings", frame, journal=False, history=True))
        if self.readings.minutes % COMPACTED_EVERY == 0:
            await self.compactor.work()

    async def coming(self) -> None:
        """5,000 readings a second."""
        while True:
            await self.commit()
            await asyncio.sleep(A_MINUTE / 5_000)

    async def answer(self, key: int, start: int, end: int) -> int:
        query = RowsQuery("readings", None, start, end, points=4 * PARTS, fields=("temperature",))
        return len(await self.store.read(lambda db: points.rows(db, query, SCHEMA, [key])))


async def ours(folder: Path, size: Size, vfs: Counted) -> None:
    history = Ours(folder)
    before, began = vfs.bytes, time.perf_counter()
    while history.readings.minutes < size.days * 1_440:
        await history.commit()
    await history.compactor.work()
    took = time.perf_counter() - began
    told("history", history.rows, took, await history.store.write(pages), vfs.bytes - before)
    history.store.close()
    history.open("power")
    minutes = history.readings.minutes
    await measured("history, idle", history.answer, minutes, HOUR, size.asked)
    await measured("history, idle", history.answer, minutes, _month(size.days), size.asked)
    task = asyncio.create_task(history.coming())
    await measured("history, 5,000 readings/s coming", history.answer, minutes, HOUR, size.asked)
    await measured("history, 5,000 readings/s coming", history.answer, minutes, _month(size.days), size.asked)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    history.store.close()


def _month(days: float) -> int:
    return int(min(days * 0.9, 30) * 24) * HOUR or HOUR


async def peer(make: history_peers.Make, folder: Path, days: float, size: Size, vfs: Counted) -> None:
    readings = Readings()
    before, began = vfs.bytes, time.perf_counter()
    minutes = (readings.next() for _ in range(round(days * 1_440)))
    table = await asyncio.to_thread(make, folder, minutes)
    if table is None:
        return
    rows, took = readings.minutes * A_MINUTE, time.perf_counter() - began
    told(table.name, rows, took, table.held, vfs.bytes - before if table.counted else None)

    async def answer(key: int, start: int, end: int) -> int:
        return 4 * len(await asyncio.to_thread(table.extremes, key, start, end, -(-(end - start) // PARTS)))

    name = f"{table.name}, idle (only extremes)"
    await measured(name, answer, readings.minutes, HOUR, size.asked)
    await measured(name, answer, readings.minutes, _month(days), max(3, size.asked // 10))
    table.close()


async def main(size: Size, what: list[str]) -> None:
    vfs = Counted()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        print(f"probe: {probe(place):.2f} ms for 4 kB with fsync in {place.parent}")
        parts: dict[str, Callable[[Path], Awaitable[None]]] = {
            "ours": partial(ours, size=size, vfs=vfs),
            "sqlite": partial(peer, history_peers.SQLite, days=size.sqlite_days, size=size, vfs=vfs),
            "duckdb": partial(peer, history_peers.duckdb_over_parquet, days=size.days, size=size, vfs=vfs),
            "pipeline": partial(history_pipeline.measure, seconds=size.seconds),
        }
        for part, measure in parts.items():
            if not what or part in what:
                (place / part).mkdir()
                await measure(place / part)


if __name__ == "__main__":
    words = sys.argv[1:]
    asyncio.run(main(SMALL if "small" in words else FULL, [word for word in words if word != "small"]))
