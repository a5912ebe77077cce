"""`cloud`: a server of aiohttp's, that keeps each row by the Idempotency-Key it came with."""

from __future__ import annotations

import json
from importlib.metadata import version

from aiohttp import web

from tests.connectors.rig import SinkRig
from tests.connectors.web_peer import WebPeer
from tests.peer import unpacked

TOKEN = "right"


class CloudRig(SinkRig):
    peer = "aiohttp"
    promise = "exactly once"
    password = TOKEN
    limit = "buffer, then 429"

    def __init__(self, *where: object) -> None:
        super().__init__(*where)  # type: ignore[arg-type]
        self.web = WebPeer("POST", "/api/sync", self._take)
        self.bodies: dict[str, list[int]] = {}
        self.refused: int | None = None

    def version(self) -> str:
        return version("aiohttp")

    async def start(self) -> int:
        return await self.web.start()

    async def stop(self) -> None:
        await self.web.stop()

    async def _take(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401)
        numbers = [json.loads(row)["n"] for row in (await unpacked(request)).splitlines()]
        if self.refused in numbers:
            return web.Response(status=400, text="one of them is not wanted")
        self.bodies[request.headers["Idempotency-Key"]] = numbers
        return web.Response()

    def settings_with(self, port: int | None, password: str) -> str:
        return f'type = "cloud"\nurl = "http://127.0.0.1:{port}/api/sync"\ntoken = "{password}"\ntimeout = "1 s"'

    async def received(self) -> list[int]:
        return [number for numbers in self.bodies.values() for number in numbers]

    def refuse(self, number: int) -> None:
        self.refused = number
