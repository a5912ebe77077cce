"""A peer that is a web server of the test: aiohttp's, with one route, on a port that it keeps over restarts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from tests.device import free_port


class WebPeer:
    def __init__(self, method: str, path: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self.route = web.route(method, path, handler)
        self.port = free_port()
        self.runner: web.AppRunner | None = None

    async def start(self) -> int:
        """The port."""
        app = web.Application()
        app.add_routes([self.route])
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()
        return self.port

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None
