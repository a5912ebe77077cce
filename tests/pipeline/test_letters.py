"""Dead letters on their way back: each counts once, whenever the process is killed; one that is not taken stays."""

from __future__ import annotations

import asyncio
import json
import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.clock import VirtualClock
from pipeline.codecs.csv import Csv
from pipeline.codecs.json import Json
from pipeline.component import Context, Payload, ReadingSettings, RowsQuery
from pipeline.config import loads
from pipeline.engine import Engine
from pipeline.frame import NO_PROGRESS, SECOND, Field, Frame, KeyTable, Schema, column, rows
from pipeline.frame_bytes import decode
from pipeline.graph import Graph
from pipeline.journal import dead, history, outbox, state
from pipeline.journal.commit import Store
from pipeline.journal.dead import LONGEST, Letter
from pipeline.letters import frame_of
from pipeline.recovery import begin, recover
from pipeline.services import EngineServices

FILE = """
    [pipeline]
    name = "p"
    state = "state"
    durability = "process"
    disorder = "1 h"

    [sources.in]
    type = "http"
    key = "id"
    time = "ts"
    time_unit = "s"
    fields = { value = "FIELD" }

    [sources.stamped]
    type = "http"
    path = "/stamped"
    key = "id"
    fields = { value = "FIELD" }

    [sources.lines]
    type = "file"
    path = "lines.csv"
    format = "csv"
    key = "id"
    time = "ts"
    time_unit = "s"
    fields = { value = "FIELD" }

    [operators.guarded]
    type = "filter"
    input = "in"
    where = "not is_missing(value)"

    [operators.total]
    type = "window"
    inputs = ["guarded", "lines"]
    window = "tumbling"
    size = "1 h"
    aggregate = { n = "count()", total = "sum(value)" }

    [sinks.local]
    type = "query_server"
    inputs = ["in", "in.invalid", "stamped", "lines", "guarded", "total"]

    [sinks.cloud]
    type = "cloud"
    inputs = ["guarded"]
    url = "http://127.0.0.1:1/"
    where = "value < 1000"
"""


class Bad(Exception):
    """What the operator says of 13 until it is mended."""


class Rig:
    """A pipeline file, as an engine without its waiting."""

    def __init__(self, folder: Path, text: str, *, mended: bool) -> None:
        (folder / "lines.csv").touch()
        self.clock = VirtualClock(1_800_000_000 * SECOND)
        self.config = loads(text, folder / "pipeline.toml")
        self.store = Store(self.config.pipeline.state, "process")
        self.mended = mended
        self.engine: Any = None
        self.engine = self.make(text)
        begin(self.engine, recover(self.engine, self.make).moved)
        self.services = EngineServices(self.engine, None)

    def make(self, text: str) -> Engine:
        config = loads(text, self.config.path)
        keys = self.engine.graph.keys if self.engine else KeyTable(limit=config.pipeline.max_keys)
        graph = Graph(config, keys, self.clock)
        assert not [*config.problems, *graph.problems]
        operator = graph.edges["guarded"].operator
        plain = operator.on_frame

        def guarded(frame: Frame) -> Frame:
            if not self.mended and (frame["value"].values == 13).any():
                raise Bad("13")
            return plain(frame)

        operator.on_frame = guarded  # type: ignore[method-assign]
        graph.edges["guarded"]._connect()
        return Engine(config, graph, self.store, self.clock)

    def offer(self, text: str | bytes, source: str = "in", media_type: str = "") -> None:
        data = text if isinstance(text, bytes) else text.encode()
        made = self.engine.graph.sources[source].again(data, media_type)
        self.engine.intakes[source].inbox.offer(Payload(data, len(data), codec=made.codec))

    async def step(self, *texts: str | bytes, source: str = "in", media_type: str = "") -> None:
        for text in texts:
            self.offer(text, source, media_type)
        self.engine.step()
        await self.settled()

    async def settled(self) -> None:
        while self.engine.in_flight:
            await asyncio.sleep(0.001)

    async def replay(self, *ids: int, node: str | None = None) -> dict[str, Any]:
        """As it is asked over HTTP."""
        asked = asyncio.create_task(self.services.replay_dead(ids or None, node))
        while not asked.done():
            if self.engine.replays:
                self.engine.step()
            await asyncio.sleep(0.001)
        return await asked

    async def letters(self) -> list[Letter]:
        return await self.store.read(lambda db: dead.letters(db, 1000))

    async def values(self, stream: str) -> list[float]:
        schema = self.engine.graph.streams[stream]
        kept = await self.store.read(lambda db: history.rows(db, RowsQuery(stream), schema, None))
        return sorted(kept["value"].values.tolist())

    def totals(self) -> dict[str, Any]:
        """The windows that are open, as state that is saved."""
        return {"state": state.pack(self.engine.graph.edges["total"].operator.snapshot())}

    async def waiting(self) -> list[dict[str, Any]]:
        """What the cloud's outbox holds."""
        held = await self.store.read(lambda db: list(db.execute("SELECT stream, keep, data FROM outbox ORDER BY id")))
        found = []
        for stream, _, data in held:
            frame = decode(bytes(data), NO_PROGRESS)
            found += rows(frame, self.engine.graph.streams[stream], self.engine.graph.keys.names)
        return found

    def crash(self) -> None:
        self.store.close()


