"""What `window` promises, beyond the contract that every operator keeps."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.window import Window
from pipeline.frame import NEVER, SECOND, Field, Frame, KeyTable, Schema
from pipeline.frame import rows as rows_of
from pipeline.journal.state import pack, unpack
from pipeline.testing import Mark, Stream, end, frames, make, run, streams

# What the contract tries (tests/test_contract.py).
EXAMPLES: list[dict[str, Any]] = [
    {"size": "5 s", "aggregate": {"n": "count()", "m": "mean(value)", "low": "min(count)", "high": "max(value)"}},
    {"size": "3 s", "lateness": "2 s", "aggregate": {"s": "sum(value)", "last": "last(door)", "v": "stddev(value)"}},
    {"size": "4 s", "offset": "1 s", "by": [], "aggregate": {"q": "median(value)", "d": "distinct(mode)"}},
    {"size": "4 s", "by": ["mode", "door"], "aggregate": {"n": "count(value)", "first": "first(count)"}},
    {"window": "hopping", "size": "5 s", "every": "2 s", "lateness": "2 s", "aggregate": {"s": "sum(value)"}},
    {"window": "session", "gap": "2 s", "lateness": "3 s", "aggregate": {"v": "variance(value)", "r": "rate(count)"}},
    {"window": "count", "size": 3, "by": ["mode"], "aggregate": {"m": "mean(value)", "q": "median(count)"}},
    {"window": "sliding", "size": "3 s", "lateness": "2 s", "aggregate": {"m": "mean(value)", "d": "delta(count)"}},
    {"size": "4 s", "emit": {"every": "3 s"}, "aggregate": {"m": "mean(value)"}},
    {"window": "session", "gap": "2 s", "emit": "changes", "by": [], "aggregate": {"n": "count()"}},
]

SMALL = {"size": "10 s", "aggregate": {"n": "count()", "total": "sum(value)"}}
ALL = {
    "n": "count()",
    "values": "count(value)",
    "total": "sum(value)",
    "low": "min(value)",
    "sd": "stddev(value)",
    "oldest": "first(value)",
    "newest": "last(value)",
    "middle": "median(value)",
    "slope": "rate(value)",
    "held": "time_weighted_mean(value)",
    "usual": "mode(value)",
}


def short(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """(key, end in seconds, revision, n, total)"""
    return [(r["key"], r["end"] // SECOND, r["revision"], r["n"], r["total"]) for r in rows]


def test_a_reading_at_the_end_belongs_to_the_next_window() -> None:
    assert short(run(Window, SMALL, "a1@0 a2@9.999 a3@10 a4@25")) == [("a", 10, 0, 2, 3.0), ("a", 20, 0, 1, 3.0)]


def test_a_row_says_its_window_and_is_of_its_end() -> None:
    (row,) = run(Window, SMALL, "a1@12 a1@20")
    assert row == {
        "key": "a",
        "time": 20 * SECOND,
        "start": 10 * SECOND,
        "end": 20 * SECOND,
        "revision": 0,
        "n": 1,
        "total": 1.0,
    }


def test_windows_lie_where_the_offset_says_also_before_1970() -> None:
    rows = run(Window, {**SMALL, "offset": "3 s"}, "a1@-8 a1@-7 a1@2 a1@3 end")
    assert [(r["start"] // SECOND, r["n"]) for r in rows] == [(-17, 1), (-7, 2), (3, 1)]


def test_rows_that_leave_together_leave_by_end_then_key() -> None:
    """The watermark is the source's, not the key's; a key's number says nothing about its place."""
    assert short(run(Window, SMALL, "b1@0 c8@11 a2@1 b4@21", disorder=12)) == []
    assert short(run(Window, SMALL, "b1@0 c8@11 a2@1 b4@43", disorder=12)) == [
        ("a", 10, 0, 1, 2.0),
        ("b", 10, 0, 1, 1.0),
        ("c", 20, 0, 1, 8.0),
    ]


