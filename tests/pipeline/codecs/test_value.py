"""value reads a bare value a line, and a bad one costs only itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.component import Context, ReadingSettings
from pipeline.frame import KeyTable
from pipeline.registry import codec_for
from tests.codec import make, piped, refusals, rows, taken, tried


@pytest.mark.parametrize(
    ("kind", "payload", "value"),
    [
        ("float", b"21.5", 21.5),
        ("float", b" -3e2\r\n", -300.0),
        ("int", b"42", 42),
        ("bool", b"ON", True),
        ("bool", b"0", False),
        ("string", b" auto mode ", "auto mode"),
        ("string", "ä".encode(), "ä"),
        ("float nan", b"nan", "nan"),
    ],
)
def test_one_value_of_each_kind(kind: str, payload: bytes, value: Any) -> None:
    found = taken(make("value", {"v": kind}, key=None), [payload])
    assert [str(row["v"]) for row in found] == [str(value)]


@pytest.mark.parametrize(
    ("kind", "payload", "reason"),
    [
        ("float", b"warm", "v: expected a number"),
        ("float", b"nan", "v: expected a number"),
        ("float", b"1e999", "v: expected a number"),
        ("float", b"1_000", "v: expected a number"),
        ("int", b"1.5", "v: expected a whole number"),
        ("int", b"9223372036854775808", "v: expected a whole number"),
        ("int", b"9" * 10_000, "v: expected a whole number"),
        ("bool", b"perhaps", "v: expected true or false"),
        ("float", b" \n ", "empty: there is no reading in it"),
        ("string", b"", "empty: there is no reading in it"),
    ],
)
def test_a_reason_says_what_was_wanted(kind: str, payload: bytes, reason: str) -> None:
    assert refusals(make("value", {"v": kind}, key=None), payload) == [(0, reason)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.just("x"), max_size=4), max_size=4))
def test_good_and_bad_lines_in_any_payloads(payloads: list[list[float | str]]) -> None:
    codec = make("value", {"v": "float"}, key=None)
    decoded = codec.decode(["\n".join(map(str, lines)).encode() for lines in payloads])
    assert [row["v"] for row in rows(codec, decoded)] == [v for lines in payloads for v in lines if v != "x"]
    assert list(decoded.counts) == [sum(v != "x" for v in lines) for lines in payloads]
    wanted = {(i, j) for i, lines in enumerate(payloads) for j, v in enumerate(lines) if v == "x"}
    assert {(r.payload, r.item) for r in decoded.refused if r.reason.startswith("v:")} == wanted


def test_what_a_bare_value_cannot_say_is_a_problem() -> None:
    _, problems = tried("value", {"a": "float", "b": "float"}, key="id", time="ts")
    assert [where for where, _ in problems] == ["fields", "key", "time"]
    assert tried("value", {"a": "float"}, key=None, feild="a")[1] == [
        ("format.feild", 'is no option of this format (did you mean "field"?)')
    ]


def writer(names: list[str], **options: Any) -> tuple[Any, list[tuple[str, str]]]:
    context = Context("out", KeyTable())
    settings = ReadingSettings(format={"type": "value", **options}, key="id", time="time")
    codec = codec_for(settings, context, writing=True)
    assert codec is not None
    assert codec.header(names) == b""
    return codec, context.problems


def test_one_field_is_written() -> None:
    values = [21.5, None, True, "two\nlines", 7]
    codec, problems = writer(["id", "time", "v"])
    assert problems == []
    assert codec.encode([{"id": "a", "time": "…", "v": v} for v in values]) == b"21.5\n\ntrue\ntwo lines\n7\n"
    codec, problems = writer(["id", "time", "v", "w"], field="w")
    assert problems == []
    assert codec.encode([{"id": "a", "time": "…", "v": 1, "w": 2}]) == b"2\n"


def test_which_field_is_written_must_be_clear() -> None:
    assert "say which" in writer(["id", "time", "v", "w"])[1][0][1]
    assert "none of the fields" in writer(["id", "time", "v"], field="x")[1][0][1]


def test_from_file_to_file(tmp_path: Path) -> None:
    source = 'format = "value"\nfields = { v = "float" }'
    assert piped(tmp_path, source, b"1\nbad\n2.5\n", 'format = "value"') == b"1.0\n2.5\n"
