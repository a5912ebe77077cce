"""`headwater dead` with a real process: what was refused is listed, mended, replayed, and in the history once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.device import Device, free_port

PIPELINE = """
[pipeline]
name = "kept"
state = "state"
durability = "process"

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float", note = "string" }}

[operators.minutes]
type = "window"
input = "readings"
size = "1 min"
aggregate = {{ n = "count()" }}

[sinks.local]
type = "query_server"
inputs = ["readings", "minutes"]
"""
ROOT = str(Path(__file__).resolve().parents[3])


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest_asyncio.fixture
async def device(tmp_path: Path) -> AsyncIterator[Device]:
    port = free_port()
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(port=port))
    async with Device(tmp_path / "pipeline.toml", port) as device:
        yield device


def mend(device: Device, before: str, after: str) -> None:
    text = device.file.read_text()
    assert before in text
    device.file.write_text(text.replace(before, after))


async def dead(device: Device, *words: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "pipeline.command", "dead", *words]
    environment = os.environ | {"PYTHONPATH": ROOT}
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=device.file.parent, env=environment, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


async def listed(device: Device, *words: str) -> list[dict[str, Any]]:
    status, out, _ = await dead(device, "--format", "json", *words)
    assert status == 0
    found: list[dict[str, Any]] = json.loads(out)["dead"]
    return found


async def test_refused_mended_replayed_and_killed(device: Device, http: aiohttp.ClientSession) -> None:
    async with device:
        assert await dead(device) == (0, "no dead letters\n", "")
        assert not (device.file.parent / "state").exists()
        await device.start(http)
        async with http.post(device.url + "/data", json=[{"id": "a", "ts": 1000, "value": 1.5}, {"id": "a"}]) as answer:
            assert answer.status == 400
        letters = await listed(device)
        told = [(letter["id"], letter["kind"], letter["reason"], letter["replayable"]) for letter in letters]
        assert told == [(2, "refused", "ts: missing", True), (1, "refused", "note: missing", True)]
        assert await device.end() == 0
        assert await listed(device) == letters

        mend(device, 'note = "string"', 'note = "string?"')
        await device.start(http)
        status, out, _ = await dead(device, "replay", "--all")
        (left,) = await listed(device)
        assert status == 1
        assert out.startswith("1 replayed, 1 not\n")
        assert left["reason"] in out
        assert json.loads(left["row"]) == {"id": "a"}
        for _ in range(2):
            assert [row["value"] for row in await device.rows(http, "readings")] == [1.5]
            assert await device.end(signal.SIGKILL) == -signal.SIGKILL
            assert await listed(device) == [left]
            await device.start(http)
            await dead(device, "replay", "--all")
        assert [row["value"] for row in await device.rows(http, "readings")] == [1.5]
        async with http.get(device.url + "/api/dead?node=readings") as answer:
            assert (await answer.json())["dead"] == [left]
        assert await device.end() == 0


async def test_killed_in_the_middle_of_a_replay(device: Device, http: aiohttp.ClientSession) -> None:
    """Each reading is in one place at any time: among the letters or in the history."""
    count = 4000
    async with device:
        await device.start(http)
        async with http.post(device.url + "/data", json=[{"id": "a", "ts": i, "value": i} for i in range(count)]):
            pass
        assert await device.end() == 0
        mend(device, 'note = "string"', 'note = "string?"')
        taken = 0
        while taken < count:
            await device.start(http)
            asked = asyncio.create_task(http.post(device.url + "/api/dead/replay", json={"all": True}))
            while taken < count and len(await device.rows(http, "readings")) == taken:
                await asyncio.sleep(0.001)
            await device.end(signal.SIGKILL)
            await asyncio.gather(asked, return_exceptions=True)
            await device.start(http)
            values = [row["value"] for row in await device.rows(http, "readings")]
            left = [json.loads(letter["row"])["value"] for letter in await listed(device, "--limit", "10000")]
            assert sorted(values + left) == list(range(count))
            taken = len(values)
            await device.end(signal.SIGKILL)


async def test_by_number_and_by_node(device: Device, http: aiohttp.ClientSession) -> None:
    async with device:
        await device.start(http)
        async with http.post(device.url + "/data", json=[{"id": "a", "ts": 1000, "value": i} for i in range(3)]):
            pass
        assert await device.end() == 0
        mend(device, 'note = "string"', 'note = "string?"')
        await device.start(http)
        status, out, _ = await dead(device, "replay", "pipeline.toml", "2", "99")
        assert (status, out) == (1, "1 replayed, 1 not\n    99  there is no such letter\n")
        assert [letter["id"] for letter in await listed(device, "--node", "readings")] == [3, 1]
        assert await listed(device, "--node", "minutes") == []
        assert [letter["id"] for letter in await listed(device, "--limit", "1")] == [3]
        assert await dead(device, "replay", "--node", "readings") == (0, "2 replayed, 0 not\n", "")
        assert sorted(row["value"] for row in await device.rows(http, "readings")) == [0, 1, 2]


async def test_where_nothing_answers_it_says_what_to_do(device: Device) -> None:
    status, _, error = await dead(device, "replay", "--all")
    assert status == 1
    assert "headwater run pipeline.toml" in error
    mend(device, 'type = "query_server"', 'type = "file"\npath = "out.ndjson"')
    status, _, error = await dead(device, "replay", "--all")
    assert status == 2
    assert 'type = "query_server"' in error
    mend(device, 'type = "http"', 'type = "htp"')
    assert (await dead(device))[0] == (await dead(device, "replay", "--all"))[0] == 2


@pytest.mark.parametrize(
    "words", [("replay",), ("replay", "3", "--all"), ("a.toml", "b.toml"), ("3",), ("--all",), ("--limit", "0")]
)
async def test_what_is_not_one_clear_question_is_wrong_usage(words: tuple[str, ...], device: Device) -> None:
    status, out, error = await dead(device, *words)
    assert (status, out) == (2, "")
    assert "headwater dead: give" in error


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
async def test_over_tls_and_with_a_token(device: Device) -> None:
    """Address, token and certificate are those of the file; another certificate is not trusted."""
    for name in ("own", "other"):
        command = (
            f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=device -keyout {name}.key -out {name}.pem"
        )
        await asyncio.to_thread(
            subprocess.run, command.split(), cwd=device.file.parent, check=True, capture_output=True
        )
    tls = '\ntoken = "very secret"\ntls = { certificate = "own.pem", key = "own.key" }\n'
    mend(device, "\n\n[sources", f"{tls}\n[sources")
    device.url = device.url.replace("http:", "https:")
    headers = {"Authorization": "Bearer very secret"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=False)) as https, device:
        await device.start(https)
        assert await dead(device, "replay", "--all") == (0, "0 replayed, 0 not\n", "")
        mend(device, "very secret", "wrong secret")
        status, _, error = await dead(device, "replay", "--all")
        assert (status, "401" in error, "secret" in error) == (1, True, False)
        mend(device, "own.pem", "other.pem")
        status, _, error = await dead(device, "replay", "--all")
        assert (status, "CERTIFICATE_VERIFY_FAILED" in error) == (1, True)
