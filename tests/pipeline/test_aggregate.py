"""What the aggregates promise: each against plain Python, over every kind of value, however the readings are cut."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.aggregate import AGGREGATES, Aggregates
from pipeline.aggregate.cells import Cells
from pipeline.aggregate.kept import Kept
from pipeline.aggregate.slots import Slots
from pipeline.component import OperatorContext
from pipeline.frame import NO_PROGRESS, SECOND, Field, Frame, KeyTable, Schema, column

END = 100 * SECOND  # of the one window of these tests

Point = tuple[int, Any]  # time in ns, value

# --- the oracle: a list of (time, value) in order of arrival, without missing ones ---


def quantile(values: list[Any], q: float) -> float:
    values = sorted(values)
    at = q * (len(values) - 1)
    low, high = values[math.floor(at)], values[math.ceil(at)]
    return low + (high - low) * (at - math.floor(at))


def rate(points: list[Point]) -> float | None:
    points = sorted(points, key=lambda p: p[0])
    seconds = (points[-1][0] - points[0][0]) / SECOND
    increase = 0.0
    for (_, before), (_, now) in itertools.pairwise(points):
        increase += now - before if now >= before else now
    return increase / seconds if seconds else None


def time_weighted_mean(points: list[Point]) -> float:
    points = sorted(points, key=lambda p: p[0])
    until = [t for t, _ in points[1:]] + [END]
    held = [(end - t, v) for (t, v), end in zip(points, until, strict=True)]
    return sum(span * v for span, v in held) / sum(span for span, _ in held)


def last(points: list[Point]) -> Any:
    return max(reversed(points), key=lambda p: p[0])[1]


def first(points: list[Point]) -> Any:
    return min(points, key=lambda p: p[0])[1]


def mode(points: list[Point]) -> Any:
    often = Counter(v for _, v in points)
    return min(v for v in often if often[v] == max(often.values()))


PICKED = {
    "min": lambda points: min(v for _, v in points),
    "max": lambda points: max(v for _, v in points),
    "first": first,
    "last": last,
    "mode": mode,
}
NUMERIC = {
    "sum": lambda points: sum(v for _, v in points),
    "mean": lambda points: statistics.fmean(v for _, v in points),
    "range": lambda points: max(v for _, v in points) - min(v for _, v in points),
    "delta": lambda points: last(points) - first(points),
    "variance": lambda points: statistics.variance(float(v) for _, v in points) if len(points) > 1 else None,
    "stddev": lambda points: statistics.stdev(float(v) for _, v in points) if len(points) > 1 else None,
    "median": lambda points: statistics.median(v for _, v in points),
    "quantile": lambda points: quantile([v for _, v in points], 0.95),
    "rate": rate,
    "time_weighted_mean": time_weighted_mean,
}


def expected(name: str, points: list[Point]) -> Any:
    if name == "count":
        return len(points)
    if name == "distinct":
        return len({v for _, v in points})
    return (PICKED | NUMERIC)[name](points) if points else None


# --- the columns ---


class Table:
    """One cell for each group, as a kind of windows keeps them."""

    def __init__(self, aggregates: Aggregates) -> None:
        self.aggregates = aggregates
        self.cells = Cells(aggregates.columns)
        self.kept = aggregates.store(lambda cells: cells >= 0)


def build(texts: dict[str, str], kind: str, *, optional: bool = True, nan: bool = False) -> Table:
    context = OperatorContext("node", Schema("key", {"x": Field(kind, optional, nan)}), KeyTable())
    made = Aggregates(texts, context)
    assert not context.problems, context.problems
    return Table(made)


def calls(kind: str) -> dict[str, str]:
    """Every aggregate that takes this kind, on x."""
    names = [n for n in AGGREGATES if n in PICKED or n in ("count", "distinct") or kind in ("float", "int", "bool")]
    return {n: "quantile(x, 0.95)" if n == "quantile" else f"{n}(x)" for n in names}


def feed(made: Table, kind: str, readings: list[tuple[int, int, Any]], cuts: set[int]) -> None:
    """Readings (group, time, value or None) of one window, in Frames that end before `cuts`."""
    bounds = sorted({0, len(readings), *(c for c in cuts if c < len(readings))})
    for a, b in itertools.pairwise(bounds):
        part = readings[a:b]
        group, time = np.array([g for g, _, _ in part]), np.array([t for _, t, _ in part])
        columns = {"x": column(kind, [v for _, _, v in part])}
        frame = Frame(time, group.astype(np.int32), np.arange(a, b), columns, NO_PROGRESS)
        values = made.aggregates.evaluate(frame)
        made.aggregates.add(made.cells.columns, made.cells.find(0, group), time, values)
        made.kept.add(group, time, values)


def results(made: Table, groups: list[int]) -> dict[str, list[Any]]:
    slots = made.cells.find(0, np.array(groups))
    ends, kept = np.full(len(groups), END), made.kept.select(np.array(groups))
    columns = made.aggregates.result(made.cells.columns, slots, ends, kept)
    return {name: c.tolist() for name, c in columns.items()}


values = {
    "float": st.one_of(st.integers(-8, 8).map(lambda n: n / 2), st.floats(-1e6, 1e6, width=32)),
    "int": st.integers(-5, 5),
    "bool": st.booleans(),
    "string": st.sampled_from(["", "open", "shut", "Ärger"]),
    "time": st.integers(0, 5).map(lambda s: s * SECOND),
}
streams = st.sampled_from(sorted(values)).flatmap(
    lambda kind: st.tuples(
        st.just(kind),
        st.lists(
            st.tuples(
                st.integers(0, 2), st.integers(0, 6).map(lambda s: s * SECOND), st.one_of(st.none(), values[kind])
            ),
            min_size=1,
            max_size=30,
        ),
        st.sets(st.integers(1, 29)),
    )
)


@given(streams)
def test_every_aggregate_says_what_plain_python_says(stream: Any) -> None:
    """Out of order, of several groups, with values missing; and every bit is the same however the readings are cut."""
    kind, readings, cuts = stream
    groups = sorted({g for g, _, _ in readings})
    made = build(calls(kind), kind)
    feed(made, kind, readings, cuts)
    got = results(made, groups)
    for i, group in enumerate(groups):
        points = [(t, v) for g, t, v in readings if g == group and v is not None]
        for name in calls(kind):
            want = expected(name, points)
            if isinstance(want, float):
                want = pytest.approx(want, rel=1e-9, abs=1e-9)
            assert got[name][i] == want, (name, points)
            if name in PICKED and points:
                assert type(got[name][i]) is {"float": float, "bool": bool, "string": str}.get(kind, int)
    whole = build(calls(kind), kind)
    feed(whole, kind, readings, set())
    assert str(results(whole, groups)) == str(got)


@given(streams)
def test_two_cells_that_merge_are_as_one(stream: Any) -> None:
    """As when two sessions become one: what came before some moment, and what is dated after it."""
    kind, readings, _ = stream
    early = [(0, t, v) for _, t, v in readings if t < 3 * SECOND]
    parts = build(calls(kind), kind)
    feed(parts, kind, [*early, *((1, t, v) for _, t, v in readings if t >= 3 * SECOND)], set())
    into, other = parts.cells.find(0, np.array([0, 1])).tolist()
    parts.aggregates.merge(parts.cells.columns, into, other)
    parts.kept.move(1, 0)
    whole = build(calls(kind), kind)
    feed(whole, kind, [*early, *((0, t, v) for _, t, v in readings if t >= 3 * SECOND)], set())
    got, want = results(parts, [0]), results(whole, [0])
    for name in got:
        expected = want[name][0]
        assert got[name][0] == (pytest.approx(expected, rel=1e-9, abs=1e-9) if type(expected) is float else expected)


def test_values_are_kept_while_their_cell_is_wanted() -> None:
    """Whether they are sorted in by now or not; and those of cells that are past are forgotten."""
    wanted = {0, 1, 2}
    kept = Kept([np.dtype(float)], lambda cells: np.isin(cells, list(wanted)))
    for turn in range(100):
        cells = np.arange(300) % 3
        kept.add(cells, cells * 0 + turn, [column("float", [float(turn)] * 300)])
    which, time, (values,) = kept.select(np.array([2, 5, 0]))
    assert sorted(set(which.tolist())) == [0, 2]
    assert time.tolist() == values.values.tolist()
    assert sorted(time[which == 0].tolist()) == [t for t in range(100) for _ in range(100)]
    assert (np.diff(time[which == 2]) >= 0).all()  # in order of arrival
    wanted.remove(1)
    assert len(kept.snapshot()[0]) == 20_000


def many(text: str, kind: str, found: list[Any], cuts: set[int]) -> Any:
    made = build({"a": text}, kind)
    feed(made, kind, [(0, t, v) for t, v in enumerate(found)], cuts)
    return results(made, [0])["a"][0]


def test_quantiles_of_many_values_are_within_half_a_percent() -> None:
    """Exact up to 4,096 values; beyond that every bit is still the same however the readings are cut."""
    random = np.random.default_rng(7)
    drawn = np.concatenate([random.lognormal(1, 3, 9000), -random.lognormal(0, 1, 3000), np.zeros(500)])
    found = random.permutation(drawn).tolist()
    for q in (0.0, 0.01, 0.25, 0.5, 0.95, 0.999, 1.0):
        text = f"quantile(x, {q})"
        assert many(text, "float", found[:4096], {100, 2000}) == pytest.approx(quantile(found[:4096], q), rel=1e-12)
        got = many(text, "float", found, {1, 4096, 5000, 9999})
        assert got == pytest.approx(quantile(found, q), rel=0.006, abs=1e-12)
        assert got == many(text, "float", found, set(range(10, 12000, 700)))
    assert many("median(x)", "float", [21.3] * 9000, {4096, 5000}) == pytest.approx(21.3, rel=0.005)


def test_values_of_a_cell_cost_what_is_different_among_them() -> None:
    """A day of readings with one decimal, and one of readings that are all different."""
    made = build({"m": "median(x)", "d": "distinct(x)"}, "float")
    random = np.random.default_rng(3)
    for found in (random.integers(0, 300, 80_000) / 10, random.normal(20, 5, 80_000)):
        feed(made, "float", [(0, t, v) for t, v in enumerate(found.tolist())], set(range(0, 80_000, 2000)))
        size = sum(len(array) for part in made.kept.snapshot() for array in part[:1])
        assert size < 2 * 4096


def test_beyond_the_limit_the_first_different_values_are_told_apart() -> None:
    """`distinct` says how many these are, `mode` is one of them; however the readings are cut."""
    found = [float(v) for v in range(4095)] + [-1.0] * 3 + [1e6] * 50 + [float(v) for v in range(5000, 9000)] + [7.0]
    for cuts in (set(), {4096, 4100, 6000}, set(range(5, 8000, 333))):
        assert many("distinct(x)", "float", found, cuts) == 4096
        assert many("mode(x)", "float", found, cuts) == -1.0
    assert many("distinct(x)", "float", found[:4090], {7}) == 4090
    texts = [f"k{v}" for v in range(5000)] + ["k3", "k4999", "k4999"]
    assert many("mode(x)", "string", texts, {4500}) == "k3"


def test_slots_are_taken_again() -> None:
    table = Slots({"sum": (np.int64, 7)})
    first = table.take(100)
    table["sum"][first] = np.arange(100)
    table.give_back(first[:50])
    again = table.take(50)
    assert set(again.tolist()) == set(first[:50].tolist())
    assert (table["sum"][again] == 7).all()
    assert (table["sum"][first[50:]] == np.arange(50, 100)).all()
    other = Slots({"sum": (np.int64, 7)})
    other.restore(table.snapshot())
    assert sorted(other["sum"][other.used()].tolist()) == sorted([7] * 50 + [*range(50, 100)])


@given(streams)
def test_a_value_that_is_never_missing_is_counted_with_the_readings(stream: Any) -> None:
    """Without `?` there is no mask and no count of its own; the answers are the same."""
    kind, readings, cuts = stream
    readings = [r for r in readings if r[2] is not None]
    groups = sorted({g for g, _, _ in readings})
    if not groups:
        return
    plain, masked = build(calls(kind), kind, optional=False), build(calls(kind), kind)
    for made in (plain, masked):
        feed(made, kind, readings, cuts)
    assert str(results(plain, groups)) == str(results(masked, groups))


def of(text: str, kind: str, points: list[tuple[float, Any]], **more: bool) -> Any:
    """One aggregate of readings (seconds, value)."""
    made = build({"a": text}, kind, **more)
    feed(made, kind, [(0, round(t * SECOND), v) for t, v in points], set())
    return results(made, [0])["a"][0]


def in_turn(*found: Any) -> list[tuple[float, Any]]:
    return list(enumerate(found))


def test_the_argument_may_be_any_expression() -> None:
    assert of("mean(x * 2 + 1)", "float", in_turn(1.0, 2.0)) == 4.0
    assert of("max(abs(x))", "float", in_turn(-3.0, 2.0)) == 3.0
    assert of("mean(x / 0)", "float", in_turn(1.0)) is None  # not defined: missing, and so left out
    assert of("last(time)", "float", in_turn(1.0, 2.0)) == SECOND


def test_true_and_false_count_as_one_and_zero() -> None:
    assert of("mean(x)", "bool", in_turn(True, False, True, True)) == 0.75
    assert of("sum(x)", "bool", in_turn(True, False, True)) == 2
    assert of("time_weighted_mean(x)", "bool", [(0, True), (25, False)]) == 0.25


def test_whole_numbers_beyond_64_bits_are_missing_and_never_wrong() -> None:
    big = 2**62
    assert of("sum(x)", "int", in_turn(big, big - 1)) is None
    assert of("range(x)", "int", in_turn(-big, big)) is None
    assert of("delta(x)", "int", in_turn(-big, big)) is None
    assert of("sum(x)", "int", in_turn(big, 1, -big)) == 1
    assert of("mean(x)", "int", in_turn(big, big)) == big


def test_a_float_that_overflows_is_missing() -> None:
    assert of("sum(x)", "float", in_turn(1e308, 1e308)) is None
    assert of("variance(x)", "float", in_turn(1e308, -1e308)) is None


def test_variance_of_values_far_from_zero() -> None:
    """The sum of squares alone would leave no digit right."""
    tiny = [1e9 + d for d in (0.1, 0.2, 0.3, 0.4)]
    assert of("variance(x)", "float", in_turn(*tiny)) == pytest.approx(statistics.variance(tiny), rel=1e-6)
    assert of("variance(x)", "float", in_turn(*[0.1] * 10)) == 0.0


def test_nan_goes_on_where_a_field_may_hold_it() -> None:
    nan = math.nan
    for text in ("sum(x)", "mean(x)", "min(x)", "last(x)", "variance(x)", "time_weighted_mean(x)"):
        assert math.isnan(of(text, "float", in_turn(1.0, nan), nan=True)), text
    assert of("distinct(x)", "float", in_turn(nan, 1.0, nan), nan=True) == 2
    assert of("first(x)", "float", in_turn(1.0, nan), nan=True) == 1.0


def test_a_counter_that_falls_has_begun_again_at_zero() -> None:
    assert of("rate(x)", "float", [(0, 10.0), (1, 14.0), (2, 3.0), (4, 5.0)]) == (4 + 3 + 2) / 4
    assert of("rate(x)", "float", [(1, 1.0), (1, 5.0)]) is None  # no time has passed


def test_a_value_that_never_changes_is_its_own_time_weighted_mean() -> None:
    """To the last bit, whatever the spans."""
    assert of("time_weighted_mean(x)", "float", [(0.1, 21.3), (0.7, 21.3), (33.3, 21.3)]) == 21.3


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("meen(x)", "float", 'there is no aggregate "meen" (did you mean "mean"?)'),
        ("p99(x)", "float", 'there is no aggregate "p99"; there are: count, sum, mean'),
        ("mean(y)", "float", '"y" is not a field of the input'),
        ("mean(x", "float", '"mean(x" is not an aggregate; write it as "mean(temperature)"'),
        ("x", "float", '"x" is not an aggregate'),
        ("mean(x) + 1", "float", '"mean(x) + 1" is not an aggregate'),
        ("mean(x, by=1)", "float", "is not an aggregate"),
        ("x.mean(1)", "float", "is not an aggregate"),
        ("mean()", "float", "mean() takes one value"),
        ("quantile(x)", "float", "quantile() takes a value and a share from 0 to 1"),
        ("quantile(x, 95)", "float", "the second argument of quantile() must be a number from 0 to 1, not 95"),
        ("quantile(x, True)", "float", "must be a number from 0 to 1"),
        ("mean(x)", "string", 'mean() takes numbers; "x" is text'),
        ("sum(time)", "float", 'sum() takes numbers; "time" is a time'),
        ("(" * 500, "float", "is not an aggregate"),
    ],
)
def test_what_is_wrong_is_said_once_with_the_way_out(text: str, kind: str, said: str) -> None:
    context = OperatorContext("node", Schema("key", {"x": Field(kind)}), KeyTable())
    Aggregates({"good": "count()", "bad": text}, context)
    assert [setting for setting, _ in context.problems] == ["aggregate.bad"]
    assert said in context.problems[0][1]


# --- cells ---

windows = st.one_of(st.integers(-3, 3), st.sampled_from([-(2**62) + 29, 2**40 + 17, 2**62 + 41]))


@given(st.lists(st.lists(st.tuples(windows, st.integers(0, 9_999_999)), min_size=1, max_size=200), max_size=6))
def test_a_cell_is_found_again_wherever_it_lies(frames: list[list[tuple[int, int]]]) -> None:
    """Against a dictionary: each (window, group) keeps its column's value while the table grows."""
    cells = Cells({"sum": (np.int64, 0)})
    sums: Counter[tuple[int, int]] = Counter()
    for frame in frames:
        window, group = np.array([w for w, _ in frame]), np.array([g for _, g in frame])
        same = len(set(window.tolist())) == 1
        slots = cells.find(int(window[0]) if same else window, group)
        assert (cells["window"][slots] == window).all()
        assert (cells["group"][slots] == group).all()
        np.add.at(cells["sum"], slots, np.ones(len(frame), np.int64))
        sums.update(frame)
    found = zip(*(cells[n][: len(cells)].tolist() for n in ("window", "group", "sum")), strict=True)
    assert {(w, g): n for w, g, n in found} == dict(sums)


def test_a_frame_may_bring_thousands_of_new_cells() -> None:
    """More than are looked at in the first go, of two windows in turns, each several times."""
    cells = Cells({"sum": (np.int64, 0)})
    group, window = np.arange(6000) % 1500, np.arange(6000) % 2
    slots = cells.find(window, group)
    assert (cells["window"][slots] == window).all()
    assert (cells["group"][slots] == group).all()
    assert len(cells) == len(set(slots.tolist())) == 1500


def test_past_windows_make_room_for_new_ones() -> None:
    """The table does not grow with the number of windows that have been."""
    cells = Cells({"sum": (np.float64, 0.0)})
    groups = np.arange(100)
    for window in range(1000):
        cells.oldest = window - 1
        slots = cells.find(window, groups)
        assert (cells["sum"][slots] == 0).all()
        cells["sum"][slots] += window
    assert (cells["sum"][cells.find(998, groups)] == 998).all()
    assert len(cells["sum"]) <= 1000
