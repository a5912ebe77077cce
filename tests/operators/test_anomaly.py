"""What `anomaly` promises, beyond the contract that every operator keeps."""

from __future__ import annotations

from math import exp, inf, log, log1p, nan, sqrt
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import anomaly as module
from operators.anomaly import TOGETHER, Anomaly
from pipeline.frame import NO_PROGRESS, SECOND, Column, Field, Frame, Schema
from pipeline.testing import Reading, make, run

# What the contract tries (tests/test_contract.py).
EXAMPLES: list[dict[str, Any]] = [
    {"field": "value"},
    {"field": "count", "alarms": "3 per day", "prefix": "count_"},
]

NUMBER = Schema("key", {"value": Field("float", optional=True, nan=True)})
FIVE_MINUTES = 300 * SECOND
START = 1_700_006_400 * SECOND  # a midnight


class Said(NamedTuple):
    score: Any
    expected: Any
    detector: Any
    anomaly: Any


def say(values: Any, step: int = FIVE_MINUTES, key: Any = None, frame: int = 1_000, **more: Any) -> Said:
    """What the operator says of one key's readings, or of several keys' that speak in turn."""
    operator, problems = make(Anomaly, more, NUMBER)
    assert not problems
    codes = np.zeros(len(values), np.int32) if key is None else np.asarray(key, np.int32)
    operator.context.keys.codes([f"s{code}" for code in range(int(codes.max()) + 1)])
    for state in operator.context.states.values():
        state.grow(len(operator.context.keys))
    times = START + np.arange(len(values)) // (int(codes.max()) + 1) * step
    out = []
    for start in range(0, len(values), frame):
        part = slice(start, start + frame)
        seq = np.arange(len(values))[part]
        column = Column(np.asarray(values, np.float64)[part])
        rows = operator.on_frame(Frame(times[part], codes[part], seq, {"value": column}, NO_PROGRESS))
        out.append([rows[name].values for name in Said._fields])
    return Said(*(np.concatenate(parts) for parts in zip(*out, strict=True)))


def noise(n: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=n)


def day(n: int) -> Any:
    """A daily course, five minutes a reading."""
    return 5 * np.sin(np.arange(n) / 288 * 2 * np.pi)


# --- it finds what it should ------------------------------------------------------------------------------------------

SEEDS = (1, 2, 3, 4, 5)
AT = 4_000  # the reading at which it happens, after two weeks


@pytest.mark.parametrize("seed", SEEDS)
def test_a_spike_is_found_at_once(seed: int) -> None:
    values = 20 + noise(AT + 300, seed)
    values[AT] += 12
    said = say(values)
    assert said.anomaly[AT]
    assert said.score[AT] == said.score.max()
    assert said.detector[AT] in ("recent", "slow", "level")
    assert said.expected[AT] == pytest.approx(20, abs=2)
    assert said.anomaly[AT + 1 :].sum() == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_small_shift_of_the_level_is_found_within_two_hours_and_told_once(seed: int) -> None:
    """Two spreads: no single reading says much."""
    values = 20 + noise(AT + 600, seed)
    values[AT:] += 2.5
    said = say(values)
    assert said.anomaly[AT : AT + 24].any()
    assert said.anomaly[AT:].sum() <= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sensor_that_is_stuck_at_a_usual_value_is_found(seed: int) -> None:
    """Its last value again and again, as noise goes nothing unusual."""
    values = 20 + noise(AT + 150, seed)
    values[AT:] = 20.1
    said = say(values)
    alarms = np.flatnonzero(said.anomaly[AT:])
    assert 24 <= alarms[0] <= 60
    assert said.detector[AT + alarms[0]] == "stuck"
    assert said.expected[AT + alarms[0]] == 20.1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_drop_to_zero_is_found(seed: int) -> None:
    values = 20 + noise(AT + 150, seed)
    values[AT:] = 0
    assert say(values).anomaly[AT]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_day_that_does_not_come_is_found(seed: int) -> None:
    """The values of the night all day long: each of them usual, none at that hour."""
    values = 20 + day(AT + 288) + 0.3 * noise(AT + 288, seed)
    start = AT // 288 * 288
    values[start : start + 144] = 20 + 0.3 * noise(144, seed + 10)
    said = say(values)
    alarms = start + np.flatnonzero(said.anomaly[start : start + 144])
    assert len(alarms)
    assert {said.detector[at] for at in alarms} <= {"day", "week"}


