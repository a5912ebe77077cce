"""A running process takes over its changed file: what it changes is said before, nothing is lost, and a file that fails
gives way to the one before."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest_asyncio

from tests.device import Device, free_port
from tests.waiting import eventually

PIPELINE = """
[pipeline]
name = "changing"
durability = "process"
disorder = "0 s"
idle = "1 h"

[server]
listen = "127.0.0.1:{port}"
token = "may do all"
read_token = "may only ask"

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
aggregate = {{ n = "count()", total = "sum(value)" }}

[operators.hot]
type = "alert"
input = "readings"
when = "value > 30"
clear = "value < 20"

[sinks.local]
type = "query_server"
inputs = ["readings", "seconds", "hot"]
"""
PROBE_S = 0.002


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer may do all"}) as session:
        yield session


@pytest_asyncio.fixture
async def device(tmp_path: Path, http: aiohttp.ClientSession) -> AsyncIterator[Device]:
    port = free_port()
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(port=port))
    async with Device(tmp_path / "pipeline.toml", port) as device:
        await device.start(http)
        yield device


async def reload(device: Device, *more: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "pipeline.command", "reload", str(device.file), *more]
    pipe = asyncio.subprocess.PIPE
    asking = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, err = await asking.communicate()
    assert asking.returncode is not None
    return asking.returncode, out.decode(), err.decode()


def change(device: Device, *pairs: tuple[str, str]) -> None:
    text = device.file.read_text()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    device.file.write_text(text)


async def post(device: Device, http: aiohttp.ClientSession, ts: int, value: float) -> bool:
    """Whether it was taken; a sender sends again until it is."""
    try:
        body = [{"id": "a", "ts": ts, "value": value}]
        headers = {"Idempotency-Key": f"reading {ts}"}
        async with http.post(device.url + "/data", json=body, headers=headers) as answer:
            return answer.status == 201
    except aiohttp.ClientError:
        return False


async def health(device: Device, http: aiohttp.ClientSession) -> Any:
    async with http.get(device.url + "/health") as answer:
        return await answer.json()


async def test_a_threshold_changed_under_load(device: Device, http: aiohttp.ClientSession) -> None:
    """No window loses a reading, no alert comes twice, no reading is lost."""
    taken = 0
    changed = False

    async def load() -> None:
        nonlocal taken
        while not changed or taken < 400:
            while not await post(device, http, 100 * taken, 25.0 + 10 * (taken >= 20)):
                await asyncio.sleep(PROBE_S)
            taken += 1

    loading = asyncio.create_task(load())
    while taken < 150:
        await asyncio.sleep(0.01)
    change(device, ("value > 30", "value > 28"), ("value < 20", "value < 21"))
    assert (await reload(device, "--plan"))[:2] == (0, "hot: changed: keeps its state\n")
    status, out, err = await reload(device)
    assert (status, err) == (0, "")
    assert out.startswith("hot: changed: keeps its state\ntaken over after ")
    changed = True
    await loading
    await eventually(lambda: post(device, http, 10_000_000, 0.0))
    windows = await device.rows(http, "seconds")
    assert sum(window["n"] for window in windows) == taken
    assert all(window["n"] == 100 for window in windows[:-1])
    assert [row["state"] for row in await device.rows(http, "hot")] == ["firing", "cleared"]
    told = await health(device, http)
    assert (told["status"], told["reloads"]) == ("ok", 1)
    assert await device.end() == 0


async def test_the_plan_names_what_starts_anew(device: Device) -> None:
    extra = (
        '[operators.mean]\ntype = "window"\ninput = "readings"\nsize = "1 min"\naggregate = { m = "mean(value)" }\n\n'
    )
    change(device, ('size = "10 s"', 'size = "20 s"'), ("[sinks.local]", extra + "[sinks.local]"))
    status, out, _ = await reload(device, "--plan")
    assert (status, out) == (0, "mean: new\nseconds: changed: starts anew\n")


async def test_nothing_changes(device: Device) -> None:
    assert await reload(device, "--plan") == (0, "no node changes\n", "")


async def test_a_file_with_mistakes_changes_nothing(device: Device, http: aiohttp.ClientSession) -> None:
    await post(device, http, 1000, 1.0)
    change(device, ("count()", "cuont()"))
    status, out, err = await reload(device)
    assert (status, out) == (2, "")
    assert 'did you mean "count"' in err
    async with http.post(device.url + "/api/reload", json={}) as answer:
        told = await answer.json()
        assert answer.status == 409
        assert [problem["path"] for problem in told["problems"]] == ["operators.seconds.aggregate.n"]
    assert (await health(device, http))["reloads"] == 0
    assert await device.end() == 0


async def test_a_file_that_fails_gives_way_to_the_one_before(device: Device, http: aiohttp.ClientSession) -> None:
    """Its address is taken: that shows before anything is written, so not even what it changes has lost its state."""
    await post(device, http, 1000, 1.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        good = device.file.read_text()
        change(
            device,
            (device.url.removeprefix("http://"), f"127.0.0.1:{port}"),
            ('total = "sum(value)"', 'most = "max(value)"'),
        )
        async with http.post(device.url + "/api/reload", json={}) as answer:
            assert answer.status == 200
            assert (await answer.json())["plan"] == ["local: changed", "seconds: changed: starts anew"]

        async def reasons() -> Any:
            try:
                return (await health(device, http))["reasons"]
            except aiohttp.ClientError:
                return []

        told = await eventually(reasons)
    assert "cannot listen on" in told[0]
    assert "the one before it runs" in told[0]
    for ts, value in ((2000, 2.0), (20_000, 0.0)):
        await eventually(lambda ts=ts, value=value: post(device, http, ts, value))  # type: ignore[misc]
    assert [(row["n"], row["total"]) for row in await device.rows(http, "seconds")] == [(2, 3.0)]
    device.file.write_text(good)
    assert (await reload(device))[0] == 0
    assert (await health(device, http))["status"] == "ok"
    assert await device.end() == 0


async def test_who_may_only_ask_may_not_reload(device: Device) -> None:
    async with (
        aiohttp.ClientSession(headers={"Authorization": "Bearer may only ask"}) as reader,
        reader.post(device.url + "/api/reload", json={}) as answer,
    ):
        assert answer.status == 403


async def test_where_nothing_runs_it_says_what_to_do(device: Device) -> None:
    assert await device.end() == 0
    status, _, err = await reload(device)
    assert status == 1
    assert "headwater run" in err


async def test_each_reload_lets_go_of_what_it_held(device: Device, http: aiohttp.ClientSession) -> None:
    """A device that is changed every day for months has as many files open as one that never was."""
    change(
        device,
        ("[sinks.local]", '[sinks.lines]\ntype = "file"\ninput = "seconds"\npath = "out.ndjson"\n\n[sinks.local]'),
    )
    assert (await reload(device))[0] == 0
    assert device.process is not None

    def held() -> int:
        return len(list(Path(f"/proc/{device.process.pid}/fd").iterdir()))  # type: ignore[union-attr]

    for stream in ("readings", "seconds", "hot"):  # what is opened when it is first needed is open by now
        await device.rows(http, stream)
    before = held()
    for _ in range(3):
        assert (await reload(device))[0] == 0
    # The connection of a command that has ended is still there for a moment: what stays is what counts.
    await eventually(lambda: held() <= before, held)
    assert await device.end() == 0
