"""What durability costs: `python benchmarks/durability.py [commit|recovery|fsync|flash ...]`, the first three without a word.

commit    time, bytes written and fsyncs of one commit, by readings in it and keys there are: flat in keys
recovery  from the start of a killed pipeline until it is ready, by the steps in its journal
fsync     fsyncs and commits a second at 1, 100 and 10,000 readings a second
flash     bytes written by `[pipeline] commit`, with 10 sensors that send once a second each (two minutes, all at once)

The whole engine runs in this process: source, codec, window, alert, history; an SQLite VFS beneath counts. `probe` is one
write of 4 kB with fsync to a file in the same folder, for comparison with another disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import apsw

from pipeline.component import Payload
from pipeline.journal.commit import Store
from pipeline.run import Pipeline, check

PIPELINE = """
[pipeline]
name = "durability"
state = "state"
durability = "{durability}"
commit = "{commit}"
max_keys = 200000

[server]
listen = "127.0.0.1:0"

[sources.readings]
type = "http"
key = "id"
time = "ts"
fields = {{ value = "float" }}

[operators.minute]
type = "window"
input = "readings"
size = "1 min"
aggregate = {{ n = "count()", mean = "mean(value)" }}

[operators.hot]
type = "alert"
input = "readings"
when = "value > 99"

[sinks.local]
type = "query_server"
inputs = ["readings", "minute", "hot"]
"""
START_MS = 1_790_000_000_000
DURABILITIES = ("power", "process")


class Counted(apsw.VFS):
    """The system's files, counted."""

    def __init__(self, name: str = "counted") -> None:
        super().__init__(name, "")
        self.name = name
        self.bytes = self.syncs = 0

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, vfs: Counted, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self.vfs = vfs

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self.vfs.bytes += len(data)

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self.vfs.syncs += 1


class Measured(Pipeline):
    """A pipeline in this process, on a counted disk."""

    def __init__(self, file: Path, vfs: Counted) -> None:
        super().__init__(*check(file))
        self.vfs = vfs
        self.reading = 0

    def open_store(self) -> Store:
        return Store(self.config.pipeline.state, self.config.pipeline.durability, self.vfs.name)

    async def post(self, readings: int, keys: int, every_ms: float = 1.0) -> None:
        """Readings of these keys in turn; comes back when they are durable."""
        assert self.engine is not None
        numbers = range(self.reading, self.reading + readings)
        self.reading += readings
        lines = [b'{"id":"s%d","ts":%d,"value":%d.5}' % (i % keys, START_MS + i * every_ms, i % 50) for i in numbers]
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        body = b"\n".join(lines)
        payload = Payload(body, len(body), done=lambda _: durable.set_result(None))
        assert self.engine.intakes["readings"].inbox.offer(payload)
        await durable


