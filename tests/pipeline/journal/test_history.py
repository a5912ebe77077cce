"""The history answers as a plain list of rows would."""

from __future__ import annotations

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.component import RowsQuery
from pipeline.frame import NO_PROGRESS, Column, Field, Frame, Schema
from pipeline.journal import compaction, history, retention
from pipeline.journal.schema import TABLES
from pipeline.packing import unpack_frame

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


def compact(db: apsw.Connection, least: int = 1) -> int:
    """Rearranged as if so little were worth it; how many pieces of work there were."""
    done = 0
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("LEAST_ROWS", 1),
            ("ROWS_A_KEY", least),
            ("MANY_FRAMES", 2),
            ("MANY_CHUNKS", 2),
            ("MOST_ROWS", 9),
        ):
            patch.setattr(compaction, name, value)
        while piece := compaction.find(db, "s", 4):
            assert compaction.replace(db, piece, list(piece.packed()))
            done += 1
            if done > 50:
                raise AssertionError("there is no end to it")
    return done


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=6), max_size=8),
    bounds,
    bounds,
    st.none() | st.lists(st.integers(0, 3)),
    st.integers(1, 12),
    st.booleans(),
    st.sampled_from([0, 1, 3]),
)
def test_rows_by_time(
    frames: Rows,
    start: int | None,
    end: int | None,
    keys: list[int] | None,
    limit: int,
    descending: bool,
    compacted: int,
) -> None:
    """Only what was asked for, by time and then arrival, the first (or last) `limit` of them; rearranged or not."""
    query = RowsQuery("s", None, start, end, limit, descending)
    db = database(frames)
    if compacted:
        compact(db, compacted)
    got = history.rows(db, query, SCHEMA, keys)
    numbered = [(t, i, k) for i, (t, k) in enumerate(row for rows in frames for row in rows)]
    wanted = [
        (t, i)
        for t, i, k in sorted(numbered, reverse=descending)
        if (start is None or t >= start) and (end is None or t < end) and (keys is None or k in keys)
    ]
    assert list(zip(got.time.tolist(), got.seq.tolist(), strict=True)) == wanted[:limit]


@pytest.mark.parametrize("compacted", [False, True])
def test_info_and_pruning(compacted: bool) -> None:
    db = database([[(0, 0), (5, 0)], [(6, 1)], [(20, 0)]])
    if compacted:
        compact(db)
        assert list(db.execute("SELECT id FROM frames")) == []
    assert (history.info(db, "s", SCHEMA).rows, history.info(db, "s", SCHEMA).newest) == (4, 20)
    retention.prune(db, ["s"], before=6, max_bytes=None)
    oldest = history.info(db, "s", SCHEMA).oldest
    assert oldest == (0 if compacted else 6)  # a chunk goes when its last row does
    retention.prune(db, ["s"], before=None, max_bytes=1)
    assert history.info(db, "s", SCHEMA).rows == 0


def test_one_after_the_other_becomes_chunks_of_a_few_thousand_rows() -> None:
    """Ten keys, a reading each in every commit: the tail stays short, and each chunk is of one key and in order."""
    db = database([])
    seq = 0
    for step in range(3_000):
        codes = np.arange(10, dtype=np.int32)
        value = Column(np.round(np.sin(step / 100 + codes), 2))
        time = np.full(10, step * 1_000_000_000)
        history.put(
            db,
            step,
            "s",
            Frame(time, codes, seq + np.arange(10), {"value": value}, NO_PROGRESS),
            journal=False,
            history=True,
        )
        seq += 10
        if step % 100 == 0:
            while piece := compaction.find(db, "s", 10):
                assert compaction.replace(db, piece, list(piece.packed()))
    ((frames, tail),) = db.execute("SELECT count(*), sum(rows) FROM frames")
    assert frames < compaction.MANY_FRAMES + 100
    assert tail < 10 * compaction.ROWS_A_KEY + 1_000
    ((chunks, rows, size),) = db.execute("SELECT count(*), sum(rows), sum(length(data)) FROM chunks")
    assert tail + rows == 30_000
    assert chunks <= 10 * compaction.MANY_CHUNKS
    assert size / rows < 4
    for key, first, last, data in db.execute("SELECT key, first, last, data FROM chunks"):
        chunk = unpack_frame(data)
        assert set(chunk.key.tolist()) == {key}
        assert chunk.time.tolist() == sorted(chunk.time.tolist())
        assert (chunk.time[0], chunk.time[-1]) == (first, last)
    assert history.info(db, "s", SCHEMA).rows == 30_000


