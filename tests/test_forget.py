"""A key that is gone for good is forgotten by a real process: nothing but its history is kept, also after a kill."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.device import Device, free_port
from tests.waiting import eventually

PIPELINE = """
[pipeline]
name = "cellar"
state = "state"
durability = "process"
disorder = "0 s"
idle = "100 ms"
max_keys = {most}

[server]
listen = "127.0.0.1:{port}"
token = "may do all"
read_token = "may only ask"

[sources.readings]
type = "http"
path = "/data"
key = "id"
fields = {{ value = "float" }}

[sources.others]
type = "http"
path = "/others"
key = "id"
fields = {{ value = "float" }}

[operators.silent]
type = "alert"
input = "readings"
silent_for = "300 ms"

[operators.last]
type = "changes"
input = "others"

[sinks.local]
type = "query_server"
inputs = ["readings", "silent", "last"]
"""


class Cellar:
    def __init__(self, device: Device, http: aiohttp.ClientSession) -> None:
        self.device = device
        self.http = http

    async def reads(self, key: str, status: int = 201, path: str = "/data") -> None:
        async with self.http.post(self.device.url + path, json={"id": key, "value": 1}) as answer:
            assert answer.status == status, await answer.text()

    async def get(self, path: str) -> Any:
        async with self.http.get(self.device.url + path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def forget(self, body: Any, status: int = 200, **headers: str) -> Any:
        url = self.device.url + "/api/keys/forget"
        async with self.http.post(url, data=json.dumps(body), headers=headers) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json(content_type=None)

    async def firing(self) -> set[str]:
        return {one["key"] for one in (await self.get("/api/alerts?state=firing"))["alerts"]}

    async def latest(self, stream: str = "readings") -> set[str]:
        return {row["id"] for row in (await self.get(f"/api/streams/{stream}/latest"))["rows"]}

    async def until(self, holds: Callable[[set[str]], bool]) -> None:
        """Of the keys that fire."""
        firing: set[str] = set()

        async def look() -> bool:
            nonlocal firing
            firing = await self.firing()
            return holds(firing)

        await eventually(look, lambda: firing)

    async def kill(self) -> None:
        await self.device.end(signal.SIGKILL)
        await self.device.start(self.http)


@asynccontextmanager
async def cellar(folder: Path, most: int = 100) -> AsyncIterator[Cellar]:
    port = free_port()
    file = folder / "pipeline.toml"
    file.write_text(PIPELINE.format(port=port, most=most))
    headers = {"Authorization": "Bearer may do all"}
    async with aiohttp.ClientSession(headers=headers) as http, Device(file, port) as device:
        await device.start(http)
        yield Cellar(device, http)


async def command(folder: Path, *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pipeline.command", "forget", *words),
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, told.decode()


async def test_its_alert_is_over_and_does_not_come_again(tmp_path: Path) -> None:
    """A row says that it is over; killed in the next moment the device knows it, too. Heard again, it begins anew."""
    async with cellar(tmp_path) as c:
        await c.reads("s1")
        await c.until(lambda firing: firing == {"s1"})
        status, told = await command(tmp_path, "s1")
        assert (status, told) == (0, "s1 is forgotten: no longer shown in readings, silent; its history stays\n")
        await c.kill()
        assert await c.latest() == await c.latest("silent") == set()
        assert await c.firing() == set()
        await c.reads("s2")
        await c.until(lambda firing: firing == {"s2"})
        rows = [(row["id"], row["state"]) for row in await c.device.rows(c.http, "silent")]
        assert rows == [("s1", "firing"), ("s1", "cleared"), ("s2", "firing")]
        assert [row["id"] for row in await c.device.rows(c.http, "readings")] == ["s1", "s2"]
        await c.reads("s1")
        assert await c.latest() == {"s1", "s2"}
        await c.until(lambda firing: firing == {"s1", "s2"})


async def test_it_makes_room_for_another_key(tmp_path: Path) -> None:
    """Also after a kill. One that comes back takes room again."""
    async with cellar(tmp_path, most=2) as c:
        await c.reads("s1")
        await c.reads("s2")
        await c.reads("s3", 400)
        await c.forget({"key": "s1"})
        await c.kill()
        await c.reads("s3")
        await c.reads("s4", 400)
        await c.reads("s1")
        await c.forget({"key": "s2"})
        await c.reads("s4", 400)  # there are s1 and s3
        await c.forget({"key": "s3"})
        await c.kill()
        await c.reads("s4")
        await c.reads("s5", 400)
        assert [row["id"] for row in await c.device.rows(c.http, "readings")] == ["s1", "s2", "s3", "s1", "s4"]


async def test_only_in_one_stream(tmp_path: Path) -> None:
    """And in what comes of it; the same key elsewhere stays."""
    async with cellar(tmp_path) as c:
        await c.reads("s1")
        await c.reads("s1", path="/others")
        assert await c.forget({"key": "s1", "stream": "others"}) == {"key": "s1", "streams": ["others", "last"]}
        assert (await c.latest(), await c.latest("last")) == ({"s1"}, set())
        await c.reads("s1", path="/others")
        assert len(await c.device.rows(c.http, "last")) == 2  # as if it were the first
        status, told = await command(tmp_path, "s1", "--stream", "other")
        assert status == 1
        assert 'there is no stream "other" (did you mean "others"?)' in told


async def test_who_may_not_and_what_is_wrong(tmp_path: Path) -> None:
    async with cellar(tmp_path) as c:
        await c.reads("s1")
        await c.forget({"key": "s1"}, 403, Authorization="Bearer may only ask")
        await c.forget({"key": "s1"}, 401, Authorization="Bearer nothing")
        assert await c.latest() == {"s1"}
        assert (await c.forget({"key": "s7"}, 404))["detail"] == 'there is no key "s7"'
        for body in ({}, {"key": 1}, {"key": "s1", "streams": "readings"}, ["s1"], {"key": ""}):
            await c.forget(body, 404 if body == {"key": ""} else 400)
        assert await c.latest() == {"s1"}
