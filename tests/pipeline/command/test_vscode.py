"""What Visual Studio Code makes of the command's output, by the tasks that `headwater init --vscode` writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.command.__main__ import main
from tests.venv import ROOT

PROBLEMS = ROOT / "tests" / "problems"
TASKS = json.loads((ROOT / "pipeline/command/templates/vscode/tasks.json").read_text())["tasks"]
CHECK, TEST = (next(task for task in TASKS if task["label"] == f"headwater {name}") for name in ("check", "test"))


class Marker(NamedTuple):
    file: str
    line: int
    severity: str
    message: str


def markers(task: dict[str, Any], output: str) -> list[Marker]:
    """As VS Code does it (problemMatcher.ts): a matcher looks at as many lines in a row as it has patterns. A property that is
    there already stays, a message gets another line; a group that took no part gives nothing; default severity is the matcher's."""
    matchers = task["problemMatcher"]
    found = []
    lines = output.splitlines()
    for matcher in matchers if isinstance(matchers, list) else [matchers]:
        patterns = matcher["pattern"] if isinstance(matcher["pattern"], list) else [matcher["pattern"]]
        for at in range(len(lines) - len(patterns) + 1):
            data: dict[str, str] = {}
            for pattern, line in zip(patterns, lines[at:], strict=False):
                match = re.search(pattern["regexp"], line)
                if match is None:
                    break
                for name in pattern.keys() - {"regexp"}:
                    if (value := match[pattern[name]]) is not None:
                        data[name] = (
                            f"{data[name]}\n{value.strip()}" if name in data and name == "message" else value.strip()
                        )
            else:
                severity = data.get("severity", matcher["severity"])
                found.append(Marker(data["file"], int(data["line"]), severity, data["message"]))
    return found


def output_of(task: dict[str, Any], file: str, folder: Path) -> str:
    """What the terminal of a task shows."""
    assert task["command"] == "headwater"
    words = [word if word != "pipeline.toml" else file for word in task["args"]]
    command = [sys.executable, "-m", "pipeline.command", *words]
    env = {name: value for name, value in os.environ.items() if name not in ("ARCHIVE_FOLDER", "URL_OF_THE_CLOUD")}
    return subprocess.run(
        command, cwd=folder, env=env | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    ).stdout  # fmt: skip


def told(file: Path, capsys: pytest.CaptureFixture[str]) -> list[Marker]:
    """The oracle: what the same command tells programs."""
    capsys.readouterr()
    main(["check", "--format", "json", str(file)])
    found = json.loads(capsys.readouterr().out)
    kinds = {"problems": "error", "warnings": "warning"}
    return [
        Marker(file.name, one["line"], severity, f"{one['path']}: {one['text']}" if one["path"] else one["text"])
        for kind, severity in kinds.items()
        for one in found[kind]
    ]


