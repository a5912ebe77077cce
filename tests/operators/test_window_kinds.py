"""What hopping, sliding, session and count windows promise, and early rows; each kind against a loop."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.window import Window
from pipeline.frame import SECOND
from pipeline.journal.state import pack
from pipeline.testing import READINGS, Stream, frames, make, run
from tests.operators.windows import Count, Hopping, Session, Sliding, agree, cut_streams

SUM = {"aggregate": {"n": "count()", "total": "sum(value)"}}
lateness = st.sampled_from([0, 3, 9])
moderate = settings(max_examples=120, deadline=None)


def short(table: dict[str, Any], readings: str, **more: Any) -> list[tuple[Any, ...]]:
    """(key, start, end, revision, n, total), times in seconds"""
    rows = run(Window, {**SUM, **table}, readings, **more)
    return [(r["key"], r["start"] / SECOND, r["end"] / SECOND, r["revision"], r["n"], r["total"]) for r in rows]


def late(table: dict[str, Any], readings: str) -> list[float]:
    return [r["value"] for r in run(Window, {**SUM, **table}, readings, output="late")]


# --- hopping ---

HOPPING = {"window": "hopping", "size": "10 s", "every": "5 s"}


def test_a_reading_is_in_every_hopping_window_that_holds_its_time() -> None:
    found = [("a", 0, 10, 0, 1, 1.0), ("a", 5, 15, 0, 2, 3.0), ("a", 10, 20, 0, 1, 2.0)]
    assert short(HOPPING, "a1@7 a2@12 end") == found


def test_hopping_windows_may_leave_out_some_of_the_time() -> None:
    """A reading between two windows is in none; it is not late."""
    table = {**HOPPING, "size": "2 s"}
    assert short(table, "a1@1 a2@3 a4@5 end") == [("a", 0, 2, 0, 1, 1.0), ("a", 5, 7, 0, 1, 4.0)]
    assert late(table, "a1@1 a2@3 a4@12 a8@3") == []


def test_a_reading_that_one_of_its_hopping_windows_takes_is_not_late() -> None:
    """The window that has closed goes without it, or within lateness gives a corrected row."""
    stream = "a1@6 a2@11 a4@7 a8@16 a16@9"
    assert short(HOPPING, stream) == [("a", 0, 10, 0, 1, 1.0), ("a", 5, 15, 0, 3, 7.0)]
    assert late(HOPPING, stream) == [16.0]
    assert short({**HOPPING, "lateness": "3 s"}, stream) == [
        *(("a", 0, 10, 0, 1, 1.0), ("a", 0, 10, 1, 2, 5.0)),
        *(("a", 5, 15, 0, 3, 7.0), ("a", 5, 15, 1, 4, 23.0)),
    ]


@moderate
@given(cut_streams, lateness, st.sampled_from([(4, 2), (5, 2), (3, 1), (2, 3), (4, 4)]))
def test_hopping_agrees_with_a_loop(made: Any, lateness: int, shape: tuple[int, int]) -> None:
    stream, cuts, restart, disorder = made
    size, every = shape
    oracle = Hopping(disorder * SECOND, size * SECOND, every * SECOND, lateness * SECOND)
    table = {"window": "hopping", "size": f"{size} s", "every": f"{every} s", "lateness": f"{lateness} s"}
    agree(oracle, table, stream, cuts, restart=restart)


# --- session ---

SESSION = {"window": "session", "gap": "10 s"}


def test_a_session_ends_a_gap_after_its_last_reading() -> None:
    """A reading at its very end belongs to the next."""
    assert short(SESSION, "a1@0 a2@9 a4@19 tick@29") == [("a", 0, 19, 0, 2, 3.0), ("a", 19, 29, 0, 1, 4.0)]


def test_a_reading_out_of_order_makes_one_session_of_two() -> None:
    found = [("a", 0, 25, 0, 3, 7.0), ("a", 40, 50, 0, 1, 8.0)]
    assert short(SESSION, "a1@0 a2@15 a4@8 a8@40 end", disorder=10) == found


def test_a_late_reading_may_join_a_session_that_is_open() -> None:
    """Alone it would be late; next to a reading of an open session it is not."""
    assert short(SESSION, "a1@5 a2@14 b0@16 a4@6 end") == [("a", 5, 24, 0, 3, 7.0), ("b", 16, 26, 0, 1, 0.0)]
    assert late(SESSION, "a1@5 b0@26 a4@6 a8@17 end") == [4.0]


def test_a_session_of_its_own_is_late_once_the_watermark_is_at_its_end() -> None:
    """And with lateness, once it is that much further; in a Frame of its own or among others."""
    assert late(SESSION, "a1@20 b2@10 c4@11") == [2.0]
    table = {**SESSION, "lateness": "5 s"}
    assert late(table, "a1@20 b2@5 c4@6") == [2.0]
    assert short(table, "a1@20 b2@5 c4@6") == [("c", 6, 16, 0, 1, 4.0)]


def test_within_lateness_a_session_is_corrected_also_where_it_grows() -> None:
    table = {**SESSION, "lateness": "20 s"}
    assert short(table, "a1@0 b0@12 a2@3 tick@13 a4@12 end") == [
        *(("a", 0, 10, 0, 1, 1.0), ("a", 0, 13, 0 + 1, 2, 3.0)),
        *(("a", 0, 22, 2, 3, 7.0), ("b", 12, 22, 0, 1, 0.0)),
    ]


def test_two_sessions_that_have_left_become_one() -> None:
    """Its revision is above both of theirs."""
    table = {**SESSION, "lateness": "1 min"}
    stream = "a1@0 a2@16 b0@30 a4@1 a8@9"
    assert short(table, stream)[-1] == ("a", 0, 26, 2, 4, 15.0)


@moderate
@given(cut_streams, lateness)
def test_sessions_agree_with_a_loop(made: Any, lateness: int) -> None:
    stream, cuts, restart, disorder = made
    oracle = Session(disorder * SECOND, 3 * SECOND, lateness * SECOND)
    table = {"window": "session", "gap": "3 s", "lateness": f"{lateness} s"}
    agree(oracle, table, stream, cuts, restart=restart)


# --- count ---


def test_a_count_window_takes_readings_as_they_come() -> None:
    """Of each key by itself; late ones, too; what is not full at the end gives no row."""
    found = [("a", 0, 3, 0, 3, 6.0), ("b", 1, 9, 0, 3, 70.0)]
    assert short({"window": "count", "size": 3}, "a1@0 b10@1 a2@2 a3@3 b20@9 a4@10 b40@5 end") == found
    _, problems = make(Window, {**SUM, "window": "count", "size": 3})
    assert not problems


@moderate
@given(cut_streams, st.integers(1, 5))
def test_count_agrees_with_a_loop(made: Any, size: int) -> None:
    stream, cuts, restart, disorder = made
    agree(Count(disorder * SECOND, size), {"window": "count", "size": size}, stream, cuts, restart=restart)


# --- sliding ---

SLIDING = {"window": "sliding", "size": "10 s"}


def test_a_sliding_window_ends_with_each_reading() -> None:
    """Its beginning is not in it, its end is."""
    found = [("a", -10, 0, 0, 1, 1.0), ("a", 0, 10, 0, 1, 2.0), ("a", 5, 15, 0, 2, 6.0)]
    assert short(SLIDING, "a1@0 a2@10 a4@15") == found


def test_a_sliding_window_leaves_when_the_watermark_reaches_its_reading() -> None:
    """With all that has come by then; readings of the same time are in each other's."""
    assert short(SLIDING, "a1@5 a2@3 b4@5 tick@5", disorder=2) == [
        ("a", -7, 3, 0, 1, 2.0),
        *(("a", -5, 5, 0, 2, 3.0), ("b", -5, 5, 0, 1, 4.0)),
    ]


