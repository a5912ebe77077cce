"""`headwater bench` measures, tells what runs beside it, and leaves nothing behind. How fast it is, no test says."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pipeline.command import bench
from pipeline.command.__main__ import main
from tests.device import Device, free_port

PIPELINE = """
[pipeline]
name = "measured"
state = "state"
durability = "process"

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
key = "id"
fields = {{ value = "float" }}

[sinks.local]
type = "query_server"
inputs = ["readings"]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bench, "LINES", 2_000)
    monkeypatch.setattr(bench, "COMMITS", 5)
    monkeypatch.setattr(bench, "BETWEEN_S", 0.3)
    made = tmp_path / "pipeline.toml"
    made.write_text(PIPELINE.format(port=free_port()))
    return made


def test_what_it_tells_and_that_nothing_is_left(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(file), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["readings_per_second"] > 0
    for name in ("commit_ms", "fsync_ms"):
        assert 0 < found[name]["median"] <= found[name]["worst"]
    assert found["running"] is None
    assert "nothing answers" in found["why"]
    assert list(file.parent.iterdir()) == [file]


def test_for_people(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [" readings a second on one core" in lines[0], lines[1].startswith("a commit takes ")] == [True, True]


async def test_what_the_running_pipeline_takes(file: Path) -> None:
    port = int(file.read_text().split("127.0.0.1:")[1].split('"')[0])
    command = [sys.executable, "-m", "pipeline.command", "bench", str(file), "--format", "json"]
    async with aiohttp.ClientSession() as http, Device(file, port) as device:
        await device.start(http)
        asking = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        while asking.returncode is None:
            async with http.post(device.url + "/data", json={"id": "a", "value": 1}):
                await asyncio.sleep(0.02)
        assert asking.stdout is not None
        running: dict[str, Any] = json.loads(await asking.stdout.read())["running"]
        assert running["readings_per_second"] > 1
        assert 0 < running["share"] < 1
        assert running["flash"]["written_bytes"] > 0
        assert await device.end() == 0
