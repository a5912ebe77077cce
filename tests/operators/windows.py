"""Windows as LANGUAGE tells them, one reading at a time, with lists and dictionaries: what the columns must agree with.

They share no code with the operator: of the test kit they only take what a stream is.
"""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from operators.window import Window
from pipeline.frame import NEVER, SECOND, KeyTable
from pipeline.frame import rows as rows_of
from pipeline.journal.state import pack, unpack
from pipeline.testing import READINGS, Mark, Reading, Stream, frames, make, streams

AGGREGATES = {
    "n": "count()",
    "values": "count(value)",
    "total": "sum(value)",
    "low": "min(value)",
    "oldest": "first(value)",
    "newest": "last(value)",
    "middle": "median(value)",
    "spread": "variance(value)",
    "slope": "rate(value)",
}
Held = list[tuple[int, Any]]  # time in ns, value; in order of arrival


def figures(held: Held) -> dict[str, Any]:
    """What `AGGREGATES` make of these readings; floats to 9 digits."""
    there = [(t, v) for t, v in held if v is not None]
    values = [v for _, v in there]
    ordered = sorted(there, key=lambda p: p[0])
    grown = sum(b - a if b >= a else b for (_, a), (_, b) in pairwise(ordered))
    seconds = (ordered[-1][0] - ordered[0][0]) / SECOND if ordered else 0
    found = {
        "n": len(held),
        "values": len(values),
        "total": sum(values) if values else None,
        "low": min(values, default=None),
        "oldest": ordered[0][1] if ordered else None,
        "newest": ordered[-1][1] if ordered else None,
        "middle": statistics.median(values) if values else None,
        "spread": statistics.variance(values) if len(values) > 1 else None,
        "slope": grown / seconds if seconds else None,
    }
    return rounded(found)


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {k: float(f"{v + 0.0:.9g}") if isinstance(v, float) else v for k, v in row.items()}


class Oracle:
    """A kind of windows: `take` judges and keeps a reading, `pass_to` lets time pass. Rows and late ones are noted."""

    def __init__(self, disorder: int) -> None:
        self.disorder = disorder
        self.watermark = NEVER
        self.rows: list[dict[str, Any]] = []
        self.late: list[Reading] = []

    def push(self, item: Reading | Mark) -> None:
        if isinstance(item, Mark):
            before = self.watermark
            self.watermark = max(before, NEVER if item.watermark is None else item.watermark)
            self.pass_to(before, everything=item.ended)
            return
        before = self.watermark
        self.take(item, item["time"] * SECOND)
        self.watermark = max(before, item["time"] * SECOND - self.disorder)
        self.pass_to(before, everything=False)

    def take(self, item: Reading, time: int) -> None:
        raise NotImplementedError

    def pass_to(self, before: int, *, everything: bool) -> None:
        raise NotImplementedError

    def emit(self, key: str, start: int, end: int, revision: int, held: Held) -> None:
        self.rows.append({"key": key, "start": start, "end": end, "revision": revision, **figures(held)})


class Hopping(Oracle):
    """Also tumbling, with `every` = `size`; `emit`: "close", "changes" or a time in ns."""

    def __init__(self, disorder: int, size: int, every: int, lateness: int, emit: Any = "close") -> None:
        super().__init__(disorder)
        self.size, self.every, self.lateness, self.how = size, every, lateness, emit
        self.held: dict[tuple[int, str], Held] = {}
        self.revision: dict[tuple[int, str], int] = {}
        self.waiting: set[tuple[int, str]] = set()

    def take(self, item: Reading, time: int) -> None:
        taken = inside = False
        start = time - time % self.every - 5 * self.size
        start -= start % self.every
        while start <= time:
            if time < start + self.size:
                inside = True
                taken |= self.into((start + self.size, item["key"]), (time, item["value"]))
            start += self.every
        if inside and not taken:
            self.late.append(item)

    def into(self, window: tuple[int, str], reading: tuple[int, Any]) -> bool:
        if window[0] + self.lateness <= self.watermark and window[0] <= self.watermark:
            return False
        self.held.setdefault(window, []).append(reading)
        if window[0] <= self.watermark or self.how == "changes":
            self.show(window)
        else:
            self.waiting.add(window)
        return True

    def show(self, window: tuple[int, str]) -> None:
        self.waiting.discard(window)
        self.revision[window] = self.revision.get(window, -1) + 1
        end, key = window
        self.emit(key, end - self.size, end, self.revision[window], self.held[window])

    def pass_to(self, before: int, *, everything: bool) -> None:
        for window in sorted(w for w in self.waiting if everything or w[0] <= self.watermark):
            self.show(window)
        passed = isinstance(self.how, int) and before != NEVER and before // self.how < self.watermark // self.how
        if passed:
            for window in sorted(self.waiting):
                self.show(window)


