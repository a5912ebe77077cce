"""The history answers as a plain list of rows would."""

from __future__ import annotations

import apsw
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.component import RowsQuery
from pipeline.frame import NO_PROGRESS, Column, Field, Frame, Schema
from pipeline.journal import history
from pipeline.journal.schema import TABLES

SCHEMA = Schema("id", {"value": Field("float")})
Rows = list[list[tuple[int, int]]]  # Frames of (time, key)
bounds = st.none() | st.integers(-5, 40)


def database(frames: Rows) -> apsw.Connection:
    db = apsw.Connection(":memory:")
    db.execute(TABLES)
    seq = 0
    for step, rows in enumerate(frames):
        time = np.array([t for t, _ in rows], np.int64)
        key = np.array([k for _, k in rows], np.int32)
        numbers = np.arange(seq, seq + len(rows))
        seq += len(rows)
        frame = Frame(time, key, numbers, {"value": Column(numbers.astype(float))}, NO_PROGRESS)
        history.put(db, step, "s", frame, journal=False, history=True)
    return db


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=6), max_size=8),
    bounds,
    bounds,
    st.none() | st.lists(st.integers(0, 3)),
    st.integers(1, 12),
    st.booleans(),
)
def test_rows_by_time(
    frames: Rows, start: int | None, end: int | None, keys: list[int] | None, limit: int, descending: bool
) -> None:
    """Only what was asked for, by time and then arrival, the first (or last) `limit` of them."""
    query = RowsQuery("s", None, start, end, limit, descending)
    got = history.rows(database(frames), query, SCHEMA, keys)
    numbered = [(t, i, k) for i, (t, k) in enumerate(row for rows in frames for row in rows)]
    wanted = [
        (t, i)
        for t, i, k in sorted(numbered, reverse=descending)
        if (start is None or t >= start) and (end is None or t < end) and (keys is None or k in keys)
    ]
    assert list(zip(got.time.tolist(), got.seq.tolist(), strict=True)) == wanted[:limit]


def test_info_and_pruning() -> None:
    db = database([[(0, 0), (5, 0)], [(6, 1)], [(20, 0)]])
    assert (history.info(db, "s", SCHEMA).rows, history.info(db, "s", SCHEMA).newest) == (4, 20)
    history.prune(db, ["s"], before=6, max_bytes=None)
    assert history.info(db, "s", SCHEMA).oldest == 6
    history.prune(db, ["s"], before=None, max_bytes=1)
    assert history.info(db, "s", SCHEMA).rows == 0
