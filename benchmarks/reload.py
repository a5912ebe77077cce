"""What a reload costs those who listen: `python -m benchmarks.reload [RELOADS]`, at 1,000 and 5,000 readings/s with `power`.

Senders post ten readings at a time over connections that are kept, each key over one connection, and send again what was not
answered; a listener follows /api/live and comes back with its last `id`. The threshold of an alert is changed to and fro, and
the file reloaded, every BETWEEN_S. The gap is the longest time between two rows that the listener got within that span: beside
it, the same spans of a run without reloads. What came is compared with what was sent: windows that are missing or wrong, alerts
that came twice or not at all.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
import numpy as np

from tests.device import Device, free_port

RATES = (1_000, 5_000)  # readings a second
SENDERS = 10
AT_ONCE = 10  # readings in a request, each of another key
BETWEEN_S = 2.0
RETRY_S = 0.002
PHASE = 40  # readings that a key stays above, or below, both thresholds
WINDOW_S = 10
START_MS = 1_700_000_000_000
THRESHOLDS = ("28", "30")
PIPELINE = """
[pipeline]
name = "reload"
state = "state"
durability = "power"
disorder = "30 s"
idle = "1 h"

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
path = "/data"
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float" }}

[operators.tens]
type = "window"
input = "readings"
size = "{window} s"
aggregate = {{ n = "count()", total = "sum(value)" }}

[operators.hot]
type = "alert"
input = "readings"
when = "value > {threshold}"
clear = "value < 20"

