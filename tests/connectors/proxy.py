"""Between two that speak over TCP, on a port of its own: what a cable, a firewall or a lost route does to them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Self

BUFFER = 64_000  # bytes that the system holds for it: left to itself that grows to some MB, and a flood would lie there


class Proxy:
    """Hands on what comes, until its connections are frozen: they stay open, and nothing gets through any more."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.port = 0
        self.passed = 0  # bytes
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._frozen: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for pipe in self._pipes:
            pipe.cancel()
        for writer in (*self._writers, *self._frozen):
            writer.transport.abort()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def freeze(self) -> int:
        """From now on what is open is half-open: no byte, no end and no reset. New connections work. How many there are."""
        for pipe in self._pipes:
            pipe.cancel()
        self._frozen += self._writers
        self._writers.clear()
        return len(self._frozen)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            writer.transport.abort()  # nobody is there
            return
        self._writers |= {writer, back}
        for end in (writer, back):
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, BUFFER)
        for source, target in ((reader, back), (there, writer)):
            pipe = asyncio.create_task(self._pipe(source, target))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(64_000):
                self.passed += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()
        self._writers.discard(writer)
