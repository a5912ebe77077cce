"""The one HTTP server of a pipeline, that sources and sinks mount their routes on.

    connection  at most so many are open, the next is answered 503; who says nothing, or does not read, is cut off;
                each begins at `pipeline/front.py`, where small bodies for sources are taken
    request     rate, token, or Host and origin are looked at before the route's handler is (`pipeline/guard.py`)
    answer      errors are `application/problem+json`, and tell nothing of the inside

A certificate that was renewed is used from the next connection on; no restart is needed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from aiohttp import hdrs, http_exceptions, web
from multidict import istr

from pipeline.front import Connection, Front, Quick
from pipeline.guard import Guard, Guarded
from pipeline.identity import HEADER, is_meant, refusal
from pipeline.web import HttpProblem

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.component import TakesBody
    from pipeline.config import Config

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

_HEADERS = {
    hdrs.CACHE_CONTROL: "no-store",
    istr("Content-Security-Policy"): "default-src 'none'; frame-ancestors 'none'",
    istr("X-Content-Type-Options"): "nosniff",
}
_DETAILS = {404: "there is nothing here", 405: "this path does not take that method"}
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Files(Protocol):
    """Of [server] tls."""

    @property
    def certificate(self) -> Path: ...
    @property
    def key(self) -> Path: ...


class Listening(Guarded, Protocol):
    """What is needed of [server]."""

    @property
    def tls(self) -> Files | None: ...
    def address(self) -> tuple[str, int]: ...


class HttpServer:
    """Routes are mounted, then it starts."""

    def __init__(self, settings: Listening, limits: Limits = LIMITS) -> None:
        self.settings = settings
        self.limits = limits
        self.pipeline: Config | None = None  # whose it is: a command that means another one is told so
        self.host, self.port = settings.address()
        self._routes: dict[tuple[str, str], Handler] = {}
        self._guard = Guard(settings, self.host)
        headers = {str(name): said for name, said in _HEADERS.items()} | {"Server": "headwater"}
        self._front = Front(
            self._guard,
            self._aiohttps,
            headers | ({"Vary": "Origin"} if self._guard.shares else {}),
            silent_s=limits.silent_s,
            keep_alive_s=limits.keep_alive_s,
        )
        self._tls: ssl.SSLContext | None = None
        self._used: object = None  # which certificate, by its files' times
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
            self._guard.public.add(handler)
        return True

    def quick(
        self, path: str, takes: Callable[[str], TakesBody | None], answer: bytes, *, status: int, max_body: int
    ) -> None:
        """Of a path that has a route for POST."""
        self._front.add(path, Quick(self._routes["POST", path], takes, status, answer, max_body))

    def on_close(self, end: Callable[[], None]) -> None:
        """Call `end` when the server closes: answers that have no end of their own come to it."""
        self._on_close.append(end)

    @property
    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return self._routes

    @property
    def guarded(self) -> bool:
        """Is a token needed?"""
        return self._guard.needs_token

    @property
    def public(self) -> Collection[Handler]:
        """Handlers that need none all the same."""
        return self._guard.public

    @property
    def url(self) -> str:
        scheme = "https" if self.settings.tls else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host or "0.0.0.0"
        return f"{scheme}://{host}:{self.port}"

    # --- from start to close ---

    async def take_address(self) -> None:
        """So that what can fail has: until `start` nobody can connect. OSError if the address cannot be had, or the
        certificate cannot be used."""
        if self.settings.tls:
            self._tls = _trusted(self.settings.tls)
            self._used = _changed(self.settings.tls)
        app = web.Application(middlewares=[self._answer])
        app.on_response_prepare.append(self._add_headers)
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
                ssl=self._tls,
                ssl_handshake_timeout=self.limits.handshake_s if self._tls else None,
                backlog=self.limits.connections,
                start_serving=False,
            )
        except OSError as error:
            await self.close()
            raise OSError(f"cannot listen on {self.host}:{self.port}: {_why(error)}") from error
        self.port = self._listener.sockets[0].getsockname()[1]

    async def start(self) -> None:
        """Answer; OSError as above, where the address was not taken before."""
        if self._listener is None:
            await self.take_address()
        assert self._listener is not None
        await self._listener.start_serving()
        self._watching = asyncio.create_task(self._watch(), name="connections")

    def renew(self) -> None:
        """Use the certificate as it is now; one that does not fit its key, as while the files are being exchanged, is
        looked at again when they change."""
        files = self.settings.tls
        if files is None or self._tls is None or (now := _changed(files)) == self._used:
            return
        self._used = now
        try:
            _trusted(files)  # tried apart, or half of it would already be in use
            self._tls.load_cert_chain(files.certificate, files.key)
        except OSError as error:
            log.error("the certificate in use is kept: %s", error)

    async def close(self) -> None:
        """Take no more requests; those under way get a moment, then every connection is closed."""
        if self._listener is not None:
            self._listener.close()
        if self._watching is not None:
            self._watching.cancel()
        for end in self._on_close:
            end()
        if self._runner is not None:
            await asyncio.gather(self._front.close(self.limits.grace_s), self._runner.cleanup())

    def _connect(self) -> asyncio.BaseProtocol:
        assert self._runner is not None
        server = self._runner.server
        if server is None or len(server.connections) + len(self._front.connections) >= self.limits.connections:
            return _TurnedAway()
        return Connection(self._front) if self._front else self._aiohttps(self.limits.silent_s)

    def _aiohttps(self, silent_s: float) -> asyncio.Protocol:
        """Its end of a connection."""
        assert self._runner is not None
        server = self._runner.server
        if server is None:  # it has closed meanwhile
            return _TurnedAway()
        return _Connection(
            silent_s,
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
            self.renew()
            for connection in (*server.connections, *self._front.connections):
                if isinstance(connection, _Connection | Connection):
                    connection.close_if_unread()

    # --- every request ---

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if (refused := self._guard.admit(request)) is not None:
                return refused
            if (
                self.pipeline is not None
                and HEADER in request.headers
                and not is_meant(request.headers[HEADER], self.pipeline)
            ):
                raise HttpProblem(409, refusal(self.pipeline))
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

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        headers[hdrs.SERVER] = "headwater"
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)  # a page of ours may allow itself more
        self._guard.share(request, response)


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program has this port, or another pipeline; [server] listen can name a free one"
    return error.strerror or str(error)


def _trusted(files: Files) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(files.certificate, files.key)
    except OSError as error:  # SSLError is one
        said = error.strerror or str(error)
        raise OSError(f"[server] tls: {files.certificate} and {files.key}: {said}") from error
    return context


def _changed(files: Files) -> object:
    """Differs when one of the files was replaced or written; a file that is not there is a difference, too."""
    found: list[tuple[int, int, int] | None] = []
    for path in (files.certificate, files.key):
        try:
            status = os.stat(path)
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            found.append(None)
    return found


def _as_problem(error: web.HTTPException) -> web.StreamResponse:
    if error.status < 400:
        raise error
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    return HttpProblem(error.status, _DETAILS.get(error.status, error.text or error.reason), headers).response()


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
