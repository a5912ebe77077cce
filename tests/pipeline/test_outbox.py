"""The outbox keeps every row until it is delivered, refused or dropped, and a batch is the same on every try."""

from __future__ import annotations

from typing import Any

import apsw
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.component import Batch
from pipeline.frame import NO_PROGRESS, Column, Field, Frame, Schema, encode
from pipeline.journal import outbox, state
from pipeline.journal.schema import TABLES

SCHEMA = Schema("id", {"value": Field("int")})
SINK = "cloud"


def frame(values: list[int]) -> Frame:
    n = np.arange(len(values))
    return Frame(n, np.zeros(len(values), np.int32), n, {"value": Column(np.array(values, np.int64))}, NO_PROGRESS)


def values(batch: Batch) -> list[int]:
    return [v for _, part in batch.parts for v in part["value"].tolist()]


class Outbox(RuleBasedStateMachine):
    """Against a plain list. A crash is: open again, take the batch that was begun."""

    def __init__(self) -> None:
        super().__init__()
        self.db = apsw.Connection(":memory:")
        self.db.execute(TABLES)
        self.next = 0
        self.waiting: list[tuple[int, bool]] = []  # value, kept
        self.begun: tuple[str, list[int]] | None = None
        self.keys = 0
        self.counts = {"sent": 0, "refused": 0, "dropped": 0}

    @rule(count=st.integers(1, 5), keep=st.booleans(), stream=st.sampled_from(["a", "b"]))
    def put(self, count: int, keep: bool, stream: str) -> None:
        new = list(range(self.next, self.next + count))
        self.next += count
        outbox.put(self.db, SINK, stream, frame(new), keep=keep, clock=self.next)
        outbox.put(self.db, "other", stream, frame([-1]), keep=keep, clock=self.next)
        self.waiting += [(v, keep) for v in new]

    @precondition(lambda self: self.begun is None)
    @rule(limit=st.integers(1, 7), waited=st.booleans())
    def begin(self, limit: int, waited: bool) -> None:
        self.keys += 1
        bounds = outbox.begin(self.db, SINK, f"key{self.keys}", limit, 2**62 if waited else -1)
        if not self.waiting or (len(self.waiting) < limit and not waited):
            assert bounds is None
            return
        assert bounds is not None
        self.begun = (bounds.key, [v for v, _ in self.waiting[:limit]])

    @precondition(lambda self: self.begun is not None)
    @rule()
    def crash_and_look_again(self) -> None:
        bounds = outbox.unfinished(self.db, SINK)
        assert bounds is not None
        assert self.begun is not None
        assert (bounds.key, values(outbox.load(self.db, SINK, bounds))) == self.begun

    @precondition(lambda self: self.begun is not None)
    @rule(delivered=st.booleans())
    def finish(self, delivered: bool) -> None:
        bounds = outbox.unfinished(self.db, SINK)
        assert bounds is not None
        assert self.begun is not None
        batch = outbox.load(self.db, SINK, bounds)
        if not delivered:
            outbox.refuse(self.db, SINK, batch, {"a": SCHEMA, "b": SCHEMA}, ["k"], 0, "no")
        outbox.finish(self.db, SINK, bounds, len(batch), delivered=delivered)
        self.counts["sent" if delivered else "refused"] += len(batch)
        del self.waiting[: len(self.begun[1])]
        self.begun = None

    @rule(entries=st.integers(0, 4))
    def make_room(self, entries: int) -> None:
        """Whole entries leave, the oldest first, but for kept ones and those of the batch that was begun."""
        one = len(encode(frame([0])))
        before = outbox.held(self.db, SINK)
        freed = outbox.make_room(self.db, SINK, before - entries * one)
        assert freed == before - outbox.held(self.db, SINK)
        protected = len(self.begun[1]) if self.begun else 0
        left = self._left()
        gone = [v for v, _ in self.waiting if v not in left]
        dropped = outbox.status(self.db, SINK).dropped - self.counts["dropped"]
        assert len(gone) == dropped
        assert all(not kept for v, kept in self.waiting if v not in left)
        assert not set(gone) & {v for v, _ in self.waiting[:protected]}
        self.counts["dropped"] += dropped
        self.waiting = [(v, kept) for v, kept in self.waiting if v in left]

    def _left(self) -> list[int]:
        for first, sent in self.db.execute("SELECT id, sent FROM outbox WHERE sink = ? ORDER BY id LIMIT 1", (SINK,)):
            return values(outbox.load(self.db, SINK, outbox.Bounds("", first, sent, 2**62, 0, 0)))
        return []

    @invariant()
    def every_row_that_waits_is_there_in_order(self) -> None:
        if hasattr(self, "db"):
            assert self._left() == [v for v, _ in self.waiting]
            status = outbox.status(self.db, SINK)
            assert status.rows == len(self.waiting)
            assert {"sent": status.sent, "refused": status.refused, "dropped": status.dropped} == self.counts

    @invariant()
    def what_was_refused_is_a_dead_letter(self) -> None:
        if hasattr(self, "db"):
            assert len(state.dead(self.db, 10_000)) == self.counts["refused"]


TestOutbox: Any = Outbox.TestCase
TestOutbox.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


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
    outbox.finish(db, SINK, bounds, len(batch), delivered=True)
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