def test_a_late_reading_corrects_the_sliding_windows_that_hold_it() -> None:
    stream = "a1@0 a2@8 a4@5 a8@12"
    assert [row[4] for row in short(SLIDING, stream)] == [1, 2, 2]
    assert late(SLIDING, stream) == [4.0]
    assert short({**SLIDING, "lateness": "5 s"}, stream) == [
        *(("a", -10, 0, 0, 1, 1.0), ("a", -2, 8, 0, 2, 3.0)),
        *(("a", -5, 5, 0, 2, 5.0), ("a", -2, 8, 1, 3, 7.0)),
        ("a", 2, 12, 0, 3, 14.0),
    ]


@moderate
@given(cut_streams, lateness)
def test_sliding_agrees_with_a_loop(made: Any, lateness: int) -> None:
    stream, cuts, restart, disorder = made
    oracle = Sliding(disorder * SECOND, 4 * SECOND, lateness * SECOND)
    table = {"window": "sliding", "size": "4 s", "lateness": f"{lateness} s"}
    agree(oracle, table, stream, cuts, restart=restart)


# --- early rows ---


def test_with_changes_each_reading_shows_its_window() -> None:
    found = [("a", 0, 10, 0, 1, 1.0), ("a", 0, 10, 1, 2, 3.0), ("a", 10, 20, 0, 1, 4.0)]
    assert short({"size": "10 s", "emit": "changes"}, "a1@1 a2@2 a4@12 tick@30 end") == found


