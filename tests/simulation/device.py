"""A whole pipeline on the simulated disk, loop and network, and one run of a seed: work, faults, crashes, and the oracle."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import apsw

import pipeline.engine
from pipeline.component import RowsQuery
from pipeline.config import load
from pipeline.delivery import Delivery
from pipeline.frame import Frame, KeyTable
from pipeline.graph import Graph
from pipeline.journal import history, outbox, state
from pipeline.journal.commit import RETRY_S, Done, Store, Work
from pipeline.journal.files import Files
from pipeline.run import Pipeline
from pipeline.trial.loop import SECOND, LoopClock, VirtualLoop
from tests.peer import ms
from tests.simulation import broker, oracle, world
from tests.simulation.disk import Cut, Disk, SimulatedFiles, SimulatedVFS

STARTED = 1_790_000_000 * SECOND

PIPELINE = """
[pipeline]
name = "simulated"
state = "state"
durability = "{durability}"
commit = "{commit}"
disorder = "5 s"
idle = "10 d"

[sources.readings]
type = "http"
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float", n = "int" }}

[sources.messages]
type = "broker"
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float", n = "int" }}

[operators.valid]
type = "filter"
inputs = ["readings", "messages"]
where = "value >= 0"

[operators.ten_seconds]
type = "window"
input = "valid"
size = "10 s"
aggregate = {{ n = "count()", total = "sum(value)" }}

[operators.high]
type = "alert"
input = "valid"
when = "value > 80"
clear = "value < 20"

[sinks.local]
type = "query_server"
inputs = ["readings", "messages", "ten_seconds", "ten_seconds.late", "high"]

[sinks.archive]
type = "file"
input = "ten_seconds"
path = "archive.csv"
format = "csv"

