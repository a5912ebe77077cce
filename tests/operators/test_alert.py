"""What `alert` promises, beyond the contract that test_contract.py puts to every operator; test_alert_oracle.py puts a plain
loop beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from operators.alert import Alert
from pipeline.frame import NEVER, SECOND, Field, Frame, KeyTable, Progress, Schema, Sided, column
from pipeline.journal.state import pack
from pipeline.testing import READINGS, Mark, frames, make, run, tick

# What the contract tries (tests/test_contract.py).
EXAMPLES: list[dict[str, Any]] = [
    {"when": "value > 1", "clear": "value < 0"},
    {"when": "door and count > 0", "for": "2 s", "message": "{mode}: {value:.2f} at {time}"},
    {"levels": {"low": {"when": "value > 0"}, "high": {"when": "value > 2", "clear": "value < 1", "for": "3 s"}}},
    {"when": "value > 1", "keep": "3 s", "repeat": "2 s", "flapping": {"changes": 2, "within": "4 s"}},
    {"when": "count_rate > 1", "rate": {"field": "count", "per": "2 s"}, "silent_for": "3 s", "expect": ["a", "x"]},
    {"when": "value > 1", "for": "1 s", "inhibit": ["one", "two"], "group": {"by": ["mode"], "within": "2 s"}},
    {"silent_for": "2 s", "group": {"by": ["door", "mode"], "within": "1 s"}, "repeat": "3 s", "message": "{keys}"},
]
SIDES = dict.fromkeys(("one", "two"), Schema("key", {"state": Field("string")}, "alerts"))

Row = dict[str, Any]


def rows(
    table: dict[str, Any], readings: str | Sequence[dict[str, Any] | Mark], *names: str, **more: Any
) -> list[tuple[Any, ...]]:
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
            "reading": 0,
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
            "reading": SECOND,
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
    own = ["state", "level", "previous", "since", "reading"]
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


# --- keep -----------------------------------------------------------------------------------------------------------

KEEP = {"when": "value > 30", "keep": "10 s"}


def test_it_fires_for_as_long_as_keep_at_least() -> None:
    """What is over sooner is cleared then, with the last reading for which it was over."""
    found = rows(KEEP, "a31@0 a1@3 a2@5 tick@9 tick@10", "time", "state", "reading", "value")
    assert found == [(0, "firing", 0, 31), (10, "cleared", 5 * SECOND, 2)]
    assert rows(KEEP, "a31@0 a1@12", "time", "state") == [(0, "firing"), (12, "cleared")]


def test_what_holds_again_before_the_end_of_keep_goes_on() -> None:
    assert rows(KEEP, "a31@0 a1@3 a32@9 a33@20 a1@21", "time", "state") == [(0, "firing"), (21, "cleared")]
    assert rows(KEEP, "a31@0 a1@3 a32@11", "time", "state") == [(0, "firing"), (10, "cleared"), (11, "firing")]


def test_keep_counts_from_when_it_fired() -> None:
    """Not from when the condition began to hold."""
    found = rows(KEEP | {"for": "5 s"}, "a31@0 a31@6 a1@7 tick@20", "time", "state")
    assert found == [(5, "firing"), (15, "cleared")]


# --- repeat ---------------------------------------------------------------------------------------------------------

REPEAT = {"when": "value > 30", "repeat": "10 s"}


def test_a_reminder_while_it_fires() -> None:
    """So long after the row before; it shows the newest reading, and its level is that of before."""
    found = rows(
        REPEAT, "a31@0 a32@5 tick@10 a-@15 a33@19 a1@25 tick@60", "time", "state", "previous", "since", "value"
    )
    assert found == [
        (0, "firing", None, 0, 31),
        (10, "firing", "warning", 0, 32),
        (20, "firing", "warning", 0, 33),
        (25, "cleared", "warning", 0, 1),
    ]


def test_where_time_jumps_the_last_reminder_stands_for_all() -> None:
    """A year without readings is no flood."""
    assert rows(REPEAT, "a31@0 tick@1000005 tick@1000010", "time") == [(0,), (1000000,), (1000010,)]
    assert rows(REPEAT, "a31@0 a31@35", "time", disorder=100) == [(0,), (30,)]
    table = REPEAT | {"keep": "25 s"}
    assert rows(table, "a31@0 a1@1 tick@100", "time", "state")[1:] == [(20, "firing"), (25, "cleared")]


# --- silent_for -----------------------------------------------------------------------------------------------------

SILENT = {"silent_for": "10 s", "level": "lost"}


def test_a_key_that_is_not_heard() -> None:
    """At the time of its last reading and so much; the next one ends it. Silence has no fields."""
    found = rows(SILENT, "a1@0 b1@5 b1@10 a1@14 tick@20", "key", "time", "state", "level", "since", "reading")
    assert found == [
        ("a", 10, "firing", "lost", 0, 0),
        ("a", 14, "cleared", None, 0, 14 * SECOND),
        ("b", 20, "firing", "lost", 10, 10 * SECOND),
    ]
    settings = {"when": "value > 1", "silent_for": "2 s"}
    assert rows(settings, "a5 tick@9", "level", "value") == [("warning", 5), ("silent", None)]


def test_a_gap_between_two_readings_is_silence_though_the_watermark_lags() -> None:
    found = rows(SILENT, "a1@0 a1@30", "time", "state", disorder=60)
    assert found == [(10, "firing"), (30, "cleared")]


def test_an_old_reading_does_not_end_silence() -> None:
    """One that is dated before the last says nothing; nor one after which the key is silent all the same."""
    assert rows(SILENT, "a1@20 b1@40 a1@5 a1@25", "key", "time") == [("a", 30)]
    assert rows(SILENT, "a1@20 b1@40 a1@31", "key", "time", "state")[1:] == [("a", 31, "cleared")]


def test_silence_is_the_highest_level() -> None:
    """What held before holds again once the key is heard, if it still does."""
    found = rows({"when": "value > 30", "silent_for": "10 s"}, "a31@0 a32@20 a1@21", "time", "level", "previous")
    assert found == [
        (0, "warning", None),
        (10, "silent", "warning"),
        (20, "warning", "silent"),
        (21, None, "warning"),
    ]


def test_the_end_of_the_input_is_not_silence() -> None:
    assert rows(SILENT | {"expect": ["z"]}, "a1@0 end", "time") == []


def test_an_expected_key_is_watched_from_the_first_reading() -> None:
    found = rows(SILENT | {"expect": ["y", "z"]}, "a1@0 y1@5 a1@9 a1@10 tick@15", "key", "time", "reading", "since")
    assert found == [("z", 10, None, 0), ("y", 15, 5 * SECOND, 5)]


def test_an_expected_key_where_nobody_has_spoken() -> None:
    """Below all times the watermark says how long that is; the row has the clock's."""
    now = 1_800_000_000
    silence = [tick(NEVER + 9 * SECOND), tick(NEVER + 10 * SECOND), tick(NEVER + 50 * SECOND)]
    heard = {"key": "z", "time": now + 60, "value": 1.0}
    found = rows(SILENT | {"expect": ["z"]}, [*silence, heard], "key", "time", "state", "since", clock=now * SECOND)
    assert found == [("z", now, "firing", now - 10), ("z", now + 60, "cleared", now - 10)]


