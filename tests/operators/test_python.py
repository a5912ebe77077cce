"""What `python` promises, beyond the contract that every operator keeps."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from operators.python import Python
from pipeline.clock import VirtualClock
from pipeline.component import Payload
from pipeline.config import loads
from pipeline.engine import Engine
from pipeline.frame import SECOND, Frame, KeyTable
from pipeline.graph import Graph
from pipeline.journal import dead
from pipeline.journal.commit import Store
from pipeline.recovery import begin, recover
from pipeline.testing import READINGS, compact, frames, make, run

FOLDER = Path(__file__).resolve().parents[2] / "examples"  # of what the contract and the docstring name

# What the contract tries (tests/test_contract.py). A plain chain that remembers is not exact over a restart, as is said.
EXAMPLES: list[dict[str, Any]] = [
    {
        "function": "smooth.py:Smooth",
        "options": {"field": "value", "weight": 0.25},
        "fields": {"value": "float?", "count": "int", "door": "bool?", "mode": "string?"},
    },
    {"function": "smooth.py:same", "items": True},
]

CODE = """
import numpy as np
from reactivex import operators as ops
from pipeline.frame import Column


def double(source, by=2):
    return source.pipe(ops.map(lambda f: f.with_columns({"value": Column(f["value"].values * by, f["value"].present)})))


def no_thirteen(source):
    def checked(frame):
        if (frame["value"].values == 13).any():
            raise ValueError("thirteen")
        return frame
    return source.pipe(ops.map(checked))


def items(source):
    def checked(item):
        if item["value"] == 13:
            raise ValueError("thirteen")
        return item
    return source.pipe(ops.map(checked), ops.filter(lambda item: item["value"] != 0))


def twice(source):
    return source.pipe(ops.flat_map(lambda i: __import__("reactivex").of(
        i, {"key": "other", "time": i["time"] + 5_000_000_000, "value": 7, "beside": 1})))


class Count:
    def __init__(self):
        self.n = 0

    def __call__(self, source):
        return source.pipe(ops.map(self.counted))

    def counted(self, item):
        if item["value"] == 13:
            raise ValueError("thirteen")
        self.n += 1
        return {"value": self.n}

    def snapshot(self):
        return {"n": self.n}

    def restore(self, state):
        self.n = state["n"]


class Odd(Count):
    def snapshot(self):
        return {"n": object()}


def writes(source):
    def write(frame):
        frame.time[:] = 0
        return frame
    return source.pipe(ops.map(write))


def adds(source):
    return source.pipe(ops.map(lambda f: f.with_columns({"more": f["value"]})))


def whole(source):
    return source.pipe(ops.map(lambda f: f.with_columns({"value": Column(np.ones(len(f), int))})))


def lists(source):
    return source.pipe(ops.map(lambda frame: [frame]))


def texts(source):
    return source.pipe(ops.map(lambda item: {"value": "much"}))


def nothing(source):
    return None


def later(source):
    return source.pipe(ops.delay(0.01))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(CODE)
    return tmp_path


def of(folder: Path, name: str, stream: str, **more: Any) -> str:
    return compact(run(Python, {"function": f"own.py:{name}", **more}, stream, folder=folder))


def problem(folder: Path, function: str, **more: Any) -> str:
    _, problems = make(Python, {"function": function, **more}, folder=folder)
    ((_, text),) = problems
    return text


def test_over_frames(folder: Path) -> None:
    """A function with its options; a class, whose state is saved."""
    assert of(folder, "double", "a1 b2 a-") == "a2 b4 a-"
    assert of(folder, "double", "a1 b2 a-", options={"by": 10}) == "a10 b20 a-"
    smooth = {"function": "smooth.py:Smooth", "options": {"field": "value", "weight": 0.5}}
    assert compact(run(Python, smooth, "a20 a24 b1 a- a22", folder=FOLDER)) == "a20 a22 b1 a- a22"


