"""The pages of docs/ as a site: built strictly, complete, and searched in a browser that has no network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from tests.sinks.test_dashboard import CHROMIUM, Browser, browser

ROOT = Path(__file__).resolve().parent.parent


def build(source: Path, to: Path, builder: str = "html") -> subprocess.CompletedProcess[str]:
    """As `make docs` does."""
    line = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "-b html" in line)
    options = line.partition(" -m sphinx ")[2].replace("build/docs", str(to)).replace("-b html", f"-b {builder}")
    command = [sys.executable, "-m", "sphinx", *options.split()]
    return subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "docs"
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("README.md")]
    for page in pages:
        assert (site / page.relative_to(ROOT).with_suffix(".html")).exists(), page
    assert 'url=docs/index.html"' in (site / "index.html").read_text()
    assert '<html class="no-js" lang="zh"' in (site / "docs/tutorial.zh.html").read_text()
    assert '<html class="no-js" lang="en"' in (site / "docs/tutorial.html").read_text()


def test_it_loads_nothing_of_another_host(site: Path) -> None:
    """Scripts, styles, pictures, fonts."""
    foreign = r"""<(?:script|img|iframe|source)[^>]*src="(?:https?:)?//|<link[^>]*href="(?:https?:)?//"""
    for page in site.rglob("*.html"):
        assert not re.search(foreign, page.read_text()), page
    for file in [*site.rglob("*.css"), *site.rglob("*.js")]:
        assert not re.search(r"""url\(["']?(?:https?:)?//|@import|import\(|importScripts""", file.read_text()), file


def test_links_to_what_is_no_page(site: Path) -> None:
    """A file of the repository comes along; a folder is its README, or words."""
    mqtt = (site / "docs/mqtt.html").read_text()
    link = re.search(r'href="\.\./(_downloads/\w+/greenhouse\.toml)"', mqtt)
    assert link
    assert (site / link[1]).read_bytes() == (ROOT / "examples/greenhouse.toml").read_bytes()
    assert 'href="../examples/README.html"' in (site / "docs/tutorial.html").read_text()
    assert "provisioning/" in (site / "examples/grafana/README.html").read_text()


def test_what_is_wrong_fails(tmp_path: Path) -> None:
    """A link to no file, one to no heading, and a page that is in no list."""
    for folder in ("docs", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for file in ("README.md", "pyproject.toml", "pipeline.toml"):
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "docs/else").mkdir()
    links = "[a](nowhere.md) [b](../query.md#rows) [c](../query.md#no-heading)"
    (tmp_path / "docs/else/alone.md").write_text(f"# Alone\n{links}\n")
    done = build(tmp_path, tmp_path / "out", "dummy")
    assert done.returncode == 1
    wrong = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert [line for line in wrong if "alone.md" not in line] == []
    assert len(wrong) == 3
    for word in ("nowhere.md", "no-heading", "toc.not_included"):
        assert any(word in line for line in wrong), word


@asynccontextmanager
async def offline(folder: Path) -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession() as http, browser("about:blank", folder / "profile", http) as shown:
        await shown.call("Network.enable")
        nothing = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        await shown.call("Network.emulateNetworkConditions", offline=True, **nothing)
        yield shown
        assert shown.wrong == []


FOUND = "[...document.querySelectorAll('#search-results li a')].map(a => a.getAttribute('href').split(/[?#]/)[0])"


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
async def test_it_is_searched_without_a_network(site: Path, tmp_path: Path) -> None:
    """From file://. English by its stems, Chinese by what stands side by side; a word that is nowhere finds nothing."""
    async with offline(tmp_path) as shown:
        await shown.call("Page.navigate", url=(site / "index.html").as_uri())
        await shown.until("location.pathname.endsWith('/docs/index.html') && document.readyState === 'complete'")
        # A form that is sent while the browser still follows the redirect is lost: it is sent again, but not before it had time.
        form = "window.sent = Date.now(), document.querySelector('.sidebar-search').form.submit()"
        await shown.until(
            "location.pathname.endsWith('/search.html') || "
            "(document.querySelector('.sidebar-search').value = 'lateness', "
            f"Date.now() - (window.sent || 0) > 5000 && ({form}), false)"
        )
        await shown.until(f"{FOUND}.includes('docs/reference/operators.html')")
        for question, page in [
            ("power cuts", "docs/running.html"),
            ("警报", "docs/tutorial.zh.html"),
            ("流水线", "docs/README.zh.html"),
            ("断电不丢", "docs/README.zh.html"),
            ("警报HTTP流水线", "docs/README.zh.html"),
        ]:
            await shown.call("Page.navigate", url=f"{(site / 'search.html').as_uri()}?q={quote(question)}")
            await shown.until(f"location.search.length > 3 && {FOUND}.includes('{page}')")
        for question in ("zzyzx", "断网不电"):
            await shown.call("Page.navigate", url=f"{(site / 'search.html').as_uri()}?q={quote(question)}")
            await shown.until("document.body.textContent.includes('did not match any documents')")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
async def test_light_and_dark(site: Path, tmp_path: Path) -> None:
    async with offline(tmp_path) as shown:
        for scheme, ground in (("light", ">= 200"), ("dark", "<= 50")):
            await shown.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            await shown.call("Page.navigate", url=(site / "docs/alerts.html").as_uri())
            await shown.until(f"+getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] {ground}")
            await shown.until("document.documentElement.scrollWidth <= innerWidth")
