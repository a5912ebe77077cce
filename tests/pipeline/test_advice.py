"""What `headwater check` warns of: with its line, with a way out, and never so that a run is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.advice import advice
from pipeline.command.__main__ import main
from pipeline.command.init import TEMPLATES
from pipeline.run import check

ROOT = Path(__file__).parents[2]
QUIET = """
[pipeline]
name = "quiet"

[sources.in]
type = "http"
key = "id"
fields = { value = "float", count = "int", room = "string" }

[operators.mean]
type = "window"
input = "in"
size = "10 s"
by = ["room"]
aggregate = { mean = "mean(value)" }

[operators.hot]
type = "alert"
input = "in"
when = "value > 30"
clear = "value < 28"

[sinks.local]
type = "query_server"
inputs = ["mean", "hot"]
retention = "30 d"
"""
# examples/degree-days needs its plug-in, and a test of its own installs that.
EXAMPLES = [
    ROOT / "pipeline.toml",
    *(f for f in sorted((ROOT / "examples").rglob("*.toml")) if f.parent.name != "degree-days"),
]


def told(folder: Path, *changes: tuple[str, str], memory: int = 0) -> list[str]:
    text = QUIET
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    file = folder / "pipeline.toml"
    file.write_text(text)
    return [warning.show(Path("p.toml")) for warning in advice(*check(file), memory)]


def test_nothing_is_said_of_a_file_that_is_well(tmp_path: Path) -> None:
    assert told(tmp_path) == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_nothing_is_said_of_what_init_writes(name: str, tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / name), "--template", name]) == 0
    assert advice(*check(tmp_path / name / "pipeline.toml"), 0) == []


@pytest.mark.parametrize("file", EXAMPLES, ids=str)
def test_nothing_is_said_of_the_examples(file: Path) -> None:
    assert advice(*check(file), 0) == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('\nretention = "30 d"', "", "p.toml:23: sinks.local: the history of mean, hot grows until the disk is full"),
        (
            '\nclear = "value < 28"',
            "",
            "p.toml:20: operators.hot.when: a value around the limit raises it again and again",
        ),
        ('by = ["room"]', 'by = ["value"]', 'p.toml:14: operators.mean.by: each different "value" is a group'),
        (
            'clear = "value < 28"',
            'silent_for = "5 s"\nclear = "value < 28"',
            "p.toml:21: operators.hot.silent_for: if nothing comes at all it is told only after 10 s",
        ),
        (
            'name = "quiet"',
            'name = "quiet"\nstate = "/tmp/quiet"',
            "p.toml:4: pipeline.state: all that was kept is gone at the next start",
        ),
        ('"mean", "hot"', '"hot"', "p.toml:10: operators.mean: nothing reads its rows"),
        (
            "[sources.in]",
            '[server]\nlisten = "0.0.0.0:80"\ninsecure = true\n\n[sources.in]',
            "p.toml:7: server.insecure: anyone in the network may read and send",
        ),
        (
            "[sources.in]",
            '[server]\nlisten = "0.0.0.0:80"\ntoken = "open sesame"\n\n[sources.in]',
            "p.toml:6: server.listen: the token crosses the network in plain text",
        ),
        (
            "[sources.in]",
            '[server]\ntoken = "open sesame"\n\n[sources.in]',
            "p.toml:6: server.token: the secret stands in the file",
        ),
        (
            "[sinks.local]",
            '[sinks.c]\ntype = "cloud"\ninput = "hot"\nurl = "https://x/"\ntoken = "mine"\n\n[sinks.local]',
            "p.toml:27: sinks.c.token: the secret stands in the file, and in every copy of it: write ${TOKEN}",
        ),
    ],
)
def test_what_will_hurt_is_told(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert any(line.startswith(said) for line in told(tmp_path, (before, after)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('clear = "value < 28"', 'for = "5 s"'),
        ('clear = "value < 28"', 'silent_for = "10 s"\nclear = "value < 28"'),
        ('name = "quiet"', 'name = "quiet"\nstate = "/tmp/quiet"\ndurability = "none"'),
        ('when = "value > 30"\nclear = "value < 28"', 'when = "count > 30"'),  # what is counted has no noise
        ("[sources.in]", '[server]\ntoken = "${TOKEN:-x}"\n\n[sources.in]'),
    ],
)
def test_what_does_not_hurt_is_not_told(tmp_path: Path, before: str, after: str) -> None:
    assert told(tmp_path, (before, after)) == []


def test_memory_beyond_half_of_the_machine_s(tmp_path: Path) -> None:
    (line,) = told(tmp_path, memory=10**15)
    assert "lower max_keys" in line


def test_check_shows_them_and_is_fine_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(tmp_path, ('\nretention = "30 d"', ""))
    file = str(tmp_path / "pipeline.toml")
    assert main(["check", file]) == 0
    assert f"{file}:23: warning: sinks.local: the history of mean, hot grows" in capsys.readouterr().out
    assert main(["check", file, "--format", "json"]) == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert (warning["line"], warning["path"]) == (23, "sinks.local")
