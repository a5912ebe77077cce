"""`http_poll`: a server of aiohttp's, which says one number until it is given the next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from aiohttp import web

from tests.connectors.rig import FIELDS, WRONG, SourceRig, line
from tests.connectors.web_peer import WebPeer

TOKEN = "right"
SEEN_S = 0.5  # a value is there for so long, if nobody asks


class HttpPollRig(SourceRig):
    peer = "aiohttp"
    promise = "newest value"
    limit = "it does not ask"
    without = {"flood": "it asks, for one answer at a time"}

    def __init__(self, folder: Path, device_port: int) -> None:
        super().__init__(folder, device_port)
        self.web = WebPeer("GET", "/now", self._answer)
        self.said = b""
        self.version_ = 0
        self.asked = asyncio.Event()

    def version(self) -> str:
        return version("aiohttp")

    async def start(self) -> int:
        return await self.web.start()

    async def stop(self) -> None:
        await self.web.stop()

    async def _answer(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401)
        tag = f'"{self.version_}"'
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304)
        self.asked.set()
        return web.Response(body=self.said, headers={"ETag": tag})

    def _settings(self, port: int | None, token: str) -> str:
        url = f"http://127.0.0.1:{port}/now"
        return f'type = "http_poll"\nurl = "{url}"\ntoken = "{token}"\nevery = "20 ms"\ntimeout = "1 s"\n{FIELDS}'

    def settings(self, port: int | None) -> str:
        return self._settings(port, TOKEN)

    def wrong_settings(self, port: int | None) -> str:
        return self._settings(port, WRONG)

    async def _say(self, body: bytes) -> None:
        """Until it has been heard once."""
        self.said = body
        self.version_ += 1
        self.asked.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(SEEN_S):
                await self.asked.wait()

    async def send(self, numbers: Sequence[int], pad: int = 0) -> list[int]:
        for number in numbers:
            await self._say(line(number, pad))
        return list(numbers)

    async def garbage(self) -> int:
        await self._say(b'\x00\xff\xfe{{{\n{"id": "c", "n": "many"}')
        return 2
