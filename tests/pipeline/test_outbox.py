"""The outbox keeps every row until it is delivered, refused or dropped, and a batch is the same on every try."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.component import Batch
from pipeline.frame import NO_PROGRESS, SECOND, Column, Field, Frame, Schema
from pipeline.frame_bytes import decode, encode
from pipeline.journal import dead, outbox
from pipeline.journal.schema import TABLES
from pipeline.thin import THINNED, UNTIL, is_thinned

SCHEMA = Schema("id", {"value": Field("int")})
SCHEMAS = {"a": SCHEMA, "b": SCHEMA}
SINK = "cloud"
_EVERY = 7 * SECOND


def frame(values: list[int]) -> Frame:
    """A reading every 7 s of one of two keys in turns, so that each level of thinning has something to do."""
    n = np.array(values, np.int64)
    return Frame(n * _EVERY, (n % 2).astype(np.int32), n, {"value": Column(n)}, NO_PROGRESS)


def values(batch: Batch) -> list[int]:
    return [v for _, part in batch.parts for v in part["value"].tolist()]


class Row(NamedTuple):
    """A row of the outbox, thinned or not: it stands for `n` readings whose values add up to `total`."""

    stream: str
    keep: bool
    first: int
    last: int
    key: int
    n: int
    total: int


def as_rows(stream: str, keep: bool, made: Frame) -> list[Row]:
    counts = made[THINNED].values if is_thinned(made) else np.ones(len(made), np.int64)
    until = made[UNTIL].values if is_thinned(made) else made.time
    columns = (made.time, until, made.key, counts, made["value"].values)
    return [
        Row(stream, keep, first // _EVERY, last // _EVERY, key, n, round(mean * n))
        for first, last, key, n, mean in zip(*(c.tolist() for c in columns), strict=True)
    ]


class Outbox(RuleBasedStateMachine):
    """Every reading is in just one place: waiting, in a row or stood for by one; sent; refused; or dropped.

    A crash is: open the database again, take the batch that was begun.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.db = self.opened()
        self.db.execute(TABLES)
        self.next = 0
        self.put_in = {False: (0, 0), True: (0, 0)}  # by `keep`: how many readings, the sum of their values
        self.gone = {"sent": (0, 0), "refused": (0, 0), "dropped": (0, 0)}  # of those that need not be kept
        self.kept: set[int] = set()  # alerts that have not been sent or refused
        self.rows = {"sent": 0, "refused": 0, "dropped": 0, "thinned": 0}
        self.begun: tuple[outbox.Bounds, list[Row], bool] | None = None
        self.last: dict[tuple[str, str, int, bool], int] = {}  # of a lane, stream, key and side of an outage
        self.failing = False
        self.keys = 0

    def opened(self) -> apsw.Connection:
        db = apsw.Connection(str(Path(self.folder.name) / "headwater.db"))
        db.pragma("synchronous", "off")
        return db

    def teardown(self) -> None:
        self.db.close()
        self.folder.cleanup()

    def waiting(self, but: tuple[int, int] = (0, -1)) -> list[Row]:
        """All rows, but for those of the entries between two."""
        found = []
        query = "SELECT stream, keep, sent, data FROM outbox WHERE sink = ? AND NOT id BETWEEN ? AND ? ORDER BY id"
        for stream, keep, sent, data in self.db.execute(query, (SINK, *but)):
            found += as_rows(stream[0], bool(keep), decode(data, NO_PROGRESS))[sent:]
        return found

    def taken(self, bounds: outbox.Bounds) -> list[Row]:
        batch = outbox.load(self.db, SINK, bounds)
        return [row for stream, part in batch.parts for row in as_rows(stream[0], stream.endswith("!"), part)]

    @rule(
        count=st.integers(1, 20),
        keep=st.sampled_from([False, False, False, True]),
        stream=st.sampled_from(["a", "b"]),
        times=st.integers(1, 4),
    )
    def put(self, count: int, keep: bool, stream: str, times: int) -> None:
        for _ in range(times):
            new = list(range(self.next, self.next + count))
            self.next += count
            name = f"{stream}!" if keep else stream
            outbox.put(self.db, SINK, name, frame(new), keep=keep, clock=self.next)
            outbox.put(self.db, "other", stream, frame([1]), keep=keep, clock=self.next)
            n, total = self.put_in[keep]
            self.put_in[keep] = (n + count, total + sum(new))
            if keep:
                self.kept |= set(new)

    @precondition(lambda self: self.begun is None)
    @rule(limit=st.integers(1, 30), waited=st.booleans(), turns=st.permutations(["live", "backlog"]))
    def begin(self, limit: int, waited: bool, turns: list[str]) -> None:
        self.keys += 1
        before = outbox.status(self.db, SINK)
        older_than, now = (2**61, 2**62) if waited else (-1, 2**62)
        bounds = outbox.begin(self.db, SINK, f"key{self.keys}", limit, older_than, now, turns)
        if bounds is None:
            assert not before.rows or (not waited and not before.backlog)
            return
        rows = self.taken(bounds)
        assert 0 < len(rows) <= limit
        assert rows == [r for r in self.waiting() if r in rows]
        if bounds.lane == "kept":  # whole entries; what is newer has gone before
            assert all(r.keep for r in rows)
        elif bounds.lane == "rows":
            assert not any(r.keep for r in rows)
            assert not self.kept
        assert (bounds.lane == "all") == (not before.backlog)
        self.begun = (bounds, rows, bool(bounds.recovered))

    @rule()
    def crash(self) -> None:
        self.db.close()
        self.db = self.opened()
        found = outbox.unfinished(self.db, SINK)
        assert found == (self.begun[0] if self.begun else None)

    @precondition(lambda self: self.begun is not None)
    @rule()
    def fail(self) -> None:
        outbox.fail(self.db, SINK)
        self.failing = True

    @precondition(lambda self: self.begun is None)
    @rule(limit=st.integers(1, 30), meanwhile=st.integers(1, 12), since=st.integers(1, 5))
    def outage(self, limit: int, meanwhile: int, since: int) -> None:
        self.put(1, False, "a", 1)
        self.begin(limit, True, ["live", "backlog"])
        self.fail()
        self.put(10, False, "a", meanwhile)
        self.finish(True)
        self.put(limit, False, "b", since)

    @precondition(lambda self: self.begun is not None)
    @rule(delivered=st.booleans())
    def finish(self, delivered: bool) -> None:
        assert self.begun is not None
        bounds, rows, _ = self.begun
        batch = outbox.load(self.db, SINK, bounds)
        held = outbox.held(self.db, SINK)
        if not delivered:
            outbox.refuse(self.db, SINK, batch, SCHEMAS, ["k", "l"], 0, dict.fromkeys(range(len(batch)), "no"))
        freed = outbox.finish(self.db, SINK, bounds, len(batch), refused=0 if delivered else len(batch))
        assert freed == held - outbox.held(self.db, SINK)
        if self.failing:
            outbox.recover(self.db, SINK)
            self.failing = False
        how = "sent" if delivered else "refused"
        self.rows[how] += len(rows)
        self.leave(how, rows)
        for row in rows:
            if bounds.lane != "kept":  # oldest first
                of = (bounds.lane, row.stream, row.key, row.keep)
                if bounds.lane == "all" or bounds.recovered:
                    assert self.last.get(of, -1) < row.first, "out of order"
                    self.last[of] = row.last
            self.kept -= {row.first} if row.keep else set()
        self.begun = None

    def leave(self, how: str, rows: list[Row]) -> None:
        n, total = self.gone[how]
        rows = [r for r in rows if not r.keep]
        self.gone[how] = (n + sum(r.n for r in rows), total + sum(r.total for r in rows))

    @rule(entries=st.integers(1, 4))
    def make_room(self, entries: int) -> None:
        """Whole entries leave, the oldest first, but for kept ones and those of the batch that was begun."""
        before, held = self.waiting(), outbox.held(self.db, SINK)
        begun = self.begun[0] if self.begun and self.begun[0].lane != "kept" else None
        free = [r for r in self.waiting((begun.first_id, begun.last_id) if begun else (0, -1)) if not r.keep]
        freed = outbox.make_room(self.db, SINK, entries * outbox.cost(encode(frame([0]))))
        assert freed == held - outbox.held(self.db, SINK)
        gone = list((Counter(before) - Counter(self.waiting())).elements())
        assert gone == free[: len(gone)]
        self.rows["dropped"] += len(gone)
        self.leave("dropped", gone)

    @rule(times=st.integers(1, 6))
    def make_thinner(self, times: int) -> None:
        """What came since an outage does not become part of its backlog."""
        since = (outbox.backlog(self.db, SINK) + 1, 2**62)
        backlog = sum(r.n for r in self.waiting(since))
        for _ in range(times):
            before, held = len(self.waiting()), outbox.held(self.db, SINK)
            saved = outbox.make_thinner(self.db, SINK, SCHEMAS)
            assert (saved or 0) == held - outbox.held(self.db, SINK)
            self.rows["thinned"] += before - len(self.waiting())
        assert sum(r.n for r in self.waiting(since)) == backlog

    @invariant()
    def the_rows_of_a_batch_under_way_never_change(self) -> None:
        if self.begun:
            assert (self.taken(self.begun[0]), bool(self.begun[0].recovered)) == (self.begun[1], self.begun[2])

    @invariant()
    def every_reading_is_in_one_place(self) -> None:
        rest = [r for r in self.waiting() if not r.keep]
        counts = [*self.gone.values(), (sum(r.n for r in rest), sum(r.total for r in rest))]
        assert tuple(map(sum, zip(*counts, strict=True))) == self.put_in[False]

    @invariant()
    def alerts_wait_whole(self) -> None:
        alerts = [r for r in self.waiting() if r.keep]
        assert {r.first for r in alerts} == self.kept
        assert all(r.n == 1 for r in alerts)

    @invariant()
    def all_is_counted(self) -> None:
        status = outbox.status(self.db, SINK)
        assert status.rows == len(self.waiting())
        assert {name: getattr(status, name) for name in self.rows} == self.rows
        assert len(dead.letters(self.db, 10_000)) == self.rows["refused"]

    @invariant()
    def no_other_sink_is_touched(self) -> None:
        assert outbox.status(self.db, "other")[4:] == (0, 0, 0, 0)


