"""The engine with the smallest components there can be, on a virtual clock: steps, commits, crashes, silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

import pipeline.engine as engine_module
from pipeline.clock import VirtualClock
from pipeline.component import (
    Decoded,
    Operator,
    OperatorContext,
    Payload,
    Receipt,
    Refused,
    Settings,
    Sink,
    Source,
    SourceContext,
    StepWrites,
)
from pipeline.engine import WORTH_BYTES, Engine
from pipeline.frame import SECOND, Field, Frame, KeyTable, Schema, column
from pipeline.graph import Graph
from pipeline.inbox import INBOX_PAYLOADS, STEP_BYTES
from pipeline.journal import dead, state
from pipeline.journal.commit import StateInUse, Store
from pipeline.nodes import Node
from pipeline.recovery import begin, recover
from pipeline.writes import Writes
from tests.waiting import eventually

READINGS = Schema("id", {"value": Field("float")})
Rows = list[tuple[str, int, float]]  # key, seconds, value


class Timed(Settings, frozen=True):
    time: str | None = None


class Pushed(Source):
    """What the test offers; a value of -1 is refused."""

    def __init__(self, settings: Settings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.schema = READINGS

    def decode(self, payloads: Sequence[Payload]) -> Decoded:
        rows = [row for p in payloads for row in p.data if row[2] != -1]
        counts = [sum(row[2] != -1 for row in p.data) for p in payloads]
        refused = [
            Refused(i, j, "minus one", str(row))
            for i, p in enumerate(payloads)
            for j, row in enumerate(p.data)
            if row[2] == -1
        ]
        times = np.array([t * SECOND for _, t, _ in rows], np.int64)
        return Decoded(
            [k for k, _, _ in rows], times, {"value": column("float", [v for *_, v in rows])}, counts, refused
        )


class Recorded(Pushed):
    """The same, from a record that can be read again."""

    replayable = True
    record: ClassVar[dict[str, list[Payload]]] = {}

    def __init__(self, settings: Timed, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.dated = settings.time is not None

    def decode(self, payloads: Sequence[Payload]) -> Decoded:
        decoded = super().decode(payloads)
        return decoded if self.dated else decoded._replace(times=None)

    def reread(self, start: Any, end: Any) -> list[Payload]:
        payloads = self.record[self.context.name][start or 0 : end]
        # Cut otherwise than it came, without times of arrival: as a file is read again.
        return [Payload([row for p in payloads for row in p.data], 0)]


class Refusals(Operator):
    """The reasons in order, with their times."""

    def __init__(self, settings: Settings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.came: list[Any] = []

    def on_frame(self, frame: Frame) -> Frame:
        self.came += zip(frame.time.tolist(), frame.seq.tolist(), frame["raw"].tolist(), strict=True)
        return frame

    def snapshot(self) -> Any:
        return {"came": list(self.came)}

    def restore(self, state: Any) -> None:
        self.came = [tuple(one) for one in state["came"]]


class Total(Operator):
    """The running total of each key; 13 is not to its liking. Due at the watermark of 100 s."""

    def __init__(self, settings: Settings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.total = context.per_key("total", [("total", "float")])
        self.reached: list[int] = []
        self.order: list[tuple[int, float]] = []

    def on_frame(self, frame: Frame) -> Frame:
        if (frame["value"].values == 13).any():
            raise ValueError("13")
        np.add.at(self.total.data["total"], frame.key, frame["value"].values)
        self.reached.append(frame.watermark)
        self.order += zip(frame.seq.tolist(), frame["value"].tolist(), strict=True)
        return frame

    def due(self) -> int | None:
        return 100 * SECOND

    def totals(self) -> dict[str, float]:
        names = self.context.keys.names
        return {name: float(self.total.data["total"][code]) for code, name in enumerate(names) if name}


class Kept(Sink):
    """Records what comes."""

    def write(self, stream: str, frame: Frame, writes: StepWrites) -> None:
        writes.record(stream, frame)


class Rig:
    """A pipeline `in -> total -> kept`, with as many sources as asked for."""

    configs: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        folder: Path,
        *,
        sources: Sequence[str] = ("in",),
        component: type[Source] = Pushed,
        text: str = "one",
        time: str | None = None,
        **settings: Any,
    ) -> None:
        def node(name: str, kind: str, component: type, inputs: Sequence[str] = ()) -> Node:
            return Node(name, kind, "t", tuple(inputs), Timed(time=time), component, (kind, name))

        nodes = [node(s, "source", component) for s in sources]
        nodes += [node("total", "operator", Total, sources), node("kept", "sink", Kept, ["total"])]
        nodes += [node("refusals", "operator", Refusals, [f"{s}.invalid" for s in sources])]
        pipeline = {"name": "p", "state": folder, "durability": "process", "commit": 0, "disorder": 0}
        pipeline |= {"idle": 10 * SECOND, "max_future": 60 * SECOND, "max_keys": 5} | settings
        self.config: Any = SimpleNamespace(
            path=folder / "pipeline.toml", text=text, kept_text=text, nodes={n.name: n for n in nodes}
        )
        self.config.pipeline = SimpleNamespace(**pipeline)
        self.config.problem = lambda path, text: (path, text)
        self.configs[text] = self.config
        self.crashed = False
        self.clock = VirtualClock(1_800_000_000 * SECOND)
        self.store = Store(folder, "process")
        self.engine = self.make(text)
        recovered = recover(self.engine, self.make)
        self.plan = recovered.plan
        begin(self.engine, recovered.moved)
        self.receipts: list[Receipt] = []
        self.total = self.engine.graph.edges["total"].operator

    def make(self, text: str) -> Engine:
        config = self.configs[text]
        keys = self.engine.graph.keys if hasattr(self, "engine") else KeyTable(limit=config.pipeline.max_keys)
        return Engine(config, Graph(config, keys, self.clock), self.store, self.clock)

    def offer(self, rows: Rows, source: str = "in", request: str | None = None) -> bool:
        payload = Payload(rows, 10 * len(rows), request=request, done=self.receipts.append)
        return self.engine.intakes[source].inbox.offer(payload)

    async def step(self, rows: Rows | None = None, source: str = "in") -> None:
        """A step with these rows, durable when it comes back."""
        if rows is not None:
            assert self.offer(rows, source)
        self.engine.step()
        while self.engine.in_flight:
            await asyncio.sleep(0.001)

    def tick_due(self) -> bool:
        self.engine.silence.look()
        return self.engine._tick_due()

    def totals(self) -> dict[str, float]:
        assert isinstance(self.total, Total)
        return self.total.totals()

    def refusals(self) -> list[Any]:
        refusals = self.engine.graph.edges["refusals"].operator
        assert isinstance(refusals, Refusals)
        return refusals.came

    async def recorded(self) -> int:
        return await self.store.read(
            lambda db: db.execute("SELECT coalesce(sum(rows), 0) FROM frames WHERE history").get
        )

    async def dead(self) -> list[str]:
        return [letter.reason for letter in await self.store.read(lambda db: dead.letters(db, 100))]

    def crash(self) -> None:
        """What the process leaves when it is killed: the database, and nothing else."""
        if not self.crashed:
            self.store.close()
        self.crashed = True


@pytest.fixture
def rig(tmp_path: Path) -> Any:
    made: list[Rig] = []

    def make(**settings: Any) -> Rig:
        made.append(Rig(tmp_path / "state", **settings))
        return made[-1]

    yield make
    for one in made:
        one.crash()


Make = Callable[..., Rig]


async def test_a_receipt_comes_after_the_commit(rig: Make) -> None:
    """Not when the step is computed, but when a reader of the database can see it."""
    r = rig()
    assert r.offer([("a", 1, 2.0), ("a", 2, -1)])
    r.engine.step()
    assert r.receipts == []
    while not r.receipts:
        await asyncio.sleep(0.001)
    assert (r.receipts[0].taken, r.receipts[0].refused[0].reason) == (1, "minus one")
    assert await r.recorded() == 1
    assert await r.dead() == ["minus one"]


@asynccontextmanager
async def running(r: Rig) -> AsyncIterator[Event]:
    """The engine runs, and nothing is written before the event is set."""
    written = Event()
    await r.engine.begun()
    r.store.submit(lambda _: written.wait(), lambda *_: None)
    task = asyncio.create_task(r.engine.run())
    try:
        yield written
    finally:
        written.set()
        r.engine.stop()
        await task


async def test_what_waits_is_a_step_before_those_are_told_who_waited(rig: Make) -> None:
    """The disk has work while they are told. What came last is told last, after a commit of its own."""
    r = rig()
    told: list[tuple[str, int, int]] = []

    def offer(name: str) -> None:
        payload = Payload([(name, 1, 1.0)], 10)
        payload.done = lambda _: told.append((name, r.engine.number, r.store.commits))
        assert r.engine.intakes["in"].inbox.offer(payload)

    async with running(r) as written:
        commits = r.store.commits
        offer("a")
        await eventually(lambda: r.engine.in_flight == 1)
        offer("b")
        await asyncio.sleep(0)
        assert (r.engine.in_flight, told) == (1, [])
        written.set()
        await eventually(lambda: len(told) == 2)
    assert [(name, steps) for name, steps, _ in told] == [("a", 2), ("b", 2)]
    assert commits < told[0][2] < told[1][2]


async def test_much_that_waits_is_a_step_before_the_last_one_is_durable(rig: Make) -> None:
    """It becomes much while a step is in flight, and nothing else happens that would have the engine look."""
    r = rig()
    inbox = r.engine.intakes["in"].inbox
    async with running(r):
        for steps, size in ((1, 10), (1, WORTH_BYTES // 2), (2, WORTH_BYTES // 2)):
            assert inbox.offer(Payload([("a", 1, 1.0)], size))
            await eventually(lambda steps=steps: r.engine.in_flight == steps)  # type: ignore[misc]
            await asyncio.sleep(0)
            assert r.engine.in_flight == steps


async def test_a_crash_is_a_rollback(rig: Make) -> None:
    """Committed steps are pushed again and give the same state, with and without a checkpoint before; nothing is written twice."""
    r = rig()
    await r.step([("a", 1, 1.0), ("b", 2, 2.0)])
    await r.engine._checkpoint()
    await r.step([("a", 3, 4.0)])
    await r.step([("c", 4, 8.0)])
    before, snapshot = r.totals(), state.pack(r.engine.snapshot())
    r.crash()
    again = rig()
    assert again.totals() == before == {"a": 5.0, "b": 2.0, "c": 8.0}
    assert state.pack(again.engine.snapshot()) == snapshot
    assert await again.recorded() == 4
    await again.step([("a", 5, 16.0)])
    assert again.totals()["a"] == 21.0


@pytest.mark.parametrize("component", [Pushed, Recorded])
@pytest.mark.parametrize("dated", [True, False])
async def test_what_was_refused_is_replayed_as_well(
    rig: Make, component: type[Source], dated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator over SOURCE.invalid has after a crash what it had before, times included, of live sources and of files."""
    Recorded.record = {"in": []}
    r = rig(component=component, time="t" if dated else None)
    for at, rows in enumerate([[("a", 1, -1), ("a", 2, 1.0)], [("b", 3, -1)], [("a", 4, 2.0)]], start=1):
        Recorded.record["in"].append(payload := Payload(rows, 10, position=at))
        assert r.engine.intakes["in"].inbox.offer(payload)
        r.clock.advance(SECOND)  # the step comes later than the payload
        await r.step()
    before, snapshot = r.refusals(), state.pack(r.engine.snapshot())
    assert [raw for _, _, raw in before] == ["('a', 1, -1)", "('b', 3, -1)"]
    r.crash()
    again = rig(component=component, time="t" if dated else None)
    assert again.refusals() == before
    assert state.pack(again.engine.snapshot()) == snapshot