[sinks.cloud]
type = "cloud"
inputs = ["ten_seconds", "high"]
url = "http://simulated/api/sync"
batch = {{ rows = 5, wait = "1 s" }}
"""


class SimulatedStore(Store):
    """The writer without its thread: what was handed over is committed a moment later, in the loop."""

    def __init__(self, folder: Path, durability: str, vfs: str, disk: Disk, chance: random.Random) -> None:
        self.disk, self.chance = disk, chance
        self.handed: list[tuple[Work, Done]] = []
        self.turning = False
        super().__init__(folder, durability, vfs)
        # As SQLite's own, whose errors it keeps to itself; ours are Python's, and would come out of the COMMIT before it.
        self.connection.wal_autocheckpoint(0)
        self.every = chance.choice([1, 5, 50])

    def _start(self) -> None:
        self.loop = asyncio.get_running_loop()

    def files(self) -> Files:
        return SimulatedFiles(self.disk, sync=self.durability == "power")

    def submit(self, work: Work, done: Done) -> None:
        self._waiting += 1

        def back(result: Any, error: BaseException | None) -> None:
            if not self.disk.dead:
                self.loop.call_soon(self._came_back, done, result, error)

        self.handed.append((work, back))
        self._turn_later()

    def _turn_later(self) -> None:
        if not self.turning and self.handed:
            self.turning = True
            self.loop.call_later(self.chance.choice([0.0001, 0.005, 0.2]), self._turn)

    def _turn(self) -> None:
        group, self.handed = self.handed, []
        self._commit(group)

    def _commit(self, group: list[tuple[Work, Done]]) -> None:
        if self.disk.dead:
            return
        if self._settle(group) is not None:
            self.loop.call_later(RETRY_S, self._commit, group)
            return
        if self.commits % self.every == 0:
            with contextlib.suppress(apsw.Error, Cut):
                self.connection.wal_checkpoint()
        self.turning = False
        self._turn_later()

    async def read(self, work: Callable[[apsw.Connection], Any]) -> Any:
        await asyncio.sleep(0.001)
        if self.disk.dead:
            await self.loop.create_future()
        return self._read(work)

    def close(self) -> None:
        if self.handed and not self.disk.dead:
            self._settle(self.handed)
        for connection in (getattr(self._local, "connection", None), self.connection):
            if connection is not None:
                try:
                    connection.close()
                except Exception:  # noqa: BLE001 - the power is off
                    pass
        self._unlock()


class SimulatedPipeline(Pipeline):
    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        config = load(sim.folder / "pipeline.toml")
        graph = Graph(config, KeyTable(limit=config.pipeline.max_keys), sim.clock)
        assert not config.problems
        assert not graph.problems
        graph.sources["messages"].broker = sim.broker  # type: ignore[attr-defined]
        graph.sinks["cloud"]._open = lambda: sim.cloud  # type: ignore[attr-defined]
        super().__init__(config, graph)

    def open_store(self) -> Store:
        settings = self.config.pipeline
        return SimulatedStore(settings.state, settings.durability, self.sim.vfs.name, self.sim.disk, self.sim.chance)

    def open_server(self) -> Any:
        return world.Server()

    def _delivery(self, store: Store) -> Delivery:
        sinks = {name: sink for name, sink in self.graph.sinks.items() if sink.buffer is not None}
        chance = self.sim.chance
        return Delivery(
            sinks, store, self.clock, self.graph.keys, self.graph.streams, random_=chance,
            new_key=lambda: f"{chance.getrandbits(64):x}",
        )  # fmt: skip


class Failed(AssertionError):
    """An invariant does not hold."""


class Ran(NamedTuple):
    crashes: int
    writes: int
    readings: int
    acknowledged: int


class Simulation:
    """One seed: chance decides on the work, the faults and the crashes."""

    def __init__(self, seed: int, folder: Path, loop: VirtualLoop) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.folder = folder
        self.loop = loop
        self.clock = LoopClock(loop, STARTED)
        self.durability = self.chance.choice(["power", "power", "process"])
        self.disk = Disk(self.chance, folder)
        self.vfs = SimulatedVFS(f"simulated-{id(self)}", self.disk)
        self.world = world.World(self.chance, loop, STARTED)
        self.broker = world.Broker(self.world)
        self.cloud = world.Cloud(self.world)
        self.crashes = 0
        self.lives, self.requests = self.chance.randint(1, 5), 25
        commit = self.chance.choice(["0 s", "0 s", "1 s"])
        text = PIPELINE.format(durability=self.durability, commit=commit)
        (folder / "pipeline.toml").write_text(text)

    def short_run(self, full_from: int) -> None:
        """No chance: a little work in one life, and no room for half a minute from this write on."""
        self.durability, self.lives, self.requests = "power", 0, 6
        self.disk.on_write[full_from] = self._fill_up
        (self.folder / "pipeline.toml").write_text(PIPELINE.format(durability="power", commit="0 s"))

    def _fill_up(self) -> None:
        self.disk.full = True
        self.loop.call_later(30, setattr, self.disk, "full", False)

    async def run(self) -> Ran:
        work = [self.world.client(f"c{i}", self.chance.randint(3, self.requests), keyed=i < 2) for i in range(3)]
        work.append(self.broker.publish(self.chance.randint(3, 2 * self.requests)))
        tasks = [asyncio.create_task(w) for w in work]
        for _ in range(self.lives):
            await self._until_it_crashes()
        await self._to_the_end(tasks)
        self.check()
        return Ran(self.crashes, self.disk.writes, len(self.world.sent), len(self.world.acknowledged))

    # --- lives of the device ---

    async def _until_it_crashes(self) -> None:
        crashed = asyncio.Event()
        self.disk.on_crash = crashed.set
        self.disk.crash_at = (
            self.disk.writes + int(self.chance.expovariate(1 / self.chance.choice([30, 300, 1500]))) + 1
        )
        _, task = self._start()
        faults = asyncio.create_task(self._faults())
        crash = asyncio.create_task(crashed.wait())
        await asyncio.wait([task, crash], timeout=self.chance.uniform(1, 90), return_when="FIRST_COMPLETED")
        self.world.server = None
        if not self.disk.dead and task.done():
            self.fail(f"it ended by itself: {task.exception()!r}")
        self.disk.dead = True
        for other in (faults, crash, task):
            other.cancel()
        await asyncio.gather(task, crash, faults, return_exceptions=True)
        self.crashes += 1
        await asyncio.sleep(self.chance.choice([0.1, 5, 600]))
        self.disk.full = self.cloud.away = False
        self.disk.come_back(power=self.durability == "power" and self.chance.random() < 0.7)
        if self.chance.random() < 0.2:  # a device without a battery, or an hour wrong
            self.clock.offset = self.chance.choice([-self.clock.monotonic(), STARTED - 7200 * SECOND, STARTED])

    async def _to_the_end(self, tasks: list[asyncio.Task[None]]) -> None:
        """A last life without faults: all is sent, delivered, and the device stopped as it should be."""
        running, task = self._start()
        self.cloud.kind = True
        for _ in range(4000):
            if task.done():
                self.fail(f"it ended by itself: {task.exception()!r}")
            started = self.world.server is not None
            waiting = sum(sink["waiting"] for sink in await running.services.delivery()) if started else 1
            if not waiting and not self.broker.waiting and all(t.done() for t in tasks):
                break
            await asyncio.sleep(0.5)
        else:
            self.fail("it did not come to an end")
        self.world.server = None
        running.stop()
        await task
        for done in tasks:
            done.result()

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
        marks = {name: intake.watermark for name, intake in engine.intakes.items()}
        last = [engine.number]

        def look(writes: Any) -> None:
            """After each commit."""
            if writes.step != last[0] + 1:
                self.fail(f"step {writes.step} was committed after step {last[0]}")
            last[0] = writes.step
            if engine.in_flight > pipeline.engine.IN_FLIGHT + 1:
                self.fail(f"{engine.in_flight} steps in flight")
            for name, intake in engine.intakes.items():
                if intake.watermark < marks[name]:
                    self.fail(f"the watermark of {name} fell")
                marks[name] = intake.watermark

        engine.published.append(look)

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
                self.cloud.away = True
                await asyncio.sleep(self.chance.choice([1, 60]))
                self.cloud.away = False
            elif what == "paused":
                self.loop.passed += self.chance.choice([1, 60, 3600])
            else:
                self.clock.offset = STARTED + self.chance.choice([-7200, -3, 0, 3, 7200]) * SECOND

    # --- the oracle ---

    def fail(self, text: str) -> NoReturn:
        raise Failed(f"seed {self.seed} ({self.durability}): {text}")

    def expect(self, what: str, found: Counter[Any], wanted: Counter[Any]) -> None:
        if found != wanted:
            self.fail(
                f"{what}: too many {list((found - wanted).items())[:3]}, missing {list((wanted - found).items())[:3]}"
            )

    def check(self) -> None:
        db = apsw.Connection(str(self.folder / "state" / "headwater.db"))
        if db.pragma("integrity_check") != "ok":
            self.fail("the database is damaged")
        names = state.keys(db)
        graph = SimulatedPipeline(self).graph

        def stored(stream: str) -> Frame:
            return history.rows(db, RowsQuery(stream, limit=10**6), graph.streams[stream], None)

        kept = []
        for source in ("readings", "messages"):
            frame = stored(source)
            columns = [frame.seq, frame.key, frame.time // 1_000_000, frame["value"].values, frame["n"].values]
            for seq, key, ts, value, n in zip(*(c.tolist() for c in columns), strict=True):
                kept.append((seq, oracle.Reading(source, names[key], ts, value, n)))
        kept.sort()
        if len({seq for seq, _ in kept}) != len(kept):
            self.fail("two readings have one arrival number")
        readings = [reading for _, reading in kept]
        self._readings(readings)
        wanted = oracle.outputs(readings, ["readings", "messages"])
        self._outputs(stored, names, wanted)
        if outbox.status(db, "cloud").rows:
            self.fail("rows are left in the outbox")
        db.close()
        self._cloud(wanted)
        self._archive(wanted)

    def _readings(self, readings: list[oracle.Reading]) -> None:
        found = Counter((r.id, r.n) for r in readings)
        for reading in readings:
            sent = self.world.sent.get((reading.id, reading.n))
            if sent is None or (sent["ts"], sent["value"]) != (reading.ts, reading.value):
                self.fail(f"{reading} was never sent")
        lost = [r for r in self.world.acknowledged if not found[r]]
        if lost:
            self.fail(f"{len(lost)} acknowledged readings are lost: {lost[:3]}")
        doubled = [r for r, times in found.items() if times > 1 and r[0] != "c2"]  # c2 sends without a key
        if doubled:
            self.fail(f"{len(doubled)} readings are there twice: {doubled[:3]}")

    def _outputs(self, stored: Callable[[str], Frame], names: list[str], wanted: oracle.Outputs) -> None:
        frame = stored("ten_seconds")
        columns = [frame.key, frame["start"].values // 1_000_000, frame["n"].values, frame["total"].values]
        found = Counter((names[k], s, n, t) for k, s, n, t in zip(*(c.tolist() for c in columns), strict=True))
        self.expect("windows", found, wanted.windows)
        frame = stored("ten_seconds.late")
        columns = [frame.key, frame.time // 1_000_000, frame["value"].values]
        self.expect(
            "late",
            Counter((names[k], t, v) for k, t, v in zip(*(c.tolist() for c in columns), strict=True)),
            wanted.late,
        )
        frame = stored("high")
        columns = [frame.key, frame.time // 1_000_000, frame["state"].values]
        self.expect(
            "alerts",
            Counter((names[k], t, s) for k, t, s in zip(*(c.tolist() for c in columns), strict=True)),
            wanted.alerts,
        )

    def _cloud(self, wanted: oracle.Outputs) -> None:
        if self.cloud.changed:
            self.fail(f"batches changed under their key: {self.cloud.changed[:3]}")
        rows = self.cloud.rows()
        windows = Counter((r["id"], ms(r["start"]), r["n"], r["total"]) for r in rows if r["stream"] == "ten_seconds")
        self.expect("windows at the cloud", windows, wanted.windows)
        alerts = Counter((r["id"], ms(r["time"]), r["state"]) for r in rows if r["stream"] == "high")
        self.expect("alerts at the cloud", alerts, wanted.alerts)

    def _archive(self, wanted: oracle.Outputs) -> None:
        with (self.folder / "archive.csv").open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        try:
            found = Counter((r["id"], ms(r["start"]), int(r["n"]), float(r["total"])) for r in rows)
        except (KeyError, ValueError, TypeError) as error:
            self.fail(f"the file is torn: {error!r}")
        self.expect("rows of the file", found, wanted.windows)


def simulate(seed: int, plant: Callable[[Simulation], None] = lambda _: None) -> Ran:
    """Run one seed. Failed if an invariant does not hold."""
    sys.modules["pipeline.sources.broker"] = broker
    steps = pipeline.engine.CHECKPOINT_STEPS
    pipeline.engine.CHECKPOINT_STEPS = random.Random(seed).choice([2, 10, 100, 2000])
    loop = VirtualLoop()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        try:

            async def run() -> Ran:
                simulation = Simulation(seed, Path(name), loop)
                plant(simulation)
                return await simulation.run()

            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                return runner.run(run())
        finally:
            pipeline.engine.CHECKPOINT_STEPS = steps
