"""What a peer made of `socat` is fed with: bytes written here go to the connection that it made last."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path


class Feed:
    """Listens on a socket of the file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._somebody = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, self.path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._somebody.set()
        with contextlib.suppress(OSError):
            await reader.read()  # until the other end is gone
        writer.close()
        if writer in self._writers:
            self._writers.remove(writer)

    async def live(self) -> None:
        """A blank line now and then, which is no message, as a sign of life: silence means that the connection is half-open."""
        while True:
            for writer in self._writers[-1:]:
                if not writer.transport.get_write_buffer_size():
                    writer.write(b"\n")
            await asyncio.sleep(0.2)

    async def write(self, data: bytes, wait_s: float = 5.0) -> bool:
        """True: somebody was there to take it, all of it."""
        try:
            async with asyncio.timeout(wait_s):
                while not self._writers:
                    self._somebody.clear()
                    await self._somebody.wait()
        except TimeoutError:
            return False
        writer = self._writers[-1]
        writer.write(data)
        try:
            await writer.drain()
        except OSError:
            return False
        return not writer.is_closing()