def test_what_comes_after_its_window_goes_to_late() -> None:
    stream = "a1@0 a2@12 b4@3 a8@21"
    assert [r["total"] for r in run(Window, SMALL, stream)] == [1.0, 2.0]
    assert [(r["key"], r["value"]) for r in run(Window, SMALL, stream, output="late")] == [("b", 4.0)]


def test_within_lateness_each_late_reading_corrects() -> None:
    stream = "a1@0 a2@12 a4@3 b7@4 a9@5 a8@16 a16@4"
    assert short(run(Window, {**SMALL, "lateness": "5 s"}, stream)) == [
        ("a", 10, 0, 1, 1.0),
        ("a", 10, 1, 2, 5.0),
        ("b", 10, 0, 1, 7.0),  # the first that is heard of it
        ("a", 10, 2, 3, 14.0),
    ]
    assert len(run(Window, {**SMALL, "lateness": "5 s"}, stream, output="late")) == 1


def test_the_end_of_the_input_closes_every_window_in_order() -> None:
    assert short(run(Window, SMALL, "b1@15 a1@3 a1@16 end", disorder=20)) == [
        ("a", 10, 0, 1, 1.0),
        ("a", 20, 0, 1, 1.0),
        ("b", 20, 0, 1, 1.0),
    ]


def test_a_file_that_grew_after_its_end_corrects_what_its_end_closed() -> None:
    """The end is not the passing of time: a reading for a window that it closed is not late."""
    assert short(run(Window, SMALL, "a1@3 end a2@4 tick@10")) == [("a", 10, 0, 1, 1.0), ("a", 10, 1, 2, 3.0)]


def test_rows_of_one_reading_are_taken_in_their_order() -> None:
    """Behind another window one reading may cause several rows: they correct as they come, and then windows close."""
    schema, keys = Schema("key", {"value": Field("float", optional=True)}), KeyTable()
    operator, _ = make(Window, {**SMALL, "lateness": "1 h"}, schema, keys=keys)
    before, after = frames("a1@1 b1@1 a1@11 b1@12 a1@13 a2@2 a4@3 b8@4 c1@25", schema, keys, cuts=[5])
    operator.on_frame(before)
    one = np.zeros(len(after), np.int64) + after.seq[0]
    progress = after.progress._replace(seq=one[:1], before=after.progress.before[:1])
    rows = operator.on_frame(Frame(after.time, after.key, one, after.columns, progress))
    assert short(rows_of(rows, operator.schema, keys.names, "ns")) == [
        *(("a", 10, 1, 2, 3.0), ("a", 10, 2, 3, 7.0), ("b", 10, 1, 2, 9.0)),
        *(("a", 20, 0, 2, 2.0), ("b", 20, 0, 1, 1.0)),
    ]


def test_due_is_the_end_of_the_first_window_that_has_not_left() -> None:
    operator, _ = make(Window, SMALL)
    schema, keys = Schema("key", {"value": Field("float", optional=True)}), operator.context.keys
    first, second = frames("a1@12 a1@3 a1@13 tick@20", schema, keys, disorder=10, cuts=[3])
    assert operator.due() is None
    operator.on_frame(first)
    assert operator.due() == 10 * SECOND
    operator.on_frame(second)
    assert operator.due() is None


PLACES = Schema(
    "sensor", {"room": Field("string"), "floor": Field("int", optional=True), "value": Field("float", optional=True)}
)
HOUSE: Stream = [
    {"key": "s1", "time": 0, "room": "attic", "floor": 2, "value": 1.0},
    {"key": "s2", "time": 1, "room": "attic", "floor": 2, "value": 2.0},
    {"key": "s3", "time": 2, "room": "", "floor": None, "value": 4.0},
    {"key": "s1", "time": 3, "room": "attic", "floor": None, "value": 8.0},
    end(),
]


def by(*names: str) -> list[dict[str, Any]]:
    shown = {"sensor", "room", "floor", "total"}
    rows = run(Window, {**SMALL, "by": list(names)}, HOUSE, schema=PLACES)
    return [{k: v for k, v in r.items() if k in shown} for r in rows]


def test_by_one_text_field_makes_it_the_key() -> None:
    assert by("room") == [{"room": "", "total": 4.0}, {"room": "attic", "total": 11.0}]
    assert make(Window, {**SMALL, "by": ["room"]}, PLACES)[0].schema.key == "room"