def test_sunday_is_no_news_in_the_third_week() -> None:
    """Quiet weekends are learned; a quiet Wednesday is found."""
    n = 6 * 2_016
    weekday = (START // (86_400 * SECOND) + 3 + np.arange(n) // 288) % 7  # 0 is Monday; 1970 began on a Thursday
    busy = np.where(weekday < 5, 10.0, 1.0) * (1 + np.sin(np.arange(n) / 288 * 2 * np.pi)) + 0.3 * noise(n)
    wednesday = np.flatnonzero(weekday == 2)
    odd = wednesday[wednesday >= 5 * 2_016][:288]
    busy[odd] = busy[odd] / 10
    said = say(busy)
    weekend = (weekday >= 5) & (np.arange(n) >= 2 * 2_016) & (np.arange(n) < odd[0])
    assert said.anomaly[weekend].sum() <= 3
    assert said.anomaly[odd].any()


# --- and little else --------------------------------------------------------------------------------------------------

YEAR = 365 * 288
SHAPES = {
    "normal": lambda: noise(YEAR),
    "even": lambda: np.random.default_rng(2).random(YEAR),
    "with a day": lambda: 20 + day(YEAR) + 0.3 * noise(YEAR, 3),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_year_of_noise_alarms_about_once_a_week(shape: str) -> None:
    """As promised: 52, of whatever distribution. And no quarter has many more than its share."""
    alarms = say(SHAPES[shape]()).anomaly
    assert 40 <= alarms.sum() <= 65
    assert max(quarter.sum() for quarter in np.array_split(alarms, 4)) <= 20


def test_the_promise_is_a_rate_by_event_time() -> None:
    """10,000 readings of noise: by the hour 14 months, by five minutes one. A start may have a few more."""
    assert 8 <= say(noise(10_000), step=3_600 * SECOND, alarms="1 per month").anomaly.sum() <= 20
    assert say(noise(10_000), alarms="1 per month").anomaly.sum() <= 6


def test_what_goes_on_being_strange_alarms_less_and_less() -> None:
    """A spike every other hour for a month: the first ones are told, then only as many as were promised."""
    values = 20 + noise(AT + 8_640)
    values[AT::24] += 12
    alarms = say(values).anomaly[AT:]
    assert alarms[0]
    assert alarms[:2_016].sum() <= 20
    assert alarms[-4_032:].sum() <= 6


# --- fine print -------------------------------------------------------------------------------------------------------


def test_a_reading_without_a_value_goes_on_without_a_score_and_teaches_nothing() -> None:
    values = 20 + noise(130)
    values[120] += 30
    with_holes = np.insert(values, [3, 90, 120, 121], [nan, nan, inf, -1e101])
    times = np.insert(np.arange(130), [3, 90, 120, 121], [3, 90, 120, 121])
    rows: list[Reading] = [
        {"key": "a", "time": int(t) * 300, "value": float(v)} for t, v in zip(times, with_holes, strict=True)
    ]
    rows.insert(50, {"key": "a", "time": 50 * 300, "value": None})
    said = run(Anomaly, {}, rows, schema=NUMBER)
    unscored = [row for row in said if row["score"] is None]
    assert len(unscored) == 5
    assert all(row[name] is None for row in unscored for name in ("expected", "detector", "anomaly"))
    plain = run(
        Anomaly, {}, [{"key": "a", "time": i * 300, "value": float(v)} for i, v in enumerate(values)], schema=NUMBER
    )
    assert [row for row in said if row["score"] is not None] == plain
    assert any(row["anomaly"] for row in plain)


def test_the_first_hundred_readings_score_nothing() -> None:
    values = 20 + noise(130)
    values[[1, 50, 99, 120]] += 1_000
    said = say(values)
    assert not said.score[:100].any()
    assert said.score[120] > 0


def test_the_unit_of_the_values_changes_nothing() -> None:
    """To the last bit, by a power of two."""
    values = 20 + noise(3_000)
    values[[700, 1_500]] += 9
    plain, scaled = say(values), say(values * 2.0**-40)
    assert (plain.score > 0).sum() > 5
    for one, other in ((plain.score, scaled.score), (plain.expected, scaled.expected * 2.0**40)):
        assert one.tobytes() == other.tobytes()
    assert plain.detector.tolist() == scaled.detector.tolist()


def test_whatever_comes_the_score_is_from_0_to_1() -> None:
    """Constants, extremes, the smallest steps."""
    wild = np.random.default_rng(3).choice([0.0, 1e100, -1e100, 5e-324, 1.0, 1 + 2**-52], 3_000)
    wild[500:1_500] = 1.0
    wild[2_000:2_500] = 0.0
    said = say(wild)
    assert np.isfinite(said.score).all()
    assert (said.score >= 0).all()
    assert (said.score <= 1).all()
    assert np.isfinite(said.expected).all()


def test_the_first_step_of_a_constant_is_found() -> None:
    """There is no spread to compare with."""
    values = np.full(3_000, 7.0)
    values[2_500:] = 7.1
    said = say(values)
    assert np.flatnonzero(said.anomaly).tolist() == [2_500]


def test_keys_do_not_know_of_each_other() -> None:
    one, two = 20 + noise(1_500, 1), 500 + noise(1_500, 2)
    one[1_200] += 15
    both = say(np.stack([one, two], 1).ravel(), key=[0, 1] * 1_500, frame=77)
    for code, values in enumerate((one, two)):
        alone = say(values)
        for together, by_itself in zip(both, alone, strict=True):
            assert together[code::2].tolist() == by_itself.tolist()


@pytest.mark.parametrize("frame", [130, 1_000, 50_000])
def test_many_keys_at_once_get_the_bits_that_each_alone_gets(frame: int) -> None:
    """They are computed in another way: as columns over the keys. Of all manners: calm, heavy, stuck, wild, of zeros."""
    n, keys = 400, TOGETHER + 6
    random = np.random.default_rng(7)
    values = 20 + random.normal(size=(n, keys))
    values[:, 1::5] = random.standard_t(2, (n, len(range(1, keys, 5))))
    values[150:, 2::5] = 20.5
    values[:, 3::5] = random.choice([0.0, 1e100, -1e100, 5e-324, 1.0], (n, len(range(3, keys, 5))))
    values[:250, 4::5] = 0
    values[300, 4::5] = nan
    values[220, ::5] += 9
    of_all = say(values.ravel(), key=np.tile(np.arange(keys), n), frame=frame)
    assert (of_all.score > 0).sum() > keys
    for code in range(0, keys, 3):
        for together, alone in zip(of_all, say(values[:, code]), strict=True):
            assert together[code::keys].tolist() == alone.tolist()


def test_no_cut_and_no_restart_changes_a_bit_once_it_scores() -> None:
    """The contract's streams are too short to score."""
    values = np.round(noise(180), 1)
    values[120:] += 4
    values[150:] = 4.0
    rows: list[Reading] = [
        {"key": "ab"[i % 3 == 0], "time": i * 600, "value": None if i % 41 == 0 else float(v)}
        for i, v in enumerate(np.repeat(values, 2))
    ]
    said = run(Anomaly, {"alarms": "2 per hour"}, rows, schema=NUMBER)
    assert sum(row["score"] is not None and row["score"] > 0 for row in said) >= 8
    assert {row["anomaly"] for row in said} == {True, False, None}


def test_an_int_is_watched_as_well_and_a_prefix_names_what_is_added() -> None:
    rows: list[Reading] = [{"key": "a", "time": i * 300, "count": 1 + i % 2} for i in range(110)]
    rows.append({"key": "a", "time": 110 * 300, "count": 90})
    said = run(Anomaly, {"prefix": "count_"}, rows, schema=Schema("key", {"count": Field("int")}))
    assert list(said[0]) == ["key", "time", "count", "count_score", "count_expected", "count_detector", "count_anomaly"]
    assert said[-1]["count"] == 90
    assert said[-1]["count_anomaly"] is True


def test_what_was_learned_outlives_another_rate_of_alarms() -> None:
    operator, _ = make(Anomaly, {}, NUMBER)
    other, _ = make(Anomaly, {"alarms": "1 per day", "prefix": "x_"}, NUMBER)
    assert {"alarms", "prefix"} == set(Anomaly.presentation)
    values = 20 + noise(1_000)
    for one in (operator, other):
        one.context.keys.codes(["a"])
    frame = Frame(START + np.arange(1_000) * FIVE_MINUTES, np.zeros(1_000, np.int32), np.arange(1_000), {}, NO_PROGRESS)
    for state in operator.context.states.values():
        state.grow(1)
    operator.on_frame(frame.with_columns({"value": Column(values)}))
    other.restore(operator.snapshot())
    spike = frame.take(slice(999, 1_000)).with_columns({"value": Column(np.array([40.0]))})
    assert other.on_frame(spike)["x_anomaly"].tolist() == [True]


def test_the_memory_of_a_key_is_as_stated() -> None:
    operator, _ = make(Anomaly, {}, NUMBER)
    operator.context.keys.codes([f"s{i}" for i in range(10_000)])
    for state in operator.context.states.values():
        state.grow(10_000)
    bytes_a_key = sum(array.nbytes for array in operator.snapshot().values()) / 10_000
    assert f"Memory: {bytes_a_key:,.0f} bytes for each key" in (Anomaly.__doc__ or "")


@pytest.mark.parametrize(
    ("wrong", "setting", "text"),
    [
        ({}, "field", "which field is watched? (there are temperature, count)"),
        ({"field": "temprature"}, "field", '"temprature" is not a field (did you mean "temperature"?)'),
        ({"field": "door"}, "field", '"door" is bool; only numbers can be unusual'),
        ({"alarms": "often"}, "alarms", '"often" is no rate of alarms; write it as "1 per week" or "2 per 10 d"'),
        (
            {"alarms": "0 per week"},
            "alarms",
            '"0 per week" is no rate of alarms; write it as "1 per week" or "2 per 10 d"',
        ),
        ({"alarms": "1 per moon"}, "alarms", "or hour, day, week, month or year"),
        ({"prefix": "my_"}, "prefix", 'the input has "my_score" already; a prefix makes another name of it'),
    ],
)
def test_a_wrong_setting_is_told(wrong: dict[str, str], setting: str, text: str) -> None:
    fields = {"temperature": Field("float"), "count": Field("int"), "door": Field("bool"), "my_score": Field("string")}
    _, problems = make(Anomaly, {**({"field": "count"} if wrong else {}), **wrong}, Schema("key", fields))
    (problem,) = problems
    assert problem[0] == setting
    assert text in problem[1]


# --- the oracle -------------------------------------------------------------------------------------------------------


class Oracle:
    """One key, one reading at a time, as the docstring says it: dictionaries, no arrays, nothing put off."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.seen: list[float] = []
        self.mean: dict[str, float] = {}
        self.square: dict[str, float] = {}
        self.smooth = {"day": 0.0, "week": 0.0}
        self.profile: dict[tuple[str, int], tuple[int, float]] = {}
        self.of_hour: list[float] = []
        self.hour = 0
        self.usual = {"day": 0.0, "week": 0.0}
        self.block: list[dict[str, float]] = []
        self.peaks: dict[str, list[float]] = {}
        self.told = (0.0, 0)  # a surprise, and after how many readings
        self.threshold = 0.6
        self.until = 0.0

    def __call__(self, value: float, time: int) -> tuple[float, float, str | None, bool]:
        n = len(self.seen)
        share = max(1 / 2000, 1 / (n + 1))
        if not n:
            self.mean = dict.fromkeys(("recent", "slow", "level", "short"), value)
            self.usual, self.hour, self.until = dict.fromkeys(self.usual, value), time // 3600, float(time)
        self._hour(time // 3600, value)
        mean = dict(self.mean)
        shares = {"recent": 0.1, "slow": 0.02, "level": 1 / 2000, "short": 0.04}
        for name, least in shares.items():
            self.mean[name] += max(least, share) * (value - mean[name])
        for name in self.smooth:
            self.smooth[name] += 0.15 * (value - self.usual[name] - self.smooth[name])
        errors = {name: value - mean[name] for name in ("recent", "slow", "level")}
        errors |= {"shift": self.mean["short"] - mean["level"], **self.smooth}
        ratios = {name: self._ratio(name, error, share) for name, error in errors.items()}
        repeats = next((i for i, before in enumerate(reversed(self.seen)) if before != value), n)
        ratios["stuck"] = exp(2 * (min(repeats, 792) / 24 - 1)) if repeats > 24 else 0.0
        self.seen.append(value)
        looked_for = {**mean, "shift": mean["level"], **self.usual, "stuck": value}
        answer = self._judge(ratios, looked_for, time)
        self.block.append(ratios)
        if len(self.block) == 20:
            for name in ratios:
                faded = [peak * (1 - 1 / 5000) for peak in self.peaks.get(name, [0.0] * 5)]
                self.peaks[name] = sorted([*faded, min(max(r[name] for r in self.block), 1e30)], reverse=True)[:5]
            self.block = []
        return answer

    def _hour(self, hour: int, value: float) -> None:
        if hour != self.hour:
            total = 0.0
            for one in self.of_hour:
                total += one
            average = total / len(self.of_hour)
            for name, length, least in (("day", 24, 0.3), ("week", 168, 0.5)):
                visits, known = self.profile.get((name, self.hour % length), (0, average))
                known = known + max(least, 1 / (visits + 1)) * (average - known)
                self.profile[name, self.hour % length] = (visits + 1, known)
            day_usual = self.profile.get(("day", hour % 24), (0, self.mean["level"]))[1]
            self.usual = {"day": day_usual, "week": self.profile.get(("week", hour % 168), (0, day_usual))[1]}
            self.hour, self.of_hour = hour, []
        self.of_hour.append(value)

    def _ratio(self, name: str, error: float, share: float) -> float:
        square, usual = error * error, self.square.get(name, 0.0)
        self.square[name] = usual + share * (square - usual)
        if usual:
            return square / usual
        return min(len(self.seen) + 1, 2000) if square else 0.0

    def _judge(
        self, ratios: dict[str, float], looked_for: dict[str, float], time: int
    ) -> tuple[float, float, str | None, bool]:
        n = len(self.seen)
        quiet = (0.0, looked_for["recent"], None, False)
        blocks = min((n - 1) // 20, 1000)
        if blocks < 5:
            return quiet
        rare = {}
        for name, ratio in ratios.items():
            floor = 1.0 if name == "stuck" else 4.0
            peaks = [max(peak, floor) for peak in self.peaks[name]]
            if ratio > peaks[-1]:
                total = 3 * 0.2
                for peak in peaks[:-1]:
                    total += 0.5 * log(peak / peaks[-1])
                excess = 0.5 * log(min(ratio, 1e30) / peaks[-1])
                rare[name] = (log(blocks / 5) + 7 * log1p(excess / total)) / log(10)
        if not rare:
            return quiet
        mixed = (sum(digits * sqrt(digits) for digits in rare.values()) / 7) ** (1 / 1.5)
        self.threshold = max(0.2, self.threshold - 0.1 * self.rate * max(0.0, time - self.until))
        self.until = max(self.until, time)
        news = max(0.0, mixed - self.told[0] * 0.99 ** (n - self.told[1]))
        score = news / (news + self.threshold)
        if score > 0.5:
            self.threshold += 0.1
            self.told = (mixed, n)
        loudest = max(rare, key=lambda name: rare[name])
        return score, looked_for[loudest], loudest, score > 0.5


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[int, float]]:
    """Times in s and values of a sensor whose manner changes now and then."""
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    values: list[float] = []
    for _ in range(draw(st.integers(1, 5))):
        n = draw(st.integers(20, 200))
        level, scale = draw(st.sampled_from([0.0, 20.0, -3.5])), draw(st.sampled_from([0.0, 0.1, 1.0, 30.0]))
        heavy = draw(st.booleans())
        values += (level + scale * (random.standard_t(2, n) if heavy else random.normal(size=n))).tolist()
    step = draw(st.sampled_from([60, 300, 3_600, 43_200]))
    jitter = random.integers(-step, step, len(values)) if draw(st.booleans()) else np.zeros(len(values), np.int64)
    return [
        (1_700_000_000 + i * step + int(j), v) for i, (v, j) in enumerate(zip(values, jitter.tolist(), strict=True))
    ]


@pytest.mark.parametrize("together", [1, TOGETHER])
def test_it_agrees_with_a_plain_reading_by_reading_oracle(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of computing: for many keys at once, and for few."""
    monkeypatch.setattr(module, "TOGETHER", together)

    @settings(max_examples=25, deadline=None)
    @given(st.lists(lives(), min_size=1, max_size=3), st.integers(1, 400))
    def holds(keys: list[list[tuple[int, float]]], cut: int) -> None:
        agrees(keys, cut)

    holds()


@pytest.mark.parametrize("together", [1, TOGETHER])
def test_runs_of_one_value_are_judged_by_the_runs_before(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the oracle: longer, shorter and again longer ones, with noise between; and two visits a day to the profile."""
    monkeypatch.setattr(module, "TOGETHER", together)
    values = noise(900)
    for start, length in ((150, 60), (330, 80), (500, 40), (640, 90), (800, 60)):
        values[start : start + length] = values[start]
    agrees([[(1_700_000_000 + i * 43_200, float(value)) for i, value in enumerate(values)]] * 2, 37)


def agrees(keys: list[list[tuple[int, float]]], cut: int) -> None:
    operator, _ = make(Anomaly, {"alarms": "1 per day"}, NUMBER)
    operator.context.keys.codes([f"s{code}" for code in range(len(keys))])
    for state in operator.context.states.values():
        state.grow(len(keys))
    turns = sorted((i, code, *reading) for code, readings in enumerate(keys) for i, reading in enumerate(readings))
    oracles = [Oracle(1 / 86_400) for _ in keys]
    for start in range(0, len(turns), cut):
        part = turns[start : start + cut]
        _, codes, times, values = (list(column) for column in zip(*part, strict=True))
        frame = Frame(
            np.array(times, np.int64) * SECOND,
            np.array(codes, np.int32),
            np.arange(start, start + len(part)),
            {"value": Column(np.array(values, np.float64))},
            NO_PROGRESS,
        )
        found = operator.on_frame(frame)
        for row, (_, code, time, value) in enumerate(part):
            score, expected, detector, anomaly = oracles[code](value, time)
            assert found["score"].values[row] == pytest.approx(score, rel=1e-9, abs=1e-12)
            assert found["expected"].values[row] == pytest.approx(expected, rel=1e-9, abs=1e-9)
            assert found["detector"].tolist()[row] == detector
            assert found["anomaly"].values[row] == anomaly
