"""What windows by the calendar promise: local midnights, also where a change of the clocks moves or removes them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.window import Window
from pipeline.frame import SECOND
from pipeline.testing import Stream, end, make, run

HOUR = 3600 * SECOND
COUNT = {"aggregate": {"n": "count()"}}


def ns(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * SECOND


def windows(table: dict[str, Any], *times: str, disorder: float = 0) -> list[tuple[str, str, int]]:
    """Start and end of each window, as UTC, and how many readings it has."""
    stream: Stream = [{"key": "a", "time": ns(t), "value": 1.0} for t in times]
    rows = run(Window, {**COUNT, **table}, [*stream, end()], disorder=disorder)
    return [(utc(r["start"]), utc(r["end"]), r["n"]) for r in rows]


def utc(time: int) -> str:
    return datetime.fromtimestamp(time // SECOND, UTC).strftime("%Y-%m-%dT%H:%MZ")


def test_a_day_begins_at_midnight_where_the_clocks_are() -> None:
    found = windows({"size": "1 day", "timezone": "Asia/Shanghai"}, "2024-05-01T15:59:59Z", "2024-05-01T16:00:00Z")
    assert found == [
        ("2024-04-30T16:00Z", "2024-05-01T16:00Z", 1),
        ("2024-05-01T16:00Z", "2024-05-02T16:00Z", 1),
    ]


def test_a_day_on_which_the_clocks_change_has_23_or_25_hours() -> None:
    berlin = {"size": "1 day", "timezone": "Europe/Berlin"}
    assert windows(berlin, "2024-03-31T12:00Z", "2024-10-27T12:00Z") == [
        ("2024-03-30T23:00Z", "2024-03-31T22:00Z", 1),
        ("2024-10-26T22:00Z", "2024-10-27T23:00Z", 1),
    ]
    assert windows({**berlin, "size": "1 d"}, "2024-03-31T12:00Z")[0][:2] == ("2024-03-30T23:00Z", "2024-03-31T22:00Z")


def test_without_a_time_zone_a_day_is_24_hours_and_a_week_begins_on_monday() -> None:
    for size in ("1 d", "24 h", "1 day"):
        assert windows({"size": size}, "2024-03-31T12:00Z") == [("2024-03-31T00:00Z", "2024-04-01T00:00Z", 1)]
    assert windows({"size": "1 week"}, "2024-05-01T12:00Z") == [("2024-04-29T00:00Z", "2024-05-06T00:00Z", 1)]
    assert windows({"size": "7 d"}, "2024-05-01T12:00Z") == [("2024-04-25T00:00Z", "2024-05-02T00:00Z", 1)]


def test_months_quarters_and_years() -> None:
    at = "2024-02-29T12:00Z"
    assert windows({"size": "1 month"}, at) == [("2024-02-01T00:00Z", "2024-03-01T00:00Z", 1)]
    assert windows({"size": "2 months"}, at) == [("2024-01-01T00:00Z", "2024-03-01T00:00Z", 1)]
    assert windows({"size": "1 quarter"}, at) == [("2024-01-01T00:00Z", "2024-04-01T00:00Z", 1)]
    assert windows({"size": "1 year", "timezone": "Asia/Tokyo"}, at) == [("2023-12-31T15:00Z", "2024-12-31T15:00Z", 1)]
    assert windows({"size": "1 month"}, "1900-02-03T00:00Z", "1969-12-31T12:00Z") == [
        ("1900-02-01T00:00Z", "1900-03-01T00:00Z", 1),
        ("1969-12-01T00:00Z", "1970-01-01T00:00Z", 1),
    ]


def test_offset_goes_by_the_clocks_there() -> None:
    """A day that begins at six in the morning has 23 hours where the night is short of one."""
    table = {"size": "1 day", "timezone": "Europe/Berlin", "offset": "6 h"}
    assert windows(table, "2024-03-30T12:00Z", "2024-03-31T04:00Z") == [
        ("2024-03-30T05:00Z", "2024-03-31T04:00Z", 1),
        ("2024-03-31T04:00Z", "2024-04-01T04:00Z", 1),
    ]


def test_a_midnight_that_is_left_out_or_comes_twice() -> None:
    """Beirut's clocks went from 0:00 to 1:00: the day begins at the change. Havana's went from 1:00 back to 0:00: at the
    first of the two. Samoa left out 30 December 2011."""
    assert windows({"size": "1 day", "timezone": "Asia/Beirut"}, "2024-03-31T12:00Z")[0][:2] == (
        "2024-03-30T22:00Z",
        "2024-03-31T21:00Z",
    )
    assert windows({"size": "1 day", "timezone": "America/Havana"}, "2024-11-03T04:30Z", "2024-11-03T05:30Z") == [
        ("2024-11-03T04:00Z", "2024-11-04T05:00Z", 2)
    ]
    assert windows({"size": "1 day", "timezone": "Pacific/Apia"}, "2011-12-30T09:00Z", "2011-12-30T10:00Z") == [
        ("2011-12-29T10:00Z", "2011-12-30T10:00Z", 1),
        ("2011-12-30T10:00Z", "2011-12-31T10:00Z", 1),
    ]


def test_late_readings_and_the_watermark_know_the_short_day() -> None:
    """The day of 23 hours leaves when the watermark is at its end."""
    table = {**COUNT, "size": "1 day", "timezone": "Europe/Berlin", "lateness": "2 h"}
    day = ns("2024-03-31T00:00+01:00")
    times = [day, day + 23 * HOUR, day + HOUR, day + 25 * HOUR, day + 2 * HOUR]
    stream: Stream = [{"key": "a", "time": t, "value": 1.0} for t in times]
    found = [(r["end"] - day, r["revision"], r["n"]) for r in run(Window, table, stream)]
    assert found == [(23 * HOUR, 0, 1), (23 * HOUR, 1, 2)]
    assert len(run(Window, table, stream, output="late")) == 1


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns"]


def day_of(time: int, zone: str, unit: str) -> date:
    """The local day, or the first of its week or month."""
    day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time // 1000)).astimezone(ZoneInfo(zone)).date()
    return {"day": day, "week": day - timedelta(days=day.weekday()), "month": day.replace(day=1)}[unit]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 800 * 24 * 4), min_size=1, max_size=12),
    st.sampled_from(ZONES),
    st.sampled_from(["day", "week", "month"]),
)
def test_readings_of_one_local_day_are_in_one_window(quarters: list[int], zone: str, unit: str) -> None:
    """Against the day that the standard library gives to each reading by itself."""
    times = [ns("2023-01-01T00:00Z") + q * HOUR // 4 for q in sorted(quarters)]
    days = [day_of(t, zone, unit) for t in times]
    stream: Stream = [*({"key": "a", "time": t, "value": 1.0} for t in times), end()]
    rows = run(Window, {**COUNT, "size": f"1 {unit}", "timezone": zone}, stream)
    assert [r["n"] for r in rows] == [days.count(d) for d in dict.fromkeys(days)]
    assert [day_of(r["start"], zone, unit) for r in rows] == list(dict.fromkeys(days))


@pytest.mark.parametrize("size", ["0 days", "1 fortnight", "100000 days", "101 years"])
def test_other_lengths_are_refused(size: str) -> None:
    _, problems = make(Window, {**COUNT, "size": size, "timezone": "UTC"})
    assert problems