TestOutbox: Any = Outbox.TestCase
TestOutbox.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# --- after an outage ---


def outage(backlog: list[tuple[list[int], bool]], since: list[tuple[list[int], bool]]) -> apsw.Connection:
    """A database with rows (and whether they must be kept) that waited out an outage, and some that came since."""
    db = apsw.Connection(":memory:")
    db.execute(TABLES)
    outbox.fail(db, SINK)
    for i, (entries, ended) in enumerate(((backlog, False), (since, True))):
        if ended:
            outbox.recover(db, SINK)
        for made, keep in entries:
            outbox.put(db, SINK, "alerts" if keep else "rows", frame(made), keep=keep, clock=i)
    return db


def sent(
    db: apsw.Connection, limit: int, turns: tuple[str, ...] = ("live", "backlog")
) -> tuple[list[int], bool] | None:
    """The values of the next batch, which is delivered, and whether it is flagged."""
    bounds = outbox.begin(db, SINK, "key", limit, 2**61, 2**62, turns)
    if bounds is None:
        return None
    batch = outbox.load(db, SINK, bounds)
    outbox.finish(db, SINK, bounds, len(batch), refused=0)
    return values(batch), batch.recovered


def test_alerts_go_first_the_newest_before_the_older() -> None:
    db = outage([([1], False), ([2], True), ([3], False), ([4, 5], True), ([6], True)], [([7], False), ([8], True)])
    batches = [sent(db, 3) for _ in range(6)]
    assert batches == [([8], False), ([4, 5, 6], True), ([2], True), ([7], False), ([1, 3], True), None]