def test_over_items(folder: Path) -> None:
    """A row has the key and time of the reading that caused it, unless it says others; other names are left out."""
    assert of(folder, "items", "a1 b0 a2", items=True) == "a1 a2"
    rows = run(Python, {"function": "own.py:twice", "items": True}, "a1@3", folder=folder)
    assert [(r["key"], r["time"] / SECOND, r["value"]) for r in rows] == [("a", 3, 1), ("other", 8, 7)]
    assert of(folder, "Count", "a5 b5 a5", items=True) == "a1 b2 a3"


def test_what_is_wrong_with_the_function_is_told(folder: Path) -> None:
    """By check, before anything runs."""
    assert problem(folder, "own.py:doubel") == 'there is no function "doubel" in "own.py" (did you mean "double"?)'
    assert problem(folder, "other.py:double") == 'there is no file "other.py" beside the pipeline file'
    assert problem(folder, "../own.py:double") == '"../own.py" lies outside of the folder of the pipeline file'
    assert problem(folder, "own") == '"own" names no function; write it as "smooth.py:smooth"'
    assert problem(folder, "own.py:nothing") == "it must give an Observable, and gave NoneType"
    assert problem(folder, "own.py:double", options={"per": 3}).startswith(
        "own.py:double fails at the start: TypeError"
    )
    assert "its snapshot holds a object" in problem(folder, "own.py:Odd", items=True)
    (folder / "own.py").write_text("1 / 0")
    assert problem(folder, "own.py:double") == "own.py:double fails at the start: ZeroDivisionError: division by zero"
    outside = folder / "in"
    outside.mkdir()
    (outside / "link.py").symlink_to(folder / "own.py")
    assert "lies outside" in problem(outside, "link.py:double")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("writes", "read-only"),
        ("adds", "it gave the fields value, more, not value"),
        ("whole", "value is 1 x int64, not 1 x float"),
        ("lists", "it must give Frames, and gave list"),
    ],
)
def test_a_frame_that_others_could_not_rely_on_is_an_error(folder: Path, name: str, error: str) -> None:
    operator, problems = make(Python, {"function": f"own.py:{name}"}, folder=folder)
    assert not problems
    (frame,) = frames("a1", READINGS, operator.context.keys)
    with pytest.raises((TypeError, ValueError), match=error):
        operator.on_frame(frame)


def test_what_comes_later_is_an_error(folder: Path) -> None:
    """Nothing in a graph may wait for a clock: it could not be replayed."""
    operator, _ = make(Python, {"function": "own.py:double"}, folder=folder)
    assert isinstance(operator, Python)
    with pytest.raises(RuntimeError, match="wait for a clock"):
        operator._emitted(None)


# --- in the graph ---------------------------------------------------------------------------------------------------

FILE = """
[pipeline]
name = "p"
state = "state"
durability = "process"

[sources.in]
type = "http"
key = "key"
fields = { value = "float" }

[operators.own]
type = "python"
input = "in"
function = "own.py:NAME"
items = ITEMS
"""


class Rig:
    """The pipeline file, as an engine without its waiting."""

    def __init__(self, folder: Path, name: str, *, items: bool) -> None:
        text = FILE.replace("NAME", name).replace("ITEMS", str(items).lower())
        config = loads(text, folder / "pipeline.toml")
        clock = VirtualClock(1_800_000_000 * SECOND)
        self.graph = Graph(config, KeyTable(), clock)
        assert not [*config.problems, *self.graph.problems]
        self.store = Store(config.pipeline.state, "process")
        self.engine = Engine(config, self.graph, self.store, clock)
        self.out: list[float] = []
        self.graph.watch("own", self._came)
        begin(self.engine, recover(self.engine, lambda text: None).moved)

    def _came(self, frame: Frame) -> None:
        self.out += frame["value"].tolist()

    async def step(self, *values: float) -> None:
        while self.engine.in_flight:  # what a start writes, too
            await asyncio.sleep(0.001)
        data = json.dumps([{"key": "a", "value": value} for value in values]).encode()
        self.engine.intakes["in"].inbox.offer(Payload(data, len(data)))
        self.engine.step()
        while self.engine.in_flight:
            await asyncio.sleep(0.001)

    async def letters(self) -> list[Any]:
        found = await self.store.read(lambda db: dead.letters(db, 100))
        return [(json.loads(letter.row)["value"], letter.reason) for letter in found]


