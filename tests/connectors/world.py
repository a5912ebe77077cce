"""A real `headwater run` process between a connector's peer and a test: its pipeline, and what can be seen of it."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.connectors.proxy import Proxy
from tests.connectors.rig import Rig, SinkRig, SourceRig
from tests.device import Device, free_port
from tests.peer import serving
from tests.waiting import eventually

HERE = Path(__file__).parent

HEAD = """
[pipeline]
name = "contract"
state = "state"
durability = "process"

[server]
listen = "127.0.0.1:{port}"
"""
SOURCE = """
[sources.given]
{settings}

[sinks.local]
type = "query_server"
inputs = ["given"]
"""
GATE = """
# While the test holds back its answers, this sink is full, and nothing is taken from the source.
[sinks.gate]
type = "cloud"
inputs = ["given"]
url = "http://127.0.0.1:{gate}/api/sync"
gzip = false
timeout = "10 min"
batch = {{ rows = 500, wait = "10 ms" }}
buffer = {{ size = "300 kB", when_full = "block" }}
"""
SINK = """
[sources.posted]
type = "http"
path = "/data"
max_body = "2 MB"
key = "id"
time = "at"
time_unit = "ms"
fields = {{ n = "int", pad = "string?" }}

[sinks.local]
type = "query_server"
inputs = ["posted"]

[sinks.out]
inputs = ["posted"]
{settings}
batch = {{ rows = {rows}, wait = "20 ms" }}
buffer = {{ size = "300 kB", when_full = "block" }}
"""


def names(kind: str) -> list[str]:
    """The connectors ("sources", "sinks") that have a rig."""
    return sorted(file.stem for file in (HERE / kind).glob("*.py"))


def rig_class(kind: str, name: str) -> Any:
    """The class that a file of rigs defines."""
    module = importlib.import_module(f"tests.connectors.{kind}.{name}")
    base = SourceRig if kind == "sources" else SinkRig
    found = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    (made,) = [c for c in found if issubclass(c, base)]
    return made


class Told(Device):
    """Its output goes to a file, to be looked at."""

    async def spawn(self) -> None:
        command = [sys.executable, "-m", "pipeline.command", "run", str(self.file)]
        with (self.file.parent / "output").open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=subprocess.STDOUT)

    def output(self) -> str:
        return (self.file.parent / "output").read_text()

    def cpu_s(self) -> float:
        """Seconds of CPU that it has used."""
        assert self.process is not None
        used = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
        return sum(map(int, used)) / 100


class Gate:
    """The other end of the sink that holds the engine back."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()

    async def take(self, request: web.Request) -> web.Response:
        await request.read()
        await self.open.wait()
        return web.Response()


class World:
    """What both kinds of connectors have: the rig with its peer, the device, the proxy between them."""

    stream = ""  # of the readings

    def __init__(self, rig: Rig, http: aiohttp.ClientSession, device: Told, proxy: Proxy | None) -> None:
        self.rig = rig
        self.http = http
        self.device = device
        self.proxy = proxy
        self.next = 0
        self.numbers: list[int] = []  # for which the promise holds

    def some(self, count: int) -> list[int]:
        """Numbers that were not used yet."""
        self.next += count
        return list(range(self.next - count, self.next))

    async def restart_device(self) -> None:
        """kill -9, and a start."""
        await self.device.end(signal.SIGKILL)
        await self.device.start(self.http)

    async def asked(self, path: str) -> Any:
        async with self.http.get(self.device.url + path) as answer:
            return await answer.json()

    async def reasons(self) -> list[str]:
        found: list[str] = (await self.asked("/health"))["reasons"]
        return found

    async def dead(self, node: str) -> list[dict[str, Any]]:
        letters: list[dict[str, Any]] = (await self.asked("/api/dead?limit=1000"))["dead"]
        return [letter for letter in letters if letter["node"] == node]

    async def until(self, holds: Callable[[], Awaitable[Any]], what: str) -> Any:
        """What `holds` gives, once that is true."""

        async def runs_and_holds() -> Any:
            assert self.device.process is not None
            assert self.device.process.returncode is None, (
                f"the process ended by itself: {self.device.output()[-2000:]}"
            )
            return await holds()

        return await eventually(runs_and_holds, lambda: f"never: {what}; {self.device.output()[-2000:]}")

    async def shown(self) -> str:
        """All that the device says to those who ask or read its log."""
        paths = ("/health", "/api/graph", "/api/dead", "/api/delivery", "/metrics", "/openapi.json")
        said = [self.device.output()]
        for path in paths:
            async with self.http.get(self.device.url + path) as answer:
                said.append(await answer.text())
        return "\n".join(said)


