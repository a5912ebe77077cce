"""What `influx` promises to those who write as to an InfluxDB; one that is real forwards to it what it was given."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pipeline.component import SourceContext
from pipeline.frame import KeyTable
from pipeline.quantity import Secret, Size
from pipeline.server import HttpServer
from pipeline.sources.influx import Influx, InfluxSettings
from tests.peers.influxd import DATABASE, PASSWORD, USER, Influxd, version
from tests.small_engine import SmallEngine

PATHS = ("/write?db=d", "/api/v2/write?org=o&bucket=b")
BOTH = pytest.mark.parametrize("path", PATHS)


class Listen:
    tls = None
    insecure = False
    read_token = max_rate = None
    cors = ()

    def __init__(self, token: str | None) -> None:
        self.token = Secret(token) if token else None

    def address(self) -> tuple[str, int]:
        return "127.0.0.1", 0


def source(**settings: Any) -> Influx:
    context = SourceContext("telegraf", KeyTable())
    made = Influx(InfluxSettings(key="host", fields={"value": "float", "n": "int?"}, **settings), context)
    assert context.problems == []
    return made


@asynccontextmanager
async def running(
    token: str | None = None, **settings: Any
) -> AsyncIterator[tuple[SmallEngine, aiohttp.ClientSession]]:
    made = source(**settings)
    engine = SmallEngine(made)
    server = HttpServer(Listen(token))
    made.mount(server)
    await server.start()
    try:
        async with engine.running(), aiohttp.ClientSession(server.url) as http:
            await asyncio.sleep(0)
            yield engine, http
    finally:
        await server.close()


async def write(http: aiohttp.ClientSession, path: str, data: bytes, **more: Any) -> tuple[int, Any]:
    async with http.post(path, data=data, **more) as response:
        return response.status, (await response.json() if response.content_type == "application/json" else None)


@BOTH
async def test_lines_are_durable_when_they_are_answered(path: str) -> None:
    async with running() as (engine, http):
        engine.held = True
        asking = asyncio.create_task(
            write(http, path, b"cpu,host=a value=1 1000000000\ncpu,host=b value=2,n=3i 2000000000\n")
        )
        await engine.until(lambda: engine.payloads)
        assert not asking.done()
        engine.go_on()
        assert await asking == (204, None)
        assert engine.rows == [
            {"host": "a", "value": 1.0, "time": "1970-01-01T00:00:01.000Z"},
            {"host": "b", "value": 2.0, "n": 3, "time": "1970-01-01T00:00:02.000Z"},
        ]


@BOTH
@pytest.mark.parametrize(
    ("precision", "stamp"),
    [("ns", "7000000000"), ("us", "7000000"), ("u", "7000000"), ("ms", "7000"), ("s", "7"), ("n", "7000000000")],
)
async def test_the_unit_of_timestamps(path: str, precision: str, stamp: str) -> None:
    async with running() as (engine, http):
        assert (await write(http, f"{path}&precision={precision}", f"cpu,host=a value=1 {stamp}".encode()))[0] == 204
        assert engine.rows[0]["time"] == "1970-01-01T00:00:07.000Z"


async def test_units_that_nobody_needs_are_refused() -> None:
    async with running() as (engine, http):
        status, said = await write(http, "/write?precision=h", b"cpu,host=a value=1 1")
        assert (status, said) == (400, {"error": 'precision "h" is none of ns, us, ms, s'})
        assert engine.payloads == []


async def test_the_good_lines_beside_a_bad_one_are_kept() -> None:
    """Both versions are told in their own way, what was wrong with the first and how many there were."""
    body = b"cpu,host=a value=1 1\nnonsense\ncpu,host=b value=2 2\ncpu,host=c value=x 3"
    async with running() as (engine, http):
        status, said = await write(http, PATHS[0], body)
        assert status == 400
        assert said["error"].startswith("partial write: ")
        assert said["error"].endswith(": 'nonsense' dropped=2")
        status, said_2 = await write(http, PATHS[1], body)
        assert (status, said_2) == (400, {"code": "invalid", "message": said["error"]})
        assert engine.values() == [1, 2, 1, 2]


async def test_only_the_measurements_that_are_wanted() -> None:
    async with running(measurement=["cpu", "mem"]) as (engine, http):
        body = b"cpu,host=a value=1 1\ndisk,host=a value=2 1\nmem,host=a value=3 1"
        assert (await write(http, PATHS[0], body))[0] == 204
        assert engine.values() == [1, 3]


async def test_packed_bodies_and_those_too_large() -> None:
    async with running(max_body=Size(1000)) as (engine, http):
        headers = {"Content-Encoding": "gzip"}
        assert (await write(http, PATHS[1], gzip.compress(b"cpu,host=a value=1 1"), headers=headers))[0] == 204
        status, said = await write(http, PATHS[1], gzip.compress(b"#" * 1001), headers=headers)
        assert (status, said["code"]) == (413, "request too large")
        assert engine.values() == [1]


@BOTH
async def test_at_the_limit_and_when_nothing_is_kept(path: str) -> None:
    async with running() as (engine, http):
        engine.room = 0
        async with http.post(path, data=b"cpu,host=a value=1 1") as response:
            assert response.status == 429
            assert int(response.headers["Retry-After"]) >= 1
        engine.room, engine.failed = 10, "disk full"
        async with http.post(path, data=b"cpu,host=a value=1 1") as response:
            assert response.status == 503
            assert "disk full" in await response.text()


async def test_who_is_there_and_may_i() -> None:
    """What clients ask first: /ping, and a write of nothing."""
    async with running() as (engine, http):
        async with http.get("/ping") as response:
            assert (response.status, response.headers["X-Influxdb-Version"][:2]) == (204, "1.")
        assert await write(http, PATHS[0], b"") == (204, None)
        assert engine.payloads == []


@BOTH
async def test_the_token_in_either_scheme(path: str) -> None:
    """Not in Basic: a browser would send that of its own accord. /ping tells nothing, and asks for none."""
    async with running("t0ken") as (_, http):
        for given, status in (
            ("Token t0ken", 204),
            ("Bearer t0ken", 204),
            ("Token wrong", 401),
            ("Basic t0ken", 401),
            ("", 401),
        ):
            answer = await write(http, path, b"cpu,host=a value=1 1", headers={"Authorization": given})
            assert answer[0] == status, given
        async with http.get("/ping") as response:
            assert response.status == 204


async def test_another_place_for_a_second_source() -> None:
    async with running(path="/telegraf/") as (engine, http):
        assert (await write(http, "/telegraf/write", b"cpu,host=a value=1 1"))[0] == 204
        assert (await write(http, "/write", b"cpu,host=a value=1 1"))[0] == 404
        assert engine.values() == [1]
    server = HttpServer(Listen(None))
    source().mount(server)
    with pytest.raises(ValueError, match="another source has the path /write"):
        source().mount(server)


async def test_a_line_that_is_tried_again_has_the_unit_that_it_came_with() -> None:
    made = source()
    engine = SmallEngine(made)
    engine.held = True
    async with running() as (engine, http):
        await write(http, PATHS[0] + "&precision=s", b"cpu,host=a value=1 7")
        codec = engine.payloads[0].codec
        assert codec is not None
        again = source().again(b"cpu,host=a value=1 7", codec.media_types[0])
        assert again is not None
        assert again.codec is not None
        times = again.codec.decode([again.data]).times
        assert times is not None
        assert times.tolist() == [7_000_000_000]
    given = made.given({"host": "a", "value": 3, "time": 5})
    assert given is not None
    assert made.decode([given]).columns["value"].tolist() == [3.0]


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"format": "json"}, ["format"]),
        ({"path": "telegraf"}, ["path"]),
        ({"path": "/{x}"}, ["path"]),
        ({"max_body": Size(0)}, ["max_body"]),
        ({"time": "ts"}, ["time"]),
        ({"path": "/a/"}, []),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], wrong: list[str]) -> None:
    context = SourceContext("telegraf", KeyTable())
    Influx(InfluxSettings(key="host", fields={"value": "float"}, **settings), context)
    assert [setting for setting, _ in context.problems] == wrong


async def write_to(there: Influxd, line: str) -> None:
    async with aiohttp.ClientSession() as http:
        asked = {"db": DATABASE, "u": USER, "p": PASSWORD}
        async with http.post(f"{there.url}/write", params=asked, data=line) as answer:
            assert answer.status == 204, await answer.text()


@pytest.mark.skipif(version() is None, reason="influxd is not installed")
async def test_a_real_influxdb_forwards_what_it_is_given(tmp_path: Path) -> None:
    """By a subscription, as one would have a device see what goes to a database."""
    there = Influxd(tmp_path)
    async with running() as (engine, http):
        try:
            await there.start()
            to = str(http._base_url).rstrip("/")
            await there.ask(f"CREATE SUBSCRIPTION device ON {DATABASE}.autogen DESTINATIONS ALL '{to}'")
            for n in range(100):  # it takes a moment until it forwards
                await write_to(there, f"cpu,host=a value={n} 1700000000000000000")
                if engine.rows:
                    break
                await asyncio.sleep(0.1)
            await write_to(there, "cpu,host=b value=2.5,n=7i 1700000001000000000")
            await engine.until(lambda: engine.values()[-1] == 2.5)
            assert engine.rows[-1] == {"host": "b", "value": 2.5, "n": 7, "time": "2023-11-14T22:13:21.000Z"}
        finally:
            await there.stop()
