"""The example dashboard of Grafana asks what the reference pipeline answers: each panel, each column."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.test_http import Running

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "grafana"
DASHBOARD = json.loads((EXAMPLE / "headwater.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
REFERENCE = (
    (ROOT / "pipeline.toml").read_text().replace("127.0.0.1:8080", "127.0.0.1:0").replace('"power"', '"process"')
)
KINDS: dict[str, tuple[type, ...]] = {"timestamp": (str,), "string": (str,), "number": (int, float)}
MAY_BE_NULL = {"last_error", "oldest", "error", "rows_in", "rows_out", "level"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """The reference pipeline, with a reading that closes a window and one that is too high."""
    made = Running(tmp_path_factory.mktemp("grafana"), REFERENCE)
    await made.start()
    await made.post("/data", [{"id": "s1", "value": 81.5}, {"id": "s1", "value": 20}, {"id": "s2", "value": 90}])
    while not (await made.get("/api/streams/machine/latest"))[1]["rows"]:
        await asyncio.sleep(0.05)
    yield made
    await made.stop()


def path_of(target: dict[str, Any]) -> str:
    """What Grafana would ask, of the hour around now."""
    now = time.time_ns() // 1_000_000
    values = {"${device}": "", "${__from}": str(now - 3_600_000), "${__to}": str(now + 3_600_000)}
    url = target["url"]
    for name, value in values.items():
        url = url.replace(name, value)
    assert "$" not in url
    return url


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("title", PANELS)
async def test_each_panel_is_answered(title: str, running: Running) -> None:
    """With rows where its root is, and in them each column, of the kind that it is said to be."""
    (target,) = PANELS[title]["targets"]
    status, found = await running.get(path_of(target))
    assert status == 200, found
    rows = found[target["root_selector"]]
    columns = {column["selector"]: KINDS[column["type"]] for column in target["columns"]}
    if "/ten_seconds/" in target["url"]:  # its first window has not closed yet: the stream says what it will have
        told = {s["name"]: s for s in (await running.get("/api/streams"))[1]["streams"]}["ten_seconds"]
        assert set(columns) <= {told["key"], "time", *told["fields"]}
        return
    assert rows
    for name, kinds in columns.items():
        assert any(name in row for row in rows), name
        for row in rows:
            value = row.get(name)
            assert isinstance(value, kinds) or (value is None and name in MAY_BE_NULL), (name, row)


def test_panels_do_not_overlap_and_all_use_the_one_source() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS.values():
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["datasource"] == panel["targets"][0]["datasource"]
    source = (EXAMPLE / "provisioning" / "datasources" / "headwater.yaml").read_text()
    for name in ("uid", "type"):
        assert f"{name}: {DASHBOARD['panels'][0]['datasource'][name]}\n" in source


def test_the_readme_names_what_is_there() -> None:
    text = (EXAMPLE / "README.md").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (EXAMPLE / link).exists()
