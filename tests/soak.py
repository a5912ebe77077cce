"""A long steady load with random faults: `make soak MINUTES=60`. What does a pipeline use more of as time goes by?

A real process takes readings over HTTP and from a growing file, with bad ones among them, while its cloud fails, hangs and
goes away, the process is paused now and then, and someone asks questions and leaves connections half open. Memory, open
files and what the database holds beside the data are sampled; at the end their slopes are printed, and what was
acknowledged is looked for: in the history (its last minute) each once, and in the windows that the cloud has, all of it.

`--kills N` kills and restarts it N times on the way; the slopes then say less, since each process begins anew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import zlib
from collections import Counter, deque
from pathlib import Path
from typing import Any

import aiohttp
import apsw
import numpy as np
from aiohttp import web

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.device import Device, free_port
from tests.peer import ms, serving, unpacked

CLIENTS = 4
READINGS = 10  # in one request
EVERY_S = 0.2  # between two requests of a client
SAMPLE_S = 5.0
WINDOW_MS = 10_000
LATEST_S = 60  # of the history, how much is looked at in the end
SLOW = 3  # clients that send half a request
LINES = 10  # written at a time, each half second
ROTATED = 1_000_000  # bytes
DELIVERED_S = 120.0  # for what still waits in the end

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
inputs = ["ten_seconds", "ten_seconds.late", "high"]
url = "http://127.0.0.1:{cloud}/api/sync"
batch = {{ rows = 200, wait = "1 s" }}
timeout = "3 s"
"""


DATA = (
    "SELECT sum(length(data)) FROM frames",
    "SELECT sum(length(data)) FROM outbox",
    "SELECT sum(length(row) + length(reason)) FROM dead",
    "SELECT sum(length(request) + length(receipt)) FROM requests",
)


