"""A long steady load with random faults: `make soak MINUTES=60`. What does a pipeline use more of as time goes by?

A real process takes readings over HTTP and from a growing file, with bad ones among them, while its cloud fails, hangs and
goes away, the process is paused now and then, and someone asks questions and leaves connections half open. Memory, open
files and what the database holds beside the data are sampled; at the end their slopes are printed, and what was
acknowledged is looked for: in the history (as far back as it goes) and at the cloud, each once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import apsw
import numpy as np
from aiohttp import web

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.device import Device, free_port

CLIENTS = 4
READINGS = 10  # in one request
EVERY_S = 0.2  # between two requests of a client
SAMPLE_S = 5.0
WINDOW_MS = 10_000
LATEST_S = 60  # of the history, how much is looked at in the end

PIPELINE = """
[pipeline]
name = "soak"
state = "state"
durability = "power"
disorder = "5 s"
idle = "1 h"

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float", n = "int" }}

[sources.lines]
type = "file"
path = "lines.ndjson"
follow = true
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float", n = "int" }}

[operators.valid]
type = "filter"
inputs = ["readings", "lines"]
where = "value >= 0"

[operators.ten_seconds]
type = "window"
input = "valid"
size = "10 s"
aggregate = {{ n = "count()", mean = "mean(value)", high = "max(value)" }}

[operators.high]
type = "alert"
input = "valid"
when = "value > 90"
clear = "value < 10"

[sinks.local]
type = "query_server"
inputs = ["valid", "ten_seconds", "ten_seconds.late", "high"]
retention = "2 min"

[sinks.cloud]
type = "cloud"
inputs = ["ten_seconds", "high"]
url = "http://127.0.0.1:{cloud}/api/sync"
batch = {{ rows = 200, wait = "1 s" }}
timeout = "3 s"
"""


class Cloud:
    """Away for a minute now and then; else one request in five fails, half of these after having been taken, some hang."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.keys: dict[str, int] = {}  # of each batch taken: the hash of its body
        self.changed = self.requests = 0
        self.windows: Counter[tuple[str, str]] = Counter()
        self.readings = 0  # that the windows count
        self.away_until = 0.0

    async def take(self, request: web.Request) -> web.Response:
        self.requests += 1
        body = await request.read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        now = time.monotonic()
        if self.chance.random() < 0.01:
            self.away_until = now + self.chance.uniform(5, 60)
        luck = self.chance.random()
        if luck < 0.02:
            await asyncio.sleep(5)
        if now < self.away_until or luck < 0.1:
            return web.Response(status=503)
        self._keep(request.headers["Idempotency-Key"], body)
        return web.Response(status=504 if luck < 0.2 else 200)

    def _keep(self, key: str, body: bytes) -> None:
        if key in self.keys:
            self.changed += self.keys[key] != hash(body)
            return
        self.keys[key] = hash(body)
        for row in map(json.loads, body.splitlines()):
            if row["stream"] == "ten_seconds":
                self.windows[row["id"], row["start"]] += 1
                self.readings += row["n"]


class Load:
    """What is sent, and which of it was acknowledged."""

    def __init__(self, chance: random.Random, device: Device, folder: Path, until: float) -> None:
        self.chance = chance
        self.device = device
        self.file = folder / "lines.ndjson"
        self.until = until
        self.acknowledged: list[tuple[float, str, int]] = []  # when, id, n: of the last minutes only
        self.taken = self.refused = self.failures = self.questions = self.lines = 0

    def running(self) -> bool:
        return time.monotonic() < self.until

    def _reading(self, name: str, n: int) -> dict[str, Any]:
        reading = {"id": name, "ts": round(time.time() * 1000), "value": round(self.chance.uniform(0, 100), 2), "n": n}
        if self.chance.random() < 0.005:
            del reading["value"]
        return reading

    async def client(self, name: str, http: aiohttp.ClientSession) -> None:
        n = 0
        while self.running():
            batch = [self._reading(f"{name}-{i % 5}", n + i) for i in range(READINGS)]
            n += READINGS
            good = [r for r in batch if "value" in r]
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    key = {"Idempotency-Key": f"{name}-{n}"}
                    async with http.post(self.device.url + "/data", json=batch, headers=key) as answer:
                        await answer.read()
                        if answer.status in (201, 400):
                            break
                self.failures += 1
                await asyncio.sleep(0.2)
            now = time.monotonic()
            self.taken += len(good)
            self.refused += len(batch) - len(good)
            self.acknowledged += [(now, r["id"], r["n"]) for r in good]
            self.acknowledged = (
                [a for a in self.acknowledged if a[0] > now - LATEST_S] if n % 500 == 0 else self.acknowledged
            )
            await asyncio.sleep(EVERY_S)

    async def writer(self) -> None:
        while self.running():
            with self.file.open("a") as lines:
                for _ in range(10):
                    lines.write(json.dumps({**self._reading("line", self.lines), "value": 50.0}) + "\n")
                    self.lines += 1
            if self.file.stat().st_size > 5_000_000:  # rotated, as a log is
                self.file.replace(self.file.with_suffix(".1"))
                self.file.touch()
            await asyncio.sleep(0.5)

    async def asker(self, http: aiohttp.ClientSession) -> None:
        paths = ["/health", "/metrics", "/api/streams", "/api/streams/ten_seconds/rows?limit=200", "/api/alerts", "/data",
                 "/api/streams/valid/rows?limit=1000&order=desc", "/api/delivery", "/api/dead"]  # fmt: skip
        while self.running():
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with http.get(self.device.url + self.chance.choice(paths)) as answer:
                    await answer.read()
                self.questions += 1
            await asyncio.sleep(0.5)

    async def slow(self) -> None:
        """Connections that send half a request and no more."""
        port = int(self.device.url.rpartition(":")[2])
        while self.running():
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(
                    b"POST /data HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n" + self.chance.choice([b"", b"\r\n{"])
                )
                await asyncio.sleep(self.chance.uniform(1, 20))
                writer.close()

    async def pauser(self) -> None:
        while self.running():
            await asyncio.sleep(self.chance.uniform(60, 180))
            self.device.send(signal.SIGSTOP)
            await asyncio.sleep(self.chance.uniform(0.2, 5))
            self.device.send(signal.SIGCONT)


