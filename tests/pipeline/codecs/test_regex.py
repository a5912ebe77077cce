"""regex reads what its groups find in each line; what they cannot find is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codec import lines, make, piped, refusals, rows, taken, tried

PATTERN = r"^(?P<ts>\S+) (?P<id>\S+) temp=(?P<temperature>[-\w.]+)(?: door=(?P<door>\w+))?"
FIELDS = {"temperature": "float", "door": "bool?"}
LOG = b"""2026-03-01T10:00:00Z boiler-2 temp=71.5 door=open?
2026-03-01T10:00:01Z boiler-2 temp=72 door=on\r
restarted
2026-03-01T10:00:02Z boiler-1 temp=warm

2026-03-01T10:00:03Z boiler-1 temp=20.25
"""


def test_groups_are_key_time_and_fields() -> None:
    codec = make("regex", FIELDS, time="ts", pattern=PATTERN)
    decoded = codec.decode([LOG, b"1 a temp=1", b"\n"])
    first = {"key": "boiler-2", "time": 1_772_359_201 * 10**9, "temperature": 72.0, "door": True}
    assert rows(codec, decoded)[0] == first
    assert [row["temperature"] for row in rows(codec, decoded)] == [72.0, 20.25, 1.0]
    assert list(decoded.counts) == [2, 1, 0]
    assert sorted(r[:3] for r in decoded.refused) == [
        (0, 0, "door: expected true or false"),
        (0, 2, "the pattern finds nothing in it"),
        (0, 3, "temperature: expected a number"),
        (2, 0, "empty: there is no reading in it"),
    ]
    assert codec.readings(LOG)[2] == b"restarted"


def test_lines_of_other_kinds_can_be_left_out() -> None:
    codec = make("regex", FIELDS, time="ts", pattern=PATTERN, unmatched="skip")
    assert refusals(codec, b"restarted\n") == []
    assert refusals(codec, LOG) == [(0, "door: expected true or false"), (2, "temperature: expected a number")]
    assert codec.readings(LOG)[2].startswith(b"2026-03-01T10:00:02Z")


def test_a_line_has_a_greatest_length() -> None:
    codec = make("regex", FIELDS, time="ts", pattern=PATTERN, unmatched="skip", longest=30)
    assert refusals(codec, b"1 a temp=1 " + b"x" * 30) == [(0, "longer than 30 characters")]


@pytest.mark.parametrize(
    "pattern",
    [r"(?P<v>(\w+\s?)*)$", r"(?P<v>(?:a*)+)", r"((?P<v>a+)|b)*c", r"(?:x(?=a+))*(?P<v>b)", r"(?P<v>(?:(?:ab*)c){1,})"],
)
def test_a_repeat_within_a_repeat_is_a_problem(pattern: str) -> None:
    """On a line made for it such a search takes longer than the device lives."""
    _, problems = tried("regex", {"v": "string"}, key=None, pattern=pattern)
    assert "a repeat within a repeat" in problems[0][1]


@pytest.mark.parametrize(
    "pattern", [r"(?P<v>(\w++\s?)*)$", r"(?:a{1,3}b)*(?P<v>c+)", r"(?P<v>(?>a+)+)", r"(?P<v>[a-z]+)"]
)
def test_repeats_that_end_are_taken(pattern: str) -> None:
    make("regex", {"v": "string"}, key=None, pattern=pattern)


def test_what_is_wrong_with_a_pattern_is_told() -> None:
    assert tried("regex", {"v": "string"}, key=None)[1][0][1].startswith("write one, with a named group")
    assert "unterminated" in tried("regex", {"v": "string"}, key=None, pattern="(?P<v>a")[1][0][1]
    assert tried("regex", {"v": "float", "w": "float?"}, pattern="(?P<w>a)")[1] == [
        ("format.pattern", "has no group for id: (?P<id>…)"),
        ("format.pattern", "has no group for v: (?P<v>…)"),
    ]
    assert (
        tried("regex", {"v": "string"}, key=None, pattern="(?P<v>a)", unmatched="drop")[1][0][0] == "format.unmatched"
    )


def test_an_optional_field_without_a_group_is_missing() -> None:
    codec = make("regex", {"v": "float", "w": "float?"}, key=None, pattern="(?P<v>[0-9]+)")
    assert taken(codec, [b"x 5"]) == [{"v": 5.0, "w": None}]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab=1. \r", max_size=8), max_size=6))
def test_as_the_standard_library_finds_it(found: list[str]) -> None:
    pattern = re.compile(r"(?P<id>[ab]+)=(?P<v>1*)")
    codec = make("regex", {"v": "string?"}, pattern=pattern.pattern)
    decoded = codec.decode(["\n".join(found).encode()])
    wanted = [pattern.search(line) for line in "\n".join(found).replace("\r\n", "\n").split("\n")]
    assert rows(codec, decoded) == [{"key": m["id"], "v": m["v"] or None} for m in wanted if m]


def test_from_file_to_file(tmp_path: Path) -> None:
    source = f"""format = {{ type = "regex", pattern = '{PATTERN}', unmatched = "skip" }}
key = "id"
time = "ts"
fields = {{ temperature = "float" }}"""
    found = lines(piped(tmp_path, source, LOG))
    assert [(row["id"], row["time"], row["temperature"]) for row in found] == [
        ("boiler-2", "2026-03-01T10:00:00.000Z", 71.5),
        ("boiler-2", "2026-03-01T10:00:01.000Z", 72.0),
        ("boiler-1", "2026-03-01T10:00:03.000Z", 20.25),
    ]