@pytest.mark.parametrize(("name", "items"), [("no_thirteen", False), ("items", True), ("texts", True)])
async def test_an_exception_costs_only_the_guilty_rows(folder: Path, name: str, items: bool) -> None:
    """They are dead letters with the reason; the chain, which RxPY has ended, is begun anew."""
    rig = Rig(folder, name, items=items)
    await rig.step(1, 13, 2, 13)
    await rig.step(3)
    guilty = [1, 13, 2, 13, 3] if name == "texts" else [13, 13]
    assert rig.out == [v for v in (1, 13, 2, 13, 3) if v not in guilty]
    letters = await rig.letters()
    assert sorted(value for value, _ in letters) == sorted(guilty)
    reason = "ValueError: value: expected float, got str" if name == "texts" else "ValueError: thirteen"
    assert {told for _, told in letters} == {reason}
    rig.store.close()


async def test_an_object_goes_on_where_it_was(folder: Path) -> None:
    """Over an error, a checkpoint and a kill."""
    rig = Rig(folder, "Count", items=True)
    await rig.step(1, 13, 1)
    await rig.engine._checkpoint()
    await rig.step(1)
    assert rig.out == [1, 2, 3]
    rig.store.close()
    again = Rig(folder, "Count", items=True)
    assert again.out == [3], "the journal pushes it again"
    await again.step(1)
    assert again.out == [3, 4]
    again.store.close()


async def test_code_that_does_not_take_its_state_begins_anew(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A change of the code must not keep a pipeline from starting."""
    rig = Rig(folder, "Count", items=True)
    await rig.step(1, 1)
    await rig.engine._checkpoint()
    rig.store.close()
    (folder / "own.py").write_text(CODE.replace('state["n"]', 'state["m"]'))
    again = Rig(folder, "Count", items=True)
    await again.step(1)
    assert again.out == [1]
    assert "begins anew" in caplog.text
    again.store.close()


def test_the_example(tmp_path: Path) -> None:
    """As a user runs it."""
    (tmp_path / "examples").mkdir()
    for name in ("smooth.toml", "smooth.py"):
        shutil.copy(FOLDER / name, tmp_path / "examples" / name)
    readings = "".join(f"s1,{100 + i},{t}\n" for i, t in enumerate((20, 24, 22, 30)))
    (tmp_path / "examples" / "readings.csv").write_text("id,time,temperature\n" + readings)
    command = [sys.executable, "-m", "pipeline.command", "run", str(tmp_path / "examples" / "smooth.toml")]
    subprocess.run(command, cwd=FOLDER.parent, check=True, timeout=60)
    rows = [json.loads(line) for line in (tmp_path / "var" / "smooth.ndjson").read_text().splitlines()]
    assert [row["temperature"] for row in rows if "temperature" in row] == [20, 22, 22, 26]
    assert [row["rise"] for row in rows if "rise" in row] == [2, 4]


def test_it_can_harm_neither_others_nor_what_was_saved(folder: Path) -> None:
    """A Frame that others see, too, cannot be written to; a snapshot is a copy even if the object gives its own dict."""
    operator, _ = make(Python, {"function": "own.py:writes"}, folder=folder)
    (frame,) = frames("a1", READINGS, operator.context.keys)
    shared = Frame(frame.time.copy(), frame.key, frame.seq, frame.columns, frame.progress)
    with pytest.raises(ValueError, match="read-only"):
        operator.on_frame(shared)
    (folder / "own.py").write_text(
        CODE + "\n\nclass Own(Count):\n    def snapshot(self):\n        return self.__dict__\n"
    )
    keys = operator.context.keys
    operator, _ = make(Python, {"function": "own.py:Own", "items": True}, keys=keys, folder=folder)
    before = operator.snapshot()
    operator.on_frame(frame)
    assert before == {"own": {"n": 0}}