async def test_two_files_in_one_step_are_read_again_in_the_order_in_which_they_came(rig: Make) -> None:
    """Their readings have the numbers that they had, so a node below both sees them in the same order."""
    Recorded.record = {"one": [], "two": []}
    r = rig(component=Recorded, sources=("one", "two"), time="t")
    for name, value in (("one", 1.0), ("two", 2.0), ("two", 3.0), ("one", 4.0), ("two", -1), ("one", 5.0)):
        done = Recorded.record[name]
        done.append(payload := Payload([("a", len(done), value)], 10, position=len(done) + 1))
        assert r.engine.intakes[name].inbox.offer(payload)
    await r.step()
    assert isinstance(r.total, Total)
    before, snapshot = r.total.order, state.pack(r.engine.snapshot())
    assert [value for _, value in before] == [1.0, 2.0, 3.0, 4.0, 5.0]
    r.crash()
    again = rig(component=Recorded, sources=("one", "two"), time="t")
    assert isinstance(again.total, Total)
    assert again.total.order == before
    assert state.pack(again.engine.snapshot()) == snapshot


async def test_a_file_that_was_changed_under_the_journal_is_told(rig: Make) -> None:
    Recorded.record = {"in": [Payload([("a", 1, 1.0)], 10, position=1)]}
    r = rig(component=Recorded, time="t")
    assert r.engine.intakes["in"].inbox.offer(Recorded.record["in"][0])
    await r.step()
    r.crash()
    Recorded.record["in"][0] = Payload([("a", 1, 1.0), ("a", 1, 2.0)], 10, position=1)
    with pytest.raises(StateInUse, match="in: 2 readings where there were 1"):
        rig(component=Recorded, time="t")


