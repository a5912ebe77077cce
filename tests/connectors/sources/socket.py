"""`socket`: a real socat listens, and hands on what it is given over a socket of the file system."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from tests.connectors.feed import Feed
from tests.connectors.rig import FIELDS, SourceRig, ended, line, listening, program_version
from tests.device import free_port


class SocketRig(SourceRig):
    peer = "socat"
    promise = "at most once"
    limit = "the connection is not read"
    without = {"credentials": "there are none; TLS with certificates: tests/pipeline/sources/test_socket.py"}

    def __init__(self, folder: Path, device_port: int) -> None:
        super().__init__(folder, device_port)
        self.port = free_port()
        self.feed = Feed(folder / "feed")
        self.process: asyncio.subprocess.Process | None = None
        self.living: asyncio.Task[None] | None = None

    def version(self) -> str | None:
        return program_version("socat", "-V", word=2, row=1)

    async def start(self) -> int:
        await self.feed.start()
        self.living = asyncio.create_task(self.feed.live())
        there = f"TCP-LISTEN:{self.port},bind=127.0.0.1,reuseaddr,fork"
        self.process = await asyncio.create_subprocess_exec("socat", there, f"UNIX-CONNECT:{self.feed.path}")
        await listening(self.port)
        return self.port

    async def stop(self) -> None:
        if self.living is not None:
            self.living.cancel()
        await ended(self.process)
        await self.feed.stop()  # ends the children that serve a connection, too

    def settings(self, port: int | None) -> str:
        return f'type = "socket"\nurl = "tcp://127.0.0.1:{port}"\nread_timeout = "3 s"\n{FIELDS}'

    async def send(self, numbers: Sequence[int], pad: int = 0) -> list[int]:
        return list(numbers) if await self.feed.write(b"".join(line(n, pad) + b"\n" for n in numbers)) else []

    async def garbage(self) -> int:
        await self.feed.write(b'\x00\xff\xfe{{{\n\n{"id": "c", "n": "many"}\n' + b"x" * 100_000 + b"\n")
        return 3
