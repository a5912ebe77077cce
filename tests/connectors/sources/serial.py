"""`serial`: a real socat makes the line, and hands on what it is given over a socket of the file system."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from tests.connectors.feed import Feed
from tests.connectors.rig import FIELDS, SourceRig, ended, line, program_version


class SerialRig(SourceRig):
    peer = "socat"
    promise = "at most once"
    flood = 1_500
    limit = "the line is not read"
    without = {
        "half-open": "a line is never closed; `read_timeout` opens it anew (tests/pipeline/sources/test_serial.py)",
        "credentials": "there are none",
    }

    def __init__(self, folder: Path, device_port: int) -> None:
        super().__init__(folder, device_port)
        self.feed = Feed(folder / "feed")
        self.device = folder / "line"
        self.process: asyncio.subprocess.Process | None = None
        self.held: int | None = None  # socat ends when the last one closes the line, and this one does not

    def version(self) -> str | None:
        return program_version("socat", "-V", word=2, row=1)

    async def start(self) -> None:
        await self.feed.start()
        line = f"PTY,link={self.device},rawer"
        self.process = await asyncio.create_subprocess_exec("socat", line, f"UNIX-CONNECT:{self.feed.path}")
        while not self.device.exists():
            await asyncio.sleep(0.02)
        self.held = os.open(self.device, os.O_RDWR | os.O_NOCTTY)

    async def stop(self) -> None:
        await ended(self.process)
        self.device.unlink(missing_ok=True)
        if self.held is not None:
            os.close(self.held)
            self.held = None
        await self.feed.stop()

    def settings(self, port: int | None) -> str:
        return f'type = "serial"\ndevice = "{self.device}"\nbaud = 115200\n{FIELDS}'

    async def send(self, numbers: Sequence[int], pad: int = 0) -> list[int]:
        # What comes before the first line end is left out.
        data = b"\n" + b"".join(line(n, pad) + b"\n" for n in numbers)
        return list(numbers) if await self.feed.write(data) else []

    async def garbage(self) -> int:
        await self.feed.write(b'\n\x00\xff\xfe{{{\n\n{"id": "c", "n": "many"}\n' + b"x" * 100_000 + b"\n")
        return 3
