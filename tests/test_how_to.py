"""The pages by task, and those for who comes from another tool: each file in them is a good one, each command does what it says."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import struct
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pipeline.advice import advice
from pipeline.command.__main__ import parsers
from pipeline.command.usage import with_times
from pipeline.estimate import estimate
from pipeline.trial.compare import differences
from pipeline.trial.life import run
from pipeline.trial.tests import checked
from tests.modbus_peer import Plant, words
from tests.pages import NEEDED, ROOT, Here, Page, Pipeline, Shell, commands, slugs
from tests.peers.mosquitto import MOSQUITTO, Mosquitto

FILES = sorted([*(ROOT / "docs" / "how-to").glob("*.md"), *(ROOT / "docs" / "coming-from").glob("*.md")])
DEFAULT = "127.0.0.1:8080"  # where a pipeline listens that does not say where
SHORTER = {"many-sites": ('size = "1 min"', 'size = "1 s"')}  # what a page waits for, and a test need not
PAGES = [pytest.param(Page(file), id=f"{file.parent.name}/{file.stem}") for file in FILES]
TYPED = [pytest.param(page, id=page.path.stem) for page in map(Page, FILES) if page.typed()]
PIPELINES = [
    pytest.param(page, pipeline, id=f"{page.path.stem}:{pipeline.file}")
    for page in map(Page, FILES)
    for pipeline in page.pipelines()
]


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pages take from the environment, for their checks."""
    for file in FILES:
        for name in re.findall(r"\$\{(\w+)\}", file.read_text()):
            monkeypatch.setenv(name, f"the-{name.lower()}-of-a-test")


def laid_out(page: Page, folder: Path) -> None:
    for name, text in page.files().items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_one_title_and_blocks_of_known_kinds(page: Page) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.text, flags=re.MULTILINE | re.DOTALL)
    assert page.text.startswith("# ")
    assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1
    assert {block.language for block in page.blocks} <= {"", "toml", "sh", "text", "python", "json", "sql", "yaml"}


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_somewhere(page: Page) -> None:
    for link in page.links():
        name, _, place = link.partition("#")
        file = (page.path.parent / name).resolve() if name else page.path
        assert file.exists(), link
        assert not place or place in slugs(file.read_text()), link


@pytest.mark.parametrize(("page", "pipeline"), PIPELINES)
def test_each_pipeline_is_a_good_one_and_its_tests_pass(page: Page, pipeline: Pipeline, tmp_path: Path) -> None:
    laid_out(page, tmp_path)
    config, graph, blocks = checked(tmp_path / pipeline.file)
    assert [warning.text for warning in advice(config, graph, estimate(config, graph).memory)] == []
    assert blocks, "it has no test"
    for block in blocks:
        assert differences(run(config, block)) == [], block.name


@pytest.mark.parametrize(("page", "pipeline"), PIPELINES)
def test_each_part_fits_the_pipeline_of_its_page(page: Page, pipeline: Pipeline, tmp_path: Path) -> None:
    laid_out(page, tmp_path)
    for part in pipeline.parts:
        (tmp_path / "with.toml").write_text(pipeline.with_part(part))
        _, _, blocks = checked(tmp_path / "with.toml")
        assert blocks


@pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason="needs a shell with curl and sed")
@pytest.mark.parametrize("page", TYPED)
async def test_each_command_does_what_its_page_says(page: Page, tmp_path: Path) -> None:
    """Typed into a shell in an empty folder that has the files of the page; who should answer there does."""
    async with peer(page, tmp_path) as ports:
        await asyncio.to_thread(type_all, page, tmp_path / "here", Here(ports))


def type_all(page: Page, folder: Path, here: Here) -> None:
    put(page, folder, here)
    with Shell(folder, here) as shell:
        for lines, told in page.typed():
            shell.act(lines, told)


def put(page: Page, folder: Path, here: Here) -> None:
    """Its files, with the addresses of this test."""
    folder.mkdir()
    for name, text in page.files().items():
        own = text.replace(*SHORTER.get(page.path.stem, ("", "")))
        if "[pipeline]" in own and "[server]" not in own:
            own += f'\n[server]\nlisten = "{DEFAULT}"\n'
        (folder / name).write_text(here(own))


@pytest.mark.skipif(shutil.which("telegraf") is None, reason="Telegraf is not installed")
def test_telegraf_itself_writes_to_the_pipeline_of_its_page(tmp_path: Path) -> None:
    """By the telegraf.conf of the page, but each second."""
    here = Here()
    put(Page(ROOT / "docs" / "how-to" / "telegraf.md"), tmp_path / "here", here)
    with Shell(tmp_path / "here", here) as shell:
        shell.act(['sed -i \'s/"10s"/"1s"/\' telegraf.conf', "headwater run &"], "")
        shell.act(["telegraf --config telegraf.conf > telegraf.log 2>&1 &"], "")
        shell.act([f"curl -s http://{DEFAULT}/api/streams/total/latest"], '"host":"machine-1"…"usage_idle":')


@asynccontextmanager
async def peer(page: Page, folder: Path) -> AsyncIterator[dict[str, str]]:
    """Who answers at the addresses of a page, and at which port of this machine."""
    name = page.path.stem
    if name == "modbus":
        plant = Plant(1, 2)
        async with plant.over_tcp() as url:
            plant.put(1, 12, swapped(21.5))
            plant.put(1, 20, words(2301))
            yield {"502": url.rpartition(":")[2]}
    elif name == "switch-a-relay":
        async with Plant(1).over_tcp() as url:
            yield {"502": url.rpartition(":")[2]}
    elif "mqtt://" in page.text:
        if MOSQUITTO is None:
            pytest.skip("mosquitto is not installed")
        async with Mosquitto(folder) as broker:
            yield {"1883": str(broker.port)}
    else:
        yield {}


def swapped(number: float) -> bytes:
    """A float as two registers, the low word first."""
    data = struct.pack(">f", number)
    return data[2:] + data[:2]


@pytest.mark.parametrize("page", PAGES)
def test_what_cannot_be_run_here_is_a_command_all_the_same(page: Page) -> None:
    """Lines that need root, another machine or a person: the command takes them."""
    for block in page.blocks:
        for line in commands(block.text) if block.language == "" else []:
            words = shlex.split(line.removeprefix("sudo "))
            if words[0] == "headwater":
                parser, _ = parsers(words[1])
                parser.parse_args(with_times(words[1:]))


def test_pipelines_are_whole_files() -> None:
    """This test's own reading: a page has as many pipelines as it has [pipeline] tables."""
    for file in FILES:
        assert len(Page(file).pipelines()) == len(re.findall(r"^\[pipeline\]$", file.read_text(), re.MULTILINE))
        for pipeline in Page(file).pipelines():
            tomllib.loads(pipeline.text)
