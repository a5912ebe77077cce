"""What a whole pipeline writes a reading, for benchmarks/history.py: as `/health` counts it, and as the kernel does."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson

PIPELINE = """
[pipeline]
name = "flash"
state = "state"
durability = "power"
commit = "1 s"

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ temperature = "float", humidity = "float" }}

[operators.minutes]
type = "window"
input = "readings"
size = "1 min"
aggregate = {{ n = "count()", mean = "mean(temperature)" }}

[sinks.local]
type = "query_server"
inputs = ["readings", "minutes"]
rollup = {{ readings = ["1 min", "1 h"] }}
"""
KEYS = 100
A_REQUEST = 100  # readings; ten requests a second


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Walks:
    """As benchmarks.history has them, key by key."""

    def __init__(self) -> None:
        self.at = [(2_150, 450)] * KEYS
        self.said = 0

    def body(self) -> bytes:
        lines = []
        for _ in range(A_REQUEST):
            key, self.said = self.said % KEYS, self.said + 1
            t, h = self.at[key] = tuple(v + random.randint(-3, 3) for v in self.at[key])  # type: ignore[assignment]
            reading = {"id": f"s{key}", "ts": time.time_ns() // 1_000_000, "temperature": t / 100, "humidity": h / 10}
            lines.append(orjson.dumps(reading))
        return b"[" + b",".join(lines) + b"]"


async def measure(folder: Path, seconds: float) -> None:
    port = free_port()
    file = folder / "pipeline.toml"
    file.write_text(PIPELINE.format(port=port))
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "pipeline.command", "run", str(file))
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            before = await until_ready(http)
            kernel = written(process.pid)
            readings = await post(http, seconds)
            after = await health(http)
            counted = after["flash"]["written_bytes"] - before["flash"]["written_bytes"]
            by_kernel = written(process.pid) - kernel
            print(
                f"pipeline  {readings:11,} readings in {seconds:5.0f} s, {counted / readings:6.1f} bytes written a reading"
                f" as /health says ({by_kernel / readings:.1f} as /proc does), {after['step']} steps"
            )
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def post(http: aiohttp.ClientSession, seconds: float) -> int:
    """A thousand readings a second; how many were acknowledged. A request waits for its commit, the next does not."""
    walks, began = Walks(), time.monotonic()
    under_way: set[asyncio.Task[int]] = set()
    taken = requests = 0
    while requests * A_REQUEST < seconds * 1_000:
        await asyncio.sleep(max(0.0, began + requests * A_REQUEST / 1_000 - time.monotonic()))
        under_way.add(asyncio.create_task(send(http, walks.body())))
        requests += 1
        done = {task for task in under_way if task.done()}
        taken += sum(task.result() for task in done)
        under_way -= done
    return taken + sum(await asyncio.gather(*under_way))


async def send(http: aiohttp.ClientSession, body: bytes) -> int:
    async with http.post("/data", data=body, headers={"Content-Type": "application/json"}) as answer:
        answer.raise_for_status()
        return A_REQUEST


async def health(http: aiohttp.ClientSession) -> dict[str, Any]:
    async with http.get("/health") as answer:
        return dict(await answer.json())


async def until_ready(http: aiohttp.ClientSession) -> dict[str, Any]:
    while True:
        try:
            told = await health(http)
        except aiohttp.ClientError:
            told = {}
        if told.get("ready"):
            return told
        await asyncio.sleep(0.05)


def written(pid: int) -> int:
    """Bytes that the process has handed to the kernel, answers over the network and all."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])
