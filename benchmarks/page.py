"""The dashboard in Chromium, of a device that takes 100 readings/s of 50 keys: `python -m benchmarks.page [SECONDS [TABS]]`.

What is printed: how much the page weighs packed, when its first chart is drawn (in a browser that has nothing of it yet), what
its console says, and what the device's process takes of a processor without a tab and with 20 (each in a browser context of
its own: a browser opens six connections to a host, and each tab keeps one). A tab that is not in sight asks nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.device import Device, free_port
from tests.sinks.test_dashboard import Browser, browser

RATE = 100
KEYS = 50
MOST = 120_000  # bytes
SEEN = """new MutationObserver((_, me) => {
  if (document.querySelector('#chart canvas')) { window.charted = performance.now(); me.disconnect(); }
}).observe(document, {childList: true, subtree: true})"""
WEIGHT = """JSON.stringify([...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
  .map(e => [new URL(e.name).pathname, e.encodedBodySize, e.transferSize]).filter(([path]) => !path.startsWith('/api')
    && path !== '/health'))"""
PIPELINE = """
[pipeline]
name = "page"
state = "state"
disorder = "0 s"

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
path = "/data"
key = "id"
fields = {{ temperature = "float", humidity = "float" }}

[operators.minutes]
type = "window"
input = "readings"
size = "1 min"
aggregate = {{ average = "mean(temperature)" }}

[operators.hot]
type = "alert"
input = "readings"
when = "temperature > 30"

[sinks.local]
type = "query_server"
inputs = ["readings", "minutes", "hot"]
"""


@asynccontextmanager
async def fed(http: aiohttp.ClientSession, url: str) -> AsyncIterator[None]:
    """Readings come, ten requests a second."""

    async def post() -> None:
        began, sent = time.perf_counter(), 0
        while True:
            readings = [
                {"id": f"s{(sent + i) % KEYS}", "temperature": 20.5 + i, "humidity": 50} for i in range(RATE // 10)
            ]
            async with http.post(f"{url}/data", json=readings) as answer:
                assert answer.status == 201
            sent += len(readings)
            await asyncio.sleep(max(0.0, began + sent / RATE - time.perf_counter()))

    feeding = asyncio.create_task(post())
    try:
        yield
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


async def says(page: Browser, expression: str) -> Any:
    return (await page.call("Runtime.evaluate", expression=expression))["result"].get("value")


async def share(process: psutil.Process, seconds: float) -> float:
    """Of one processor."""
    before = sum(process.cpu_times()[:2])
    await asyncio.sleep(seconds)
    return float(sum(process.cpu_times()[:2]) - before) / seconds


async def tabs(http: aiohttp.ClientSession, profile: Path, url: str, count: int) -> aiohttp.ClientWebSocketResponse:
    """Open so many; the socket to the browser that holds them."""
    port = (profile / "DevToolsActivePort").read_text().split()[0]
    async with http.get(f"http://127.0.0.1:{port}/json/version") as answer:
        socket = await http.ws_connect((await answer.json(content_type=None))["webSocketDebuggerUrl"], max_msg_size=0)
    whole = Browser(socket)
    for _ in range(count):
        context = (await whole.call("Target.createBrowserContext"))["browserContextId"]
        await whole.call("Target.createTarget", url=url, browserContextId=context)
    return socket


async def main(seconds: float, count: int) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder, port = Path(place), free_port()
        file = folder / "pipeline.toml"
        file.write_text(PIPELINE.format(port=port))
        async with aiohttp.ClientSession() as http, Device(file, port) as device:
            await device.start(http)
            assert device.process is not None
            process = psutil.Process(device.process.pid)
            async with fed(http, device.url):
                await asyncio.sleep(3)
                alone = await share(process, seconds)
                async with browser("about:blank", folder / "profile", http) as page:
                    await page.call("Page.addScriptToEvaluateOnNewDocument", source=SEEN)
                    await page.call("Page.navigate", url=device.url)
                    await page.until("window.charted !== undefined")
                    charted = await says(page, "window.charted")
                    loaded = json.loads(await says(page, WEIGHT))
                    await asyncio.sleep(seconds)  # with what comes meanwhile
                    wrong = list(page.wrong)
                    await page.call("Page.navigate", url="about:blank")
                    socket = await tabs(http, folder / "profile", device.url, count)
                    await asyncio.sleep(8)
                    async with http.get(f"{device.url}/health") as answer:
                        fine = (await answer.json())["status"]
                    connections = sum(one.status == "ESTABLISHED" for one in process.net_connections())
                    many = await share(process, seconds)
                    await socket.close()
            await device.end()
    weight = sum(size for _, size, _ in loaded)
    print(
        f"weight: {weight:,} bytes packed in {len(loaded)} files (at most {MOST:,}); {sum(s for *_, s in loaded):,} with heads"
    )
    print(f"first chart: {charted:.0f} ms after the address was entered, nothing cached")
    print(f"console: {len(wrong)} errors {wrong or ''}")
    print(
        f"device at {RATE} readings/s of {KEYS} keys: {alone:.1%} of a processor without a tab, {many:.1%} with {count}"
    )
    print(f"  ({connections} connections open; health: {fine})")


if __name__ == "__main__":
    given = [float(word) for word in sys.argv[1:]]
    asyncio.run(main(given[0] if given else 10.0, int(given[1]) if len(given) > 1 else 20))
