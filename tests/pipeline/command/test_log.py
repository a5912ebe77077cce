"""The log of a running pipeline, as a terminal, a container and systemd's journal get it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# It logs two lines of two levels, says one, and ends by itself: a source of a finite file with a broken operator.
PIPELINE = """
[pipeline]
name = "logged"
state = "state"
durability = "none"

[sources.lines]
type = "file"
path = "lines.ndjson"
key = "id"
fields = { value = "float" }

[operators.broken]
type = "python"
input = "lines"
items = true
function = "broken.py:broken"

[sinks.out]
type = "file"
input = "broken"
path = "out.ndjson"
"""
BROKEN = """
from reactivex import operators as ops

def broken(items):
    return items.pipe(ops.map(lambda item: item["no such\\nfield"]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.toml").write_text(PIPELINE)
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "lines.ndjson").write_text('{"id": "a", "value": 1}\n')
    return tmp_path


def run(folder: Path, *words: str, journal: str | None = None) -> tuple[int, list[str]]:
    """Exit status and lines of standard error. `journal`: what $JOURNAL_STREAM says; "": that very stream."""
    ours, theirs = os.pipe()
    status = os.fstat(theirs)
    environ = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
    if journal is not None:
        environ["JOURNAL_STREAM"] = journal or f"{status.st_dev}:{status.st_ino}"
    process = subprocess.Popen(
        [sys.executable, *(words if words[:1] == ("-c",) else ("-m", "pipeline.command", "run", *words))],
        cwd=folder,
        stderr=theirs,
        env=environ | {"PYTHONPATH": os.getcwd()},
    )
    os.close(theirs)
    with open(ours, encoding="utf-8") as stream:
        said = stream.read().splitlines()
    return process.wait(), said


@pytest.mark.parametrize("journal", [None, "1:2", "nonsense"])
def test_elsewhere_than_in_the_journal_lines_have_their_time(folder: Path, journal: str | None) -> None:
    status, said = run(folder, journal=journal)
    assert status == 0
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ ERROR broken failed: KeyError", said[0])


def test_in_the_journal_they_have_their_priority(folder: Path) -> None:
    status, said = run(folder, journal="")
    assert status == 0
    assert said[0].startswith("<3>ERROR broken failed: KeyError")
    assert all(line.startswith("<3>") for line in said), said


def test_in_the_journal_every_line_has_it(folder: Path) -> None:
    """Each is an entry of its own there."""
    code = """if True:
        from pipeline.command.log import logging, say, set_up
        set_up("text", verbose=True)
        log = logging.getLogger("headwater")
        log.warning("two\\nlines")
        log.info("one")
        say("a plan\\nof two", logging.INFO)
    """
    _, said = run(folder, "-c", code, journal="")
    assert said == ["<4>WARNING two", "<4>lines", "<6>INFO one", "<6>a plan", "<6>of two"]


def test_as_json(folder: Path) -> None:
    _, said = run(folder, "--log", "json")
    assert json.loads(said[0])["level"] == "error"
    _, said = run(folder, "--log", "json", journal="")
    assert said[0][:3] == "<3>"
    assert json.loads(said[0][3:])["message"].startswith("broken failed: KeyError")


def test_why_it_ends_is_an_error(folder: Path) -> None:
    (folder / "lines.ndjson").unlink()
    status, said = run(folder, journal="")
    assert status == 1
    assert said[-1].startswith("<3>headwater: ")
    status, said = run(folder)
    assert said[-1].startswith("headwater: ")
