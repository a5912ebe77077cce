"""What an alert says of a key when it is asked why: it is true, and asking changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.alert import Alert
from pipeline.frame import NO_PROGRESS, Frame, KeyTable, concatenate, empty
from pipeline.journal.state import pack
from pipeline.syntax import clauses
from pipeline.testing import READINGS, frames, make

TIMED: list[dict[str, Any]] = [
    {"when": "value > 1", "for": "2 s", "keep": "1 s", "repeat": "2 s"},
    {"when": "value > previous(value)", "clear": "latest(value) < 0", "flapping": {"changes": 1, "within": "5 s"}},
    {"when": "value_rate > 1", "rate": {"field": "value"}, "silent_for": "3 s", "expect": ["a", "x"]},
    {"levels": {"low": {"when": "value > 0"}, "high": {"when": "not value < 2", "for": "1 s"}}},
    {"when": "value > 1", "group": {"by": [], "within": "1 s"}},
    {"silent_for": "2 s"},
]
VALUES = st.sampled_from(["-", "-1", "0", "1", "2", "3"])
STREAMS = st.lists(st.tuples(st.sampled_from("ab"), VALUES), min_size=1, max_size=12)


class Asked:
    """An alert that has taken some readings."""

    def __init__(self, table: dict[str, Any], readings: str) -> None:
        self.keys = KeyTable()
        operator, problems = make(Alert, table, name="hot", keys=self.keys)
        assert (problems, isinstance(operator, Alert)) == ([], True)
        self.operator: Any = operator
        self.came = frames(readings, READINGS, self.keys)
        self.rows = []
        for frame in self.came:
            for state in operator.context.states.values():
                state.grow(len(self.keys))
            self.rows.append(operator.on_frame(frame))
            operator.context.settle(done=True)

    def why(self, key: str = "a") -> dict[str, Any]:
        code = self.keys[key]
        own = [frame.where(frame.key == code).with_progress(NO_PROGRESS) for frame in self.came]
        told: dict[str, Any] = self.operator.explain(code, concatenate(own))
        return told

    def state(self, key: str) -> str:
        """As its last row has it."""
        states = [
            state
            for frame in self.rows
            for code, state in zip(frame.key.tolist(), frame["state"].tolist(), strict=True)
            if code == self.keys[key]
        ]
        return states[-1] if states else "cleared"


@pytest.mark.parametrize("table", TIMED)
@settings(max_examples=15)
@given(stream=STREAMS)
def test_asking_changes_nothing(table: dict[str, Any], stream: list[tuple[str, str]]) -> None:
    """And what fires is what the last row said."""
    asked = Asked(table, " ".join(map("".join, stream)))
    before = pack(asked.operator.snapshot())
    for key in dict.fromkeys(key for key, _ in stream):
        told = asked.why(key)
        assert told == asked.why(key)
        if "group" not in table:
            assert told["firing"] == (asked.state(key) == "firing")
    assert pack(asked.operator.snapshot()) == before


@settings(max_examples=60)
@given(stream=STREAMS)
def test_each_part_is_what_a_loop_makes_of_it(stream: list[tuple[str, str]]) -> None:
    asked = Asked({"when": "value > 1 or value - previous(value) >= 2"}, " ".join(map("".join, stream)))
    own = [None if text == "-" else float(text) for key, text in stream if key == stream[-1][0]]
    last, before = own[-1], own[-2] if len(own) > 1 else None
    first, second = asked.why(stream[-1][0])["levels"][0]["when"]["parts"]
    assert first["is"] == (None if last is None else last > 1)
    rise = None if last is None or before is None else last - before
    assert second["is"] == (None if rise is None else rise >= 2)
    if last is not None:
        assert first["distance"] == abs(last - 1)


def test_a_rate_is_that_of_the_readings_that_are_shown() -> None:
    """Though the alert itself has seen them already."""
    (part,) = Asked({"when": "value_rate > 5", "rate": {"field": "value"}}, "a1 a3 b9").why()["levels"][0]["when"][
        "parts"
    ]
    assert (part["is"], part["left"], part["distance"]) == (False, 2.0, 3.0)


def test_what_it_waits_for() -> None:
    told = Asked({"when": "value > 30", "for": "10 s"}, "a31@5 a32@8").why()
    assert told["because"] == (
        "its condition holds since 1970-01-01T00:00:05.000Z; if it goes on, it fires at 1970-01-01T00:00:15.000Z"
    )
    assert told["levels"][0]["state"] == "waits"
    told = Asked({"when": "value > 30", "keep": "10 s"}, "a31@5 a1@8").why()
    assert (told["levels"][0]["state"], told["levels"][0]["until"]) == ("ending", "1970-01-01T00:00:15.000Z")
    assert told["firing"]


def test_what_holds_it_back() -> None:
    told = Asked({"when": "value > 30", "flapping": {"changes": 2, "within": "1 h"}}, "a31 a1 a31").why()
    assert told["because"] == "its condition holds, but `flapping` holds the row back"
    assert told["flapping"] == {"changes": 2, "within": "1 h"}


def test_of_silence() -> None:
    told = Asked({"silent_for": "10 s"}, "a31@5 b1@8").why()
    assert told["silence"] == {
        "silent_for": "10 s",
        "state": "waits",
        "since": "1970-01-01T00:00:05.000Z",
        "until": "1970-01-01T00:00:15.000Z",
        "heard": "1970-01-01T00:00:05.000Z",
    }
    assert told["because"] == "it fires when the key is silent, and the key is not"
    assert Asked({"silent_for": "10 s"}, "a31@5 tick@20").why()["firing"]


def test_without_a_reading_nothing_is_claimed() -> None:
    asked = Asked({"when": "value > 30"}, "a1")
    nothing: Frame = empty(READINGS, NO_PROGRESS)
    told = asked.operator.explain(0, nothing)
    assert told["levels"][0]["when"]["is"] is None
    assert told["because"] == "no reading of this key is recorded, so it cannot be said what the condition gave"


def test_the_parts_of_a_condition() -> None:
    found = clauses('a > 1 and (b == "x" or not (1 < c < 2 and d)) and\n not e in (1, 2)')
    assert [tuple(clause) for clause in found] == [
        ("a > 1", ("a", "1"), True),
        ("b == 'x'", ("b", "'x'"), True),
        ("1 < c < 2", None, False),
        ("d", None, False),
        ("e in (1, 2)", None, False),
    ]
