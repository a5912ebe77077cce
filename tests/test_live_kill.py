"""A listener comes back to a process that was killed, with the last id that it saw: nothing is missing, nothing comes twice."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from pathlib import Path

import aiohttp

from tests.device import Device, free_port
from tests.waiting import eventually

KILLS = 3
PIPELINE = """
[pipeline]
name = "heard"
state = "state"
disorder = "0 s"

[server]
listen = "127.0.0.1:{port}"

[sources.posted]
type = "http"
path = "/data"
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float" }}

[operators.seconds]
type = "window"
input = "posted"
window = "tumbling"
size = "1 s"
aggregate = {{ n = "count()" }}

[sinks.local]
type = "query_server"
inputs = ["posted", "seconds"]
"""


async def test_killed_while_somebody_listens(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    port = free_port()
    file.write_text(PIPELINE.format(port=port))
    heard: dict[str, list[str]] = {"posted": [], "seconds": []}
    last = {"id": ""}
    rng = random.Random(7)

    async with aiohttp.ClientSession() as http, Device(file, port) as device:

        async def listen() -> None:
            """What a browser does: again and again, with the last id."""
            while True:
                try:
                    headers = {"Last-Event-ID": last["id"]} if last["id"] else {}
                    async with http.get(f"{device.url}/api/live", headers=headers) as response:
                        pending.clear()  # what was told without an id is told again
                        event: list[str] = []
                        async for line in response.content:
                            if line.strip():
                                event.append(line.decode().rstrip("\n"))
                                continue
                            take(event)
                            event = []
                except (aiohttp.ClientError, ConnectionError):
                    await asyncio.sleep(0.02)

        def take(event: list[str]) -> None:
            """An event counts when it is whole. Its rows count with the id behind them, as for one who stores both at once."""
            for line in event:
                name, _, text = line.partition(": ")
                assert name in ("data", "id", "retry", ""), line  # and none was missed
                if name == "data":
                    data = json.loads(text)
                    pending.append((data["stream"], [json.dumps(row) for row in data["rows"]]))
                elif name == "id":
                    last["id"] = text
                    for stream, rows in pending:
                        heard[stream] += rows
                    pending.clear()

        async def post() -> None:
            at = 0
            while True:
                at += 50
                rows = [
                    {"id": f"k{i}", "ts": 1_769_860_800_000 + at, "value": at / 7 + i} for i in range(rng.randint(1, 4))
                ]
                try:
                    async with http.post(f"{device.url}/data", json=rows) as response:
                        await response.read()
                except (aiohttp.ClientError, ConnectionError):
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0.003)

        pending: list[tuple[str, list[str]]] = []
        await device.start(http)
        tasks = [asyncio.create_task(listen()), asyncio.create_task(post())]
        for _ in range(KILLS):
            before = len(heard["seconds"])
            while len(heard["seconds"]) < before + 12:
                assert not any(task.done() for task in tasks)
                await asyncio.sleep(0.01)
            await device.end(signal.SIGKILL)
            await device.start(http)
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        recorded: dict[str, list[str]] = {}

        async def all_heard() -> bool:
            """The last request may still be recorded, and what is recorded told a moment later."""
            assert not tasks[0].done()
            for name in heard:
                recorded[name] = sorted(json.dumps(row) for row in await device.rows(http, name))
            return {name: sorted(rows) for name, rows in heard.items()} == recorded

        await eventually(all_heard, lambda: (heard, recorded))
        tasks[0].cancel()
        assert len(heard["posted"]) > len(heard["seconds"]) >= KILLS * 12
