"""What `sample` promises, beyond the contract that every operator keeps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.sample import Sample
from pipeline.frame import NEVER, SECOND, Field, KeyTable, Schema, rows
from pipeline.journal.state import pack
from pipeline.testing import READINGS, Mark, Stream, compact, frames, make, run, streams

# What the contract tries (tests/test_contract.py).
EXAMPLES: list[dict[str, Any]] = [
    {"method": "throttle", "period": "3 s"},
    {"method": "debounce", "period": "3 s"},
    {"method": "first", "period": "4 s", "offset": "1 s"},
    {"method": "last", "period": "4 s"},
]


def passed(method: str, stream: str, **more: Any) -> str:
    """The rows that leave, with a period of 10 s."""
    how = {"method": method, "period": "10 s"}
    return compact(run(Sample, how, stream, **more))


def test_throttle_passes_one_and_then_none_for_the_period() -> None:
    """By event time, key by key; what is dated before the last that passed is dropped."""
    assert passed("throttle", "a1@0 b1@1 a2@9.9 a3@10 b2@10 a4@5 a5@19 b3@11 a6@30") == "a1 b1 a3 b3 a6"


def test_debounce_passes_the_last_before_a_silence() -> None:
    assert passed("debounce", "a1@0 a2@4 a3@8 tick@17") == ""
    assert passed("debounce", "a1@0 a2@4 a3@8 tick@18") == "a3"
    assert passed("debounce", "a1@0 a2@4 a3@8 a4@17 b9@20 tick@27") == "a4"


def test_debounce_is_told_by_a_reading_so_much_later_too() -> None:
    """Even though the watermark is not there yet."""
    assert passed("debounce", "a1@0 a2@10 a3@19", disorder=100) == "a1"


def test_debounce_goes_by_event_time() -> None:
    """An older reading is not the last because it came last; of equal times the one that came last is."""
    assert passed("debounce", "a1@8 a2@5 b3@8 b4@8 tick@18", disorder=5) == "a1 b4"


def test_debounce_lets_go_what_waits_at_the_end() -> None:
    assert passed("debounce", "b1@3 a1@0 a2@4 end") == "b1 a2"


def test_first_and_last_of_each_period() -> None:
    """By event time, when the watermark is at its end; by end, then key."""
    stream = "b1@3 a1@2 a2@1 b2@9 b3@9 a3@12 b4@19 c5@10 tick@{}"
    assert passed("first", stream.format(9), disorder=10) == ""
    assert passed("first", stream.format(10), disorder=10) == "a2 b1"
    assert passed("last", stream.format(10), disorder=10) == "a1 b3"
    assert passed("first", stream.format(20), disorder=10) == "a2 b1 a3 b4 c5"
    assert passed("last", stream.replace("tick@{}", "end"), disorder=10) == "a1 b3 a3 b4 c5"


def test_of_equal_times_the_first_and_the_last_to_arrive() -> None:
    assert passed("first", "a1@3 a2@3 a3@3 end") == "a1"
    assert passed("last", "a1@3 a2@3 a3@3 end") == "a3"


def test_periods_lie_where_the_offset_says() -> None:
    how = {"method": "last", "period": "10 s", "offset": "3 s"}
    assert compact(run(Sample, how, "a1@-8 a2@-7 a3@2 a4@3 a5@12 end")) == "a1 a3 a5"


def test_rows_leave_as_they_came() -> None:
    (row,) = run(Sample, {"method": "last", "period": "10 s"}, "a1@3 a2@4 end")
    assert row == {"key": "a", "time": 4 * SECOND, "value": 2.0}


@pytest.mark.parametrize(("method", "late"), [("debounce", "b1 b2"), ("first", "b1 b2 b3"), ("last", "b1 b2 b3")])
def test_what_comes_too_late_goes_to_late(method: str, late: str) -> None:
    stream = "a1@25 b1@0 b2@15 b3@19 b4@20"
    assert passed(method, stream, output="late") == late


def test_due_is_when_the_first_row_leaves() -> None:
    for method, at in (("throttle", None), ("debounce", 13), ("last", 10)):
        operator, _ = make(Sample, {"method": method, "period": "10 s"})
        for frame in frames("a1@3 b1@4", READINGS, operator.context.keys):
            operator.on_frame(frame)
        assert operator.due() == (None if at is None else at * SECOND)


def test_mistakes_are_named() -> None:
    found = make(Sample, {"method": "throttle", "period": "0 s", "offset": "1 s"})[1]
    assert [setting for setting, _ in found] == ["period", "offset"]


WIDE = Schema("key", {"a": Field("float"), "b": Field("int", optional=True)})


@pytest.mark.parametrize(("method", "bytes_"), [("throttle", 9), ("debounce", 9 + 8 + 9), ("last", 20 + 8 + 8 + 1 / 8)])
def test_what_a_key_costs_is_what_is_said(method: str, bytes_: float) -> None:
    def size(keys: int) -> int:
        operator, _ = make(Sample, {"method": method, "period": "10 s"}, WIDE)
        stream: Stream = [{"key": f"k{i % keys}", "time": i % 5, "a": 1.0, "b": 1} for i in range(3 * keys)]
        stream[-1]["b"] = None  # type: ignore[index]
        for frame in frames(stream, WIDE, operator.context.keys, cuts=range(0, len(stream), 100)):
            operator.on_frame(frame)
        return len(pack(operator.snapshot()))

    assert size(2_000) - size(1_000) == pytest.approx(1_000 * bytes_, abs=20)


def test_what_is_open_is_kept_in_piles_of_bounded_height() -> None:
    """Not by readings: a period may have many."""
    operator: Any = make(Sample, {"method": "first", "period": "1000 s"})[0]
    heights = []
    for frame in frames(
        " ".join(f"a{i}@{i / 10}" for i in range(9_000)), READINGS, operator.context.keys, cuts=range(9_000)
    ):
        operator.on_frame(frame)
        heights.append(sum(len(pile) for pile in operator.way.pile))
    assert max(heights) <= 1_024 + 2


# --- against a loop ---


class Loop:
    """As the docstring tells it: one reading at a time, a dictionary."""

    def __init__(self, method: str, period: int, disorder: int) -> None:
        self.method, self.period, self.disorder = method, period, disorder
        self.watermark = NEVER
        self.waits: dict[Any, dict[str, Any]] = {}  # by (key, period); debounce and throttle: by key
        self.out: list[dict[str, Any]] = []
        self.late: list[dict[str, Any]] = []

    def until(self, reading: dict[str, Any]) -> int:
        """When it leaves."""
        time = reading["time"]
        return int(time + self.period if self.method == "debounce" else time - time % self.period + self.period)

    def push(self, item: Any) -> None:
        leaving: list[dict[str, Any]] = []
        if isinstance(item, Mark):
            if item.watermark is not None:
                self.watermark = max(self.watermark, item.watermark // SECOND)
        elif self.method == "throttle":
            before = self.waits.get(item["key"])
            if before is None or item["time"] >= before["time"] + self.period:
                self.waits[item["key"]] = item
                self.out.append(item)
            return
        else:
            if self.until(item) <= self.watermark:
                self.late.append(item)
            else:
                leaving = self.take(item)
            self.watermark = max(self.watermark, item["time"] - self.disorder)
        ended = isinstance(item, Mark) and item.ended
        for at in [
            a
            for a, waits in self.waits.items()
            if self.method != "throttle" and (ended or self.until(waits) <= self.watermark)
        ]:
            leaving.append(self.waits.pop(at))
        self.out += sorted(leaving, key=lambda r: (self.until(r), r["key"]))

    def take(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        at = item["key"] if self.method == "debounce" else (item["key"], item["time"] // self.period)
        before = self.waits.get(at)
        if before is None:
            self.waits[at] = item
        elif self.method == "debounce" and item["time"] >= before["time"] + self.period:
            self.waits[at] = item
            return [before]
        elif item["time"] < before["time"] if self.method == "first" else item["time"] >= before["time"]:
            self.waits[at] = item
        return []


@settings(max_examples=250, deadline=None)
@given(
    streams(late=9, max_size=50),
    st.sampled_from(["throttle", "debounce", "first", "last"]),
    st.sampled_from([1, 3, 7]),
    st.sampled_from([0, 2, 6]),
    st.lists(st.integers(1, 50), max_size=3),
)
def test_the_columns_agree_with_a_loop(
    stream: Stream, method: str, period: int, disorder: int, cuts: list[int]
) -> None:
    loop = Loop(method, period, disorder)
    for item in stream:
        loop.push(item)
    keys = KeyTable()
    operator, _ = make(Sample, {"method": method, "period": f"{period} s"}, keys=keys)
    came = [operator.on_frame(frame) for frame in frames(stream, READINGS, keys, disorder=disorder, cuts=cuts)]
    for found, want in ((came, loop.out), (operator.context.emitted.get("late", []), loop.late)):
        shown = [row for frame in found for row in rows(frame, READINGS, keys.names, "ns")]
        assert [{**row, "time": row["time"] // SECOND} for row in shown] == want
