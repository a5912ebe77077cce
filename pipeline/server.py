"""The one HTTP server of a pipeline, that sources and sinks mount their routes on."""

from __future__ import annotations

import asyncio
import hmac
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from pipeline.config import ServerSettings

log = logging.getLogger("headwater")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY = 16_000_000  # bytes; a route may want less
CONNECTIONS = 1_000  # open at once; more wait in the kernel's queue
SLOW_CLIENT_S = 30.0  # a request must have arrived whole by then
KEEP_ALIVE_S = 75.0
GRACE_S = 2.0  # for requests under way when the server stops

_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> web.Response:
    """An `application/problem+json` answer (RFC 9457)."""
    title = web.Response(status=status).reason
    body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail, **more})
    return web.Response(status=status, body=body, content_type="application/problem+json", headers=headers)


def answer(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json")


class HttpServer:
    """Routes are mounted, then it starts. With a token every request needs it; errors are problem+json."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.host, self.port = settings.address()
        self._routes: dict[tuple[str, str], Handler] = {}
        self._token = b"Bearer " + settings.token.reveal().encode() if settings.token else None
        self._runner: web.AppRunner | None = None

    def route(self, method: str, path: str, handler: Handler) -> bool:
        """Mount a handler; False: that method and path have one."""
        if (method, path) in self._routes:
            return False
        self._routes[method, path] = handler
        return True

    @property
    def url(self) -> str:
        scheme = "https" if self.settings.tls else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    async def start(self) -> None:
        """OSError if the address cannot be had."""
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY)
        for (method, path), handler in self._routes.items():
            app.router.add_route(method, path, handler)
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=GRACE_S, handler_cancellation=False
        )
        await self._runner.setup()
        context = self._tls() if self.settings.tls else None
        site = web.TCPSite(self._runner, self.host, self.port, ssl_context=context, backlog=CONNECTIONS)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise OSError(f"cannot listen on {self.host}:{self.port}: {error.strerror or error}") from error
        self.port = self._runner.addresses[0][1]

    def _tls(self) -> ssl.SSLContext:
        assert self.settings.tls is not None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.settings.tls.certificate, self.settings.tls.key)
        return context

    async def close(self) -> None:
        """Take no more requests; those under way get `GRACE_S`."""
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        try:
            async with asyncio.timeout(None):
                response = await handler(request)
        except web.HTTPException as error:
            return self._as_problem(error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return problem(500, "an error in the server; its log has the details")
        if not response.prepared:
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
        return response

    def _refused(self, request: web.Request) -> web.Response | None:
        """A wrong token, or a page elsewhere that made a browser ask this machine (DNS rebinding)."""
        if self._token is not None:
            given = request.headers.get("Authorization", "").encode(errors="replace")
            if not hmac.compare_digest(given, self._token):
                return problem(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
        elif self.host in _LOOPBACK_NAMES and not self.settings.insecure:
            name = request.host.rpartition(":")[0] if ":" in request.host.rpartition("]")[2] else request.host
            if name.strip("[]") not in _LOOPBACK_NAMES:
                return problem(403, f"this server answers to localhost, not to {name[:100]!r}")
        return None

    def _as_problem(self, error: web.HTTPException) -> web.StreamResponse:
        if error.status < 400:
            return error
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        details = {404: "there is nothing here", 405: "this path does not take that method"}
        return problem(error.status, details.get(error.status, error.text or error.reason), headers)
