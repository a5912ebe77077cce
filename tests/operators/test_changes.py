"""What `changes` promises, beyond the contract that every operator keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.changes import Changes
from pipeline.frame import SECOND, Field, KeyTable, Schema, rows
from pipeline.journal.state import pack
from pipeline.testing import Stream, compact, frames, make, run, streams

# What the contract tries (tests/test_contract.py).
EXAMPLES: list[dict[str, Any]] = [
    {},
    {"fields": ["door", "mode"]},
    {"deadband": {"value": 1, "count": "50 %"}, "fields": ["door"]},
    {"fields": ["mode"], "at_least_every": "3 s"},
]


def passed(how: dict[str, Any], stream: str) -> str:
    return compact(run(Changes, how, stream))


def test_two_keys_in_turns() -> None:
    """Each door passes when it moves, however often the other one speaks; a lost value is news once."""
    assert passed({}, "a1 b1 a1 b0 a0 b0 a- a- b0 a0") == "a1 b1 b0 a0 a- a0"


def test_only_the_fields_named_are_compared() -> None:
    schema = Schema("key", {"value": Field("float"), "mode": Field("string")})
    stream: Stream = [{"key": "a", "time": t, "value": t, "mode": m} for t, m in enumerate(["on", "on", "off", "off"])]
    assert [r["value"] for r in run(Changes, {"fields": ["mode"]}, stream, schema=schema)] == [0, 2]


def test_a_deadband_is_around_what_passed_last() -> None:
    """So a slow drift gets through. A difference of just the deadband is not more than it."""
    assert (
        passed({"deadband": {"value": 0.5}}, "a20 a20.3 a20.5 a20.6 a20.9 a21.1 a21.2 a20.7 a20.6")
        == "a20 a20.6 a21.2 a20.6"
    )


def test_a_share_is_one_of_what_passed_last() -> None:
    assert (
        passed({"deadband": {"value": "10 %"}}, "a100 a110 a111 a100 a99 a-1 a-1.1 a-1.2") == "a100 a111 a99 a-1 a-1.2"
    )
    assert passed({"deadband": {"value": "10 %"}}, "a0 a0 a0.001 a0") == "a0 a0.001 a0"


def test_to_become_missing_and_to_come_back_is_news() -> None:
    assert passed({"deadband": {"value": 5}}, "a1 a- a- a2 a3 a-") == "a1 a- a2 a-"


def test_at_least_every() -> None:
    """By event time, from the last that passed; a late reading is not long after it."""
    stream = "a1@0 a1@4 a1@10 a1@9 a1@19.9 a1@20 a2@22 a1@3 a1@12 a1@13"
    assert passed({"at_least_every": "10 s"}, stream) == "a1 a1 a1 a2 a1 a1"
    assert (
        passed({"deadband": {"value": 5}, "at_least_every": "10 s"}, "a1@0 a2@5 a3@10 a4@15 a9@16 a9@26")
        == "a1 a3 a9 a9"
    )


def test_whole_numbers_are_compared_as_such() -> None:
    """Beyond what floats tell apart, and up to the last of 64 bits."""
    schema = Schema("key", {"n": Field("int")})

    def kept(band: float | str, *values: int) -> list[int]:
        stream: Stream = [{"key": "a", "time": i, "n": n} for i, n in enumerate(values)]
        return [r["n"] for r in run(Changes, {"deadband": {"n": band}}, stream, schema=schema)]

    far = 2**53
    assert kept(0.5, far, far + 1, far + 1) == [far, far + 1]
    assert kept(1.5, 10, 11, 12) == [10, 12]
    assert kept(5, 2**63 - 1, 2**63 - 6, 2**63 - 7) == [2**63 - 1, 2**63 - 7]
    assert kept(5, -(2**63), -(2**63) + 5, -(2**63) + 6) == [-(2**63), -(2**63) + 6]
    assert kept("50 %", -(2**63), 2**63 - 1, 2**62) == [-(2**63), 2**63 - 1]
    assert kept(1e300, -(2**63), 2**63 - 1) == [-(2**63), 2**63 - 1]


def test_nan_and_infinity_are_values() -> None:
    """To become NaN is a change, to stay so is none; nothing finite is near to infinity."""
    schema = Schema("key", {"v": Field("float", nan=True)})

    def kept(how: dict[str, Any], *values: float) -> list[str]:
        stream: Stream = [{"key": "a", "time": i, "v": v} for i, v in enumerate(values)]
        return [str(r["v"]) for r in run(Changes, how, stream, schema=schema)]

    for how in ({}, {"deadband": {"v": 1}}, {"deadband": {"v": "1 %"}}):
        assert kept(how, 1, math.nan, math.nan, 1, math.inf, math.inf, -math.inf, 5) == [
            "1.0",
            "nan",
            "1.0",
            "inf",
            "-inf",
            "5.0",
        ]


def test_mistakes_are_named() -> None:
    schema = Schema("key", {"value": Field("float"), "door": Field("bool")})
    found = make(
        Changes,
        {
            "fields": ["dor"],
            "deadband": {"valeu": 1, "value": -1, "door": 1},
            "at_least_every": "0 s",
        },
        schema,
    )[1]
    assert [setting for setting, _ in found] == [
        "fields",
        "deadband.valeu",
        "deadband.value",
        "deadband.door",
        "at_least_every",
    ]
    assert 'did you mean "door"' in found[0][1]
    ((_, text),) = make(Changes, {"deadband": {"value": "2"}}, schema)[1]
    assert '"2 %"' in text


def test_what_a_key_costs_is_what_is_said() -> None:
    """9 bytes, and 8 for each field that is compared, 9 if it may be missing."""
    schema = Schema("key", {"a": Field("float"), "b": Field("int", optional=True), "c": Field("float")})

    def size(keys: int) -> int:
        operator, _ = make(Changes, {"fields": ["a", "b"]}, schema)
        stream: Stream = [{"key": f"k{i}", "time": 0, "a": 1.0, "b": 1, "c": 2.0} for i in range(keys)]
        for frame in frames(stream, schema, operator.context.keys):
            operator.on_frame(frame)
        return len(pack(operator.snapshot()))

    assert size(2_000) - size(1_000) == pytest.approx(1_000 * (9 + 8 + 9), abs=20)


# --- against a loop ---

READINGS = Schema(
    "key", {"value": Field("float", optional=True), "count": Field("int"), "door": Field("bool", optional=True)}
)


def told(stream: Stream, how: dict[str, Any]) -> list[dict[str, Any]]:
    """The oracle: one reading at a time, a dictionary, no numpy."""
    last: dict[str, dict[str, Any]] = {}
    out = []
    bands = how["deadband"]
    for reading in stream:
        if not isinstance(reading, dict):
            continue
        before = last.get(reading["key"])
        new = before is None
        for name in (*bands, "door"):
            if before is None:
                break
            a, b = before[name], reading[name]
            if a is None or b is None or name == "door":
                new |= a != b
            else:
                step = bands[name] if not isinstance(bands[name], str) else abs(a) * float(bands[name].split()[0]) / 100
                new |= b > a + step or b < a - step
        if before and "at_least_every" in how:
            new |= reading["time"] >= before["time"] + int(how["at_least_every"].split()[0])
        if new:
            last[reading["key"]] = reading
            out.append(reading)
    return out


@settings(max_examples=200, deadline=None)
@given(
    streams(READINGS, max_size=60),
    st.fixed_dictionaries(
        {
            "fields": st.just(["door"]),
            "deadband": st.fixed_dictionaries(
                {"value": st.sampled_from([0, 0.5, 1, 3, "25 %"]), "count": st.sampled_from([0, 1, 2.5, "50 %"])}
            ),
        },
        optional={"at_least_every": st.sampled_from(["1 s", "4 s", "9 s"])},
    ),
    st.lists(st.integers(1, 60), max_size=3),
)
def test_the_columns_agree_with_a_plain_loop(stream: Stream, how: dict[str, Any], cuts: list[int]) -> None:
    keys = KeyTable()
    operator, _ = make(Changes, how, READINGS, keys=keys)
    found = [
        {**row, "time": row["time"] // SECOND}
        for frame in frames(stream, READINGS, keys, cuts=cuts)
        for row in rows(operator.on_frame(frame), READINGS, keys.names, "ns")
    ]
    assert found == told(stream, how)
