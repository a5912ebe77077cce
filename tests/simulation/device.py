"""A whole pipeline on the simulated disk, loop and network."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from pipeline.config import load
from pipeline.delivery import Delivery
from pipeline.frame import KeyTable
from pipeline.graph import Graph
from pipeline.journal.commit import RETRY_S, Done, Store, Work
from pipeline.journal.files import Files
from pipeline.run import Pipeline
from tests.simulation import world
from tests.simulation.disk import Cut, Disk, SimulatedFiles

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

FIELDS = """
key = "id"
time = "ts"
time_unit = "ms"
fields = {{ value = "float", n = "int" }}
"""

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
FIELDS
[sources.messages]
type = "broker"
FIELDS
[sources.grown]
type = "file"
path = "grown.log"
follow = true
format = "{format}"
FIELDS
[sources.recorded]
type = "file"
path = "recorded-*.log"
speed = {speed}
format = "{format}"
FIELDS
[operators.valid]
type = "filter"
inputs = ["readings", "messages"]
where = "value >= 0"

[operators.ten_seconds]
type = "window"
input = "valid"
size = "10 s"
aggregate = {{ n = "count()", total = "sum(value)" }}

[operators.grown_windows]
type = "window"
input = "grown"
size = "10 s"
aggregate = {{ n = "count()", total = "sum(value)" }}

[operators.recorded_windows]
type = "window"
input = "recorded"
size = "10 s"
aggregate = {{ n = "count()", total = "sum(value)" }}

[operators.high]
type = "alert"
input = "valid"
when = "value > 80"
clear = "value < 20"

[operators.anywhere]
type = "alert"
inputs = ["readings", "messages", "grown", "recorded"]
when = "value > 80"
clear = "value < 20"

[operators.refused]
type = "window"
inputs = ["readings.invalid", "messages.invalid", "grown.invalid", "recorded.invalid"]
size = "10 s"
aggregate = {{ n = "count()" }}

[sinks.local]
type = "query_server"
inputs = [
    "readings", "messages", "grown", "recorded", "ten_seconds", "ten_seconds.late", "high",
    "grown_windows", "grown_windows.late", "recorded_windows", "recorded_windows.late",
    "readings.invalid", "messages.invalid", "grown.invalid", "recorded.invalid", "refused", "refused.late", "anywhere",
]
rollup = ["5 s", "1 min"]

[sinks.archive]
type = "file"
input = "ten_seconds"
path = "archive.csv"
format = "csv"

[sinks.copy]
type = "file"
inputs = ["grown", "recorded"]
path = "copy.csv"
format = "csv"

[sinks.refusals]
type = "file"
inputs = ["readings.invalid", "messages.invalid", "grown.invalid", "recorded.invalid"]
path = "refusals.csv"
format = "csv"

[sinks.cloud]
type = "cloud"
inputs = ["readings", "messages", "ten_seconds", "high"]
url = "http://simulated/api/sync"
batch = {{ rows = 5, wait = "1 s" }}
buffer = {{ size = "{size} B", when_full = "{when_full}" }}
""".replace("FIELDS", FIELDS)


class Chosen(NamedTuple):
    """What a seed decides of the pipeline file."""

    durability: str = "power"
    commit: str = "0 s"
    format: str = "json"
    speed: float = 0.0
    size: int = 100_000_000
    when_full: str = "thin"

    @property
    def is_small(self) -> bool:
        """The buffer is too small for an outage."""
        return self.size < 100_000

    @classmethod
    def by(cls, chance: random.Random) -> Chosen:
        durability = chance.choice(["power", "power", "process"])
        commit = chance.choice(["0 s", "0 s", "1 s"])
        format_, speed = chance.choice(["json", "csv"]), chance.choice([0.0, 0.5, 2.0])
        size = chance.choice([100_000_000, chance.choice([4_000, 12_000])])
        return cls(durability, commit, format_, speed, size, chance.choice(["thin", "drop_oldest", "block"]))


class SimulatedStore(Store):
    """The writer without its thread: what was handed over is committed a moment later, in the loop."""

    def __init__(self, folder: Path, durability: str, vfs: str, disk: Disk, chance: random.Random) -> None:
        self.disk, self.chance = disk, chance
        self.handed: list[tuple[Work, Done]] = []
        self.turning = False
        self.on_commit: Callable[[apsw.Connection], None] = lambda _: None
        super().__init__(folder, durability, vfs)
        # As SQLite's own, whose errors it keeps to itself; ours are Python's, and would come out of the COMMIT before it.
        self.connection.wal_autocheckpoint(0)
        self.every = chance.choice([1, 5, 50])

    def _start(self) -> None:
        self.loop = asyncio.get_running_loop()

    def _new_files(self) -> Files:
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
        self.on_commit(self.connection)
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
        self._let_go()


class SimulatedPipeline(Pipeline):
    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        config = load(sim.folder / "pipeline.toml")
        graph = Graph(config, KeyTable(limit=config.pipeline.max_keys), sim.clock)
        assert not config.problems
        assert not graph.problems
        graph.sources["messages"].broker = sim.broker  # type: ignore[attr-defined]
        graph.sinks["cloud"].peer._open = lambda: sim.cloud  # type: ignore[attr-defined]
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
