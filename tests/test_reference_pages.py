"""docs/language.md and docs/http.md: complete, and true."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from pipeline.aggregate import AGGREGATES
from pipeline.quantity import BYTE_UNITS, TIME_UNITS, duration, size
from pipeline.times import UNITS, nanoseconds
from pipeline.trial import life
from pipeline.trial.compare import differences
from pipeline.trial.tests import checked
from tests.test_http import Running

DOCS = Path(__file__).resolve().parent.parent / "docs"
LANGUAGE = (DOCS / "language.md").read_text()
HTTP = (DOCS / "http.md").read_text()


def section(text: str, name: str) -> str:
    return text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_its_pipeline_passes_its_test(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    (text,) = re.findall(r"^```toml\n(.*?)^```", LANGUAGE, re.MULTILINE | re.DOTALL)
    file.write_text(text)
    config, _, blocks = checked(file)
    assert [differences(life.run(config, block)) for block in blocks] == [[]]


def test_every_table_is_told() -> None:
    from pipeline.file_schema import schema
    from pipeline.trial.block import TestBlock

    told = set(re.findall(r"^\| `\[+(\w+)", section(LANGUAGE, "Tables"), re.MULTILINE))
    assert told == set(schema(TestBlock)["properties"])


def test_every_aggregate_is_told() -> None:
    told = re.findall(r"`(\w+)\(", section(LANGUAGE, "Aggregates"))
    assert set(told) == set(AGGREGATES)


def test_every_unit_is_told() -> None:
    """What is shown is read as what it says."""
    values = section(LANGUAGE, "Values")
    lengths, sizes = (
        next(row for row in values.splitlines() if row.startswith(f"| a {of} ")) for of in ("length", "size")
    )
    assert set(re.findall(r"`(\w+)`", lengths)) == {unit for unit in TIME_UNITS if unit.isascii()}
    assert set(re.findall(r"`(\w+)`", sizes)) == set(BYTE_UNITS)
    shown = [int(duration(text)) for text in re.findall(r'`"([^"]+)"`', lengths)]
    assert shown == [500_000_000, 10 * 10**9, 120 * 10**9, 3600 * 10**9, 7 * 86_400 * 10**9]
    assert int(duration("10s")) == int(duration("10 s"))
    assert [int(size(text)) for text in re.findall(r'`"([^"]+)"`', sizes)] == [100_000_000, 64 << 20]


def test_every_form_of_time_is_told() -> None:
    """Also where `auto` changes its mind."""
    table = [row.split(" | ")[0] for row in section(LANGUAGE, "Readings").splitlines() if row.startswith("| `")]
    told = [unit for row in table for unit in re.findall(r"`(\w+)`", row) if unit != "time_unit"]
    assert set(told) == set(UNITS)
    times, wrong = nanoseconds(re.findall(r"`(2026[^`]+)`", LANGUAGE), "iso")
    assert wrong is None
    assert times[1] - times[0] == 500_000_000
    assert nanoseconds([9_000_000_000], "auto")[0][0] == 9_000_000_000 * 10**9
    assert nanoseconds([100_000_000_000], "auto")[0][0] == 100_000_000_000 * 10**6


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(tmp_path)
    await made.start()
    yield made
    await made.stop()


async def test_every_route_is_told(running: Running) -> None:
    """But for the files of the dashboard, and further http sources."""
    told = re.findall(r"^\| `(GET|POST) (/[^`]*)`", HTTP, re.MULTILINE)
    routes = {(method, path) for method, path in running.pipeline.server.routes if not path.startswith("/dashboard/")}
    others = {("GET", "/status"), ("POST", "/status"), ("GET", "/dated"), ("POST", "/dated")}
    assert set(told) == routes - others
    assert len(told) == len(set(told))


async def test_what_is_said_of_all_answers(running: Running) -> None:
    status, told = await running.post("/data", {"id": "s1", "value": 21.5})
    assert (status, told) == (201, {"status": "success", "message": "Data received!"})
    url = running.pipeline.server.url
    async with running.http.get(f"{url}/api/streams/readings/rows?frum=-1h") as answer:
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"
        problem = await answer.json(content_type=None)
    assert {"title", "status", "detail"} <= problem.keys()
    assert "frum" in problem["detail"]
