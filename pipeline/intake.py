"""From what arrived to the Frames of a step: decode, refuse what is dated ahead, number the readings, move the watermark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.component import Decoded, Payload, Receipt, Refused, Source, item_of, joined
from pipeline.frame import (
    NEVER,
    NO_PROGRESS,
    Array,
    Column,
    Frame,
    Ints,
    KeyTable,
    Progress,
    Schema,
    column,
    empty,
)
from pipeline.inbox import BoundedInbox, Waiting


@dataclass(slots=True)
class Arrived:
    """The readings of one source in one step, before they have a place in the order of all."""

    time: Ints
    key: Array
    columns: dict[str, Column]
    counts: Ints  # readings taken of each payload
    refused: list[Refused]
    waiting: Sequence[Waiting]

    def receipts(self) -> list[Receipt]:
        """What to tell the sender of each payload."""
        one = Receipt(1, [])  # most payloads are one reading, and a good one
        if not self.refused:
            return [one if n == 1 else Receipt(n, []) for n in self.counts.tolist()]
        by_payload: dict[int, list[Refused]] = {}
        for refused in self.refused:
            by_payload.setdefault(refused.payload, []).append(refused)
        return [Receipt(n, by_payload.get(i, [])) for i, n in enumerate(self.counts.tolist())]


@dataclass(slots=True)
class Intake:
    """One source as the engine sees it: its inbox, and how far its time has come. The times are state."""

    name: str
    source: Source
    inbox: BoundedInbox
    newest: int = NEVER  # event time of the newest reading
    watermark: int = NEVER
    quiet: bool = False  # idle, or at its end: it holds no one back
    ended: bool = False
    heard: int = 0  # attended monotonic time of the last reading, or of the start
    waited: int = 0  # ns without any reading, up to `heard`
    position: Any = None
    taken: int = 0
    refused: int = 0
    failure: str = field(default="")

    def listen(self, now: int) -> None:
        """From now on its silence counts."""
        self.heard = now
        self.waited = self.watermark - NEVER if self.newest == NEVER else 0

    def runs_to(self, silence: int, disorder: int) -> int:
        """Where the watermark is after so much silence: it runs on from the newest reading. Without any it runs from NEVER,
        which is before all times: no reading can be late for that, and what waits for the first one can tell how long."""
        return (NEVER + self.waited if self.newest == NEVER else self.newest - disorder) + silence

    @property
    def schema(self) -> Schema:
        return self.source.schema

    def decode(self, waiting: Sequence[Waiting], keys: KeyTable, clock: int, latest: int) -> Arrived:
        """The readings of these payloads as columns; those that cannot be taken (as dated after `latest`) are refused
        with a reason."""
        payloads = [w.payload for w in waiting]
        decoded = self._decode(payloads)
        counts = np.asarray(decoded.counts, np.int64)
        arrivals = np.array([p.arrival or clock for p in payloads], np.int64)
        time = np.repeat(arrivals, counts) if decoded.times is None else decoded.times
        keyed = self.schema.key is not None
        key = keys.codes(decoded.keys) if keyed else np.full(len(time), keys.whole(), np.int32)
        arrived = Arrived(time, key, decoded.columns, counts, list(decoded.refused), waiting)
        if len(time) and (int(key.min()) < 0 or int(time.max()) > latest):
            _refuse(arrived, decoded, keys, latest)
        return arrived

    def _decode(self, payloads: Sequence[Payload]) -> Decoded:
        """What the source makes of them. If that fails as a whole, each on its own, and the guilty ones are refused."""
        try:
            return self.source.decode(payloads)
        except Exception as error:  # noqa: BLE001 - a fault in a codec must cost no other payload
            if len(payloads) > 1:
                return joined(
                    [(i, self._decode([payload])) for i, payload in enumerate(payloads)], self.source.context.keys
                )
            self.failure = f"a payload could not be decoded: {type(error).__name__}: {error}"
            raw = payloads[0].data[:200] if isinstance(payloads[0].data, bytes) else b""
            nothing = empty(self.schema, NO_PROGRESS)
            refused = [Refused(0, 0, self.failure, raw.decode(errors="replace"))]
            return Decoded([], nothing.time, dict(nothing.columns), [0], refused)

    def advance(self, seq: Ints, time: Ints, disorder: int) -> tuple[Ints, int]:
        """The watermark before each reading, and after the last; the state moves along."""
        if not len(time):
            return seq, self.watermark
        newest = np.maximum.accumulate(time)
        if self.newest > newest[0]:
            newest = np.maximum(newest, self.newest)
        marks = np.maximum(newest - disorder, self.watermark)
        before = np.empty_like(marks)
        before[0] = self.watermark
        before[1:] = marks[:-1]
        self.newest = int(newest[-1])
        self.watermark = int(marks[-1])
        return before, self.watermark

    def frame(self, arrived: Arrived, seq: Ints, disorder: int, tick: Tick) -> Frame:
        """The Frame of this step; time then runs on as `tick` says."""
        before, after = self.advance(seq, arrived.time, disorder)
        progress = self._progress(seq, before, after, tick)
        return Frame(arrived.time, arrived.key, seq, arrived.columns, progress)

    def again(self, stored: Frame, disorder: int, tick: Tick) -> Frame:
        """The Frame of a step of the journal."""
        before, after = self.advance(stored.seq, stored.time, disorder)
        return stored.with_progress(self._progress(stored.seq, before, after, tick))

    def nothing(self, tick: Tick) -> Frame:
        """A Frame without rows: only time passes."""
        none: Ints = np.empty(0, np.int64)
        return empty(self.schema, self._progress(none, none, self.watermark, tick))

    def _progress(self, seq: Ints, before: Ints, after: int, tick: Tick) -> Progress:
        quiet_before = self.quiet
        self.watermark = max(self.watermark, tick.watermark)
        self.quiet, self.ended = tick.quiet, tick.ended
        return Progress(
            seq, before, after, self.watermark, tick.clock, tick.next_seq, quiet_before, tick.quiet, tick.ended
        )


@dataclass(slots=True)
class Tick:
    """How a step ends for one source."""

    clock: int
    next_seq: int
    watermark: int = NEVER  # at least this
    quiet: bool = False
    ended: bool = False


def _refuse(arrived: Arrived, decoded: Decoded, keys: KeyTable, latest: int) -> None:
    """Take out the readings that are dated ahead, or whose key finds no room."""
    ahead = arrived.time > latest
    crowded = arrived.key < 0
    bad = np.flatnonzero(ahead | crowded)
    payload = np.repeat(np.arange(len(arrived.counts)), arrived.counts)
    starts = np.cumsum(arrived.counts) - arrived.counts
    found = []
    for row in bad.tolist():
        at = int(payload[row])
        code = int(arrived.key[row])
        reason = "future: dated too far ahead of the clock" if ahead[row] else keys.why(code)
        name = keys.names[code] if code >= 0 else decoded.keys[row]
        raw = f"{name} at {np.datetime64(int(arrived.time[row]), 'ns')}Z"
        found.append(Refused(at, item_of(row - int(starts[at]), at, decoded.refused), reason, raw[:200]))
    arrived.refused += found
    keep = ~(ahead | crowded)
    arrived.time, arrived.key = arrived.time[keep], arrived.key[keep]
    arrived.columns = {name: c.take(keep) for name, c in arrived.columns.items()}
    arrived.counts = np.bincount(payload[keep], minlength=len(arrived.counts)).astype(np.int64)


def number(all_arrived: Sequence[Arrived], first: int) -> list[Ints]:
    """The arrival numbers of each source's readings: payloads in the order in which they came, over all sources."""
    if len(all_arrived) == 1:
        return [np.arange(first, first + len(all_arrived[0].time), dtype=np.int64)]
    order = np.concatenate([[w.order for w in a.waiting] for a in all_arrived])
    counts = np.concatenate([a.counts for a in all_arrived])
    by_arrival = np.argsort(order, kind="stable")
    starts = np.empty(len(order), np.int64)
    starts[by_arrival] = first + np.cumsum(counts[by_arrival]) - counts[by_arrival]
    numbers = []
    at = 0
    for arrived in all_arrived:
        own = starts[at : at + len(arrived.counts)]
        within = np.cumsum(arrived.counts) - arrived.counts
        numbers.append(np.repeat(own - within, arrived.counts) + np.arange(len(arrived.time)))
        at += len(arrived.counts)
    return numbers


