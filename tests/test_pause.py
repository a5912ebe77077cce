"""A process that was paused, or killed and left down, gives the rows of an undisturbed one: nobody listened meanwhile, so
nothing was silent. `PAUSE=20 pytest tests/test_pause.py` for a longer one."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.device import Device, free_port
from tests.waiting import eventually

PAUSE = float(os.environ.get("PAUSE", "5"))

IDLE_S = 1.5  # a pause taken for silence would close every window and make all that follows late

PIPELINE = """
[pipeline]
name = "paused"
state = "state"
durability = "process"
disorder = "0 s"
idle = "{idle}"

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
path = "/data"
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float" }}

[operators.seconds]
type = "window"
input = "readings"
size = "1 s"
aggregate = {{ n = "count()" }}

[operators.long_high]
type = "alert"
input = "readings"
when = "value > 0"
for = "4 s"

[sinks.local]
type = "query_server"
inputs = ["seconds", "seconds.late", "long_high"]
"""

READINGS = 60
STEP_MS = 100


class Sender:
    """Sends one reading after the other, at about the pace of their times; each until it is acknowledged."""

    def __init__(self, device: Device, http: aiohttp.ClientSession) -> None:
        self.device = device
        self.http = http
        self.said: list[float] = []  # when each was sent first
        self.heard: list[float] = []  # and acknowledged

    async def send(self, count: int) -> None:
        for _ in range(count):
            i = len(self.said)
            self.said.append(time.monotonic())
            body = {"id": "a", "ts": i * STEP_MS, "value": 0 if i == READINGS - 1 else 1}
            while not await self._taken(body, str(i)):
                await asyncio.sleep(0.05)
            self.heard.append(time.monotonic())
            await asyncio.sleep(STEP_MS / 1000)

    async def _taken(self, body: dict[str, Any], key: str) -> bool:
        try:
            headers = {"Idempotency-Key": key}
            async with self.http.post(self.device.url + "/data", json=body, headers=headers) as answer:
                return answer.status == 201
        except aiohttp.ClientError:
            return False

    def silence(self, paused: float, resumed: float) -> float:
        """The longest that the device can have heard nothing, beside the time in which it was paused."""
        spans = zip(self.said, self.heard[1:], strict=False)
        return max(end - start - max(0.0, min(end, resumed) - max(start, paused)) for start, end in spans)


@pytest.mark.parametrize("how", ["paused", "killed"])
async def test_the_rows_of_an_undisturbed_run(how: str, tmp_path: Path) -> None:
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        silence, told = await run(how, folder)
        if silence < IDLE_S:  # else we have been silent ourselves, on a machine that has too much to do
            break
    else:
        raise AssertionError(f"whoever sends was silent for {silence:.1f} s, each time")
    assert told["seconds.late"] == []
    wanted = Counter(i * STEP_MS // 1000 for i in range(READINGS))
    assert [(row["start"], row["n"]) for row in told["seconds"]] == [
        (f"1970-01-01T00:00:{second:02d}.000Z", n) for second, n in sorted(wanted.items())
    ]
    assert [(row["time"][17:], row["state"]) for row in told["long_high"]] == [
        ("04.000Z", "firing"),
        ("05.900Z", "cleared"),
    ]


async def run(how: str, folder: Path) -> tuple[float, dict[str, list[dict[str, Any]]]]:
    """How long nothing was said at most, and the rows of each stream."""
    file, port = folder / "pipeline.toml", free_port()
    file.write_text(PIPELINE.format(port=port, idle=f"{IDLE_S} s"))
    timeout = aiohttp.ClientTimeout(PAUSE + 60)
    async with aiohttp.ClientSession(timeout=timeout) as http, Device(file, port) as device:
        await device.start(http)
        sender = Sender(device, http)
        await sender.send(25)
        rest = asyncio.create_task(sender.send(READINGS - 25))
        await asyncio.sleep(0.25)
        paused = time.monotonic()
        if how == "paused":
            device.send(signal.SIGSTOP)
            await asyncio.sleep(PAUSE)
            resumed = time.monotonic()
            device.send(signal.SIGCONT)
        else:
            await device.end(signal.SIGKILL)
            await asyncio.sleep(PAUSE)
            await device.start(http)
            resumed = time.monotonic()
        await rest
        silence = sender.silence(paused, resumed)

        told: dict[str, list[dict[str, Any]]] = {}

        async def closed() -> bool:
            """Now it is silent: the last window closes."""
            for name in ("seconds", "seconds.late", "long_high"):
                told[name] = await device.rows(http, name)
            return sum(row["n"] for row in told["seconds"]) + len(told["seconds.late"]) == READINGS

        if silence < IDLE_S:
            await eventually(closed, lambda: told)
        assert await device.end() == 0
    return silence, told