[sinks.local]
type = "query_server"
inputs = ["readings", "tens", "hot"]
"""


class Sent:
    """What was sent, and so what must come of it."""

    def __init__(self, rate: int) -> None:
        self.step_ms = 1000 * SENDERS * AT_ONCE // rate  # between two readings of a key
        self.windows: dict[tuple[str, int], tuple[int, float]] = {}
        self.alerts: Counter[tuple[str, str, int]] = Counter()

    def request(self, sender: int, number: int) -> list[dict[str, object]]:
        value = 40.0 if number // PHASE % 2 else 10.0
        ts = START_MS + number * self.step_ms
        keys = [f"s{sender}.{i}" for i in range(AT_ONCE)]
        start = ts // (1000 * WINDOW_S) * WINDOW_S
        for key in keys:
            n, total = self.windows.get((key, start), (0, 0.0))
            self.windows[key, start] = (n + 1, total + value)
            if number and number % PHASE == 0:
                self.alerts[key, "firing" if value > 30 else "cleared", ts] += 1
        return [{"id": key, "ts": ts, "value": value} for key in keys]


async def send(http: aiohttp.ClientSession, url: str, sent: Sent, sender: int, rate: int, until: float) -> int:
    """One after the other, each until it is taken: so the readings of a key keep their order."""
    began, number = time.perf_counter() + sender * AT_ONCE / rate, 0  # in turns, not all at once
    while time.perf_counter() < until:
        due = began + number * SENDERS * AT_ONCE / rate
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        await post(http, url, sent.request(sender, number), f"{sender} {number}")
        number += 1
    return number


async def post(http: aiohttp.ClientSession, url: str, body: object, key: str) -> None:
    data = json.dumps(body).encode()
    head = {"Content-Type": "application/json", "Idempotency-Key": key}
    while True:
        try:
            async with http.post(url + "/data", data=data, headers=head) as answer:
                if answer.status == 201:
                    return
                if answer.status not in (429, 503):
                    raise SystemExit(f"answered {answer.status}: {await answer.text()}")
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(RETRY_S)


async def hear(http: aiohttp.ClientSession, url: str, times: list[float]) -> None:
    last = ""
    while True:
        try:
            head = {"Last-Event-ID": last} if last else {}
            async with http.get(f"{url}/api/live?streams=readings", headers=head) as answer:
                async for line in answer.content:
                    if line.startswith(b"id: "):
                        last = line[4:].strip().decode()
                    elif line.startswith(b"data: ") and b'"rows":[' in line:
                        times.append(time.perf_counter())
        except (aiohttp.ClientError, ConnectionError):
            pass
        await asyncio.sleep(RETRY_S)


async def measured(folder: Path, rate: int, reloads: int, *, reloading: bool) -> list[float]:
    """The longest time without a row in each span, in ms."""
    port = free_port()
    file = folder / "pipeline.toml"
    write(file, port, THRESHOLDS[0])
    times: list[float] = []
    marks: list[float] = []
    sent = Sent(rate)
    bare = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=bare) as http, Device(file, port) as device:
        await device.start(http)
        hearing = asyncio.create_task(hear(http, device.url, times))
        until = time.perf_counter() + (reloads + 1) * BETWEEN_S
        sending = [asyncio.create_task(send(http, device.url, sent, i, rate, until)) for i in range(SENDERS)]
        await asyncio.sleep(BETWEEN_S)
        for number in range(reloads):
            marks.append(time.perf_counter())
            if reloading:
                write(file, port, THRESHOLDS[(number + 1) % 2])
                device.send(signal.SIGHUP)
            await asyncio.sleep(BETWEEN_S)
        numbers = await asyncio.gather(*sending)
        end = START_MS + (max(numbers) + 1) * sent.step_ms + 60_000 + 1000 * WINDOW_S
        await post(http, device.url, [{"id": "end", "ts": end, "value": 0.0}], "end")
        hearing.cancel()
        wrong = await compared(device, http, sent)
        taken = await health(http, device.url)
        await device.end()
    if reloading and taken != reloads:
        raise SystemExit(f"{taken} of {reloads} reloads were taken over")
    print(f"{rate:6,} {'yes' if reloading else 'no':>6} ", end="")
    gaps = longest(times, marks)
    p50, most = np.percentile(gaps, [50, 100])
    print(f"{p50:8.0f} {most:8.0f} {wrong[0]:8} {wrong[1]:8} {wrong[2]:8} {sum(numbers) * AT_ONCE:9,}", flush=True)
    return gaps


def write(file: Path, port: int, threshold: str) -> None:
    file.write_text(PIPELINE.format(port=port, threshold=threshold, window=WINDOW_S))


async def health(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url + "/health") as answer:
        return int((await answer.json())["reloads"])


def longest(times: list[float], marks: list[float]) -> list[float]:
    told = np.array(times)
    gaps = []
    for begin, end in zip(marks, [*marks[1:], marks[-1] + BETWEEN_S], strict=True):
        inside = told[(told >= begin - 0.1) & (told <= end)]
        gaps.append(1e3 * float(np.diff(inside).max()))
    return gaps


async def compared(device: Device, http: aiohttp.ClientSession, sent: Sent) -> tuple[int, int, int]:
    """Windows that are missing or wrong, alerts that came twice, alerts that did not come or were not to come."""
    rows = await device.rows(http, "tens")
    found = {(row["id"], seconds(row["start"])): (row["n"], row["total"]) for row in rows if row["id"] != "end"}
    lost = sum(found.get(window) != told for window, told in sent.windows.items()) + len(
        found.keys() - sent.windows.keys()
    )
    alerts = Counter((row["id"], row["state"], 1000 * seconds(row["time"])) for row in await device.rows(http, "hot"))
    expected = Counter({(key, state, ts // 1000 * 1000): n for (key, state, ts), n in sent.alerts.items()})
    doubled = sum((alerts - expected).values())
    return lost, doubled, sum((expected - alerts).values())


def seconds(time_text: str) -> int:
    from datetime import datetime

    return int(datetime.fromisoformat(time_text).timestamp())


async def main(reloads: int) -> None:
    print(
        f"{'1/s':>6} {'reload':>6}  {'p50 ms':>8} {'max ms':>8} {'windows':>8} {'doubled':>8} {'missing':>8} {'readings':>9}"
    )
    for rate in RATES:
        gaps = []
        for reloading in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                gaps.append(await measured(Path(folder), rate, reloads, reloading=reloading))
        without, with_ = (float(np.median(of)) for of in gaps)
        print(f"a reload: {with_:.0f} ms beside {without:.0f} ms, {with_ / without:.1f} times", flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
