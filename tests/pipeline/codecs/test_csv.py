"""csv reads what the standard library writes, and a bad line costs only itself."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codecs.csv import Csv
from pipeline.component import Context, ReadingSettings
from pipeline.frame import KeyTable

FIELDS = {"value": "float", "count": "int?", "open": "bool?", "text": "string?"}
HEADER = ["id", "ts", "value", "count", "open", "text"]


def codec(**options: Any) -> Csv:
    made = ReadingSettings(key="id", time="ts", time_unit="ms", fields=FIELDS)
    return Csv(made, options, Context("in", KeyTable()))


cells = st.text("ab;\"' ü", min_size=1, max_size=4).map(str.strip).filter(bool)
good_rows = st.tuples(
    cells,
    st.integers(0, 10**9),
    st.sampled_from([0.0, -2.5, 1e9]),
    st.none() | st.integers(-(2**62), 2**62),
    st.none() | st.booleans(),
    st.none() | cells,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(good_rows, max_size=6), st.lists(st.integers(0, 6), max_size=3))
def test_what_is_written_is_read(rows: list[tuple[Any, ...]], bad: list[int]) -> None:
    """By the standard library's writer, with bad lines between; each of these is refused by its index."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    item, expected, refused = 0, [], []
    for i, row in enumerate(rows):
        for _ in range(bad.count(i)):
            out.write("only,three,cells\n")
            refused.append(item)
            item += 1
        writer.writerow(["" if v is None else str(v).lower() if isinstance(v, bool) else v for v in row])
        expected.append(row)
        item += 1
    decoded = codec().decode([out.getvalue().encode()])
    assert decoded.times is not None
    columns = [decoded.columns[name].tolist() for name in FIELDS]
    got = list(zip(decoded.keys, (decoded.times // 1_000_000).tolist(), *columns, strict=True))
    assert got == expected
    if rows:
        assert [r.item for r in decoded.refused] == refused


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (",1,2,,,", "id: missing"),
        ("a,soon,2,,,", "ts: not a time"),
        ("a,1,,,,", "value: missing"),
        ("a,1,hot,,,", "value: expected a number"),
        ("a,1,nan,,,", "value: expected a number"),
        ("a,1,2,1.5,,", "count: expected a whole number"),
        ("a,1,2,,maybe,", "open: expected true or false"),
        ('a,1,2,,,"open', "not CSV"),
        ("a,1", "2 cells for 6 columns"),
    ],
)
def test_a_reason_says_what_was_wanted(line: str, reason: str) -> None:
    decoded = codec().decode([f"{','.join(HEADER)}\n{line}\nb,1,2,,,\n".encode()])
    assert [r.reason for r in decoded.refused] == [reason]
    assert list(decoded.counts) == [1]


def test_a_column_that_is_not_there() -> None:
    """It costs each line: each can be looked at, and replayed under a file that knows better."""
    decoded = codec().decode([b"id,ts,open\na,1,true\nb,2,true\n"])
    assert [(r.item, r.raw) for r in decoded.refused] == [(0, "a,1,true"), (1, "b,2,true")]
    assert decoded.refused[0].reason.startswith("value: there is no such column")


def test_without_a_header_and_with_another_delimiter() -> None:
    made = codec(header=HEADER, delimiter=";")
    decoded = made.decode([b"a;1;2.5;;;x\n", b"b;2;3.5;4;yes;\n"])
    assert decoded.columns["value"].tolist() == [2.5, 3.5]
    assert decoded.columns["open"].tolist() == [None, True]
    assert list(decoded.counts) == [1, 1]


def test_rows_are_written_below_their_header() -> None:
    made = codec()
    assert made.header(["id", "value", "open"]) == b"id,value,open\n"
    assert (
        made.encode([{"id": 'a "b"', "value": 0.1, "open": True}, {"id": "c", "value": None}])
        == b'"a ""b""",0.1,true\nc,,\n'
    )
