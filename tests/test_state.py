"""The state folder of a real process: damaged, changed, and kept to its size."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest_asyncio

from tests.connectors.world import Told
from tests.device import Device, free_port
from tests.waiting import eventually

PIPELINE = """
[pipeline]
name = "kept"
state = "state"
durability = "process"
disorder = "0 s"
idle = "1 h"

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float" }}

[operators.seconds]
type = "window"
input = "readings"
size = "10 s"
aggregate = {{ n = "count()" }}

[sinks.local]
type = "query_server"
inputs = ["readings", "seconds"]
"""


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest_asyncio.fixture
async def device(tmp_path: Path) -> AsyncIterator[Told]:
    port = free_port()
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(port=port))
    async with Told(tmp_path / "pipeline.toml", port) as device:
        yield device


async def post(device: Device, http: aiohttp.ClientSession, *readings: tuple[str, int, float]) -> None:
    body = [dict(zip(("id", "ts", "value"), reading, strict=True)) for reading in readings]
    async with http.post(device.url + "/data", json=body) as answer:
        assert answer.status == 201, await answer.text()


async def health(device: Device, http: aiohttp.ClientSession) -> Any:
    async with http.get(device.url + "/health") as answer:
        return await answer.json()


def spoil(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[100:] = b"\xa5" * (len(data) - 100)
    file.write_bytes(data)


async def test_a_damaged_database_is_set_aside(device: Device, http: aiohttp.ClientSession) -> None:
    """The pipeline starts with a new one, says so, and what was there is kept for whoever wants to look."""
    await device.start(http)
    await post(device, http, ("a", 1000, 1.0))
    await device.end()
    state = device.file.parent / "state"
    spoil(state / "headwater.db")
    damaged = (state / "headwater.db").read_bytes()
    await device.start(http)
    await post(device, http, ("b", 2000, 2.0))
    assert [row["id"] for row in await device.rows(http, "readings")] == ["b"]
    (aside,) = state.glob("headwater.db.damaged-*Z")
    assert aside.read_bytes() == damaged
    told = await health(device, http)
    assert told["status"] == "degraded"
    assert aside.name in told["reasons"][0]
    aside.unlink()
    assert (await health(device, http))["status"] == "ok"
    assert await device.end() == 0


async def test_or_it_stops_if_told_so(device: Device, http: aiohttp.ClientSession) -> None:
    device.file.write_text(device.file.read_text().replace("[server]", 'on_damage = "stop"\n\n[server]'))
    await device.start(http)
    await device.end()
    spoil(device.file.parent / "state" / "headwater.db")
    command = [sys.executable, "-m", "pipeline.command", "run", str(device.file)]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 3
    assert "is damaged" in ended.stderr
    assert not list((device.file.parent / "state").glob("*damaged*"))


async def test_a_file_that_was_changed_takes_over_at_sighup(device: Told, http: aiohttp.ClientSession) -> None:
    """What is the same keeps its state: a window that was open counts on. A file with a mistake changes nothing."""
    await device.start(http)
    await post(device, http, ("a", 1000, 1.0), ("a", 2000, 1.0))
    good = device.file.read_text()
    device.file.write_text(good.replace("count()", "cuont()"))
    device.send(signal.SIGHUP)
    await eventually(lambda: "not reloaded, the pipeline goes on as it was" in device.output())
    assert (await health(device, http))["step"] > 0
    alert = '[operators.high]\ntype = "alert"\ninput = "readings"\nwhen = "value > 5"\n\n'
    changed = good.replace("[sinks.local]", alert + "[sinks.local]").replace('"seconds"]', '"seconds", "high"]')
    device.file.write_text(changed)
    device.send(signal.SIGHUP)

    async def taken_over() -> bool:
        try:
            async with http.get(device.url + "/api/streams") as answer:
                return "high" in [stream["name"] for stream in (await answer.json())["streams"]]
        except (aiohttp.ClientError, KeyError):
            return False

    await eventually(taken_over)
    await post(device, http, ("a", 3000, 9.0), ("a", 20_000, 1.0))
    assert [(row["start"][17:19], row["n"]) for row in await device.rows(http, "seconds")] == [("00", 3)]
    assert [row["state"] for row in await device.rows(http, "high")] == ["firing", "cleared"]
    assert await device.end() == 0


async def test_the_history_keeps_to_its_size(device: Device, http: aiohttp.ClientSession) -> None:
    """Within a tenth of `max_size`, by the bytes of the database's file; the oldest goes first."""
    limit = 1_000_000
    text = device.file.read_text().replace('"seconds"]\n', '"seconds"]\nmax_size = "1 MB"\n')
    device.file.write_text(text)
    await device.start(http)
    chance = random.Random(1)  # what cannot be made smaller
    sent = 0
    for batch in range(250):
        at = batch * 1_000_000
        rows = [(f"k{i % 10}", at + i * 1000, chance.random()) for i in range(1000)]
        await post(device, http, *rows)
        sent += len(rows)
        if batch % 30 == 29:
            size = (device.file.parent / "state" / "headwater.db").stat().st_size
            assert size < 1.1 * limit + 100_000, f"{size} bytes after {batch + 1} batches"
    async with http.get(device.url + "/api/streams") as answer:
        readings, windows = (await answer.json())["streams"]
    assert readings["newest"] == "1970-01-03T21:26:39.000Z"
    assert readings["oldest"] > "1970-01-02"
    assert 0.1 * sent < readings["rows"] < 0.9 * sent
    assert windows["rows"] > 0
    assert size > 0.7 * limit
    assert await device.end() == 0


async def test_dead_letters_are_listed_while_it_runs_and_after(device: Device, http: aiohttp.ClientSession) -> None:
    def dead(*more: str) -> Any:
        command = [sys.executable, "-m", "pipeline.command", "dead", str(device.file), *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    assert dead() == "no dead letters\n"
    await device.start(http)
    async with http.post(device.url + "/data", json={"id": "a", "ts": 1}) as answer:
        assert answer.status == 400
    (letter,) = json.loads(await asyncio.to_thread(dead, "--format", "json"))["dead"]
    assert letter["node"] == "readings"
    assert "value" in letter["reason"]
    assert json.loads(letter["row"]) == {"id": "a", "ts": 1}
    assert dead("--node", "seconds") == "no dead letters\n"
    assert await device.end() == 0
    assert letter["reason"] in dead("--node", "readings")