class Session(Oracle):
    def __init__(self, disorder: int, gap: int, lateness: int, emit: Any = "close") -> None:
        super().__init__(disorder)
        self.gap, self.lateness, self.how = gap, lateness, emit
        self.sessions: dict[str, list[dict[str, Any]]] = {}

    def end(self, session: dict[str, Any]) -> int:
        return int(max(t for t, _ in session["held"]) + self.gap)

    def start(self, session: dict[str, Any]) -> int:
        return int(min(t for t, _ in session["held"]))

    def take(self, item: Reading, time: int) -> None:
        of = [s for s in self.sessions.get(item["key"], []) if self.end(s) + self.lateness > self.watermark]
        near = [s for s in of if self.start(s) - self.gap < time < self.end(s)]
        if not near and time + self.gap + self.lateness <= self.watermark:
            self.late.append(item)
            return
        held = [reading for s in near for reading in s["held"]]
        revision = max((s["revision"] for s in near), default=-1)
        session = {"key": item["key"], "held": [*held, (time, item["value"])], "revision": revision, "open": True}
        self.sessions[item["key"]] = [s for s in of if s not in near] + [session]
        if self.how == "changes" or self.end(session) <= self.watermark:
            self.show(session)

    def show(self, session: dict[str, Any]) -> None:
        session["open"] = False
        session["revision"] += 1
        self.emit(session["key"], self.start(session), self.end(session), session["revision"], session["held"])

    def pass_to(self, before: int, *, everything: bool) -> None:
        waiting = [s for of in self.sessions.values() for s in of if s["open"]]
        waiting.sort(key=lambda s: (self.end(s), s["key"]))
        for session in waiting:
            if everything or self.end(session) <= self.watermark:
                self.show(session)
        if isinstance(self.how, int) and before != NEVER and before // self.how < self.watermark // self.how:
            for session in waiting:
                if session["open"]:
                    self.show(session)


class Count(Oracle):
    def __init__(self, disorder: int, size: int) -> None:
        super().__init__(disorder)
        self.size = size
        self.held: dict[str, Held] = {}

    def take(self, item: Reading, time: int) -> None:
        held = self.held.setdefault(item["key"], [])
        held.append((time, item["value"]))
        if len(held) == self.size:
            times = [t for t, _ in held]
            self.emit(item["key"], min(times), max(times), 0, held)
            held.clear()

    def pass_to(self, before: int, *, everything: bool) -> None:
        pass


class Sliding(Oracle):
    def __init__(self, disorder: int, size: int, lateness: int) -> None:
        super().__init__(disorder)
        self.size, self.lateness = size, lateness
        self.taken: list[dict[str, Any]] = []  # in order of arrival

    def take(self, item: Reading, time: int) -> None:
        if time < self.watermark and time + self.lateness <= self.watermark:
            self.late.append(item)
            return
        new = {"key": item["key"], "time": time, "value": item["value"], "revision": -1}
        behind = time < self.watermark
        holds = [r for r in self.taken if r["key"] == new["key"] and time <= r["time"] < time + self.size]
        left = [r for r in holds if r["revision"] >= 0 and r["time"] + self.lateness > self.watermark]
        self.taken.append(new)
        for row in sorted([*left, *([new] if behind else [])], key=lambda r: r["time"]):  # ties by arrival
            self.show(row)

    def show(self, row: dict[str, Any]) -> None:
        row["revision"] += 1
        end = row["time"]
        inside = [r for r in self.taken if r["key"] == row["key"] and end - self.size < r["time"] <= end]
        self.emit(row["key"], end - self.size, end, row["revision"], [(r["time"], r["value"]) for r in inside])

    def pass_to(self, before: int, *, everything: bool) -> None:
        waiting = [r for r in self.taken if r["revision"] < 0 and (everything or r["time"] <= self.watermark)]
        for row in sorted(waiting, key=lambda r: (r["time"], r["key"])):
            self.show(row)


def answers(
    table: dict[str, Any], stream: Stream, disorder: int, cuts: set[int], *, restart: bool
) -> tuple[list[dict[str, Any]], list[tuple[str, int, Any]]]:
    """The rows and the late readings when the stream is cut so, if need be with a restart after each Frame."""
    keys = KeyTable()
    table = {"aggregate": AGGREGATES, **table}
    rows: list[dict[str, Any]] = []
    late: list[tuple[str, int, Any]] = []
    operator, problems = make(Window, table, READINGS, keys=keys)
    assert not problems
    for frame in frames(stream, READINGS, keys, disorder=disorder, cuts=[c for c in cuts if c < len(stream)]):
        rows += rows_of(operator.on_frame(frame), operator.schema, keys.names, "ns")
        for refused in operator.context.emitted.get("late", []):
            late += [(r["key"], r["time"], r["value"]) for r in rows_of(refused, READINGS, keys.names, "ns")]
        for output in operator.context.emitted.values():
            output.clear()
        if restart:
            state = unpack(pack(operator.snapshot()))
            operator, _ = make(Window, table, READINGS, keys=keys)
            operator.restore(state)
    return rows, late


def agree(oracle: Oracle, table: dict[str, Any], stream: Stream, cuts: set[int], *, restart: bool) -> None:
    """Every row and every late reading, in order; floats to 9 digits."""
    for item in stream:
        oracle.push(item)
    rows, late = answers(table, stream, oracle.disorder // SECOND, cuts, restart=restart)
    names = ["key", "start", "end", "revision", *AGGREGATES]
    assert [rounded({n: row[n] for n in names}) for row in rows] == oracle.rows
    assert late == [(r["key"], r["time"] * SECOND, r["value"]) for r in oracle.late]


# A stream, where it is cut, whether it restarts at each cut, and how far out of order its source may be (s).
cut_streams = st.tuples(
    streams(late=12, max_size=40), st.sets(st.integers(1, 40)), st.booleans(), st.sampled_from([0, 2, 6])
)