def test_early_rows_leave_when_the_watermark_passes_a_multiple() -> None:
    """Of windows with news only: a row at the close repeats none."""
    table = {"size": "10 s", "emit": {"every": "3 s"}}
    assert short(table, "a1@1 a2@2 a4@3 b8@8 tick@9 tick@12 a1@13 end") == [
        ("a", 0, 10, 0, 3, 7.0),
        ("b", 0, 10, 0, 1, 8.0),
        ("a", 10, 20, 0, 1, 1.0),
    ]


@moderate
@given(cut_streams, lateness, st.sampled_from(["changes", 3]), st.booleans())
def test_early_rows_agree_with_a_loop(made: Any, lateness: int, emit: Any, sessions: bool) -> None:
    stream, cuts, restart, disorder = made
    how = emit if emit == "changes" else emit * SECOND
    table = {"lateness": f"{lateness} s", "emit": emit if emit == "changes" else {"every": f"{emit} s"}}
    oracle: Hopping | Session
    if sessions:
        oracle = Session(disorder * SECOND, 3 * SECOND, lateness * SECOND, how)
        table |= {"window": "session", "gap": "3 s"}
    else:
        oracle = Hopping(disorder * SECOND, 5 * SECOND, 2 * SECOND, lateness * SECOND, how)
        table |= {"window": "hopping", "size": "5 s", "every": "2 s"}
    agree(oracle, table, stream, cuts, restart=restart)


# --- memory ---


@pytest.mark.parametrize(
    ("table", "most"),
    [
        ({"size": "1 h"}, 90),
        ({"window": "hopping", "size": "1 h", "every": "30 min"}, 2 * 90),
        ({"window": "session", "gap": "1 h"}, 120),
        ({"window": "count", "size": 10**6}, 100),
        ({"window": "sliding", "size": "1 h"}, 50 * 50),
        ({"size": "1 h", "aggregate": {"m": "median(value)", "d": "distinct(value)"}}, 90 + 50 * 2 * 34),
        ({"size": "1 h", "aggregate": {"r": "rate(value)"}}, 90 + 50 * 25),
    ],
)
def test_the_state_of_a_key_is_as_large_as_is_said(table: dict[str, Any], most: int) -> None:
    """Of 200 keys with 50 readings each, all of different values: by windows, unless an aggregate needs the readings."""
    table = {"aggregate": {"n": "count()", "m": "mean(value)", "v": "variance(value)"}, **table}
    operator, _ = make(Window, table)
    schema, keys = READINGS, operator.context.keys
    stream: Stream = [{"key": f"k{i % 200}", "time": 3600 + i // 10, "value": float(i)} for i in range(10_000)]
    for frame in frames(stream, schema, keys, cuts=range(0, 10_000, 500)):
        operator.on_frame(frame)
    size = len(pack(operator.snapshot())) / 200
    assert most * 0.6 < size <= most + 10


# --- settings ---


@pytest.mark.parametrize(
    ("table", "setting", "said"),
    [
        ({"window": "hopping", "size": "10 s"}, "every", 'the setting "every" is missing'),
        ({"window": "hopping", "size": "10 s", "every": "1 ms"}, "every", "more than 1,000 windows"),
        ({"window": "session", "gap": "1 s", "size": "10 s"}, "size", "a session is as long as its readings go on"),
        ({"window": "session"}, "gap", 'the setting "gap" is missing'),
        ({"window": "count", "size": "10 s"}, "size", "a whole number of readings"),
        ({"window": "count", "size": 0}, "size", "a whole number of readings"),
        ({"window": "count", "size": 5, "lateness": "1 s"}, "lateness", "none is late"),
        ({"window": "sliding", "size": "10 s", "emit": "changes"}, "emit", "a row for each reading anyway"),
        ({"size": 10}, "size", 'as in size = "10 s"'),
        ({"size": "10 parsecs"}, "size", "is not a duration"),
        ({}, "size", 'the setting "size" is missing'),
        ({"size": "10 s", "gap": "1 s"}, "gap", 'window = "session"'),
        ({"size": "10 s", "emit": {"every": "0 s"}}, "emit.every", "longer than nothing"),
        ({"window": "hopping", "size": "1 day", "every": "1 h"}, "size", 'say "24 h"'),
        ({"size": "10 s", "timezone": "Europe/Berlin"}, "timezone", "days, weeks and months only"),
        ({"size": "1 day", "timezone": "Europe/Berln"}, "timezone", '(did you mean "Europe/Berlin"?)'),
    ],
)
def test_what_does_not_fit_a_kind_is_said_with_the_way_out(table: dict[str, Any], setting: str, said: str) -> None:
    _, problems = make(Window, {**SUM, **table})
    assert [s for s, _ in problems] == [setting]
    assert said in problems[0][1]
