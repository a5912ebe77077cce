"""The other end of a cloud sink, for tests with a real process: how its requests are taken, and its rows read."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from aiohttp import web


@asynccontextmanager
async def serving(take: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[int]:
    """The port at which `POST /api/sync` is handed to `take`."""
    app = web.Application()
    app.router.add_post("/api/sync", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def unpacked(request: web.Request) -> bytes:
    """The body; aiohttp has undone its encoding already, if its version does."""
    body = await request.read()
    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body


def ms(text: str) -> int:
    """A time as rows show it, in ms since 1970."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)
