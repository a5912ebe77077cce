"""What must not leave a device, and what must not get in: over real sockets, and in the files that it writes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.test_http import PIPELINE, Running

SECRETS = {
    "token": "hush-token-1",
    "read_token": "hush-read-2",
    "cloud token": "hush-cloud-3",
    "header": "hush-header-4",
    "from the environment": "hush-env-5",
    "password of a URL": "hush-url-6",
}
SECRETIVE = (
    PIPELINE.replace(
        'listen = "127.0.0.1:0"', 'listen = "127.0.0.1:0"\ntoken = "hush-token-1"\nread_token = "hush-read-2"'
    )
    + """
[sinks.cloud]
type = "cloud"
input = "readings"
url = "http://me:hush-url-6@127.0.0.1:9"
token = "hush-cloud-3"
headers = { A = "hush-header-4", B = "${B}" }
"""
)


async def test_no_secret_leaves_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In no answer, error or log, and in no file of the state folder."""
    monkeypatch.setenv("B", SECRETS["from the environment"])
    caplog.set_level(logging.DEBUG)
    running = Running(tmp_path, SECRETIVE)
    await running.start()
    server = running.pipeline.server
    seen = []
    async with aiohttp.ClientSession(server.url, headers={"Authorization": "Bearer hush-token-1"}) as http:
        async with http.post("/data", json={"id": "a", "value": 80}) as response:
            assert response.status == 201
        while "retrying" not in (found := await (await http.get("/api/delivery")).text()):
            await asyncio.sleep(0.02)  # its failure is told
        seen.append(found)
        for method, path in server.routes:
            if path not in ("/api/live", "/api/socket"):
                async with http.request(method, path.replace("{name}", "readings"), data=b"{") as response:
                    seen.append(f"{response.headers} {await response.text()}")
    async with aiohttp.ClientSession(server.url) as http, http.get("/api/graph") as response:
        assert response.status == 401
        seen.append(await response.text())
    await running.stop()
    seen += [caplog.text, *(file.read_bytes().decode("latin-1") for file in (tmp_path / "state").rglob("*"))]
    for what, secret in SECRETS.items():
        assert not [text for text in seen if secret in text], what


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def device(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    made = Running(tmp_path_factory.mktemp("device"))
    await made.start()
    yield made
    await made.stop()


PATHS = [
    "//data",
    "/data/",
    "/DATA",
    "/data%00",
    "/data%2f",
    "/./data%20",
    "/..%2fdata",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/..;/data",
    "/api/streams/..%2f..%2fetc%2fpasswd/rows",
    "/api/streams/%2e%2e/rows",
    "/api/streams/dated%00/rows",
    "/api/streams/%ff/rows",
    "/api/streams/{name}/rows",
    "/api/alerts/..%2f..%2fsilence",
    "/docs/../../pipeline.toml",
    "/pipeline.toml",
    "/data\\",
    "http://elsewhere.example/nothing",
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_path_that_only_looks_like_one(method: str, path: str, device: Running) -> None:
    """Sent as it stands there, by no client that would tidy it up: nothing is found, and nothing is taken."""
    reader, writer = await asyncio.open_connection("127.0.0.1", device.pipeline.server.port)
    body = b'{"id": "a", "value": 1, "ts": 1, "a": 1}' if method == "POST" else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.read()
    writer.close()
    status = int(answer.split()[1])
    assert status in (400, 404, 405), answer[:200]
    assert b"application/problem+json" in answer
    assert b"root:" not in answer
    assert (await device.get("/data")) == (200, {})


TYPES = [
    "text/html",
    "text/plain",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
    "application/json, text/csv",
    "application/problem+json",
    "application/jsonx",
    "json",
    "application/octet-stream",
    "application/x-python-pickle",
    "/",
    ";",
    "x" * 5000,
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("given", TYPES)
async def test_a_body_of_another_type_is_never_executed_or_guessed(given: str, device: Running) -> None:
    """What a page can send without asking first is no reading either, unless it is JSON like that of any script."""
    status, problem = await device.post("/dated", b"<script>", headers={"Content-Type": given})
    assert status in (400, 415)
    assert problem["status"] == status


@pytest.mark.asyncio(loop_scope="module")
async def test_a_method_cannot_be_overridden(device: Running) -> None:
    headers = {"X-HTTP-Method-Override": "POST", "X-Original-URL": "/data", "X-Rewrite-URL": "/data"}
    url = device.pipeline.server.url + "/api/graph?_method=POST"
    async with device.http.get(url, headers=headers) as response:
        assert response.status == 400  # there is no parameter "_method"
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW"):
        async with device.http.request(method, device.pipeline.server.url + "/data") as response:
            assert response.status in (400, 404, 405), method


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_client_said_is_told_back_as_json_only(device: Running) -> None:
    """A browser never takes an answer that quotes its question for a page."""
    for path in ("/api/streams/<script>/rows", "/api/alerts?state=<script>", "/api/graph?<script>=1"):
        async with device.http.get(device.pipeline.server.url + path) as response:
            assert response.status in (400, 404)
            assert response.content_type == "application/problem+json"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert json.loads(await response.text())["detail"]
