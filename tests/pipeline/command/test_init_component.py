"""`headwater init --component`: what is made works as it comes, installed for real, whatever its kind."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator

from pipeline.command.__main__ import main
from pipeline.command.skeleton import KINDS, LONGEST, files
from tests.venv import ROOT, Venv

NAMES = {"source": "outgoing_folder", "codec": "board", "operator": "flow_rate", "sink": "spool"}
SETTING = {"source": "every", "operator": "per", "sink": "most"}  # one of each, to be wrong


class Made(NamedTuple):
    venv: Venv
    folders: dict[str, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One of each kind, made and installed as the command says."""
    place = tmp_path_factory.mktemp("components")
    venv = Venv(place / "venv")
    folders = {}
    for kind, name in NAMES.items():
        done = venv.headwater("init", "--component", kind, name, cwd=place)
        assert (done.returncode, done.stderr) == (0, "")
        folders[kind] = place / f"headwater-{name.replace('_', '-')}"
        assert f"cd {folders[kind].name}" in done.stdout
    venv.install(*folders.values())
    return Made(venv, folders)


@pytest.mark.parametrize("kind", KINDS)
def test_its_tests_pass(made: Made, kind: str) -> None:
    done = made.venv.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=made.folders[kind])
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_its_tests_can_fail(made: Made, kind: str, tmp_path: Path) -> None:
    """The code is broken in the place that matters most."""
    broken = {
        "source": ("files + 1", "files + 2"),
        "codec": ("reduce(xor, body, 0)", "reduce(xor, body, 1)"),
        "operator": ("before[turns.first] = self.last[turns.keys]", "pass"),
        "sink": ("part.rename(file)", "pass"),
    }
    old, new = broken[kind]
    for file, text in files(kind, NAMES[kind]).items():
        assert file != f"headwater_{NAMES[kind]}.py" or old in text
        (tmp_path / file).write_text(text.replace(old, new))
    words = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider")
    done = made.venv.run(*words, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stdout


def test_style_and_types_are_clean(made: Made) -> None:
    """By its own settings; the types once for all four, which takes as long as for one."""
    for folder in made.folders.values():
        for words in (["check"], ["format", "--check"]):
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *words, "--no-cache"],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout
    sources = [str(file) for folder in made.folders.values() for file in sorted(folder.glob("*.py"))]
    config = made.folders["source"] / "pyproject.toml"
    types = [sys.executable, "-m", "mypy", "--python-executable", str(made.venv.python), "--config-file", str(config)]
    done = subprocess.run([*types, *sources], cwd=made.venv.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_listed_and_documented_like_a_built_in(made: Made, kind: str) -> None:
    name = NAMES[kind]
    listed = made.venv.headwater("components").stdout
    assert any(line.split()[:1] == [name] and len(line.split()) > 3 for line in listed.splitlines())
    told = made.venv.headwater("components", name).stdout
    assert told.startswith(f"{name} ({kind}, of headwater-{name.replace('_', '-')} 0.1.0): ")
    assert f'type = "{name}"' in told
    (plain,) = json.loads(made.venv.headwater("components", name, "--format", "json").stdout)
    assert plain["settings"]
    assert all(setting["description"] for setting in plain["settings"])


@pytest.mark.parametrize("kind", KINDS)
def test_its_example_is_checked_and_passes(made: Made, kind: str) -> None:
    """And fits the schema that an editor is given."""
    checked = made.venv.headwater("check", "example.toml", cwd=made.folders[kind])
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "warning" not in checked.stdout
    tested = made.venv.headwater("test", "example.toml", cwd=made.folders[kind])
    assert (tested.returncode, tested.stderr) == (0, "")
    assert "1 test, all passed" in tested.stdout
    schema = json.loads(made.venv.headwater("schema").stdout)
    data = tomllib.loads((made.folders[kind] / "example.toml").read_text())
    assert [error.message for error in Draft202012Validator(schema).iter_errors(data)] == []
    if setting := SETTING.get(kind):
        wrong: Any = data[f"{kind}s"]
        next(table for table in wrong.values() if table["type"] == NAMES[kind])[setting] = "never"
        assert list(Draft202012Validator(schema).iter_errors(data)) != []


@pytest.mark.parametrize(
    ("kind", "old", "new", "said"),
    [
        ("operator", 'field = "litres"', 'field = "liters"', 'operators.flow.field: "liters" is not a field (did you mean'),
        ("operator", 'per = "1 min"', 'per = "1 minit"', "operators.flow.per: "),
        ("source", 'every = "10 s"', 'evry = "10 s"', 'sources.outgoing.evry: unknown setting "evry" (did you mean "every"'),
        ("codec", '"optional"', '"sometimes"', "sources.board.format.checksum: "),
        ("sink", 'path = "spool"', 'path = ""', "sinks.outgoing.path: name a folder"),
    ],
)  # fmt: skip
def test_a_mistake_in_its_settings_has_its_line(made: Made, kind: str, old: str, new: str, said: str) -> None:
    text = (made.folders[kind] / "example.toml").read_text()
    line = text[: text.index(old)].count("\n") + 1
    (made.folders[kind] / "wrong.toml").write_text(text.replace(old, new))
    done = made.venv.headwater("check", "wrong.toml", cwd=made.folders[kind])
    assert done.returncode == 2
    assert done.stderr.startswith(f"wrong.toml:{line}: {said}"), done.stderr


def test_the_readme_has_the_commands(made: Made) -> None:
    for kind, folder in made.folders.items():
        text = (folder / "README.md").read_text()
        name = NAMES[kind]
        for command in ("pip install", "pytest", f"headwater components {name}", "headwater test example.toml"):
            assert f"\n    {command}" in text


# --- what it refuses ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["operater", "mine"], '"operater" is no kind of component (did you mean "operator"?)'),
        (["operator", "my-rate"], '"my-rate" is not a name of a component'),
        (["operator", "Rate"], "use small letters"),
        (["operator", "1st"], "a letter first"),
        (["operator", "_x"], "a letter first"),
        (["operator", "class"], "no word of Python"),
        (["operator", "x" * (LONGEST + 1)], f"{LONGEST} characters at most"),
        (["operator", "window"], 'there is a built-in operator "window" already'),
        (["codec", "json"], 'there is a built-in codec "json" already'),
        (["operator", "mine", "--template", "blank"], "--component takes a FOLDER, and nothing else"),
    ],
)
def test_what_cannot_be_made(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--component", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("plugin")
def test_a_name_that_somebody_else_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--component", "operator", "sieve"]) == 2
    assert 'the operator "sieve" comes by headwater-parts 1 already' in capsys.readouterr().err


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("mine")
    for folder in (tmp_path, tmp_path / "mine"):
        assert main(["init", "--component", "operator", "mine", str(folder)]) == 2
        assert f"{folder} is there already" in capsys.readouterr().err
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


def test_the_longest_name_is_as_clean(tmp_path: Path) -> None:
    for kind in KINDS:
        name = "m" * LONGEST
        assert main(["init", "--component", kind, name, str(tmp_path / kind)]) == 0
        for words in (["check"], ["format", "--check"]):
            ruff = [sys.executable, "-m", "ruff", *words, "--no-cache"]
            done = subprocess.run(ruff, cwd=tmp_path / kind, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout


def test_the_templates_come_with_the_wheel(tmp_path: Path) -> None:
    """So do the marks that types are there. The wheel is built from what git would hold."""
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout")
    for file in listed.stdout.splitlines():
        if file.startswith(("pipeline/", "operators/", "sinks/", "pyproject", "README", "LICENSE")):
            (tmp_path / "src" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "src" / file).write_bytes((ROOT / file).read_bytes())
    venv = Venv(tmp_path / "venv")
    (next((tmp_path / "venv").glob("lib/python*/site-packages")) / "here.pth").write_text(
        next(line for line in sys.path if line.endswith("site-packages")) + "\n"
    )
    venv.install(tmp_path / "src")
    done = venv.run("-m", "pipeline.command", "init", "--component", "operator", "mine", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    where = venv.run("-c", "import pipeline.component; print(pipeline.component.__file__)", cwd=tmp_path)
    assert where.stdout.startswith(str(tmp_path / "venv"))
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    for package in ("pipeline", "operators", "sinks"):
        assert (site / package / "py.typed").exists()