Make = Callable[..., Rig]


@pytest.fixture
def rig(tmp_path: Path) -> Any:
    made: list[Rig] = []

    def make(field: str = "float", *, mended: bool = True) -> Rig:
        if made:
            made[-1].crash()
        made.append(Rig(tmp_path, textwrap.dedent(FILE).replace("FIELD", field), mended=mended))
        return made[-1]

    yield make
    made[-1].crash()


def reading(value: Any, at: int = 100, name: str = "a") -> str:
    return json.dumps({"id": name, "ts": at} | ({} if value is None else {"value": value}))


# --- refused by a source ---------------------------------------------------------------------------------------------


async def test_a_refused_reading_is_taken_once_the_cause_is_mended(rig: Make) -> None:
    """With all that it held, in the order in which it came; the letter goes with the commit, over kills at any time."""
    r = rig()
    await r.step(reading(None), reading(1.0), f"[{reading('2')}, {reading(3.0)}]")
    assert [letter.row for letter in await r.letters()] == [reading("2"), reading(None)]
    assert await r.replay() == {
        "replayed": 0,
        "failed": [{"id": 1, "reason": "value: missing"}, {"id": 2, "reason": "value: expected a number, got text"}],
    }
    r = rig("float?")
    assert await r.replay() == {
        "replayed": 1,
        "failed": [{"id": 2, "reason": "value: expected a number, got text"}],
    }
    before = r.totals()
    r = rig("float?")  # killed before the checkpoint
    assert r.totals() == before
    assert await r.values("in") == [0.0, 1.0, 3.0]  # 0 stands under the missing one
    assert [letter.id for letter in await r.letters()] == [2]
    assert (await r.replay(1))["failed"] == [{"id": 1, "reason": "there is no such letter"}]


async def test_one_that_is_refused_again_stays_with_the_new_reason(rig: Make) -> None:
    """It is not told a second time: neither as a letter, nor as a row of `in.invalid`, nor in the counts."""
    r = rig()
    await r.step(reading(None))
    await r.store.write(lambda db: dead.refuse_again(db, [(1, "an earlier reason")]))
    r = rig("int")
    await r.step("nonsense", reading(1))
    (asked,) = (await r.replay(node="in"))["failed"][:1]
    assert asked["reason"] == "value: missing"
    assert [letter.reason for letter in await r.letters()][1] == "value: missing"
    assert r.engine.intakes["in"].refused == 1
    invalid = Schema(None, {})
    kept = await r.store.read(lambda db: history.rows(db, RowsQuery("in.invalid"), invalid, None))
    assert len(kept) == 2


async def test_killed_before_the_commit_the_letter_is_there_and_its_reading_is_not(rig: Make) -> None:
    r = rig()
    await r.step(reading(None))
    r = rig("float?")
    r.engine.replay_dead(await r.letters())  # it waits for a step that does not come
    r = rig("float?")
    assert await r.values("in") == []
    assert (await r.replay())["replayed"] == 1
    assert len(await r.values("in")) == 1
    r = rig("float?")
    assert (len(await r.values("in")), await r.letters()) == (1, [])


async def test_asked_twice_at_once_it_counts_once(rig: Make) -> None:
    r = rig()
    await r.step(reading(None))
    r = rig("float?")
    asked = [asyncio.create_task(r.services.replay_dead(None)) for _ in range(3)]
    asked[0].add_done_callback(lambda _: None)
    while not all(task.done() for task in asked):
        if r.engine.replays:
            r.engine.step()
        await asyncio.sleep(0.001)
    assert sorted(task.result()["replayed"] for task in asked) == [0, 0, 1]
    assert len(await r.values("in")) == 1


