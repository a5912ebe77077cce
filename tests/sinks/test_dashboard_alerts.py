"""The dashboard in a real browser, by keyboard alone: why, why not, seen, and be quiet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from sinks.query_server import page
from tests.device import Device, free_port
from tests.sinks.test_dashboard import CHROMIUM, PIPELINE, Browser, browser

NAMES = {"Tab": 9, "Enter": 13, "Escape": 27}
MOST_LINES = 400

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


class Seen(NamedTuple):
    browser: Browser
    http: aiohttp.ClientSession
    url: str

    async def press(self, name: str) -> None:
        key = {"key": name, "code": name, "windowsVirtualKeyCode": NAMES[name]}
        text = {"text": "\r"} if name == "Enter" else {}
        await self.browser.call("Input.dispatchKeyEvent", type="keyDown", **key, **text)
        await self.browser.call("Input.dispatchKeyEvent", type="keyUp", **key)

    async def says(self, expression: str) -> Any:
        told = await self.browser.call("Runtime.evaluate", expression=expression)
        return told["result"].get("value")

    async def tab_to(self, label: str) -> None:
        """Press Tab until something that is called so has the focus."""
        for _ in range(60):
            await self.press("Tab")
            focused = "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
            if await self.says(focused) == label:
                return
        raise AssertionError(f"Tab never comes to {label}")

    async def shows(self, text: str, where: str = "dialog") -> None:
        await self.browser.until(f"document.getElementById('{where}').textContent.includes({text!r})")

    async def post(self, key: str, value: float) -> None:
        async with self.http.post(f"{self.url}/data", json={"id": key, "value": value}) as response:
            assert response.status == 201


@asynccontextmanager
async def seen(folder: Path) -> AsyncIterator[Seen]:
    """`s1` fires, `s2` does not."""
    file = folder / "pipeline.toml"
    port = free_port()
    file.write_text(PIPELINE.format(port=port).replace('token = "open sesame, 123"\n', ""))
    async with aiohttp.ClientSession() as http, Device(file, port) as device:
        await device.start(http)
        async with browser("about:blank", folder / "profile", http) as shown:
            found = Seen(shown, http, device.url)
            for value in (20.0, 21.5, 40.25):
                await found.post("s1", value)
            await found.post("s2", 22.5)
            await shown.call("Page.navigate", url=device.url)
            await shown.until("document.querySelectorAll('#firing li').length === 1")
            await shown.until("document.querySelectorAll('#chart canvas').length === 1")
            yield found
            assert shown.wrong == []


async def test_why_by_keyboard(tmp_path: Path) -> None:
    """From the firing alert: the value, the limit, both in a chart; Esc closes, and the focus is where it was."""
    async with seen(tmp_path) as page_:
        await page_.tab_to("Why: hot s1")
        await page_.press("Enter")
        await page_.browser.until("document.getElementById('dialog').open")
        await page_.shows("value was 40.25: 10.25 above the limit of 30")
        await page_.shows("raised when value > 30")
        await page_.shows("nobody yet")
        await page_.browser.until("document.querySelectorAll('#dialog canvas').length === 1")
        await page_.browser.until("document.getElementById('dialog').contains(document.activeElement)")
        await page_.press("Escape")
        await page_.browser.until("!document.getElementById('dialog').open")
        await page_.browser.until("document.activeElement.getAttribute('aria-label') === 'Why: hot s1'")


async def test_why_not_of_a_quiet_key(tmp_path: Path) -> None:
    async with seen(tmp_path) as page_:
        tile = "[...document.querySelectorAll('.tile')].find(t => t.title === 's2')"
        await page_.browser.until(f"{tile} !== undefined")
        await page_.says(f"{tile}.focus()")
        await page_.press("Enter")
        await page_.browser.until("document.querySelector('#standing-list [aria-label=\"Why not: hot s2\"]') !== null")
        await page_.shows("7.5 away (22.5 and 30)", "standing")
        await page_.tab_to("Why not: hot s2")
        await page_.press("Enter")
        await page_.shows("value is 22.5: 7.5 below the limit of 30")


async def test_seen_and_silenced_by_keyboard(tmp_path: Path) -> None:
    """Who, with a note; the device knows it, and the page shows it."""
    async with seen(tmp_path) as page_:
        await page_.tab_to("Acknowledge: hot s1")
        await page_.press("Enter")
        await page_.browser.until("document.activeElement.name === 'by'")
        await page_.browser.call("Input.insertText", text="ann")
        await page_.press("Tab")
        await page_.browser.call("Input.insertText", text="on my way")
        await page_.press("Enter")
        await page_.shows("seen by ann: on my way", "firing")
        await page_.tab_to("Silence: hot s1")
        await page_.press("Enter")
        await page_.browser.until("document.getElementById('dialog').open")
        assert await page_.says("document.querySelector('#dialog [name=by]').value") == "ann"
        await page_.tab_to("Silence")
        await page_.press("Enter")
        await page_.shows("hot of s1 until", "quiet")
        await page_.shows("silenced until", "firing")
        async with page_.http.get(f"{page_.url}/api/alerts") as answer:
            told = await answer.json()
        (alert,), (silence,) = told["alerts"], told["silences"]
        assert (alert["acknowledged"]["by"], alert["acknowledged"]["note"]) == ("ann", "on my way")
        assert (silence["alert"], silence["key"], silence["by"]) == ("hot", "s1", "ann")
        await page_.tab_to("End the silence of hot of s1")
        await page_.press("Enter")
        await page_.browser.until("document.getElementById('quiet').hidden")


async def test_a_key_is_forgotten_by_keyboard(tmp_path: Path) -> None:
    """Its tile and its alert are gone, and the chart shows another key."""
    async with seen(tmp_path) as page_:
        await page_.browser.until("document.getElementById('chart-title').textContent.startsWith('s1')")
        await page_.tab_to("Forget")
        await page_.press("Enter")
        await page_.browser.until("document.activeElement.textContent === 'Forget it'")
        await page_.shows("Its history stays")
        await page_.press("Enter")
        await page_.browser.until("[...document.querySelectorAll('.tile')].map(t => t.title).join() === 's2'")
        await page_.browser.until("document.getElementById('chart-title').textContent.startsWith('s2')")
        await page_.browser.until("document.getElementById('alarms').hidden")
        async with page_.http.get(f"{page_.url}/api/streams/readings/latest") as answer:
            assert [row["id"] for row in (await answer.json())["rows"]] == ["s2"]


async def test_the_graph_its_table_health_and_a_dead_letter(tmp_path: Path) -> None:
    async with seen(tmp_path) as page_:
        async with page_.http.post(f"{page_.url}/data", json={"id": "s3", "value": "warm"}) as response:
            assert response.status == 400
        await page_.browser.until("document.querySelectorAll('#picture .node').length === 3")
        await page_.shows("1 refused", "picture")
        await page_.tab_to("Table")
        await page_.tab_to("Table")  # the first one is the chart's
        await page_.press("Enter")
        await page_.browser.until(
            "!document.getElementById('flow').hidden && document.getElementById('picture').hidden"
        )
        await page_.shows("http source", "flow")
        await page_.shows("flash written", "health")
        await page_.shows("expected a number", "dead")
        letter = await page_.says("document.querySelector('#dead button').getAttribute('aria-label')")
        await page_.tab_to(letter)
        await page_.press("Enter")
        await page_.shows("was tried and stays", "trouble")


def test_each_module_has_one_subject() -> None:
    for file in page.FOLDER.glob("*.js"):
        assert file.name == "uplot.js" or len(file.read_text().splitlines()) < MOST_LINES
