"""sparkplug reads what Google's protobuf library writes by the fields of Sparkplug B; broken bytes cost only their payload."""

from __future__ import annotations

import struct
from typing import Any

import aiohttp
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codec import make, refusals, rows, taken, tried
from tests.device import Device, free_port

TYPES = {"Int8": 1, "Int16": 2, "Int32": 3, "Int64": 4, "UInt8": 5, "UInt16": 6, "UInt32": 7, "UInt64": 8}
# Name, number and type of each field (TYPE_… of descriptor.proto), as the specification of Sparkplug B 3.0 lists them.
METRIC = [
    ("name", 1, 9),
    ("alias", 2, 4),
    ("timestamp", 3, 4),
    ("datatype", 4, 13),
    ("is_null", 7, 8),
    ("int_value", 10, 13),
]
METRIC += [("long_value", 11, 4), ("float_value", 12, 2), ("double_value", 13, 1), ("boolean_value", 14, 8)]
METRIC += [("string_value", 15, 9), ("bytes_value", 16, 12)]
PAYLOAD = [("timestamp", 1, 4), ("metrics", 2, 11), ("seq", 3, 4), ("uuid", 4, 9), ("body", 5, 12)]


def message_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug.proto", package="t", syntax="proto2")
    for name, fields in (("Metric", METRIC), ("Payload", PAYLOAD)):
        made = file.message_type.add(name=name)
        for field, number, type_ in fields:
            label = 3 if field == "metrics" else 1
            made.field.add(
                name=field, number=number, type=type_, label=label, type_name=".t.Metric" if type_ == 11 else None
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Payload"))


Payload = message_class()


def packed(*metrics: dict[str, Any], **more: Any) -> bytes:
    data: bytes = Payload(metrics=list(metrics), **more).SerializeToString()
    return data


FIELDS = {"temperature": "float?", "Pump/running": "bool?", "count": "int?", "state": "string?"}
NONE = dict.fromkeys(FIELDS)


def test_metrics_of_one_time_are_one_reading() -> None:
    codec = make("sparkplug", FIELDS, None, "time")
    payload = packed(
        {"name": "temperature", "datatype": 10, "double_value": 21.5},
        {"name": "Pump/running", "datatype": 11, "boolean_value": True, "timestamp": 1_700_000_000_000},
        {"name": "count", "datatype": 3, "int_value": 2**32 - 5},
        {"name": "state", "string_value": "ä", "timestamp": 1_700_000_000_005},
        {"name": "other", "int_value": 7, "timestamp": 5},
        {"name": "bytes", "bytes_value": b"x"},
        timestamp=1_700_000_000_000,
        seq=3,
        uuid="u",
    )
    assert taken(codec, [payload]) == [
        {**NONE, "time": 1_700_000_000_000 * 10**6, "temperature": 21.5, "Pump/running": True, "count": -5},
        {**NONE, "time": 1_700_000_000_005 * 10**6, "state": "ä"},
    ]


def test_the_name_may_hold_the_key() -> None:
    some = packed(
        {"name": "a/b/v", "double_value": 1}, {"name": "c/v", "float_value": 0.5}, {"name": "c/w", "int_value": 1}
    )
    assert taken(make("sparkplug", {"v": "float"}, "id", separator="/"), [some]) == [
        {"key": "a/b", "v": 1.0},
        {"key": "c", "v": 0.5},
    ]
    assert taken(make("sparkplug", {"value": "float"}, "id"), [some])[2] == {"key": "c/w", "value": 1.0}
    assert refusals(
        make("sparkplug", {"v": "float"}, "id", separator="/"), packed({"name": "v", "double_value": 1})
    ) == [(0, 'the name "v" has no "/" between key and field')]


def test_an_alias_needs_a_name() -> None:
    """Without any, forgetting them would lose all; with some, the others are those that nobody wants."""
    payload = packed({"alias": 7, "double_value": 1.5}, {"alias": 8, "double_value": 2}, {"alias": 9})
    assert taken(make("sparkplug", {"v": "float"}, None, aliases={"7": "v"}), [payload]) == [{"v": 1.5}]
    assert refusals(make("sparkplug", {"v": "float"}, None), payload) == [
        (0, "its metrics are told by aliases: name those that are wanted, aliases = { … }")
    ]


@pytest.mark.parametrize("type_", TYPES)
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whole_numbers_of_each_type(type_: str, data: st.DataObject) -> None:
    """Negative ones are written in as many bits as the field has, or as the type has; the type may be told by the settings."""
    bits = int("".join(c for c in type_ if c.isdigit()))
    signed = not type_.startswith("U")
    number = data.draw(st.integers(-(2 ** (bits - 1)) if signed else 0, 2 ** (bits - signed) - 1))
    field, width = ("long_value", 64) if bits == 64 else ("int_value", 32)
    for written in {width, bits}:
        raw = number % 2**written
        codec = make("sparkplug", {"v": "int"}, None)
        if number >= 2**63:
            assert refusals(codec, packed({"name": "v", "datatype": TYPES[type_], field: raw})) == [
                (0, "v: beyond 64 bits")
            ]
            continue
        assert taken(codec, [packed({"name": "v", "datatype": TYPES[type_], field: raw})]) == [{"v": number}]
        told = make("sparkplug", {"v": "int"}, None, datatypes={"v": type_})
        assert taken(told, [packed({"name": "v", field: raw})]) == [{"v": number}]


def test_a_number_that_may_be_negative_is_not_guessed() -> None:
    codec = make("sparkplug", {"v": "int"}, None)
    assert taken(codec, [packed({"name": "v", "int_value": 2**31 - 1})]) == [{"v": 2**31 - 1}]
    for field, number in (("int_value", 2**31), ("long_value", 2**63)):
        assert refusals(codec, packed({"name": "v", field: number}))[0][1].startswith("v: may be negative")


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ({"name": "v", "string_value": "hot"}, "v: expected a number, got text"),
        ({"name": "v", "boolean_value": True}, "v: expected a number, got true or false"),
        ({"name": "v", "double_value": float("nan")}, "v: expected a number, got NaN"),
        ({"name": "v", "float_value": float("inf")}, "v: expected a number, got infinity"),
        ({"name": "v", "bytes_value": b"x"}, "v: expected a value, got bytes"),
        ({"name": "w", "double_value": 1}, "v: missing"),
        ({"name": "v", "double_value": 1, "timestamp": 2**63}, "time: not a time in range"),
        ({"name": "v", "double_value": 1}, "time: missing"),
    ],
)
def test_a_reason_says_what_was_wanted(metric: dict[str, Any], reason: str) -> None:
    more = {} if reason == "time: missing" else {"timestamp": 5}
    assert refusals(make("sparkplug", {"v": "float", "w": "float?"}, None, "time"), packed(metric, **more)) == [
        (0, reason)
    ]


