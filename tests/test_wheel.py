"""What is installed is all of it: the wheel, unpacked beside no checkout, does what the checkout does."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipeline.command.init import TEMPLATES

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pipeline", "operators", "sinks")
# It builds from a copy: setuptools leaves its own folders beside what it builds from.
COPIED = (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")
SERVE = """
import asyncio, sys
from pathlib import Path
from tempfile import TemporaryDirectory
import aiohttp
from pipeline.run import Pipeline, check

async def main(paths):
    pipeline = Pipeline(*check(Path("pipeline.toml")))
    ready = asyncio.Event()
    pipeline.on_start = lambda _: ready.set()
    task = asyncio.create_task(pipeline.run())
    done, _ = await asyncio.wait([task, asyncio.create_task(ready.wait())], return_when="FIRST_COMPLETED")
    async with aiohttp.ClientSession(pipeline.server.url) as http:
        for path in paths:
            async with http.get(path) as answer:
                print(path, answer.status)
    pipeline.stop()
    await task

asyncio.run(main(sys.argv[1:]))
"""


def tracked() -> set[str]:
    """The files of the packages; without git, as in what is distributed, those that are there."""
    done = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0 and done.stdout:
        return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}
    found = (file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file())
    return {str(file.relative_to(ROOT)) for file in found if "__pycache__" not in file.parts}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in [*tracked(), *COPIED[len(PACKAGES) :]]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    words = [
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--wheel-dir",
        str(made),
        str(source),
    ]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    (wheel,) = made.glob("headwater-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(made / "site")
    return made / "site"


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )


def headwater(installed: Path, folder: Path, *words: str) -> str:
    done = run(installed, folder, "-m", "pipeline.command", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_file_of_the_packages_is_in_the_wheel(installed: Path) -> None:
    there = {str(file.relative_to(installed)) for file in installed.rglob("*") if file.is_file()}
    assert tracked() - there == set()
    beside = {name.partition("/")[0] for name in there if not name.startswith(PACKAGES)}
    assert all(name.endswith(".dist-info") for name in beside), beside


def test_it_is_the_wheel_that_is_tested(installed: Path, tmp_path: Path) -> None:
    done = run(
        installed, tmp_path, "-c", "import pipeline.run, sinks.file; print(pipeline.run.__file__, sinks.file.__file__)"
    )
    assert all(place.startswith(str(installed)) for place in done.stdout.split()), done.stdout + done.stderr


@pytest.mark.parametrize("template", TEMPLATES)
def test_each_template(template: str, installed: Path, tmp_path: Path) -> None:
    headwater(installed, tmp_path, "init", "made", "--template", template)
    folder = tmp_path / "made"
    assert "no problems" in headwater(installed, folder, "check")
    assert "all passed" in headwater(installed, folder, "test")
    assert (folder / "pipeline.schema.json").read_text() == headwater(installed, folder, "schema")


def test_the_manual_and_the_pages(installed: Path, tmp_path: Path) -> None:
    """All that is served is there, and all that is listed."""
    from pipeline.registry import types

    listed = headwater(installed, tmp_path, "components")
    assert all(name in listed for kind in ("source", "operator", "sink", "codec") for name in types(kind))
    headwater(installed, tmp_path, "init", ".", "--template", "machine", "--listen", "127.0.0.1:0")
    page = ("index.html", "uplot.LICENSE.txt")  # the page itself, and what is not served
    files = [name.name for name in sorted((ROOT / "sinks/query_server/dashboard").iterdir()) if name.name not in page]
    paths = ["/", "/docs", "/openapi.json", "/health", *(f"/dashboard/{name}" for name in files)]
    done = run(installed, tmp_path, "-c", SERVE, *paths)
    assert done.stdout.splitlines() == [f"{path} 200" for path in paths], done.stderr
