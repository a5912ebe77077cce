"""`notify`: apprise's json:// to a server of aiohttp's."""

from __future__ import annotations

from base64 import b64encode
from importlib.metadata import PackageNotFoundError, version

from aiohttp import web

from tests.connectors.rig import SinkRig
from tests.connectors.web_peer import WebPeer

PASSWORD = "right"
WHO = "Basic " + b64encode(f"me:{PASSWORD}".encode()).decode()


class NotifyRig(SinkRig):
    peer = "apprise"
    promise = "at least once"
    password = PASSWORD
    limit = "rows wait and are told together; buffer, then 429"
    without = {"refusal": "a service that does not take a message is asked again"}

    def __init__(self, *where: object) -> None:
        super().__init__(*where)  # type: ignore[arg-type]
        self.web = WebPeer("POST", "/messages", self._take)
        self.numbers: list[int] = []

    def version(self) -> str | None:
        try:
            return version("apprise")
        except PackageNotFoundError:
            return None

    async def start(self) -> int:
        return await self.web.start()

    async def stop(self) -> None:
        await self.web.stop()

    async def _take(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != WHO:
            return web.Response(status=401)
        self.numbers += map(int, (await request.json())["message"].split())
        return web.Response()

    def settings_with(self, port: int | None, password: str) -> str:
        url = f"json://me:{password}@127.0.0.1:{port}/messages?cto=1&rto=1"
        return f'type = "notify"\nurls = ["{url}"]\nline = "{{n}}"\nlines = 1000\nper_hour = 100000'

    async def received(self) -> list[int]:
        return list(self.numbers)
