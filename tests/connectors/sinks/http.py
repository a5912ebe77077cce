"""`http`: a server of aiohttp's, that notes each row by the Idempotency-Key it came with."""

from __future__ import annotations

from importlib.metadata import version

from aiohttp import web

from tests.connectors.rig import WRONG, SinkRig
from tests.device import free_port

TOKEN = "right"


class HttpRig(SinkRig):
    peer = "aiohttp"
    promise = "exactly once"
    limit = "buffer, then 429"

    def __init__(self, *where: object) -> None:
        super().__init__(*where)  # type: ignore[arg-type]
        self.port = free_port()
        self.numbers: dict[str, int] = {}
        self.refused: int | None = None
        self.runner: web.AppRunner | None = None

    def version(self) -> str:
        return version("aiohttp")

    async def start(self) -> int:
        app = web.Application()
        app.router.add_put("/rows/{n}", self._take)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()
        return self.port

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    async def _take(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401)
        number = int(request.match_info["n"])
        if number == self.refused:
            return web.Response(status=400, text="it is not wanted")
        self.numbers[request.headers["Idempotency-Key"]] = number
        return web.Response()

    def _settings(self, port: int | None, token: str) -> str:
        url = f"http://127.0.0.1:{port}/rows/{{n}}"
        return f'type = "http"\nurl = "{url}"\nmethod = "PUT"\ntoken = "{token}"\ntimeout = "1 s"'

    def settings(self, port: int | None) -> str:
        return self._settings(port, TOKEN)

    def wrong_settings(self, port: int | None) -> str:
        return self._settings(port, WRONG)

    async def received(self) -> list[int]:
        return list(self.numbers.values())

    def refuse(self, number: int) -> None:
        self.refused = number
