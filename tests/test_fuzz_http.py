"""Schemathesis asks a running device whatever its /openapi.json allows, and much that it does not. `make fuzz-http` asks more.

No answer is a 5xx, and each is of a status, a media type and a form that the description tells. Then the device is well.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import aiohttp

from tests.device import Device, free_port
from tests.test_http import PIPELINE

CASES = int(os.environ.get("CASES", "4"))  # for each operation and phase
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
NOT_ASKED = (
    "/api/live",
    "/api/socket",
    "/api/reload",
)  # answers without end; and the device would start again and again


async def test_whatever_is_asked_is_answered_as_described(tmp_path: Path) -> None:
    port = free_port()
    file = tmp_path / "pipeline.toml"
    file.write_text(PIPELINE.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    async with aiohttp.ClientSession() as http, Device(file, port) as device:
        await device.start(http)
        readings = [{"id": "a", "value": 80}, {"id": "b", "value": "x"}]
        async with http.post(device.url + "/data", json=readings) as answer:
            assert answer.status == 400  # the second one is a dead letter
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{device.url}/openapi.json"]
        command += ["--checks", CHECKS, "--max-examples", str(CASES), "--phases", "examples,coverage,fuzzing"]
        command += ["--mode", "all", "--no-color", "--generation-database", "none", "--suppress-health-check", "all"]
        for path in NOT_ASKED:
            command += ["--exclude-path", path]
        pipe = asyncio.subprocess.PIPE
        asking = await asyncio.create_subprocess_exec(
            *command, stdout=pipe, stderr=asyncio.subprocess.STDOUT, cwd=tmp_path
        )
        told = (await asking.communicate())[0].decode()
        assert asking.returncode == 0, told[-8000:]
        cases = re.search(r"(\d[\d,]*) generated", told)
        assert cases is not None, told[-2000:]
        assert int(cases[1].replace(",", "")) >= 100
        print(f"{cases[1]} cases, no 5xx")  # noqa: T201
        async with http.get(device.url + "/health") as answer:
            assert (await answer.json())["status"] == "ok"
        assert await device.end() == 0
