"""`headwater graph --live` with a real process: the rates are those of its nodes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp

from tests.device import Device, free_port
from tests.waiting import eventually

PIPELINE = """
[pipeline]
name = "rates"
durability = "process"

[server]
listen = "127.0.0.1:{port}"
token = "open sesame"

[sources.readings]
type = "http"
key = "id"
fields = {{ value = "float" }}

[operators.high]
type = "filter"
input = "readings"
where = "value > 1"

[sinks.local]
type = "query_server"
inputs = ["readings", "high"]
"""


async def test_live_rates(tmp_path: Path) -> None:
    port = free_port()
    file = tmp_path / "pipeline.toml"
    file.write_text(PIPELINE.format(port=port))
    command = [sys.executable, "-m", "pipeline.command", "graph", str(file), "--live"]
    headers = {"Authorization": "Bearer open sesame"}
    async with aiohttp.ClientSession(headers=headers) as http, Device(file, port) as device:
        await device.start(http)

        async def shown() -> list[str]:
            """With readings in between, as a loaded machine may let none through."""
            asking = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            while asking.returncode is None:
                async with http.post(device.url + "/data", json=[{"id": "a", "value": 1}, {"id": "a", "value": 2}]):
                    await asyncio.sleep(0.05)
            assert asking.stdout is not None
            lines = (await asking.stdout.read()).decode().splitlines()
            assert lines[0].startswith("readings (http)  ")
            assert lines[0].endswith("/s out")
            return lines if float(lines[0].split()[2].removesuffix("/s")) > 0 else []

        lines = await eventually(shown)
        high = next(line for line in lines if "high (filter)" in line)
        rates = [float(word.removesuffix("/s").replace(",", "")) for word in high.split() if word.endswith("/s")]
        assert rates[0] > rates[1] > 0
        assert await device.end() == 0