class Cloud:
    """Away for a minute now and then; else one request in five fails, half of these after having been taken, some hang."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.keys: dict[str, int] = {}  # of each batch taken: the checksum of its body
        self.changed = self.requests = 0
        self.windows: Counter[tuple[str, int]] = Counter()  # by id and start: how often it came
        self.alerts: Counter[tuple[str, str, str]] = Counter()
        self.counted: Counter[tuple[str, int]] = Counter()  # readings in the windows, or late for them
        self.away_until = 0.0
        self.well = False  # in the end

    async def take(self, request: web.Request) -> web.Response:
        self.requests += 1
        body = await unpacked(request)
        now = time.monotonic()
        luck = 1.0 if self.well else self.chance.random()
        if luck < 0.01:
            self.away_until = now + self.chance.uniform(5, 60)
        elif luck < 0.03:
            await asyncio.sleep(5)
        if not self.well and (now < self.away_until or luck < 0.1):
            return web.Response(status=503)
        self._keep(request.headers["Idempotency-Key"], body)
        return web.Response(status=504 if luck < 0.2 else 200)

    def _keep(self, key: str, body: bytes) -> None:
        if key in self.keys:
            self.changed += self.keys[key] != zlib.crc32(body)
            return
        self.keys[key] = zlib.crc32(body)
        for row in map(json.loads, body.splitlines()):
            if row["stream"] == "high":
                self.alerts[row["id"], row["time"], row["state"]] += 1
            elif row["stream"] == "ten_seconds":
                window = row["id"], ms(row["start"])
                self.windows[window] += 1
                self.counted[window] += row["n"]
            else:
                self.counted[row["id"], window_of(ms(row["time"]))] += 1

    def doubles(self) -> int:
        return sum(n > 1 for n in (*self.windows.values(), *self.alerts.values()))


def window_of(ts: int) -> int:
    return ts // WINDOW_MS * WINDOW_MS


class Load:
    """What is sent, and which of it was acknowledged."""

    def __init__(self, chance: random.Random, device: Device, folder: Path, until: float) -> None:
        self.chance = chance
        self.device = device
        self.file = folder / "lines.ndjson"
        self.until = until
        self.rotates = True
        self.latest: deque[tuple[float, str, int]] = deque()  # acknowledged: when, id, n
        self.counted: Counter[tuple[str, int]] = Counter()  # by id and window
        self.taken = self.refused = self.failures = self.questions = self.lines = 0
        self.answers: Counter[int] = Counter()

    def running(self) -> bool:
        return time.monotonic() < self.until

    def _reading(self, name: str, n: int) -> dict[str, Any]:
        value: Any = round(self.chance.uniform(0, 100), 2)
        if self.chance.random() < 0.005:
            value = "much"
        return {"id": name, "ts": round(time.time() * 1000), "value": value, "n": n}

    def _keep(self, readings: list[dict[str, Any]]) -> None:
        now = time.monotonic()
        self.taken += len(readings)
        for reading in readings:
            self.latest.append((now, reading["id"], reading["n"]))
            self.counted[reading["id"], window_of(reading["ts"])] += 1
        while self.latest and self.latest[0][0] < now - LATEST_S:
            self.latest.popleft()

    async def client(self, name: str, http: aiohttp.ClientSession) -> None:
        n = 0
        while self.running():
            batch = [self._reading(f"{name}-{i % 5}", n + i) for i in range(READINGS)]
            n += READINGS
            await self._until_taken(http, f"{name}-{n}", batch)
            good = [r for r in batch if r["value"] != "much"]
            self._keep(good)
            self.refused += len(batch) - len(good)
            await asyncio.sleep(EVERY_S)

    async def _until_taken(self, http: aiohttp.ClientSession, key: str, batch: list[dict[str, Any]]) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                url, headers = self.device.url + "/data", {"Idempotency-Key": key}
                async with http.post(url, json=batch, headers=headers) as answer:
                    await answer.read()
                    self.answers[answer.status] += 1
                    if answer.status in (201, 400):
                        return
            self.failures += 1
            await asyncio.sleep(0.2)

    async def writer(self) -> None:
        while self.running():
            written = [self._reading(f"line-{i % 5}", self.lines + i) for i in range(LINES)]
            with self.file.open("a") as lines:
                lines.writelines(json.dumps(reading) + "\n" for reading in written)
            self.lines += LINES
            self._keep([r for r in written if r["value"] != "much"])
            await asyncio.sleep(0.5)
            if self.rotates and self.file.stat().st_size > ROTATED:  # as a log is; what it had has been read by now
                self.file.replace(self.file.with_suffix(".1"))
                self.file.touch()

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

    async def killer(self, kills: int, http: aiohttp.ClientSession) -> None:
        pause = max(self.until - time.monotonic(), 0) / (kills + 1)
        for _ in range(kills):
            await asyncio.sleep(pause)
            await self.device.end(signal.SIGKILL)
            await self.device.start(http)


def sample(device: Device, folder: Path) -> tuple[float, float, float]:
    """RSS (MB), open files, and what the database has beside its data (MB)."""
    assert device.process is not None
    files = len(os.listdir(f"/proc/{device.process.pid}/fd"))
    on_disk = sum(f.stat().st_size for f in folder.glob("headwater.db*"))
    db = apsw.Connection(str(folder / "headwater.db"), flags=apsw.SQLITE_OPEN_READONLY)
    db.set_busy_timeout(5000)
    data = sum(size or 0 for table in DATA for (size,) in db.execute(table))
    db.close()
    return device.rss(), files, (on_disk - data) / 1e6


def slope(samples: np.ndarray[Any, Any], column: int) -> tuple[float, float]:
    """Per hour, with its standard error (least squares; neighbours are not independent, so it is rather larger)."""
    hours, values = samples[:, 0] / 3600, samples[:, column]
    (per_hour, _), covariance = np.polyfit(hours, values, 1, cov=True)
    return float(per_hour), float(np.sqrt(covariance[0, 0]))


def report(samples: np.ndarray[Any, Any]) -> None:
    """Each slope after the warm-up, and of the second half alone: what fills up to a limit has done so by then."""
    end = samples[-1, 0]
    for column, name in ((1, "RSS, MB"), (2, "open files"), (3, "database beside its data, MB")):
        for part, since in (("warm", min(300.0, end * 0.2)), ("second half", end / 2)):
            used = samples[samples[:, 0] >= since]
            per_hour, error = slope(used, column)
            values = used[:, column]
            seen = f"first {values[0]:.1f}, last {values[-1]:.1f}, most {values.max():.1f}"
            print(f"{name:29}{part:12}{per_hour:+8.3f} an hour (± {error:.3f}); {seen}")


async def main(minutes: float, kills: int, seed: int) -> int:
    chance = random.Random(seed)
    cloud = Cloud(chance)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = free_port()
        async with (
            serving(cloud.take) as cloud_port,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as http,
            Device(folder / "pipeline.toml", port) as device,
        ):
            (folder / "lines.ndjson").touch()
            (folder / "pipeline.toml").write_text(PIPELINE.format(port=port, cloud=cloud_port))
            await device.start(http)
            load = Load(chance, device, folder, time.monotonic() + 60 * minutes)
            load.rotates = not kills  # what was not read of a file that is gone when the process starts again is lost
            samples = await watched(load, kills, http, folder / "state")
            cloud.well = True
            await asyncio.sleep(2)  # the last lines are read
            lost, doubled = await looked_for(load, device, http)
            await delivered(device, http)
            ended = await device.end()
    report(np.array(samples))
    closed = max(start for _, start in load.counted) - WINDOW_MS - 5_000
    wrong = [w for w in load.counted if w[1] < closed and load.counted[w] != cloud.counted[w]]
    print(f"{load.taken} readings taken, {load.lines} of them lines; {load.refused} refused over HTTP")
    print(f"{load.failures} tries failed, {load.questions} questions answered, answers {dict(load.answers)}")
    print(f"history: of the last minute's {len(load.latest)} readings {lost} lost, {doubled} doubled")
    took = f"{cloud.requests} requests, {len(cloud.windows)} windows and {len(cloud.alerts)} alerts"
    print(f"cloud: {took}, {cloud.doubles()} doubled, {cloud.changed} batches changed")
    print(f"windows: {len(wrong)} of {len(load.counted)} do not count what was acknowledged {wrong[:5]}")
    return 1 if ended or lost or doubled or wrong or cloud.doubles() or cloud.changed else 0


async def watched(load: Load, kills: int, http: aiohttp.ClientSession, state: Path) -> list[tuple[float, ...]]:
    """The samples; all of the load has ended."""
    tasks = [load.client(f"c{i}", http) for i in range(CLIENTS)] + [load.slow() for _ in range(SLOW)]
    tasks += [load.writer(), load.asker(http)]
    running = [asyncio.create_task(task) for task in tasks]
    disturbing = asyncio.create_task(load.killer(kills, http) if kills else load.pauser())
    started = time.monotonic()
    every = min(SAMPLE_S, (load.until - started) / 50)
    samples: list[tuple[float, ...]] = []
    while load.running():
        await asyncio.sleep(every)
        try:
            assert load.device.process is not None
            if not kills and (code := load.device.process.returncode) is not None:
                raise SystemExit(f"the process ended by itself with {code}, after {time.monotonic() - started:.0f} s")
            samples.append((time.monotonic() - started, *sample(load.device, state)))
        except (OSError, apsw.Error):
            if not kills:
                raise
        if samples and len(samples) % 60 == 0:
            print(
                f"{samples[-1][0] / 60:5.1f} min: RSS {samples[-1][1]:.1f} MB, {samples[-1][2]:.0f} files", flush=True
            )
    if kills:
        await disturbing
    else:
        disturbing.cancel()
        load.device.send(signal.SIGCONT)
    await asyncio.gather(*running)
    return samples


async def looked_for(load: Load, device: Device, http: aiohttp.ClientSession) -> tuple[int, int]:
    """Of what was acknowledged last: how much is not in the history, and how much more than once."""
    found = Counter((row["id"], row["n"]) for row in await device.rows(http, "valid"))
    return sum((name, n) not in found for _, name, n in load.latest), sum(n > 1 for n in found.values())


async def delivered(device: Device, http: aiohttp.ClientSession) -> None:
    until = time.monotonic() + DELIVERED_S
    while time.monotonic() < until:
        async with http.get(device.url + "/api/delivery") as answer:
            if all(sink["waiting"] == 0 for sink in (await answer.json())["sinks"]):
                return
        await asyncio.sleep(1)
    print("the backlog was not delivered")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.exit(asyncio.run(main(options.minutes, options.kills, options.seed)))
