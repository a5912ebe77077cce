"""A thinned row says what the readings that it stands for were, however often it was thinned on the way."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.frame import NO_PROGRESS, SECOND, Field, Frame, Schema, column, concatenate, decode, encode, rows
from pipeline.thin import LADDER, is_thinned, schema_of, thin

SCHEMA = Schema(
    "id", {"x": Field("float"), "n": Field("int", True), "door": Field("bool", True), "note": Field("string")}
)
KEYS = ["a", "b", "c"]

Reading = tuple[int, int, float, int | None, bool | None, str]  # key, s, x, n, door, note
readings = st.lists(
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
    return rows(thinned, schema_of(SCHEMA, thinned), KEYS, "s")


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


@given(readings, st.integers(1, len(LADDER)))
def test_what_a_row_stands_for(found: list[Reading], level: int) -> None:
    same(shown(thin(frame(found), SCHEMA, level)), naive(found, level))


@given(readings, st.lists(st.integers(0, 60), max_size=3), st.integers(1, 3), st.integers(3, len(LADDER)))
def test_thinned_in_pieces_and_again(found: list[Reading], cuts: list[int], first: int, then: int) -> None:
    edges = sorted({0, len(found), *(c for c in cuts if c < len(found))})
    pieces = [thin(frame(found[a:b]), SCHEMA, first) for a, b in pairwise(edges)]
    stored = [decode(encode(piece), NO_PROGRESS) for piece in pieces]
    again = thin(concatenate(stored), SCHEMA, then)
    assert is_thinned(again)
    same(shown(again), naive(found, then))


def test_rows_as_they_came_keep_their_schema() -> None:
    assert schema_of(SCHEMA, frame([(0, 0, 1.0, 1, True, "")])) is SCHEMA
