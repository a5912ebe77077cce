"""A real process, really killed: nothing acknowledged is lost, nothing is counted twice, and the outputs are those of an
undisturbed run. `make torture KILLS=1000` for a longer one: half of them with `process`, half with `power`."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.device import Device, free_port

KILLS = int(os.environ.get("KILLS", "20"))
CLIENTS = 4
STEP_MS = 100  # event time between two readings
WINDOW_MS = 10_000
DISORDER_MS = 60_000

PIPELINE = """
[pipeline]
name = "killed"
state = "state"
durability = "{durability}"
disorder = "60 s"
idle = "1 h"

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
path = "/data"
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float" }}

[operators.ten_seconds]
type = "window"
input = "readings"
window = "tumbling"
size = "10 s"
aggregate = {{ n = "count()", total = "sum(value)" }}

[operators.high]
type = "alert"
input = "readings"
when = "value > 70"
clear = "value < 30"

[sinks.local]
type = "query_server"
inputs = ["readings", "ten_seconds", "ten_seconds.late", "high"]

[sinks.cloud]
type = "cloud"
inputs = ["ten_seconds", "high"]
url = "http://127.0.0.1:{cloud}/api/sync"
batch = {{ rows = 20, wait = "50 ms" }}
"""


class Cloud:
    """The other end: fails every fifth request, half of these after having taken it; keeps each body by its key."""

    def __init__(self, random_: random.Random) -> None:
        self.random = random_
        self.bodies: dict[str, bytes] = {}
        self.changed: list[str] = []

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        key = request.headers["Idempotency-Key"]
        luck = self.random.random()
        if luck < 0.1:
            return web.Response(status=503)
        if self.bodies.setdefault(key, body) != body:
            self.changed.append(key)
        return web.Response(status=504 if luck < 0.2 else 200)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for body in self.bodies.values() for line in body.splitlines()]


class Load:
    """Clients that send one reading after the other, each until it is acknowledged, under its own Idempotency-Key."""

    def __init__(self, random_: random.Random) -> None:
        self.random = random_
        self.sent: list[tuple[str, int, float]] = []  # id, ts, value: each acknowledged in the end
        self.count = 0
        self.stopping = False

    async def client(self, name: str, url: str, http: aiohttp.ClientSession) -> None:
        while not self.stopping:
            self.count += 1
            reading = (name, self.count * STEP_MS, round(self.random.uniform(0, 100), 2))
            body = dict(zip(("id", "ts", "value"), reading, strict=True))
            while True:
                try:
                    headers = {"Idempotency-Key": f"{name}-{reading[1]}"}
                    async with http.post(url + "/data", json=body, headers=headers) as answer:
                        if answer.status == 201:
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.01)
            self.sent.append(reading)


@asynccontextmanager
async def serving(cloud: Cloud) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_post("/api/sync", cloud.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def windows(sent: list[tuple[str, int, float]]) -> Counter[tuple[str, int, int]]:
    """(id, start, n) of each window that the watermark has closed."""
    reached = max(ts for _, ts, _ in sent) - DISORDER_MS
    groups = Counter((name, ts // WINDOW_MS * WINDOW_MS) for name, ts, _ in sent)
    return Counter((name, start, n) for (name, start), n in groups.items() if start + WINDOW_MS <= reached)


def alerts(sent: list[tuple[str, int, float]]) -> Counter[tuple[str, int, str]]:
    found: Counter[tuple[str, int, str]] = Counter()
    firing: set[str] = set()
    for name, ts, value in sorted(sent, key=lambda reading: reading[1]):  # a client's readings arrive in its order
        if name not in firing and value > 70:
            firing.add(name)
            found[name, ts, "firing"] += 1
        elif name in firing and value < 30:
            firing.discard(name)
            found[name, ts, "cleared"] += 1
    return found


def ms(text: str) -> int:
    from datetime import datetime

    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_killed_again_and_again(durability: str, tmp_path: Path) -> None:
    """Each reading that was acknowledged is in the history once; windows, alerts and the cloud have what they should."""
    chance = random.Random(7)
    cloud, load = Cloud(chance), Load(chance)
    async with serving(cloud) as cloud_port, aiohttp.ClientSession() as http:
        port = free_port()
        (tmp_path / "pipeline.toml").write_text(PIPELINE.format(durability=durability, port=port, cloud=cloud_port))
        device = Device(tmp_path / "pipeline.toml", port)
        await device.start(http)
        clients = [asyncio.create_task(load.client(f"c{i}", device.url, http)) for i in range(CLIENTS)]
        for _ in range(KILLS // 2):
            await asyncio.sleep(chance.uniform(0.05, 0.4))
            await device.end(signal.SIGKILL)
            await device.start(http)
        load.stopping = True
        await asyncio.gather(*clients)
        history = await device.rows(http, "readings")
        ten_seconds = await device.rows(http, "ten_seconds")
        high = await device.rows(http, "high")
        late = await device.rows(http, "ten_seconds.late")
        await delivered(http, device.url)
        assert await device.end(signal.SIGTERM) == 0
    sent = load.sent
    assert len(sent) > 10 * KILLS
    assert Counter((r["id"], ms(r["time"]), r["value"]) for r in history) == Counter(sent)
    assert late == []
    assert Counter((r["id"], ms(r["start"]), r["n"]) for r in ten_seconds) == windows(sent)
    assert Counter((r["id"], ms(r["time"]), r["state"]) for r in high) == alerts(sent)
    assert cloud.changed == []
    uploaded = cloud.rows()
    by_stream = {s: [r for r in uploaded if r["stream"] == s] for s in ("ten_seconds", "high")}
    assert Counter((r["id"], ms(r["start"]), r["n"]) for r in by_stream["ten_seconds"]) == windows(sent)
    assert Counter((r["id"], ms(r["time"]), r["state"]) for r in by_stream["high"]) == alerts(sent)


async def delivered(http: aiohttp.ClientSession, url: str) -> None:
    for _ in range(1500):
        async with http.get(url + "/api/delivery") as answer:
            if all(sink["waiting"] == 0 for sink in (await answer.json())["sinks"]):
                return
        await asyncio.sleep(0.02)
    raise AssertionError("the backlog was not delivered")
