"""A peer that speaks something else than is expected of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def stranger(says: bytes = b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10) -> AsyncIterator[int]:
    """Its port. It answers whatever comes with `says`, and hangs up."""
    talking: set[asyncio.StreamWriter] = set()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.add(writer)
        with contextlib.suppress(OSError):
            await reader.read(1)
            writer.write(says)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.sleep(0.02)  # one that was just accepted has its writer a little later
    for writer in talking:
        writer.transport.abort()
    await asyncio.sleep(0.02)