def runs(seq: Ints) -> list[tuple[int, int]]:
    """Arrival numbers as few words: the first of each unbroken run, and its length."""
    starts = np.flatnonzero(np.diff(seq, prepend=-2) != 1)
    lengths = np.diff(starts, append=len(seq))
    return list(zip(seq[starts].tolist(), lengths.tolist(), strict=True))


def numbers_of(runs: Sequence[tuple[int, int]]) -> Ints:
    """The arrival numbers that `runs` was given."""
    if not runs:
        return np.empty(0, np.int64)
    return np.concatenate([np.arange(first, first + n, dtype=np.int64) for first, n in runs])


def refused_frame(schema: Schema, arrived: Arrived, keys: KeyTable, seq: int, progress: Progress) -> Frame:
    """The rows of `SOURCE.invalid`: one for each reading refused, dated by its arrival."""
    if not arrived.refused:
        return empty(schema, progress)
    n = len(arrived.refused)
    arrivals = [arrived.waiting[r.payload].payload.arrival or progress.clock for r in arrived.refused]
    columns = {
        "reason": column("string", [r.reason for r in arrived.refused]),
        "raw": column("string", [r.raw for r in arrived.refused]),
    }
    time = np.array(arrivals, np.int64)
    return Frame(time, np.full(n, keys.whole(), np.int32), np.full(n, seq, np.int64), columns, progress)


def payloads_of(payloads: Sequence[Payload]) -> list[Waiting]:
    """Payloads read again for the journal, as if they waited."""
    return [Waiting(i, p) for i, p in enumerate(payloads)]
