"""A plug-in in a distribution of its own, examples/degree-days, built and installed for real: it is like a built-in."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator

from tests.device import Device, free_port
from tests.venv import ROOT, Venv
from tests.waiting import eventually

EXAMPLE = ROOT / "examples" / "degree-days"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as a checkout would have it: building writes into it."""
    place = tmp_path_factory.mktemp("plug-in") / "degree-days"
    shutil.copytree(EXAMPLE, place, ignore=shutil.ignore_patterns("__pycache__", ".*", "build", "*.egg-info"))
    return place


@pytest.fixture(scope="module")
def venv(folder: Path) -> Venv:
    made = Venv(folder.parent / "venv")
    made.install(folder)
    return made


@pytest.fixture
def use(tmp_path: Path) -> Path:
    """Where a user is, with nothing but the pipeline file: what is found was installed."""
    shutil.copy(EXAMPLE / "pipeline.toml", tmp_path)
    return tmp_path


def test_its_own_tests_pass(venv: Venv, folder: Path) -> None:
    done = venv.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_style_and_types_are_clean(venv: Venv, folder: Path) -> None:
    mypy = ["mypy", "--python-executable", str(venv.python)]
    for words in (["ruff", "check", "--no-cache"], ["ruff", "format", "--check", "--no-cache"], mypy):
        done = subprocess.run([sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_listed_and_documented(venv: Venv) -> None:
    listed = venv.headwater("components").stdout.splitlines()
    assert any(line.split()[:3] == ["degree_days", "Add", "up"] for line in listed)
    told = venv.headwater("components", "degree_days").stdout
    assert told.startswith("degree_days (operator, of headwater-degree-days 1.0.0): Add up how far ")
    for said in (
        'type = "degree_days"',
        "Late data: ",
        "Settings\n",
        "season  optional\n      The day on which",
        '= "3 h"',
    ):
        assert said in told
    page = venv.headwater("components", "--format", "markdown").stdout
    assert "\n## degree_days (operator, of headwater-degree-days 1.0.0)\n" in page
    assert "\n## window (operator)\n" in page


def test_an_editor_knows_it(venv: Venv) -> None:
    schema = Draft202012Validator(json.loads(venv.headwater("schema").stdout))

    def mistakes(**more: Any) -> list[str]:
        data = json.loads(json.dumps(tomllib.loads((EXAMPLE / "pipeline.toml").read_text()), default=str))
        data["operators"]["warmth"] |= more
        return [error.message for error in schema.iter_errors(data)]

    assert mistakes() == []
    for more in ({"bse": 10}, {"base": "warm"}, {"gap": "3 hrs"}, {"count": "around"}):
        assert mistakes(**more) != []


def test_a_pipeline_with_it_is_checked_and_tested(venv: Venv, use: Path) -> None:
    """Its tests crash the device between two readings, and end a season."""
    checked = venv.headwater("check", "pipeline.toml", cwd=use)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "no problems" in checked.stdout
    tested = venv.headwater("test", "pipeline.toml", cwd=use)
    assert (tested.returncode, tested.stderr) == (0, ""), tested.stdout
    assert "2 tests, all passed" in tested.stdout


def test_without_its_state_the_crash_would_be_seen(venv: Venv, use: Path) -> None:
    """The test of the crash can fail."""
    text = (EXAMPLE / "headwater_degree_days.py").read_text()
    forgets = "    def restore(self, state: object) -> None: ...\n\n"
    (use / "headwater_degree_days.py").write_text(text.replace("    def on_frame", forgets + "    def on_frame"))
    tested = venv.headwater("test", "pipeline.toml", cwd=use)
    assert tested.returncode == 1
    assert "FAIL  the sum survives a crash" in tested.stdout
    assert "1 passed, 1 failed" in tested.stdout


async def test_its_state_survives_a_kill_and_a_reload(venv: Venv, use: Path) -> None:
    """A real process. A change of a setting that it `adapts` to keeps the sum; the new value holds from then on."""
    port = free_port()
    file = use / "pipeline.toml"
    file.write_text(file.read_text().replace(":8080", f":{port}").replace("../../var", "var"))
    async with aiohttp.ClientSession() as http, Device(file, port, str(venv.python)) as device:

        async def sum_at(hour: int) -> float:
            reading = {"tree": "t1", "ts": 1_775_000_000 + hour * 3600, "temperature": 22}
            async with http.post(device.url + "/data", json=reading) as answer:
                assert answer.status == 201, await answer.text()
            return (await device.rows(http, "warmth"))[-1]["degree_days"]

        await device.start(http)
        assert [await sum_at(0), await sum_at(2)] == [0, 1]
        await device.end(signal.SIGKILL)
        await device.start(http)
        assert await sum_at(4) == 2
        file.write_text(file.read_text().replace("base = 10\n", 'base = 10\ngap = "1 h"\n'))
        done = await asyncio.to_thread(venv.headwater, "reload", str(file))
        assert done.returncode == 0, done.stderr
        assert "warmth: changed: keeps its state" in done.stdout
        assert [await sum_at(6), await sum_at(7)] == [2, 2.5]
        assert await device.end() == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("base = 10", "bse = 10", 'operators.warmth.bse: unknown setting "bse" (did you mean "base"?)'),
        ("limit = 31", "limit = 5", "operators.warmth.limit: must lie above the base (10), or nothing counts"),
        ('season = "03-01"', 'season = "03-32"', 'operators.warmth.season: "03-32" is not a day of every year; write'),
        ('"degree_days"', '"degree_day"', 'operators.warmth.type: there is no operator "degree_day" (did you mean'),
        ("degree_days >= 140", "degre_days >= 140", 'operators.hatching.when: "degre_days" is not a field of the input'),
    ],
)  # fmt: skip
def test_mistakes_have_their_lines(venv: Venv, use: Path, old: str, new: str, said: str) -> None:
    text = (use / "pipeline.toml").read_text()
    line = text[: text.index(old)].count("\n") + 1
    (use / "wrong.toml").write_text(text.replace(old, new, 1))
    done = venv.headwater("check", "wrong.toml", cwd=use)
    assert done.returncode == 2
    assert done.stderr.startswith(f"wrong.toml:{line}: {said}"), done.stderr


