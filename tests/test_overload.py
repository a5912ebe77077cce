"""More than it can take, from clients that mean well and from some that do not: it says so, goes on, and does not grow.
`SECONDS=60 pytest tests/test_overload.py` for a longer one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import platform
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import apsw
import numpy as np
import pytest

from pipeline.packing import unpack_frame
from pipeline.server import LIMITS
from tests.device import Device, free_port
from tests.waiting import PATIENCE_S, eventually

SECONDS = float(os.environ.get("SECONDS", "5"))
CLIENTS = 64
READINGS = 1_500  # in a body: all clients together send more than the inbox holds
GROWTH_MB = 30  # of the peak, from the first half of a test to the second

PIPELINE = """
[pipeline]
name = "overloaded"
state = "state"
durability = "power"
disorder = "0 s"
idle = "1 h"
max_keys = 1000

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float", batch = "int" }}

[operators.seconds]
type = "window"
input = "readings"
size = "1 s"
aggregate = {{ n = "count()", mean = "mean(value)" }}

[operators.high]
type = "alert"
input = "readings"
when = "value > 1000"

[sinks.local]
type = "query_server"
inputs = ["readings", "seconds", "high"]
"""


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Device, aiohttp.ClientSession]]:
    port = free_port()
    (folder / "pipeline.toml").write_text(PIPELINE.format(port=port))
    timeout, connector = aiohttp.ClientTimeout(60), aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
        Device(folder / "pipeline.toml", port) as device,
    ):
        await device.start(http)
        yield device, http
        assert await device.end() == 0


class Memory:
    """RSS, looked at while something goes on."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.samples: list[float] = []

    async def watch(self) -> None:
        while True:
            self.samples.append(self.device.rss())
            await asyncio.sleep(0.05)

    def growth(self) -> float:
        """MB that the peak of the second half is above that of the first."""
        half = len(self.samples) // 2
        return max(self.samples[half:]) - max(self.samples[:half])


@asynccontextmanager
async def watched(device: Device) -> AsyncIterator[Memory]:
    memory = Memory(device)
    task = asyncio.create_task(memory.watch())
    try:
        yield memory
    finally:
        task.cancel()


def body(batch: int, ids: Iterator[str], ts: int) -> bytes:
    lines = (f'{{"id":"{name}","ts":{ts + i},"value":{i}.5,"batch":{batch}}}' for i, name in enumerate(ids))
    return "\n".join(lines).encode()


def recorded(folder: Path) -> Counter[int]:
    """How many readings of each batch the history has."""
    db = apsw.Connection(str(folder / "state/headwater.db"), flags=apsw.SQLITE_OPEN_READONLY)
    found: Counter[int] = Counter()
    kept = "SELECT data FROM frames WHERE stream = 'readings' AND history"
    for (data,) in db.execute(f"{kept} UNION ALL SELECT data FROM chunks WHERE stream = 'readings'"):
        batches, counts = np.unique(unpack_frame(data)["batch"].values, return_counts=True)
        found.update(dict(zip(batches.tolist(), counts.tolist(), strict=True)))
    db.close()
    return found


async def test_more_than_it_can_take(tmp_path: Path) -> None:
    """Each request is taken, or told to come later and forgotten; and what waits has a bound."""
    numbers = itertools.count()
    answers: Counter[int] = Counter()
    taken: set[int] = set()
    template = body(10**9, itertools.repeat("sensor-17", READINGS), 1_700_000_000_000)

    async def client(device: Device, http: aiohttp.ClientSession, until: float) -> None:
        # As long as it takes to be too much.
        while time.monotonic() < until or (len(answers) < 2 and time.monotonic() < until + PATIENCE_S):
            batch = next(numbers)
            data = template.replace(b":1000000000}", b":%d}" % batch)
            async with http.post(device.url + "/data", data=data) as answer:
                answers[answer.status] += 1
                if answer.status == 201:
                    taken.add(batch)
                else:
                    assert int(answer.headers["Retry-After"]) >= 1
                await answer.read()

    async with running(tmp_path) as (device, http), watched(device) as memory:
        until = time.monotonic() + SECONDS
        await asyncio.gather(*(client(device, http, until) for _ in range(CLIENTS)))
    assert set(answers) == {201, 429}
    assert recorded(tmp_path) == dict.fromkeys(taken, READINGS)
    assert memory.growth() < GROWTH_MB


