"""What `calibrate` promises, beyond the contract that every operator keeps."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.calibrate import Calibrate
from pipeline.frame import Field, KeyTable, Schema, rows
from pipeline.testing import READINGS, Stream, frames, make, run, streams

# What the contract tries (tests/test_contract.py).
EXAMPLES: list[dict[str, Any]] = [
    {"fields": {"value": {"gain": 1.02, "offset": -0.5}, "count": {"polynomial": [1, 0.5, -0.1]}}},
    {
        "fields": {"value": {"points": [[-1, 0], [0, 3], [2, 4]], "outside": "missing"}},
        "by_key": {"b": {"value": {"from": "degF", "to": "degC"}}, "c": {"count": {"offset": 2}}},
    },
]


def corrected(correction: dict[str, Any], *values: float | None) -> list[float | None]:
    stream: Stream = [{"key": "a", "time": i, "value": value} for i, value in enumerate(values)]
    return [row["value"] for row in run(Calibrate, {"fields": {"value": correction}}, stream)]


def test_gain_then_offset() -> None:
    assert corrected({"gain": 2, "offset": -0.5}, 0, 10, None) == [-0.5, 19.5, None]
    assert corrected({"offset": 1}, 3) == [4]
    assert corrected({"gain": -1}, 3) == [-3]


POINTS = [[0, 4], [10, 14], [20, 14], [30, 0]]


def test_each_point_is_met_and_lines_lead_from_one_to_the_next() -> None:
    assert corrected({"points": POINTS}, 0, 5, 10, 15, 20, 25, 30, None) == [4, 9, 14, 14, 14, 7, 0, None]
    uneven = [
        [0.0, 1.4],
        [0.9, 0.5],
        [1.5, 1.9],
    ]  # reckoned from the second point alone the third would be 1.9000000000000001
    assert corrected({"points": uneven}, *(x for x, _ in uneven)) == [y for _, y in uneven]


def test_beyond_the_points_is_as_one_wishes() -> None:
    assert corrected({"points": POINTS}, -10, 40) == [-6, -14]
    assert corrected({"points": POINTS, "outside": "clamp"}, -10, 40) == [4, 0]
    assert corrected({"points": POINTS, "outside": "missing"}, -10, 0, 30, 40) == [None, 4, 0, None]


def test_a_polynomial_begins_with_its_constant() -> None:
    assert corrected({"polynomial": [1, 2, 3]}, 0, 1, 2, -1) == [1, 6, 17, 2]


def test_what_is_beyond_all_numbers_is_missing() -> None:
    assert corrected({"polynomial": [0, 1, -1, 1]}, 1e200, 2) == [None, 6]
    assert make(Calibrate, {"fields": {"value": {"polynomial": [0, 1, 1]}}})[0].schema.fields["value"].optional


@pytest.mark.parametrize(
    ("unit", "wanted", "pairs"),
    [
        ("degC", "degF", [(0, 32), (100, 212), (-40, -40)]),
        ("degF", "degC", [(32, 0), (212, 100), (-40, -40)]),
        ("degC", "kelvin", [(0, 273.15), (-273.15, 0)]),
        ("delta_degF", "delta_degC", [(0, 0), (9, 5)]),
        ("m/s", "km/h", [(10, 36)]),
        ("psi", "bar", [(14.503773773020923, 1)]),
        ("kWh", "MJ", [(1, 3.6)]),
    ],
)
def test_units(unit: str, wanted: str, pairs: list[tuple[float, float]]) -> None:
    """Temperatures too, which a gain alone does not convert; and to the last digits, since fractions are reckoned with."""
    found = corrected({"from": unit, "to": wanted}, *(value for value, _ in pairs))
    for got, (_, want) in zip(found, pairs, strict=True):
        assert got == pytest.approx(want, rel=1e-14, abs=1e-13)


def test_zero_celsius_is_32_fahrenheit_and_nothing_less() -> None:
    assert corrected({"from": "degC", "to": "degF"}, 0) == [32.0]


def test_units_come_after_the_correction() -> None:
    assert corrected({"offset": -2, "from": "degC", "to": "degF"}, 2) == [32]
    assert corrected({"polynomial": [0, 0, 1], "from": "m", "to": "mm"}, 3) == [9000]
    assert corrected({"points": [[0, 0], [10, 100]], "from": "degC", "to": "degF"}, 5) == [122]


def test_a_key_may_have_its_own() -> None:
    """The whole of it: the offset of the others does not hold for it. A key that comes later is looked up, too."""
    own = {"fields": {"value": {"offset": 1}}, "by_key": {"b": {"value": {"gain": 10}}}}
    assert [r["value"] for r in run(Calibrate, own, "a1 b1 c1 b2")] == [2, 10, 2, 20]
    only = {"by_key": {"b": {"value": {"points": [[0, 5], [1, 6]]}}}}
    assert [r["value"] for r in run(Calibrate, only, "a1 b1 c- b-")] == [1, 6, None, None]


def test_what_comes_out_has_its_kind() -> None:
    schema = Schema("key", {"n": Field("int"), "v": Field("float", optional=True)})
    given_settings = {"fields": {"n": {"offset": 0.5}}}
    assert make(Calibrate, given_settings, schema)[0].schema.fields == {"n": Field("float"), "v": Field("float", True)}
    (row,) = run(Calibrate, given_settings, [{"key": "a", "time": 0, "n": 1, "v": 2.0}], schema=schema)
    assert (row["n"], row["v"]) == (1.5, 2.0)


def test_mistakes_are_named() -> None:
    schema = Schema("key", {"value": Field("float"), "door": Field("bool")})
    wrong = {
        "valeu": {"gain": 2},
        "door": {"gain": 2},
    }
    found = make(Calibrate, {"fields": wrong}, schema)[1]
    assert [setting for setting, _ in found] == ["fields.valeu", "fields.door"]
    assert 'did you mean "value"' in found[0][1]
    for correction, said in [
        ({}, "nothing is corrected"),
        ({"gain": 0}, "every reading the same"),
        ({"polynomial": [3, 0]}, "every reading the same"),
        ({"gain": 1, "points": [[0, 0], [1, 1]]}, "gain or points, not both"),
        ({"points": [[0, 0]]}, "two points"),
        ({"points": [[1, 0], [0, 1]]}, "higher raw value"),
        ({"offset": math.inf}, "finite"),
        ({"from": "degC"}, "together"),
        ({"from": "degC", "to": "bar"}, "cannot be converted"),
        ({"from": "degree_selsius", "to": "bar"}, "degree_selsius"),
        ({"from": "dBm", "to": "mW"}, "dBm"),
    ]:
        (problem,) = make(Calibrate, {"by_key": {"b": {"value": correction}}}, schema)[1]
        assert problem[0].startswith("by_key.b.value"), problem
        assert said in problem[1], problem
    assert "name at least one" in make(Calibrate, {}, schema)[1][0][1]


numbers = st.integers(-40, 40).map(lambda n: n / 4)
raw_points = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=5, unique_by=lambda p: p[0]).map(sorted)
corrections = st.one_of(
    st.fixed_dictionaries({"gain": numbers.filter(bool), "offset": numbers}),
    st.fixed_dictionaries({"points": raw_points, "outside": st.sampled_from(["extend", "clamp", "missing"])}),
    st.fixed_dictionaries({"polynomial": st.lists(numbers, min_size=1, max_size=3).map(lambda c: [*c, 1.0])}),
)


def told(correction: dict[str, Any], x: float) -> float | None:
    """The oracle: from the definitions, one number at a time."""
    if "points" in correction:
        points, outside = correction["points"], correction["outside"]
        if not points[0][0] <= x <= points[-1][0]:
            if outside == "missing":
                return None
            if outside == "clamp":
                return float(points[0][1] if x < points[0][0] else points[-1][1])
        lines = list(pairwise(points))
        (x0, y0), (x1, y1) = next((line for line in lines if x <= line[1][0]), lines[-1])
        return float(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
    if "polynomial" in correction:
        return float(sum(c * x**power for power, c in enumerate(correction["polynomial"])))
    return float(correction["gain"] * x + correction["offset"])


@settings(deadline=None)
@given(streams(), corrections, st.dictionaries(st.sampled_from("ab"), corrections))
def test_the_columns_agree_with_a_plain_loop(stream: Stream, one: dict[str, Any], own: dict[str, Any]) -> None:
    keys = KeyTable()
    given_settings = {"fields": {"value": one}, "by_key": {key: {"value": c} for key, c in own.items()}}
    operator, _ = make(Calibrate, given_settings, keys=keys)
    found = [
        row["value"]
        for frame in frames(stream, READINGS, keys)
        for row in rows(operator.on_frame(frame), operator.schema, keys.names)
    ]
    readings = [reading for reading in stream if isinstance(reading, dict)]
    want = [None if r["value"] is None else told(own.get(r["key"], one), r["value"]) for r in readings]
    assert found == [None if w is None else pytest.approx(w, abs=1e-9) for w in want]
