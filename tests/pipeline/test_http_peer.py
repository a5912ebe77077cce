"""Who asks over HTTP: tokens that are renewed, certificates, signatures; and that none of it is ever told."""

from __future__ import annotations

import hashlib
import hmac
import ssl
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pipeline.component import Context, Outcome
from pipeline.frame import KeyTable
from pipeline.http_auth import NoToken, OAuth, OAuthSettings, SignSettings, basic, signature
from pipeline.http_peer import HttpDeliveringSettings, HttpPeer, check_url, outcome
from pipeline.quantity import Secret, duration
from pipeline.tls import TlsSettings

OAUTH: dict[str, Any] = {"client_id": "device 7", "client_secret": Secret("top:secret")}


class World:
    """A server that takes rows, and one that gives tokens, at one address."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.answers: list[web.Response] = []  # then 200
        self.valid: str | None = None  # the token that is taken; None: any
        self.forms: list[dict[str, Any]] = []
        self.asked_as: list[str | None] = []
        self.grants: list[web.Response] = []  # then a token

    async def take(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        self.bodies.append(await request.read())
        if self.valid is not None and request.headers.get("Authorization") != f"Bearer {self.valid}":
            return web.Response(status=401, text="who are you? " + request.headers.get("Authorization", ""))
        return self.answers.pop(0) if self.answers else web.Response()

    async def grant(self, request: web.Request) -> web.Response:
        self.forms.append(dict(await request.post()))
        self.asked_as.append(request.headers.get("Authorization"))
        if self.grants:
            return self.grants.pop(0)
        return web.json_response({"access_token": f"t{len(self.forms)}", "expires_in": 3600})


@asynccontextmanager
async def serving(world: World, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/rows", world.take)
    app.router.add_post("/token", world.grant)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "localhost", 0, ssl_context=tls).start()
    try:
        yield f"{'https' if tls else 'http'}://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def peer(folder: Path = Path(), **settings: Any) -> HttpPeer:
    context = Context("cloud", KeyTable(), folder=folder)
    made = HttpPeer(HttpDeliveringSettings(**settings), context)
    assert context.problems == []
    return made


async def sent(made: HttpPeer, url: str, key: str = "k1") -> Outcome:
    try:
        return await made.deliver("POST", f"{url}/rows", b"body", {}, f"{url}/rows", key)
    finally:
        await made.close()


# --- OAuth2 ---


async def test_a_token_is_asked_for_once_and_used() -> None:
    """The secret goes to the provider alone, as RFC 6749 writes it, and no header of ours with it."""
    world = World()
    async with serving(world) as url:
        oauth = OAuthSettings(token_url=f"{url}/token", scope="write", **OAUTH)
        made = peer(oauth=oauth, headers={"X-Api-Key": Secret("mine")})
        for _ in range(3):
            assert (await sent(made, url)).delivered
    assert world.forms == [{"grant_type": "client_credentials", "scope": "write"}]
    assert world.asked_as == ["Basic " + b64encode(b"device%207:top%3Asecret").decode()]
    assert [r.headers["Authorization"] for r in world.requests] == ["Bearer t1"] * 3
    assert {r.headers["X-Api-Key"] for r in world.requests} == {"mine"}


async def test_the_secret_may_go_in_the_body() -> None:
    world = World()
    async with serving(world) as url:
        oauth = OAuthSettings(token_url=f"{url}/token", send="body", audience="api", **OAUTH)
        assert (await sent(peer(oauth=oauth), url)).delivered
    assert world.asked_as == [None]
    assert world.forms[0] == {
        "grant_type": "client_credentials",
        "audience": "api",
        "client_id": "device 7",
        "client_secret": "top:secret",
    }


async def test_a_token_that_is_turned_down_is_renewed_once() -> None:
    """In the same try. If the new one is not taken either, the rows are kept: no row is to blame."""
    world = World()
    world.valid = "t2"
    async with serving(world) as url:
        made = peer(oauth=OAuthSettings(token_url=f"{url}/token", **OAUTH))
        assert (await sent(made, url)).delivered
        world.valid = "another"
        failed = await sent(made, url)
    assert len(world.forms) == 3
    assert (failed.delivered, failed.refused) == (False, False)
    assert failed.reason.startswith("HTTP 401: who are you?")


async def test_what_the_provider_says_is_told_without_the_secret() -> None:
    """Rows wait: a provider that is away, refuses, or talks nonsense costs none."""
    world = World()
    echo = '{"error": "invalid_client", "error_description": "top:secret is wrong"}'
    world.grants = [web.Response(status=401, text=echo), web.Response(status=500, text="top:secret"), web.Response()]
    async with serving(world) as url:
        made = peer(oauth=OAuthSettings(token_url=f"{url}/token?tenant=top:secret", **OAUTH))
        told = [await sent(made, url) for _ in range(3)]
    assert [o.reason.removeprefix(f"{url}/token gave no token: ") for o in told] == [
        "HTTP 401: invalid_client",
        "HTTP 500",
        "its answer is not understood",
    ]
    assert not any(o.refused or o.delivered for o in told)
    assert world.requests == []
    gone = await sent(peer(oauth=OAuthSettings(token_url="http://127.0.0.1:1/token", **OAUTH)), url)
    assert gone.reason.startswith("http://127.0.0.1:1/token gave no token: ")


@pytest.mark.parametrize(("lasts", "until"), [(3600, 3539), ("600", 539), (60, 53), (None, 269)])
async def test_a_token_is_renewed_before_its_end(lasts: Any, until: int) -> None:
    now, asked = 0.0, 0

    async def post(url: str, form: dict[str, str], headers: dict[str, str]) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        life = (
            ""
            if lasts is None
            else f', "expires_in": "{lasts}"'
            if isinstance(lasts, str)
            else f', "expires_in": {lasts}'
        )
        return 200, f'{{"access_token": "t{asked}"{life}}}'.encode()

    oauth = OAuth(OAuthSettings(token_url="http://x/token", **OAUTH), post, lambda: now)
    assert await oauth.token() == "t1"
    now = until
    assert await oauth.token() == "t1"
    now = until + 2
    assert await oauth.token() == "t2"


async def test_a_token_that_would_break_the_header_is_none() -> None:
    async def post(url: str, form: dict[str, str], headers: dict[str, str]) -> tuple[int, bytes]:
        return 200, b'{"access_token": "a\\r\\nX-Admin: yes"}'

    with pytest.raises(NoToken):
        await OAuth(OAuthSettings(token_url="http://x/token", **OAUTH), post).token()


# --- signatures ---


async def test_a_receiver_can_check_the_signature() -> None:
    """From what it was sent, by the three lines that the manual tells it."""
    world = World()
    async with serving(world) as url:
        assert (await sent(peer(sign=SignSettings(key="d7", secret=Secret("shared"))), url, "batch-1")).delivered
    headers = world.requests[0].headers
    signed = f"{headers['Headwater-Timestamp']}.{headers['Idempotency-Key']}.".encode() + world.bodies[0]
    expected = "v1=" + hmac.new(b"shared", signed, hashlib.sha256).hexdigest()
    assert (headers["Headwater-Signature"], headers["Headwater-Key"]) == (expected, "d7")


def test_each_part_is_signed() -> None:
    sign = SignSettings(key="d7", secret=Secret("shared"))
    made = [("k", b"b", 1), ("l", b"b", 1), ("k", b"c", 1), ("k", b"b", 2)]
    assert len({signature(sign, *one)["Headwater-Signature"] for one in made}) == len(made)


async def test_what_the_user_says_of_a_header_holds() -> None:
    """Also of one that the sink has a word for."""
    world = World()
    async with serving(world) as url:
        made = peer(headers={"content-type": Secret("application/vnd.x+json")})
        outcome = await made.deliver(
            "POST", f"{url}/rows", b"{}", {"Content-Type": "application/json", "X-A": "b"}, url
        )
        await made.close()
    assert outcome.delivered
    assert world.requests[0].headers.getall("Content-Type") == ["application/vnd.x+json"]
    assert world.requests[0].headers["X-A"] == "b"


# --- TLS ---


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key, made = folder / f"{name}.key", folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-days", "1", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, *names, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True)
    return made, key


async def test_both_sides_show_a_certificate(tmp_path: Path) -> None:
    """`ca` says whom to trust, `certificate` who we are; without either the rows wait, and the cause is told."""
    theirs, ours = certificate(tmp_path, "server"), certificate(tmp_path, "device")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ours[0])
    tls.load_cert_chain(*theirs)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.maximum_version = ssl.TLSVersion.TLSv1_2  # a missing certificate is told at once, not at the first read
    show: dict[str, Any] = {"certificate": Path("device.pem"), "key": Path("device.key")}
    world = World()
    async with serving(world, tls) as url:
        assert (await sent(peer(tmp_path, tls=TlsSettings(ca=Path("server.pem"), **show)), url)).delivered
        unknown = await sent(peer(tmp_path, tls=TlsSettings(**show)), url)
        unnamed = await sent(peer(tmp_path, tls=TlsSettings(ca=Path("server.pem"))), url)
        gone = await sent(peer(tmp_path, tls=TlsSettings(ca=Path("gone.pem"))), url)
    assert len(world.requests) == 1
    assert "certificate verify failed" in unknown.reason
    assert unnamed == Outcome(reason=unnamed.reason)
    assert "gone.pem: No such file" in gone.reason


# --- what is told ---


async def test_no_secret_is_told(tmp_path: Path) -> None:
    """Also where the peer repeats in its error what it was sent."""
    world = World()
    world.valid = "another"
    async with serving(world) as url:
        told = await sent(peer(token=Secret("hidden-token")), url)
    assert told.reason == "HTTP 401: who are you? Bearer ***"


def test_basic_is_as_rfc_7617_writes_it() -> None:
    assert basic("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


@pytest.mark.parametrize(
    ("status", "delivered", "refused"),
    [
        (200, True, False),
        (204, True, False),
        (302, False, False),
        *((again, False, False) for again in (401, 403, 407, 408, 425, 429, 500, 503)),
        *((never, False, True) for never in (400, 404, 409, 413, 422)),
    ],
)
def test_what_an_answer_means(status: int, delivered: bool, refused: bool) -> None:
    """Only what the rows themselves are to blame for is a refusal."""
    made = outcome(status, None, "")
    assert (made.delivered, made.refused) == (delivered, refused)


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://[::1", "http://x:port/", "example.org"])
def test_an_address_that_is_none_is_a_problem(url: str) -> None:
    context = Context("cloud", KeyTable())
    check_url(url, context)
    assert [setting for setting, _ in context.problems] == ["url"]


def test_an_address_is_shown_without_what_may_be_secret() -> None:
    context = Context("cloud", KeyTable())
    assert check_url("https://me:secret@x.org:8/a?token=secret#secret", context) == "https://x.org:8/a"


def test_wrong_settings_are_problems() -> None:
    context = Context("cloud", KeyTable())
    settings = HttpDeliveringSettings(
        token=Secret("two\nlines"),
        oauth=OAuthSettings(token_url="x", **OAUTH),
        headers={"X-Key": Secret("a\r\nb")},
        tls=TlsSettings(key=Path("k")),
        timeout=duration("1 s"),
    )
    HttpPeer(settings, context)
    assert sorted(setting for setting, _ in context.problems) == [
        "headers.X-Key",
        "oauth.token_url",
        "tls.key",
        "token",
        "token",
    ]
    assert "two" not in str(context.problems)
