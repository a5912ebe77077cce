"""What a Frame promises: columns that come back as they were, and a watermark that is known before each row."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.frame import (
    NEVER,
    NO_PROGRESS,
    SECOND,
    Column,
    Field,
    Frame,
    KeyTable,
    Progress,
    Schema,
    by_code,
    column,
    concatenate,
    differs,
    empty,
    in_order,
    instants,
    rows,
)
from pipeline.frame_bytes import decode, encode
from pipeline.testing import Mark, Stream, frames, streams

INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float": st.floats(),
    "int": INT64,
    "bool": st.booleans(),
    "string": st.text(max_size=5),
    "time": INT64,
}
SCHEMA = Schema("key", {kind: Field(kind, optional=True, nan=kind == "float") for kind in VALUES})


@st.composite
def some_frames(draw: st.DrawFn) -> Frame:
    """Any Frame: all kinds, with and without masks."""
    n = draw(st.integers(0, 9))
    columns = {}
    for kind, values in VALUES.items():
        one_in = st.one_of(values, st.none()) if draw(st.booleans()) else values
        columns[kind] = column(kind, draw(st.lists(one_in, min_size=n, max_size=n)))
    time = np.array(draw(st.lists(INT64, min_size=n, max_size=n)), np.int64)
    key = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), np.int32)
    seq = np.array(sorted(draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))), np.int64)
    return Frame(time, key, seq, columns, NO_PROGRESS)


def plain(frame: Frame) -> list[tuple[Any, ...]]:
    """The rows as Python values, a NaN as text so that it equals itself."""
    parts = [frame.time.tolist(), frame.key.tolist(), frame.seq.tolist(), *(c.tolist() for c in frame.columns.values())]
    return [tuple("nan" if v != v else v for v in row) for row in zip(*parts, strict=True)]


# --- columns and rows -----------------------------------------------------------------------------------------------


@given(some_frames())
def test_bytes_give_back_the_frame(frame: Frame) -> None:
    """Every value of every kind, bit for bit: encoding again gives the same bytes."""
    data = encode(frame)
    again = decode(data, NO_PROGRESS)
    assert plain(again) == plain(frame)
    assert encode(again) == data
    for name, (values, present) in frame.columns.items():
        assert again[name].values.dtype == values.dtype
        assert (again[name].present is None) == (present is None)


@given(some_frames())
def test_equal_rows_are_equal_bytes(frame: Frame) -> None:
    """However they came about: under a missing value lies a zero, so nothing of where it was cut from is left."""
    rebuilt = Frame(
        frame.time.copy(),
        frame.key.copy(),
        frame.seq.copy(),
        {
            n: column(n, c.tolist()) if c.present is not None and not c.present.all() else c
            for n, c in frame.columns.items()
        },
        NO_PROGRESS,
    )
    assert encode(rebuilt) == encode(frame)


def test_missing_zero_empty_and_nan_are_four_things() -> None:
    assert column("float", [0.0, None, 1.5]).tolist() == [0.0, None, 1.5]
    assert column("string", ["", None]).tolist() == ["", None]
    assert column("bool", [False, None]).tolist() == [False, None]
    assert math.isnan(column("float", [math.nan]).tolist()[0])
    assert column("int", []).tolist() == []
    assert column("float", [1.0]).present is None


@given(some_frames(), st.data())
def test_take_and_where_agree_with_lists(frame: Frame, data: st.DataObject) -> None:
    """Rows by position, in any order and repeatedly; rows by a condition."""
    n = len(frame)
    at = data.draw(st.lists(st.integers(0, n - 1), max_size=6)) if n else []
    assert plain(frame.take(np.array(at, np.int64))) == [plain(frame)[i] for i in at]
    keep = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    kept = frame.where(np.array(keep, np.bool_))
    assert plain(kept) == [row for row, k in zip(plain(frame), keep, strict=True) if k]
    assert kept.progress is frame.progress
    assert plain(frame.none()) == []
    assert frame.none().progress is frame.progress


@given(st.lists(some_frames(), min_size=1, max_size=4))
def test_concatenate_is_one_after_the_other(parts: list[Frame]) -> None:
    """Also where some columns have a mask and some have none; the progress is the last one's."""
    whole = concatenate(parts)
    assert plain(whole) == [row for part in parts for row in plain(part)]
    assert whole.progress is parts[-1].progress
    other = NO_PROGRESS._replace(clock=5)
    assert concatenate(parts, other).clock == 5


@given(some_frames())
def test_in_order_sorts_by_arrival_and_keeps_ties(frame: Frame) -> None:
    assert plain(in_order(frame)) == plain(frame)
    backwards = frame.take(np.arange(len(frame))[::-1])
    assert plain(in_order(backwards)) == sorted(plain(backwards), key=lambda row: row[2])