@pytest.mark.parametrize("file", sorted(PROBLEMS.glob("*.toml")), ids=lambda file: file.stem)
def test_each_problem_is_on_its_line(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two tasks runs; and there is none that nobody has."""
    for name in ("ARCHIVE_FOLDER", "URL_OF_THE_CLOUD"):
        monkeypatch.delenv(name, raising=False)
    expected = told(file, capsys)
    assert expected != []
    for task in (CHECK, TEST):
        assert markers(task, output_of(task, file.name, PROBLEMS)) == expected


WARNED = """
[pipeline]
name = "x"

[sources.readings]
type = "http"
key = "id"
fields = { value = "float" }

[operators.hot]
type = "alert"
input = "readings"
when = "value > 1"

[sinks.local]
type = "query_server"
inputs = ["readings", "hot"]

[[test]]
name = "what fires (at once)"
input.readings = [{ at = "0 s", id = "a", value = 3 }]
expect.hot = [{ state = "cleared" }]
expect.readings = []

[[test]]
name = "what is right"
input.readings = [{ at = "0 s", id = "a", value = 0 }]
expect.hot = []

[[test]]
name = "nothing"
input.readings = [{ at = "0 s", id = "a", value = 3 }]
expect.hot = []
"""


def test_warnings_are_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Estimates of memory and flash stand below them, and are no problems."""
    file = tmp_path / "pipeline.toml"
    file.write_text(WARNED)
    expected = told(file, capsys)
    assert {marker.severity for marker in expected} == {"warning"}
    assert len(expected) == 2
    output = output_of(CHECK, "pipeline.toml", tmp_path)
    assert "memory: at most" in output
    assert markers(CHECK, output) == expected


def test_a_failed_test_is_at_its_block(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(WARNED)
    first, third = (WARNED[: WARNED.index(f'name = "{name}')].count("\n") for name in ("what fires", "nothing"))
    assert markers(TEST, output_of(TEST, "pipeline.toml", tmp_path)) == [
        Marker("pipeline.toml", first, "error", "what fires (at once)\nhot: 1 row expected, 1 came"),
        Marker("pipeline.toml", third, "error", "nothing\nhot: 0 rows expected, 1 came"),
    ]


def test_a_good_file_has_none() -> None:
    for task in (CHECK, TEST):
        output = output_of(task, str(ROOT / "examples" / "health" / "pipeline.toml"), ROOT)
        assert output
        assert markers(task, output) == []


# --- headwater init --vscode ---


def test_with_a_new_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path), "--vscode"]) == 0
    assert "Ctrl+Shift+B" in capsys.readouterr().out
    assert json.loads((tmp_path / ".vscode" / "tasks.json").read_text())["tasks"] == TASKS
    recommended = json.loads((tmp_path / ".vscode" / "extensions.json").read_text())["recommendations"]
    assert recommended == ["tamasfe.even-better-toml"]
    assert (tmp_path / "pipeline.schema.json").exists()
    assert markers(CHECK, output_of(CHECK, "pipeline.toml", tmp_path)) == []
    assert markers(TEST, output_of(TEST, "pipeline.toml", tmp_path)) == []


def test_beside_a_pipeline_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text("mine")
    assert main(["init", str(tmp_path), "--vscode"]) == 0
    assert (tmp_path / ".vscode" / "tasks.json").exists()
    assert (tmp_path / "pipeline.toml").read_text() == "mine"


@pytest.mark.parametrize("name", ["tasks.json", "extensions.json"])
def test_nothing_is_overwritten(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".vscode").mkdir()
    (tmp_path / ".vscode" / name).write_text("mine")
    assert main(["init", str(tmp_path), "--vscode"]) == 2
    assert f"{name} is there already; nothing was written" in capsys.readouterr().err
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == [name]


def test_the_page_shows_what_is_written() -> None:
    page = (ROOT / "docs" / "editors.md").read_text()
    (shown,) = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert json.loads(shown) == CHECK["problemMatcher"]
    assert TEST["problemMatcher"][0] == CHECK["problemMatcher"]


def test_vim_reads_it_as_well() -> None:
    """Its errorformat, %f %l %m taken for what they are: the first that fits counts."""
    page = (ROOT / "docs" / "editors.md").read_text()
    (formats,) = re.findall(r"errorformat=(.*)$", page, re.MULTILINE)
    fits = [
        re.compile(re.escape(one).replace("%f", "(.+?)").replace("%l", r"(\d+)").replace("%m", "(.+)"))
        for one in formats.replace("\\ ", " ").split(",")
    ]
    lines = ["p.toml:3: warning: sinks.x: grows", "p.toml:4: operators.y.when: is wrong", "memory: at most 3 MB: so"]
    matches = [next((m.groups() for fit in fits if (m := fit.fullmatch(line))), None) for line in lines]
    assert matches == [("p.toml", "3", "sinks.x: grows"), ("p.toml", "4", "operators.y.when: is wrong"), None]
