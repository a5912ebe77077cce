"""What the server promises to every handler, and to every client, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import ssl
import subprocess
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from aiohttp.web_urldispatcher import PlainResource, ResourceRoute, UrlMappingMatchInfo

from pipeline.api import Operation, described
from pipeline.guard import Guard, Rates, network
from pipeline.quantity import Secret
from pipeline.server import LIMITS, HttpServer, Limits
from pipeline.web import HttpProblem, answer, read_body
from tests.waiting import eventually

MAX_BODY = 1000


class Tls(NamedTuple):
    certificate: Path
    key: Path


class Settings(NamedTuple):
    listen: tuple[str, int] = ("127.0.0.1", 0)
    token: Secret | None = None
    tls: Tls | None = None
    insecure: bool = False
    read_token: Secret | None = None
    cors: tuple[str, ...] = ()
    max_rate: float | None = None

    def address(self) -> tuple[str, int]:
        return self.listen


async def hello(_: web.Request) -> web.StreamResponse:
    return answer({"hello": "world"})


async def count(request: web.Request) -> web.StreamResponse:
    return answer({"bytes": len(await read_body(request, MAX_BODY, within_s=0.3))})


async def broken(_: web.Request) -> web.StreamResponse:
    raise RuntimeError("the password is 1234")


async def refusing(_: web.Request) -> web.StreamResponse:
    raise HttpProblem(429, "later", {"Retry-After": "7"}, waiting=3)


LARGE = b"x" * 20_000_000  # more than sockets hold


async def large(_: web.Request) -> web.StreamResponse:
    return web.Response(body=LARGE)


async def streamed(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for start in range(0, len(LARGE), 10_000):
        await response.write(LARGE[start : start + 10_000])
    return response


async def page(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<p>", headers={"Content-Security-Policy": "default-src 'self'"})


@asynccontextmanager
async def serving(limits: Limits = LIMITS, **settings: Any) -> AsyncIterator[HttpServer]:
    server = HttpServer(Settings(**settings), limits)
    assert server.route("GET", "/hello", hello)
    assert server.route("POST", "/count", count)
    assert server.route("POST", "/broken", broken)
    assert server.route("POST", "/refusing", refusing)
    assert server.route("GET", "/page", page)
    assert server.route("GET", "/large", large)
    assert server.route("GET", "/streamed", streamed)
    # So each connection begins where small bodies are taken, and comes to aiohttp from there.
    assert server.route("POST", "/quick", hello)
    server.quick("/quick", lambda _: None, b"", status=204, max_body=MAX_BODY)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def served(limits: Limits = LIMITS, **settings: Any) -> AsyncIterator[aiohttp.ClientSession]:
    async with serving(limits, **settings) as server, aiohttp.ClientSession(server.url) as http:
        yield http


async def problem(response: aiohttp.ClientResponse, status: int) -> dict[str, Any]:
    """The body of an answer that must be a problem of this status."""
    assert response.status == status, await response.text()
    assert response.content_type == "application/problem+json"
    body = await response.json()
    assert body["status"] == status
    assert body["type"] == "about:blank"
    assert body["title"]
    assert body["detail"]
    return body


@asynccontextmanager
async def connected(server: HttpServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def raw(server: HttpServer, *parts: bytes) -> bytes:
    """What comes back for these bytes, until the server closes the connection."""
    async with connected(server) as (reader, writer), asyncio.timeout(20):
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await reader.read()


def head_and_body(got: bytes) -> tuple[bytes, dict[str, Any]]:
    head, _, body = got.partition(b"\r\n\r\n")
    return head, json.loads(body)


# --- routes ---------------------------------------------------------------------------------------------------------


async def test_a_route_is_answered_where_the_url_says() -> None:
    async with serving() as server, aiohttp.ClientSession() as http:
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert server.port > 0
        async with http.get(server.url + "/hello") as response:
            assert await response.json() == {"hello": "world"}
        async with http.head(server.url + "/hello") as response:
            assert response.status == 200


async def test_a_method_and_path_are_given_once() -> None:
    """The second to ask is told so, and the first keeps it."""
    server = HttpServer(Settings())
    assert server.route("GET", "/hello", hello)
    assert not server.route("GET", "/hello", broken)
    assert server.route("POST", "/hello", broken)


async def test_after_the_start_routes_are_fixed() -> None:
    async with serving() as server:
        with pytest.raises(RuntimeError, match="started"):
            server.route("GET", "/late", hello)


async def test_an_address_in_use_says_so() -> None:
    async with serving() as first:
        second = HttpServer(Settings(("127.0.0.1", first.port)))
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{first.port}: another program has this port"):
            await second.start()


# --- errors ---------------------------------------------------------------------------------------------------------


async def test_no_such_path() -> None:
    async with served() as http, http.get("/nothing") as response:
        await problem(response, 404)


async def test_no_such_method() -> None:
    async with served() as http, http.put("/count") as response:
        await problem(response, 405)
        assert response.headers["Allow"] == "POST"


async def test_a_handler_that_fails_tells_the_log_and_not_the_client(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "headwater"):
        async with served() as http, http.post("/broken") as response:
            body = await problem(response, 500)
    assert "1234" not in str(body)
    assert "1234" in caplog.text
    assert "POST /broken" in caplog.text


async def test_a_handler_s_problem_keeps_its_headers_and_members() -> None:
    async with served() as http, http.post("/refusing") as response:
        assert (await problem(response, 429))["waiting"] == 3
        assert response.headers["Retry-After"] == "7"


async def test_what_is_not_http_is_a_problem_too() -> None:
    async with serving() as server:
        head, body = head_and_body(await raw(server, b"GET\x00 / nothing\r\n\r\n"))
        assert head.startswith(b"HTTP/1.")
        assert b" 400 " in head.splitlines()[0]
        assert b"application/problem+json" in head
        assert body["status"] == 400


async def test_a_head_that_is_too_long() -> None:
    async with serving() as server:
        long = b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n"
        _, body = head_and_body(await raw(server, long))
        assert body["status"] in (400, 431)  # which of the two is up to aiohttp's parser


async def test_every_answer_has_the_headers_of_an_api() -> None:
    """And tells nothing of what it is made of."""
    async with served() as http:
        for path in ("/hello", "/nothing"):
            async with http.get(path) as response:
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["Cache-Control"] == "no-store"
                assert response.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
                assert "aiohttp" not in response.headers["Server"].lower()
        async with http.get("/page") as response:
            assert response.headers["Content-Security-Policy"] == "default-src 'self'"


# --- bodies ---------------------------------------------------------------------------------------------------------


async def chunks(*parts: bytes, pause: float = 0.02) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await asyncio.sleep(pause)


async def test_a_body_comes_whole_or_in_parts() -> None:
    async with served() as http:
        bodies: list[Any] = [b"x" * MAX_BODY, chunks(b"x" * 500, b"x" * 500), b""]
        for body, size in zip(bodies, (MAX_BODY, MAX_BODY, 0), strict=True):
            async with http.post("/count", data=body) as response:
                assert await response.json() == {"bytes": size}


@pytest.mark.parametrize(
    "body",
    [b"x" * (MAX_BODY + 1), [b"x" * MAX_BODY, b"x"], gzip.compress(b"x" * (MAX_BODY + 1)), gzip.compress(b"x" * 10**7)],
    ids=["announced", "in parts", "packed", "a bomb"],
)
async def test_a_body_beyond_the_limit(body: bytes | list[bytes]) -> None:
    headers = {"Content-Encoding": "gzip"} if body[0] == 0x1F else {}
    data: Any = chunks(*body) if isinstance(body, list) else body
    async with served() as http, http.post("/count", data=data, headers=headers) as response:
        await problem(response, 413)


async def test_a_body_without_end_is_refused_before_its_end() -> None:
    head = b"POST /count HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"%x\r\n" % MAX_BODY + b"x" * MAX_BODY + b"\r\n"
    async with serving(Limits(linger_s=0.05)) as server:
        assert head_and_body(await raw(server, head, piece, piece))[1]["status"] == 413


@pytest.mark.parametrize(
    ("encoding", "packed"), [("gzip", gzip.compress(b"x" * 900, mtime=0)), ("deflate", zlib.compress(b"x" * 900))]
)
async def test_a_packed_body(encoding: str, packed: bytes) -> None:
    async with served() as http, http.post("/count", data=packed, headers={"Content-Encoding": encoding}) as response:
        assert await response.json() == {"bytes": 900}


async def test_a_body_packed_in_an_unknown_way() -> None:
    async with served() as http, http.post("/count", data=b"x", headers={"Content-Encoding": "compress"}) as response:
        await problem(response, 415)
        assert response.headers["Accept-Encoding"] == "gzip, deflate"


async def test_a_body_that_is_not_what_it_says() -> None:
    async with served() as http, http.post("/count", data=b"plain", headers={"Content-Encoding": "gzip"}) as response:
        await problem(response, 400)


async def test_a_body_that_does_not_come() -> None:
    head = b"POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
    async with serving(Limits(linger_s=0.05)) as server:
        assert head_and_body(await raw(server, head, b"12345"))[1]["status"] == 408


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_a_client_that_goes_away_in_the_middle_is_no_news(end: str, caplog: pytest.LogCaptureFixture) -> None:
    """On a bad line each of them would else fill the log with a traceback."""
    async with serving() as server:
        for said in (b"12345", b""):
            async with connected(server) as (_, writer):
                writer.write(b"POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n" + said)
                await asyncio.sleep(0.05)
                getattr(writer.transport, end)()
        await asyncio.sleep(0.05)
    assert caplog.text == ""


# --- who may ask ----------------------------------------------------------------------------------------------------


async def test_with_a_token_every_request_needs_it() -> None:
    async with served(token=Secret("s3cret")) as http:
        wrong = ["", "Bearer", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret", "Bearer s\u00e9cret"]
        for value in wrong:
            for path in ("/hello", "/nothing"):
                async with http.get(path, headers={"Authorization": value} if value else {}) as response:
                    assert "s3cret" not in str(await problem(response, 401))
                    assert response.headers["WWW-Authenticate"].startswith("Bearer")
        for right in ("Bearer s3cret", "bearer  s3cret"):
            async with http.get("/hello", headers={"Authorization": right}) as response:
                assert response.status == 200


HERE = ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:8080", "192.168.1.5", "device.localhost"]
ELSEWHERE = ["evil.example", "127.0.0.1.evil.example:8080", "localhost.evil.example", "a:b:c", "localhost:80:80"]


@pytest.mark.parametrize(("host", "status"), [*((h, 200) for h in HERE), *((h, 403) for h in ELSEWHERE)])
async def test_on_loopback_a_name_that_only_points_here_is_refused(host: str, status: int) -> None:
    """DNS rebinding: a page's own name, that its DNS suddenly says is 127.0.0.1."""
    async with served() as http, http.get("/hello", headers={"Host": host}) as response:
        assert response.status == status
        if status != 200:
            await problem(response, status)