def sample(pid: int, folder: Path) -> tuple[float, float, float]:
    """RSS (MB), open files, and what the database has beside its data (MB)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    files = len(os.listdir(f"/proc/{pid}/fd"))
    on_disk = sum(f.stat().st_size for f in folder.glob("headwater.db*"))
    db = apsw.Connection(str(folder / "headwater.db"), flags=apsw.SQLITE_OPEN_READONLY)
    db.set_busy_timeout(5000)
    sizes = "SELECT (SELECT coalesce(sum(length(data)), 0) FROM frames) + (SELECT coalesce(sum(length(data)), 0) FROM outbox)"
    ((data,),) = list(db.execute(sizes))
    db.close()
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, files, (on_disk - data) / 1e6


def slope(samples: np.ndarray[Any, Any], column: int) -> tuple[float, float]:
    """Per hour, with its standard error (least squares; neighbours are not independent, so it is rather larger)."""
    hours, values = samples[:, 0] / 3600, samples[:, column]
    (per_hour, _), covariance = np.polyfit(hours, values, 1, cov=True)
    return float(per_hour), float(np.sqrt(covariance[0, 0]))


def report(samples: np.ndarray[Any, Any]) -> None:
    warm = min(300.0, samples[-1, 0] * 0.2)
    used = samples[samples[:, 0] >= warm]
    for column, name in ((1, "RSS, MB"), (2, "open files"), (3, "database beside its data, MB")):
        per_hour, error = slope(used, column)
        values = used[:, column]
        seen = f"first {values[0]:.1f}, last {values[-1]:.1f}, most {values.max():.1f}"
        print(f"{name:30} {per_hour:+8.3f} an hour (± {error:.3f}); {seen}")


async def main(minutes: float, seed: int) -> int:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cloud = Cloud(chance)
        app = web.Application()
        app.router.add_post("/api/sync", cloud.take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = free_port()
        (folder / "lines.ndjson").touch()
        (folder / "pipeline.toml").write_text(PIPELINE.format(port=port, cloud=runner.addresses[0][1]))
        device = Device(folder / "pipeline.toml", port)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as http:
            await device.start(http)
            started = time.monotonic()
            load = Load(chance, device, folder, started + 60 * minutes)
            tasks = [load.client(f"c{i}", http) for i in range(CLIENTS)]
            tasks += [load.writer(), load.asker(http), load.slow(), load.pauser()]
            running = [asyncio.create_task(task) for task in tasks]
            samples = []
            assert device.process is not None
            while load.running():
                await asyncio.sleep(SAMPLE_S)
                samples.append((time.monotonic() - started, *sample(device.process.pid, folder / "state")))
                if len(samples) % 60 == 0:
                    print(
                        f"{samples[-1][0] / 60:5.1f} min: RSS {samples[-1][1]:.1f} MB, {samples[-1][2]:.0f} files",
                        flush=True,
                    )
            running[-1].cancel()
            device.send(signal.SIGCONT)
            await asyncio.gather(*running, return_exceptions=True)
            lost, doubled = await looked_for(load, device, http)
            report(np.array(samples))
            await device.end()
        await runner.cleanup()
        doubles = sum(n > 1 for n in cloud.windows.values())
        print(
            f"{load.taken} readings and {load.lines} lines taken, {load.refused} refused, {load.failures} tries failed"
        )
        print(f"{load.questions} questions answered; of the last minute {lost} lost, {doubled} doubled")
        took = f"{cloud.requests} requests, {len(cloud.windows)} windows of {cloud.readings} readings"
        print(f"cloud: {took}, {doubles} doubled, {cloud.changed} batches changed")
        return 1 if lost or doubled or doubles or cloud.changed else 0


async def looked_for(load: Load, device: Device, http: aiohttp.ClientSession) -> tuple[int, int]:
    """Of what was acknowledged last: how much is not in the history, and how much more than once."""
    now = time.monotonic()
    wanted = {(name, n) for when, name, n in load.acknowledged if when > now - LATEST_S}
    found = Counter((row["id"], row["n"]) for row in await device.rows(http, "valid"))
    return sum(item not in found for item in wanted), sum(n > 1 for (name, _), n in found.items() if name != "line")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.exit(asyncio.run(main(options.minutes, options.seed)))
