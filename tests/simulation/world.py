"""All that is around a simulated device: its clients, a broker that sends again what was not acknowledged, its cloud."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson
from multidict import CIMultiDict

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

    def route(self, method: str, path: str, handler: Callable[..., Any], *, public: bool = False) -> bool:
        return self.routes.setdefault((method, path), handler) is handler

    def quick(self, *_: Any, **__: Any) -> None: ...

    def on_close(self, end: Callable[[], None]) -> None: ...

    async def take_address(self) -> None: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def post(self, body: bytes, key: str | None) -> tuple[int, set[int]]:
        """What `POST /data` is answered with: the status, and which readings were refused."""
        try:
            response = await self.routes["POST", "/data"](_Request(body, key))
        except HttpProblem as problem:
            return problem.status, {error["index"] for error in problem.more.get("errors", ())}
        return response.status, set()


class _Request:
    """What the handler of `POST /data` looks at of a request."""

    query_string = ""

    def __init__(self, body: bytes, key: str | None) -> None:
        self.body = body
        self.headers = CIMultiDict({"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {}))
        self.content_length = len(body)
        self.content = self

    def is_eof(self) -> bool:
        return True

    def exception(self) -> None: ...

    def read_nowait(self) -> bytes:
        return self.body


class World:
    """Shared by all incarnations of a device. `server` is None while it is down."""

    def __init__(self, chance: random.Random, loop: VirtualLoop, started: int) -> None:
        self.chance = chance
        self.loop = loop
        self.started_ms = started // 1_000_000
        self.server: Server | None = None
        self.sent: dict[int, Reading] = {}
        self.sent_by: dict[str, list[Reading]] = {}  # source
        self.acknowledged: set[int] = set()
        self.pushed_back = 0

    def reading(self, source: str, name: str, after_ms: int | None = None) -> Reading:
        """One more, of now or so long after the start; a few come late, a few are not valid."""
        n = len(self.sent)
        now = round(self.loop.passed * 1000) if after_ms is None else after_ms
        ts = self.started_ms + now - self.chance.choice([0, 0, 10, 2_000, 6_000, 30_000])
        value: float | str = self.chance.choice([-1, *range(0, 101, 5)])
        if self.chance.random() < 0.05:
            value = "broken"
        made = {"id": name, "ts": ts, "value": value, "n": n}
        self.sent[n] = made
        self.sent_by.setdefault(source, []).append(made)
        return made

    def acknowledge(self, readings: list[Reading], refused: set[int]) -> None:
        self.acknowledged |= {r["n"] for i, r in enumerate(readings) if i not in refused}

    async def client(self, name: str, requests: int, *, keyed: bool) -> None:
        """Sends one request after the other, each until it is taken."""
        for i in range(requests):
            readings = [self.reading("readings", name) for _ in range(self.chance.choice([1, 1, 2, 5]))]
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
            self.waiting[self.next] = self.world.reading("messages", "m")
            self.next += 1
            self.more.set()
            await asyncio.sleep(self.world.chance.choice([0, 0.1, 1, 2]))

    def done(self, number: int, receipt: Receipt) -> None:
        if receipt.failed is None:
            self.world.acknowledge(
                [self.waiting.pop(number)] if number in self.waiting else [],
                {refused.item for refused in receipt.refused},
            )


class Log:
    """A program beside the device that writes files. What it has written is on the disk, whatever becomes of the device.

    The names of readings are those of other sources, too, so that the order over all sources matters.
    """

    COLUMNS = ("id", "ts", "value", "n")

    def __init__(self, world: World, source: str, path: Path, *, csv: bool) -> None:
        self.world = world
        self.source = source
        self.path = path
        self.csv = csv
        self.inode = 0  # of the file in which the device keeps its place; before there is one, it follows no rotation

    def _line(self, after_ms: int | None = None) -> bytes:
        reading = self.world.reading(self.source, self.world.chance.choice(["c0", "m", "f"]), after_ms)
        if self.csv:
            return ",".join(str(reading[name]) for name in self.COLUMNS).encode() + b"\n"
        return orjson.dumps(reading) + b"\n"

    def _append(self, path: Path, data: bytes) -> None:
        with path.open("ab") as file:
            if self.csv and not file.tell():
                data = ",".join(self.COLUMNS).encode() + b"\n" + data
            file.write(data)

    def record(self, lines: int) -> None:
        """All at once, in two files: a reading every half second."""
        for i in range(lines):
            part = 1 + (2 * i >= lines)
            self._append(self.path.with_stem(f"{self.path.stem}-{part}"), self._line(500 * i))

    async def write(self, lines: int) -> None:
        """One line after the other, some in two goes."""
        chance = self.world.chance
        for _ in range(lines):
            line = self._line()
            cut = chance.choice([0, 0, chance.randrange(len(line))])
            if cut:
                self._append(self.path, line[:cut])
                await asyncio.sleep(chance.choice([0.1, 3]))
            self._append(self.path, line[cut:])
            if self.inode and chance.random() < 0.1:
                await self._rotate()
            await asyncio.sleep(chance.choice([0, 0.1, 1, 2]))

    async def _rotate(self) -> None:
        """By another name, or by a copy; who writes may have the old one open for a while."""
        chance = self.world.chance
        older = sorted(self.path.parent.glob(f"{self.path.name}.*"), key=lambda p: -int(p.suffix[1:]))
        for path in older:
            path.rename(path.with_suffix(f".{int(path.suffix[1:]) + 1}"))
        first = self.path.with_name(f"{self.path.name}.1")
        if self.inode == self.path.stat().st_ino and chance.random() < 0.4:
            # A file of which nothing was read yet is not known again in its copy.
            shutil.copy(self.path, first)
            os.truncate(self.path, 0)
            return
        self.path.rename(first)
        if chance.random() < 0.5:
            self.path.touch()
        if chance.random() < 0.5:
            await asyncio.sleep(chance.choice([0, 0.1, 3]))
            self._append(first, self._line())


class Cloud:
    """Slow, failing, away, or deaf after having taken a batch. It keeps each body under its key."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.bodies: dict[str, bytes] = {}
        self.changed: list[str] = []
        self.away = False
        self.kind = False  # from now on it takes everything
        self.requests = 0

    def request(self, _: str, url: str, *, data: bytes, headers: dict[str, str], allow_redirects: bool) -> _Exchange:
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
