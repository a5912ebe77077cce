"""The dashboard: what is served at `/`, and in a real browser, if there is one, that it shows what the device has."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from pipeline.quantity import Secret
from pipeline.server import HttpServer
from sinks.query_server import page
from tests.device import Device, free_port
from tests.waiting import eventually

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MOST_BYTES = 120_000  # of all that the page loads, packed
ASSETS = sorted(file.name for file in page.FOLDER.iterdir() if file.suffix in page.TYPES and file.name != "index.html")
PATHS = ["/", *(f"/dashboard/{name}" for name in ASSETS)]
PIPELINE = """
[pipeline]
name = "greenhouse"
state = "state"
disorder = "0 s"
durability = "process"

[server]
listen = "127.0.0.1:{port}"
token = "open sesame, 123"

[sources.readings]
type = "http"
path = "/data"
key = "id"
fields = {{ value = "float" }}

[operators.hot]
type = "alert"
input = "readings"
when = "value > 30"
message = "{{id}} is hot"

[sinks.local]
type = "query_server"
inputs = ["readings", "hot"]
"""


class Listen:
    read_token = max_rate = None
    cors = ()
    tls = None
    insecure = False
    token: Secret | None = None

    def address(self) -> tuple[str, int]:
        return "127.0.0.1", 0


class Locked(Listen):
    token = Secret("open sesame, 123")


@asynccontextmanager
async def served(settings: Listen) -> AsyncIterator[str]:
    server = HttpServer(settings)
    page.mount(server)
    await server.start()
    try:
        yield server.url
    finally:
        await server.close()


@pytest.mark.parametrize("settings", [Listen(), Locked()])
async def test_the_page_and_all_it_loads(settings: Listen) -> None:
    """Without a token, too: it is the page that asks for one. All together it weighs little."""
    weight = 0
    async with served(settings) as url, aiohttp.ClientSession(auto_decompress=False) as http:
        for path in PATHS:
            async with http.get(url + path, headers={"Accept-Encoding": "gzip"}) as response:
                assert response.status == 200
                assert response.headers["Content-Encoding"] == "gzip"
                assert response.content_type == page.TYPES[Path(path).suffix or ".html"]
                weight += len(await response.read())
                tag = response.headers["ETag"]
            async with http.get(url + path, headers={"Accept-Encoding": ""}) as response:
                assert "Content-Encoding" not in response.headers
                assert await response.read() == (page.FOLDER / (Path(path).name or "index.html")).read_bytes()
            async with http.get(url + path, headers={"If-None-Match": tag}) as response:
                assert response.status == 304
            async with http.get(url + path, headers={"If-None-Match": '"another"'}) as response:
                assert response.status == 200
    assert 30_000 < weight < MOST_BYTES


async def test_only_the_page_is_public() -> None:
    async with served(Locked()) as url, aiohttp.ClientSession() as http:
        for path in ("/api/streams", "/dashboard/", "/dashboard/../api", "/dashboard/uplot.LICENSE.txt", "/x"):
            async with http.get(url + path) as response:
                assert response.status == 401, path
        async with http.post(url + "/") as response:
            assert response.status == 401


async def test_nothing_but_its_own_files_is_run() -> None:
    async with served(Listen()) as url, aiohttp.ClientSession() as http, http.get(url) as response:
        policy = response.headers["Content-Security-Policy"]
        text = await response.text()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style|javascript:", text)
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert {name for name in loaded if name.startswith("dashboard/")} == {f"dashboard/{name}" for name in ASSETS}
    assert set(loaded) == {f"dashboard/{name}" for name in ASSETS}


def test_it_needs_no_other_site() -> None:
    """The only addresses in it are where uPlot says who wrote it, and the name of SVG."""
    for file in page.FOLDER.iterdir():
        if file.suffix in page.TYPES:
            found = set(re.findall(r"""(?:https?:)?//[a-z0-9-]+\.[a-z][^\s"')]*""", file.read_text()))
            svg = {"http://www.w3.org/2000/svg"}
            allowed = {"uplot.js": {"https://github.com/leeoniya/uPlot"}, "icon.svg": svg, "graph.js": svg}
            assert found <= allowed.get(file.name, set()), file.name
    assert "MIT License" in (page.FOLDER / "uplot.LICENSE.txt").read_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(theme: str) -> None:
    """WCAG AA: 4.5 to 1 for text of each colour on each ground that it stands on."""
    light, dark = re.findall(r":root \{(.*?)\}", (page.FOLDER / "dashboard.css").read_text(), re.DOTALL)[:2]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]+);", light))
    if theme == "dark":
        colours |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]+);", dark))

    def luminance(colour: str) -> float:
        digits = colours[colour][1:]
        digits = "".join(d * 2 for d in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    pairs = [(text, ground) for text in ("text", "muted", "good", "warn", "bad") for ground in ("ground", "card")]
    for text, ground in [
        *pairs,
        ("text", "bad-card"),
        ("muted", "bad-card"),
        ("bad", "bad-card"),
        ("on-accent", "accent"),
    ]:
        low, high = sorted([luminance(text), luminance(ground)])
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


class Browser:
    """A page in Chromium, asked over its debugging port."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.numbers = itertools.count(1)
        self.wrong: list[str] = []  # exceptions, and what the console shows as errors

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": params})
        while True:
            told = await self.socket.receive_json(timeout=60)
            if told.get("id") == number:
                return cast("dict[str, Any]", told.get("result", {}))
            entry = told.get("params", {}).get("entry", {})
            if told.get("method") == "Runtime.exceptionThrown" or entry.get("level") == "error":
                self.wrong.append(json.dumps(told["params"]))

    async def until(self, condition: str) -> None:
        """This JavaScript is true."""

        async def is_true() -> bool:
            told = await self.call("Runtime.evaluate", expression=condition)
            return told.get("result", {}).get("value") is True

        await eventually(is_true, lambda: f"never: {condition}; {self.wrong}")


@asynccontextmanager
async def browser(url: str, profile: Path, http: aiohttp.ClientSession) -> AsyncIterator[Browser]:
    assert CHROMIUM
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--remote-debugging-port=0",
    ]
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *options, f"--user-data-dir={profile}", "about:blank", stderr=asyncio.subprocess.DEVNULL
    )
    try:
        port = profile / "DevToolsActivePort"
        await eventually(lambda: port.exists() and port.read_text().strip())
        async with http.put(f"http://127.0.0.1:{port.read_text().split()[0]}/json/new?about:blank") as response:
            target = await response.json(content_type=None)
        async with http.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            page = Browser(socket)
            for domain in ("Page", "Runtime", "Log"):
                await page.call(f"{domain}.enable")
            await page.call("Page.navigate", url=url)
            yield page
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
async def test_in_a_browser(tmp_path: Path) -> None:
    """It asks for the token, then shows each key, a chart, what is firing, and what comes while it is open."""
    file = tmp_path / "pipeline.toml"
    port = free_port()
    file.write_text(PIPELINE.format(port=port))
    bearer = {"Authorization": "Bearer open sesame, 123"}

    async with (
        aiohttp.ClientSession(headers=bearer) as http,
        aiohttp.ClientSession() as plain,
        Device(file, port) as device,
    ):

        async def post(key: str, value: float) -> None:
            async with http.post(f"{device.url}/data", json={"id": key, "value": value}) as response:
                assert response.status == 201

        await device.start(http)
        for value in (20.0, 21.5, 40.25):
            await post("s1", value)
        async with browser(device.url, tmp_path / "profile", plain) as shown:
            await shown.until("!document.getElementById('ask').hidden")
            enter = "document.getElementById('token').value = 'open sesame, 123'; document.querySelector('#ask button').click()"
            await shown.call("Runtime.evaluate", expression=enter)
            await shown.until("document.querySelectorAll('.tile').length === 1")
            await shown.until("document.querySelector('.tile .value').textContent === '40.25'")
            await shown.until("document.querySelectorAll('#chart canvas').length === 1")
            await shown.until("document.getElementById('firing').textContent.includes('s1 is hot')")
            await post("<b>s2</b>", 7.0)
            await shown.until("document.querySelectorAll('.tile').length === 2")
            await shown.until("[...document.querySelectorAll('.tile .key')].some(k => k.textContent === '<b>s2</b>')")
            await shown.until("document.documentElement.scrollWidth <= innerWidth")
            assert [told for told in shown.wrong if "401" not in told] == []  # of before the token was given
            await device.end()
            await shown.until("document.getElementById('line').textContent.includes('unreachable')")
            await shown.until("document.getElementById('trouble').textContent.includes('does not answer')")
