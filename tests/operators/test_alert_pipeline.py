"""`alert` in a running pipeline: a start without any reading, and alerts beside each other."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from pipeline.clock import VirtualClock
from pipeline.component import Payload
from pipeline.config import loads
from pipeline.engine import Engine
from pipeline.frame import NEVER, SECOND, Frame, KeyTable
from pipeline.graph import Graph
from pipeline.journal.commit import Store
from pipeline.recovery import begin, recover

FILE = """
[pipeline]
name = "p"
state = "state"
durability = "process"
disorder = "0 s"
idle = "10 s"

[sources.in]
type = "http"
path = "/in"
key = "id"
time = "ts"
time_unit = "s"
fields = { value = "float" }

[operators.lost]
type = "alert"
input = "in"
silent_for = "60 s"
expect = ["a", "b"]
level = "bad"

[operators.hot]
type = "alert"
input = "in"
when = "value > 30"
inhibit = "lost"

[sinks.local]
type = "query_server"
inputs = ["lost", "hot"]
"""
START = 1_800_000_000


class Rig:
    """The pipeline file, as an engine without its waiting. Times in seconds from the start."""

    def __init__(self, folder: Path, clock: VirtualClock) -> None:
        config = loads(FILE, folder / "pipeline.toml")
        self.clock = clock
        self.graph = Graph(config, KeyTable(), clock)
        assert not [*config.problems, *self.graph.problems]
        self.store = Store(config.pipeline.state, "process")
        self.engine = Engine(config, self.graph, self.store, clock)
        self.rows: list[tuple[Any, ...]] = []
        for name in ("lost", "hot"):
            self.graph.watch(name, self._came)
        begin(self.engine, recover(self.engine, lambda text: None).moved)
        for intake in self.engine.intakes.values():
            intake.listen(clock.monotonic())

    def _came(self, frame: Frame) -> None:
        keys = [self.graph.keys.names[code] for code in frame.key.tolist()]
        columns = (frame[name].tolist() for name in ("alert", "state"))
        self.rows += zip(keys, (frame.time // SECOND - START).tolist(), *columns, strict=True)

    async def settled(self) -> None:
        while self.engine.in_flight:
            await asyncio.sleep(0.001)

    async def step(self, *readings: tuple[str, int, float]) -> None:
        for key, time, value in readings:
            data = json.dumps({"id": key, "ts": START + time, "value": value}).encode()
            self.engine.intakes["in"].inbox.offer(Payload(data, len(data)))
        self.engine.step()
        await self.settled()

    async def wait(self, seconds: int) -> None:
        """Time passes; the engine looks at it each second."""
        for _ in range(seconds):
            self.clock.advance(SECOND)
            self.engine.silence.look()
            if self.engine._tick_due():
                await self.step()


async def test_a_key_that_never_speaks(tmp_path: Path) -> None:
    """Nobody has spoken yet: its silence counts from the start of the pipeline, over restarts, but not while it is down."""
    clock = VirtualClock(START * SECOND)
    rig = Rig(tmp_path, clock)
    await rig.settled()
    await rig.wait(45)
    assert rig.rows == []
    await rig.step()  # some step at which time is noted
    rig.store.close()
    clock.advance(3600 * SECOND)
    rig = Rig(tmp_path, clock)
    await rig.settled()
    clock.jump(10_000 * SECOND)  # the clock is set: no time has passed for that
    await rig.wait(14)
    assert rig.rows == []
    await rig.wait(1)
    now = 45 + 3600 + 10_000 + 15
    assert rig.rows == [("a", now, "lost", "firing"), ("b", now, "lost", "firing")]
    assert rig.engine.intakes["in"].watermark == NEVER + 60 * SECOND
    await rig.wait(100)
    assert len(rig.rows) == 2

    rig.store.close()
    rig = Rig(tmp_path, clock)
    await rig.settled()
    assert rig.rows == [("a", now, "lost", "firing"), ("b", now, "lost", "firing")], "the journal makes the same rows"


async def test_no_reading_is_late_for_a_start_without_any(tmp_path: Path) -> None:
    """Whatever the first one is dated: it is then that event time begins."""
    clock = VirtualClock(START * SECOND)
    rig = Rig(tmp_path, clock)
    await rig.settled()
    await rig.wait(30)
    await rig.step()
    assert rig.engine.intakes["in"].watermark == NEVER + 30 * SECOND
    await rig.step(("a", -5000, 1.0))
    assert rig.engine.intakes["in"].watermark == (START - 5000) * SECOND
    await rig.step(("a", -4950, 1.0), ("a", -4930, 1.0))
    assert rig.rows == [("b", -4940, "lost", "firing")]
    rig.store.close()


async def test_an_alert_that_another_one_inhibits(tmp_path: Path) -> None:
    """The reading that ends the one raises the other only if it holds then."""
    rig = Rig(tmp_path, VirtualClock((START + 100) * SECOND))
    await rig.settled()
    await rig.step(("a", 0, 1.0), ("b", 0, 1.0), ("b", 50, 1.0), ("b", 70, 31.0))
    assert rig.rows == [("a", 60, "lost", "firing"), ("b", 70, "hot", "firing")]
    await rig.step(("a", 71, 31.0), ("b", 72, 1.0))
    assert rig.rows[2:] == [("a", 71, "lost", "cleared"), ("a", 71, "hot", "firing"), ("b", 72, "hot", "cleared")]
    rig.store.close()
