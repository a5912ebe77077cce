"""One run of a seed: work, faults, crashes; then what was promised is looked for."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

import pipeline.compactor
import pipeline.engine
import pipeline.journal.compaction
import pipeline.sources.file
from pipeline.component import Unanswerable
from pipeline.engine import Engine
from pipeline.run import Pipeline
from pipeline.trial.loop import SECOND, LoopClock, VirtualLoop
from tests.simulation import broker, world
from tests.simulation.device import PIPELINE, Chosen, SimulatedPipeline
from tests.simulation.disk import Disk, SimulatedVFS
from tests.simulation.promises import Buffer, Promises

STARTED = 1_790_000_000 * SECOND


class Failed(AssertionError):
    """An invariant does not hold."""


class Ran(NamedTuple):
    crashes: int
    writes: int
    readings: int
    acknowledged: int
    pushed_back: int
    dropped: int
    thinned: int


class Simulation:
    """One seed: chance decides on the work, the faults and the crashes."""

    def __init__(self, seed: int, folder: Path, loop: VirtualLoop) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.folder = folder
        self.loop = loop
        self.clock = LoopClock(loop, STARTED)
        self.disk = Disk(self.chance, folder)
        self.vfs = SimulatedVFS(f"simulated-{id(self)}", self.disk)
        self.world = world.World(self.chance, loop, STARTED)
        self.broker = world.Broker(self.world)
        self.cloud = world.Cloud(self.world)
        self.grown = world.Log(self.world, "grown", folder / "grown.log", csv=False)
        self.failed: Failed | None = None
        self.crashes = 0
        self.forgotten: list[tuple[int, int, str]] = []  # step, arrival number, key
        self.lives, self.requests = self.chance.randint(1, 5), 20
        self.choose(Chosen.by(self.chance))

    def choose(self, chosen: Chosen) -> None:
        """Write the pipeline file, and what lies beside it."""
        self.chosen = chosen
        self.grown.csv = chosen.format == "csv"
        (self.folder / "pipeline.toml").write_text(PIPELINE.format(**chosen._asdict()))

    def short_run(self, full_from: int) -> None:
        """No chance: a little work in one life, and no room for half a minute from this write on."""
        self.lives, self.requests = 0, 6
        self.disk.on_write[full_from] = self._fill_up
        self.choose(Chosen())

    def _fill_up(self) -> None:
        self.disk.full = True
        self.loop.call_later(30, setattr, self.disk, "full", False)

    async def run(self) -> Ran:
        work = [self.world.client(f"c{i}", self.chance.randint(3, self.requests), keyed=i < 2) for i in range(3)]
        work.append(self.broker.publish(self.chance.randint(3, 2 * self.requests)))
        recorded = world.Log(self.world, "recorded", self.folder / "recorded.log", csv=self.chosen.format == "csv")
        recorded.record(self.chance.randint(3, 4 * self.requests))
        work.append(self.grown.write(self.chance.randint(3, 2 * self.requests)))
        tasks = [asyncio.create_task(w) for w in work]
        self._go_away()
        for _ in range(self.lives):
            await self._until_it_crashes()
        await self._to_the_end(tasks)
        delivered = Promises(self).check()
        if self.failed is not None:
            raise self.failed
        return Ran(
            self.crashes, self.disk.writes, len(self.world.sent), len(self.world.acknowledged), self.world.pushed_back,
            delivered.dropped, delivered.thinned,
        )  # fmt: skip

    # --- lives of the device ---

    async def _until_it_crashes(self) -> None:
        crashed = asyncio.Event()
        self.disk.on_crash = crashed.set
        self.disk.crash_at = (
            self.disk.writes + int(self.chance.expovariate(1 / self.chance.choice([30, 300, 1500]))) + 1
        )
        running, task = self._start()
        forgets = asyncio.create_task(self._forget_keys(running))
        faults = asyncio.create_task(self._faults())
        crash = asyncio.create_task(crashed.wait())
        await asyncio.wait([task, crash], timeout=self.chance.uniform(1, 90), return_when="FIRST_COMPLETED")
        self.world.server = None
        if not self.disk.dead and task.done():
            self.fail(f"it ended by itself: {task.exception()!r}")
        self.disk.dead = True
        for other in (faults, forgets, crash, task):
            other.cancel()
        await asyncio.gather(task, crash, faults, forgets, return_exceptions=True)
        self.crashes += 1
        await asyncio.sleep(self.chance.choice([0.1, 5, 600]))
        self.disk.full = False
        self._go_away()
        self.disk.come_back(power=self.chosen.durability == "power" and self.chance.random() < 0.7)
        if self.chance.random() < 0.2:  # a device without a battery, or an hour wrong
            self.clock.offset = self.chance.choice([-self.clock.monotonic(), STARTED - 7200 * SECOND, STARTED])

    def _go_away(self) -> None:
        """What a small buffer is too small for is an outage that lasts for more than a moment."""
        self.cloud.away = self.chosen.is_small and self.chance.random() < 0.8

    async def _to_the_end(self, tasks: list[asyncio.Task[None]]) -> None:
        """A last life without faults: all is sent, delivered, and the device stopped as it should be."""
        running, task = self._start()
        self.cloud.kind = True
        for _ in range(4000):
            if task.done():
                self.fail(f"it ended by itself: {task.exception()!r}")
            started = self.world.server is not None
            sent = not self.broker.waiting and all(t.done() for t in tasks)
            if started and sent and self._has_read_all(running) and not await self._waiting(running):
                break
            await asyncio.sleep(0.5)
        else:
            self.fail("it did not come to an end")
        self.world.server = None
        running.stop()
        await task
        for done in tasks:
            done.result()

    async def _waiting(self, running: Pipeline) -> int:
        return sum(int(sink["waiting"]) for sink in await running.services.delivery())

    def _has_read_all(self, running: Pipeline) -> bool:
        """The files are read to their ends, and that is committed."""
        assert running.engine is not None
        grown, recorded = (running.engine.intakes[name] for name in ("grown", "recorded"))
        path = self.grown.path
        if not path.exists() or not path.stat().st_size:  # just rotated
            path = path.with_name("grown.log.1")
        at = grown.position or {"inode": None, "offset": None}
        read = (at["inode"], at["offset"]) == (path.stat().st_ino, path.stat().st_size)
        return read and recorded.ended and not running.engine.in_flight

    def _start(self) -> tuple[SimulatedPipeline, asyncio.Task[None]]:
        running = SimulatedPipeline(self)
        running.on_start = self._started
        return running, asyncio.create_task(running.run())

    def _started(self, running: Pipeline) -> None:
        assert running.engine is not None
        self.world.server = running.server
        engine = running.engine
        ((journal,),) = running.store.connection.execute("SELECT count(*) FROM steps")
        if journal > pipeline.engine.CHECKPOINT_STEPS + 2 * (self.crashes + 1):
            self.fail(f"the journal has grown to {journal} steps")
        self._watch_forgetting(engine)
        marks = {name: intake.watermark for name, intake in engine.intakes.items()}
        last = [engine.number]

        def look(writes: Any, end: int) -> None:
            """After each commit."""
            if writes.step != last[0] + 1:
                self.fail(f"step {writes.step} was committed after step {last[0]}")
            last[0] = writes.step
            if "grown" in writes.positions:
                self.grown.inode = writes.positions["grown"]["inode"]
            if engine.in_flight > pipeline.engine.IN_FLIGHT + 1:
                self.fail(f"{engine.in_flight} steps in flight")
            for name, intake in engine.intakes.items():
                if intake.watermark < marks[name]:
                    self.fail(f"the watermark of {name} fell")
                marks[name] = intake.watermark

        engine.published.append(look)
        if self.chosen.is_small:
            running.store.on_commit = Buffer(self.fail, self.chosen.when_full).look  # type: ignore[attr-defined]

    def _watch_forgetting(self, engine: Engine) -> None:
        """What is forgotten in a step holds if the step is found again after a crash."""
        self.forgotten = [one for one in self.forgotten if one[0] <= engine.number]
        commit = engine._commit

        def noted(writes: Any, *rest: Any) -> None:
            names = engine.graph.keys.names
            self.forgotten += [(writes.step, writes.entry.first_seq, names[k]) for k, _ in writes.entry.forgotten]
            commit(writes, *rest)

        engine._commit = noted  # type: ignore[assignment,method-assign]

    async def _forget_keys(self, running: Pipeline) -> None:
        """Now and then a client is forgotten, and goes on as if it were new. In the windows of files it is not: they have
        keys of the same names, and end with their input."""
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / 10))
            if self.world.server is not None:
                with contextlib.suppress(Unanswerable):  # it has not been heard yet
                    await running.services.forget(self.chance.choice(["c0", "c1", "c2"]), "readings")

    async def _faults(self) -> None:
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / 8))
            what = self.chance.choice(["full", "failing", "sync", "away", "paused", "set"])
            if what == "full":
                self.disk.full = True
                await asyncio.sleep(self.chance.choice([0.5, 5, 60]))
                self.disk.full = False
            elif what == "failing":
                self.disk.failing_until = self.disk.writes + self.chance.randint(1, 10)
            elif what == "sync":
                self.disk.sync_fails_at = self.disk.writes + self.chance.randint(1, 20)
            elif what == "away":
                before, self.cloud.away = self.cloud.away, True
                await asyncio.sleep(self.chance.choice([1, 60]))
                self.cloud.away = before
            elif what == "paused":
                self.loop.passed += self.chance.choice([1, 60, 3600])
            else:
                self.clock.offset = STARTED + self.chance.choice([-7200, -3, 0, 3, 7200]) * SECOND

    def fail(self, text: str) -> NoReturn:
        c = self.chosen
        told = f"seed {self.seed} ({c.durability}, {c.format}, {c.size:,} bytes, {c.when_full}): {text}"
        # Out of a callback of the loop it would only be logged.
        self.failed = self.failed or Failed(told)
        raise self.failed


def simulate(seed: int, plant: Callable[[Simulation], None] = lambda _: None) -> Ran:
    """Run one seed. Failed if an invariant does not hold."""
    sys.modules["pipeline.sources.broker"] = broker
    chance = random.Random(seed)
    loop = VirtualLoop()
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(pipeline.engine, "CHECKPOINT_STEPS", chance.choice([2, 10, 100, 2000]))
        patch.setattr(pipeline.sources.file, "CHUNK", chance.choice([300, 3_000, pipeline.sources.file.CHUNK]))
        if chance.random() < 0.7:
            _rearranging(patch)

        async def run() -> Ran:
            simulation = Simulation(seed, Path(name), loop)
            plant(simulation)
            return await simulation.run()

        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(run())


def _rearranging(patch: pytest.MonkeyPatch) -> None:
    """The history and its rollups, again and again, as if a few rows were worth it."""
    patch.setattr(pipeline.compactor, "EVERY_S", 3.0)
    for name, value in (
        ("MANY_FRAMES", 6),
        ("MANY_PARTS", 3),
        ("ROWS_A_KEY", 8),
        ("LEAST_ROWS", 20),
        ("MANY_CHUNKS", 3),
    ):
        patch.setattr(pipeline.journal.compaction, name, value)