# --- flapping -------------------------------------------------------------------------------------------------------

FLAPPING = {"when": "value > 30", "flapping": {"changes": 2, "within": "10 s"}}


def test_no_more_changes_than_that() -> None:
    """What is held back is told as soon as it may be, if it is still true."""
    assert rows(FLAPPING, "a31 a1 a31 a1 a31 a1 tick@30", "time", "state") == [(0, "firing"), (1, "cleared")]
    found = rows(FLAPPING, "a31 a1 a31 a1 a32 tick@30", "time", "state", "since", "value")
    assert found == [(0, "firing", 0, 31), (1, "cleared", 0, 1), (10, "firing", 4, 32)]


# --- inhibit --------------------------------------------------------------------------------------------------------

INHIBIT = {"when": "value > 30", "inhibit": "other"}
OTHER = {"other": Schema("key", {"state": Field("string")}, "alerts")}


def other(time: int, state: str, key: str = "a") -> dict[str, Any]:
    return {"input": "other", "key": key, "time": time, "state": state}


def reading(time: int, value: float, key: str = "a") -> dict[str, Any]:
    return {"key": key, "time": time, "value": value}


def test_while_another_alert_fires_this_one_is_not_raised() -> None:
    """For the same key; once the other is over it is, if it still holds."""
    stream = [other(0, "firing"), reading(1, 31), reading(1, 31, "b"), reading(2, 32), other(5, "cleared")]
    found = rows(INHIBIT, stream, "key", "time", "since", "value", sides=OTHER)
    assert found == [("b", 1, 1, 31), ("a", 5, 1, 31)]
    stream = [other(0, "firing"), reading(1, 31), reading(2, 1), other(5, "cleared")]
    assert rows(INHIBIT, stream, "key", sides=OTHER) == []


def test_what_the_same_reading_lets_time_do_comes_after_it_begins_to_hold_back() -> None:
    stream = [reading(0, 31), reading(20, 1, "b"), other(10, "firing"), other(12, "cleared")]
    assert rows(INHIBIT | {"for": "10 s"}, stream, "time", "since", sides=OTHER) == [(12, 0)]