async def test_with_a_token_or_insecure_any_name_will_do() -> None:
    async with served(insecure=True) as http, http.get("/hello", headers={"Host": "device.lan"}) as response:
        assert response.status == 200
    headers = {"Host": "device.lan", "Authorization": "Bearer t", "Origin": "https://elsewhere.example"}
    async with served(token=Secret("t")) as http, http.post("/count", headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1", "Host": "localhost:1"}, 200),
    ],
)
async def test_a_page_of_another_site_may_not_send(headers: dict[str, str], status: int) -> None:
    """Browsers post plain text anywhere without asking first; they say where the page is from, though."""
    async with served() as http:
        async with http.post("/count", data=b"x", headers=headers) as response:
            assert response.status == status
        async with http.get("/hello", headers=headers) as response:  # reading is what the browser itself prevents
            assert response.status == 200


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def asking(_: web.Request) -> web.StreamResponse:
    return answer({})


described(Operation("Ask", reads=True))(asking)


async def test_a_token_that_may_only_read() -> None:
    """It may ask, also where a question is a POST; it may not send. The other token may do all."""
    async with (
        serving(token=Secret("all"), read_token=Secret("read")) as server,
        aiohttp.ClientSession(server.url) as http,
    ):
        for token, method, path, status in (
            ("read", "GET", "/hello", 200),
            ("read", "HEAD", "/hello", 200),
            ("read", "POST", "/count", 403),
            ("read", "DELETE", "/hello", 403),
            ("read", "POST", "/nothing", 403),
            ("all", "POST", "/count", 200),
            ("all", "GET", "/hello", 200),
            ("", "GET", "/hello", 401),
            ("rea", "GET", "/hello", 401),
            ("allread", "GET", "/hello", 401),
        ):
            async with http.request(method, path, headers=bearer(token)) as response:
                assert response.status == status, (token, method, path)