def test_by_several_fields_shows_them_as_columns_and_missing_is_a_group() -> None:
    assert by("room", "floor") == [
        {"room": "", "floor": None, "total": 4.0},
        {"room": "attic", "floor": 2, "total": 3.0},
        {"room": "attic", "floor": None, "total": 8.0},
    ]
    assert by("floor") == [{"floor": 2, "total": 3.0}, {"floor": None, "total": 12.0}]
    assert [r["sensor"] for r in by("sensor", "room")] == ["s1", "s2", "s3"]


def test_by_nothing_is_one_group_and_by_the_key_the_default() -> None:
    assert by() == [{"total": 15.0}]
    assert [(r["sensor"], r["total"]) for r in by("sensor")] == [("s1", 9.0), ("s2", 2.0), ("s3", 4.0)]


def test_a_group_too_many_fails_before_anything_changes() -> None:
    """So that the graph can set aside the reading that is guilty, and push the others again."""
    keys = KeyTable(limit=4)
    operator, _ = make(Window, {**SMALL, "by": ["room"]}, PLACES, keys=keys)
    (frame,) = frames(HOUSE[:2], PLACES, keys)
    operator.on_frame(frame)
    before = pack(operator.snapshot())
    keys.codes(["s8", "s9"])
    guilty: Stream = [{"key": "s1", "time": 0, "room": room, "value": 1.0} for room in ("attic", "hall")]
    (frame,) = frames(guilty, PLACES, keys)
    with pytest.raises(ValueError, match="too many groups"):
        operator.on_frame(frame)
    assert pack(operator.snapshot()) == before


def problems(**changed: Any) -> list[tuple[str, str]]:
    return make(Window, {**SMALL, **changed}, PLACES)[1]


def test_wrong_settings_are_told_all_at_once() -> None:
    found = problems(
        size="0 s", by=["rom", "room", "room"], aggregate={"n": "cont()", "room": "count()", "a b": "count()"}
    )
    assert [setting for setting, _ in found] == ["by", "by", "aggregate.n", "aggregate.room", "aggregate.a b", "size"]
    assert '(did you mean "room"?)' in found[0][1]
    assert '(did you mean "count"?)' in found[2][1]


# --- against a loop ---