def test_null_and_what_nobody_declared_are_no_mistake() -> None:
    codec = make("sparkplug", {"v": "float?"}, None)
    for metric in ({"name": "v", "is_null": True}, {"name": "v"}, {"name": "x", "double_value": 1}):
        decoded = codec.decode([packed(metric)])
        assert (sum(decoded.counts), decoded.refused) == (0, [])


FINE = packed({"name": "v", "double_value": 1})


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty: there is no reading in it"),
        (FINE[:-1], "not Sparkplug B: it ends too soon"),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "not Sparkplug B: it ends too soon"),
        (b"\x12\x03\x0a\x05v", "not Sparkplug B: it ends too soon"),
        (b"\x12\x03\x0a\x05v" + FINE, "not Sparkplug B: it ends too soon"),
        (b"\x08" + b"\x80" * 11 + b"\x01", "not Sparkplug B: a number of more than 64 bits"),
        (b"\x0b", "not Sparkplug B: a type that no field has"),
        (b"\x10\x01", "not Sparkplug B: a field of another type than it has in a payload"),
        (b"\x80", "not Sparkplug B: it ends too soon"),
    ],
)
def test_bytes_that_were_made_to_hurt(payload: bytes, reason: str) -> None:
    codec = make("sparkplug", {"v": "float"}, None)
    decoded = codec.decode([FINE, payload, FINE])
    assert list(decoded.counts) == [1, 0, 1]
    assert [(r.payload, r.reason) for r in decoded.refused] == [(1, reason)]