async def test_a_question_that_is_a_post() -> None:
    server = HttpServer(Settings(token=Secret("all"), read_token=Secret("read")))
    server.route("POST", "/ask", asking)
    await server.start()
    async with aiohttp.ClientSession(server.url) as http, http.post("/ask", headers=bearer("read")) as response:
        assert response.status == 200
    await server.close()


async def inside(_: web.Request) -> web.StreamResponse:
    return answer({"stack": []})


described(Operation("Look inside", inside=True))(inside)


@pytest.mark.parametrize(
    ("settings", "token", "status"),
    [
        ({"token": Secret("all"), "read_token": Secret("read")}, "all", 200),
        ({"token": Secret("all"), "read_token": Secret("read")}, "read", 403),
        ({"token": Secret("all")}, "", 401),
        ({}, "", 200),
        ({"listen": ("0.0.0.0", 0), "insecure": True}, "", 200),  # asked from this machine
    ],
)
async def test_what_tells_of_the_inside_is_not_for_everybody(settings: dict[str, Any], token: str, status: int) -> None:
    server = HttpServer(Settings(**settings))
    server.route("GET", "/inside", inside)
    await server.start()
    url = f"http://127.0.0.1:{server.port}"
    async with aiohttp.ClientSession(url) as http, http.get("/inside", headers=bearer(token)) as response:
        assert response.status == status
    await server.close()


