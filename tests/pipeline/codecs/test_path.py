"""path picks values out of nested documents as one would by hand, and spreads lists to readings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codec import lines, make, piped, refusals, rows, taken, tried

GATEWAY = {
    "gateway": {"id": "g1", "time": 1_700_000_000},
    "sensors": [
        {"id": "s1", "values": [{"v": 1.5}, {"v": 2.5, "ok": True}], "a.b": 7},
        {"id": "s2", "values": [{"v": 3}]},
    ],
}
SPREAD = {"id": "sensors[*].id", "ts": "gateway.time", "v": "sensors[*].values[*].v", "ok": "sensors[*].values[*].ok"}


def test_lists_within_lists() -> None:
    """Each innermost element is a reading; what lies further out is the same in each."""
    codec = make("path", {"v": "float", "ok": "bool?"}, time="ts", paths=SPREAD)
    at = 1_700_000_000 * 10**9
    assert taken(codec, [json.dumps(GATEWAY).encode()]) == [
        {"key": "s1", "time": at, "v": 1.5, "ok": None},
        {"key": "s1", "time": at, "v": 2.5, "ok": True},
        {"key": "s2", "time": at, "v": 3.0, "ok": None},
    ]


def test_places_and_quoted_names() -> None:
    paths = {"id": "gateway.id", "last": "sensors[-1].id", "v": "sensors[0].values[1].v", "odd": 'sensors[0]["a.b"]'}
    codec = make("path", {"last": "string", "v": "float", "odd": "int"}, paths=paths)
    assert taken(codec, [json.dumps(GATEWAY, indent=1).encode()]) == [{"key": "g1", "last": "s2", "v": 2.5, "odd": 7}]


def test_a_place_that_is_not_there_is_missing() -> None:
    codec = make("path", {"v": "int?", "w": "int?"}, key=None, paths={"v": "a[-3]", "w": "a[2]"})
    assert taken(codec, [b'{"a": [1, 2]}', b'{"a": [1, 2, 3]}']) == [{"v": None, "w": None}, {"v": 1, "w": 3}]


def test_the_top_may_be_the_list_and_elements_may_be_values() -> None:
    codec = make("path", {"v": "float"}, key=None, paths={"v": "[*]"})
    assert taken(codec, [b"[1, 2.5]", b"[3]\n[4]"]) == [{"v": 1.0}, {"v": 2.5}, {"v": 3.0}, {"v": 4.0}]


def test_a_field_without_a_path_is_found_by_its_name() -> None:
    codec = make("path", {"v": "float"})
    assert taken(codec, [b'{"id": "a", "v": 1}\n{"id": "b", "v": 2}\n']) == [{"key": "a", "v": 1}, {"key": "b", "v": 2}]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ('{"sensors": [{"id": "a", "v": 1}, {"id": "b"}, {"v": 2}, {"id": "c", "v": "hot"}]}',
         [(1, "v: missing"), (2, "id: missing"), (3, "v: expected a number, got text")]),
        ('{"sensors": [{"id": 1.5, "v": true}, 7]}',
         [(0, "id: expected a whole number or text, got a number"), (1, "id: missing")]),
        ('{"sensors": [{"id": "a", "v": null}, {"id": "", "v": 1}, {"id": "a", "v": {}}]}',
         [(0, "v: missing"), (1, "the key is empty or longer than 500 characters"), (2, "v: expected a number, got an object")]),
        ('{"sensors": [{"id": "a", "v": 1' + "0" * 400 + "}]}", [(0, "v: beyond 64 bits")]),
        ('{"sensors": {"id": "a"}}', [(0, "sensors: expected a list, got an object")]),
        ("{}", [(0, "sensors: missing")]),
        ('{"sensors": []}', [(0, "empty: there is no reading in it")]),
        ("5", [(0, "reading: expected an object, got a whole number")]),
        ("", [(0, "empty: there is no reading in it")]),
        ('{"sensors": [{"id": "a", "v": NaN}]}', [(0, "not JSON: invalid character (byte 30)")]),
        ("[" * 100_000, [(0, "nested too deeply")]),
    ],
)  # fmt: skip
def test_a_reason_says_what_was_wanted(document: str, expected: list[tuple[int, str]]) -> None:
    codec = make("path", {"v": "float"}, paths={"id": "sensors[*].id", "v": "sensors[*].v"})
    assert refusals(codec, document.encode()) == expected


def test_nan_where_the_field_may_be_one() -> None:
    codec = make("path", {"v": "float nan", "w": "float?"}, key=None)
    decoded = codec.decode([b'{"v": NaN}\n{"v": 1, "w": NaN}\n{"v": Infinity}'])
    assert str(rows(codec, decoded)) == "[{'v': nan, 'w': None}]"
    assert {r.item for r in decoded.refused} == {1, 2}


def test_one_document_a_line() -> None:
    """A wrong one costs only itself, and the item of a reading counts over all."""
    codec = make("path", {"v": "float"}, paths={"id": "id", "v": "s[*].v"})
    payload = b'{"id": "a", "s": [{"v": 1}, {"v": "x"}]}\nnonsense\n{"id": "b", "s": [{}, {"v": 2}]}\n'
    decoded = codec.decode([b"", payload])
    assert rows(codec, decoded) == [{"key": "a", "v": 1.0}, {"key": "b", "v": 2.0}]
    assert sorted((r.payload, r.item) for r in decoded.refused) == [(0, 0), (1, 1), (1, 2), (1, 3)]
    assert codec.readings(payload) == []
    assert make("path", {"v": "float"}).readings(b"{}\n\n[]\n") == [b"{}", b"[]"]


@pytest.mark.parametrize("path", ["", ".a", "a..b", "a[", "a[x]", "a[*", "a b]", "a[0]b", "a[12345678901]", '["a'])
def test_what_is_no_path_is_a_problem(path: str) -> None:
    assert tried("path", {"v": "float"}, paths={"v": path})[1][0][0] == "format.paths.v"


def test_two_lists_side_by_side_are_a_problem() -> None:
    _, problems = tried("path", {"v": "float", "w": "float"}, key=None, paths={"v": "a[*].v", "w": "b[*].w"})
    assert problems == [
        ("format.paths", "only one list can be spread, or lists within it; here are a[*] and b[*]"),
    ]
    _, problems = tried("path", {"v": "float"}, key=None, paths={"vv": "a"})
    assert problems == [("format.paths.vv", 'is neither the key, the time nor a field (did you mean "v"?)')]


plain = st.none() | st.integers(-9, 9) | st.just(0.5) | st.text("xy", max_size=1)
inner = st.dictionaries(st.sampled_from(["id", "v", "s"]), plain | st.lists(plain, max_size=2), max_size=3)
documents = st.fixed_dictionaries({}, optional={"g": plain | inner, "s": plain | st.lists(inner | plain, max_size=3)})


def by_hand(document: dict[str, Any]) -> list[dict[str, Any] | None] | None:
    """The readings of a document, None for one that must be refused; None alone: all of it."""
    if not isinstance(document.get("s"), list):
        return None
    found: list[dict[str, Any] | None] = []
    for element in document["s"]:
        fields = element if isinstance(element, dict) else {}
        key, value = fields.get("id"), fields.get("v")
        gateway = document["g"].get("v") if isinstance(document.get("g"), dict) else None
        good = isinstance(key, str | int) and key != "" and isinstance(value, int | float)
        good = good and (gateway is None or isinstance(gateway, str))
        found.append({"key": str(key), "v": float(value), "g": gateway} if good and value is not None else None)
    return found


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(documents, min_size=1, max_size=3), min_size=1, max_size=3))
def test_any_documents(payloads: list[list[dict[str, Any]]]) -> None:
    codec = make("path", {"v": "float", "g": "string?"}, paths={"id": "s[*].id", "v": "s[*].v", "g": "g.v"})
    decoded = codec.decode(["\n".join(map(json.dumps, each)).encode() for each in payloads])
    wanted: list[list[dict[str, Any] | None]] = []
    for each in payloads:
        found = [by_hand(document) for document in each]
        wanted.append([row for some in found for row in ([None] if some is None else some)] or [None])
    assert rows(codec, decoded) == [row for some in wanted for row in some if row is not None]
    assert list(decoded.counts) == [sum(row is not None for row in some) for some in wanted]
    refused = {(i, j) for i, some in enumerate(wanted) for j, row in enumerate(some) if row is None}
    assert {(r.payload, r.item) for r in decoded.refused} == refused


def test_from_file_to_file(tmp_path: Path) -> None:
    source = """format = { type = "path", paths = { id = "sensors[*].id", v = "sensors[*].values[*].v" } }
key = "id"
fields = { v = "float" }"""
    found = lines(piped(tmp_path, source, json.dumps(GATEWAY).encode() + b"\n"))
    assert [(row["id"], row["v"]) for row in found] == [("s1", 1.5), ("s1", 2.5), ("s2", 3.0)]
