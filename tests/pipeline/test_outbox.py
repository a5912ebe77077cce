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
        dropped = outbox.make_room(self.db, SINK, entries * one)
        protected = len(self.begun[1]) if self.begun else 0
        left = self._left()
        gone = [v for v, _ in self.waiting if v not in left]
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