async def test_who_asked_may_go_away(rig: Make) -> None:
    """What has begun is brought to its end before another one may begin."""
    r = rig()
    await r.step(reading(None))
    r = rig("float?")
    asked = asyncio.create_task(r.services.replay_dead(None))
    while not r.engine.replays:
        await asyncio.sleep(0.001)
    asked.cancel()
    other = asyncio.create_task(r.services.replay_dead(None))
    await asyncio.sleep(0.05)
    assert len(r.engine.replays) == 1
    r.engine.step()
    assert (await other)["replayed"] == 0
    assert len(await r.values("in")) == 1


async def test_what_the_clock_or_the_key_table_refused_is_whole_too(rig: Make) -> None:
    """Fields that nobody has declared yet are kept: the mended file may."""
    r = rig()
    ahead = json.dumps({"id": "a", "ts": 1_800_000_000 + 61, "value": 1.0, "note": "x"})
    await r.step(ahead, f"[{reading(1.0)}, {ahead}]")
    assert [(letter.row, letter.reason[:6], letter.whole) for letter in await r.letters()] == [
        (ahead, "future", True)
    ] * 2
    r.clock.advance(2 * SECOND)
    assert (await r.replay())["replayed"] == 2
    assert await r.values("in") == [1.0, 1.0, 1.0]


async def test_what_has_no_time_of_its_own_is_dated_by_when_it_came(rig: Make) -> None:
    """And not by when it was replayed: the history would show it then."""
    r = rig()
    await r.step(reading(None), source="stamped")
    r = rig("float?")
    r.clock.advance(3600 * SECOND)
    assert (await r.replay())["replayed"] == 1
    kept = await r.store.read(lambda db: history.rows(db, RowsQuery("stamped"), Schema(None, {}), None))
    assert kept.time.tolist() == [1_800_000_000 * SECOND]


async def test_a_line_of_csv_comes_with_its_header_and_in_its_own_format(rig: Make) -> None:
    """A reading of another Content-Type than the source's own is decoded as that."""
    r = rig()
    await r.step("ts,id,note,value\n1,a,x,1.5\n2,a,y,\n", media_type="text/csv")
    (letter,) = await r.letters()
    assert (letter.row, letter.format) == ("ts,id,note,value\n2,a,y,", "text/csv")
    r = rig("float?")
    assert (await r.replay())["replayed"] == 1
    assert len(await r.values("in")) == 2


async def test_what_is_cut_or_not_text_cannot_be_replayed(rig: Make) -> None:
    """A longer one is shown up to its bound; what shows as � is not what came."""
    r = rig()
    long = json.dumps({"id": "a", "ts": 1, "note": "x" * LONGEST})
    await r.step(long, b'{"id": "a\xff", "ts": 1, "value": 1.0}', json.dumps({"id": "a", "ts": 1, "note": "x" * 3900}))
    found = await r.letters()
    assert [letter.whole for letter in found] == [True, False, False]
    assert found[2].row == long[:LONGEST]
    told = await r.services.dead(10)
    assert [letter["replayable"] for letter in told] == [True, False, False]
    r = rig("float?")
    assert await r.replay() == {
        "replayed": 1,
        "failed": [{"id": i, "reason": "not all of it was kept"} for i in (1, 2)],
    }


async def test_the_row_of_the_stream_and_the_receipt_stay_short(rig: Make) -> None:
    r = rig()
    await r.step(json.dumps({"id": "a", "ts": 1, "note": "x" * 3000}))
    invalid = Schema(None, {"raw": Field("string")})
    kept = await r.store.read(lambda db: history.rows(db, RowsQuery("in.invalid"), invalid, None))
    assert [len(raw) for raw in kept["raw"].tolist()] == [200]


async def test_a_letter_of_a_file_is_in_the_journal(rig: Make) -> None:
    """The file cannot be read again for it: after a kill it is pushed as it was; the file's place is kept."""
    r = rig()
    (r.config.path.parent / "lines.csv").write_text("id,ts,value\na,1,x\na,2,2\n")
    intake = r.engine.intakes["lines"]
    (payload,) = intake.source.reread(None, {"file": intake.source.pattern, "offset": 24})
    assert intake.inbox.offer(payload)
    await r.step()
    (letter,) = await r.letters()
    assert letter.row == "id,ts,value\na,1,x"
    await r.store.write(lambda db: db.execute("UPDATE dead SET row = replace(row, 'x', '7')"))
    assert (await r.replay())["replayed"] == 1
    before = r.totals()
    r = rig()
    assert (r.totals(), await r.values("lines")) == (before, [2.0, 7.0])
    assert r.engine.intakes["lines"].position["offset"] == 24


async def test_it_does_not_wake_a_source_that_is_silent(rig: Make) -> None:
    """A letter is not its source speaking: others must not wait for it anew."""
    r = rig()
    await r.step(reading(None))
    r = rig("float?")
    r.clock.advance(20 * SECOND)
    heard = r.engine.intakes["in"].heard
    await r.replay()
    assert r.engine.intakes["in"].heard == heard


