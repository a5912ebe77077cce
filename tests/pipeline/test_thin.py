"""A thinned row says what the readings that it stands for were, however often it was thinned on the way."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.frame import NO_PROGRESS, SECOND, Field, Frame, Schema, column, concatenate, rows
from pipeline.frame_bytes import decode, encode
from pipeline.thin import LADDER, is_thinned, readings, thin
from pipeline.thin import shown as shown_as

SCHEMA = Schema(
    "id", {"x": Field("float"), "n": Field("int", True), "door": Field("bool", True), "note": Field("string")}
)
KEYS = ["a", "b", "c"]

Reading = tuple[int, int, float, int | None, bool | None, str]  # key, s, x, n, door, note
some_readings = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 4000),
        st.floats(-1e6, 1e6),
        st.none() | st.integers(-(2**40), 2**40),
        st.none() | st.booleans(),
        st.text(max_size=3),
    ),
    min_size=1,
    max_size=60,
).map(lambda found: sorted(found, key=lambda r: r[1]))


def frame(found: list[Reading]) -> Frame:
    key, at, x, n, door, note = zip(*found, strict=True)
    columns = {
        "x": column("float", x),
        "n": column("int", n),
        "door": column("bool", door),
        "note": column("string", note),
    }
    time = np.array(at, np.int64) * SECOND
    return Frame(time, np.array(key, np.int32), np.arange(len(found)), columns, NO_PROGRESS)


def shown(thinned: Frame) -> list[dict[str, Any]]:
    return rows(*shown_as(thinned, SCHEMA), KEYS, "s")


def naive(found: list[Reading], level: int) -> list[dict[str, Any]]:
    groups: dict[tuple[int, int], list[Reading]] = {}
    for reading in found:
        groups.setdefault((reading[0], reading[1] * SECOND // LADDER[level - 1]), []).append(reading)
    made = []
    for group in groups.values():
        row: dict[str, Any] = {
            "id": KEYS[group[0][0]],
            "time": group[0][1],
            "thinned": len(group),
            "until": group[-1][1],
        }
        for name, at in (("x", 2), ("n", 3)):
            values = [r[at] for r in group if r[at] is not None]
            numbers: dict[str, Any] = {
                "": lambda v: math.fsum(v) / len(v),
                "_first": lambda v: v[0],
                "_last": lambda v: v[-1],
                "_min": min,
                "_max": max,
            }
            row |= {name + part: of(values) if values else None for part, of in numbers.items()}
            row[f"{name}_count"] = len(values)
        for name, at in (("door", 4), ("note", 5)):
            row[name] = next((r[at] for r in reversed(group) if r[at] is not None), None)
        made.append(row)
    return sorted(made, key=lambda row: (row["time"], row["id"]))


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        for mean in ("x", "n"):
            got, want = a.pop(mean), b.pop(mean)
            assert (got is None) == (want is None)
            assert got is None or math.isclose(got, want, rel_tol=1e-9, abs_tol=1e-6)
        assert a == b


@given(some_readings, st.integers(1, len(LADDER)))
def test_what_a_row_stands_for(found: list[Reading], level: int) -> None:
    same(shown(thin(frame(found), SCHEMA, level)), naive(found, level))


@given(some_readings, st.lists(st.integers(0, 60), max_size=3), st.integers(1, 3), st.integers(3, len(LADDER)))
def test_thinned_in_pieces_and_again(found: list[Reading], cuts: list[int], first: int, then: int) -> None:
    edges = sorted({0, len(found), *(c for c in cuts if c < len(found))})
    whole = frame(found)  # arrival numbers go on from piece to piece, and decide between readings of one time
    pieces = [thin(whole.take(np.arange(a, b)), SCHEMA, first) for a, b in pairwise(edges)]
    stored = [decode(encode(piece), NO_PROGRESS) for piece in pieces]
    again = thin(concatenate(stored), SCHEMA, then)
    assert is_thinned(again)
    same(shown(again), naive(found, then))


def test_rows_as_they_came_keep_their_schema() -> None:
    raw = frame([(0, 0, 1.0, 1, True, "")])
    assert shown_as(raw, SCHEMA) == (raw, SCHEMA)


def plain(time: list[int], **columns: list[Any]) -> Frame:
    kinds = {float: "float", int: "int", str: "string"}
    made = {n: column(kinds[type(next(v for v in c if v is not None))], c) for n, c in columns.items()}
    at = np.array(time, np.int64) * SECOND
    return Frame(at, np.zeros(len(at), np.int32), np.arange(len(at)), made, NO_PROGRESS)


def test_a_late_reading_is_not_the_last() -> None:
    """It came after the thinned row, and lies before its end."""
    schema = Schema("id", {"x": Field("float")})
    thinned = thin(plain([0, 8], x=[1.0, 2.0]), schema, 1)
    late = thin(plain([5], x=[9.0]), schema, 1)
    (row,) = rows(*shown_as(thin(concatenate([thinned, late]), schema, 1), schema), KEYS, "s")
    assert (row["thinned"], row["until"], row["x_first"], row["x_last"], row["x_max"]) == (3, 8, 1.0, 2.0, 9.0)


def test_fields_with_the_names_that_thinning_adds() -> None:
    """Those of the stream stay; what is added gives way. So it does at the second thinning."""
    schema = Schema("until", {name: Field("float") for name in ("t", "t_min", "thinned")})
    raw = plain([0, 1, 70], t=[1.0, 3.0, 8.0], t_min=[10.0, 30.0, 20.0], thinned=[5.0, 7.0, 9.0])
    (row,) = rows(*shown_as(thin(thin(raw, schema, 1), schema, 3), schema), KEYS, "s")
    assert (row["t"], row["thinned_t_min"], row["t_min"], row["t_min_min"]) == (4.0, 1.0, 20.0, 10.0)
    assert (row["thinned"], row["thinned_thinned"], row["thinned_min"]) == (7.0, 3, 5.0)
    assert (row["until"], row["thinned_until"]) == ("a", 70)


def test_rows_of_an_earlier_pipeline_file_are_shown_as_they_were() -> None:
    """Of a stream that has other fields by now, or is gone."""
    raw = plain([0, 1], x=[1.0, 2.0], n=[1, None], note=["a", "b"])
    for schema in (None, Schema("key", {"x": Field("string"), "new": Field("int")})):
        found = rows(*shown_as(raw, schema), KEYS, "s")
        assert found[1] == {"key": "a", "time": 1, "x": 2.0, "n": None, "note": "b"}
        (row,) = rows(*shown_as(thin(raw, schema, 1), schema), KEYS, "s")
        assert (row["x"], row["n_count"], row["note"], row["thinned"]) == (1.5, 1, "b", 2)


def test_values_at_the_edge_of_what_a_number_holds() -> None:
    """A mean lies between the least and the greatest, also where the sum would be too large; NaN is a value."""
    schema = Schema("id", {"x": Field("float")})

    def mean(*x: float) -> float:
        (row,) = rows(*shown_as(thin(plain(list(range(len(x))), x=list(x)), schema, 1), schema), KEYS)
        return float(row["x"])

    assert mean(1.7e308, 1.7e308, 1.7e308) == 1.7e308
    assert mean(*[21.7] * 9) == 21.7
    assert math.isnan(mean(1.0, math.nan))
    assert math.isnan(mean(math.inf, -math.inf))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4000)), min_size=1, max_size=40))
def test_none_is_lost_in_any_order(found: list[tuple[int, int]]) -> None:
    """Also where readings come late: how many, the least, the greatest and the mean are those of all."""
    made = frame([(key, at, float(at), None, None, "") for key, at in found])
    cut = len(found) // 2
    pieces = [thin(made.take(part), SCHEMA, 1) for part in (slice(0, cut), slice(cut, None)) if len(made.take(part))]
    thinned = thin(concatenate(pieces), SCHEMA, 4)
    assert readings(thinned) == len(found)
    wanted = naive(sorted(((k, a, float(a), None, None, "") for k, a in found), key=lambda r: r[1]), 4)
    for row, want in zip(shown(thinned), wanted, strict=True):
        assert [row[n] for n in ("time", "until", "x_min", "x_max")] == [
            want[n] for n in ("time", "until", "x_min", "x_max")
        ]
        assert math.isclose(row["x"], want["x"], rel_tol=1e-9, abs_tol=1e-9)
