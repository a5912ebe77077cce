"""The one HTTP server of a pipeline, that sources and sinks mount their routes on.

    connection  at most so many are open, the next is answered 503; who says nothing, or does not read, is cut off
    request     token, or Host and origin, are looked at before the route's handler is
    answer      errors are `application/problem+json`, and tell nothing of the inside

Without a token, what protects the pipeline is that it listens on this machine alone. A browser on it would be a way in for
any page of the web, so a name that merely points here is refused (DNS rebinding), and so is what another site's page sends.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from aiohttp import hdrs, http_exceptions, web
from multidict import istr

from pipeline.web import HttpProblem

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.quantity import Secret

log = logging.getLogger("headwater")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Limits(NamedTuple):
    """What the server holds clients to."""

    connections: int = 500  # open at once; a process may hold 1,024 files, and the history needs some
    silent_s: float = 10.0  # a new connection must have sent the head of its first request by then
    keep_alive_s: float = 75.0  # and one that has been used the next: sensors that send once a minute keep theirs
    linger_s: float = 5.0  # a body that was refused is read on for so long, or its sender would never see the answer
    unread_s: float = 30.0  # an answer of which nothing was taken for so long (at most twice that) is given up
    handshake_s: float = 10.0
    grace_s: float = 2.0  # for requests under way when the server stops


LIMITS = Limits()

# A header looked up by an istr costs half of one by a str: all that each request needs is named here.
_SEC_FETCH_SITE = istr("Sec-Fetch-Site")
_HEADERS = {
    hdrs.CACHE_CONTROL: "no-store",
    istr("Content-Security-Policy"): "default-src 'none'; frame-ancestors 'none'",
    istr("X-Content-Type-Options"): "nosniff",
}
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_HOSTS = 100  # different Host headers that were found right and are remembered
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d*)?")
_DETAILS = {404: "there is nothing here", 405: "this path does not take that method"}
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Files(Protocol):
    """Of [server] tls."""

    @property
    def certificate(self) -> Path: ...
    @property
    def key(self) -> Path: ...


class Listening(Protocol):
    """What is needed of [server]."""

    @property
    def token(self) -> Secret | None: ...
    @property
    def tls(self) -> Files | None: ...
    @property
    def insecure(self) -> bool: ...
    def address(self) -> tuple[str, int]: ...


class HttpServer:
    """Routes are mounted, then it starts."""

    def __init__(self, settings: Listening, limits: Limits = LIMITS) -> None:
        self.settings = settings
        self.limits = limits
        self.host, self.port = settings.address()
        self._routes: dict[tuple[str, str], Handler] = {}
        self._token = settings.token.reveal().encode() if settings.token else None
        self._local = self._token is None and not settings.insecure and _is_loopback(self.host)
        self._hosts: set[str] = set()
        self._public: set[Handler] = set()  # handlers that need no token
        self._on_close: list[Callable[[], None]] = []
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._watching: asyncio.Task[None] | None = None

    def route(self, method: str, path: str, handler: Handler, *, public: bool = False) -> bool:
        """Mount a handler; False: another one has that method and path already. Only before `start`. `public`: it tells
        nothing of this pipeline, and needs no token."""
        if self._runner is not None:
            raise RuntimeError("the server has started; its routes are fixed")
        if (method, path) in self._routes:
            return False
        self._routes[method, path] = handler
        if public:
            self._public.add(handler)
        return True

    def on_close(self, end: Callable[[], None]) -> None:
        """Call `end` when the server closes: answers that have no end of their own come to it."""
        self._on_close.append(end)

    @property
    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return self._routes

    @property
    def guarded(self) -> bool:
        """Is a token needed?"""
        return self._token is not None

    @property
    def url(self) -> str:
        scheme = "https" if self.settings.tls else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host or "0.0.0.0"
        return f"{scheme}://{host}:{self.port}"

    # --- from start to close ---

    async def start(self) -> None:
        """OSError if the address cannot be had, or the certificate cannot be used."""
        tls = self._tls() if self.settings.tls else None
        app = web.Application(middlewares=[self._guard])
        app.on_response_prepare.append(_add_headers)
        for (method, path), handler in self._routes.items():
            if method == "GET":
                app.router.add_get(path, handler)  # answers HEAD, too
            else:
                app.router.add_route(method, path, handler)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=self.limits.grace_s)
        await self._runner.setup()
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._connect,
                self.host or None,
                self.port,
                ssl=tls,
                ssl_handshake_timeout=self.limits.handshake_s if tls else None,
                backlog=self.limits.connections,
            )
        except OSError as error:
            await self.close()
            raise OSError(f"cannot listen on {self.host}:{self.port}: {error.strerror or error}") from error
        self.port = self._listener.sockets[0].getsockname()[1]
        self._watching = asyncio.create_task(self._watch(), name="connections")

    def _tls(self) -> ssl.SSLContext:
        files = self.settings.tls
        assert files is not None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(files.certificate, files.key)
        except OSError as error:  # SSLError is one
            said = error.strerror or str(error)
            raise OSError(f"[server] tls: {files.certificate} and {files.key}: {said}") from error
        return context

    async def close(self) -> None:
        """Take no more requests; those under way get a moment, then every connection is closed."""
        if self._listener is not None:
            self._listener.close()
        if self._watching is not None:
            self._watching.cancel()
        for end in self._on_close:
            end()
        if self._runner is not None:
            await self._runner.cleanup()

    def _connect(self) -> asyncio.Protocol:
        assert self._runner is not None
        server = self._runner.server
        if server is None or len(server.connections) >= self.limits.connections:
            return _TurnedAway()
        return _Connection(
            self.limits.silent_s,
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=self.limits.keep_alive_s,
            lingering_time=self.limits.linger_s,
        )

    async def _watch(self) -> None:
        """One look at all of them now and then costs less than a timer for each answer."""
        while self._runner is not None and (server := self._runner.server) is not None:
            await asyncio.sleep(self.limits.unread_s)
            for connection in server.connections:
                if isinstance(connection, _Connection):
                    connection.close_if_unread()

    # --- every request ---

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._admit(request)
            return await handler(request)
        except HttpProblem as error:
            return error.response()
        except web.HTTPException as error:
            return _as_problem(error)
        except ConnectionError:
            raise  # the client is gone
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return HttpProblem(500, "an error in the server; its log has the details").response()

    def _admit(self, request: web.Request) -> None:
        """HttpProblem for a wrong token; where none is needed, for what a page elsewhere made a browser send."""
        headers = request.headers
        if self._token is not None:
            if self._public and request.match_info.handler in self._public:
                return
            scheme, _, given = headers.get(hdrs.AUTHORIZATION, "").partition(" ")
            right = hmac.compare_digest(given.strip().encode(errors="surrogateescape"), self._token)
            if not right or scheme.lower() != "bearer":
                raise HttpProblem(401, "a bearer token is needed", {"WWW-Authenticate": 'Bearer realm="headwater"'})
            return
        host = headers.get(hdrs.HOST, "")
        if self._local and host not in self._hosts:
            if not _is_here(host):
                raise HttpProblem(403, "this server answers to localhost and to addresses, not to other names")
            if len(self._hosts) < _HOSTS:
                self._hosts.add(host)
        # A browser lets any page open a WebSocket to anywhere, and read it.
        changes = request.method not in _SAFE_METHODS or hdrs.UPGRADE in headers
        if changes and _from_elsewhere(headers, host):
            raise HttpProblem(403, "a page of another site may not send here")


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    headers = response.headers
    headers[hdrs.SERVER] = "headwater"
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)  # a page of ours may allow itself more


def _as_problem(error: web.HTTPException) -> web.StreamResponse:
    if error.status < 400:
        raise error
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    return HttpProblem(error.status, _DETAILS.get(error.status, error.text or error.reason), headers).response()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_here(host: str) -> bool:
    """No name that somebody's DNS can point to this machine: localhost, an address, or none (not a browser)."""
    match = _HOST.fullmatch(host)
    name = match[1].lower() if match else host
    if name in ("", "localhost", "127.0.0.1") or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _from_elsewhere(headers: Mapping[str, str], host: str) -> bool:
    """A browser says that a page of another origin made it send this; other clients say neither."""
    site = headers.get(_SEC_FETCH_SITE)
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get(hdrs.ORIGIN)
    return origin is not None and urlsplit(origin).netloc != host


