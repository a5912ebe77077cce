"""`exec`: a real socat, which hands on what it is given over a socket of the file system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.connectors.feed import Feed
from tests.connectors.rig import FIELDS, SourceRig, line, program_version


class ExecRig(SourceRig):
    peer = "socat"
    promise = "at most once"
    limit = "the command waits"
    without = {
        "half-open": "a pipe that is open and silent is what a command has that waits; `timeout` ends it",
        "credentials": "there are none",
    }

    def __init__(self, folder: Path, device_port: int) -> None:
        super().__init__(folder, device_port)
        self.feed = Feed(folder / "feed")

    def version(self) -> str | None:
        return program_version("socat", "-V", word=2, row=1)

    async def start(self) -> None:
        await self.feed.start()

    async def stop(self) -> None:
        await self.feed.stop()

    def settings(self, port: int | None) -> str:
        return f'type = "exec"\ncommand = ["socat", "-u", "UNIX-CONNECT:{self.feed.path}", "-"]\n{FIELDS}'

    async def send(self, numbers: Sequence[int], pad: int = 0) -> list[int]:
        return list(numbers) if await self.feed.write(b"".join(line(n, pad) + b"\n" for n in numbers)) else []

    async def garbage(self) -> int:
        await self.feed.write(b'\x00\xff\xfe{{{\n\n{"id": "c", "n": "many"}\n' + b"x" * 100_000 + b"\n")
        return 3