def test_a_warning_of_its_own(venv: Venv, use: Path) -> None:
    text = (use / "pipeline.toml").read_text()
    (use / "warm.toml").write_text(text.replace("base = 10\nlimit = 31", "base = 50\nlimit = 86"))
    done = venv.headwater("check", "warm.toml", cwd=use)
    assert done.returncode == 0
    assert ": warning: operators.warmth.base: is much for degrees Celsius" in done.stdout


OTHER = """
[build-system]
requires = ["setuptools >= 70.1"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "2.0.0"

[project.entry-points."headwater.{kind}s"]
{type} = "{module}"

[tool.setuptools]
py-modules = ["{module}"]
"""


def distribution(folder: Path, name: str, kind: str, type_: str) -> Path:
    """One more that brings the example, under this name and kind."""
    place = folder / name
    place.mkdir()
    module = name.replace("-", "_")
    (place / "pyproject.toml").write_text(OTHER.format(name=name, kind=kind, type=type_, module=module))
    shutil.copy(EXAMPLE / "headwater_degree_days.py", place / f"{module}.py")
    return place


async def test_one_with_the_name_of_another(folder: Path, use: Path) -> None:
    """Of a built-in it is never used, and each command that comes by it says so; two of one name exclude each other."""
    venv = Venv(folder.parent / "clashes")
    made = [
        ("parts-of-ann", "operator", "window"),
        ("codec-of-bob", "codec", "json"),
        ("twice", "operator", "degree_days"),
    ]
    venv.install(folder, *(distribution(use, *one) for one in made))
    window = 'the operator "window" of parts-of-ann 2.0.0 is never used, since Headwater has one of that name: it needs another'
    json_ = (
        'the codec "json" of codec-of-bob 2.0.0 is never used, since Headwater has one of that name: it needs another'
    )
    told = venv.headwater("components")
    assert told.returncode == 0
    assert [line.startswith("warning: the ") for line in told.stderr.splitlines()] == [True] * 3
    assert f"warning: {window} name from its author, or pip uninstall parts-of-ann\n" in told.stderr
    assert f"warning: {json_} name from its author, or pip uninstall codec-of-bob\n" in told.stderr
    twice = '"degree_days" comes by headwater-degree-days 1.0.0 and twice 2.0.0: pip uninstall one of them'
    assert f"warning: the operator {twice}\n" in told.stderr
    assert "warning" not in told.stdout
    done = venv.headwater("check", "pipeline.toml", cwd=use)
    assert (done.returncode, done.stderr) == (2, f"pipeline.toml:19: operators.warmth.type: {twice}\n")

    port = free_port()
    file = use / "pipeline.toml"
    file.write_text(WINDOWS.format(port=port))
    done = venv.headwater("check", "pipeline.toml", cwd=use)
    assert done.returncode == 0
    assert f"pipeline.toml:14: warning: operators.means.type: {window}" in done.stdout
    assert f"pipeline.toml:6: warning: sources.readings.format: {json_}" in done.stdout
    log = use / "log"
    with log.open("w") as written:
        words = ["-m", "pipeline.command", "run", "pipeline.toml"]
        running = await asyncio.create_subprocess_exec(str(venv.python), *words, cwd=use, stderr=written)
    try:
        await eventually(lambda: json_ in log.read_text() and window in log.read_text(), log.read_text)
    finally:
        running.terminate()
        assert await running.wait() == 0


WINDOWS = """[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
format = "json"
key = "id"
fields = {{ value = "float" }}

[operators.means]
input = "readings"
size = "1 min"
aggregate = {{ mean = "mean(value)" }}
type = "window"

[sinks.local]
type = "query_server"
inputs = ["means"]
retention = "1 d"

[pipeline]
name = "clashing"
state = "state"
"""


def test_taken_away_it_is_missed(folder: Path, use: Path) -> None:
    """In an environment of its own: the others go on using it."""
    venv = Venv(folder.parent / "another")
    venv.install(folder)
    assert venv.headwater("check", "pipeline.toml", cwd=use).returncode == 0
    venv.uninstall("headwater-degree-days")
    done = venv.headwater("check", "pipeline.toml", cwd=use)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith('pipeline.toml:19: operators.warmth.type: there is no operator "degree_days"; there are: ')
    assert line.endswith("One of another distribution has to be installed first: pip install …")
    assert venv.headwater("components", "degree_days").returncode == 2
    assert "degree_days" not in venv.headwater("schema").stdout