@pytest.mark.parametrize("codes", [3, 70_000, 2**32])
@pytest.mark.parametrize("n", [0, 1, 511, 2_000])
def test_by_code_is_a_stable_sort(codes: int, n: int) -> None:
    """Whatever way it takes: for a few rows, for codes of 16 bits, for larger ones."""
    some = np.random.default_rng(n).integers(0, codes, n)
    assert by_code(some).tolist() == sorted(range(n), key=some.tolist().__getitem__)


def test_with_columns_adds_and_puts_in_place() -> None:
    """The Frame that it came of stays as it was."""
    frame = Frame(np.array([1]), np.array([0], np.int32), np.array([0]), {"a": column("int", [1])}, NO_PROGRESS)
    other = frame.with_columns({"b": column("int", [2]), "a": column("int", [3])})
    assert {name: c.tolist() for name, c in other.columns.items()} == {"a": [3], "b": [2]}
    assert frame["a"].tolist() == [1]
    assert list(frame.columns) == ["a"]


@given(st.lists(st.tuples(st.none() | st.integers(0, 2), st.none() | st.integers(0, 2)), max_size=6))
def test_differs_takes_missing_for_equal_to_missing(pairs: list[tuple[int | None, int | None]]) -> None:
    a, b = (column("int", [pair[i] for pair in pairs]) for i in (0, 1))
    assert differs(a, b).tolist() == [x != y for x, y in pairs]


# --- the way of the watermark ---------------------------------------------------------------------------------------


def loop(stream: Stream, disorder: int) -> list[int]:
    """The watermark before each item of a stream, and after the last: a plain loop."""
    marks = [NEVER]
    for item in stream:
        if isinstance(item, Mark):
            to = NEVER if item.watermark is None else item.watermark
        else:
            to = (item["time"] - disorder) * SECOND
        marks.append(max(marks[-1], to))
    return marks


@given(streams(), st.integers(0, 3), st.sets(st.integers(0, 20)))
def test_the_watermark_before_each_row(stream: Stream, disorder: int, cuts: set[int]) -> None:
    """The running maximum of the times before it, less `disorder`; the same behind a filter, and however it is cut."""
    marks = loop(stream, disorder)
    expected = [mark for mark, item in zip(marks, stream, strict=False) if not isinstance(item, Mark)]
    cut = frames(
        stream,
        SCHEMA._replace(fields={"value": Field("float", optional=True)}),
        KeyTable(),
        disorder=disorder,
        cuts=cuts,
    )
    assert [mark for frame in cut for mark in frame.watermark_before().tolist()] == expected
    for frame in cut:
        odd = frame.take(slice(1, None, 2))
        assert odd.watermark_before().tolist() == frame.watermark_before().tolist()[1::2]
    if cut:
        assert cut[-1].watermark == marks[-1]


@given(streams(), st.integers(0, 3), st.sets(st.integers(0, 20)))
def test_who_moved_the_watermark(stream: Stream, disorder: int, cuts: set[int]) -> None:
    """`reached` names the reading by which the watermark came to a time; or the number after the last, of the tick."""
    marks, number = loop(stream, disorder), 0
    moved = []  # (the watermark afterwards, arrival number of what moved it)
    for (before, after), item in zip(pairwise(marks), stream, strict=True):
        if after > before:
            moved.append((after, number))
        number += not isinstance(item, Mark)
    schema = SCHEMA._replace(fields={"value": Field("float", optional=True)})
    start = NEVER
    for frame in frames(stream, schema, KeyTable(), disorder=disorder, cuts=cuts):
        times = [t * SECOND for t in range(-5, 40) if start < t * SECOND <= frame.watermark]
        expected = [next(by for mark, by in moved if mark >= time) for time in times]
        assert frame.progress.reached(np.array(times, np.int64)).tolist() == expected
        assert frame.progress.passed(np.array([start], np.int64)).tolist() == [-1]
        assert frame.progress.passed(np.array(times, np.int64)).tolist() == expected
        start = frame.watermark


@given(streams(), st.integers(0, 3), st.integers(0, 20))
def test_halves_are_what_two_frames_would_have_been(stream: Stream, disorder: int, at: int) -> None:
    """`Progress.cut` and `halves`: the same as if the input had been cut there."""
    schema = SCHEMA._replace(fields={"value": Field("float", optional=True)})
    stream = [item for item in stream if not isinstance(item, Mark)]
    for frame in frames(stream, schema, KeyTable(), disorder=disorder):
        at = min(at, len(frame))
        first, second = frame.progress.cut(at)
        parts = frames(stream, schema, KeyTable(), disorder=disorder, cuts=[at])
        for progress, part in zip([p for p in (first, second) if len(p.seq)], parts, strict=True):
            assert progress.seq.tolist() == part.progress.seq.tolist()
            assert progress.before.tolist() == part.progress.before.tolist()
            assert (progress.after, progress.watermark) == (part.progress.after, part.watermark)
            assert progress.next_seq == part.progress.next_seq
        halves = frame.halves()
        assert (halves is None) == (len(frame) < 2)
        if halves:
            assert plain(concatenate(halves)) == plain(frame)
            before = [m for half in halves for m in half.watermark_before().tolist()]
            assert before == frame.watermark_before().tolist()


