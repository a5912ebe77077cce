"""Schemathesis asks a running device whatever its /openapi.json allows, and much that it does not. `make fuzz-http` asks more.

No answer is a 5xx, and each is of a status, a media type and a form that the description tells. Then the device is well.
"""

from __future__ import annotations

import asyncio
import os
import random
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


# --- what no schema tells ---------------------------------------------------------------------------------------------

NAMES = [
    "valid",
    "",
    "%00",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e",
    "%ff",
    "%",
    "%zz",
    "a" * 5000,
    "%F0%9F%92%A9",
    "{id}",
    "a;b",
    "W10",
]
VALUES = [
    "",
    "0",
    "-1",
    "9" * 400,
    "1e999",
    "nan",
    "NaN",
    "inf",
    "-1h",
    "-9999999y",
    "now",
    "2026-01-31T12:00:00+01:00",
    "%00",
]
VALUES += [
    "%",
    "%zz",
    "%ff",
    "%ed%a0%80",
    "a,b",
    ",,,",
    "[]",
    "{}",
    "' OR 1=1 --",
    "%F0%9F%92%A9",
    "a" * 3000,
    "1.5",
    "true",
    "٣",
]
VALUES = [value.replace(" ", "+") for value in VALUES]
KINDS = [
    "application/json",
    "application/json; charset=utf-7",
    "text/csv",
    "application/x-ndjson",
    "",
    "x",
    "a/b/c",
    "multipart/form-data",
]
KINDS += [
    "application/cbor",
    "application/msgpack",
    "application/x-www-form-urlencoded",
    "\xff/\xff",
    "text/html;q=0.5,*/*",
    "*/*",
]
BODIES = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b'"x"',
    b"\x00\xff",
    b"[" * 5000,
    b'{"sql": 1}',
    b'{"sql": "SELECT x\'00\'"}',
    b'{"ids": [1e400]}',
]
BODIES += [
    b'{"id": "a", "value": 1}',
    b'{"alert": "high", "for": "9999999999999 y", "by": "x"}',
    b'{"sql": "\xed\xa0\x80"}',
    b"9" * 5000,
]
PATHS = [
    "//api/streams",
    "/api//streams",
    "/api/../health",
    "/api/%2e%2e/health",
    "/./health",
    "/API/STREAMS",
    "/api/streams/",
    "/%2fapi",
]
PATHS += [
    "/dashboard/../../pyproject.toml",
    "/dashboard/%2e%2e/__init__.py",
    "/dashboard//uplot.js",
    "http://elsewhere/health",
    "/\\..\\x",
    "/?%",
]
HEADERS = [
    "Accept: " + ",".join(["text/csv;q=x"] * 200),
    "Accept: \xff",
    'If-None-Match: W/,,"',
    "Range: bytes=9-1",
    "Last-Event-ID: 9.9.9",
]
HEADERS += [
    "Accept-Encoding: gzip;q=nan",
    "Content-Encoding: gzip",
    "Expect: x",
    "Upgrade: websocket",
    "Authorization: Bearer \xff",
    "Cookie: \x01",
]
HEADERS += ["Idempotency-Key: " + "k" * 300, "X-Forwarded-For: ::1", "Accept: application/vnd.apache.arrow.stream"]


async def status(port: int, method: str, target: str, headers: list[str], body: bytes) -> int:
    """Of one request, written as it is: a client would put it right. 0: the connection was closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = [
            f"{method} {target} HTTP/1.1",
            "Host: 127.0.0.1",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *headers,
        ]
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1", "replace") + body)
        async with asyncio.timeout(30):
            line = await reader.readline()
        return int(line.split()[1]) if line else 0
    except ConnectionError:
        return 0
    finally:
        writer.close()


async def test_odd_requests(tmp_path: Path) -> None:
    """Parameters twice, without a name or with a value that nobody means, broken percent signs, other bodies than it says,
    paths that mean others: none is a 5xx, and none comes to what is not its own."""
    port = free_port()
    file = tmp_path / "pipeline.toml"
    file.write_text(PIPELINE.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    rng = random.Random(7)
    asked = 0
    async with aiohttp.ClientSession() as http, Device(file, port) as device:
        await device.start(http)
        async with http.get(device.url + "/openapi.json") as answer:
            paths = (await answer.json())["paths"]

        async def tried(method: str, target: str, headers: list[str], body: bytes = b"") -> int:
            nonlocal asked
            asked += 1
            found = await status(port, method, target, headers, body)
            assert found < 500, (found, method, target, headers, body)
            return found

        for target in PATHS:
            await tried("GET", target, [])
        for path, methods in paths.items():
            for method, operation in methods.items():
                names = [p["name"] for p in operation["parameters"] if p["in"] == "query"] or ["x"]
                for value in VALUES:
                    place = re.sub(r"\{\w+\}", "valid", path)
                    for name in names:
                        await tried(method.upper(), f"{place}?{name}={value}", [])
                for _ in range(CASES * 5):
                    place = re.sub(r"\{\w+\}", lambda _: rng.choice(NAMES), path)
                    query = "&".join(
                        f"{rng.choice([*names, '', '%00', 'x[]'])}={rng.choice(VALUES)}"
                        for _ in range(rng.randint(0, 4))
                    )
                    headers = [*rng.sample(HEADERS, rng.randint(0, 2)), f"Content-Type: {rng.choice(KINDS)}"]
                    verb = rng.choice([method.upper()] * 3 + ["HEAD", "OPTIONS", "PUT", "DELETE", "get", "X"])
                    await tried(verb, f"{place}?{query}", headers, rng.choice(BODIES))
        for target in ("/dashboard/../../pyproject.toml", "/dashboard/%2e%2e/__init__.py", "/%2fapi"):
            assert await tried("GET", target, []) == 404
        print(f"{asked} odd requests, no 5xx")  # noqa: T201
        async with http.get(device.url + "/health") as answer:
            assert (await answer.json())["status"] == "ok"
        assert await device.end() == 0
