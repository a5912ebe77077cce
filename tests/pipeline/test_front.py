"""What is taken before aiohttp sees it is answered as aiohttp would have it answered; and all else reaches aiohttp unharmed.

The oracle is the same server without the shorter way: the same bytes, sent in the same pieces, must come to the same answers,
header by header, and to the same readings.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import front as front_module
from pipeline.component import Inbox, Payload, Receipt, Services, SourceContext
from pipeline.frame import KeyTable
from pipeline.front import HEADS, MOST_AHEAD, Connection
from pipeline.quantity import Secret, Size
from pipeline.server import LIMITS, HttpServer, Limits
from pipeline.sources.http import Http, HttpSettings
from pipeline.web import SMALL_BODY, HttpProblem, answer, read_body
from tests.certificates import Authority

Answer = Callable[[HttpProblem | None], None]


class Settings(NamedTuple):
    token: Secret | None = None
    read_token: Secret | None = None
    cors: tuple[str, ...] = ()
    max_rate: float | None = None
    tls: Any = None
    insecure: bool = False

    def address(self) -> tuple[str, int]:
        return "127.0.0.1", 0


class Tls(NamedTuple):
    certificate: Path
    key: Path


# --- one way or the other -------------------------------------------------------------------------------------------


class Taking:
    """A route, with the shorter way to it: both tell what they took."""

    def __init__(self) -> None:
        self.took: list[tuple[str, bytes]] = []  # by which way, and the body
        self.asking: list[Answer] = []  # who waits, while `held`
        self.held = False
        self.problem: Exception | None = None

    async def slowly(self, request: web.Request) -> web.StreamResponse:
        self.took.append(("aiohttp", await read_body(request, SMALL_BODY * 2, within_s=0.5)))
        return answer({"taken": True})

    def quickly(self, content_type: str) -> Any:
        return None if content_type == "image/png" else self.take

    def take(self, body: bytes, told: Answer) -> None:
        if self.problem is not None:
            raise self.problem
        self.took.append(("quick", body))
        if self.held:
            self.asking.append(told)
        else:
            asyncio.get_running_loop().call_soon(told, None)


@asynccontextmanager
async def taking(limits: Limits = LIMITS, **given: Any) -> AsyncIterator[tuple[Taking, HttpServer]]:
    source = Taking()
    server = HttpServer(Settings(**given), limits)
    assert server.route("POST", "/data", source.slowly)
    server.quick("/data", source.quickly, b'{"taken":true}', status=200, max_body=SMALL_BODY)
    await server.start()
    try:
        yield source, server
    finally:
        await server.close()


class Client:
    """A connection, of which one answer after the other is read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> None:
        with suppress(ConnectionError):
            for part in parts:
                self.writer.write(part)
                await self.writer.drain()
                await asyncio.sleep(0.001)  # so that it is read in pieces, mostly

    async def answer(self) -> tuple[int, dict[str, str], bytes] | None:
        """None: the server has closed the connection."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        line, *lines = head.split("\r\n")[:-2]
        headers = dict(one.split(": ", 1) for one in lines)
        status = int(line.split()[1])
        if status == 100:
            return await self.answer()
        body = await self.reader.readexactly(int(headers.get("Content-Length", 0)))
        headers.pop("Date", None)
        return status, headers, body


@asynccontextmanager
async def client(server: HttpServer, trust: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trust)
    try:
        async with asyncio.timeout(30):
            yield Client(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


def request(
    body: bytes = b"{}", *headers: str, line: str = "POST /data HTTP/1.1", host: str = "Host: localhost"
) -> bytes:
    lines = [line, *([host] if host else []), *headers]
    if not any(h.lower().startswith(("content-length", "transfer-encoding")) for h in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


QUICK = [
    request(),
    request(b'{"id": "s1", "value": 1}', "Content-Type: application/json", "User-Agent: curl/8.5.0", "Accept: */*"),
    request(b"{}", "Connection: keep-alive", "Accept-Encoding: gzip, deflate"),
    request(b"{}", "connection: Keep-Alive", "ACCEPT:*/*"),
    request(b"{}", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "Via: 1.1 proxy"),
    request(b"x" * SMALL_BODY),
    request(b"\r\n\r\nPOST /data HTTP/1.1\r\n\r\n"),
]
# Of each of these aiohttp is to judge, whatever it then says.
NOT_QUICK = [
    request(line="POST /data?id=s1 HTTP/1.1"),
    request(line="POST /data HTTP/1.0"),
    request(line="POST /data  HTTP/1.1"),
    request(line="PUT /data HTTP/1.1"),
    request(line="POST http://localhost/data HTTP/1.1"),
    request(host=""),
    request(b"{}", "Host: localhost"),
    request(b"", "Content-Length: 0"),
    request(b"{}", "Content-Length: 02"),
    request(b"{}", "Content-Length: +2"),
    request(b"{}", "Content-Length: 2", "Content-Length: 2"),
    request(b"{}", "Content-Length: 2", "Content-Length: 1"),
    request(b"{}", "Content-Length: 2, 2"),
    request(b"2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    request(b"{}", "Content-Length: 2", "Transfer-Encoding: identity"),
    request(b"{}", "Content-Encoding: gzip"),
    request(b"{}", "Idempotency-Key: 1"),
    request(b"{}", "Connection: close"),
    request(b"{}", "Connection: upgrade", "Upgrade: websocket"),
    request(b"{}", "Expect: 100-continue"),
    request(b"{}", "Origin: http://localhost"),
    request(b"{}", "Sec-Fetch-Site: same-origin"),
    request(b"{}", "Content-Type: image/png"),
    request(b"{}", "Content-Type : application/json"),
    request(b"{}", "User-Agent: \x01"),
    request(b"{}", "User-Agent: \xe9"),
    request(b"{}", "User-Agent: a\r\n b"),
    request(b"{}", "User-Agent: a\nContent-Length: 5"),
    request(b"{}", "X-Unknown: 1"),
    request(b"{}", "Accept:"),
    request(b"{}", "Accept"),
    request(b"{}", "User-Agent: " + "x" * 2000),
    request(b"x" * (SMALL_BODY + 1)),
]


@pytest.mark.parametrize("said", QUICK)
async def test_a_plain_request_takes_the_shorter_way(said: bytes) -> None:
    async with taking() as (source, server), client(server) as one:
        for _ in range(2):  # the second time its head is known
            await one.send(said)
            got = await one.answer()
            assert got is not None
            assert got[0] == 200
        assert source.took == [("quick", said.partition(b"\r\n\r\n")[2])] * 2


@pytest.mark.parametrize("said", NOT_QUICK)
async def test_whatever_is_not_plain_is_aiohttp_s(said: bytes) -> None:
    async with taking() as (source, server), client(server) as one:
        await one.send(said)
        assert await one.answer() is not None
        assert all(way == "aiohttp" for way, _ in source.took)


@pytest.mark.parametrize("given", ["", "Bearer wrong", "Bearer ask", "Basic secret"])
async def test_who_may_not_send_is_refused_by_aiohttp(given: str) -> None:
    async with taking(token=Secret("secret"), read_token=Secret("ask")) as (source, server):
        for good in (False, True, False):  # that a head was good once helps no other
            async with client(server) as one:
                sent = "Bearer secret" if good else given
                await one.send(request(b"{}", *([f"Authorization: {sent}"] if sent else [])))
                got = await one.answer()
                assert got is not None
                assert got[0] == 200 if good else got[0] in (401, 403)
        assert source.took == [("quick", b"{}")]


async def test_on_loopback_another_name_is_refused() -> None:
    async with taking() as (source, server), client(server) as one:
        await one.send(request(host="Host: evil.example"))
        got = await one.answer()
        assert got is not None
        assert got[0] == 403
        assert source.took == []


async def test_a_rate_holds_here_too() -> None:
    async with taking(max_rate=0.001) as (source, server):
        statuses = []
        for _ in range(12):
            async with client(server) as one:
                await one.send(request())
                statuses.append((await one.answer() or (0,))[0])
        assert statuses == [200] * 10 + [429] * 2
        assert source.took == [("quick", b"{}")] * 10


async def test_heads_without_end_are_not_kept() -> None:
    async with taking() as (source, server), client(server) as one:
        for i in range(HEADS + 10):
            await one.send(request(b"{}", f"User-Agent: {i}"))
            assert await one.answer() is not None
        assert source.took == [("quick", b"{}")] * (HEADS + 10)
        assert len(server._front._heads) <= HEADS


async def test_what_goes_wrong_is_a_problem() -> None:
    async with taking() as (source, server), client(server) as one:
        source.problem = HttpProblem(429, "later", {"Retry-After": "7"})
        await one.send(request())
        got = await one.answer()
        assert got is not None
        assert (got[0], got[1]["Retry-After"], got[1]["Content-Type"]) == (429, "7", "application/problem+json")
        source.problem = RuntimeError("the password is 1234")
        await one.send(request())
        got = await one.answer()
        assert got is not None
        assert got[0] == 500
        assert b"1234" not in got[2]
        source.problem = None
        await one.send(request())
        assert (await one.answer() or (0,))[0] == 200


# --- the same as aiohttp --------------------------------------------------------------------------------------------


class Kept:
    """An inbox whose engine keeps one payload after the other."""

    def __init__(self, source: Http) -> None:
        self.source = source
        self.rows: list[Any] = []

    def offer(self, payload: Payload) -> bool:
        asyncio.get_running_loop().call_soon(self._keep, payload)
        return True

    def _keep(self, payload: Payload) -> None:
        decoded = self.source.decode([payload])
        values = [c.tolist() for c in decoded.columns.values()]
        names = self.source.context.keys.names
        self.rows.append(([names[int(k)] if not isinstance(k, str) else k for k in decoded.keys], values))
        assert payload.done is not None
        payload.done(Receipt(int(decoded.counts[0]), list(decoded.refused)))


@asynccontextmanager
async def receiving(*, quick: bool, **given: Any) -> AsyncIterator[tuple[Kept, HttpServer]]:
    """The source http on a server, with the shorter way or without it."""
    source = Http(HttpSettings(key="id", fields={"value": "float"}, max_body=Size(300)), SourceContext("s", KeyTable()))
    kept = Kept(source)
    source.context.services = cast("Services", kept)
    server = HttpServer(Settings(**given))
    if not quick:
        server.quick = lambda *_, **__: None  # type: ignore[method-assign]
    source.mount(server)
    await server.start()
    running = asyncio.create_task(source.run(cast("Inbox", kept), None))
    await asyncio.sleep(0)
    try:
        yield kept, server
    finally:
        running.cancel()
        await server.close()


async def said_to(server: HttpServer, requests: list[list[bytes]]) -> list[Any]:
    """The answers to these, each sent in pieces once the one before is answered."""
    answers = []
    async with client(server) as one:
        for parts in requests:
            await one.send(*parts)
            answers.append(await one.answer())
            if answers[-1] is None:
                break
    return answers


BODIES = [
    b'{"id": "s1", "value": 21.5}',
    b'[{"id": "a", "value": 1}, {"id": "b"}]',
    b'{"id": "s1",',
    b"id,value\na,1\n",
]
HEADERS = [
    *("content-type:text/csv", "Content-Type: text/csv; charset=utf-8", "Authorization: Bearer secret"),
    *("Connection: keep-alive", "Accept: */*", "X-Real-Ip: 1", "X-Odd: 1", "Via: 1.1 x"),
    *(
        "Content-Type: image/png",
        "Content-Type : text/csv",
        "Authorization: Bearer x",
        "Content-Type: application/json",
    ),
    *("Connection: close", "Origin: http://evil.example", "Expect: 100-continue", "Content-Encoding: identity"),
    *("Content-Encoding: gzip", "User-Agent: \x7f", "User-Agent: \xff", "Accept:", " folded", "Host: localhost"),
    *("Idempotency-Key: k", "Transfer-Encoding: chunked", "Content-Length: 5", "Sec-Fetch-Site: cross-site"),
]
LINES = ["POST /data HTTP/1.1"] * 8 + [
    *("POST /data?id=q&value=1 HTTP/1.1", "POST /Data HTTP/1.1", "POST //data HTTP/1.1", "GET /none HTTP/1.1"),
    *("PUT /data HTTP/1.1", "post /data HTTP/1.1", "POST /data HTTP/1.0", "POST /data HTTP/2.0", "POST /data"),
]


@st.composite
def requests(draw: st.DrawFn) -> list[bytes]:
    """A request in pieces, or any in one; never one of which a part is missing, or with more behind it.

    aiohttp forgets a good request if what comes in one piece with it is none; and who is answered before all is read may
    not get the answer. So what comes then depends on the pieces.
    """
    body = draw(st.sampled_from(BODIES) | st.binary(max_size=320))
    good = draw(st.booleans())
    headers = draw(st.lists(st.sampled_from(HEADERS[:8] if good else HEADERS), max_size=3, unique=True))
    length = str(len(body)) if good else draw(st.sampled_from([str(len(body))] * 5 + [f"0{len(body)}", "x", ""]))
    line = LINES[0] if good else draw(st.sampled_from(LINES))
    host = draw(st.sampled_from(["Host: localhost"] * 8 + ["Host: evil.example", "A: b"]))
    end = "\r\n" if good else draw(st.sampled_from(["\r\n"] * 12 + ["\n"]))
    lines = draw(st.permutations([host, *headers, f"Content-Length: {length}"]))
    said = end.join([line, *lines, "", ""]).encode("latin-1") + body
    cuts = sorted(draw(st.lists(st.integers(0, len(said)), max_size=2 if good else 0)))
    return [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True) if a < b]


LAST = [request(b'{"id": "last", "value": 1}', "Connection: close", "Authorization: Bearer secret")]


@pytest.mark.parametrize("given_", [{}, {"token": Secret("secret")}, {"cors": ("http://evil.example",)}])
async def test_the_answers_are_those_of_aiohttp(given_: dict[str, Any]) -> None:
    ways = []  # of the requests of all examples
    async with receiving(quick=True, **given_) as (kept, server), receiving(quick=False, **given_) as (known, oracle):

        async def both(said: list[list[bytes]]) -> tuple[list[Any], list[Any]]:
            ours, theirs = await asyncio.gather(said_to(server, [*said, LAST]), said_to(oracle, [*said, LAST]))
            ways.extend(ours)
            return ours, theirs

        loop = asyncio.get_running_loop()

        @settings(max_examples=120, deadline=None, database=None)
        @given(st.lists(requests(), min_size=1, max_size=3))
        def holds(said: list[list[bytes]]) -> None:
            del kept.rows[:], known.rows[:]
            ours, theirs = asyncio.run_coroutine_threadsafe(both(said), loop).result(60)
            assert ours == theirs
            assert kept.rows == known.rows

        await asyncio.to_thread(holds)
    assert {201, 400, 403 if "token" not in given_ else 401} <= {way[0] for way in ways if way}


# --- connections ----------------------------------------------------------------------------------------------------


async def test_requests_that_come_at_once_are_answered_in_order() -> None:
    async with taking() as (source, server), client(server) as one:
        await one.send(b"".join(request(b"%d" % i) for i in range(20)) + request(b"20", "Connection: close"))
        answers = []
        while got := await one.answer():
            answers.append(got[0])
        assert answers == [200] * 21
        assert source.took == [("quick", b"%d" % i) for i in range(20)] + [("aiohttp", b"20")]


async def test_what_comes_ahead_is_bounded() -> None:
    """Who sends on without an answer is not read on."""
    async with taking() as (source, server), client(server) as one:
        source.held = True
        many = request(b"x" * 1000) * 200
        await one.send(request(), many)
        while not (open_ := list(server._front.connections)) or len(open_[0]._data) <= MOST_AHEAD:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert len(open_[0]._data) <= MOST_AHEAD + front_module.READ
        source.held = False
        source.asking.pop()(None)
        for _ in range(201):
            assert (await one.answer() or (0,))[0] == 200
        assert len(source.took) == 201


async def test_a_body_that_comes_late_is_taken_all_the_same() -> None:
    """aiohttp waits for it."""
    said = request(b"x" * 100)
    async with taking() as (source, server), client(server) as one:
        await one.send(said[:-50])
        while server._front.connections:
            await asyncio.sleep(0.01)
        await one.send(said[-50:])
        assert (await one.answer() or (0,))[0] == 200
        assert source.took == [("aiohttp", b"x" * 100)]


async def test_a_body_that_does_not_come_is_given_up() -> None:
    async with taking() as (source, server), client(server) as one:
        await one.send(request(b"x" * 100)[:-50])
        assert (await one.answer() or (0,))[0] == 408
        assert source.took == []


async def test_a_connection_counts_until_it_is_closed() -> None:
    async with taking(Limits(connections=2)) as (_, server):
        async with client(server) as one, client(server) as two:
            for quick, other in ((one, ""), (two, "Connection: Keep-Alive")):
                await quick.send(request(b"{}", *([other] if other else [])))
                assert (await quick.answer() or (0,))[0] == 200
            async with client(server) as third:
                assert (await third.answer() or (0,))[0] == 503
        while server._front.connections:
            await asyncio.sleep(0.01)
        async with client(server) as fourth:
            await fourth.send(request())
            assert (await fourth.answer() or (0,))[0] == 200


@pytest.mark.parametrize("used", [False, True])
async def test_a_silent_connection_is_closed(used: bool) -> None:
    async with (
        taking(Limits(silent_s=10 if used else 0.05, keep_alive_s=0.1 if used else 30)) as (_, server),
        client(server) as one,
    ):
        if used:
            await one.send(request())
            assert (await one.answer() or (0,))[0] == 200
        assert await one.answer() is None


async def test_a_long_commit_is_no_silence() -> None:
    async with taking(Limits(silent_s=2, keep_alive_s=0.05)) as (source, server), client(server) as one:
        source.held = True
        await one.send(request())
        await asyncio.sleep(2.5)
        source.asking.pop()(None)
        assert (await one.answer() or (0,))[0] == 200


async def test_answers_that_nobody_reads_are_bounded_and_given_up() -> None:
    """It is not asked on for as long as its answers wait, and cut off in time."""
    unsent = 0  # at most
    async with taking(Limits(unread_s=1)) as (source, server), client(server) as one:
        one.writer.transport.pause_reading()  # type: ignore[attr-defined]
        one.writer.write(request() * 100_000)  # the answers are three times as much: more than sockets hold
        while not source.took or server._front.connections:
            for connection in server._front.connections:
                unsent = max(unsent, connection._transport.get_write_buffer_size())
            await asyncio.sleep(0.001)
    assert 0 < unsent < 100_000


async def test_a_client_that_is_gone_is_not_answered() -> None:
    async with taking() as (source, server):
        source.held = True
        async with client(server) as one:
            await one.send(request())
            while not source.asking:
                await asyncio.sleep(0.01)
        while server._front.connections:
            await asyncio.sleep(0.01)
        source.asking.pop()(None)


async def test_close_lets_a_request_under_way_end() -> None:
    async with taking() as (source, server), client(server) as one, client(server) as idle:
        source.held = True
        await one.send(request())
        while not source.asking:
            await asyncio.sleep(0.01)
        closing = asyncio.create_task(server.close())
        assert await idle.answer() is None
        source.asking.pop()(None)
        assert (await one.answer() or (0,))[0] == 200
        assert await one.answer() is None
        await closing


async def test_close_does_not_wait_for_ever() -> None:
    async with taking(Limits(grace_s=0.05)) as (source, server), client(server) as one:
        source.held = True
        await one.send(request())
        while not source.asking:
            await asyncio.sleep(0.01)
        await server.close()
        assert await one.answer() is None
        source.asking.pop()(None)


@pytest.mark.parametrize("said", [request(), request(b"{}", "Connection: close")])
async def test_over_tls(said: bytes, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    both = authority.sign("server")
    trust = ssl.create_default_context(cafile=authority.file)
    async with taking(tls=Tls(both, both)) as (source, server), client(server, trust) as one:
        for sent in (request(), said):
            await one.send(sent)
            assert (await one.answer() or (0,))[0] == 200
        assert [way for way, _ in source.took] == ["quick", "aiohttp" if b"close" in said else "quick"]


def test_connections_are_as_asyncio_wants_them() -> None:
    """A protocol that is both kinds would be read in one way or the other, as the loop likes."""
    assert issubclass(Connection, asyncio.BufferedProtocol)
    assert not issubclass(Connection, asyncio.Protocol)
