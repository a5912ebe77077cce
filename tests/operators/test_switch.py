"""What `switch` promises, beyond the contract that every operator keeps."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.switch import Switch
from pipeline.frame import KeyTable, rows
from pipeline.testing import READINGS, Stream, compact, frames, make, run, streams

# What the contract tries (tests/test_contract.py).
EXAMPLES: list[dict[str, Any]] = [
    {"cases": {"high": "value > 1", "open": "door", "text": 'mode == "open"'}},
    {"cases": {"high": "value > 0", "low": "value < 2"}, "take": "all"},
]

HEAT = {"cases": {"hot": "value > 30", "warm": "value > 20", "cold": "value < 5"}}


def outputs(settings: dict[str, Any], stream: Any) -> dict[str | None, str]:
    names = [None, *settings["cases"], "other"]
    return {name: compact(run(Switch, settings, stream, output=name)) for name in names}


def test_a_reading_goes_to_the_first_case_that_holds() -> None:
    """Unknown is not enough; the node itself gives what any case took."""
    assert outputs(HEAT, "a35 b21 a10 b4 a- b31") == {
        "hot": "a35 b31",
        "warm": "b21",
        "cold": "b4",
        "other": "a10 a-",
        None: "a35 b21 b4 b31",
    }


def test_or_to_all_that_hold() -> None:
    assert outputs({**HEAT, "take": "all"}, "a35 a21 a10") == {
        "hot": "a35",
        "warm": "a35 a21",
        "cold": "",
        "other": "a10",
        None: "a35 a21",
    }


def test_wrong_cases_are_told_all_at_once() -> None:
    _, found = make(Switch, {"cases": {"other": "value > 1", "a b": "value", "c": "valeu > 1"}})
    assert [setting for setting, _ in found] == ["cases.other", "cases.a b", "cases.a b", "cases.c"]
    assert 'did you mean "value"' in found[-1][1]
    assert make(Switch, {"cases": {}})[1][0][0] == "cases"


CASES = {"high": lambda v: v > 1, "positive": lambda v: v > 0, "low": lambda v: v < -1}
TEXTS = {"high": "value > 1", "positive": "value > 0", "low": "value < -1"}


@settings(deadline=None)
@given(streams(), st.booleans())
def test_the_columns_agree_with_a_plain_loop(stream: Stream, first: bool) -> None:
    """The oracle: one reading at a time, Python's own comparisons."""
    want: dict[str | None, list[Any]] = {None: [], **{name: [] for name in CASES}, "other": []}
    for reading in stream:
        if not isinstance(reading, dict):
            continue
        value = reading["value"]
        held = [name for name, holds in CASES.items() if value is not None and holds(value)]
        for name in held[:1] if first else held:
            want[name].append(reading)
        want[None if held else "other"].append(reading)
    keys = KeyTable()
    operator, _ = make(Switch, {"cases": TEXTS, "take": "first" if first else "all"}, keys=keys)
    came = [operator.on_frame(frame) for frame in frames(stream, READINGS, keys)]
    for output, readings in want.items():
        found = came if output is None else operator.context.emitted[output]
        assert compact(row for frame in found for row in rows(frame, READINGS, keys.names)) == compact(readings)
