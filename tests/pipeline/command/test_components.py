"""`headwater components` and `headwater schema`: what there is, told from the code itself."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pipeline import registry
from pipeline.command.__main__ import main
from pipeline.config import PipelineSettings, ServerSettings
from pipeline.quantity import Duration, Secret, Size
from pipeline.reference import KINDS, all_of, component, settings_of, toml

ROOT = Path(__file__).parents[3]
FILES = [
    ROOT / "pipeline.toml",
    *(f for f in sorted((ROOT / "examples").rglob("*.toml")) if not (f.parent / "pyproject.toml").exists()),
    *(f for f in sorted((ROOT / "tests" / "cases").glob("*.toml")) if not f.name.startswith("mistake_")),
]
PLAIN = """
[sources.house]
type = "http"
key = "id"
fields = { value = "float" }
"""


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    from pipeline.command.schema import schema_text

    schema = json.loads(schema_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def mistakes(validator: Draft202012Validator, text: str) -> list[str]:
    # TOML has dates, JSON has them as text.
    data = json.loads(json.dumps(tomllib.loads(text), default=str))
    return [error.message for error in validator.iter_errors(data)]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(list(words))
    out, err = capsys.readouterr()
    return status, out, err


# --- components ---


def test_every_component_is_listed_with_its_promise(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = printed(capsys, "components")
    assert status == 0
    for kind in KINDS:
        for type_ in registry.types(kind):
            line = next(line for line in out.splitlines() if line.split()[:1] == [type_])
            assert len(line.split()) > 2, line


def test_all_about_one(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = printed(capsys, "components", "changes")
    assert out.startswith("changes (operator): ")
    assert 'type = "changes"' in out
    assert "Settings\n" in out


def test_one_name_of_two_kinds_is_told_twice(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = printed(capsys, "components", "file")
    assert "file (source): " in out
    assert "file (sink): " in out


def test_an_unknown_one_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = printed(capsys, "components", "windw")
    assert (status, out) == (2, "")
    assert 'did you mean "window"?' in err


def test_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = printed(capsys, "components", "cloud", "--format", "json")
    (cloud,) = json.loads(out)
    told = {setting["name"]: setting for setting in cloud["settings"]}
    assert told["url"]["required"] is True
    assert told["batch.wait"]["default"] == '"5 s"'


def test_markdown_has_examples_fenced_and_a_row_for_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = printed(capsys, "components", "window", "--format", "markdown")
    assert out.count("```") % 2 == 0
    assert out.count("```") >= 2
    for setting in component("operator", "window").settings:
        assert f"| `{setting.name}` |" in out


def test_every_setting_is_described() -> None:
    """So that the reference and an editor have something to show."""
    all_settings = [(c.type, s) for c in all_of() for s in c.settings]
    all_settings += [("[pipeline]", s) for s in settings_of(PipelineSettings)]
    all_settings += [("[server]", s) for s in settings_of(ServerSettings)]
    assert [f"{owner}: {s.name}" for owner, s in all_settings if not s.description] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (Duration(10**10), '"10 s"'),
        (Size(64 << 20), '"64 MiB"'),
        (Secret("x"), '"***"'),
        (("a", 1.5), '["a", 1.5]'),
        ({"a": None, "b": 'say "b"'}, '{ b = "say \\"b\\"" }'),
        ({}, "{}"),
        (Path("var"), '"var"'),
    ],
)
def test_values_are_written_as_in_the_file(value: Any, text: str) -> None:
    assert toml(value) == text
    if "***" not in text:
        tomllib.loads(f"x = {text}")


# --- schema ---


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_files_that_run_are_valid(validator: Draft202012Validator, file: Path) -> None:
    assert mistakes(validator, file.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace('"http"', '"htp"'),
        PLAIN.replace("fields", "field"),
        PLAIN.replace("house", "my-house"),
        PLAIN + '[operators.valid]\ntype = "filter"\ninput = "house"',
        PLAIN + '[operators.w]\ntype = "window"\ninput = "house"\nsize = "10 s"\naggregate = 1',
        PLAIN + '[sinks.s]\ntype = "query_server"\ninput = "house"\nretention = "30 dogs"',
        PLAIN + '[sinks.s]\ntype = "cloud"\ninput = "house"\nurl = "http://x"\nbatch = { rows = 0 }',
        PLAIN + '[[test]]\nname = ""',
        PLAIN + '[[test]]\nname = "x"\nsteps = [{ at = "1 s", do = "explode" }]',
        "[pipline]\nname = 'x'",
    ],
)
def test_mistakes_are_found(validator: Draft202012Validator, text: str) -> None:
    assert mistakes(validator, PLAIN) == []
    assert mistakes(validator, text) != []


@pytest.mark.parametrize("text", ["30 d", "1.5 H", " 2min", "${RETENTION}", "${DAYS:-3} d"])
def test_durations_as_people_write_them(validator: Draft202012Validator, text: str) -> None:
    assert mistakes(validator, PLAIN + f'[sinks.s]\ntype = "query_server"\ninput = "house"\nretention = "{text}"') == []


def test_it_is_written_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = printed(capsys, "schema", "-o", str(tmp_path / "pipeline.schema.json"))
    assert status == 0
    assert "#:schema ./pipeline.schema.json" in out
    assert json.loads((tmp_path / "pipeline.schema.json").read_text())["title"] == "A Headwater pipeline"
    assert printed(capsys, "schema", "-o", str(tmp_path / "no" / "x.json"))[0] == 1
