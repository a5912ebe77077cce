"""A process that was paused, or killed and left down, gives the rows of an undisturbed one: nobody listened meanwhile, so
nothing was silent. `PAUSE=20 pytest tests/test_pause.py` for a longer one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from tests.device import Device, free_port

PAUSE = float(os.environ.get("PAUSE", "5"))

# Idle after half a second: a pause taken for silence would close every window and make all that follows late.
PIPELINE = """
[pipeline]
name = "paused"
state = "state"
durability = "process"
disorder = "0 s"
idle = "500 ms"

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


async def send(device: Device, http: aiohttp.ClientSession, numbers: range) -> None:
    """One reading after the other, at about the pace of their times; each until it is acknowledged."""
    for i in numbers:
        body = {"id": "a", "ts": i * STEP_MS, "value": 0 if i == READINGS - 1 else 1}
        while True:
            try:
                async with http.post(device.url + "/data", json=body, headers={"Idempotency-Key": str(i)}) as answer:
                    if answer.status == 201:
                        break
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
        await asyncio.sleep(STEP_MS / 1000)


@pytest.mark.parametrize("how", ["paused", "killed"])
async def test_the_rows_of_an_undisturbed_run(how: str, tmp_path: Path) -> None:
    file, port = tmp_path / "pipeline.toml", free_port()
    file.write_text(PIPELINE.format(port=port))
    timeout = aiohttp.ClientTimeout(PAUSE + 30)
    async with aiohttp.ClientSession(timeout=timeout) as http, Device(file, port) as device:
        await device.start(http)
        await send(device, http, range(25))
        rest = asyncio.create_task(send(device, http, range(25, READINGS)))
        await asyncio.sleep(0.25)
        if how == "paused":
            device.send(signal.SIGSTOP)
            await asyncio.sleep(PAUSE)
            device.send(signal.SIGCONT)
        else:
            await device.end(signal.SIGKILL)
            await asyncio.sleep(PAUSE)
            await device.start(http)
        await rest
        await asyncio.sleep(2.5)  # now it is silent: the last window closes
        seconds = await device.rows(http, "seconds")
        late = await device.rows(http, "seconds.late")
        alerts = await device.rows(http, "long_high")
        assert await device.end() == 0
    assert late == []
    wanted = Counter(i * STEP_MS // 1000 for i in range(READINGS))
    assert [(row["start"], row["n"]) for row in seconds] == [
        (f"1970-01-01T00:00:{second:02d}.000Z", n) for second, n in sorted(wanted.items())
    ]
    assert [(row["time"][17:], row["state"]) for row in alerts] == [("04.000Z", "firing"), ("05.900Z", "cleared")]
