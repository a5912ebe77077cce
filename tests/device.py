"""A pipeline as a process, as its users run it; for the tests that kill it, pause it or ask it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.waiting import eventually

PORTS = range(
    10_000, 32_000
)  # below those that systems give to whoever connects: one of these is never taken by chance
EACH = 100  # for a process of tests


def free_port() -> int:
    """A port at which nobody listens, and which no other process of tests is given as long as this one lives."""
    _, ours = _range_of_our_own()
    for port in itertools.islice(ours, EACH):
        if (found := _bound(port)) is not None:
            found.close()
            return port
    raise AssertionError(f"each of {EACH} ports is in use")


@cache
def _range_of_our_own() -> tuple[socket.socket, Iterator[int]]:
    """What holds its first port, which says to others that it has an owner; and the others, again and again."""
    ranges = PORTS[::EACH]
    for i in range(len(ranges)):
        first = ranges[(os.getpid() + i) % len(ranges)]
        if (held := _bound(first)) is not None:
            return held, itertools.cycle(range(first + 1, first + EACH))
    raise AssertionError("all ranges of ports have an owner")


def _bound(port: int) -> socket.socket | None:
    made = socket.socket()
    try:
        made.bind(("127.0.0.1", port))
    except OSError:
        made.close()
        return None
    return made


class Device:
    """`headwater run FILE`, listening on a port of its own."""

    def __init__(self, file: Path, port: int, python: str = sys.executable) -> None:
        self.file = file
        self.python = python
        self.url = f"http://127.0.0.1:{port}"
        self.process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """After whatever has gone wrong: nothing is left running."""
        if self.process is not None and self.process.returncode is None:
            await self.end(signal.SIGKILL)

    async def spawn(self) -> None:
        """Returns while it starts."""
        command = [self.python, "-m", "pipeline.command", "run", str(self.file)]
        self.process = await asyncio.create_subprocess_exec(*command)

    async def start(self, http: aiohttp.ClientSession) -> None:
        """Returns when it is ready."""
        await self.spawn()
        assert self.process is not None
        process = self.process

        async def ready() -> bool:
            assert process.returncode is None, "it ended by itself"
            try:
                async with http.get(self.url + "/ready") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        await eventually(ready, lambda: "it did not get ready")

    def rss(self) -> float:
        """MB of memory that the process has now."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.send(number)
        assert self.process is not None
        return await self.process.wait()

    async def rows(self, http: aiohttp.ClientSession, stream: str) -> list[dict[str, Any]]:
        """The whole history of a stream."""
        rows: list[dict[str, Any]] = []
        url: str | None = f"{self.url}/api/streams/{stream}/rows?limit=100000&format=ndjson"
        while url is not None:
            async with http.get(url) as answer:
                assert answer.status == 200, await answer.text()
                rows += map(json.loads, (await answer.text()).splitlines())
                url = str(answer.links["next"]["url"]) if "next" in answer.links else None
        return rows