async def test_ids_without_end(tmp_path: Path) -> None:
    """Who invents ids gets no further than `max_keys`; what was known goes on being taken."""
    invented = (f"{i:0100d}" for i in itertools.count())
    invented_answers: Counter[int] = Counter()
    known_answers: Counter[int] = Counter()

    async def attacker(device: Device, http: aiohttp.ClientSession, until: float) -> None:
        while time.monotonic() < until or invented_answers[400] <= 100:
            async with http.post(device.url + "/data", data=body(1, itertools.islice(invented, 500), 0)) as answer:
                invented_answers[answer.status] += 1
                await answer.read()

    async def sensor(device: Device, http: aiohttp.ClientSession, until: float) -> None:
        for batch in itertools.count(2):
            async with http.post(device.url + "/data", data=body(batch, iter(["sensor-17"]), batch)) as answer:
                known_answers[answer.status] += 1
            async with http.get(device.url + "/health") as answer:
                assert answer.status == 200
            if time.monotonic() > until:
                return

    async with running(tmp_path) as (device, http):
        await sensor(device, http, 0)
        async with watched(device) as memory:
            until = time.monotonic() + SECONDS
            await asyncio.gather(sensor(device, http, until), *(attacker(device, http, until) for _ in range(4)))
        assert len(await device.rows(http, "readings")) == known_answers[201] + 999  # ids that found room
    assert set(known_answers) == {201}
    assert memory.growth() < GROWTH_MB


STALLED = {
    "a head": b"POST /data HTTP/1.1\r\nHost: localhost\r\nConte",
    "a body": b"POST /data HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
    "chunks": b"POST /data HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{",
    "an answer": b"GET /api/streams/readings/rows?limit=100000 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20,  # never read
}


async def test_clients_that_stall(tmp_path: Path) -> None:
    """They hold up nobody else; who has not said what it wants is closed. (For the others: tests/pipeline/test_server.py.)"""
    async with running(tmp_path) as (device, http):
        async with http.post(device.url + "/data", data=body(0, itertools.repeat("s", 10_000), 0)) as answer:
            assert answer.status == 201
        port = int(device.url.rpartition(":")[2])
        stalled: dict[str, list[asyncio.StreamReader]] = {}
        writers = []
        for name, said in STALLED.items():
            for _ in range(25):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
                writer.write(said)
                stalled.setdefault(name, []).append(reader)
                writers.append(writer)
        async with watched(device) as memory:
            until = time.monotonic() + LIMITS.silent_s
            batch = 0
            while time.monotonic() < until or batch <= 5:
                batch += 1
                async with http.post(device.url + "/data", data=body(batch, iter(["s"]), 10_000 + batch)) as answer:
                    assert answer.status == 201
        async with asyncio.timeout(LIMITS.silent_s + PATIENCE_S):
            for reader in stalled["a head"]:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
        assert max(memory.samples) < 300
        for writer in writers:
            writer.close()


async def test_large_bodies_that_never_end(tmp_path: Path) -> None:
    """Together they get no more than a share of the memory; who sends small ones is served meanwhile."""
    head = b"POST /data HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    async with running(tmp_path) as (device, http):
        await asyncio.sleep(0.5)
        before = device.rss()
        port = int(device.url.rpartition(":")[2])
        answers: list[bytes] = []

        async def stall() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(head + b"[" * 900_000)
                await writer.drain()
                answers.append(await reader.read(100))
            except ConnectionError:
                answers.append(b"")
            finally:
                writer.transport.abort()

        clients = [asyncio.create_task(stall()) for _ in range(200)]
        await eventually(lambda: len(answers) > 150, lambda: len(answers))
        async with http.post(device.url + "/data", data=body(0, iter(["s"]), 0)) as answer:
            assert answer.status == 201
        assert device.rss() - before < 110  # 200 bodies are 180 MB
        assert all(answer.startswith(b"HTTP/1.1 503") for answer in answers if answer)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries have one heap, or one a thread for good"
)
async def test_threads_share_one_heap(tmp_path: Path) -> None:
    """glibc reserves 64 MB of addresses for the heap of each thread that has its own: there is none."""
    async with running(tmp_path) as (device, http):
        sent = body(1, iter(["a", "b"]), 1_000)
        assert (await http.post(device.url + "/data", data=sent)).status == 201  # the writer's thread
        assert len(await device.rows(http, "readings")) == 2  # a reader's
        assert device.process is not None
        assert reserved(device.process.pid) == []


def reserved(pid: int) -> list[int]:
    """Sizes in MB of what is set aside for heaps that may grow."""
    sizes = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, rights, *_, inode = line.split()[:5]
        begin, end = (int(address, 16) for address in addresses.split("-"))
        if rights == "---p" and inode == "0" and 32 << 20 < end - begin <= 64 << 20:
            sizes.append((end - begin) >> 20)
    return sizes