metrics = st.fixed_dictionaries(
    {"name": st.sampled_from(["v", "w", "x"])},
    optional={"timestamp": st.integers(0, 2**40), "is_null": st.just(False), "alias": st.integers(0, 2**64 - 1)},
)
values = st.one_of(
    st.builds(lambda v: {"double_value": v}, st.floats(allow_nan=False, allow_infinity=False)),
    st.builds(lambda v: {"float_value": v}, st.floats(width=32, allow_nan=False, allow_infinity=False)),
    st.builds(lambda v: {"int_value": v, "datatype": 7}, st.integers(0, 2**32 - 1)),
    st.builds(lambda v: {"long_value": v, "datatype": 8}, st.integers(0, 2**64 - 1)),
)
many = st.lists(st.builds(lambda m, v: {**m, **v}, metrics, values), max_size=6)


@settings(max_examples=150, deadline=None)
@given(many, st.integers(0, 2**40))
def test_as_protobuf_wrote_it(some: list[dict[str, Any]], at: int) -> None:
    """Readings by time, in the order of their first metric; a metric that comes again begins another."""
    wanted: list[dict[str, Any]] = []
    latest: dict[int, dict[str, Any]] = {}
    for metric in some:
        time = metric.get("timestamp", at)
        value = next(float(v) for k, v in metric.items() if k.endswith("_value"))
        if metric["name"] == "x":
            continue
        if time not in latest or latest[time][metric["name"]] is not None:
            latest[time] = {"time": time * 10**6, "v": None, "w": None}
            wanted.append(latest[time])
        latest[time][metric["name"]] = value
    codec = make("sparkplug", {"v": "float?", "w": "float?"}, None, "time")
    assert taken(codec, [packed(*some, timestamp=at)]) == wanted


@settings(max_examples=150, deadline=None)
@given(many, st.binary(max_size=4), st.integers(0, 200), st.integers(0, 255))
def test_any_bytes(some: list[dict[str, Any]], noise: bytes, at: int, byte: int) -> None:
    data = bytearray(packed(*some) + noise)
    if at < len(data):
        data[at] = byte
    codec = make("sparkplug", {"v": "float?"}, None, "time")
    rows(codec, codec.decode([bytes(data), struct.pack("<d", byte)]))


def test_wrong_settings_are_told() -> None:
    _, problems = tried("sparkplug", {"v": "int"}, "id", "ts", aliases={"x": "v"}, datatypes={"v": "Int7"})
    assert [where for where, _ in problems] == ["time", "fields", "format.aliases.x", "format.datatypes.v"]
    assert "did you mean" in problems[3][1]


async def test_by_http(tmp_path: Any) -> None:
    """A whole pipeline takes payloads as they come from a broker's bridge."""
    port = free_port()
    (tmp_path / "pipeline.toml").write_text(
        f"""[pipeline]
name = "codec"
state = "state"
durability = "none"

[server]
listen = "127.0.0.1:{port}"

[sources.plant]
type = "http"
path = "/data"
format = {{ type = "sparkplug", separator = "/", aliases = {{ 7 = "pump/temperature" }} }}
key = "device"
time = "time"
fields = {{ temperature = "float" }}

[sinks.local]
type = "query_server"
inputs = ["plant"]
"""
    )
    async with aiohttp.ClientSession() as http, Device(tmp_path / "pipeline.toml", port) as device:
        await device.start(http)
        payload = packed({"alias": 7, "float_value": 21.5}, timestamp=1_700_000_000_000)
        async with http.post(device.url + "/data", data=payload) as answer:
            assert answer.status == 201, await answer.text()
        async with http.post(device.url + "/data", data=payload[:-2]) as answer:
            assert answer.status == 400
            assert "ends too soon" in await answer.text()
        assert await device.rows(http, "plant") == [
            {"device": "pump", "time": "2023-11-14T22:13:20.000Z", "temperature": 21.5}
        ]
