"""What `alert` promises, beyond the contract that test_contract.py puts to every operator."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.alert import Alert
from pipeline.frame import NEVER, SECOND, Field, Frame, KeyTable, Progress, Schema, column
from pipeline.testing import READINGS, Mark, Stream, frames, make, run, streams

# What the contract tries (tests/test_contract.py).
EXAMPLES: list[dict[str, Any]] = [
    {"when": "value > 1", "clear": "value < 0"},
    {"when": "door and count > 0", "for": "2 s", "message": "{mode}: {value:.2f} at {time}"},
    {"levels": {"low": {"when": "value > 0"}, "high": {"when": "value > 2", "clear": "value < 1", "for": "3 s"}}},
]

Row = dict[str, Any]


def rows(table: dict[str, Any], readings: str | Stream, *names: str, **more: Any) -> list[tuple[Any, ...]]:
    """Some fields of what comes out; times in seconds."""
    found = run(Alert, table, readings, name="hot", **more)
    return [tuple(_seconds(row[name]) if name in ("time", "since") else row[name] for name in names) for row in found]


def _seconds(time: int) -> float:
    return time / SECOND


# --- hysteresis -----------------------------------------------------------------------------------------------------


def test_between_the_thresholds_nothing_changes() -> None:
    """It fires above 30, is over below 28, and a row says when it began."""
    found = rows({"when": "value > 30", "clear": "value < 28"}, "a29 a31 a29 a32 a27.9 a31", "time", "state", "since")
    assert found == [(1, "firing", 1), (4, "cleared", 1), (5, "firing", 5)]


def test_without_clear_it_is_over_when_the_condition_is_false() -> None:
    found = rows({"when": "value > 30"}, "a31 a30 a31 a- a30", "time", "state")
    assert found == [(0, "firing"), (1, "cleared"), (2, "firing"), (4, "cleared")]


def test_where_both_hold_when_wins() -> None:
    """Even while it fires: a reading for which both hold clears nothing."""
    both = {"when": "value > 30", "clear": "value > 20"}
    assert rows(both, "a31 a32 a21 a32", "time", "state") == [(0, "firing"), (2, "cleared"), (3, "firing")]
    assert rows(both | {"for": "1 s"}, "a31 a31 a32 a21", "time", "state") == [(1, "firing"), (3, "cleared")]


def test_unknown_neither_raises_nor_clears() -> None:
    """A missing value is no answer; `clear` may still be known where `when` is not."""
    assert rows({"when": "value > 30"}, "a- a31 a- a-", "time", "state") == [(1, "firing")]
    settings = {"when": "value > 30", "clear": "is_missing(value)"}
    assert rows(settings, "a31 a- a1", "time", "state", "value") == [(0, "firing", 31), (1, "cleared", None)]


def test_keys_have_nothing_to_do_with_each_other() -> None:
    found = rows({"when": "value > 30"}, "a31 b1 b31 a31 a1 b31", "key", "time", "state")
    assert found == [("a", 0, "firing"), ("b", 2, "firing"), ("a", 4, "cleared")]


def test_readings_are_taken_in_order_of_arrival() -> None:
    """The reading dated 5 s comes after the one of 10 s, and is the news."""
    found = rows({"when": "value > 30"}, "a31@10 a1@5", "time", "state", "since")
    assert found == [(10, "firing", 10), (5, "cleared", 10)]


def test_a_row_whole() -> None:
    """All that stands in a row: of a cleared one `level` is missing, and `previous` says what is over."""
    settings = {"when": "value > 30", "level": "bad", "message": "{key} is at {value:.1f} °C ({state})"}
    assert run(Alert, settings, "a31 a1", name="hot") == [
        {
            "key": "a",
            "time": 0,
            "state": "firing",
            "level": "bad",
            "previous": None,
            "since": 0,
            "value": 31.0,
            "message": "a is at 31.0 °C (firing)",
            "alert": "hot",
        },
        {
            "key": "a",
            "time": SECOND,
            "state": "cleared",
            "level": None,
            "previous": "bad",
            "since": 0,
            "value": 1.0,
            "message": "a is at 1.0 °C (cleared)",
            "alert": "hot",
        },
    ]


def test_a_row_shows_the_fields_that_the_conditions_use() -> None:
    """Of the kinds that they have; a field that only the message names is in the message."""
    fields = {"t": Field("float"), "n": Field("int", optional=True), "s": Field("string"), "state": Field("bool")}
    schema = Schema("id", fields)
    operator, problems = make(Alert, {"when": "t > 1 and state", "clear": "n == 0", "message": "{s}"}, schema)
    assert not problems
    shown = {"t": Field("float", optional=True), "n": Field("int", optional=True)}
    own = ["state", "level", "previous", "since"]
    assert list(operator.schema.fields) == [*own, "t", "n", "message", "alert"]
    assert shown.items() <= operator.schema.fields.items()
    assert (operator.schema.key, operator.schema.role) == ("id", "alerts")


def test_a_stream_without_a_key_has_one_state() -> None:
    schema = Schema(None, {"value": Field("float")})
    found = run(
        Alert, {"when": "value > 1"}, [{"time": t, "value": v} for t, v in ((0, 2), (1, 3), (2, 0))], schema=schema
    )
    assert [(row["time"] // SECOND, row["state"], row["message"]) for row in found] == [
        (0, "firing", "node is firing"),
        (2, "cleared", "node is cleared"),
    ]


# --- levels ---------------------------------------------------------------------------------------------------------

LEVELS = {
    "warning": {"when": "value > 30", "clear": "value < 28"},
    "critical": {"when": "value > 40", "clear": "value < 35"},
}


def test_the_state_is_the_highest_level_that_is_set() -> None:
    """Up and down, each with its own hysteresis; `since` is that of the level that the row is about."""
    found = rows({"levels": LEVELS}, "a31 a41 a36 a34 a27", "time", "state", "level", "previous", "since")
    assert found == [
        (0, "firing", "warning", None, 0),
        (1, "firing", "critical", "warning", 1),
        (3, "firing", "warning", "critical", 0),
        (4, "cleared", None, "warning", 0),
    ]


def test_several_levels_at_once_are_one_row() -> None:
    found = rows({"levels": LEVELS}, "a41 a20", "time", "level", "previous")
    assert found == [(0, "critical", None), (1, None, "critical")]


def test_a_level_may_wait_longer_than_another() -> None:
    levels = LEVELS | {"warning": LEVELS["warning"] | {"for": "3 s"}}
    found = rows({"levels": levels}, "a31 a41 a34 a31 a31", "time", "level", "previous", "since")
    assert found == [(1, "critical", None, 1), (2, None, "critical", 1), (3, "warning", None, 0)]


# --- for ------------------------------------------------------------------------------------------------------------

TEN = {"when": "value > 30", "for": "10 s"}


def test_a_reading_before_the_end_of_for_ends_the_wait() -> None:
    found = rows(TEN, "a31@0 a32@5 a20@9.999 a31@20 a33@29 a20@31", "time", "state", "since", "value")
    assert found == [(30, "firing", 20, 33), (31, "cleared", 20, 20)]


def test_a_later_reading_fires_it_whatever_it_says() -> None:
    """It is dated since + for, and shows the last reading that held; the reading itself comes after it."""
    assert rows(TEN, "a31@0 a1@10", "time", "state", "value") == [(10, "firing", 31), (10, "cleared", 1)]
    assert rows(TEN, "a31@0 a-@10", "time", "state", "value", disorder=60) == [(10, "firing", 31)]


def test_the_watermark_fires_it_without_a_further_reading() -> None:
    """By a reading of another key, or by a tick; the rows of one moment come by time, then key."""
    assert rows(TEN, "b31@1 a31@1 c31@0 z1@20", "key", "time") == [("c", 10), ("a", 11), ("b", 11)]
    assert rows(TEN, "a31@0 tick@9 tick@10", "key", "time") == [("a", 10)]
    assert rows(TEN, "a31@0 a31@11", "time", disorder=5) == [(10,)]


def test_the_end_of_the_input_fires_nothing() -> None:
    assert rows(TEN, "a31@0 a31@9 end", "time") == []


def test_it_shows_the_last_reading_that_held() -> None:
    """Not one of which nothing is known, nor one of another key."""
    assert rows(TEN, "a31@0 a32@1 a-@5 b50@6 tick@10", "key", "time", "value") == [("a", 10, 32)]


def test_after_it_is_over_the_wait_begins_anew() -> None:
    """Also within the readings that came together."""
    found = rows({"when": "value > 30", "for": "2 s"}, "a31 a31 a31 a1 a31 a31 a31 a1", "time", "state", "since")
    assert found == [(2, "firing", 0), (3, "cleared", 0), (6, "firing", 4), (7, "cleared", 4)]


def test_a_wait_that_began_anew_ends_when_it_should() -> None:
    """The end of the first one has no say, nor what was once announced by due()."""
    anew = "a31@0 tick@0 a1@1 a31@2 tick@3 tick@11"
    assert rows(TEN, anew, "time") == []
    assert rows(TEN, anew + " tick@12", "time", "since") == [(12, 2)]


def test_a_higher_level_may_fire_before_a_lower_one() -> None:
    """In the order of their ends; a lower level that is set beneath a higher one is no news."""
    both = {"low": {"when": "value > 1", "for": "3 s"}, "high": {"when": "value > 2", "for": "1 s"}}
    found = rows({"levels": both}, "a5@0 tick@10 a2@11 a0@12", "time", "level", "previous")
    assert found == [(1, "high", None), (11, "low", "high"), (12, None, "low")]


def test_a_late_reading_may_end_the_wait_or_begin_one_that_is_over() -> None:
    """The order is that of arrival: what is dated before since + for and says no ends it, however late it comes."""
    assert rows(TEN, "a31@20 a1@0 b1@60", "time", disorder=60) == []
    assert rows(TEN, "b1@60 a31@20 a1@21", "key", "time", "state") == [("a", 30, "firing"), ("a", 21, "cleared")]


def test_due_says_when_time_alone_would_fire() -> None:
    """The earliest end of a wait; none if nothing waits."""
    operator, _ = make(Alert, TEN)
    assert operator.due() is None
    # run() holds the operator to it: a tick fires only what due() had announced.
    assert rows(TEN, "a31@5 b31@3 b1@4 c31@4 tick@14 tick@15", "key", "time") == [("c", 14), ("a", 15)]


def test_the_rows_of_a_key_keep_their_order() -> None:
    """Rows that come of one reading may be dated any way; a key's changes leave as they happened all the same."""
    columns = {"value": column("float", [31.0, 1.0, 31.0])}
    time, key, seq = np.array([5, 3, 4]) * SECOND, np.array([1, 1, 0], np.int32), np.zeros(3, np.int64)
    progress = Progress(np.array([0]), np.array([NEVER]), 0, 0, 0, 1)
    operator, _ = make(Alert, {"when": "value > 30"}, keys=KeyTable(["a", "b"]))
    out = operator.on_frame(Frame(time, key, seq, columns, progress))
    assert [(int(t) // SECOND, int(k)) for t, k in zip(out.time, out.key, strict=True)] == [(4, 0), (5, 1), (3, 1)]


def test_restore_forgets_what_came_since() -> None:
    """Also in an operator that has gone on."""
    keys = KeyTable(["a"])
    operator, _ = make(Alert, TEN, keys=keys)
    before = operator.snapshot()
    (frame,) = frames("a31@0", READINGS, keys)
    operator.on_frame(frame)
    assert operator.due() == 10 * SECOND
    operator.restore(before)
    assert operator.due() is None


# --- the oracle -----------------------------------------------------------------------------------------------------


class Level(NamedTuple):
    name: str
    above: float  # when value > above
    below: float | None  # clear: value < below
    hold: int  # s

    def settings(self) -> dict[str, str]:
        found = {"when": f"value > {self.above}", "for": f"{self.hold} s"}
        return found if self.below is None else found | {"clear": f"value < {self.below}"}


class Latch:
    """One level of one key, a reading at a time."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.set = False
        self.waits = False
        self.since = 0
        self.value: float | None = None

    def until(self) -> int:
        return self.since + self.level.hold * SECOND

    def fire(self) -> None:
        self.waits, self.set = False, True

    def hear(self, time: int, value: float | None) -> None:
        if value is None:
            return
        when = value > self.level.above
        clear = not when and (self.level.below is None or value < self.level.below)
        if when and not self.set:
            if not self.waits:
                self.waits, self.since = True, time
            self.value = value
            if not self.level.hold:
                self.fire()
        elif not when:
            self.waits = False
            if clear:
                self.set = False


class Oracle:
    """All keys, a reading at a time; no columns, no numpy."""

    def __init__(self, levels: list[Level], disorder: int) -> None:
        self.levels = levels
        self.disorder = disorder * SECOND
        self.watermark = NEVER
        self.latches: dict[str, list[Latch]] = {}
        self.rows: list[Row] = []

    def hear(self, item: dict[str, Any] | Mark) -> None:
        first = len(self.rows)
        if isinstance(item, Mark):
            to = NEVER if item.watermark is None else item.watermark
        else:
            time = item["time"] * SECOND
            latches = self.latches.setdefault(item["key"], [Latch(level) for level in self.levels])
            self._fire([(latch.until(), item["key"], latch) for latch in latches], time)
            before = self._highest(latches)
            for latch in latches:
                latch.hear(time, item["value"])
            self._tell(item["key"], time, before, latches, item["value"])
            to = time - self.disorder
        self.watermark = max(self.watermark, to)
        every = [(latch.until(), key, latch) for key, latches in self.latches.items() for latch in latches]
        self._fire(every, self.watermark)
        self.rows[first:] = sorted(self.rows[first:], key=lambda row: (row["time"], row["key"]))

    def _fire(self, latches: list[tuple[int, str, Latch]], until: int) -> None:
        """Those that wait until then at most: the earliest first, levels of one key that are over at once together."""
        over = [(at, key, latch) for at, key, latch in latches if latch.waits and at <= until]
        for at, key in sorted({(at, key) for at, key, _ in over}):
            before = self._highest(self.latches[key])
            now = [latch for t, k, latch in over if (t, k) == (at, key)]
            for latch in now:
                latch.fire()
            self._tell(key, at, before, self.latches[key], now[-1].value)

    def _highest(self, latches: list[Latch]) -> Latch | None:
        return next((latch for latch in reversed(latches) if latch.set), None)

    def _tell(self, key: str, time: int, before: Latch | None, latches: list[Latch], value: float | None) -> None:
        after = self._highest(latches)
        if after is before:
            return
        about = after or before
        assert about is not None
        self.rows.append(
            {
                "key": key,
                "time": time,
                "state": "firing" if after else "cleared",
                "level": after.level.name if after else None,
                "previous": before.level.name if before else None,
                "since": about.since,
                "value": value,
            }
        )


def level(name: str, thresholds: list[float]) -> st.SearchStrategy[Level]:
    above = st.sampled_from(thresholds)
    return st.builds(
        Level, st.just(name), above, st.none() | st.sampled_from([-1.0, 0.0, 1.0, 2.5]), st.sampled_from([0, 0, 1, 3])
    )


levels = st.one_of(
    st.tuples(level("only", [0.0, 1.0])),
    st.tuples(level("low", [0.0]), level("high", [1.0, -1.0])),
    st.tuples(level("low", [0.0]), level("middle", [1.0]), level("high", [2.0])),
).map(list)


@settings(max_examples=200, deadline=None)
@given(streams(keys="ab"), levels, st.integers(0, 4))
def test_the_columns_agree_with_a_plain_loop(stream: Stream, levels: list[Level], disorder: int) -> None:
    """Whatever the levels, waits, keys, gaps, late readings and ticks."""
    oracle = Oracle(levels, disorder)
    for item in stream:
        oracle.hear(item)
    levels_table = {level.name: level.settings() for level in levels}
    found = run(Alert, {"levels": levels_table}, stream, disorder=disorder, name="hot")
    names = ("key", "time", "state", "level", "previous", "since", "value")
    assert [{name: row[name] for name in names} for row in found] == oracle.rows


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "setting", "text"),
    [
        ({}, "when", 'an alert needs either "when" or "levels"'),
        ({"when": "value > 1", "levels": LEVELS}, "levels", 'an alert needs either "when" or "levels"'),
        ({"when": "valeu > 1"}, "when", 'did you mean "value"?'),
        ({"when": "value"}, "when", "true or false is needed"),
        ({"when": "value > 1", "clear": "valu < 1"}, "clear", 'did you mean "value"?'),
        ({"levels": {"low": {"when": "valu > 1"}}}, "levels.low.when", 'did you mean "value"?'),
        ({"levels": LEVELS, "clear": "value < 1"}, "clear", 'each level has its own "clear"'),
        ({"levels": LEVELS, "level": "bad"}, "level", "each level has its own name"),
        (
            {"when": "value > 1", "message": "{valu}"},
            "message",
            '"valu" is not a field of the input (did you mean "value"?)',
        ),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], setting: str, text: str) -> None:
    """With the way out, and before anything runs."""
    _, problems = make(Alert, settings)
    assert [where for where, _ in problems] == [setting]
    assert text in problems[0][1]
