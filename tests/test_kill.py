"""A real process, really killed, in every state that it can be in: nothing acknowledged is lost, nothing is counted twice,
and the outputs are those of an undisturbed run. `make torture KILLS=1000` for a longer one.

Two pipelines run side by side, one with `durability = "process"` and one with `"power"`, each with half of the kills.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web

from tests.device import Device, free_port
from tests.peer import ms, serving, unpacked
from tests.waiting import eventually

KILLS = int(os.environ.get("KILLS", "20"))
CLIENTS = 4
STEP_MS = 100  # event time between two readings
EVERY_S = 0.01  # between two requests of a client, and two lines
SPEED = 20  # at which the recorded file is played: about the pace of the others
RECORDED = 20 * KILLS  # its lines: they last for the most of a run
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

[sources.posted]
type = "http"
path = "/data"
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float" }}

[sources.followed]
type = "file"
path = "followed.ndjson"
follow = true
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float" }}

[sources.recorded]
type = "file"
path = "recorded.ndjson"
speed = {speed}
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float" }}

[operators.ten_seconds]
type = "window"
inputs = ["posted", "followed", "recorded"]
window = "tumbling"
size = "10 s"
aggregate = {{ n = "count()", total = "sum(value)" }}

[operators.high]
type = "alert"
inputs = ["posted", "followed", "recorded"]
when = "value > 70"
clear = "value < 30"

[sinks.local]
type = "query_server"
inputs = ["posted", "followed", "recorded", "ten_seconds", "ten_seconds.late", "high"]

[sinks.table]
type = "file"
inputs = ["ten_seconds"]
path = "windows.csv"
format = "csv"

[sinks.cloud]
type = "cloud"
inputs = ["ten_seconds", "high"]
url = "http://127.0.0.1:{cloud}/api/sync"
batch = {{ rows = 20, wait = "50 ms" }}
"""


class Reading(NamedTuple):
    id: str
    ts: int  # ms
    value: float


