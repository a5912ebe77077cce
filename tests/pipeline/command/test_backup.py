"""`headwater backup` of a process that runs under load; the copy goes on, on another device, where it was made."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import apsw
import pytest
import pytest_asyncio

from pipeline.journal.schema import FORMAT
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
            3,
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


async def test_where_a_copy_cannot_be(tmp_path: Path) -> None:
    """A folder, or a place in none: said before anything is read."""
    file = device_in(tmp_path / "one").file
    assert await headwater("backup", str(file), "--to", str(tmp_path)) == (
        2,
        f"{tmp_path} is a folder: name the file to make in it; nothing was written\n",
    )
    status, said = await headwater("backup", str(file), "--to", str(tmp_path / "stick" / "copy.db"))
    assert (status, "which is no folder" in said) == (2, True)
    status, said = await headwater("restore", str(file), "--from", str(tmp_path))
    assert (status, "is a folder: name the file" in said) == (2, True)


async def test_a_copy_of_another_time(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """Of a later version it is refused; of another pipeline it is taken, and that is told."""
    copy = tmp_path / "copy.db"
    async with device_in(tmp_path / "one") as one:
        await one.start(http)
        assert (await headwater("backup", str(one.file), "--to", str(copy)))[0] == 0
        await one.end()
    two = device_in(tmp_path / "two")
    two.file.write_text(two.file.read_text().replace('name = "kept"', 'name = "other"'))
    db = apsw.Connection(str(copy))
    db.pragma("user_version", FORMAT + 1)
    status, said = await headwater("restore", str(two.file), "--from", str(copy))
    assert (status, f"made by a later Headwater (format {FORMAT + 1}" in said) == (2, True)
    db.pragma("user_version", FORMAT)
    db.close()
    status, said = await headwater("restore", str(two.file), "--from", str(copy))
    assert (status, 'the copy was made of "kept"' in said) == (0, True)
    async with two:
        await two.start(http)
        assert await two.end() == 0


async def test_a_damaged_database_is_not_copied(tmp_path: Path) -> None:
    file, copy = device_in(tmp_path / "one").file, tmp_path / "copy.db"
    (file.parent / "state").mkdir()
    (file.parent / "state" / "headwater.db").write_bytes(b"no database" * 1000)
    status, said = await headwater("backup", str(file), "--to", str(copy))
    assert (status, "the database is damaged" in said) == (3, True)
    assert not [f for f in tmp_path.iterdir() if f.name.startswith("copy")]