@pytest.mark.parametrize(
    ("remote", "may"), [("127.0.0.1", True), ("::1", True), ("192.0.2.7", False), ("2001:db8::1", False), (None, False)]
)
def test_without_a_token_the_inside_is_for_this_machine(remote: str | None, may: bool) -> None:
    """A request from another machine is made up here: a test has one machine."""
    guard = Guard(Settings(insecure=True), "0.0.0.0")
    for handler in (inside, hello):
        request = make_mocked_request("GET", "/inside", {"Host": "device"}).clone(remote=remote or "")
        request._match_info = UrlMappingMatchInfo({}, ResourceRoute("GET", handler, PlainResource("/inside")))
        with nullcontext() if may or handler is hello else pytest.raises(HttpProblem, match="only this machine"):
            assert guard.admit(request) is None


@pytest.mark.parametrize(("site", "status"), [("https://evil.example", 403), (None, 200)])
async def test_a_page_of_another_site_may_not_listen(site: str | None, status: int) -> None:
    """A browser lets any page open a WebSocket to anywhere, and read what comes."""
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"} | ({"Origin": site} if site else {})
    async with served() as http, http.get("/hello", headers=headers) as response:
        assert response.status == status


GRAFANA = "https://grafana.example"
MAY = "Access-Control-Allow-Origin"


async def test_no_page_of_another_site_may_read_unless_it_is_named() -> None:
    async with served() as http, http.get("/hello", headers={"Origin": GRAFANA}) as response:
        assert MAY not in response.headers
    async with served(cors=(GRAFANA,)) as http:
        for origin in ("https://evil.example", GRAFANA + ".evil.example", "null", "http://grafana.example"):
            async with http.get("/hello", headers={"Origin": origin}) as response:
                assert MAY not in response.headers
                assert response.headers["Vary"] == "Origin"
            async with http.post("/count", headers={"Origin": origin}) as response:
                assert response.status == 403
        async with http.post("/count", headers={"Origin": GRAFANA, "Sec-Fetch-Site": "cross-site"}) as response:
            assert (response.status, response.headers[MAY]) == (200, GRAFANA)
        async with http.get("/nothing", headers={"Origin": GRAFANA}) as response:
            assert (response.status, response.headers[MAY]) == (404, GRAFANA)


