"""The exec sink with real commands: what their status says, what they are given, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.component import Batch, Outcome, SinkContext
from pipeline.delivering import BatchSettings
from pipeline.frame import NO_PROGRESS, SECOND, Field, Frame, KeyTable, Schema, column
from pipeline.quantity import Duration, Secret, duration
from sinks.exec import Exec, ExecSettings
from tests.sinks.rig import rig
from tests.waiting import eventually

SCHEMAS = {"orders": Schema("id", {"value": Field("float", True), "mode": Field("string", True)})}

# Notes what it is given, as JSON; then ends with the status that its first row asks for, once.
NOTES = """
import json, os, sys
rows = [json.loads(line) for line in sys.stdin]
assert len(rows) == int(os.environ["HEADWATER_ROWS"])
with open("notes", "a") as file:
    file.write(json.dumps([sys.argv[1:], rows, os.environ["HEADWATER_KEY"], os.environ.get("WORD")]) + "\\n")
print("x" * 10_000_000)
if os.path.exists("status"):
    status, *others = map(int, open("status").read().split())
    open("status", "w").write(" ".join(map(str, others))) if others else os.remove("status")
    sys.stderr.write("y" * 1_000_000 + " no such lamp")
    sys.exit(status)
"""


@pytest.fixture
def notes(tmp_path: Path) -> list[str]:
    (tmp_path / "notes.py").write_text(NOTES)
    return [sys.executable, "notes.py"]


def sink(folder: Path, *command: str, **more: Any) -> Exec:
    context = SinkContext("lamp", SCHEMAS, KeyTable(["a", "b"]), folder=folder)
    given = {"batch": BatchSettings(rows=100, wait=Duration(0)), **more}
    made = Exec(ExecSettings(command=command, **given), context)
    assert context.problems == []
    return made


def orders(*rows: tuple[float | None, str | None]) -> Frame:
    n = np.arange(len(rows), dtype=np.int64)
    columns = {"value": column("float", [v for v, _ in rows]), "mode": column("string", [m for _, m in rows])}
    return Frame(n * SECOND, (n % 2).astype(np.int32), n, columns, NO_PROGRESS)


def noted(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "notes").read_text().splitlines()]


async def delivered(made: Exec, *rows: tuple[float | None, str | None], key: str = "k") -> Outcome:
    return await made.deliver(Batch(key, [("orders", orders(*rows))], 1))


async def test_a_batch_is_lines_of_json(tmp_path: Path, notes: list[str]) -> None:
    """Its arguments are as they stand; what it writes to its output is nobody's, however much it is."""
    made = sink(tmp_path, *notes, "--x", "{id}", environment={"WORD": Secret("w")})
    assert (await delivered(made, (1.5, "auto"), (None, None))) == Outcome(delivered=True)
    ((arguments, rows, key, word),) = noted(tmp_path)
    assert (arguments, key, word) == (["--x", "{id}"], "k", "w")
    assert rows == [
        {"stream": "orders", "id": "a", "time": "1970-01-01T00:00:00.000Z", "value": 1.5, "mode": "auto"},
        {"stream": "orders", "id": "b", "time": "1970-01-01T00:00:01.000Z"},
    ]


async def test_or_a_command_a_row(tmp_path: Path, notes: list[str]) -> None:
    """With its fields as arguments; no value is more than (a part of) one."""
    made = sink(tmp_path, *notes, "{id}", "--to={value:.1f}", "{mode}", per="row")
    outcome = await delivered(made, (1.0, "a; rm -rf $HOME"), (-2.0, "--help"), (None, "x"), (3.0, "a\0b"), (4.0, "z"))
    assert [(arguments, len(rows), key) for arguments, rows, key, _ in noted(tmp_path)] == [
        (["a", "--to=1.0", "a; rm -rf $HOME"], 1, "k-0"),
        (["a", "--to=4.0", "z"], 1, "k-4"),
    ]
    assert outcome.rejected == {
        1: '"{mode}" would be an option: --help',
        2: 'the command names "value", which is missing',
        3: "an argument cannot hold a NUL",
    }


async def test_a_number_may_be_negative(tmp_path: Path, notes: list[str]) -> None:
    assert (await delivered(sink(tmp_path, *notes, "{value}", per="row"), (-2.0, None))).rejected == {}
    assert noted(tmp_path)[0][0] == ["-2.0"]


