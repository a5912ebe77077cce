"""`http`: a server of aiohttp's, that notes each row by the Idempotency-Key it came with."""

from __future__ import annotations

from importlib.metadata import version

from aiohttp import web

from tests.connectors.rig import SinkRig
from tests.connectors.web_peer import WebPeer

TOKEN = "right"


class HttpRig(SinkRig):
    peer = "aiohttp"
    promise = "exactly once"
    password = TOKEN
    limit = "buffer, then 429"

    def __init__(self, *where: object) -> None:
        super().__init__(*where)  # type: ignore[arg-type]
        self.web = WebPeer("PUT", "/rows/{n}", self._take)
        self.numbers: dict[str, int] = {}
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
        number = int(request.match_info["n"])
        if number == self.refused:
            return web.Response(status=400, text="it is not wanted")
        self.numbers[request.headers["Idempotency-Key"]] = number
        return web.Response()

    def settings_with(self, port: int | None, password: str) -> str:
        url = f"http://127.0.0.1:{port}/rows/{{n}}"
        return f'type = "http"\nurl = "{url}"\nmethod = "PUT"\ntoken = "{password}"\ntimeout = "1 s"'

    async def received(self) -> list[int]:
        return list(self.numbers.values())

    def refuse(self, number: int) -> None:
        self.refused = number
