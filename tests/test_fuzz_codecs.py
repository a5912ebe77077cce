"""Every codec there is, fed with whatever bytes: it never raises, and a bad payload costs only itself. `make fuzz` feeds more.

A codec that stands nowhere in `SAMPLES` is fed as one that reads JSON, so a new one is tried from its first day on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import cbor2
import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pipeline.component import Codec, Context, Decoded, ReadingSettings
from pipeline.frame import DTYPES, KeyTable
from pipeline.registry import codec_for, types

CASES = int(os.environ.get("CASES", "60"))  # for each codec and test
LONGEST_RAW = 4_000  # characters that a refusal shows

ROWS = [
    {"id": "a", "ts": 1_769_860_800_000, "value": 1.5, "n": 7, "open": True, "text": "ä"},
    {"id": "b", "ts": 1_769_860_800_500, "value": -2e300, "n": 2**63 - 1, "text": 'x,"y\n z'},
    {"id": "c", "ts": 0, "value": 0, "open": False},
]
FIELDS = {"value": "float", "n": "int?", "open": "bool?", "text": "string?"}


class Sample(NamedTuple):
    """How a codec is set up, and payloads that it takes whole."""

    good: Sequence[bytes]
    format: Any
    fields: dict[str, str] = FIELDS
    key: str | None = "id"
    time: str | None = "ts"


def _senml(*records: dict[str, Any]) -> bytes:
    return orjson.dumps(records)


def _sparkplug(name: bytes, value: bytes, time: bytes) -> bytes:
    """A payload with a time and one metric: a name, the type double, a value of 8 bytes."""
    metric = b"\x0a" + bytes([len(name)]) + name + b"\x20\x0a\x69" + value
    return b"\x08" + time + b"\x12" + bytes([len(metric)]) + metric


_HEAD = b"id,ts,value,n,open,text\n"
SAMPLES = {
    "cbor": Sample([cbor2.dumps(ROWS), *map(cbor2.dumps, ROWS), cbor2.dumps(ROWS[0]) * 3], "cbor"),
    "csv": Sample([_HEAD + b'a,1769860800000,1.5,7,true,x\nb,1,2,,,"a,""b"\n', _HEAD + b"c,0,0,,false,\n"], "csv"),
    "influx": Sample(
        [
            b'w,id=a value=1.5,n=7i,open=t,text="x\\"y" 1769860800000000000\n',
            b"w,id=b\\ c value=2 7\nw,id=d value=-1e3 5\n",
        ],
        "influx",
        time="time",
    ),
    "json": Sample(
        [
            orjson.dumps(ROWS),
            *map(orjson.dumps, ROWS),
            b"\n".join(map(orjson.dumps, ROWS)),
            b'{"id":1,"ts":1,"value":1}',
        ],
        "json",
    ),
    "msgpack": Sample([msgspec.msgpack.encode(ROWS), *map(msgspec.msgpack.encode, ROWS)], "msgpack"),
    "path": Sample(
        [
            orjson.dumps({"at": 1, "all": [{"id": "a", "v": [1.5]}, {"id": "b", "v": [2]}]}),
            b'{"at":5,"all":[{"id":1,"v":[0]}]}',
        ],
        {"type": "path", "paths": {"id": "all[*].id", "value": "all[*].v[0]", "ts": "at"}},
        {"value": "float"},
    ),
    "regex": Sample(
        [b"1769860800 a temp=1.5\n", b"1 b temp=2\n2 c temp=3\n"],
        {"type": "regex", "pattern": r"^(?P<ts>\S+) (?P<id>\S+) temp=(?P<value>[\d.]+)"},
        {"value": "float"},
    ),
    "senml": Sample(
        [
            _senml({"bn": "a:", "bt": 1.7e9, "n": "value", "v": 1.5}, {"n": "open", "vb": True}),
            _senml({"n": "b:value", "v": 2, "t": 1.7e9}),
        ],
        {"type": "senml", "separator": ":"},
        {"value": "float?", "open": "bool?"},
        time="time",
    ),
    "sparkplug": Sample(
        [
            _sparkplug(b"value", bytes(6) + b"\xf8\x3f", b"\x01"),
            _sparkplug(b"value", bytes(8), b"\x80\xc0\xd1\xa6\xd1\x31"),
        ],
        "sparkplug",
        {"value": "float?"},
        key=None,
        time="time",
    ),
    "value": Sample([b"21.5", b"-3", b"1e3"], "value", {"value": "float"}, key=None, time=None),
}


def sample(name: str) -> Sample:
    return SAMPLES.get(name, Sample(SAMPLES["json"].good, name))


def made(name: str) -> tuple[Codec, KeyTable]:
    about, keys = sample(name), KeyTable()
    context = Context("in", keys)
    asked = ReadingSettings(format=about.format, key=about.key, time=about.time, fields=about.fields)
    codec = codec_for(asked, context)
    assert codec is not None, context.problems
    return codec, keys


CODECS = types("codec")


def rows(decoded: Decoded, keys: KeyTable, payloads: int) -> list[list[Any]]:
    """The readings of each payload, after a look at whether they can be what they say."""
    total = sum(decoded.counts)
    assert len(decoded.counts) == payloads
    assert all(count >= 0 for count in decoded.counts)
    named = [keys.names[code] for code in keys.codes(decoded.keys)] if len(decoded.keys) else [""] * total
    times = [None] * total if decoded.times is None else decoded.times.tolist()
    values = [column.tolist() for column in decoded.columns.values()]
    for column in decoded.columns.values():
        assert len(column.values) == total
        assert column.present is None or len(column.present) == total
        assert column.values.dtype in DTYPES.values()
    whole = [list(row) for row in zip(named, times, *values, strict=True)]
    ends = np.cumsum([0, *decoded.counts]).tolist()
    return [whole[begin:end] for begin, end in pairwise(ends)]


def refusals(decoded: Decoded, payload: int) -> list[tuple[int, str, str]]:
    return sorted(r[1:] for r in decoded.refused if r.payload == payload)


def told(name: str, payloads: Sequence[bytes]) -> list[tuple[str, list[tuple[int, str, str]]]]:
    """What each payload has become."""
    codec, keys = made(name)
    decoded = codec.decode(payloads)
    found = rows(decoded, keys, len(payloads))
    for refused in decoded.refused:
        assert 0 <= refused.payload < len(payloads)
        assert refused.item >= 0
        assert refused.reason
        assert len(refused.raw) <= LONGEST_RAW
        refused.raw.encode()
        refused.reason.encode()
    return [(repr(found[i]), refusals(decoded, i)) for i in range(len(payloads))]


@st.composite
def mutated(draw: st.DrawFn, good: Sequence[bytes]) -> bytes:
    """A payload that was nearly good."""
    data = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        end = draw(st.integers(at, min(len(data), at + 12)))
        kind = draw(st.sampled_from(["flip", "cut", "put", "twice", "end", "splice"]))
        if kind == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at] + data[end:]
        elif kind == "put":
            odd = st.sampled_from(
                [b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r\n", b'"', b"\\", b"1e999", b"nan", b"\xed\xa0\x80", b"[" * 50]
            )
            data = data[:at] + draw(st.binary(max_size=4) | odd) + data[at:]
        elif kind == "twice":
            data = data[:end] + data[at:]
        elif kind == "end":
            data = data[:at]
        else:
            data = data[:at] + draw(st.sampled_from(good))[at:]
    return data


def payloads(name: str) -> st.SearchStrategy[list[bytes]]:
    return st.lists(
        st.binary(max_size=60) | mutated(sample(name).good) | st.sampled_from(sample(name).good), max_size=4
    )


CODEC = pytest.mark.parametrize("name", CODECS)
SETTINGS = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))


@CODEC
def test_the_samples_are_taken(name: str) -> None:
    """Or the tests below would only ever see refusals."""
    for found, refused in told(name, sample(name).good):
        assert refused == []
        assert found != "[]"


@CODEC
@SETTINGS
@given(st.data())
def test_whatever_comes_is_taken_or_refused(name: str, data: st.DataObject) -> None:
    """Each payload is what it is alone: those beside it change nothing, nor do the goes in which they are decoded."""
    given_ = data.draw(payloads(name))
    assert told(name, given_) == [told(name, [one])[0] for one in given_]


@CODEC
@SETTINGS
@given(st.data())
def test_good_payloads_survive_bad_ones(name: str, data: st.DataObject) -> None:
    good = data.draw(st.sampled_from(sample(name).good))
    bad = data.draw(st.binary(max_size=60) | mutated(sample(name).good))
    (alone,) = told(name, [good])
    assume(told(name, [bad])[0][1])  # at least some of it is refused
    before, refused, after = told(name, [good, bad, good])
    assert before == after == alone
    assert refused[1]


@CODEC
@SETTINGS
@given(st.data())
def test_what_is_written_is_read_again(name: str, data: st.DataObject) -> None:
    """Whatever text and numbers the rows hold; times as the codec writes them are read as the same."""
    codec, _ = made(name)
    if not getattr(codec, "writes", True) or name not in SAMPLES or name == "value":
        return
    about = sample(name)
    text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
        lambda t: t.strip() == t
    )
    kinds: dict[str, Any] = {
        "float": st.floats(allow_nan=False, allow_infinity=False),
        "int": st.integers(-(2**53), 2**53),
        "bool": st.booleans(),
        "string": text,
    }
    row = st.fixed_dictionaries({n: kinds[k.rstrip("?")] for n, k in about.fields.items()})
    listed = data.draw(st.lists(row, min_size=1, max_size=4))
    own: dict[Any, Any] = {about.key: "k1", about.time: "2026-01-31T12:00:00.000Z"}
    whole = [{name: value for name, value in {**own, **one}.items() if name} for one in listed]
    body = codec.header(list(whole[0])) + codec.encode(whole)
    reader, keys = made(name)  # one codec does one of both
    decoded = reader.decode([body])
    assert decoded.refused == []
    found = rows(decoded, keys, 1)[0]
    assert [dict(zip(decoded.columns, row[2:], strict=True)) for row in found] == [
        {n: one[n] for n in decoded.columns} for one in listed
    ]
    assert {row[1] for row in found} == {1_769_860_800 * 10**9}