@pytest.mark.parametrize("per", ["batch", "row"])
@pytest.mark.parametrize("status", [0, 1, 75])
async def test_its_status_says_what_becomes_of_the_rows(
    tmp_path: Path, notes: list[str], status: int, per: str
) -> None:
    """0: it has them; 75: later; any other: never, with the end of its standard error as the reason."""
    (tmp_path / "status").write_text(str(status))
    async with rig(tmp_path / "state", sink(tmp_path, *notes, per=per)) as r:
        await r.put("orders", orders((1, "m"), (2, "n")))
        refused = 0 if status != 1 else 2 if per == "batch" else 1
        await r.until(sent=2 - refused, failed=refused, waiting=0)
        reasons = {reason for reason, _ in await r.letters()}
    keys = [key for _, _, key, _ in noted(tmp_path)]
    assert len(keys) == (1 if per == "batch" else 2) + (status == 75)
    assert len(set(keys)) == (1 if per == "batch" else 2)  # a second try has the same
    if refused:
        (reason,) = reasons
        assert "ended with status 1: y" in reason
        assert reason.endswith(" no such lamp")
        assert len(reason) < 700


async def test_a_row_that_was_taken_is_not_given_again(tmp_path: Path, notes: list[str]) -> None:
    """Because one behind it was not."""
    (tmp_path / "status").write_text("0 75 0")
    async with rig(tmp_path / "state", sink(tmp_path, *notes, "{value}", per="row")) as r:
        await r.put("orders", orders((1, "m"), (2, "n"), (3, "o")))
        await r.until(sent=3, waiting=0)
    assert [arguments for arguments, *_ in noted(tmp_path)] == [["1.0"], ["2.0"], ["2.0"], ["3.0"]]


async def test_what_cannot_be_started_or_is_killed_is_tried_again(tmp_path: Path) -> None:
    gone = await delivered(sink(tmp_path, "./not-there"), (1, "m"))
    assert gone == Outcome(reason="./not-there: No such file or directory")
    killed = await delivered(sink(tmp_path, "sh", "-c", "kill -9 $$"), (1, "m"))
    assert killed == Outcome(reason="sh: it was ended by signal 9")


async def test_one_that_does_not_end_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.running.GRACE_S", 0.1)
    made = sink(tmp_path, "sh", "-c", "sleep 1000 & echo $! > child; wait", timeout=duration("300 ms"))
    child = tmp_path / "child"

    async def killed_after_its_start() -> str:
        """On a loaded machine it may be killed before."""
        outcome = await delivered(made, (1, "m"))
        assert outcome == Outcome(reason="sh: it did not end within 300 ms, and was killed")
        return child.read_text() if child.exists() else ""

    process = int(await eventually(killed_after_its_start))
    await eventually(lambda: not running(process), lambda: "its child is still running")


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


async def test_it_need_not_read(tmp_path: Path) -> None:
    """More than a pipe holds, to one that ends at once, and to one that closes its input and goes on."""
    frame = orders(*[(1.0, "m" * 100)] * 5_000)
    for command in ("true", "exec <&-; sleep 0.2"):
        outcome = await sink(tmp_path, "sh", "-c", command).deliver(Batch("k", [("orders", frame)], 1))
        assert outcome == Outcome(delivered=True)


@settings(max_examples=20, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50))
def test_an_argument_is_the_value(text: str) -> None:
    """Byte for byte, in the place of its field and in no other."""
    code = "import sys, os; sys.exit(0 if sys.argv[1:] == ['=' + os.environ['WANTED'], 'end'] else 1)"
    os.environ["WANTED"] = text
    made = sink(Path(), sys.executable, "-c", code, "={mode}", "end", per="row")
    assert asyncio.run(delivered(made, (1.0, text))) == Outcome(delivered=True)


def test_wrong_settings() -> None:
    for command, per in (((), "batch"), (("",), "row"), (("x", "{mod}"), "row")):
        context = SinkContext("lamp", SCHEMAS, KeyTable())
        Exec(ExecSettings(command=command, per=per), context)  # type: ignore[arg-type]
        assert [where for where, _ in context.problems] == ["command"]