def test_what_comes_and_what_was_left_behind_take_turns() -> None:
    db = outage([([1, 2, 3, 4], False)], [([5, 6], False)])
    assert sent(db, 2, ("backlog", "live")) == ([1, 2], True)
    assert sent(db, 2, ("live", "backlog")) == ([5, 6], False)
    assert sent(db, 2, ("live",)) is None  # the backlog is not to go faster than `rate`
    assert sent(db, 2, ("backlog", "live")) == ([3, 4], True)
    outbox.put(db, SINK, "rows", frame([7]), keep=False, clock=2)
    assert sent(db, 2) == ([7], False)


def test_an_entry_of_which_some_were_sent_is_not_sent_again() -> None:
    db = outage([([1, 2, 3], True), ([4], True)], [])
    assert sent(db, 2) == ([4], True)
    assert sent(db, 2) == ([1, 2], True)
    assert sent(db, 2) == ([3], True)
    assert sent(db, 2) is None


def test_an_outage_survives_a_restart() -> None:
    db = outage([([1], False)], [])
    outbox.fail(db, SINK)
    assert outbox.failing(db, SINK)
    outbox.recover(db, SINK)
    assert not outbox.failing(db, SINK)
    assert outbox.backlog(db, SINK) == 1


def test_thinning_keeps_count_and_spares_what_must_not_change() -> None:
    """Every reading is in a row or stood for by one; alerts, and what a batch under way holds, stay as they are."""
    db = apsw.Connection(":memory:")
    db.execute(TABLES)
    many = [frame(list(range(i * 100, i * 100 + 100))) for i in range(40)]
    for made in many:
        outbox.put(db, SINK, "rows", made, keep=False, clock=0)
        outbox.put(db, SINK, "alerts", frame([1]), keep=True, clock=0)
    begun = outbox.begin(db, SINK, "key", 150, 2**61)
    assert begun is not None
    before = values(outbox.load(db, SINK, begun))
    size = outbox.held(db, SINK)
    while saved := outbox.make_thinner(db, SINK, {"rows": SCHEMA, "alerts": SCHEMA}):
        size -= saved
        assert size == outbox.held(db, SINK)
    assert values(outbox.load(db, SINK, begun)) == before
    assert list(db.execute("SELECT count(*), sum(rows) FROM outbox WHERE keep")) == [(40, 40)]
    status = outbox.status(db, SINK)
    assert status.rows + status.thinned == 4040
    assert status.rows < 400