# --- connections ----------------------------------------------------------------------------------------------------


class _Connection(web.RequestHandler):
    """aiohttp's own, with a limit to silence and to answers that nobody reads, which would stay in memory for ever; and what
    is no HTTP is told so as a problem, too."""

    __slots__ = ("_silence", "_silent_s", "_socket", "_unsent")

    def __init__(self, silent_s: float, server: web.Server, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._silent_s = silent_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._socket: Any = transport  # aiohttp forgets its own when it closes it, and what is unsent keeps it open
        self._unsent = 0  # bytes, at the last look
        self._silence = asyncio.get_running_loop().call_later(self._silent_s, self._close_if_silent)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._silence.cancel()
        super().connection_lost(exc)

    def _close_if_silent(self) -> None:
        if self._request_count == 0:
            self.force_close()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unsent = 0  # enough was taken to go on with a long answer

    def close_if_unread(self) -> None:
        unsent = self._socket.get_write_buffer_size()
        if 0 < self._unsent <= unsent:
            self._socket.abort()  # close() would wait for the client
        self._unsent = unsent

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, http_exceptions.LineTooLong):
            problem = HttpProblem(431, "the head of the request is too long")
        elif status < 500:
            problem = HttpProblem(status, f"not HTTP: {(message or 'bad request').splitlines()[0]}")
        elif isinstance(exc, ConnectionError):
            problem = HttpProblem(400, "the client is gone")  # nobody reads this; nor is it news for the log
        else:
            log.error("a request failed", exc_info=exc)
            problem = HttpProblem(status, "an error in the server; its log has the details")
        response = problem.response()
        for name, value in _HEADERS.items():
            response.headers[name] = value
        response.headers["Server"] = "headwater"
        response.force_close()
        return response


class _TurnedAway(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: Any) -> None:
        transport.write(_BUSY)
        transport.close()
