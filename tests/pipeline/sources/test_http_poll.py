"""What `http_poll` promises, against a real server of aiohttp's."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pipeline.component import SourceContext
from pipeline.frame import KeyTable
from pipeline.quantity import Secret, Size, duration
from pipeline.sources.http_poll import HttpPoll, HttpPollSettings
from pipeline.tls import TlsSettings
from tests.certificates import Authority
from tests.small_engine import SmallEngine


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reconnect.FIRST_S", 0.02)
    monkeypatch.setattr("pipeline.reconnect.LONGEST_S", 0.05)


class Peer:
    """Answers with `body`, `status` and `headers`; `version` makes it answer 304 to who has that."""

    def __init__(self) -> None:
        self.body = b'{"id": "a", "value": 1}'
        self.status = 200
        self.headers: dict[str, str] = {}
        self.silent = False
        self.asked: list[web.Request] = []
        self.times: list[float] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        self.times.append(asyncio.get_running_loop().time())
        while self.silent:
            await asyncio.sleep(0.05)
        for asks, says in (("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified")):
            if says in self.headers and request.headers.get(asks) == self.headers[says]:
                return web.Response(status=304)
        return web.Response(status=self.status, body=self.body, headers=self.headers)


@asynccontextmanager
async def peer(tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    made = Peer()
    app = web.Application()
    app.router.add_get("/now", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    made.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/now"
    try:
        yield made
    finally:
        await runner.cleanup()


def source(url: str, folder: Path = Path(), **settings: Any) -> HttpPoll:
    context = SourceContext("weather", KeyTable(), folder=folder)
    usual: dict[str, Any] = {"every": duration("20 ms"), "key": "id", "fields": {"value": "float"}}
    made = HttpPoll(HttpPollSettings(url=url, **usual | settings), context)
    assert context.problems == []
    return made


async def test_each_answer_is_a_reading() -> None:
    """Changed or not, where the server does not name versions; several readings in one, too."""
    async with peer() as there:
        engine = SmallEngine(source(there.url))
        async with engine.running():
            await engine.have(3)
            there.body = b'[{"id": "a", "value": 2}, {"id": "b", "value": 3}]'
            await engine.until(lambda: engine.values()[-2:] == [2, 3])
            assert "If-None-Match" not in there.asked[-1].headers


@pytest.mark.parametrize(("header", "version"), [("ETag", '"v1"'), ("Last-Modified", "Sat, 21 Nov 2026 00:00:00 GMT")])
async def test_what_is_known_already_is_no_reading(header: str, version: str) -> None:
    """Also after a restart, which the position of the last durable answer tells; not for another address."""
    async with peer() as there:
        there.headers = {header: version}
        engine = SmallEngine(source(there.url))
        async with engine.running():
            await engine.until(lambda: len(there.asked) >= 5)
            assert len(engine.rows) == 1
            there.headers = {header: version.replace("1", "2")}
            there.body = b'{"id": "a", "value": 2}'
            await engine.have(2)
        position = engine.payloads[-1].position
        restarted = SmallEngine(source(there.url))
        before = len(there.asked)
        async with restarted.running(position):
            await engine.until(lambda: len(there.asked) > before + 2)
            assert restarted.rows == []
        elsewhere = SmallEngine(source(there.url))
        async with elsewhere.running({**position, "url": "http://other/"}):
            await elsewhere.have(1)


async def test_who_asks_and_how(tmp_path: Path) -> None:
    async with peer() as there:
        made = source(there.url + "?station=7", token=Secret("t"), headers={"X-Key": Secret("k")})
        engine = SmallEngine(made)
        async with engine.running():
            await engine.have(1)
        request = there.asked[0]
        assert (request.headers["Authorization"], request.headers["X-Key"]) == ("Bearer t", "k")
        assert request.query["station"] == "7"
        assert "7" not in made.shown.rpartition("/")[2]


async def test_refusals_are_told_until_it_answers_again() -> None:
    async with peer() as there:
        there.status, there.body = 503, b"no  sensor\ntoday"
        engine = SmallEngine(source(there.url))
        async with engine.running():
            await engine.until(lambda: engine.source.trouble)
            assert engine.source.trouble == f"{there.url}: HTTP 503: no sensor today"
            there.status, there.body = 200, b'{"id": "a", "value": 1}'
            await engine.have(1)
            assert engine.source.trouble == ""


async def test_a_redirect_is_not_followed() -> None:
    """Its target would be given the credentials."""
    async with peer() as there:
        there.status, there.headers = 302, {"Location": there.url}
        engine = SmallEngine(source(there.url))
        async with engine.running():
            await engine.until(lambda: "HTTP 302: it is elsewhere" in engine.source.trouble)


async def test_a_server_that_wants_to_be_left_alone_is() -> None:
    async with peer() as there:
        there.status, there.headers = 429, {"Retry-After": "600"}
        engine = SmallEngine(source(there.url))
        async with engine.running():
            await engine.until(lambda: engine.source.trouble)
            await asyncio.sleep(0.3)
            assert len(there.asked) == 1


async def test_a_server_that_is_silent_is_given_up() -> None:
    async with peer() as there:
        there.silent = True
        engine = SmallEngine(source(there.url, timeout=duration("100 ms")))
        async with engine.running():
            await engine.until(lambda: "it did not answer within 100 ms" in engine.source.trouble)
            there.silent = False
            await engine.have(1)


async def test_nobody_there_is_told_in_short() -> None:
    engine = SmallEngine(source("http://user:secret@127.0.0.1:1/now?token=secret"))
    async with engine.running():
        await engine.until(lambda: engine.source.trouble)
        assert engine.source.trouble.startswith("http://127.0.0.1:1/now: ")
        assert "secret" not in engine.source.trouble


async def test_an_answer_too_large_is_not_held_in_memory() -> None:
    async with peer() as there:
        there.body = b"x" * 1001
        engine = SmallEngine(source(there.url, max_body=Size(1000)))
        async with engine.running():
            await engine.until(lambda: "more than max_body (1 kB)" in engine.source.trouble)
            assert engine.payloads == []


async def test_an_empty_answer_is_no_reading_and_a_bad_one_is_refused() -> None:
    async with peer() as there:
        there.status, there.body = 204, b""
        engine = SmallEngine(source(there.url))
        async with engine.running():
            await engine.until(lambda: len(there.asked) > 2)
            assert engine.payloads == []
            there.status, there.body = 200, b"<html>"
            await engine.until(lambda: engine.refused)
            assert engine.source.trouble == ""


async def test_while_the_inbox_is_full_nothing_is_asked() -> None:
    async with peer() as there:
        engine = SmallEngine(source(there.url), room=2)
        engine.held = True
        async with engine.running():
            await engine.until(lambda: len(there.asked) == 3)
            await asyncio.sleep(0.1)
            assert len(there.asked) == 3
            engine.go_on()
            await engine.have(5)


async def test_it_is_asked_as_often_as_it_should_and_not_at_once() -> None:
    """Those that start together do not ask together."""
    async with peer() as there:
        made = source(there.url, every=duration("100 ms"))
        made.random.seed(1)
        engine = SmallEngine(made)
        began = asyncio.get_running_loop().time()
        async with engine.running():
            await engine.have(3)
        assert there.times[0] - began >= 0.013  # what this seed gives
        assert there.times[2] - began >= 0.19


async def test_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(authority.sign("server"))
    async with peer(served) as there:
        engine = SmallEngine(source(there.url, tmp_path, tls=TlsSettings(ca=Path("ca.pem"))))
        async with engine.running():
            await engine.have(1)
        engine = SmallEngine(source(there.url, tmp_path))
        async with engine.running():
            await engine.until(lambda: "certificate" in engine.source.trouble)


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"url": "ftp://h/"}, "url"),
        ({"every": duration("1 ms")}, "every"),
        ({"timeout": duration("0 s")}, "timeout"),
        ({"max_body": Size(0)}, "max_body"),
        ({"tls": TlsSettings(key=Path("k.pem"))}, "tls.key"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], wrong: str) -> None:
    context = SourceContext("weather", KeyTable())
    settings = {"url": "http://h/", "key": "id", "fields": {"value": "float"}} | settings
    HttpPoll(HttpPollSettings(**settings), context)
    assert [setting for setting, _ in context.problems] == [wrong]
