"""What `degree_days` promises."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline.frame import Field, Schema
from pipeline.testing import Mark, Stream, make, run, streams

from headwater_degree_days import DEGREE_DAY, DegreeDays

HOUR = 3600
SCHEMA = Schema("key", {"temperature": Field("float", optional=True, nan=True)})


def told(how: dict[str, Any], stream: Sequence[dict[str, Any] | Mark]) -> list[float | None]:
    # `run` cuts the stream every way, with and without a restart at each cut, and fails if any two ways differ.
    return [row["degree_days"] for row in run(DegreeDays, how, stream, schema=SCHEMA)]


def at(hour: float, temperature: float | None, key: str = "a") -> dict[str, Any]:
    return {"key": key, "time": hour * HOUR, "temperature": temperature}


def test_a_day_at_twenty_degrees_is_ten_degree_days() -> None:
    assert told({}, [at(hour, 20.0) for hour in range(25)])[-1] == 10


def test_halfway_between_two_readings() -> None:
    assert told({"gap": "12 h"}, [at(0, 20), at(12, 20), at(24, 10)]) == [0, 5, 7.5]


def test_below_for_heating() -> None:
    how = {"count": "below", "base": 15, "limit": -5, "gap": "1 d"}
    assert told(how, [at(0, 5), at(24, 5), at(48, 20), at(72, -30), at(96, -30)]) == [0, 10, 15, 25, 45]


def test_a_limit() -> None:
    assert told({"limit": 30, "gap": "1 d"}, [at(0, 50), at(24, 50)]) == [0, 20]


def test_nothing_is_counted_over_a_gap() -> None:
    assert told({"gap": "2 h"}, [at(0, 34), at(2, 34), at(4.5, 34), at(5.5, 34)]) == [0, 2, 2, 3]


def test_what_is_no_temperature_is_passed_over() -> None:
    stream = [at(0, 34), at(1, None), at(1, float("nan")), at(1, 1001), at(2, 34)]
    assert told({}, stream) == [0, None, None, None, 2]


def test_a_late_reading_is_not_counted() -> None:
    """Nor is any time counted twice because of it."""
    assert told({}, [at(0, 34), at(2, 34), at(1, 99), at(3, 34)]) == [0, 2, None, 3]


def test_a_season_begins_at_midnight_of_its_own_zone() -> None:
    zone = "Europe/Berlin"
    midnight = datetime(2026, 3, 1, tzinfo=ZoneInfo(zone)).timestamp() / HOUR
    stream = [at(midnight - 2, 34), at(midnight - 1, 34), at(midnight, 34), at(midnight + 1, 34)]
    assert told({"season": "03-01", "timezone": zone}, stream) == [0, 1, 0, 1]
    assert told({"season": "03-01"}, stream) == [0, 1, 2, 0]
    assert told({"season": "03-02"}, stream) == [0, 1, 2, 3]


def test_a_year_of_it() -> None:
    """A mean of 15 °C all year, base 10: 5 degree-days a day."""
    year = [at(24 * n, 15 + (3 if n % 2 else -3)) for n in range(366)]
    assert told({"gap": "1 d"}, year)[-1] == 365 * 5


# --- against a loop ---------------------------------------------------------------------------------------------------


def naive(stream: Stream, base: float, gap: int) -> list[float | None]:
    """The oracle: one reading at a time, a dictionary, no numpy."""
    last: dict[str, tuple[int, float]] = {}
    sums: dict[str, float] = {}
    found: list[float | None] = []
    for reading in stream:
        if isinstance(reading, Mark):
            continue
        key, time, value = reading["key"], reading["time"], reading["temperature"]
        if value is None or (key in last and time < last[key][0]):
            found.append(None)
            continue
        excess = max(value - base, 0.0)
        if key in last and time - last[key][0] <= gap:
            sums[key] = sums.get(key, 0.0) + (excess + last[key][1]) / 2 * (time - last[key][0]) / 86_400
        last[key] = time, excess
        found.append(sums.get(key, 0.0))
    return found


@settings(deadline=None, max_examples=60)  # a slow machine is no mistake
@given(streams(Schema("key", {"temperature": Field("float", optional=True)}), late=4), st.sampled_from([1, 3, 60]))
def test_the_columns_agree_with_a_plain_loop(stream: Stream, gap: int) -> None:
    found = told({"base": 1, "gap": f"{gap} s"}, stream)
    expected = naive(stream, 1, gap)
    assert [n is None for n in found] == [n is None for n in expected]
    assert [n for n in found if n is not None] == pytest.approx([n for n in expected if n is not None], abs=1e-12)
    assert all(n is None or n * DEGREE_DAY == pytest.approx(round(n * DEGREE_DAY)) for n in found)


@settings(deadline=None, max_examples=30)
@given(st.dates(), st.sampled_from(["UTC", "Asia/Shanghai", "America/Santiago", "Pacific/Apia"]))
def test_seasons_are_those_of_the_calendar(day: Any, zone: str) -> None:
    """The oracle: datetime."""
    if not 1700 < day.year < 2200:
        return
    operator, _ = make(DegreeDays, {"season": "07-15", "timezone": zone}, SCHEMA)
    assert isinstance(operator, DegreeDays)
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(zone))
    ns = (noon - datetime(1970, 1, 1, tzinfo=ZoneInfo("UTC"))) // timedelta(microseconds=1) * 1_000
    year = day.year if (day.month, day.day) >= (7, 15) else day.year - 1
    assert operator._seasons(np.array([ns])).tolist() == [year - 1970]


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "setting", "said"),
    [
        ({"field": "temprature"}, "field", 'did you mean "temperature"?'),
        ({"field": "door"}, "field", "a temperature is a number"),
        ({"limit": 10}, "limit", "must lie above the base (10)"),
        ({"count": "below", "limit": 20}, "limit", "must lie below the base (10)"),
        ({"gap": "0 s"}, "gap", "longer than nothing"),
        ({"gap": "2 d"}, "gap", '"1 d" at most'),
        ({"season": "02-29"}, "season", "not a day of every year"),
        ({"season": "March"}, "season", "not a day of every year"),
        ({"timezone": "Europe/Berln"}, "timezone", 'did you mean "Europe/Berlin"?'),
    ],
)
def test_wrong_settings_are_told(how: dict[str, Any], setting: str, said: str) -> None:
    schema = Schema("key", {"temperature": Field("float"), "door": Field("bool")})
    ((where, text),) = make(DegreeDays, how, schema)[1]
    assert where == setting
    assert said in text


def test_fahrenheit_is_thought_of() -> None:
    operator, problems = make(DegreeDays, {"base": 50}, SCHEMA)
    assert problems == []
    assert [setting for setting, _ in operator.context.warnings] == ["base"]