async def test_a_row_that_raises_costs_only_itself(rig: Make) -> None:
    """It is a dead letter with the reason; those beside it go on, and so does the stream."""
    r = rig()
    await r.step([("a", 1, 1.0), ("a", 2, 13.0), ("b", 3, 2.0), ("b", 4, 13.0)])
    await r.step([("a", 5, 4.0)])
    assert r.totals() == {"a": 5.0, "b": 2.0}
    assert await r.dead() == ["ValueError: 13"] * 2
    assert r.engine.graph.edges["total"].failure == "ValueError: 13"


async def test_a_repeated_request_counts_once(rig: Make) -> None:
    """Before the commit, after it, and after a crash; the answer is the first one's."""
    r = rig()
    assert r.offer([("a", 1, 1.0)], request="x")
    assert r.offer([("a", 1, 1.0)], request="x")
    await r.step()
    assert r.offer([("a", 1, 1.0)], request="x")
    r.crash()
    again = rig()
    assert again.offer([("a", 1, 1.0)], request="x")
    again.engine.step()
    assert [x.taken for x in r.receipts + again.receipts] == [1, 1, 1, 1]
    assert [x.repeated for x in r.receipts + again.receipts].count(True) == 3
    assert again.totals() == {"a": 1.0}


async def test_dated_ahead_and_one_key_too_many(rig: Make) -> None:
    """Each is refused with its reason, and the good ones beside them are kept."""
    r = rig()
    ahead = 1_800_000_000 + 61
    await r.step([("a", ahead, 1.0), ("a", ahead - 1, 2.0), *((k, 5, 1.0) for k in "bcdefg")])
    assert r.totals() == {"a": 2.0, "b": 1.0, "c": 1.0, "d": 1.0, "e": 1.0}
    assert sorted(x.split(":")[0] for x in await r.dead()) == ["future", *["too many keys (limit 5)"] * 2]
    assert r.engine.intakes["in"].newest == (ahead - 1) * SECOND