def test_what_the_journal_needs_stays_for_it() -> None:
    db = database([])
    frame = Frame(np.arange(5), np.zeros(5, np.int32), np.arange(5), {"value": Column(np.arange(5.0))}, NO_PROGRESS)
    history.put(db, 7, "s", frame, journal=True, history=True)
    compact(db)
    assert list(db.execute("SELECT journal, history, step FROM frames")) == [(1, 0, 7)]
    assert history.info(db, "s", SCHEMA).rows == 5


def test_what_was_dropped_meanwhile_does_not_come_back() -> None:
    """Retention may run between the reading and the writing of a piece of work."""
    db = database([[(0, 0)], [(1, 0)], [(2, 1)]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "LEAST_ROWS", 1)
        patch.setattr(compaction, "ROWS_A_KEY", 1)
        piece = compaction.find(db, "s", 1)
    assert piece is not None
    retention.prune(db, ["s"], before=1, max_bytes=None)
    assert not compaction.replace(db, piece, list(piece.packed()))
    assert history.info(db, "s", SCHEMA).rows == 2


def test_what_the_clock_was_unsure_of_stays_marked() -> None:
    db = database([[(0, 0)], [(1, 0)]])
    db.execute("UPDATE frames SET unsure = 1 WHERE first = 1")
    compact(db)
    found = history.info(db, "s", SCHEMA)
    assert (found.rows, found.unsure) == (2, 1)


def test_a_stream_whose_fields_were_changed() -> None:
    """Rows of the pipeline file before are not laid together with those of the new one."""
    db = database([[(0, 0)], [(1, 0)]])
    frame = Frame(np.array([2]), np.zeros(1, np.int32), np.array([2]), {"other": Column(np.array([1]))}, NO_PROGRESS)
    history.put(db, 9, "s", frame, journal=False, history=True)
    history.put(db, 9, "s", frame, journal=False, history=True)
    compact(db, 0)
    assert [n for (n,) in db.execute("SELECT rows FROM chunks ORDER BY last, id")] == [2, 2]


def test_a_summary_says_what_a_look_at_the_rows_would() -> None:
    values = Column(np.array([3.0, -1.0, 9.0, np.nan, 5.0]), np.array([True, True, True, True, False]))
    frame = Frame(
        np.arange(5), np.zeros(5, np.int32), np.arange(5), {"v": values, "t": Column(np.full(5, True))}, NO_PROGRESS
    )
    assert compaction.summary_of(frame) == {"v": [3, 11.0, -1.0, 1, 9.0, 2, 3.0, 9.0]}


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=6), max_size=8),
    st.lists(st.integers(0, 9), max_size=3),
    st.integers(0, 50),
    st.integers(0, 50),
    st.none() | st.lists(st.integers(0, 3)),
)
def test_what_came_after_an_arrival(
    frames: Rows, compacted_after: list[int], first: int, end: int, codes: list[int] | None
) -> None:
    """In order of arrival, wherever the rows lie by now, and chunks that hold nothing of it are not opened."""
    db, expected, seq = database([]), [], 0
    for step, rows in enumerate(frames, 1):
        numbers = np.arange(seq, seq + len(rows))
        seq += len(rows)
        time, key = np.array([t for t, _ in rows]), np.array([k for _, k in rows], np.int32)
        frame = Frame(time, key, numbers, {"value": Column(numbers.astype(float))}, NO_PROGRESS)
        history.put(db, step, "s", frame, journal=False, history=True)
        expected += [n for n, (_, k) in zip(numbers.tolist(), rows, strict=True) if codes is None or k in codes]
        if step in compacted_after:
            compact(db)
    expected = [n for n in expected if first <= n < end]
    found, left_out = history.since(db, "s", SCHEMA, first, end, codes, 1_000)
    assert found.seq.tolist() == expected
    assert left_out == 0
    for id_, data in db.execute("SELECT id, data FROM chunks"):
        assert (id_ >= history.chunk_id(first)) == (unpack_frame(data).seq.max() >= first)
    newest, left_out = history.since(db, "s", SCHEMA, first, end, codes, 3)
    if len(expected) > 3:
        assert len(newest) == 3
        assert left_out >= len(expected) - 3  # what is not opened is not counted row by row


def test_more_chunks_with_one_last_arrival_than_it_has_ids() -> None:
    """The windows of all keys close with one tick, and share its number."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "_CHUNKS_A_NUMBER", 2)
        db = database([])
        for step in range(2):
            codes = np.arange(11, dtype=np.int32)
            frame = Frame(
                np.full(11, step), codes, np.full(11, step), {"value": Column(codes.astype(float))}, NO_PROGRESS
            )
            history.put(db, step, "s", frame, journal=False, history=True)
            compact(db)
        assert len(history.since(db, "s", SCHEMA, 0, 9, None, 100)[0]) == 22
        assert len(history.since(db, "s", SCHEMA, 1, 9, None, 100)[0]) == 11
