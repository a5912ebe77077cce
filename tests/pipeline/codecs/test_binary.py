"""msgpack and cbor: two libraries write, the codecs read; a bad reading costs only itself, whatever its bytes claim."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.component import Context, ReadingSettings
from pipeline.frame import KeyTable
from pipeline.registry import codec_for
from tests.codec import lines, make, piped, refusals, rows, taken

FIELDS = {"v": "float", "n": "int?", "b": "bool?", "s": "string?"}
PACK: dict[str, Callable[[Any], bytes]] = {"msgpack": msgpack.packb, "cbor": cbor2.dumps}

both = pytest.mark.parametrize("type_", ["msgpack", "cbor"])

anything = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([0.5, math.nan, math.inf])
    | st.text("ab", max_size=2)
    | st.binary(max_size=2)
    | st.lists(st.integers(0, 3), max_size=2)
)
good = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["a", "b", 7]),
        "ts": st.integers(0, 10**6) | st.just(5.5),
        "v": st.integers(-5, 5) | st.just(0.25),
    },
    optional={
        "n": st.integers(-9, 9),
        "b": st.booleans() | st.none(),
        "s": st.text("xy", max_size=2),
        "more": anything,
    },
)
odd = st.fixed_dictionaries({}, optional=dict.fromkeys(["id", "ts", "v", "n", "b", "s"], anything)) | anything.filter(
    lambda x: not isinstance(x, list)
)


def oracle(row: Any) -> dict[str, Any] | None:
    """The reading, or None if it must be refused."""
    if not isinstance(row, dict):
        return None

    def number(x: Any) -> bool:
        return type(x) in (int, float) and math.isfinite(x)

    key: Any = row.get("id")
    ts: Any = row.get("ts")
    if type(key) not in (str, int) or key == "" or not number(ts) or not number(row.get("v")):
        return None
    kinds = {"n": int, "b": bool, "s": str}
    if any(row.get(name) is not None and type(row[name]) is not kind for name, kind in kinds.items()) or abs(ts) > 9e12:
        return None
    ns = ts * 1_000_000 if isinstance(ts, int) else round(ts * 1_000_000)
    return {"key": str(key), "time": ns, "v": float(row["v"]), **{name: row.get(name) for name in kinds}}


@both
@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(good | odd, min_size=1, max_size=4)), min_size=1, max_size=4))
def test_as_another_library_wrote_it(type_: str, payloads: list[tuple[bool, list[Any]]]) -> None:
    """Each payload an array, or one value after the other."""
    pack = PACK[type_]
    codec = make(type_, FIELDS, time="ts", time_unit="ms")
    decoded = codec.decode([pack(some) if array else b"".join(map(pack, some)) for array, some in payloads])
    wanted = [[oracle(row) for row in some] for _, some in payloads]
    assert rows(codec, decoded) == [row for some in wanted for row in some if row is not None]
    assert list(decoded.counts) == [sum(row is not None for row in some) for some in wanted]
    refused = {(i, j) for i, some in enumerate(wanted) for j, row in enumerate(some) if row is None}
    assert {(r.payload, r.item) for r in decoded.refused} == refused


REASONS: list[tuple[Any, str]] = [
    ({"ts": 1, "v": 2}, "id: missing"),
    ({"id": "a", "ts": 1}, "v: missing"),
    ({"id": "a", "ts": 1, "v": "hot"}, "v: expected a number, got text"),
    ({"id": "a", "ts": 1, "v": True}, "v: expected a number, got true or false"),
    ({"id": "a", "ts": 1, "v": [1]}, "v: expected a number, got a list"),
    ({"id": "a", "ts": 1, "v": {}}, "v: expected a number, got an object"),
    ({"id": "a", "ts": 1, "v": b"x"}, "v: expected a number, got bytes"),
    ({"id": "a", "ts": 1, "v": math.nan}, "v: expected a number, got NaN"),
    ({"id": "a", "ts": 1, "v": -math.inf}, "v: expected a number, got infinity"),
    ({"id": "a", "ts": 1, "v": 1, "n": 2**63}, "n: beyond 64 bits"),
    ({"id": "a", "ts": 1, "v": 1, "n": 1.0}, "n: expected a whole number, got a number"),
    ({"id": 1.5, "ts": 1, "v": 1}, "id: expected a whole number or text, got a number"),
    ({"id": "", "ts": 1, "v": 2}, "the key is empty or longer than 500 characters"),
    ({"id": "a", "ts": "x", "v": 2}, "ts: expected a number, got text"),
    ({"id": "a", "ts": True, "v": 2}, "ts: expected a number, got true or false"),
    ({"id": "a", "ts": 1e30, "v": 2}, "ts: not a time in range"),
    (5, "reading: expected an object, got a whole number"),
    ([], "empty: there is no reading in it"),
]


@both
@pytest.mark.parametrize(("value", "reason"), REASONS, ids=lambda x: str(x)[:30])
def test_a_reason_says_what_was_wanted(type_: str, value: Any, reason: str) -> None:
    codec = make(type_, FIELDS, time="ts", time_unit="ms")
    assert refusals(codec, PACK[type_](value)) == [(0, reason)]


@both
def test_nan_where_the_field_may_be_one(type_: str) -> None:
    codec = make(type_, {"v": "float nan"}, None)
    assert str(taken(codec, [PACK[type_]({"v": math.nan})])) == "[{'v': nan}]"
    assert refusals(codec, PACK[type_]({"v": math.inf})) == [(0, "v: expected a number, got infinity")]


@both
@pytest.mark.parametrize("unit", ["s", "ms", "ns", "auto", "iso"])
def test_a_time_of_the_format_itself_is_what_it_says(type_: str, unit: str) -> None:
    at = dt.datetime(2026, 3, 1, 10, 0, 0, 123456, tzinfo=dt.UTC)
    packed = msgpack.packb({"ts": at, "v": 1}, datetime=True) if type_ == "msgpack" else cbor2.dumps({"ts": at, "v": 1})
    codec = make(type_, {"v": "float"}, None, "ts", unit)
    assert [row["time"] for row in taken(codec, [packed])] == [1_772_359_200_123_456_000]


HOSTILE = {
    "msgpack": {
        "deep": b"\x91" * 100_000,
        "deep in a field that nobody wants": b"\x82\xa1v\x01\xa1w" + b"\x91" * 100_000 + b"\x01",
        "an array of four thousand million": b"\xdd\xff\xff\xff\xff\x01",
        "a map of them": b"\xdf\xff\xff\xff\xff\xa1v\x01",
        "a text of them": b"\x81\xa1v\xdb\xff\xff\xff\xff",
        "no such byte": b"\xc1",
        "no text": b"\x81\xa1v\xa1\xff",
        "a number as a name": b"\x81\x01\x01",
        "cut off": b"\x81\xa1v",
    },
    "cbor": {
        "deep": b"\x81" * 100_000,
        "deep in a field that nobody wants": b"\xa2\x61v\x01\x61w" + b"\x81" * 100_000 + b"\x01",
        "an array of endless length": b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        "a map of it": b"\xbb\x00\xff\xff\xff\xff\xff\xff\xff\x61v\x01",
        "a text of it": b"\xa1\x61v\x7b\x00\xff\xff\xff\xff\xff\xff\xff",
        "a break where nothing began": b"\xff",
        "no text": b"\xa1\x61v\x61\xff",
        "a list as a name": b"\xa1\x80\x01",
        "itself within itself": b"\xd8\x1c\xa1\x61v\xd8\x1d\x00",
        "a number of ten thousand digits": b"\xa1\x61v\xc2\x5a\x00\x00\x10\x00" + b"\xff" * 4096,
        "a key of ten thousand digits": cbor2.dumps({"id": 2**33_000, "v": 1}),
        "a decimal": b"\xa1\x61v\xc4\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01",
        "a fraction of nothing": b"\xa1\x61v\xd8\x1e\x82\x01\x00",
        "no time": b"\xa1\x61v\xc0\x61x",
        "cut off": b"\xa1\x61v",
    },
}


@pytest.mark.parametrize(("type_", "name"), [(t, name) for t, some in HOSTILE.items() for name in some])
def test_bytes_that_were_made_to_hurt(type_: str, name: str) -> None:
    """They cost one reading, and neither the payload before nor the one behind."""
    fine = PACK[type_]({"id": "a", "v": 1})
    codec = make(type_, {"v": "float"})
    decoded = codec.decode([fine, HOSTILE[type_][name], fine])
    assert list(decoded.counts) == [1, 0, 1]
    assert [(r.payload, r.item) for r in decoded.refused] == [(1, 0)]
    assert len(decoded.refused[0].raw) <= 200


@both
def test_what_stands_before_broken_bytes_is_taken(type_: str) -> None:
    pack = PACK[type_]
    codec = make(type_, {"v": "float"})
    some = [pack({"id": "a", "v": i}) for i in range(9)]
    decoded = codec.decode([b"".join(some) + {"msgpack": b"\xc1", "cbor": b"\xff"}[type_] + some[0]])
    assert (list(decoded.counts), [r.item for r in decoded.refused]) == ([9], [9])
    assert codec.readings(b"".join(some)) == some
    assert codec.readings(pack([{"id": "a", "v": i} for i in range(9)])) == some


@both
@settings(max_examples=60, deadline=None)
@given(st.lists(good | odd, max_size=4), st.binary(max_size=5), st.randoms(use_true_random=False))
def test_any_bytes(type_: str, some: list[Any], noise: bytes, at_random: random.Random) -> None:
    """Nothing raises; each payload has its readings, its refusals, or both."""
    data = bytearray(b"".join(map(PACK[type_], some)) + noise)
    for _ in range(2):
        if data:
            data[at_random.randrange(len(data))] = at_random.randrange(256)
    codec = make(type_, FIELDS, time="ts", time_unit="ms")
    decoded = codec.decode([bytes(data)])
    rows(codec, decoded)
    assert sum(decoded.counts) + len(decoded.refused) >= 1
    assert 0 <= codec.whole(bytes(data)) <= len(data)
    codec.readings(bytes(data))


def writer(type_: str, **options: Any) -> Any:
    context = Context("out", KeyTable())
    return codec_for(ReadingSettings(format={"type": type_, **options}, key="id", time="time"), context, writing=True)


@both
@pytest.mark.parametrize("sequence", [True, False])
def test_what_is_written_is_read(type_: str, sequence: bool) -> None:
    written = [
        {"id": "a", "time": "2026-03-01T10:00:00.000Z", "v": 0.1, "n": -(2**63), "b": True, "s": "ä"},
        {"id": "b", "time": "2026-03-01T10:00:01.000Z", "v": 1e300, "n": None, "b": None, "s": None},
    ]
    codec = writer(type_, sequence=sequence)
    data = codec.header(list(written[0])) + codec.encode(written)
    unpacked = msgpack.Unpacker() if type_ == "msgpack" else None
    if unpacked is not None:
        unpacked.feed(data)
        assert list(unpacked) == (written if sequence else [written])
    reader = make(type_, FIELDS, time="time")
    assert [(row["key"], row["v"], row["n"], row["b"], row["s"]) for row in taken(reader, [data])] == [
        (row["id"], row["v"], row["n"], row["b"], row["s"]) for row in written
    ]


@both
def test_from_file_to_file_and_back(tmp_path: Path, type_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of items is read in chunks that end where an item does; one that is cut off is refused at the end."""
    monkeypatch.setattr("pipeline.sources.file.CHUNK", 700)
    count = 300
    data = b"".join(PACK[type_]({"id": f"s{i}", "v": i / 4, "\n": "\n"}) for i in range(count))
    source = f'format = "{type_}"\nkey = "id"\nfields = {{ v = "float" }}'
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    back.mkdir()
    out = piped(there, source, data + PACK[type_]({"id": "s"})[:-1], f'format = "{type_}"')
    found = lines(piped(back, source, out))
    assert [(row["id"], row["v"]) for row in found] == [(f"s{i}", i / 4) for i in range(count)]


@both
def test_a_followed_file_ends_anywhere(type_: str) -> None:
    """What is not whole yet is left for the next look; what never will be is taken, and refused."""
    codec = make(type_, {"v": "float"}, None)
    one = PACK[type_]({"v": 1, "w": "x" * 20})
    for cut in range(len(one)):
        assert codec.whole(one * 3 + one[:cut]) == 3 * len(one)
    broken = one + {"msgpack": b"\xc1", "cbor": b"\xff"}[type_] + one
    assert codec.whole(broken) == len(broken)


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins
    import sys

    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "cbor2":
            raise ImportError("No module named 'cbor2'", name="cbor2")
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "pipeline.codecs.cbor", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    context = Context("in", KeyTable())
    assert codec_for(ReadingSettings(format="cbor", fields={"v": "float"}), context) is None
    assert context.problems == [("format", '"cbor" needs cbor2: pip install "headwater[cbor]"')]