def test_that_it_is_over_is_told_all_the_same() -> None:
    """Of what had fired before; there are no reminders meanwhile."""
    stream = [reading(0, 31), other(1, "firing"), reading(25, 31), other(26, "firing", "b"), reading(27, 1)]
    found = rows(INHIBIT | {"repeat": "10 s"}, stream, "time", "state", sides=OTHER)
    assert found == [(0, "firing"), (27, "cleared")]


def test_what_one_reading_causes_in_both_alerts_is_one_moment() -> None:
    """It begins to hold back before the reading is taken here, and lets go after it."""
    progress = Progress(np.array([0, 1]), np.array([NEVER, 0]), 0, 0, 0, 2)

    def frame(**columns: Any) -> Frame:
        named = {name: column("float" if name == "value" else "string", list(v)) for name, v in columns.items()}
        return Frame(np.array([0, 1]) * SECOND, np.zeros(2, np.int32), np.array([0, 1]), named, progress)

    operator, _ = make(Alert, INHIBIT, keys=KeyTable(["a"]), sides=OTHER)
    states = frame(state=["firing", "cleared"])
    assert len(operator.on_frame(Sided(frame(value=[31.0, 1.0]), {"other": states}))) == 0


# --- rate -----------------------------------------------------------------------------------------------------------


def test_a_condition_on_how_fast_a_field_changes() -> None:
    """Since the key's reading before, per minute; an older one, or one without the field, has none and is skipped."""
    table = {
        "when": "value_rate > 5",
        "rate": {"field": "value", "per": "1 min"},
        "message": "{value_rate:.0f} a minute",
    }
    found = rows(table, "a0@0 b0@0 a3@60 a-@90 a13@120 a0@100 a20@180", "key", "time", "state", "value_rate", "message")
    assert found == [("a", 120, "firing", 10, "10 a minute")]
    assert rows({"when": "value_rate > 1", "rate": {"field": "value"}}, "a10@10 a0@5 a11@11", "time") == []
    found = rows({"when": "rise > 1", "rate": {"field": "value", "name": "rise"}}, "a0@0 a3@1 a4@2", "time", "rise")
    assert found == [(1, 3), (2, 1)]


# --- group ----------------------------------------------------------------------------------------------------------


