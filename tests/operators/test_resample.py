"""What `resample` promises, beyond the contract that every operator keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.resample import Resample
from pipeline.frame import NEVER, SECOND, Field, KeyTable, Schema, rows
from pipeline.journal.state import pack
from pipeline.testing import READINGS, Mark, Stream, frames, make, run, streams

# What the contract tries (tests/test_contract.py).
EXAMPLES: list[dict[str, Any]] = [
    {"every": "2 s"},
    {"every": "3 s", "gap": "4 s", "offset": "1 s", "method": "linear"},
]


def points(stream: str, method: str = "previous", *, every: str = "10 s", disorder: float = 0, **more: Any) -> str:
    """The rows that leave: value@seconds."""
    found = run(Resample, {"every": every, "method": method, **more}, stream, disorder=disorder)
    return " ".join(
        f"{r['key']}{'-' if r['value'] is None else format(r['value'], 'g')}@{r['time'] // SECOND}" for r in found
    )


def test_the_last_reading_holds_until_the_next_one() -> None:
    assert points("a10@0 a13@15 a14@16 a16@30 tick@31") == "a10@0 a10@10 a14@20 a16@30"


def test_a_point_leaves_when_the_watermark_has_passed_it() -> None:
    """At the point itself a reading of just that time may still come, and counts; of several the last."""
    assert points("a10@5 tick@10") == ""
    assert points("a10@5 tick@10.1") == "a10@10"
    assert points("a10@5 a11@10 a12@10 tick@10.1") == "a12@10"


def test_nothing_holds_longer_than_the_gap() -> None:
    """Ten times `every` unless it is set; exactly so long still counts."""
    assert points("a1@0 tick@1000", gap="20 s") == "a1@0 a1@10 a1@20"
    assert points("a1@1 tick@1000", gap="20 s") == "a1@10 a1@20"
    assert points("a1@0 tick@100000").endswith(" a1@90 a1@100")


def test_on_the_line_between_two_readings() -> None:
    assert points("a10@0 a13@15 a16@30 tick@31", "linear") == "a10@0 a12@10 a14@20 a16@30"
    assert points("a0@5 a10@25 a20@30 tick@26", "linear", disorder=50) == "a2.5@10 a7.5@20"


def test_a_gap_has_no_points_but_where_a_reading_is() -> None:
    assert points("a10@0 a10@20 a10@50 tick@51", "linear", gap="20 s") == "a10@0 a10@10 a10@20 a10@50"


def test_a_point_on_the_line_waits_for_the_reading_after_it() -> None:
    assert points("a10@0 tick@500", "linear", gap="900 s") == "a10@0"
    assert (
        points("a10@0 tick@500 a20@600 tick@600.1", "linear", every="200 s", gap="900 s")
        == "a10@0 a13.3333@200 a16.6667@400 a20@600"
    )


def test_keys_are_apart_and_leave_by_time_then_key() -> None:
    assert points("b1@1 a2@2 b3@11 c9@15 tick@21") == "b1@10 a2@10 a2@20 b3@20 c9@20".replace(
        "b1@10 a2@10", "a2@10 b1@10"
    )


def test_order_of_arrival_means_nothing() -> None:
    """As long as the watermark has not passed."""
    assert points("a16@30 a13@15 a10@0 a14@16 tick@31", disorder=60) == "a10@0 a10@10 a14@20 a16@30"


def test_what_the_watermark_had_passed_is_late() -> None:
    how = {"every": "10 s"}
    late = run(Resample, how, "a10@5 a11@15 a99@14 b98@12 b1@15 tick@21", output="late")
    assert [r["value"] for r in late] == [99, 98]
    assert points("a10@5 a11@15 a99@14 b98@12 b1@15 tick@21") == "a10@10 a11@20 b1@20"


def test_the_end_takes_every_reading_and_is_no_passing_of_time() -> None:
    for method in ("previous", "linear"):
        assert points("a10@0 a11@10 a12@20 b1@5 end", method, disorder=50) == "a10@0 a11@10 a12@20"


def test_a_file_that_grew_after_its_end_gives_no_point_twice() -> None:
    """What is not newer than a reading that the end has taken is late, though the watermark has not passed it."""
    stream = "a10@0 a11@10 end a99@10 a98@5 b1@10 a12@20 end"
    for method in ("previous", "linear"):
        assert points(stream, method, disorder=50) == "a10@0 a11@10 b1@10 a12@20"
        late = run(Resample, {"every": "10 s", "method": method}, stream, disorder=50, output="late")
        assert [row["value"] for row in late] == [99, 98]


def test_points_lie_where_the_offset_says() -> None:
    assert points("a1@-8 a2@1 a3@5 tick@14", offset="3 s") == "a1@-7 a2@3 a3@13"


def test_missing_is_missing_and_other_fields_are_held() -> None:
    schema = Schema(
        "key", {"n": Field("int", optional=True), "mode": Field("string", optional=True), "on": Field("bool")}
    )
    stream: Stream = [
        {"key": "a", "time": 0, "n": 1, "mode": "x", "on": True},
        {"key": "a", "time": 20, "n": 2, "mode": "y", "on": False},
        {"key": "a", "time": 40, "n": None, "mode": None, "on": True},
        Mark(41 * SECOND),
    ]
    found = run(Resample, {"every": "10 s", "method": "linear"}, stream, schema=schema)
    assert [(r["n"], r["mode"], r["on"]) for r in found] == [
        (1.0, "x", True),
        (1.5, "x", True),
        (2.0, "y", False),
        (None, "y", False),
        (None, None, True),
    ]


def test_beside_what_is_not_finite_the_reading_before_holds() -> None:
    schema = Schema("key", {"v": Field("float", nan=True)})
    stream: Stream = [
        {"key": "a", "time": 2 * i, "v": v} for i, v in enumerate([1, math.inf, math.inf, -math.inf, math.nan, 1])
    ]
    found = run(Resample, {"every": "1 s", "method": "linear"}, [*stream, Mark(11 * SECOND)], schema=schema)
    shown = [str(r["v"]) for r in found]
    assert shown == ["1.0", "1.0", "inf", "inf", "inf", "inf", "-inf", "-inf", "nan", "nan", "1.0"]


def test_an_even_value_stays_just_that() -> None:
    """Not a last digit more or less."""
    found = run(Resample, {"every": "1 s", "method": "linear"}, "a20.1@0 a20.1@7 a20.1@13.3 tick@14")
    assert {r["value"] for r in found} == {20.1}


def test_mistakes_are_named() -> None:
    assert [s for s, _ in make(Resample, {"every": "0 s"})[1]] == ["every"]
    ((setting, text),) = make(Resample, {"every": "1 s", "gap": "1 d"})[1]
    assert setting == "gap"
    assert "10,000" in text


WIDE = Schema("key", {"a": Field("float"), "b": Field("int", optional=True)})


def test_what_a_key_and_a_waiting_reading_cost_is_what_is_said() -> None:
    def size(keys: int, disorder: float) -> int:
        operator, _ = make(Resample, {"every": "10 s"}, WIDE)
        stream: Stream = [{"key": f"k{i}", "time": i // keys, "a": 1.0, "b": None if i % 3 else 1} for i in range(keys)]
        for frame in frames(
            [*stream, Mark(20 * SECOND if not disorder else None)], WIDE, operator.context.keys, disorder=disorder
        ):
            operator.on_frame(frame)
        return len(pack(operator.snapshot()))

    assert size(2_000, 0) - size(1_000, 0) == pytest.approx(1_000 * (9 + 8 + 9), abs=20)
    both = 1_000 * (9 + 8 + 9) + 1_000 * (20 + 8 + 8 + 1 / 8)
    assert size(2_000, 50) - size(1_000, 50) == pytest.approx(both, abs=40)


# --- against what is known from scratch ---


class Known:
    """All points that the readings so far determine, worked out anew after each of them."""

    def __init__(self, method: str, every: int, gap: int, disorder: int) -> None:
        self.method, self.every, self.gap, self.disorder = method, every, gap, disorder
        self.watermark = NEVER
        self.readings: dict[str, dict[int, Any]] = {}  # by key and time: of equal times the last
        self.taken: dict[str, int] = {}  # by key: what an end of the input has taken
        self.out: list[tuple[str, int, Any]] = []
        self.late: list[Any] = []

    def push(self, item: Any) -> None:
        ended = isinstance(item, Mark) and item.ended
        if not isinstance(item, Mark):
            key, time = item["key"], item["time"]
            if time < self.watermark or time <= self.taken.get(key, NEVER):
                self.late.append(item["value"])
            else:
                self.readings.setdefault(key, {})[time] = item["value"]
            self.watermark = max(self.watermark, time - self.disorder)
        elif item.watermark is not None:
            self.watermark = max(self.watermark, item.watermark // SECOND)
        if ended:
            self.taken = {key: max(of) for key, of in self.readings.items()}
        known = [p for key in self.readings for p in self.of_key(key)]
        self.out += sorted(set(known) - set(self.out), key=lambda p: (p[1], p[0]))

    def of_key(self, key: str) -> list[tuple[str, int, Any]]:
        taken = max(self.watermark, self.taken.get(key, NEVER) + 1)
        past = sorted((t, v) for t, v in self.readings[key].items() if t < taken)
        found = [(key, t, v) for t, v in past if t % self.every == 0]
        ends: list[tuple[int, Any]] = [*past[1:], *([(taken, None)] if past and self.method == "previous" else [])]
        for (t, v), (u, w) in zip(past, ends, strict=False):
            held = self.method == "previous"
            stop = min(u, t + self.gap + 1) if held else u if u - t <= self.gap else t
            between = [g for g in range(t + 1, stop) if g % self.every == 0]
            found += [(key, g, v if held else self.on_line(t, v, u, w, g)) for g in between]
        return found

    def on_line(self, t: int, v: float | None, u: int, w: float | None, g: int) -> float | None:
        return None if v is None or w is None else v + (w - v) * ((g - t) / (u - t))


@settings(max_examples=250, deadline=None)
@given(
    streams(late=9, max_size=30),
    st.sampled_from(["previous", "linear"]),
    st.sampled_from([1, 2, 5]),
    st.sampled_from([1, 4, 10]),
    st.sampled_from([0, 2, 6]),
    st.lists(st.integers(1, 50), max_size=3),
)
def test_the_columns_agree_with_what_is_known_from_scratch(
    stream: Stream, method: str, every: int, gap: int, disorder: int, cuts: list[int]
) -> None:
    known = Known(method, every, gap, disorder)
    for item in stream:
        known.push(item)
    keys = KeyTable()
    how = {"method": method, "every": f"{every} s", "gap": f"{gap} s"}
    operator, _ = make(Resample, how, keys=keys)
    came = [operator.on_frame(frame) for frame in frames(stream, READINGS, keys, disorder=disorder, cuts=cuts)]
    found = [row for frame in came for row in rows(frame, operator.schema, keys.names, "ns")]
    assert [(r["key"], r["time"] // SECOND, r["value"]) for r in found] == known.out
    late = [row["value"] for frame in operator.context.emitted["late"] for row in rows(frame, READINGS, keys.names)]
    assert late == known.late


def test_many_readings_wait_and_none_is_lost() -> None:
    """More than are put in order at once."""
    stream: list[Any] = [{"key": f"k{i % 7}", "time": (i * 7_919) % 5_000, "value": float(i)} for i in range(5_000)]
    operator, _ = make(Resample, {"every": "1 s", "method": "linear", "gap": "1 s"})
    keys = operator.context.keys
    steps = [*stream, *(Mark(second * SECOND) for second in range(0, 5_001, 50))]
    found = [
        (row["time"] // SECOND, row["value"])
        for frame in frames(steps, READINGS, keys, disorder=5_000, cuts=range(0, 5_000, 300))
        for row in rows(operator.on_frame(frame), operator.schema, keys.names, "ns")
    ]
    assert sorted(found) == sorted((r["time"], r["value"]) for r in stream)
    assert [time for time, _ in found] == sorted(time for time, _ in found)
