"""From a reading to its Server-Sent Event: `python -m benchmarks.live [SECONDS]`, at 10, 1,000 and 5,000 readings/s.

A client sends each reading with the moment it is written to the socket, over connections that are kept, and takes the time
again when the event has come; so one clock does both. At 5,000/s a request carries ten readings. Beside it: what an fsync
takes here. The goal is p99 <= 5 ms, and one fsync with `power`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import aiohttp
import numpy as np
import orjson

from benchmarks.load import Connection, connect, request
from tests.device import Device, free_port

RATES = ((10, 1), (1_000, 1), (5_000, 10))  # readings a second, and in a request
CONNECTIONS = 64
KEYS = 50
PIPELINE = """
[pipeline]
name = "live"
state = "state"
durability = "{durability}"

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
path = "/data"
key = "id"
fields = {{ value = "float", sent = "int" }}

[sinks.local]
type = "query_server"
inputs = ["readings"]
"""


class Pace:
    """Sends what is due, over whichever connection is free; what finds none waits, and its time runs."""

    def __init__(self, rate: int, each: int) -> None:
        self.rate = rate
        self.each = each
        self.free: list[Connection] = []
        self.waited = 0  # requests for which no connection was free, at most
        self.sent = 0

    async def open(self, port: int) -> None:
        self.free = [await connect(port, self.answered) for _ in range(CONNECTIONS)]

    def answered(self, connection: Connection, status: int) -> None:
        if status != 201:
            raise SystemExit(f"answered {status}")
        self.free.append(connection)

    async def run(self, seconds: float) -> None:
        began = time.perf_counter()
        due: deque[int] = deque()  # when each request that waits for a connection was to be sent
        while (passed := time.perf_counter() - began) < seconds:
            while self.sent + len(due) < int(passed * self.rate / self.each):
                due.append(time.perf_counter_ns())
            while due and self.free:
                at = due.popleft()
                readings = [{"id": f"s{(self.sent + i) % KEYS}", "value": 20.5, "sent": at} for i in range(self.each)]
                self.free.pop().send(request(json.dumps(readings).encode()))
                self.sent += 1
            self.waited = max(self.waited, len(due))
            await asyncio.sleep(0.0005)


async def hear(url: str, waits: list[float], begun: asyncio.Event) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/api/live?streams=readings") as answer:
        begun.set()
        async for line in answer.content:
            if line.startswith(b"data: ") and b'"rows":[' in line:
                now = time.perf_counter_ns()
                waits += [(now - row["sent"]) / 1e6 for row in orjson.loads(line[6:])["rows"]]


async def measured(folder: Path, durability: str, rate: int, each: int, seconds: float) -> None:
    port = free_port()
    file = folder / "pipeline.toml"
    file.write_text(PIPELINE.format(port=port, durability=durability).replace('"state"', f'"{durability}{rate}"'))
    waits: list[float] = []
    begun = asyncio.Event()
    async with aiohttp.ClientSession() as http, Device(file, port) as device:
        await device.start(http)
        hearing = asyncio.create_task(hear(device.url, waits, begun))
        await begun.wait()
        pace = Pace(rate, each)
        await pace.open(port)
        cpu = time.process_time()
        await pace.run(seconds)
        cpu = time.process_time() - cpu
        await asyncio.sleep(0.5)
        hearing.cancel()
        await device.end()
    p50, p99 = np.percentile(waits, [50, 99])
    missing = pace.sent * each - len(waits)
    told = f"{durability:8} {rate:6,} {p50:8.2f} {p99:8.2f} {len(waits):9,} {missing:7,} {pace.waited:6,} {cpu / seconds:7.0%}"
    print(told, flush=True)


def fsync_ms(folder: Path) -> tuple[float, float]:
    took = []
    with (folder / "page").open("wb") as file:
        for _ in range(200):
            file.write(bytes(4_096))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - began) * 1e3)
    p50, p99 = np.percentile(took, [50, 99])
    return float(p50), float(p99)


async def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        print("an fsync of 4 kB: p50 {:.2f} ms, p99 {:.2f} ms".format(*fsync_ms(Path(folder))))
        print(f"{'':8} {'1/s':>6} {'p50 ms':>8} {'p99 ms':>8} {'events':>9} {'missing':>7} {'waited':>6} {'client':>7}")
        for durability in ("process", "power"):
            for rate, each in RATES:
                await measured(Path(folder), durability, rate, each, seconds)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0))