class SourceWorld(World):
    rig: SourceRig
    stream = "given"

    def __init__(self, gate: Gate, *parts: Any) -> None:
        super().__init__(*parts)
        self.gate = gate

    async def send(self, count: int, pad: int = 0) -> list[int]:
        """So many further readings; those that count."""
        sent = await self.rig.send(self.some(count), pad)
        self.numbers += sent
        return sent

    async def have(self) -> list[int]:
        """The numbers that have come out, as often as they have."""
        return [self.rig.number(row) for row in await self.device.rows(self.http, "given")]

    async def newest(self) -> int:
        rows = await self.asked("/api/streams/given/rows?order=desc&limit=50")
        return max((self.rig.number(row) for row in rows["rows"]), default=-1)

    async def come(self, numbers: list[int]) -> list[int]:
        """Until all of these are there; all that are."""

        async def there() -> list[int] | None:
            if await self.newest() < max(numbers, default=-1):
                return None
            have = await self.have()
            return have if set(numbers) <= set(have) else None

        found: list[int] = await self.until(there, f"{len(numbers)} readings up to {max(numbers, default=-1)}")
        return found


class SinkWorld(World):
    rig: SinkRig
    stream = "posted"

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.since_ms = time.time_ns() // 1_000_000 - 60_000  # a reading each ms from then on: some peers keep one

    async def post(self, count: int, pad: int = 0) -> bool:
        """So many further readings in one request; False: it was turned away."""
        numbers = self.some(count)
        filled = {"pad": "x" * pad} if pad else {}
        body = [{"id": "c", "at": self.since_ms + n, "n": n, **filled} for n in numbers]
        try:
            async with self.http.post(self.device.url + "/data", json=body) as answer:
                taken = answer.status == 201
        except aiohttp.ClientError:
            taken = False
        self.numbers += numbers if taken else []
        return taken

    async def delivery(self) -> dict[str, Any]:
        sinks = (await self.asked("/api/delivery"))["sinks"]
        found: dict[str, Any] = next(sink for sink in sinks if sink["sink"] == "out")
        return found

    async def come(self, numbers: list[int]) -> list[int]:
        """Until the peer has all of these; all that it has."""

        async def there() -> list[int] | None:
            have = await self.rig.received()
            return have if set(numbers) <= set(have) else None

        found: list[int] = await self.until(there, f"{len(numbers)} rows at the peer")
        return found


@asynccontextmanager
async def world(
    kind: str, name: str, folder: Path, *, wrong: bool = False, gate: bool = True, rows: int = 20
) -> AsyncIterator[Any]:
    """A device that is ready, and its peer; with credentials that the peer refuses, if `wrong`. `gate`: what a source brings
    can be held back. `rows`: in a batch of a sink."""
    port = free_port()
    rig = rig_class(kind, name)(folder, port)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        stack.push_async_callback(rig.stop)
        there = await rig.start()
        proxy = None if there is None else await stack.enter_async_context(Proxy(there))
        at = None if proxy is None else proxy.port
        settings = rig.wrong_settings(at) if wrong else rig.settings(at)
        barrier = Gate()
        barrier_port = await stack.enter_async_context(serving(barrier.take))
        stack.callback(barrier.open.set)
        text = HEAD.format(port=port)
        if kind == "sinks":
            text += SINK.format(settings=settings, rows=rows)
        else:
            text += SOURCE.format(settings=settings) + (GATE.format(gate=barrier_port) if gate else "")
        (folder / "pipeline.toml").write_text(text)
        device = await stack.enter_async_context(Told(folder / "pipeline.toml", port))
        await device.start(http)
        parts = (rig, http, device, proxy)
        yield SourceWorld(barrier, *parts) if kind == "sources" else SinkWorld(*parts)


def sequence(numbers: list[int]) -> Iterator[int]:
    """Those that come twice."""
    seen: set[int] = set()
    for number in numbers:
        if number in seen:
            yield number
        seen.add(number)
