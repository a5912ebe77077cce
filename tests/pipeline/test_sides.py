"""Further streams that an operator's settings name: they come beside its input, in one time, and lose nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from pipeline.clock import VirtualClock
from pipeline.component import Payload
from pipeline.config import loads
from pipeline.engine import Engine
from pipeline.frame import SECOND, Column, Frame, KeyTable, Progress, Sided
from pipeline.graph import Graph
from pipeline.journal import dead
from pipeline.journal.commit import Store
from pipeline.recovery import begin, recover
from pipeline.services import EngineServices
from pipeline.testing import READINGS, Mark, Stream, run, streams

pytestmark = pytest.mark.usefixtures("plugin")

FILE = """
[pipeline]
name = "p"
state = "state"
durability = "process"

[sources.a]
type = "http"
path = "/a"
key = "id"
time = "ts"
fields = { value = "float" }

[sources.b]
type = "http"
path = "/b"
key = "id"
time = "ts"
fields = { value = "float" }

[operators.heard]
type = "listen"
input = "a"
to = "b"

[sinks.local]
type = "query_server"
inputs = ["heard"]
"""


def problems(text: str) -> list[str]:
    config = loads(text, Path("/garden/pipeline.toml"))
    graph = Graph(config, KeyTable(), VirtualClock())
    return [f"{p.line}: {p.text}" for p in sorted(set(config.problems) | set(graph.problems))]


# --- in the pipeline file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('to = "c"', ['24: there is no source or operator "c"']),
        ('to = "b.late"', ['24: "b.late" is not an output of "b" (its further outputs: "b.invalid")']),
        ('to = "local"', ['24: "local" is a sink: nothing comes out of it']),
        ('to = "heard"', ["23: a cycle: heard -> heard"]),
        ('to = "b"\nunless = ["b", "b"]', ['25: "b" is named twice']),
        ('to = "b"\nunless = ["b", "haerd"]', ['25: there is no source or operator "haerd"']),
        ("to = 3", ["24: expected text, got a whole number"]),
    ],
)
def test_a_wrong_name_is_told_with_its_line(written: str, told: list[str]) -> None:
    """As of an input."""
    assert problems(FILE.replace('to = "b"', written)) == told


def test_nodes_stand_after_those_beside_them() -> None:
    """Wherever they stand in the file; a cycle by way of them is told."""
    later = '\n[operators.later]\ntype = "filter"\ninput = "b"\nwhere = "value > 0"\n'
    text = FILE.replace('to = "b"', 'to = "later"') + later
    assert not problems(text)
    assert list(loads(text, Path("p.toml")).nodes)[2:4] == ["later", "heard"]
    (told,) = problems(FILE.replace('to = "b"', 'to = "later"') + later.replace('"b"', '"heard"'))
    assert told.endswith("a cycle: heard -> later -> heard")


def test_a_disabled_stream_is_left_out() -> None:
    text = FILE.replace('path = "/b"', 'path = "/b"\nenabled = false')
    assert not problems(text)
    graph = Graph(loads(text, Path("p.toml")), KeyTable(), VirtualClock())
    assert graph.edges["heard"].context.sides == {"to": {}, "unless": {}}


# --- cuts -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(streams(READINGS, sides={"b": READINGS, "c": READINGS}))
def test_no_cut_changes_how_they_lie_to_each_other(stream: Stream) -> None:
    """The oracle counts; and the kit fails if a cut or a restart makes a difference."""
    from headwater_parts import Listen  # type: ignore[import-not-found]

    stream = [r if isinstance(r, Mark) else {**r, "value": 1.0} for r in stream]
    expected, heard = [], 0
    for reading in (r for r in stream if not isinstance(r, Mark)):
        if "input" in reading:
            heard += 1
        else:
            expected.append(heard)
    assert [row["heard"] for row in run(Listen, {"to": "b", "unless": ["c"]}, stream)] == expected


def test_halves_are_cut_at_one_arrival() -> None:
    """Between all rows, of whichever stream; what one reading caused stays together; time is cut with them."""
    seq = np.array([3, 4, 5, 6])
    progress = Progress(seq, seq * SECOND, 9 * SECOND, 9 * SECOND, 0, 7)

    def frame(*numbers: int) -> Frame:
        rows = np.array(numbers, np.int64)
        return Frame(rows, rows.astype(np.int32), rows, {"value": Column(rows)}, progress)

    halves = Sided(frame(3, 6), {"b": frame(3, 4, 5, 5), "c": frame()}).halves()
    assert halves is not None
    first, second = halves
    assert [first.seq.tolist(), second.seq.tolist()] == [[3], [6]]
    assert [half.sides["b"].seq.tolist() for half in halves] == [[3, 4], [5, 5]]
    assert [half.watermark for half in halves] == [5 * SECOND, 9 * SECOND]
    assert all(side.progress is half.progress for half in halves for side in half.sides.values())
    assert Sided(frame(5), {"b": frame(5, 5)}).halves() is None
    assert Sided(frame(), {"b": frame(5)}).halves() is None


# --- dead letters ---------------------------------------------------------------------------------------------------


class Rig:
    """The pipeline file, as an engine without its waiting."""

    def __init__(self, folder: Path) -> None:
        config = loads(FILE, folder / "pipeline.toml")
        clock = VirtualClock(1_800_000_000 * SECOND)
        self.graph = Graph(config, KeyTable(), clock)
        self.store = Store(config.pipeline.state, "process")
        self.engine = Engine(config, self.graph, self.store, clock)
        self.out: list[Any] = []
        self.graph.watch("heard", self._came)
        begin(self.engine, recover(self.engine, lambda text: None).moved)
        self.services = EngineServices(self.engine, None)

    def _came(self, frame: Frame) -> None:
        self.out += zip(frame["value"].values.tolist(), frame["heard"].values.tolist(), strict=True)

    async def step(self, *readings: tuple[str, float]) -> None:
        for source, value in readings:
            data = json.dumps({"id": "x", "ts": 100, "value": value}).encode()
            self.engine.intakes[source].inbox.offer(Payload(data, len(data)))
        self.engine.step()
        await self.settled()

    async def settled(self) -> None:
        while self.engine.in_flight:
            await asyncio.sleep(0.001)

    async def letters(self) -> list[Any]:
        return await self.store.read(lambda db: dead.letters(db, 100))

    async def replay(self) -> dict[str, Any]:
        asked = asyncio.create_task(self.services.replay_dead(None))
        while not asked.done():
            if self.engine.replays:
                self.engine.step()
            await asyncio.sleep(0.001)
        return await asked


async def test_a_row_that_fails_is_a_letter_and_goes_in_again_by_its_own_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the guilty rows are set aside, whichever way they came; mended, each is taken once, over a kill, too."""
    from headwater_parts import Listen

    rig = Rig(tmp_path)
    await rig.settled()
    await rig.step(("a", 1), ("b", 2), ("b", -3), ("a", 4), ("a", -5), ("b", 6), ("a", 7))
    assert rig.out == [(1, 0), (4, 1), (7, 2)]
    letters = await rig.letters()
    assert sorted(json.loads(letter.row).get("input", "") for letter in letters) == ["", "b"]
    assert all(shown["replayable"] for shown in await rig.services.dead(10))

    assert len((await rig.replay())["failed"]) == 2
    await rig.engine._checkpoint()  # what failed would not fail again in a replay by the mended operator
    monkeypatch.setattr(Listen, "mended", True)
    assert await rig.replay() == {"replayed": 2, "failed": []}
    assert not await rig.letters()
    assert rig.out[3:] == [(-5, 3)]  # the row beside goes in with it, and before it

    rig.store.close()
    rig = Rig(tmp_path)
    await rig.settled()
    assert rig.out == [(-5, 3)], "the journal pushes them again"
    await rig.step(("a", 8))
    assert rig.out[1:] == [(8, 3)]
    rig.store.close()


async def test_a_letter_of_a_stream_that_is_no_longer_read_says_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.settled()
    await rig.step(("b", -3))
    rig.graph.edges["heard"].inputs.pop("b")
    ((failed),) = (await rig.replay())["failed"]
    assert failed["reason"] == 'the operator does not read "b"'
    rig.store.close()


def test_its_state_depends_on_what_lies_beside() -> None:
    """A stream beside the input that has changed is a change of the node."""
    from pipeline.recovery import fingerprints

    def prints(text: str) -> dict[str, Any]:
        return fingerprints(Graph(loads(text, Path("p.toml")), KeyTable(), VirtualClock()))

    before, after = prints(FILE), prints(FILE.replace('path = "/b"\nkey = "id"', 'path = "/b"\nkey = "name"'))
    assert before["heard"] != after["heard"]
