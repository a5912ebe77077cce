"""`http`: a client of aiohttp's posts, and posts again until it is answered."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from importlib.metadata import version

import aiohttp

from tests.connectors.rig import FIELDS, SourceRig, line

AT_ONCE = 200  # readings in a request


class HttpRig(SourceRig):
    peer = "aiohttp"
    promise = "exactly once"
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
        return f'type = "http"\nmax_body = "2 MB"\n{FIELDS}'

    async def send(self, numbers: Sequence[int], pad: int = 0) -> list[int]:
        for i in range(0, len(numbers), AT_ONCE):
            assert await self._post(b"\n".join(line(n, pad) for n in numbers[i : i + AT_ONCE])) == 201
        return list(numbers)

    async def garbage(self) -> int:
        assert await self._post(b'\x00\xff\xfe{{{\n{"id": "c", "n": "many"}\n[1]') == 400
        return 3

    async def _post(self, body: bytes) -> int:
        """The answer, in the end: under one key, so it counts once."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        url = f"http://127.0.0.1:{self.device_port}/data"
        while True:
            try:
                async with aiohttp.ClientSession() as http, http.post(url, data=body, headers=headers) as answer:
                    if answer.status in (201, 400):
                        return answer.status
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
