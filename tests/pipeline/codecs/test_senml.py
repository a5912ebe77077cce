"""senml resolves packs as RFC 8428 says, and writes packs that others resolve to the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.component import Context, ReadingSettings
from pipeline.frame import KeyTable
from pipeline.registry import codec_for
from tests.codec import lines, make, piped, refusals, rows, taken, tried

S = 10**9
DEVICE = "urn:dev:ow:10e2073a01080063"
# The example of several data points in RFC 8428, 5.1.2.
SEVERAL = [
    {"bn": DEVICE + ":", "bt": 1.276020076001e09, "bu": "A", "bver": 5, "n": "voltage", "u": "V", "v": 120.1},
    {"n": "current", "t": -5, "v": 1.2},
    {"n": "current", "t": -4, "v": 1.3},
    {"n": "current", "v": 1.7},
]
NUMBERS = {
    "bver": -1,
    "bn": -2,
    "bt": -3,
    "bu": -4,
    "bv": -5,
    "bs": -6,
    "n": 0,
    "u": 1,
    "v": 2,
    "vs": 3,
    "vb": 4,
    "s": 5,
}
NUMBERS |= {"t": 6, "ut": 7, "vd": 8}


def as_cbor(pack: list[Any]) -> bytes:
    return cbor2.dumps([{NUMBERS.get(k, k): v for k, v in r.items()} if isinstance(r, dict) else r for r in pack])


FORMS: dict[str, Callable[[Any], bytes]] = {"json": lambda pack: json.dumps(pack).encode(), "cbor": as_cbor}
forms = pytest.mark.parametrize("form", list(FORMS))


@forms
def test_the_name_is_parted_and_records_of_one_time_are_one_reading(form: str) -> None:
    codec = make("senml", {"voltage": "float?", "current": "float?"}, "id", "time", separator=":")
    at = 1_276_020_076_001_000_000
    assert [(r["key"], r["time"], r["voltage"], r["current"]) for r in taken(codec, [FORMS[form](SEVERAL)])] == [
        (DEVICE, at, 120.1, 1.7),
        (DEVICE, at - 5 * S, None, 1.2),
        (DEVICE, at - 4 * S, None, 1.3),
    ]


@forms
def test_without_a_separator_each_record_is_a_reading(form: str) -> None:
    codec = make("senml", {"value": "float", "unit": "string?", "sum": "float?"}, "id")
    assert [(r["key"].rpartition(":")[2], r["value"], r["unit"]) for r in taken(codec, [FORMS[form](SEVERAL)])] == [
        ("voltage", 120.1, "V"),
        ("current", 1.2, "A"),
        ("current", 1.3, "A"),
        ("current", 1.7, "A"),
    ]


@forms
def test_where_the_key_comes_from_elsewhere_the_name_is_the_field(form: str) -> None:
    pack = [{"n": "t", "v": 1}, {"n": "open", "vb": True}, {"n": "mode", "vs": "auto"}, {"n": "other", "v": 5}]
    codec = make("senml", {"t": "float", "open": "bool", "mode": "string"}, None)
    assert taken(codec, [FORMS[form](pack)]) == [{"t": 1.0, "open": True, "mode": "auto"}]
    codec = make("senml", {"t": "float"}, None, separator="/")
    assert taken(codec, [FORMS[form]([{"bn": "x/", "n": "t", "v": 1}])]) == [{"t": 1.0}]


def test_base_values_and_sums() -> None:
    """A missing part of either counts as 0; a base value is added to no text."""
    pack = [
        {"bn": "a", "bv": 20, "bs": 100, "v": 1},
        {"s": 5},
        {"n": "b"},
        {"n": "c", "vs": "x"},
        {"bv": 0, "bs": 0, "n": "d", "v": 3},
    ]
    codec = make("senml", {"value": "float?", "sum": "float"}, "id")
    decoded = codec.decode([json.dumps(pack).encode()])
    assert rows(codec, decoded) == [
        {"key": "a", "value": 21.0, "sum": 100.0},
        {"key": "a", "value": None, "sum": 105.0},
        {"key": "ab", "value": 20.0, "sum": 100.0},
        {"key": "ad", "value": 3.0, "sum": 0.0},
    ]
    assert [(r.item, r.reason) for r in decoded.refused] == [(3, "value: expected a number, got text")]


def test_data_is_text() -> None:
    codec = make("senml", {"value": "string"}, "id")
    wanted = [{"key": "a", "value": "-_8"}]
    assert taken(codec, [b'[{"n": "a", "vd": "-_8"}]']) == wanted
    assert taken(codec, [as_cbor([{"n": "a", "vd": b"\xfb\xff"}])]) == wanted


class At:
    def wall(self) -> int:
        return 1_700_000_000 * S + 7_000_001


def test_times_below_two_to_the_28_are_counted_from_now() -> None:
    """A file has no now: what it holds may be read again after a crash."""
    pack = b'[{"bn": "a", "bt": -10, "v": 1}, {"t": 4, "v": 2}, {"bt": 0, "v": 3}, {"t": 9, "v": 4}, {"t": 1600000000.5, "v": 5}]'
    codec = make("senml", {"value": "float"}, "id", "time", clock=At())
    now = 1_700_000_000 * S
    times = [row["time"] for row in taken(codec, [pack])]
    assert [round(t / S, 3) for t in times] == [
        round((now + d) / S, 3) for d in (-9_993_000_000, -5_993_000_000, 7_000_000, 9_007_000_000)
    ] + [1_600_000_000.5]
    codec = make("senml", {"value": "float"}, "id", "time")
    assert refusals(codec, pack) == [
        (0, "time: missing"),
        (1, "time: missing"),
        (2, "time: missing"),
        (3, "time: missing"),
    ]


@forms
@pytest.mark.parametrize(
    ("pack", "expected"),
    [
        ([{"n": "a:v", "v": "1"}, {"n": "a:v", "v": 1}], [(0, "v: expected a number, got text")]),
        ([{"n": "a:v", "v": True}], [(0, "v: expected a number, got true or false")]),
        ([{"n": "a:v", "vs": 1}], [(0, "vs: expected text, got a whole number")]),
        ([{"n": "a:v", "vs": "x"}], [(0, "v: expected a number, got text")]),
        ([{"n": "a:v", "v": 1, "vb": True}], [(0, "two values in it: v and vb")]),
        ([{"n": "a:v"}], [(0, "it has no value")]),
        ([{"v": 1}], [(0, "it has no name")]),
        ([{"n": "v", "v": 1}], [(0, 'the name "v" has no ":" between key and field')]),
        ([{"n": ":v", "v": 1}], [(0, "the key is empty or longer than 500 characters")]),
        ([5, {"n": "a:v", "v": 1}], [(0, "record: expected an object, got a whole number")]),
        ([{"n": "a:v", "v": 1, "t": 1e300}], [(0, "time: not a time in range")]),
        ([{"n": "a:v", "v": 1, "bt": "x"}, {"n": "a:v", "v": 1}], [(0, "bt: expected a number, got text")]),
        ([{"n": "a:v", "v": 1, "what_": 5}, {"n": "a:v", "v": 1}], [(0, '"what_" must be understood, and is not')]),
        ([{"bver": 11, "n": "a:v", "v": 1}], [(0, "of version 11, and 10 is the last that is known")]),
        ([{"n": "a:w", "v": 1, "t": 2**30}], [(0, "v: missing")]),
        ({"n": "a:v", "v": 1}, [(0, "pack: expected a list, got an object")]),
        ([], [(0, "empty: there is no reading in it")]),
    ],
)
def test_a_reason_says_what_was_wanted(form: str, pack: Any, expected: list[tuple[int, str]]) -> None:
    if form == "cbor" and not isinstance(pack, list):
        return  # a map does not begin as an array does: it is taken for JSON
    codec = make("senml", {"v": "float", "w": "float?"}, "id", "time", separator=":", clock=At())
    assert refusals(codec, FORMS[form](pack)) == expected


@forms
@pytest.mark.parametrize("wrong", [{"bn": 5}, {"bt": "x"}, {"bver": 11}, {"what_": 1}])
def test_behind_a_wrong_base_nothing_can_be_told(form: str, wrong: dict[str, Any]) -> None:
    """What came before it is taken."""
    codec = make("senml", {"value": "float"}, "id")
    decoded = codec.decode([FORMS[form]([{"n": "a", "v": 1}, {"n": "b", "v": 2, **wrong}, {"n": "c", "v": 3}])])
    assert [row["key"] for row in rows(codec, decoded)] == ["a"]
    assert [r.item for r in decoded.refused] == [1]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"nonsense",
        b"[" * 100_000,
        b"\x81" * 100_000,
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x81\xa2",
        b"\xc1",
        as_cbor([{"n": "a", "v": 2**20_000}]),
        as_cbor([{"n": "a", "bv": 0.5, "v": 2**20_000}]),
    ],
    ids=range(10),
)
def test_bytes_that_were_made_to_hurt(payload: bytes) -> None:
    fine = b'[{"n": "a", "v": 1}]'
    codec = make("senml", {"value": "float"}, "id")
    decoded = codec.decode([fine, payload, fine])
    assert list(decoded.counts) == [1, 0, 1]
    assert [(r.payload, r.item) for r in decoded.refused] == [(1, 0)]


def test_a_field_that_nobody_declared_is_no_reading() -> None:
    codec = make("senml", {"v": "float"}, "id", separator=":")
    decoded = codec.decode([b'[{"n": "a:other", "v": 1}]\n[{"n": "a:v", "v": 2}, {"n": "a:v", "v": 3}]'])
    assert ([row["v"] for row in rows(codec, decoded)], decoded.refused) == ([2.0, 3.0], [])


def test_wrong_settings_are_told() -> None:
    assert [where for where, _ in tried("senml", {"temperature": "float"}, "id", "t")[1]] == [
        "time",
        "fields.temperature",
    ]
    assert tried("senml", {"value": "float"}, "id", encoding="xml")[1][0][0] == "format.encoding"


# --- against a resolver by the letter --------------------------------------------------------------------------------


def resolved(pack: list[dict[str, Any]]) -> list[tuple[str, float, str | None, Any]]:
    """Name, time, unit and value of each record."""
    found, base = [], {"bn": "", "bt": 0.0, "bu": None, "bv": 0}
    for record in pack:
        base.update({k: v for k, v in record.items() if k in base})
        value = next((record[k] for k in ("vs", "vb") if k in record), None)
        if "v" in record:
            value = base["bv"] + record["v"]
        if value is None:
            continue
        found.append(
            (base["bn"] + record.get("n", ""), base["bt"] + record.get("t", 0), record.get("u", base["bu"]), value)
        )
    return found


records = st.fixed_dictionaries(
    {},
    optional={
        "bn": st.sampled_from(["a", "b/", "c-"]),
        "bt": st.integers(2**30, 2**31) | st.just(1.5e9),
        "bu": st.sampled_from(["A", "V"]),
        "bv": st.integers(-5, 5) | st.just(0.5),
        "u": st.just("W"),
        "t": st.integers(-9, 9) | st.just(0.25),
    },
)
record = st.tuples(records, st.sampled_from(["x", "y"]), st.integers(-9, 9) | st.just(2.5)).map(
    lambda parts: {**parts[0], "n": parts[1], "v": parts[2]}
)


@forms
@settings(max_examples=100, deadline=None)
@given(st.lists(record, min_size=1, max_size=6))
def test_as_the_rfc_resolves_it(form: str, pack: list[dict[str, Any]]) -> None:
    pack[0].setdefault("bt", 2**30)
    codec = make("senml", {"value": "float", "unit": "string?"}, "id", "time")
    got = [(row["key"], row["time"] / S, row["unit"], row["value"]) for row in taken(codec, [FORMS[form](pack)])]
    assert got == resolved(pack)


# --- writing ---------------------------------------------------------------------------------------------------------


def writer(names: list[str], key: str | None = "id", **options: Any) -> tuple[Any, list[tuple[str, str]]]:
    context = Context("out", KeyTable())
    made = ReadingSettings(format={"type": "senml", **options}, key=key, time="time", time_unit="ms")
    codec = codec_for(made, context, writing=True)
    assert codec is not None
    assert codec.header(names) == b""
    return codec, context.problems


@forms
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "id": st.sampled_from(["a", "b:c"]),
                "time": st.integers(2**29 * 1000, 2**31 * 1000),
                "v": st.none() | st.floats(allow_nan=False, allow_infinity=False),
                "b": st.none() | st.booleans(),
                "s": st.none() | st.text("xä\n", max_size=3),
            }
        ),
        max_size=5,
        unique_by=lambda row: (row["id"], row["time"]),
    )
)
def test_what_is_written_is_read(form: str, written: list[dict[str, Any]]) -> None:
    codec, problems = writer(["id", "time", "v", "b", "s"], separator=":", encoding=form)
    assert problems == []
    data = codec.encode(written)
    kept = [row for row in written if any(row[name] is not None for name in "vbs")]
    reader = make("senml", {"v": "float?", "b": "bool?", "s": "string?"}, "id", "time", separator=":")
    if not kept:
        assert data == b""
        return
    assert [(row["key"], round(row["time"] / 1e6), row["v"], row["b"], row["s"]) for row in taken(reader, [data])] == [
        (row["id"], row["time"], row["v"], row["b"], row["s"]) for row in kept
    ]


def test_one_value_is_written_without_a_separator() -> None:
    codec, problems = writer(["id", "time", "value", "unit"])
    assert problems == []
    data = codec.encode([{"id": "a", "time": 500_000_000_250, "value": 1.5, "unit": "V"}])
    assert json.loads(data) == [{"n": "a", "t": 500_000_000.25, "u": "V", "v": 1.5}]
    assert "separator" in writer(["id", "time", "temperature"])[1][0][1]
    assert json.loads(writer(["time", "v"], key=None)[0].encode([{"time": 0, "v": 1}])) == [{"n": "v", "t": 0, "v": 1}]


@forms
def test_from_file_to_file_and_back(tmp_path: Path, form: str) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    back.mkdir()
    source = f"""format = {{ type = "senml", separator = ":", encoding = "{form}" }}
key = "id"
time = "time"
fields = {{ current = "float" }}"""
    sink = f'format = {{ type = "senml", separator = ":", encoding = "{form}" }}'
    out = piped(there, source, FORMS[form]([SEVERAL[0] | {"n": "current"}, *SEVERAL[1:]]), sink)
    found = lines(piped(back, source, out))
    assert [row["current"] for row in found] == [120.1, 1.2, 1.3, 1.7]
    assert found[1]["time"].startswith("2010-06-08T18:01:11.001")
