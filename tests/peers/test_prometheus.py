"""A real Prometheus scrapes a running device. Skipped where it is not installed (Debian: prometheus)."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pipeline.run import look
from tests.device import Device, free_port
from tests.test_http import PIPELINE
from tests.waiting import eventually

PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")

CONFIG = """
global: {{ scrape_interval: 1s }}
scrape_configs:
  - job_name: headwater
    authorization: {{ credentials: only-reads }}
    static_configs: [{{ targets: ["127.0.0.1:{port}"] }}]
"""


async def asked(http: aiohttp.ClientSession, url: str) -> list[dict[str, Any]]:
    try:
        async with http.get(url) as answer:
            return (await answer.json())["data"]["result"] if answer.status == 200 else []
    except aiohttp.ClientError:
        return []  # it is starting


async def test_prometheus_scrapes_it(tmp_path: Path) -> None:
    """With a token that may only read; every metric of the device arrives, under its labels."""
    assert PROMETHEUS is not None
    port, prometheus = free_port(), free_port()
    file, config = tmp_path / "pipeline.toml", tmp_path / "prometheus.yml"
    listen = f'listen = "127.0.0.1:{port}"\ntoken = "may-do-all"\nread_token = "only-reads"'
    file.write_text(PIPELINE.replace('listen = "127.0.0.1:0"', listen))
    config.write_text(CONFIG.format(port=port))
    assert look(file)[0].problems == []
    command = [PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    command.append(f"--web.listen-address=127.0.0.1:{prometheus}")
    headers = {"Authorization": "Bearer may-do-all"}
    async with aiohttp.ClientSession(headers=headers) as http, Device(file, port) as device:
        await device.start(http)
        async with http.post(device.url + "/data", json=[{"id": "a", "value": 80}] * 3) as answer:
            assert answer.status == 201
        async with http.get(device.url + "/metrics") as answer:
            told = {line.split()[2] for line in (await answer.text()).splitlines() if line.startswith("# TYPE")}
        with (tmp_path / "log").open("wb") as said:
            scraping = await asyncio.create_subprocess_exec(*command, stdout=said, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{prometheus}/api/v1/query?query="

            async def scraped() -> list[dict[str, Any]]:
                assert scraping.returncode is None, (tmp_path / "log").read_text()
                return await asked(http, url + "headwater_readings_total")

            found = await eventually(scraped, (tmp_path / "log").read_text)
            counts = {row["metric"]["source"]: row["value"][1] for row in found}
            assert counts == {"readings": "3", "presence": "0", "dated": "0"}
            names = {row["metric"]["__name__"] for row in await asked(http, url + '{__name__=~"headwater.*"}')}
            assert names <= told
            # A metric may have no sample yet; those that every device has are there.
            assert {"headwater_commits_total", "headwater_keys", "headwater_rows_out_total"} <= names
            (up,) = await asked(http, url + "up")
            assert up["value"][1] == "1"
        finally:
            scraping.terminate()
            await scraping.wait()
        assert await device.end() == 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_the_names_are_those_that_prometheus_wants(tmp_path: Path) -> None:
    """Its own checker finds nothing to say: names, units, help."""
    port = free_port()
    file = tmp_path / "pipeline.toml"
    file.write_text(PIPELINE.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    async with aiohttp.ClientSession() as http, Device(file, port) as device:
        await device.start(http)
        async with http.get(device.url + "/metrics") as answer:
            text = await answer.read()
        pipe = asyncio.subprocess.PIPE
        command = ("promtool", "check", "metrics")
        checking = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        said = b"".join(await checking.communicate(text))
        assert (checking.returncode, said) == (0, b"")
        assert await device.end() == 0