class Cloud:
    """The other end: fails every fifth request, half of these after having taken it; keeps each body by its key."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.bodies: dict[str, bytes] = {}
        self.changed: list[str] = []

    async def take(self, request: web.Request) -> web.Response:
        body = await unpacked(request)
        key = request.headers["Idempotency-Key"]
        luck = self.chance.random()
        if luck < 0.1:
            return web.Response(status=503)
        if self.bodies.setdefault(key, body) != body:
            self.changed.append(key)
        return web.Response(status=504 if luck < 0.2 else 200)

    def rows(self, stream: str) -> list[dict[str, Any]]:
        rows = [json.loads(line) for body in self.bodies.values() for line in body.splitlines()]
        return [row for row in rows if row["stream"] == stream]


class Load:
    """Clients that send one reading after the other, each until it is acknowledged, under its own Idempotency-Key; a
    file that grows; and one that was there before. All three go through event time at about the same pace."""

    def __init__(self, chance: random.Random, folder: Path) -> None:
        self.chance = chance
        self.folder = folder
        self.posted: list[Reading] = []  # each acknowledged in the end
        self.followed: list[Reading] = []
        self.recorded = [self.reading("r", (i + 1) * STEP_MS) for i in range(RECORDED)]
        self.count = 0
        self.stopping = False
        (folder / "followed.ndjson").touch()
        (folder / "recorded.ndjson").write_text("".join(map(line, self.recorded)))

    def sources(self) -> dict[str, list[Reading]]:
        return {"posted": self.posted, "followed": self.followed, "recorded": self.recorded}

    def reading(self, name: str, ts: int) -> Reading:
        return Reading(name, ts, round(self.chance.uniform(0, 100), 2))

    async def client(self, name: str, url: str, http: aiohttp.ClientSession) -> None:
        while not self.stopping:
            self.count += 1
            reading = self.reading(name, self.count * STEP_MS)
            headers = {"Idempotency-Key": f"{name}-{reading.ts}"}
            while True:
                try:
                    async with http.post(url + "/data", json=reading._asdict(), headers=headers) as answer:
                        if answer.status == 201:
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.01)
            self.posted.append(reading)
            await asyncio.sleep(EVERY_S)

    async def writer(self) -> None:
        with (self.folder / "followed.ndjson").open("a", buffering=1) as file:
            while not self.stopping:
                self.followed.append(self.reading("f", self.count * STEP_MS))
                file.write(line(self.followed[-1]))
                await asyncio.sleep(EVERY_S)


def line(reading: Reading) -> str:
    return json.dumps(reading._asdict()) + "\n"


# --- what must come out ---------------------------------------------------------------------------------------------


def windows(sources: dict[str, list[Reading]]) -> Counter[tuple[str, int, int, float]]:
    """(id, start, n, total) of each window that the watermark has closed: the least of the live sources', since the
    recorded one has ended."""
    reached = min(max(r.ts for r in sources[name]) for name in ("posted", "followed")) - DISORDER_MS
    groups: dict[tuple[str, int], list[float]] = {}
    for reading in (r for source in sources.values() for r in source):
        groups.setdefault((reading.id, reading.ts // WINDOW_MS * WINDOW_MS), []).append(reading.value)
    closed = {window: values for window, values in groups.items() if window[1] + WINDOW_MS <= reached}
    return Counter((*window, len(values), round(sum(values), 6)) for window, values in closed.items())


def alerts(sources: Iterable[list[Reading]]) -> Counter[tuple[str, int, str]]:
    found: Counter[tuple[str, int, str]] = Counter()
    firing: set[str] = set()
    for source in sources:
        for name, ts, value in source:  # an id belongs to one sender, and its readings arrive in their order
            if name not in firing and value > 70:
                firing.add(name)
                found[name, ts, "firing"] += 1
            elif name in firing and value < 30:
                firing.discard(name)
                found[name, ts, "cleared"] += 1
    return found


def readings_of(rows: Iterable[dict[str, Any]]) -> list[Reading]:
    return [Reading(r["id"], ms(r["time"]), r["value"]) for r in rows]


def windows_of(rows: Iterable[dict[str, Any]]) -> Counter[tuple[str, int, int, float]]:
    return Counter((r["id"], ms(r["start"]), int(r["n"]), round(float(r["total"]), 6)) for r in rows)


def alerts_of(rows: Iterable[dict[str, Any]]) -> Counter[tuple[str, int, str]]:
    return Counter((r["id"], ms(r["time"]), r["state"]) for r in rows)


# --- how it ends, again and again -----------------------------------------------------------------------------------


async def end_somehow(device: Device, chance: random.Random) -> bool:
    """From a running process to none. True if it was killed."""
    luck = chance.random()
    if luck < 0.1:  # paused: nobody listens for a while
        device.send(signal.SIGSTOP)
        await asyncio.sleep(chance.uniform(0.2, 4) if KILLS > 100 else chance.uniform(0.2, 2))
        if chance.random() < 0.5:
            device.send(signal.SIGCONT)
            await asyncio.sleep(chance.uniform(0, 0.2))
    elif luck < 0.3:  # stopped: it works off what it has, and takes a checkpoint; often it is not let finish
        device.send(signal.SIGTERM)
        if luck < 0.2:
            return await ended(device, signal.SIGTERM)
        await asyncio.sleep(chance.uniform(0, 0.1))
    return await ended(device, signal.SIGKILL)


async def ended(device: Device, number: signal.Signals) -> bool:
    assert device.process is not None
    if device.process.returncode is None:
        device.send(number)
    code = await device.process.wait()
    assert code in (0, -signal.SIGKILL), f"it ended with {code}"
    return code != 0


async def start_somehow(device: Device, chance: random.Random, http: aiohttp.ClientSession) -> int:
    """Ready in the end; how often it was killed on the way there: while it imports, reads the journal, opens its port."""
    kills = 0
    while chance.random() < 0.3:
        await device.spawn()
        await asyncio.sleep(chance.uniform(0, 0.2) if chance.random() < 0.3 else chance.uniform(0.2, 1.0))
        kills += await ended(device, signal.SIGKILL)
    await device.start(http)
    return kills


async def test_killed_again_and_again(tmp_path: Path) -> None:
    """Each reading that was acknowledged is in the history once; windows, alerts, files and the cloud have what they should."""
    async with asyncio.TaskGroup() as both:
        for durability in ("process", "power"):
            folder = tmp_path / durability
            folder.mkdir()
            both.create_task(torture(durability, folder, KILLS // 2))


async def torture(durability: str, folder: Path, kills: int) -> None:
    chance = random.Random(f"{durability} {os.environ.get('SEED', '7')}")
    cloud, load = Cloud(chance), Load(chance, folder)
    port = free_port()
    async with (
        serving(cloud.take) as cloud_port,
        aiohttp.ClientSession() as http,
        Device(folder / "pipeline.toml", port) as device,
    ):
        text = PIPELINE.format(durability=durability, port=port, cloud=cloud_port, speed=SPEED)
        (folder / "pipeline.toml").write_text(text)
        await device.start(http)
        tasks = [asyncio.create_task(load.client(f"c{i}", device.url, http)) for i in range(CLIENTS)]
        tasks.append(asyncio.create_task(load.writer()))
        killed = 0
        while killed < kills:
            await asyncio.sleep(chance.uniform(0.02, 0.4))
            killed += await end_somehow(device, chance)
            killed += await start_somehow(device, chance, http)
        await eventually(lambda: len(load.posted) > 5 * KILLS)
        load.stopping = True
        await asyncio.gather(*tasks)
        for name, source in load.sources().items():
            await read_to(device, http, name, source[-1])
        history = {name: await device.rows(http, name) for name in STREAMS}
        await delivered(http, device.url)
        assert await device.end(signal.SIGTERM) == 0
    compare(load, cloud, history, folder)


STREAMS = ("posted", "followed", "recorded", "ten_seconds", "ten_seconds.late", "high")


def compare(load: Load, cloud: Cloud, history: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    for name, source in load.sources().items():
        assert Counter(readings_of(history[name])) == Counter(source), name
    assert history["ten_seconds.late"] == []
    closed, changes = windows(load.sources()), alerts(load.sources().values())
    assert windows_of(history["ten_seconds"]) == closed
    assert alerts_of(history["high"]) == changes
    with (folder / "windows.csv").open(newline="") as file:
        assert windows_of(csv.DictReader(file)) == closed
    assert cloud.changed == []
    assert windows_of(cloud.rows("ten_seconds")) == closed
    assert alerts_of(cloud.rows("high")) == changes


async def read_to(device: Device, http: aiohttp.ClientSession, stream: str, last: Reading) -> None:
    """Until the stream has come to that reading."""

    async def there() -> bool:
        query = f"/api/streams/{stream}/rows?order=desc&limit={CLIENTS}&format=ndjson"
        async with http.get(device.url + query) as answer:
            return last in readings_of(map(json.loads, (await answer.text()).splitlines()))

    await eventually(there, lambda: f"{stream} did not come to its end")


async def delivered(http: aiohttp.ClientSession, url: str) -> None:
    """Until nothing waits any more; as long as it takes, if it becomes less."""
    least, patience = 2**63, 3000
    while patience:
        async with http.get(url + "/api/delivery") as answer:
            waiting = sum(sink["waiting"] for sink in (await answer.json())["sinks"])
        if waiting == 0:
            return
        least, patience = (waiting, 3000) if waiting < least else (least, patience - 1)
        await asyncio.sleep(0.02)
    raise AssertionError(f"{least} rows of the backlog were not delivered")