def test_rows_of_one_reading_are_never_parted() -> None:
    """Halves are cut between readings, or not at all."""
    progress = Progress(np.arange(3), np.array([NEVER, 1, 2]), 3, 3, 0, 3)

    def frame(seq: list[int]) -> Frame:
        n = len(seq)
        return Frame(np.zeros(n, np.int64), np.zeros(n, np.int32), np.array(seq), {}, progress)

    def parted(seq: list[int]) -> list[list[int]] | None:
        halves = frame(seq).halves()
        return None if halves is None else [half.seq.tolist() for half in halves]

    assert parted([1, 1, 1]) is None
    assert parted([0, 0, 0, 1]) == [[0, 0, 0], [1]]
    assert parted([0, 1, 1, 1]) == [[0], [1, 1, 1]]
    assert parted([0, 1, 1, 2]) == [[0], [1, 1, 2]]


def test_a_tick_has_no_rows_but_time() -> None:
    """`empty` has all columns, each of its kind."""
    progress = NO_PROGRESS._replace(watermark=7, clock=8, ended=True)
    frame = empty(SCHEMA, progress)
    assert len(frame) == 0
    assert {n: c.values.dtype.kind for n, c in frame.columns.items()} == dict(
        zip(VALUES, ("f", "i", "b", "O", "i"), strict=True)
    )
    assert (frame.watermark, frame.clock, frame.ended) == (7, 8, True)


# --- for people and programs outside --------------------------------------------------------------------------------


@given(st.lists(st.integers(-(10**18), 4 * 10**18), max_size=5))
def test_instants_as_text_are_exact(times: list[int]) -> None:
    """RFC 3339 in UTC; reading it back gives the same ns, and no more digits are shown than are needed."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for time, text in zip(times, instants(np.array(times, np.int64), "iso"), strict=True):
        whole, _, fraction = text.removesuffix("Z").partition(".")
        seconds = (datetime.fromisoformat(whole + "+00:00") - epoch) // timedelta(seconds=1)
        assert seconds * SECOND + int(fraction.ljust(9, "0")) == time
        assert len(fraction) == next(n for n in (3, 6, 9) if time % 10 ** (9 - n) == 0)


@pytest.mark.parametrize(
    ("unit", "shown"),
    [("s", [1.5, 2]), ("ms", [1500, 2000]), ("us", [1_500_000, 2_000_000]), ("ns", [1500 * 10**6, 2 * 10**9])],
)
def test_instants_as_numbers_are_whole_where_they_can_be(unit: str, shown: list[float]) -> None:
    found = instants(np.array([1_500_000_000, 2_000_000_000]), unit)
    assert found == shown
    assert isinstance(found[1], int)


def test_rows_show_keys_times_and_missing_values() -> None:
    """The key under its name, times in the unit asked for, None for what is missing."""
    schema = Schema("id", {"v": Field("float", optional=True), "start": Field("time", optional=True)})
    columns = {"v": column("float", [1.0, None]), "start": column("time", [None, SECOND])}
    frame = Frame(np.array([0, SECOND]), np.array([1, 0], np.int32), np.array([0, 1]), columns, NO_PROGRESS)
    assert rows(frame, schema, ["a", "b"], "ms") == [
        {"id": "b", "time": 0, "v": 1.0, "start": None},
        {"id": "a", "time": 1000, "v": None, "start": 1000},
    ]
    assert rows(frame, schema._replace(key=None), ["a", "b"])[0] == {
        "time": "1970-01-01T00:00:00.000Z",
        "v": 1.0,
        "start": None,
    }
    assert rows(frame.none(), schema, ["a", "b"]) == []


def test_names_are_all_that_an_expression_may_name() -> None:
    assert Schema("id", {"v": Field("float")}).names() == ["id", "time", "v"]
    assert Schema(None, {"v": Field("float")}).names() == ["time", "v"]


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_column_knows_where_its_values_are() -> None:
    assert Column(np.zeros(2)).known().tolist() == [True, True]
    assert column("int", [1, None]).known().tolist() == [True, False]
    assert column("int", [1, None, 3]).take(slice(1, None)).tolist() == [None, 3]
