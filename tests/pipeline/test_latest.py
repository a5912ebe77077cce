"""What is shown as the newest row of each key, whenever it is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.frame import NO_PROGRESS, Column, Field, Frame, Schema
from pipeline.latest import WAITING_FRAMES, WAITING_ROWS, Latest

SCHEMA = Schema("id", {"value": Field("float", optional=True)})

Row = tuple[int, int, float | None]  # time, key, value


def frame(rows: list[Row]) -> Frame:
    times, keys, values = zip(*rows, strict=True) if rows else ((), (), ())
    known = np.array([v is not None for v in values], np.bool_)
    column = Column(np.array([v or 0.0 for v in values], np.float64), None if known.all() else known)
    return Frame(
        np.array(times, np.int64), np.array(keys, np.int32), np.arange(len(rows)), {"value": column}, NO_PROGRESS
    )


def told(latest: Latest) -> dict[int, tuple[int, float | None]]:
    found = latest.frame()
    rows = zip(found.key.tolist(), found.time.tolist(), found["value"].tolist(), strict=True)
    return {key: (time, value) for key, time, value in rows}


some_rows = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.none() | st.integers(1, 99).map(float)))


@given(st.lists(st.tuples(some_rows, st.sampled_from(["", "look", "restart"]))))
def test_of_rows_of_one_time_the_last_to_arrive(steps: list[tuple[list[Row], str]]) -> None:
    """The oracle: one row at a time, a dictionary. When somebody looks, and a restart from a snapshot, change nothing."""
    latest = Latest(SCHEMA)
    expected: dict[int, tuple[int, float | None]] = {}
    for rows, then in steps:
        latest.update(frame(rows))
        for time, key, value in rows:
            if key not in expected or time >= expected[key][0]:
                expected[key] = (time, value)
        if then == "look":
            assert told(latest) == expected
            assert latest.keys() == len(expected)
        elif then == "restart":
            saved, latest = latest.snapshot(), Latest(SCHEMA)
            latest.restore(saved)
    assert told(latest) == expected


@pytest.mark.parametrize("rows", [1, 50, 2 * WAITING_ROWS])
def test_what_waits_for_its_place_is_bounded(rows: int) -> None:
    """Nobody asks: rows do not pile up, whether they come one by one or many at once."""
    latest = Latest(SCHEMA)
    for i in range(3 * WAITING_FRAMES):
        latest.update(frame([(i, key, float(i)) for key in range(rows)]))
        assert len(latest.waiting) < WAITING_FRAMES
        assert sum(map(len, latest.waiting)) < WAITING_ROWS
    assert told(latest) == dict.fromkeys(range(rows), (3 * WAITING_FRAMES - 1, 3 * WAITING_FRAMES - 1.0))