def test_one_row_for_many_keys() -> None:
    """What changes within so long of the first change is one row; what is as it was told is none."""
    table = {"when": "value > 30", "group": {"within": "5 s"}}
    found = rows(
        table, "a31@0 b32@1 c1@2 tick@5 b1@6 tick@11 a1@12 a31@13 tick@30", "time", "state", "firing", "keys", "since"
    )
    assert found == [(5, "firing", 2, "a, b", 0), (11, "firing", 1, "a", 0)]
    told = run(Alert, table, "a31 a1 tick@5 b31@7 tick@12 b1@13 tick@30", name="hot")
    assert [(row["time"] // SECOND, row["previous"], row["message"]) for row in told] == [
        (12, None, "hot is firing: 1 firing b"),
        (18, "warning", "hot is cleared: 0 firing "),
    ]


def test_a_group_by_fields() -> None:
    """A single text is the key of its group; several fields are shown. The level is the highest of all."""
    schema = Schema("id", {"t": Field("float"), "room": Field("string"), "floor": Field("int")})
    stream = [
        {"key": key, "time": time, "t": t, "room": room, "floor": floor}
        for key, time, t, room, floor in [
            ("a", 0, 31.0, "hall", 0),
            ("b", 0, 41.0, "hall", 1),
            ("c", 1, 31.0, "attic", 2),
        ]
    ]
    levels = {"warning": {"when": "t > 30"}, "critical": {"when": "t > 40"}}
    table = {"levels": levels, "group": {"by": ["room"], "within": "5 s"}}
    found = run(Alert, table, [*stream, tick(9)], schema=schema)
    assert [(row["room"], row["level"], row["keys"]) for row in found] == [
        ("hall", "critical", "a, b"),
        ("attic", "warning", "c"),
    ]
    table["group"] = {"by": ["room", "floor"], "within": "5 s"}
    found = run(Alert, table, [*stream, tick(9)], schema=schema)
    assert [(row["group"], row["room"], row["floor"]) for row in found] == [
        ('["hall", 0]', "hall", 0),
        ('["hall", 1]', "hall", 1),
        ('["attic", 2]', "attic", 2),
    ]


def test_many_keys_are_named_in_part() -> None:
    table = {"when": "value > 30", "group": {"within": "5 s"}}
    stream = [reading(0, 31, f"k{i:02}") for i in range(25)]
    ((keys,),) = rows(table, [*stream, tick(5)], "keys")
    assert keys.startswith("k00, k01, ")
    assert keys.endswith(", k19 and 5 more")


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "value", "most"),
    [
        ({"when": "value > 30"}, 1.0, 1),
        ({"when": "value > 30", "silent_for": "1 h", "rate": {"field": "value"}}, 1.0, 1 + 9 + 17),
        ({"when": "value > 30", "for": "1 h"}, 31.0, 200),
        ({"when": "value > 30", "repeat": "1 h", "message": "{value}"}, 31.0, 200),
    ],
)
def test_what_a_key_takes(table: dict[str, Any], value: float, most: int) -> None:
    """Of a key at rest a few bytes, in columns; of one that fires or waits some more."""
    sizes = []
    for n in (1_000, 2_000):
        keys = KeyTable()
        operator, _ = make(Alert, table, keys=keys)
        (frame,) = frames([reading(i, value, f"k{i}") for i in range(n)], READINGS, keys)
        for state in operator.context.states.values():
            state.grow(n)
        operator.on_frame(frame)
        sizes.append(len(pack(operator.snapshot())))
    assert sizes[1] - sizes[0] <= most * 1_000


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
        ({"silent_for": "0 s"}, "silent_for", "longer than nothing"),
        ({"silent_for": "1 s", "clear": "value < 1"}, "clear", 'add "when"'),
        ({"silent_for": "1 s", "keep": "1 s"}, "keep", 'add "when"'),
        ({"when": "value > 1", "expect": ["a"]}, "expect", 'add "silent_for"'),
        ({"when": "value > 1", "repeat": "0 s"}, "repeat", "longer than nothing"),
        ({"when": "value > 1", "flapping": {"changes": 2, "within": "0 s"}}, "flapping.within", "longer than nothing"),
        ({"levels": {"silent": {"when": "value > 1"}}, "silent_for": "1 s"}, "levels.silent", "another name"),
        ({"when": "value > 1", "rate": {"field": "valu"}}, "rate.field", 'did you mean "value"?'),
        ({"when": "value > 1", "rate": {"field": "value", "name": "value"}}, "rate.name", "choose another"),
        ({"when": "value > 1", "rate": {"field": "value", "per": "0 s"}}, "rate.per", "per some time"),
        ({"when": "value > 1", "group": {"by": ["valu"], "within": "1 s"}}, "group.by.0", 'did you mean "value"?'),
        ({"when": "value > 1", "inhibit": "other"}, "inhibit", '"other" is not an alert'),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], setting: str, text: str) -> None:
    """With the way out, and before anything runs."""
    _, problems = make(Alert, settings)
    assert [where for where, _ in problems] == [setting]
    assert text in problems[0][1]


# --- a key that is gone for good ------------------------------------------------------------------------------------


def test_what_fires_is_over_when_its_key_is_forgotten() -> None:
    """One row, without fields, at the time that has come; then it begins anew. What did not fire says nothing."""
    table = {"when": "value > 30", "for": "2 s", "message": "{key} at {value}"}
    found = rows(table, "a31@0 b31@2 a31@2 forget@a forget@b tick@3 tick@9 a31@9 tick@12", *OVER)
    assert found == [
        ("a", 2, "firing", 0, 31.0, "a at 31.0"),
        ("a", 2, "cleared", 0, None, "a at missing"),
        ("a", 11, "firing", 9, 31.0, "a at 31.0"),
    ]


def test_a_forgotten_key_is_not_silent() -> None:
    """It is not, whether it was silent already or not yet; the others are watched as before."""
    found = rows({"silent_for": "3 s"}, "a1@0 b1@2 c1@2 tick@3 forget@a forget@b tick@9 a1@9 tick@12", *OVER[:3])
    assert found == [
        ("a", 3, "firing"),
        ("a", 3, "cleared"),
        ("c", 5, "firing"),
        ("a", 12, "firing"),
    ]


def test_what_is_over_is_told_of_a_forgotten_key_that_is_held_back() -> None:
    """`flapping` and `keep` are for changes of the readings."""
    table = {"when": "value > 30", "keep": "1 min", "flapping": {"changes": 1, "within": "1 h"}}
    found = rows(table, "a31@0 a1@1 forget@a tick@70", *OVER[:3])
    assert found == [("a", 0, "firing"), ("a", 1, "cleared")]


def test_a_group_goes_on_without_a_forgotten_key() -> None:
    table = {"when": "value > 30", "group": {"within": "2 s"}, "message": "{firing}: {keys}"}
    found = rows(table, "a31@0 b31@0 tick@2 forget@a tick@4 forget@b tick@9", "time", "state", "message")
    assert found == [(2, "firing", "2: a, b"), (4, "firing", "1: b"), (6, "cleared", "0: ")]


OVER = ("key", "time", "state", "since", "value", "message")
