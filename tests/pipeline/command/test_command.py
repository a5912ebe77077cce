"""The command: its exit status, and that a wrong file starts and writes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.device import free_port
from tests.waiting import waited

PIPELINE = """
[pipeline]
name = "p"
state = "state"

[sources.in]
type = "file"
path = "in.ndjson"
key = "id"
time = "ts"
fields = { value = "float" }

[operators.high]
type = "filter"
input = "in"
where = "value > 1"

[operators.all]
type = "window"
input = "high"
size = "10 s"
aggregate = { n = "count()" }

[sinks.out]
type = "file"
inputs = ["high", "all"]
path = "out.ndjson"
"""


def headwater(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.command", *words]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.toml").write_text(PIPELINE)
    lines = [json.dumps({"id": "a", "ts": 1_700_000_000_000 + i, "value": i}) for i in range(4)]
    (tmp_path / "in.ndjson").write_text("\n".join(lines))
    return tmp_path


def test_a_finite_run_ends_with_0_and_says_nothing(folder: Path) -> None:
    done = headwater("run", folder=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    rows = [json.loads(line) for line in (folder / "out.ndjson").read_text().splitlines()]
    assert [row.get("value", row.get("n")) for row in rows] == [2, 3, 2]


def test_a_second_run_has_nothing_new(folder: Path) -> None:
    headwater("run", folder=folder)
    before = (folder / "out.ndjson").read_bytes()
    assert headwater("run", folder=folder).returncode == 0
    assert (folder / "out.ndjson").read_bytes() == before
    with (folder / "in.ndjson").open("a") as out:
        out.write('\n{"id": "a", "ts": 1700000020000, "value": 9}\n')
    assert headwater("run", folder=folder).returncode == 0
    assert len((folder / "out.ndjson").read_text().splitlines()) == 5


def test_a_wrong_file_is_2_and_leaves_no_trace(folder: Path) -> None:
    (folder / "pipeline.toml").write_text(PIPELINE.replace("value > 1", "valeu > 1").replace('"10 s"', '"10 sec"'))
    done = headwater("run", folder=folder)
    assert done.returncode == 2
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == ["pipeline.toml:16", "pipeline.toml:21"]
    assert sorted(f.name for f in folder.iterdir()) == ["in.ndjson", "pipeline.toml"]


def test_two_sources_on_one_path_are_found_before_the_start(folder: Path) -> None:
    source = 'type = "http"\npath = "/data"\nkey = "id"\nfields = { v = "float" }\n'
    sink = '[sinks.l]\ntype = "query_server"\ninputs = ["a", "b"]\n'
    text = f'[pipeline]\nname = "p"\n[sources.a]\n{source}[sources.b]\n{source}{sink}'
    (folder / "pipeline.toml").write_text(text)
    done = headwater("run", folder=folder)
    assert (done.returncode, done.stderr) == (
        2,
        'pipeline.toml:10: sources.b.path: "/data" is taken by the source "a"\n',
    )
    assert not (folder / "var").exists()


def test_check_says_what_run_would(folder: Path) -> None:
    first, memory, *_, flash = headwater("check", folder=folder).stdout.splitlines()
    assert first == "pipeline.toml: no problems (1 source, 2 operators, 1 sink)"
    assert memory.startswith("memory: at most about ")
    assert flash.startswith("flash: about 17 kB a commit")
    (folder / "pipeline.toml").write_text(PIPELINE.replace("value > 1", "valeu > 1"))
    done = headwater("check", "--format", "json", folder=folder)
    (problem,) = json.loads(done.stdout)["problems"]
    assert (done.returncode, problem["line"], problem["path"]) == (2, 16, "operators.high.where")
    assert not (folder / "state").exists()


def test_the_graph_as_a_tree(folder: Path) -> None:
    done = headwater("graph", folder=folder)
    assert done.stdout.splitlines() == [
        "in (file)",
        "└─ high (filter)",
        "   ├─ all (window)",
        "   │  └─ out (file)",
        "   └─ out (file) …",
    ]


def test_what_fails_at_run_time_is_1(folder: Path) -> None:
    (folder / "in.ndjson").unlink()
    done = headwater("run", folder=folder)
    assert done.returncode == 1
    assert "in.ndjson" in done.stderr


@pytest.mark.parametrize("words", [(), ("runn",), ("run", "--what")])
def test_wrong_usage_is_2(words: tuple[str, ...], folder: Path) -> None:
    assert headwater(*words, folder=folder).returncode == 2


def test_a_folder_in_use_is_3_and_names_its_holder(folder: Path) -> None:
    """The first is asked to stop, and ends with 0."""
    port = free_port()
    live = (
        PIPELINE.replace('type = "file"\npath = "in.ndjson"', 'type = "http"')
        + f'\n[server]\nlisten = "127.0.0.1:{port}"\n'
    )
    (folder / "pipeline.toml").write_text(live)

    def ready() -> bool:
        """From then on a signal asks it to stop."""
        assert first.poll() is None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/"):
                return True
        except urllib.error.HTTPError:  # nothing is served there, and that is an answer
            return True
        except OSError:
            return False

    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    first = subprocess.Popen([sys.executable, "-m", "pipeline.command", "run"], cwd=folder, env=environment)
    try:
        waited(ready)
        second = headwater("run", folder=folder)
        assert second.returncode == 3
        assert str(first.pid) in second.stderr
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 0
    finally:
        first.kill()
        first.wait()


@pytest.mark.parametrize(
    ("form", "first"), [("mermaid", "flowchart LR"), ("dot", "digraph pipeline {"), ("svg", "<svg ")]
)
def test_the_graph_as_a_picture(folder: Path, form: str, first: str) -> None:
    done = headwater("graph", "--format", form, folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(first)


def test_live_rates_need_a_running_pipeline(folder: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    (folder / "pipeline.toml").write_text(f'{PIPELINE}\n[server]\nlisten = "{address}"\n')
    done = headwater("graph", "--live", folder=folder)
    assert done.returncode == 1
    assert f"nothing answers at http://{address}" in done.stderr
