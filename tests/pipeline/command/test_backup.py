"""`headwater backup` of a process that runs under load; the copy goes on, on another device, where it was made."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.device import Device, free_port

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

[operators.minutes]
type = "window"
input = "readings"
size = "1 min"
aggregate = {{ n = "count()" }}

[sinks.local]
type = "query_server"
inputs = ["readings", "minutes"]
"""


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def device_in(folder: Path) -> Device:
    folder.mkdir()
    port = free_port()
    (folder / "pipeline.toml").write_text(PIPELINE.format(port=port))
    return Device(folder / "pipeline.toml", port)


async def headwater(*words: str) -> tuple[int, str]:
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "pipeline.command", *words]
    done = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    said = (await done.communicate())[0].decode()
    assert done.returncode is not None
    return done.returncode, said


async def test_a_copy_under_load_goes_on_elsewhere(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    copy = tmp_path / "copy.db"
    sent = 0
    async with device_in(tmp_path / "one") as one:
        await one.start(http)
        copying = asyncio.create_task(headwater("backup", str(one.file), "--to", str(copy)))
        while not copying.done() or sent < 50:
            async with http.post(one.url + "/data", json={"id": "a", "ts": 1000 * sent, "value": sent}) as answer:
                assert answer.status == 201
            sent += 1
        status, said = await copying
        assert status == 0, said
        assert "all that kept had kept" in said
        await one.end(signal.SIGKILL)
    async with device_in(tmp_path / "two") as two:
        assert (await headwater("restore", str(two.file), "--from", str(copy)))[0] == 0
        await two.start(http)
        there = [int(row["value"]) for row in await two.rows(http, "readings")]
        assert there == list(range(len(there)))  # one moment: nothing is missing in between
        minutes = len(there) // 60 + 2
        for number in range(len(there), 60 * minutes + 1):  # the window that was open goes on
            async with http.post(two.url + "/data", json={"id": "a", "ts": 1000 * number, "value": number}):
                pass
        assert [row["n"] for row in await two.rows(http, "minutes")] == [60] * minutes
        assert await two.end() == 0


async def test_nothing_is_overwritten(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    copy = tmp_path / "copy.db"
    async with device_in(tmp_path / "one") as one:
        assert await headwater("backup", str(one.file), "--to", str(copy)) == (
            1,
            f"{one.file.parent / 'state'} has no database: nothing has run here yet\n",
        )
        await one.start(http)
        assert (await headwater("backup", str(one.file), "--to", str(copy)))[0] == 0
        before = copy.read_bytes()
        status, said = await headwater("backup", str(one.file), "--to", str(copy))
        assert (status, copy.read_bytes()) == (2, before)
        assert "is there already" in said
        status, said = await headwater("restore", str(one.file), "--from", str(copy))
        assert status == 2
        assert "has a database already" in said
        assert await one.end() == 0


@pytest.mark.parametrize("spoiled", [False, True])
async def test_what_is_no_copy_is_refused(tmp_path: Path, http: aiohttp.ClientSession, spoiled: bool) -> None:
    device, copy = device_in(tmp_path / "one"), tmp_path / "copy.db"
    copy.write_bytes(b"no database" * 1000)
    if spoiled:
        async with device:
            await device.start(http)
            await device.end()
        good = (device.file.parent / "state" / "headwater.db").read_bytes()
        shutil.rmtree(device.file.parent / "state")
        copy.write_bytes(good[: len(good) // 2])
    status, said = await headwater("restore", str(device.file), "--from", str(copy))
    assert status == 2, said
    assert not (device.file.parent / "state").exists()