def test_readings_are_told_apart_as_they_are_counted() -> None:
    settings = ReadingSettings(key="id", fields={"value": "float"})
    context = Context("in", KeyTable())
    json_ = Json(settings, {}, context)
    assert json_.readings(b'\n{"a": 1}\n\n \nx\n') == [b'{"a": 1}', b"x"]
    assert json_.readings(b'[{"a": 1}, 2]') == [b'{"a": 1}', b"2"]
    assert json_.readings(b'{"a":\n 1}') == [b'{"a":\n 1}']
    assert Csv(settings, {}, context).readings(b"\xef\xbb\xbfid\r\n\r\n1\r\n2") == [b"id\n1", b"id\n2"]
    assert Csv(settings, {"header": ["id"]}, context).readings(b"1\n2") == [b"1", b"2"]
    assert Csv(settings, {}, context).readings(b"") == []


# --- failed in an operator -------------------------------------------------------------------------------------------


async def test_a_row_that_failed_goes_into_its_operator_alone(rig: Make) -> None:
    """Not into the branches beside it, which had it; after a kill it is pushed again, and its letter is gone."""
    r = rig(mended=False)
    await r.step(reading(1.0), reading(13.0), reading(2.0))
    (letter,) = await r.letters()
    assert (letter.node, letter.reason) == ("guarded", "Bad: 13")
    assert json.loads(letter.row) == {"id": "a", "time": "1970-01-01T00:01:40.000Z", "value": 13.0}
    r = rig()
    untouched = rig()
    await untouched.step(reading(1.0, 101))
    r = untouched
    assert (await r.replay())["replayed"] == 1
    before = r.totals()
    r = rig()
    assert r.totals() == before
    assert await r.letters() == []
    assert (await r.values("in"), await r.values("guarded")) == ([1.0, 1.0, 2.0, 13.0], [1.0, 1.0, 2.0, 13.0])
    await r.engine._checkpoint()
    frames = await r.store.read(lambda db: list(db.execute("SELECT count(*) FROM frames WHERE NOT history")))
    assert frames == [(0,)]