async def test_a_browser_asks_first_without_a_token() -> None:
    """And is told what it may send; what it then sends needs the token."""
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    async with served(token=Secret("t"), cors=(GRAFANA,)) as http:
        async with http.options("/count", headers={"Origin": GRAFANA, **asks}) as response:
            assert (response.status, response.headers[MAY]) == (204, GRAFANA)
            assert "POST" in response.headers["Access-Control-Allow-Methods"]
            assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
            assert "Access-Control-Allow-Credentials" not in response.headers
        async with http.options("/count", headers={"Origin": "https://evil.example", **asks}) as response:
            assert response.status == 401
        async with http.post("/count", headers={"Origin": GRAFANA}) as response:
            assert response.status == 401


async def test_an_address_that_asks_too_often() -> None:
    """Wrong tokens count, too: nobody can guess faster."""
    async with served(max_rate=0.001, token=Secret("t")) as http:
        for i in range(12):
            async with http.get("/hello", headers=bearer("t" if i % 2 else "x")) as response:
                assert response.status == (429 if i >= 10 else 200 if i % 2 else 401)
                if i >= 10:
                    assert int(response.headers["Retry-After"]) > 1


def test_a_rate_holds_for_each_address_and_for_ever() -> None:
    """After the burst, one more each time that one is due; what was turned away does not count."""
    now = [0.0]
    rates = Rates(2, lambda: now[0])
    assert [rates.wait("a") == 0 for _ in range(12)] == [True] * 10 + [False] * 2
    assert rates.wait("a") == pytest.approx(0.5)
    assert rates.wait("b") == 0
    now[0] = 0.5
    assert [rates.wait("a") == 0 for _ in range(2)] == [True, False]
    now[0] = 1000
    assert [rates.wait("a") == 0 for _ in range(11)] == [True] * 10 + [False]


def test_a_fast_rate_lets_a_second_s_worth_come_at_once() -> None:
    rates = Rates(1000, lambda: 0)
    assert sum(rates.wait("a") == 0 for _ in range(3000)) == 1000


