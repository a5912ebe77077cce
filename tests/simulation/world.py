"""All that is around a simulated device: its clients, a broker that sends again what was not acknowledged, its cloud."""

from __future__ import annotations

import asyncio
import gzip
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self
from unittest.mock import Mock

import orjson
from aiohttp import StreamReader
from aiohttp.test_utils import make_mocked_request

from pipeline.component import Receipt
from pipeline.web import HttpProblem

if TYPE_CHECKING:
    from pipeline.trial.loop import VirtualLoop

Reading = dict[str, Any]


class Server:
    """In the place of the HTTP server: requests reach the handlers without a network."""

    url = "simulated"

    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], Callable[..., Any]] = {}

    def route(self, method: str, path: str, handler: Callable[..., Any]) -> bool:
        return self.routes.setdefault((method, path), handler) is handler

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def post(self, body: bytes, key: str | None) -> tuple[int, set[int]]:
        """What `POST /data` is answered with: the status, and which readings were refused."""
        content = StreamReader(Mock(_reading_paused=False), 2**16)
        content.feed_data(body)
        content.feed_eof()
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        request = make_mocked_request("POST", "/data", headers=headers, payload=content)
        try:
            response = await self.routes["POST", "/data"](request)
        except HttpProblem as problem:
            return problem.status, {error["index"] for error in problem.more.get("errors", ())}
        return response.status, set()


class World:
    """Shared by all incarnations of a device. `server` is None while it is down."""

    def __init__(self, chance: random.Random, loop: VirtualLoop, started: int) -> None:
        self.chance = chance
        self.loop = loop
        self.started_ms = started // 1_000_000
        self.server: Server | None = None
        self.sent: dict[tuple[str, int], Reading] = {}
        self.acknowledged: set[tuple[str, int]] = set()
        self.count = 0
        self.pushed_back = 0

    def reading(self, name: str) -> Reading:
        """One more; a few come late, a few are not valid."""
        self.count += 1
        ts = self.started_ms + round(self.loop.passed * 1000) - self.chance.choice([0, 0, 10, 2_000, 6_000, 30_000])
        value: float | str = self.chance.choice([-1, *range(0, 101, 5)])
        if self.chance.random() < 0.03:
            value = "broken"
        made = {"id": name, "ts": ts, "value": value, "n": self.count}
        self.sent[name, self.count] = made
        return made

    def acknowledge(self, readings: list[Reading], refused: set[int]) -> None:
        self.acknowledged |= {(r["id"], r["n"]) for i, r in enumerate(readings) if i not in refused}

    async def client(self, name: str, requests: int, *, keyed: bool) -> None:
        """Sends one request after the other, each until it is taken."""
        for i in range(requests):
            readings = [self.reading(name) for _ in range(self.chance.choice([1, 1, 2, 5]))]
            body = orjson.dumps(readings)
            while True:
                status, refused = 0, set[int]()
                if self.server is not None:
                    status, refused = await self.server.post(body, f"{name}-{i}" if keyed else None)
                if status in (201, 400):
                    break
                assert status in (0, 429, 503), status
                self.pushed_back += status == 429
                await asyncio.sleep(self.chance.uniform(0.05, 1))
            self.acknowledge(readings, refused)
            await asyncio.sleep(self.chance.choice([0, 0.01, 0.5, 3]))


class Broker:
    """Messages in order; what was not acknowledged is sent again to whoever connects."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.waiting: dict[int, Reading] = {}
        self.next = 0
        self.more = asyncio.Event()

    async def publish(self, messages: int) -> None:
        for _ in range(messages):
            self.waiting[self.next] = self.world.reading("m")
            self.next += 1
            self.more.set()
            await asyncio.sleep(self.world.chance.choice([0, 0.1, 1, 2]))

    def done(self, number: int, receipt: Receipt) -> None:
        if receipt.failed is None:
            self.world.acknowledge(
                [self.waiting.pop(number)] if number in self.waiting else [],
                {refused.item for refused in receipt.refused},
            )


class Cloud:
    """Slow, failing, away, or deaf after having taken a batch. It keeps each body under its key."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.bodies: dict[str, bytes] = {}
        self.changed: list[str] = []
        self.away = False
        self.kind = False  # from now on it takes everything
        self.requests = 0

    def post(self, _: str, *, data: bytes, headers: dict[str, str], allow_redirects: bool) -> _Exchange:
        return _Exchange(self, headers["Idempotency-Key"], gzip.decompress(data))

    async def close(self) -> None: ...

    def rows(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for body in self.bodies.values() for line in body.splitlines()]


class _Exchange:
    """A request and its answer, as aiohttp's client gives them."""

    def __init__(self, cloud: Cloud, key: str, body: bytes) -> None:
        self.cloud, self.key, self.body = cloud, key, body
        self.status = 200
        self.headers: dict[str, str] = {}
        self.content = self

    async def read(self, _: int) -> bytes:
        return b""

    async def __aenter__(self) -> Self:
        cloud, chance = self.cloud, self.cloud.world.chance
        cloud.requests += 1
        await asyncio.sleep(chance.choice([0.001, 0.05, 1]))
        luck = 1.0 if cloud.kind else chance.random()
        if cloud.away and not cloud.kind:
            raise OSError("no route to host")
        if luck < 0.1:
            self.status = 503
            return self
        if cloud.bodies.setdefault(self.key, self.body) != self.body:
            cloud.changed.append(self.key)
        if luck < 0.2:
            await asyncio.sleep(30)
            raise TimeoutError
        self.status = 504 if luck < 0.25 else 200
        return self

    async def __aexit__(self, *_: object) -> None: ...