async def test_its_rows_come_before_those_of_the_step(rig: Make) -> None:
    r = rig(mended=False)
    await r.step(reading(13.0, 3), reading(13.0, 1))
    r = rig()
    seen: list[float] = []
    r.engine.graph.watch("guarded", lambda frame: seen.extend([*(frame.time // SECOND), *np.diff(frame.seq)]))
    r.offer(reading(1.0, 2))
    assert (await r.replay())["replayed"] == 2
    assert seen == [3, 1, 2, 1, 1]


async def test_one_that_fails_again_stays_and_those_beside_it_go(rig: Make) -> None:
    r = rig(mended=False)
    await r.step(reading(13.0), reading(13.0, 101))
    await r.store.write(lambda db: db.execute("UPDATE dead SET row = replace(row, '13.0', '5.0') WHERE id = 1"))
    assert await r.replay() == {"replayed": 1, "failed": [{"id": 2, "reason": "Bad: 13"}]}
    assert [letter.id for letter in await r.letters()] == [2]
    before = r.totals()
    r = rig(mended=False)
    assert (r.totals(), await r.values("guarded")) == (before, [5.0])


async def test_a_row_that_fits_its_operator_no_longer_stays(rig: Make) -> None:
    r = rig(mended=False)
    await r.step(reading(13.0))
    r = rig("int")
    assert (await r.replay())["failed"] == [{"id": 1, "reason": "value: expected int"}]
    assert len(await r.letters()) == 1


# --- rejected by a peer ----------------------------------------------------------------------------------------------


async def reject(r: Rig) -> None:
    """What is in the outbox, as a peer refuses it."""

    def work(db: Any) -> None:
        bounds = outbox.begin(db, "cloud", "key", 500, 2**62)
        assert bounds is not None
        batch = outbox.load(db, "cloud", bounds)
        graph = r.engine.graph
        outbox.refuse(
            db, "cloud", batch, graph.streams, graph.keys.names, 5, dict.fromkeys(range(len(batch)), "HTTP 422")
        )
        outbox.finish(db, "cloud", bounds, len(batch), refused=len(batch))

    await r.store.write(work)


async def test_a_rejected_row_is_in_the_outbox_again(rig: Make) -> None:
    """Once, as it was, and its letter is gone; rows beside each other are one entry."""
    r = rig()
    await r.step(reading(1.5, 100), reading(2.5, 101, "b"))
    sent = await r.waiting()
    await reject(r)
    assert await r.waiting() == []
    assert [json.loads(letter.row)["stream"] for letter in await r.letters()] == ["guarded"] * 2
    r = rig()
    assert await r.waiting() == []
    assert (await r.replay(node="cloud"))["replayed"] == 2
    r = rig()
    assert await r.waiting() == sent
    assert await r.store.read(lambda db: db.execute("SELECT count(*) FROM outbox").get) == 1
    assert await r.letters() == []


async def test_a_row_that_the_sink_leaves_out_now_is_not_lost(rig: Make) -> None:
    r = rig()
    await r.step(reading(1.5))
    await reject(r)
    await r.store.write(lambda db: db.execute("UPDATE dead SET row = replace(row, '\"value\":1.5', '\"value\":2000')"))
    assert (await r.replay())["failed"] == [{"id": 1, "reason": "the sink's settings leave this row out"}]
    assert len(await r.letters()) == 1


async def test_rows_that_were_thinned_go_as_they_are(rig: Make) -> None:
    r = rig()
    row = {"stream": "guarded", "id": "a", "time": "1970-01-01T00:00:01.000Z", "value": 1.5, "value_min": 1.0}
    row |= {"thinned": 3, "until": "1970-01-01T00:00:09.000Z"}
    await r.store.write(lambda db: dead.bury(db, [dead.Buried(0, "cloud", "HTTP 422", json.dumps(row))]))
    assert (await r.replay())["replayed"] == 1
    bounds = await r.store.write(lambda db: outbox.begin(db, "cloud", "key", 500, 2**62))
    assert bounds is not None
    batch = await r.store.read(lambda db: outbox.load(db, "cloud", bounds))
    body = r.engine.graph.sinks["cloud"]._body(batch)
    import gzip

    assert json.loads(gzip.decompress(body)) == row


async def test_a_letter_whose_node_is_gone_is_kept_and_says_so(rig: Make) -> None:
    r = rig()
    await r.store.write(
        lambda db: dead.bury(
            db, [dead.Buried(0, "gone", "why", "{}"), dead.Buried(0, "local", "why", '{"stream": "in"}')]
        )
    )
    told = {letter["node"]: (letter["kind"], letter["replayable"]) for letter in await r.services.dead(10)}
    assert told == {"gone": (None, False), "local": ("rejected", False)}
    assert [f["reason"] for f in (await r.replay())["failed"]] == [
        'the pipeline has no node "gone"',
        'the sink "local" has no outbox and no file',
    ]


# --- a row as JSON, and back -----------------------------------------------------------------------------------------


def test_a_row_comes_back_as_it_was() -> None:
    """Missing, empty, zero and NaN stay four things; whole numbers and times lose no digit."""
    kinds = {"f": Field("float", nan=True), "i": Field("int"), "b": Field("bool", True), "s": Field("string", True)}
    schema = Schema("id", {**kinds, "t": Field("time")})
    keys = KeyTable()
    values = {"f": math.nan, "i": 2**62 + 1, "b": None, "s": "", "t": 1_769_860_800_123_456_789}
    columns = {n: column(f.kind, [values[n]]) for n, f in schema.fields.items()}
    frame = Frame(np.array([-1]), keys.codes(["ü"]), np.array([7]), columns, NO_PROGRESS)
    shown = rows(frame, schema, keys.names)
    back = frame_of(json.loads(json.dumps(shown[0])), schema, keys, 7)
    assert repr(rows(back, schema, keys.names)) == repr(shown)
    assert (back.time.tolist(), back.key.tolist(), back.seq.tolist()) == ([-1], [0], [7])
    assert back["i"].values.tolist() == [2**62 + 1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"time": None}, "time: missing"),
        ({"time": "soon"}, "time: missing"),
        ({"id": None}, "id: missing"),
        ({"id": ""}, "id: missing"),
        ({"id": "x" * 501}, "the key is empty or longer than 500 characters"),
        ({"id": "new"}, "too many keys (limit 1)"),
        ({"n": None}, "n: missing"),
        ({"n": True}, "n: expected int"),
        ({"n": 2**63}, "n: expected int"),
        ({"o": "x"}, "o: expected float"),
    ],
)
def test_one_that_does_not_fit_says_why(change: dict[str, Any], reason: str) -> None:
    row = {"id": "a", "time": "2026-01-31T12:00:00Z", "n": 1, "o": 1} | change
    with pytest.raises(ValueError) as error:
        frame_of(row, Schema("id", {"n": Field("int"), "o": Field("float", True)}), KeyTable(["a"], 1), 0)
    assert str(error.value) == reason