@contextlib.asynccontextmanager
async def running(folder: Path, vfs: Counted, durability: str, commit: str = "0 s") -> AsyncIterator[Measured]:
    """Until it is cancelled, which leaves no checkpoint: like a kill."""
    file = folder / "pipeline.toml"
    file.write_text(PIPELINE.format(durability=durability, commit=commit))
    ready = asyncio.Event()
    pipeline = Measured(file, vfs)
    pipeline.on_start = lambda _: ready.set()
    task = asyncio.create_task(pipeline.run())
    await asyncio.wait([task, waiting := asyncio.create_task(ready.wait())], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        yield pipeline
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def probe(place: Path) -> float:
    """ms of a write of 4 kB with fsync; the median of 50."""
    took = []
    with (place / "probe").open("wb", buffering=0) as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


async def commits(vfs: Counted) -> None:
    print("commit: durability, keys, readings -> ms (median, with the step), kB written, fsyncs")
    for durability in DURABILITIES:
        for keys in (10, 1_000, 100_000):
            with folder() as place:
                async with running(place, vfs, durability) as pipeline:
                    for _ in range(0, keys, 10_000):
                        await pipeline.post(min(keys, 10_000), keys, every_ms=0)
                    for readings in (1, 100, 10_000):
                        await one_size(pipeline, durability, keys, readings)


async def one_size(pipeline: Measured, durability: str, keys: int, readings: int) -> None:
    vfs = pipeline.vfs
    bytes_before, syncs_before, took = vfs.bytes, vfs.syncs, []
    times = 30 if readings == 10_000 else 200
    for _ in range(times):
        began = time.perf_counter()
        await pipeline.post(readings, keys, every_ms=0)  # no window closes meanwhile: its rows are no cost of a commit
        took.append(time.perf_counter() - began)
    print(
        f"  {durability:8} {keys:7,} {readings:7,}  {statistics.median(took) * 1000:8.2f} ms"
        f" {(vfs.bytes - bytes_before) / times / 1000:9.1f} kB {(vfs.syncs - syncs_before) / times:6.2f}"
    )


async def recoveries(vfs: Counted) -> None:
    print("recovery: steps in the journal, readings in each -> s until ready")
    for readings, all_steps in ((1, (0, 200, 1_000, 1_990)), (100, (200, 1_000, 1_990)), (5_000, (50, 150))):
        for steps in all_steps:
            with folder() as place:
                async with running(place, vfs, "process") as pipeline:
                    for _ in range(steps):
                        await pipeline.post(readings, 1_000, every_ms=10)
                began = time.perf_counter()
                async with running(place, vfs, "process") as pipeline:
                    took = time.perf_counter() - began
                    assert pipeline.engine is not None
                    print(f"  {pipeline.engine.steps_since:6,} {readings:6,}  {took:6.2f} s")


async def fsyncs(vfs: Counted) -> None:
    print("fsync: durability, readings a second -> fsyncs and commits a second")
    for durability in DURABILITIES:
        for rate in (1, 100, 10_000):
            with folder() as place:
                async with running(place, vfs, durability) as pipeline:
                    await pipeline.post(100, 100)
                    began, syncs, done = time.perf_counter(), vfs.syncs, pipeline.store.commits
                    each = max(1, rate // 100)  # in one request
                    requests = [
                        asyncio.create_task(later(pipeline, i * each / rate, each)) for i in range(10 * rate // each)
                    ]
                    await asyncio.gather(*requests)
                    span = max(time.perf_counter() - began, 10.0)
                    print(
                        f"  {durability:8} {rate:7,}  {(vfs.syncs - syncs) / span:7.1f}"
                        f" {(pipeline.store.commits - done) / span:7.1f}"
                    )


async def later(pipeline: Measured, after: float, readings: int) -> None:
    await asyncio.sleep(after)
    await pipeline.post(readings, 100)


COMMITS = ("0 s", "1 s", "10 s", "1 min")
SENSORS, FLASH_S = 10, 120
BORNE = 5e12  # bytes: [pipeline] endurance, where nothing is said


async def flash(_: Counted) -> None:
    print("flash: [pipeline] commit -> commits a second, kB each, MB a day, years of 5 TB; 10 readings a second")
    await asyncio.gather(*map(one_interval, COMMITS))


async def one_interval(commit: str) -> None:
    vfs = Counted(commit)
    with folder() as place:
        async with running(place, vfs, "power", commit) as pipeline:
            before, done = vfs.bytes, pipeline.store.commits
            # Not all at the same moment: sensors do not know of each other.
            await asyncio.gather(*(later(pipeline, i / SENSORS, 1) for i in range(SENSORS * FLASH_S)))
            written, commits = vfs.bytes - before, pipeline.store.commits - done
    a_day = written / FLASH_S * 86_400
    each = f"{commits / FLASH_S:6.2f} {written / commits / 1000:7.1f} kB"
    print(f"  {commit:6} {each} {a_day / 1e6:10,.0f} MB {BORNE / a_day / 365:7.1f} years", flush=True)


async def main(what: list[str]) -> None:
    vfs = Counted()
    with folder() as place:
        print(f"probe: {probe(place):.2f} ms for 4 kB with fsync in {place.parent}")
    for name, measure in (("commit", commits), ("recovery", recoveries), ("fsync", fsyncs), ("flash", flash)):
        if name in what or (not what and name != "flash"):
            await measure(vfs)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
