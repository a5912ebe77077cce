"""Rows for a chart are those that a plain loop over all rows chooses; corrected windows show once."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.component import RowsQuery, Unanswerable
from pipeline.frame import NO_PROGRESS, Column, Field, Frame, Schema, column, concatenate
from pipeline.journal import compaction, history, points
from pipeline.journal.schema import TABLES
from pipeline.packing import unpack_frame
from pipeline.walk import pages
from tests.pipeline.journal.test_history import compact

SCHEMA = Schema("id", {"value": Field("float", optional=True, nan=True), "n": Field("int")})
NAN = float("nan")
Row = tuple[int, int, float | None, int]  # time, key, value, n

values = st.none() | st.sampled_from([NAN, math.inf]) | st.integers(-3, 3).map(float)
frames_of_rows = st.lists(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2), values, st.integers(-3, 3)), min_size=1, max_size=12),
    max_size=6,
)
bounds = st.none() | st.integers(-9, 50)


def database(frames: list[list[Row]]) -> apsw.Connection:
    db = apsw.Connection(":memory:")
    db.execute(TABLES)
    seq = 0
    for step, rows in enumerate(frames):
        time, key, value, n = zip(*rows, strict=True)
        columns = {"value": column("float", value), "n": column("int", n)}
        numbers = np.arange(seq, seq + len(rows))
        seq += len(rows)
        frame = Frame(np.array(time, np.int64), np.array(key, np.int32), numbers, columns, NO_PROGRESS)
        history.put(db, step, "s", frame, journal=False, history=True)
    return db


def shown(frame: Frame, fields: tuple[str, ...]) -> list[tuple[str, ...]]:
    columns = [frame[name].tolist() for name in fields]
    return [tuple(map(repr, row)) for row in zip(frame.time.tolist(), frame.key.tolist(), *columns, strict=True)]


def naive(frames: list[list[Row]], query: RowsQuery, keys: list[int] | None) -> list[tuple[str, ...]]:
    """One row at a time, with dictionaries."""
    rows = [row for rows in frames for row in rows]
    if not rows:
        return []
    start = min(r[0] for r in rows) if query.start is None else query.start
    end = max(r[0] for r in rows) + 1 if query.end is None else query.end
    if end <= start:
        return []
    width = math.ceil((end - start) / max(1, query.points // 4))
    groups: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for seq, row in enumerate(rows):
        if start <= row[0] < end and (keys is None or row[1] in keys):
            groups[row[1], (row[0] - start) // width].append((row[0], seq))
    chosen: set[int] = set()
    for group in groups.values():
        group.sort()
        chosen |= {group[0][1], group[-1][1]}
        for name in query.fields:
            at = 2 + ("value", "n").index(name)
            known = [seq for _, seq in group if rows[seq][at] is not None and not math.isnan(rows[seq][at] or 0)]
            if known:
                chosen |= {min(known, key=lambda s: rows[s][at]), max(known, key=lambda s: rows[s][at])}  # type: ignore[arg-type, return-value]
    found = []
    last: dict[int, tuple[str, ...]] = {}
    for seq in sorted(chosen, key=lambda s: (rows[s][0], rows[s][1], s)):
        row = rows[seq]
        told = tuple(map(repr, (row[0], row[1], *(row[2 + ("value", "n").index(f)] for f in query.fields))))
        once = len(query.fields) == 1 and "nan" not in told and "None" not in told
        if not (once and last.get(row[1]) == told):
            found.append(told)
        last[row[1]] = told
    return found[::-1] if query.descending else found


@given(
    frames_of_rows,
    bounds,
    bounds,
    st.none() | st.lists(st.integers(0, 2), max_size=2),
    st.integers(1, 40),
    st.sampled_from([("value",), ("n",), ("value", "n")]),
    st.booleans(),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([1, 5, 200_000]),
)
def test_the_first_the_last_and_the_extremes_of_each_pixel(
    frames: list[list[Row]],
    start: int | None,
    end: int | None,
    keys: list[int] | None,
    n: int,
    fields: tuple[str, ...],
    descending: bool,
    compacted: int,
    pool: int,
) -> None:
    """Of each key; rearranged or not, out of summaries or rows, however many are looked at together."""
    query = RowsQuery("s", None, start, end, descending=descending, points=n, fields=fields)
    db = database(frames)
    if compacted:
        compact(db, compacted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points, "POOL", pool)
        got = points.rows(db, query, SCHEMA, keys)
    assert shown(got, fields) == naive(frames, query, keys)


few = st.lists(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 1), st.sampled_from([0.0, 1.0, 2.0, None]), st.just(0)),
        min_size=1,
        max_size=5,
    ),
    min_size=1,
    max_size=4,
)


@given(few, st.sampled_from([1, 4, 8, 16]), st.integers(0, 4))
def test_a_summary_stands_for_its_rows_or_is_not_asked(frames: list[list[Row]], n: int, tail: int) -> None:
    """Where two rows have one time, a value is missing, or chunks or the tail overlap, it does not say enough."""
    db = database(frames)
    row: Any
    for row in db.execute("SELECT id, data FROM frames ORDER BY id LIMIT ?", (tail,)).fetchall():
        id_, data = row
        piece = compaction.Piece("s", frames=[id_], sorted=compaction.by_key(unpack_frame(data)))
        assert compaction.replace(db, piece, list(piece.packed()))
    query = RowsQuery("s", points=n, fields=("value",))
    assert shown(points.rows(db, query, SCHEMA, None), ("value",)) == naive(frames, query, None)


def test_what_lies_within_a_pixel_is_not_opened() -> None:
    """A month at a glance costs the summaries, not the rows."""
    rows: list[Row] = [(t, k, math.sin(t / 500), t % 7) for t in range(30_000) for k in (0, 1)]
    db = database([rows])
    while piece := compaction.find(db, "s", 2):
        assert compaction.replace(db, piece, list(piece.packed()))
    query = RowsQuery("s", None, 0, 30_000, points=16, fields=("value",))
    wanted = points.rows(db, query, SCHEMA, [1])
    assert 4 <= len(wanted) <= 16
    opened: list[history.Part] = []
    read = history.read

    def counted(db: apsw.Connection, part: history.Part, *more: Any) -> Frame:
        opened.append(part)
        return read(db, part, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "read", counted)
        assert shown(points.rows(db, query, SCHEMA, [1]), ("value",)) == shown(wanted, ("value",))
    assert len(history.listed(db, query, [1])) == 10
    assert len(opened) <= 3  # those over which an edge of a pixel runs


def test_a_chart_that_would_fill_the_memory_is_refused() -> None:
    db = database([[(t, 0, float(t), t) for t in range(30)]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points, "MOST_ROWS", 10)
        with pytest.raises(Unanswerable):
            points.rows(db, RowsQuery("s", points=100, fields=("value",)), SCHEMA, None)


# --- corrected windows ----------------------------------------------------------------------------------------------

WINDOWS = Schema("id", {"start": Field("time"), "revision": Field("int"), "n": Field("int")}, "windows")
Window = tuple[int, int, int]  # key, start, revision: as they came; `n` is their number


def windows(rows: list[Window], frame_of: int) -> apsw.Connection:
    db = apsw.Connection(":memory:")
    db.execute(TABLES)
    for at in range(0, len(rows), frame_of):
        key, start, revision = (np.array(c, np.int64) for c in zip(*rows[at : at + frame_of], strict=True))
        seq = np.arange(at, at + len(key))
        columns = {"start": Column(start), "revision": Column(revision), "n": Column(seq)}
        frame = Frame(start + 10, key.astype(np.int32), seq, columns, NO_PROGRESS)
        history.put(db, at, "s", frame, journal=False, history=True)
    return db


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9)), max_size=30),
    st.integers(1, 8),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
)
def test_a_corrected_window_stands_in_the_place_of_what_it_corrects(
    came: list[tuple[int, int]], frame_of: int, size: int, descending: bool, compacted: bool
) -> None:
    """In an answer of any length, read at once or page by page, in a chart too; all of them show when asked for."""
    revisions: dict[tuple[int, int], int] = {}
    rows: list[Window] = []
    for window in came:
        revisions[window] = revisions.get(window, -1) + 1
        rows.append((*window, revisions[window]))
    db = windows(rows, frame_of)
    if compacted:
        compact(db)
    query = RowsQuery("s", limit=100, descending=descending, corrected=True)
    holding = [i for i, (key, start, revision) in enumerate(rows) if revision == revisions[key, start]]
    wanted = sorted(holding, key=lambda i: (rows[i][1], i), reverse=descending)
    walked = [i for page in pages(query, size, lambda q: history.rows(db, q, WINDOWS, None)) for i in page.seq.tolist()]
    assert walked == wanted
    assert (
        history.rows(db, RowsQuery("s", limit=size, descending=descending, corrected=True), WINDOWS, None).seq.tolist()
        == wanted[:size]
    )
    assert len(history.rows(db, RowsQuery("s", limit=100), WINDOWS, None)) == len(rows)
    chart = RowsQuery("s", corrected=True, points=1000, fields=("n",))
    assert set(points.rows(db, chart, WINDOWS, None).seq.tolist()) == set(wanted)


def test_a_correction_at_the_edge_of_a_page_is_not_forgotten() -> None:
    """It came into an older Frame than what it corrects, and behind another row of its time."""
    db = windows([(0, 5, 0), (0, 0, 0), (1, 0, 0), (1, 5, 0), (0, 5, 1)], 1)
    together = [unpack_frame(data) for (data,) in db.execute("SELECT data FROM frames WHERE id > 1 ORDER BY id")]
    db.execute("DELETE FROM frames WHERE id > 1")
    history.put(db, 9, "s", concatenate(together), journal=False, history=True)
    for limit, wanted in ((3, [1, 2, 3]), (4, [1, 2, 3, 4])):
        query = RowsQuery("s", limit=limit, corrected=True)
        assert history.rows(db, query, WINDOWS, None).seq.tolist() == wanted


def test_windows_that_only_begin_together_are_not_taken_for_corrections() -> None:
    """Two windows of a count may begin with readings of one time."""
    db = windows([(0, 5, 0), (0, 5, 0)], 2)
    assert len(history.rows(db, RowsQuery("s", corrected=True), WINDOWS, None)) == 2


def test_rows_from_before_the_pipeline_file_was_changed() -> None:
    """A field that is new is missing in old rows; whole numbers are numbers; what was a text is not."""
    db = database([[(1, 0, 1.5, 7)]])
    today = Schema("id", {"n": Field("float"), "value": Field("string"), "new": Field("int")})
    (frame,) = [history.rows(db, RowsQuery("s"), today, None)]
    assert [frame[name].tolist() for name in today.fields] == [[7.0], [None], [None]]
