"""What `pattern` promises, beyond the contract that every operator keeps."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.pattern import Pattern
from pipeline.frame import SECOND, Field, KeyTable, Schema
from pipeline.journal import state
from pipeline.testing import READINGS, Mark, Stream, frames, make, run, streams

# What the contract tries (tests/test_contract.py).
EXAMPLES: list[dict[str, Any]] = [
    {"sequence": [{"when": "value > 0", "as": "a"}, {"when": "value < 0", "as": "b", "within": "3 s"}]},
    {
        "sequence": [{"when": "door", "as": "a"}, {"when": "not door", "without": "mode == 'shut'", "as": "b"}],
        "within": "4 s",
        "fields": {"at": "b.time", "who": "a.key", "mode": "a.mode"},
        "overlap": True,
    },
    {"sequence": [{"when": "value > previous(value)"}, {"without": "value < 0", "within": "2 s"}], "max_open": 2},
    {
        "sequence": [
            {"when": "count > 0", "as": "a"},
            {"without": "count < -2", "within": "1 s"},
            {"when": "count < 0", "as": "c", "within": "4 s"},
        ],
        "fields": {"first": "a.count", "last": "c.count"},
        "overlap": True,
    },
]

AB: list[dict[str, Any]] = [{"when": "value == 1"}, {"when": "value == 2", "within": "10 s"}]


def spans(stream: str, sequence: list[dict[str, Any]] = AB, **more: Any) -> list[tuple[str, float, float]]:
    """Key, start and end of each match."""
    rows = run(Pattern, {"sequence": sequence, "fields": {}, **more}, stream)
    assert all(row["time"] == row["end"] for row in rows)
    return [(row["key"], row["start"] / SECOND, row["end"] / SECOND) for row in rows]


def test_one_then_the_other() -> None:
    """By key; what fits neither is passed over; the limit is inclusive."""
    assert spans("a1@0 b1@1 b7@2 a2@10 b2@12 a2@13 end") == [("a", 0, 10)]
    assert spans("a1@0 b1@1 b7@2 a2@10 b2@11 end") == [("a", 0, 10), ("b", 1, 11)]


def test_without_a_third_between() -> None:
    """It ends the attempt, and only that; a missing value is unknown and ends nothing."""
    sequence = [AB[0], {**AB[1], "without": "value == 3"}]
    assert spans("a1@0 a3@1 a2@2 end", sequence) == []
    assert spans("a3@0 a1@1 a-@2 b3@3 a2@4 a3@5 end", sequence) == [("a", 1, 4)]
    assert spans("a1@0 a3@1 a1@2 a2@3 end", sequence) == [("a", 2, 3)]
    last = [AB[0], {**AB[1], "without": "value > 1"}]
    assert spans("a1@0 a2@1 end", last) == [("a", 0, 1)], "the reading that ends it is not between"


def test_in_the_order_of_their_times() -> None:
    """Whatever came first, as long as it is not late; of one time, the one that came first."""
    assert [r["start"] for r in run(Pattern, {"sequence": AB}, "a2@5 a1@3 end", disorder=5)] == [3 * SECOND]
    assert spans("a2@5 a1@5 end") == []
    assert spans("a1@5 a2@5 end") == [("a", 5, 5)]
    late = run(Pattern, {"sequence": AB}, "a2@5 a1@3 end", output="late")
    assert [row["time"] for row in late] == [3 * SECOND]


def test_the_first_to_end_is_the_match() -> None:
    """Others of its key are given up, unless they may overlap."""
    assert spans("a1@0 a1@2 a2@4 a2@5 end") == [("a", 0, 4)]
    assert spans("a1@0 a1@8 a2@15 end") == [("a", 8, 15)]
    assert spans("a1@0 a1@2 a2@4 a2@5 end", overlap=True) == [("a", 0, 4), ("a", 2, 4)]
    again = [{"when": "value == 1"}, {"when": "value == 1"}]
    assert spans("a1@0 a1@1 a1@2 a1@3 end", again) == [("a", 0, 1), ("a", 2, 3)]
    assert spans("a1@0 a1@1 a1@2 a1@3 end", again, overlap=True) == [("a", 0, 1), ("a", 1, 2), ("a", 2, 3)]


def test_an_absence() -> None:
    """Known when the watermark has passed its end; the end of the input is not the passing of time."""
    sequence = [AB[0], {"without": "value == 2", "within": "10 s"}]
    assert spans("a1@0 tick@10", sequence) == []
    assert spans("a1@0 tick@11", sequence) == [("a", 0, 10)]
    assert spans("a1@0 tick@10 tick@11", sequence) == [("a", 0, 10)]
    assert spans("a1@0 b9@10 b9@12 b9@13", sequence) == [("a", 0, 10)]
    assert spans("b1@0 a1@0 tick@11", sequence) == [("a", 0, 10), ("b", 0, 10)], "together: by key"
    assert spans("a1@0 a2@10 tick@30", sequence) == []
    assert spans("a1@0 a3@5 a2@11 tick@30", sequence) == [("a", 0, 10)]
    assert spans("a1@0 end", sequence) == []
    assert spans("a1@0 b9@11 end", sequence) == [("a", 0, 10)]


def test_the_whole_has_a_limit() -> None:
    sequence = [{"when": "value == 1"}, {"when": "value == 2"}, {"when": "value == 3"}]
    assert spans("a1@0 a2@4 a3@8 end", sequence, within="8 s") == [("a", 0, 8)]
    assert spans("a1@0 a2@4 a3@9 end", sequence, within="8 s") == []


def test_the_fields_of_the_readings() -> None:
    """All, by the names of their steps; or those that are named, with time and key."""
    sequence = [{**AB[0], "as": "on"}, {**AB[1], "as": "off"}]
    (row,) = run(Pattern, {"sequence": sequence}, "a1@3 a2@4 end")
    assert [*row] == ["key", "time", "start", "end", "on_value", "off_value"]
    assert (row["on_value"], row["off_value"]) == (1, 2)
    fields = {"who": "off.key", "at": "on.time", "v": "off.value"}
    (row,) = run(Pattern, {"sequence": sequence, "fields": fields}, "a1@3 a2@4 end")
    assert (row["who"], row["at"], row["v"]) == ("a", 3 * SECOND, 2)


def test_of_too_many_attempts_the_oldest_is_given_up() -> None:
    assert spans("a1@0 a1@1 a1@2 a2@3 end", max_open=2) == [("a", 1, 3)]
    assert spans("a1@0 a1@1 a1@2 a2@3 end", max_open=1, overlap=True) == [("a", 2, 3)]


def test_one_reading_too_many_changes_nothing() -> None:
    """So that the graph can set it aside, and push the others again."""
    keys = KeyTable()
    operator, _ = make(Pattern, {"sequence": AB, "max_waiting": 2}, keys=keys)
    first, second = frames("a1@5 a1@5 a1@5", READINGS, keys, disorder=9, cuts=[2])
    operator.on_frame(first)
    before = state.pack(operator.snapshot())
    with pytest.raises(ValueError, match="too many readings wait"):
        operator.on_frame(second)
    assert state.pack(operator.snapshot()) == before


# --- the oracle -----------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    end: float
    start: float
    key: str
    last: int  # place of the last reading; -1: an absence ended it
    began: int


def attempt(sequence: list[dict[str, Any]], events: list[Any], began: int, known: float) -> Found | None:
    """One attempt, alone: where it ends, if it does. `known`: absences that ended before are."""
    key, start, _ = events[began]
    at, now, last = began + 1, start, began
    for step in sequence[1:]:
        until = now + step["within"]
        while True:
            event = events[at] if at < len(events) else None
            if "is" not in step and (event is None or event[1] > until):
                if not (until < known or event is not None):
                    return None
                now, last = until, -1
                break
            if event is None or event[1] > until:
                return None
            at += 1
            if "is" in step and event[2] == step["is"]:  # a missing value is neither
                now, last = event[1], at - 1
                break
            if "not" in step and event[2] == step["not"]:
                return None
    return Found(now, start, key, last, began)


def naive(sequence: list[dict[str, Any]], stream: Stream, disorder: int, *, overlap: bool) -> list[Any]:
    reached = -99.0
    taken: list[Any] = []
    ended = False
    for item in stream:
        if isinstance(item, Mark):
            ended = item.ended
            reached = max(reached, -99 if item.watermark is None else item.watermark / SECOND)
        else:
            if item["time"] >= reached:
                taken.append((item["key"], item["time"], item["value"]))
            reached = max(reached, item["time"] - disorder)
    taken = sorted((event for event in taken if ended or event[1] <= reached), key=lambda event: event[1])
    found = []
    for key in sorted({event[0] for event in taken}):
        events = [event for event in taken if event[0] == key]
        tries = [attempt(sequence, events, i, reached) for i, e in enumerate(events) if e[2] == sequence[0]["is"]]
        ends = [one for one in tries if one is not None]
        while ends:
            if overlap:
                found += ends
                break
            first = min(ends, key=lambda one: (one.end, one.last < 0, one.start, one.began))
            found.append(first)
            after = (
                [e for e in ends if e.start > first.end]
                if first.last < 0
                else [e for e in ends if e.began > first.last]
            )
            ends = after
    return sorted((one.end, one.key, one.start) for one in found)


step = st.one_of(
    st.fixed_dictionaries({"is": st.integers(0, 3), "within": st.integers(0, 6)}),
    st.fixed_dictionaries({"is": st.integers(0, 3), "not": st.integers(0, 3), "within": st.integers(0, 6)}),
    st.fixed_dictionaries({"not": st.integers(0, 3), "within": st.integers(0, 6)}),
)
sequences = st.tuples(st.fixed_dictionaries({"is": st.integers(0, 3)}), st.lists(step, min_size=1, max_size=3))


def written(step: dict[str, Any]) -> dict[str, Any]:
    """A step of the oracle as it stands in a pipeline file."""
    told = {"when": "is", "without": "not"}
    shown: dict[str, Any] = {name: f"value == {step[of]}" for name, of in told.items() if of in step}
    return {**shown, "within": f"{step['within']} s"} if "within" in step else shown


@settings(deadline=None, max_examples=100)
@given(
    sequences.map(lambda s: [s[0], *s[1]]),
    streams(READINGS, keys="ab", values=st.integers(0, 3).map(float), late=4, max_size=16),
    st.integers(0, 3),
    st.booleans(),
)
def test_the_rows_agree_with_attempts_made_one_by_one(
    sequence: list[dict[str, Any]], stream: Stream, disorder: int, overlap: bool
) -> None:
    example = {"sequence": [written(one) for one in sequence], "overlap": overlap, "max_open": 100}
    rows = run(Pattern, example, stream, disorder=disorder)
    assert sorted((r["end"] / SECOND, r["key"], r["start"] / SECOND) for r in rows) == naive(
        sequence, stream, disorder, overlap=overlap
    )


def test_memory() -> None:
    """What the docstring says, in the bytes of the snapshot."""
    of = Schema("key", {"value": Field("float")})
    example = {"sequence": [{**AB[0], "as": "on"}, {**AB[1], "as": "off"}]}

    def size(n: int, disorder: int) -> int:
        operator, _ = make(Pattern, example, of)
        stream: Stream = [{"key": f"k{i}", "time": 10**18, "value": 1.0} for i in range(n)]
        for frame in frames(stream, of, operator.context.keys, disorder=disorder):
            operator.on_frame(frame)
        return len(state.pack(operator.snapshot()))

    assert (size(1001, 0) - size(1, 0)) / 1000 <= 40 + 2 * 9
    assert (size(1001, 5) - size(1, 5)) / 1000 <= 29 + 2 * 9


@pytest.mark.parametrize(
    ("example", "told"),
    [
        ({"sequence": [AB[0]]}, ("sequence", "a sequence has 2 to 16 steps")),
        ({"sequence": [{}, AB[1]]}, ("sequence.0.when", "the first step needs a reading to begin with")),
        ({"sequence": [AB[1], AB[1]]}, ("sequence.0", '"within" and "without" say what comes after')),
        ({"sequence": [AB[0], {"without": "value == 2"}]}, ("sequence.1", 'a step has "when"; or it is an absence')),
        ({"sequence": [AB[0], {"when": "valeu == 2"}]}, ("sequence.1.when", '"valeu" is not a field')),
        ({"sequence": AB, "fields": {"x": "on.value"}}, ("fields.x", 'there is no step "on"; name a step by "as"')),
        (
            {"sequence": [{**AB[0], "as": "on"}, AB[1]], "fields": {"x": "on.valu"}},
            ("fields.x", '"valu" is not a field of the input (did you mean "value"?)'),
        ),
        (
            {"sequence": [{**AB[0], "as": "on"}, AB[1]], "fields": {"end": "on.value"}},
            ("fields.end", '"end" cannot be the name of a field; choose another'),
        ),
    ],
)
def test_wrong_settings_are_told(example: dict[str, Any], told: tuple[str, str]) -> None:
    _, problems = make(Pattern, example)
    assert any(setting == told[0] and text.startswith(told[1]) for setting, text in problems), problems


def test_nothing_is_due_before_it_is() -> None:
    """An absence makes a tick due just after its end; what expires silently does not."""
    operator, _ = make(Pattern, {"sequence": [AB[0], {"without": "value == 2", "within": "10 s"}]})
    (frame,) = frames("a1@5", READINGS, operator.context.keys)
    operator.on_frame(frame)
    assert operator.due() == 15 * SECOND + 1
    operator, _ = make(Pattern, {"sequence": AB}, keys=operator.context.keys)
    operator.on_frame(frame)
    assert operator.due() is None
