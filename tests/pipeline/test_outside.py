"""Files that operators read: taken when they have changed and are whole, journaled, and never a reason to lose a reading."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.clock import VirtualClock
from pipeline.component import OperatorContext, OutsideFile, Payload
from pipeline.config import loads
from pipeline.engine import Engine
from pipeline.frame import SECOND, Column, Frame, KeyTable, Schema
from pipeline.graph import Graph
from pipeline.journal.commit import Store
from pipeline.outside import Outside
from pipeline.recovery import begin, recover
from pipeline.services import EngineServices

FILE = """
[pipeline]
name = "p"
state = "state"
durability = "process"

[sources.in]
type = "http"
key = "id"
fields = { value = "float" }

[operators.known]
type = "join"
input = "in"
table = "limits.csv"
fields = { limit = "float" }
"""


class Rig:
    """The pipeline file, as an engine without its waiting."""

    def __init__(self, folder: Path) -> None:
        config = loads(FILE, folder / "pipeline.toml")
        clock = VirtualClock(1_800_000_000 * SECOND)
        self.graph = Graph(config, KeyTable(), clock)
        self.store = Store(config.pipeline.state, "process")
        self.engine = Engine(config, self.graph, self.store, clock)
        self.out: list[Any] = []
        self.graph.watch("known", self._came)
        self.file = folder / "limits.csv"
        self.changes = 0

    def start(self) -> None:
        begin(self.engine, recover(self.engine, lambda text: None).moved)
        self.engine.outside.begin()

    def _came(self, frame: Frame) -> None:
        self.out += zip(frame["value"].values.tolist(), frame["limit"].tolist(), strict=True)

    def write(self, text: str) -> None:
        self.changes += 1
        self.file.write_text(text)
        os.utime(self.file, (self.changes, self.changes))  # a clock that is coarse would show no change

    async def step(self, *values: float) -> None:
        while self.engine.in_flight:  # what a start writes, too
            await asyncio.sleep(0.001)
        for value in values:
            data = json.dumps({"id": "a", "value": value}).encode()
            self.engine.intakes["in"].inbox.offer(Payload(data, len(data)))
        self.engine.step()
        while self.engine.in_flight:
            await asyncio.sleep(0.001)

    def reasons(self) -> list[str]:
        found: list[str] = EngineServices(self.engine, None).health()["reasons"]
        return found


@pytest.fixture
def rig(tmp_path: Path) -> Any:
    made: list[Rig] = []

    def make() -> Rig:
        if made:
            made[-1].store.close()
        made.append(Rig(tmp_path))
        made[-1].changes = len(made) * 100
        return made[-1]

    yield make
    made[-1].store.close()


Make = Callable[[], Rig]


async def test_it_takes_effect_between_two_readings(rig: Make) -> None:
    """There from the first reading on; one that has changed is taken once it has stayed so for a look."""
    r = rig()
    r.write("id,limit\na,1\n")
    r.start()
    await r.step(1, 2)
    r.write("id,limit\na,2\n")
    await r.engine.outside.look()
    await r.step(3)
    await r.engine.outside.look()
    assert r.engine.outside
    await r.step(4)
    assert r.out == [(1, 1), (2, 1), (3, 1), (4, 2)]
    await r.engine.outside.look()
    assert not r.engine.outside, "nothing has changed"
    r.write("id,limit\na,2\n")
    for _ in range(2):
        await r.engine.outside.look()
    assert not r.engine.outside, "it was written again, and holds the same"


def test_files_that_change_at_once_are_numbered(tmp_path: Path) -> None:
    """One arrival number for each."""
    contexts = {name: OperatorContext(name, Schema("id", {}), KeyTable()) for name in ("one", "other")}
    for name, context in contexts.items():
        (tmp_path / name).write_text(name)
        columns = {"x": Column(np.zeros(2))}
        context.files[".f"] = OutsideFile(tmp_path / name, lambda data, columns=columns: columns, lambda: True)  # type: ignore[misc]
    outside = Outside(contexts, lambda: None)
    outside.begin()
    frames, after = outside.take(7)
    assert {name: frame.seq.tolist() for name, frame in frames.items()} == {"one..f": [7, 7], "other..f": [8, 8]}
    assert after == 9
    assert not outside


async def test_one_that_is_broken_changes_nothing_and_is_told(rig: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Once in the log, and on /health until it is mended, if only by what it was before."""
    r = rig()
    r.write("id,limit\na,1\n")
    r.start()
    await r.step(1)
    for broken in ("id,limit\na,warm\n", "", "id,limit\na,1\na,1\n"):
        r.write(broken)
        for _ in range(3):
            await r.engine.outside.look()
        (reason,) = r.reasons()
        assert reason.startswith('known: "limits.csv" cannot be taken: ')
        await r.step(2)
    r.file.unlink()
    await r.engine.outside.look()
    await r.engine.outside.look()
    await r.engine.outside.look()
    assert r.reasons() == ['known: "limits.csv" cannot be taken: No such file or directory']
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 4
    assert r.out == [(1, 1), (2, 1), (2, 1), (2, 1)]
    r.write("id,limit\na,1\n")
    await r.engine.outside.look()
    await r.engine.outside.look()
    assert r.reasons() == []


async def test_a_replay_sees_what_was_seen(rig: Make) -> None:
    """Over a kill, whatever the file holds by now; then what it holds."""
    r = rig()
    r.write("id,limit\na,1\n")
    r.start()
    await r.step(1)
    r.write("id,limit\na,2\n")
    await r.engine.outside.look()
    await r.engine.outside.look()
    await r.step(2)
    await r.step(3)
    again = rig()
    again.write("id,limit\na,3\n")
    again.start()
    assert again.out == r.out == [(1, 1), (2, 2), (3, 2)]
    await again.step(4)
    assert again.out[3:] == [(4, 3)]


async def test_a_start_without_it(rig: Make) -> None:
    """The first one fails, since every reading would go without; a later one has what was read before."""
    r = rig()
    with pytest.raises(ValueError, match=r'known: "limits.csv" cannot be taken: No such file'):
        r.start()
    r = rig()
    r.write("id,limit\na,1\n")
    r.start()
    await r.step(1)
    await r.engine._checkpoint()
    again = rig()
    again.file.unlink()
    again.start()
    await again.step(2)
    assert again.out == [(2, 1)]
    assert len(again.reasons()) == 1


async def test_one_that_is_too_large_is_not_read_whole(rig: Make) -> None:
    r = rig()
    r.write("id,limit\na,1\n")
    (watched,) = r.engine.outside._watched.values()
    watched.file = dataclasses.replace(watched.file, most=5)
    with pytest.raises(ValueError, match="larger than 5 bytes"):
        r.start()
