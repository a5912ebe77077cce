"""What `filter` promises, beyond the contract that every operator keeps."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings

from operators.filter import Filter
from pipeline.testing import Stream, compact, run, streams

# What the contract tries (tests/test_contract.py).
EXAMPLES: list[dict[str, Any]] = [
    {"where": "value > 0 or door"},
    {"where": 'key in ("a", "c") and not is_missing(mode)'},
    {"where": "value != previous(value) or mode != previous(latest(mode)) or elapsed() > 2"},
]


def test_only_what_is_known_to_hold_passes() -> None:
    """A missing value is unknown, and its opposite is unknown as well."""
    stream = "a1 b9 a- b5 a7"
    assert compact(run(Filter, {"where": "value > 5"}, stream)) == "b9 a7"
    assert compact(run(Filter, {"where": "not (value > 5)"}, stream)) == "a1 b5"
    assert compact(run(Filter, {"where": "is_missing(value)"}, stream)) == "a-"


def test_what_does_not_pass_is_a_previous_reading_all_the_same() -> None:
    """By key, and in the order in which the readings came."""
    assert compact(run(Filter, {"where": "value > previous(value)"}, "a1 b5 a3 a2 b4 a- a9 b6")) == "a3 b6"
    assert compact(run(Filter, {"where": "value > previous(latest(value))"}, "a1 b5 a3 a2 b4 a- a9 b6")) == "a3 a9 b6"
    assert compact(run(Filter, {"where": "elapsed() < 2"}, "a1@0 b1@1 a2@2 b2@2 a3@1")) == "b2 a3"


def test_by_key() -> None:
    assert compact(run(Filter, {"where": "key == 'b'"}, "a1 b2 a3 b4")) == "b2 b4"


@settings(deadline=None)
@given(streams())
def test_the_columns_agree_with_a_plain_loop(stream: Stream) -> None:
    """The oracle: one reading at a time."""
    rows = run(Filter, {"where": "value >= 0"}, stream)
    assert [(r["key"], r["value"]) for r in rows] == [
        (r["key"], r["value"]) for r in stream if isinstance(r, dict) and r["value"] is not None and r["value"] >= 0
    ]