class Loop:
    """Windows as LANGUAGE tells them: one reading at a time, lists and dictionaries."""

    def __init__(self, size: int, lateness: int, disorder: int) -> None:
        self.size, self.lateness, self.disorder = size, lateness, disorder
        self.watermark = NEVER
        self.cells: dict[tuple[int, str], list[tuple[int, Any]]] = {}
        self.revisions: dict[tuple[int, str], int] = {}
        self.waiting: set[tuple[int, str]] = set()
        self.rows: list[dict[str, Any]] = []
        self.late: list[dict[str, Any]] = []

    def push(self, item: Any) -> None:
        if isinstance(item, Mark):
            self.watermark = max(self.watermark, NEVER if item.watermark is None else item.watermark)
            self.close(always=item.ended)
            return
        time = item["time"] * SECOND
        cell = (time - time % self.size + self.size, item["key"])
        if cell[0] > self.watermark:
            self.cells.setdefault(cell, []).append((time, item["value"]))
            self.waiting.add(cell)
        elif cell[0] + self.lateness > self.watermark:
            self.cells.setdefault(cell, []).append((time, item["value"]))
            self.emit(cell)
        else:
            self.late.append(item)
        self.watermark = max(self.watermark, time - self.disorder)
        self.close(always=False)

    def close(self, *, always: bool) -> None:
        for cell in sorted(c for c in self.waiting if always or c[0] <= self.watermark):
            self.waiting.discard(cell)
            self.emit(cell)

    def emit(self, cell: tuple[int, str]) -> None:
        self.revisions[cell] = self.revisions.get(cell, -1) + 1
        points = [(t, v) for t, v in self.cells[cell] if v is not None]
        found = sorted(v for _, v in points)
        ordered = sorted(points, key=lambda p: p[0])
        held = [(b[0] - a[0], a[1]) for a, b in pairwise([*ordered, (cell[0], None)])]
        self.rows.append(
            {
                "key": cell[1],
                "end": cell[0],
                "revision": self.revisions[cell],
                "n": len(self.cells[cell]),
                "values": len(points),
                "total": sum(found) if found else None,
                "low": found[0] if found else None,
                "oldest": ordered[0][1] if points else None,
                "newest": ordered[-1][1] if points else None,
                "middle": (found[(len(found) - 1) // 2] + found[len(found) // 2]) / 2 if found else None,
                "held": pytest.approx(sum(s * v for s, v in held) / sum(s for s, _ in held)) if held else None,
            }
        )


def pushed(settings: dict[str, Any], stream: Stream, disorder: int, cuts: set[int], *, restart: bool) -> Any:
    """The rows and the late readings when the stream is cut so, if need be with a restart after each Frame."""
    schema = Schema("key", {"value": Field("float", optional=True)})
    keys = KeyTable()
    rows: list[dict[str, Any]] = []
    late: list[dict[str, Any]] = []
    operator, _ = make(Window, settings, schema, keys=keys)
    for frame in frames(stream, schema, keys, disorder=disorder, cuts=[c for c in cuts if c < len(stream)]):
        rows += rows_of(operator.on_frame(frame), operator.schema, keys.names, "ns")
        for refused in operator.context.emitted["late"]:
            late += rows_of(refused, schema, keys.names, "ns")
        if restart:
            state = unpack(pack(operator.snapshot()))
            operator, _ = make(Window, settings, schema, keys=keys)
            operator.restore(state)
        operator.context.emitted["late"].clear()
    return rows, late


@settings(max_examples=100, deadline=None)
@given(
    streams(late=12, max_size=40),
    st.sets(st.integers(1, 40)),
    st.sampled_from([0, 2, 6]),
    st.sampled_from([0, 3, 9]),
    st.booleans(),
)
def test_the_columns_agree_with_a_loop(
    stream: Stream, cuts: set[int], disorder: int, lateness: int, restart: bool
) -> None:
    """Out of order, late, corrected, with values missing, ticks between, any cut, any restart."""
    loop = Loop(4 * SECOND, lateness * SECOND, disorder * SECOND)
    for item in stream:
        loop.push(item)
    how = {"size": "4 s", "lateness": f"{lateness} s", "aggregate": ALL}
    rows, late = pushed(how, stream, disorder, cuts, restart=restart)
    named = list(loop.rows[0]) if loop.rows else []
    assert [{name: row[name] for name in named} for row in rows] == loop.rows
    assert [(r["key"], r["time"], r["value"]) for r in late] == [
        (r["key"], r["time"] * SECOND, r["value"]) for r in loop.late
    ]


@settings(max_examples=10, deadline=None)
@given(streams(late=8, max_size=12))
def test_no_cut_and_no_restart_changes_a_bit(stream: Stream) -> None:
    run(Window, {"size": "3 s", "lateness": "4 s", "aggregate": ALL}, stream, disorder=1)


def test_a_window_far_from_the_others_costs_no_more_than_one_next_to_them() -> None:
    """Windows are not listed from the first to the last: here there are a thousand million between them."""
    rows = run(Window, {**SMALL, "size": "1 ms", "lateness": "1 ms"}, "a1@0 b1@1000000 a1@3 end")
    assert len(rows) == 2


def test_snapshots_hold_only_what_can_still_change() -> None:
    operator, _ = make(Window, {**SMALL, "aggregate": ALL})
    schema, keys = Schema("key", {"value": Field("float", optional=True)}), operator.context.keys
    sizes = []
    for frame in frames(" ".join(f"a1@{t}" for t in range(0, 5000, 5)), schema, keys, cuts=range(1, 1000)):
        operator.on_frame(frame)
        sizes.append(len(pack(operator.snapshot())))
    assert max(sizes[500:]) <= max(sizes[:20]) + 16
    assert isinstance(operator.snapshot()["cells"]["window"], np.ndarray)