async def test_a_full_inbox_says_so(rig: Make) -> None:
    r = rig()
    assert all(r.offer([("a", 1, 1.0)]) for _ in range(INBOX_PAYLOADS))
    assert not r.offer([("a", 1, 1.0)])
    await r.step()
    assert r.offer([("a", 1, 1.0)])


async def test_a_step_takes_so_much_and_no_more(rig: Make) -> None:
    """In the order in which it came; what is taken no longer fills the inbox."""
    r = rig()
    inbox = r.engine.intakes["in"].inbox
    for i, size in enumerate((STEP_BYTES // 2, STEP_BYTES // 2, 10, 2 * STEP_BYTES, 10)):
        assert inbox.offer(Payload([("a", i, float(i))], size))
    values = []
    while len(inbox):
        taken = inbox.take()
        values.append([w.payload.data[0][2] for w in taken])
    assert values == [[0.0, 1.0], [2.0], [3.0], [4.0]]
    assert inbox.fill() == r.engine.order.bytes == 0
    for i in range(3):
        assert inbox.offer(Payload([("a", i, float(i))], 10))
    assert [w.payload.data[0][2] for w in inbox.take()] == [0.0, 1.0, 2.0]
    assert (len(inbox), inbox.fill(), r.engine.order.bytes) == (0, 0, 0)


async def test_an_idle_source_runs_on_at_the_clocks_pace(rig: Make) -> None:
    """After `idle` the watermark is the newest reading's time and the silence; a tick comes only when it is due."""
    r = rig()
    await r.step([("a", 95, 1.0)])
    r.clock.advance(4 * SECOND)
    assert not r.tick_due()
    r.clock.advance(6 * SECOND)
    assert r.tick_due()
    await r.step()
    assert isinstance(r.total, Total)
    assert r.total.reached == [95 * SECOND, 105 * SECOND]


async def test_the_wall_clock_moves_no_watermark(rig: Make) -> None:
    r = rig()
    await r.step([("a", 95, 1.0)])
    r.clock.jump(3600 * SECOND)
    assert not r.tick_due()
    await r.step()
    assert r.engine.intakes["in"].watermark == 95 * SECOND


async def test_a_pause_is_not_silence(rig: Make) -> None:
    """A process that was stopped for an hour has heard nothing; its sources fall idle anew."""
    r = rig()
    await r.step([("a", 95, 1.0)])
    r.engine.silence.beating = True
    r.engine.silence.look()
    r.clock.advance(3600 * SECOND)
    r.engine.silence.look()
    assert not r.tick_due()
    await r.step([("a", 96, 1.0)])
    assert r.engine.intakes["in"].watermark == 96 * SECOND


async def test_an_idle_input_holds_no_one_back(rig: Make) -> None:
    r = rig(sources=("in", "other"))
    await r.step([("a", 95, 1.0)])
    await r.step([("b", 10, 1.0)], "other")
    r.clock.advance(5 * SECOND)
    await r.step([("a", 99, 1.0)])
    r.clock.advance(5 * SECOND)
    await r.step()
    assert isinstance(r.total, Total)
    assert [t // SECOND for t in r.total.reached[1:]] == [10, 10, 99]


async def test_rows_of_several_sources_in_order_of_arrival(rig: Make) -> None:
    r = rig(sources=("in", "other"))
    seen: list[float] = []
    r.engine.graph.watch("total", lambda frame: seen.extend(frame["value"].tolist()))
    for i in range(6):
        assert r.offer([("a", i, float(i)), ("b", i, i + 0.5)], ("in", "other")[i % 2])
    await r.step()
    assert seen == [i / 2 for i in range(12)]


async def test_rows_of_a_later_step_have_higher_numbers(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that a tick made, and after a crash: so one number tells how far somebody is who listens."""

    def at_the_tick(self: Total, frame: Frame) -> Frame:
        seq = np.array([frame.progress.next_seq])
        return Frame(np.ones(1, np.int64), np.ones(1, np.int32), seq, {"value": column("float", [1.0])}, frame.progress)

    monkeypatch.setattr(Total, "on_frame", at_the_tick)
    reached = 0
    for _ in range(3):
        r = rig()
        assert r.engine.next_seq == reached
        heard: list[tuple[Writes, int]] = []
        r.engine.published.append(lambda *told, heard=heard: heard.append(told))
        for rows in ([("a", 1, 1.0)], None, [("a", 2, 1.0), ("b", 2, 1.0)], None, None):
            await r.step(rows)
        for writes, end in heard:
            assert all(reached <= number < end for number in writes.history["total"].seq)
            reached = end
        r.crash()


async def test_a_changed_file_keeps_the_state_of_what_is_the_same(rig: Make) -> None:
    r = rig()
    await r.step([("a", 1, 1.0)])
    r.crash()
    again = rig(text="two")
    assert again.plan == []
    assert again.totals() == {"a": 1.0}
    again.crash()
    third = rig(text="three", sources=("in", "new"))
    assert third.plan == ["new: new", "refusals: changed: starts anew", "total: changed: starts anew"]
    assert third.totals() == {"a": 0.0}
    assert third.engine.intakes["in"].newest == SECOND


async def test_the_checkpoint_makes_the_journal_short(rig: Make) -> None:
    r = rig()
    for i in range(3):
        await r.step([("a", i, 1.0)])
    await r.engine._checkpoint()
    steps = await r.store.read(lambda db: db.execute("SELECT count(*) FROM steps").get)
    assert steps == 0
    r.crash()
    assert rig().totals() == {"a": 3.0}


async def test_a_clock_set_back_refuses_nothing_and_marks_what_it_dates(rig: Make) -> None:
    """It cannot say what lies ahead of it; after a restart, too, times of arrival go on from where they were."""
    r = rig()
    now = 1_800_000_000
    await r.step([("a", now, 1.0)])
    r.clock.jump(-7200 * SECOND)
    await r.step([("a", now + 61, 2.0)])
    assert r.totals() == {"a": 3.0}
    marked = await r.store.read(lambda db: [bool(u) for (u,) in db.execute("SELECT unsure FROM frames ORDER BY id")])
    assert marked == [False, False, True, True]
    r.crash()
    again = rig()
    assert again.totals() == {"a": 3.0}
    assert again.engine.arrivals.last == now * SECOND


async def test_killed_again_and_again_it_comes_to_a_checkpoint(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a start has replayed counts towards the next checkpoint: else the journal would grow from kill to kill."""
    monkeypatch.setattr(engine_module, "CHECKPOINT_STEPS", 5)
    r = rig()
    for life in range(3):
        assert r.engine.steps_since == 2 * life
        for second in range(2):
            await r.step([("a", 2 * life + second, 1.0)])
        assert r.engine._checkpoint_due() is (life == 2)
        r.crash()
        r = rig()
