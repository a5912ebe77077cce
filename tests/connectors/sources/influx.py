"""`influx`: lines of the line protocol by HTTP, as Telegraf writes them: again and again, until they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.metadata import version

import aiohttp

from tests.connectors.rig import SourceRig

AT_ONCE = 200  # lines in a request


class InfluxRig(SourceRig):
    peer = "aiohttp"
    promise = "at least once"
    limit = "429, Retry-After"
    without = {
        "restart of the peer": "peers connect to us",
        "half-open": "peers connect to us; one that says nothing is cut off (tests/test_overload.py)",
        "credentials": "those of [server]: tests/test_security.py",
    }

    def version(self) -> str:
        return version("aiohttp")

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    def settings(self, port: int | None) -> str:
        return 'type = "influx"\nkey = "id"\nfields = { n = "int", pad = "string?" }'

    async def send(self, numbers: Sequence[int], pad: int = 0) -> list[int]:
        filled = f',pad="{"x" * pad}"' if pad else ""
        lines = [f"contract,id=c n={n}i{filled}" for n in numbers]
        for i in range(0, len(numbers), AT_ONCE):
            assert await self._post("\n".join(lines[i : i + AT_ONCE]).encode()) == 204
        return list(numbers)

    async def garbage(self) -> int:
        assert await self._post(b"\x00\xff\xfe{{{\ncontract,id=c n=many\ncontract n=1i") == 400
        return 3

    async def _post(self, body: bytes) -> int:
        url = f"http://127.0.0.1:{self.device_port}/write?db=telegraf"
        while True:
            try:
                async with aiohttp.ClientSession() as http, http.post(url, data=body) as answer:
                    if answer.status in (204, 400):
                        return answer.status
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