def test_the_table_of_addresses_is_bounded() -> None:
    rates = Rates(1, lambda: 0, addresses=100)
    for i in range(1000):
        rates.wait(f"10.0.{i % 250}.{i // 250}")
        rates.wait("always")
    assert len(rates.until) == 100
    assert "always" in rates.until


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        ("192.168.1.5", "192.168.1.5"),
        ("::ffff:192.168.1.5", "192.168.1.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_of_ipv6_a_network_counts_as_one(address: str, whose: str) -> None:
    assert network(address) == whose


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return made_certificate(tmp_path_factory.mktemp("tls"))


def made_certificate(folder: Path) -> Tls:
    files = Tls(folder / "certificate.pem", folder / "key.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    out = ["-keyout", str(files.key), "-out", str(files.certificate)]
    subprocess.run([*command, *names, *out], check=True, capture_output=True)
    return files


async def test_over_tls(tls: Tls) -> None:
    trust = ssl.create_default_context(cafile=tls.certificate)
    async with served(tls=tls) as http, http.get("/hello", ssl=trust) as response:
        assert str(response.url).startswith("https://")
        assert await response.json() == {"hello": "world"}


async def test_a_certificate_that_was_renewed_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From the next connection on; while the files are being exchanged, or are gone, the one in use stays."""
    (tmp_path / "new").mkdir()
    used, new = made_certificate(tmp_path), made_certificate(tmp_path / "new")
    first, second = used.certificate.read_text(), new.certificate.read_text()

    async def shown(server: HttpServer) -> str:
        return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", server.port))

    async with serving(tls=used) as server:
        assert await shown(server) == first
        used.certificate.write_text(second)
        server.renew()
        assert await shown(server) == first
        assert caplog.text.count("the certificate in use is kept") == 1
        server.renew()  # nothing changed: nothing is said again
        assert caplog.text.count("the certificate in use is kept") == 1
        new.key.replace(used.key)
        server.renew()
        assert await shown(server) == second
        used.key.unlink()
        server.renew()
        assert await shown(server) == second


async def test_the_files_of_a_certificate_are_watched(tls: Tls, tmp_path: Path) -> None:
    used = made_certificate(tmp_path)
    async with serving(LIMITS._replace(unread_s=0.01), tls=used) as server:
        for new, path in zip(tls, used, strict=True):
            path.write_bytes(new.read_bytes())
        address = ("127.0.0.1", server.port)
        while await asyncio.to_thread(ssl.get_server_certificate, address) != tls.certificate.read_text():
            await asyncio.sleep(0.01)


async def test_a_key_that_does_not_fit(tls: Tls) -> None:
    server = HttpServer(Settings(tls=Tls(tls.certificate, tls.certificate)))
    with pytest.raises(OSError, match=r"\[server\] tls: .*certificate.pem"):
        await server.start()


# --- connections ----------------------------------------------------------------------------------------------------


async def is_answered(server: HttpServer) -> bool:
    """Somebody who comes now is; a connection that was closed is noticed a little later."""
    async with aiohttp.ClientSession() as http, http.get(server.url + "/hello") as response:
        return response.status == 200


async def test_a_connection_too_many_is_turned_away() -> None:
    """And there is room again when another one has gone."""
    async with serving(Limits(connections=2)) as server, connected(server):
        async with connected(server):
            await asyncio.sleep(0.02)
            assert (await raw(server)).startswith(b"HTTP/1.1 503 ")
        await eventually(lambda: is_answered(server))


@pytest.mark.parametrize("said", [b"", b"GET /hello HTTP/1.1\r\nHost: local"])
async def test_a_connection_that_says_nothing_is_closed(said: bytes) -> None:
    """Nor may it say little, for ever."""
    async with serving(Limits(silent_s=0.05)) as server:
        assert await raw(server, said) == b""


async def test_a_used_connection_is_kept_for_the_next_request() -> None:
    async with serving(Limits(silent_s=1)) as server, connected(server) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await reader.readuntil(b"}") != b""
            await asyncio.sleep(1.1)


@pytest.mark.parametrize("path", ["/large", "/streamed"])
async def test_an_answer_that_nobody_reads_is_given_up(path: str) -> None:
    """It would stay in memory, and hold a connection, for ever."""
    async with serving(Limits(connections=1, unread_s=0.1)) as server, connected(server) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        await eventually(lambda: is_answered(server))  # the only connection is free again


@pytest.mark.parametrize("path", ["/large", "/streamed"])
async def test_who_reads_slowly_gets_all_of_the_answer(path: str) -> None:
    async with serving(Limits(unread_s=2)) as server, connected(server) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        got = 0
        while part := await reader.read(2_000_000):
            got += part.count(b"x")
            await asyncio.sleep(0.01)
        assert got >= len(LARGE)


async def test_close_lets_a_request_under_way_end() -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.StreamResponse:
        started.set()
        await go_on.wait()
        return answer("done")

    server = HttpServer(Settings())
    server.route("GET", "/slow", slow)
    await server.start()
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.get(server.url + "/slow"))
        await started.wait()
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0.02)
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.get(server.url + "/slow")
        go_on.set()
        assert await (await asking).json() == "done"
        await closing


async def test_close_does_not_wait_for_ever() -> None:
    """Not for a request that does not end, nor for a connection that is merely open."""
    server = HttpServer(Settings(), Limits(grace_s=0.05))

    async def stuck(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    server.route("GET", "/stuck", stuck)
    await server.start()
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.get(server.url + "/stuck"))
        async with connected(server), asyncio.timeout(20):
            await asyncio.sleep(0.05)
            await server.close()
        with pytest.raises(aiohttp.ClientError):
            await asking
