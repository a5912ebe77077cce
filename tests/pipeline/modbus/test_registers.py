"""What a register holds, beside what pymodbus and struct make of the same bytes; and what is read in one go."""

from __future__ import annotations

import itertools
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client.mixin import ModbusClientMixin

from pipeline.component import Context
from pipeline.frame import KeyTable
from pipeline.modbus.protocol import MOST_BITS
from pipeline.modbus.registers import Order, Register, RegisterSettings, grouped, reordered

THEIRS = ModbusClientMixin.DATATYPE
NUMBERS = {
    "uint16": (THEIRS.UINT16, st.integers(0, 2**16 - 1)),
    "int16": (THEIRS.INT16, st.integers(-(2**15), 2**15 - 1)),
    "uint32": (THEIRS.UINT32, st.integers(0, 2**32 - 1)),
    "int32": (THEIRS.INT32, st.integers(-(2**31), 2**31 - 1)),
    "uint64": (THEIRS.UINT64, st.integers(0, 2**63 - 1)),
    "int64": (THEIRS.INT64, st.integers(-(2**63), 2**63 - 1)),
    "float32": (THEIRS.FLOAT32, st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "float64": (THEIRS.FLOAT64, st.floats(allow_nan=False, allow_infinity=False)),
}
ORDERS: tuple[Order, ...] = ("ABCD", "CDAB", "BADC", "DCBA")


def register(order: Order = "ABCD", **settings: Any) -> Register:
    context = Context("in", KeyTable())
    made = Register("x", RegisterSettings(**{"address": 0, **settings}), order, context, "registers.x")
    assert context.problems == []
    return made


@given(st.sampled_from(sorted(NUMBERS)).flatmap(lambda t: st.tuples(st.just(t), NUMBERS[t][1])), st.booleans())
def test_numbers_are_those_that_pymodbus_means(typed: tuple[str, float], low_first: bool) -> None:
    """Both word orders, there and back."""
    kind, number = typed
    order: Order = "CDAB" if low_first else "ABCD"
    theirs = ModbusClientMixin.convert_to_registers(
        number, NUMBERS[kind][0], word_order="little" if low_first else "big"
    )
    data = struct.pack(f">{len(theirs)}H", *theirs)
    ours = register(order, type=kind)
    assert ours.value(data, 0) == number
    assert ours.data(number) == data


@given(st.sampled_from(ORDERS), st.binary(min_size=4, max_size=4))
def test_the_orders_say_where_each_byte_is(order: Order, value: bytes) -> None:
    """A is the highest; what has been put in an order comes back out of it."""
    sent = bytes(value["ABCD".index(letter)] for letter in order)
    assert reordered(sent, order) == value
    assert reordered(value, order) == sent


def test_what_is_no_number_is_missing() -> None:
    """So devices say that there is no value; and what `missing` names."""
    assert register(type="float32").value(struct.pack(">f", math.nan), 0) is None
    assert register(type="float64").value(struct.pack(">d", -math.inf), 0) is None
    assert register(type="int16", missing=(-32768,)).value(b"\x80\x00", 0) is None
    assert register(type="uint64").value(b"\xff" * 8, 0) is None, "no stream can hold it"
    assert register(type="uint64", scale=0.5).value(b"\xff" * 8, 0) == 2.0**63


def test_scale_and_offset() -> None:
    """A tenth of 3 is 0.3; the way back rounds to the nearest."""
    tenth = register(type="int16", scale=0.1, offset=-10.0)
    assert register(type="int16", scale=0.1).value(b"\x00\x03", 0) == 0.3
    assert tenth.value(b"\x00\xe1", 0) == 12.5
    assert tenth.data(12.5) == b"\x00\xe1"
    assert tenth.data(12.46) == b"\x00\xe1"
    assert register(type="int16", scale=2.5).value(b"\x00\x04", 0) == 10.0
    assert (register(type="int16").field.kind, tenth.field.kind) == ("int", "float")


@pytest.mark.parametrize(("settings", "value"), [({}, 65_536), ({}, -1), ({"type": "int16", "scale": 0.1}, 3_276.8)])
def test_what_does_not_fit_is_refused(settings: dict[str, Any], value: float) -> None:
    """Never cut to what would fit: a setpoint of 1 instead of 65,537 opens a valve."""
    with pytest.raises(ValueError, match="does not fit"):
        register(**settings).data(value)


def test_bits_and_texts() -> None:
    assert register(type="bool", bit=3).value(b"\x00\x08", 0) is True
    assert register(type="bool", bit=3, order="DCBA").value(b"\x00\x08", 0) is False
    assert [register(table="coil").value(b"\x05\x01", at) for at in range(9)] == [True, False, True, *[False] * 5, True]
    assert register(type="string", length=3).value(b"PUMP\0\0", 0) == "PUMP"
    assert register(type="string", length=2, order="DCBA").value(b"UPPM", 0) == "PUMP"
    assert register(type="string", length=2).value(b"A  \xff", 0) == "A  �"


def test_the_place_in_an_answer() -> None:
    """`at` registers lie before it."""
    assert register().value(b"\x00\x01\x00\x02", 1) == 2


TABLES = ("holding", "input", "coil", "discrete")


@st.composite
def registers(draw: st.DrawFn) -> list[Register]:
    found = []
    dense = draw(st.booleans())  # so that they overlap, and that a request's limit is met
    for _ in range(draw(st.integers(1, 25))):
        table = "holding" if dense else draw(st.sampled_from(TABLES))
        far = 30 if dense else 4_000 if table in ("coil", "discrete") else 600
        kind = "bool" if table in ("coil", "discrete") else draw(st.sampled_from(["uint16", "int32", "float64"]))
        found.append(register(address=draw(st.integers(0, far)), table=table, type=kind))
    return found


@given(registers(), st.integers(0, 40), st.integers(4, 20) | st.just(125))
def test_requests_are_few_and_none_is_too_long(wanted: list[Register], max_gap: int, most: int) -> None:
    """All registers, each in one piece; no more than the limit; no gap longer than allowed; and none could be joined."""
    requests = grouped(wanted, max_gap, most)
    assert sorted(id(r) for request in requests for r in request.registers) == sorted(map(id, wanted))
    for request in requests:
        limit = MOST_BITS if request.table in ("coil", "discrete") else most
        read = set(range(request.address, request.address + request.size))
        used: set[int] = set()
        for r in request.registers:
            assert r.table == request.table
            assert set(range(r.address, r.address + r.size)) <= read, "it lies in the request"
            used |= set(range(r.address, r.address + r.size))
        assert request.size <= limit
        assert {min(read), max(read)} <= used, "nothing is read before the first or after the last"
        runs = "".join("x" if a in used else " " for a in sorted(read)).split("x")
        assert max(map(len, runs)) <= max_gap
    for a, b in itertools.pairwise(requests):
        if a.table == b.table:
            limit = MOST_BITS if a.table in ("coil", "discrete") else most
            first_of_b = b.registers[0]
            end = a.address + a.size
            longer = max(end, first_of_b.address + first_of_b.size) - a.address
            assert longer > limit or first_of_b.address - end > max_gap


@given(registers(), st.integers(0, 40))
def test_halves_hold_all_and_end_with_single_registers(wanted: list[Register], max_gap: int) -> None:
    """However a unit refuses, each of its registers is asked for in the end by itself."""
    waiting, single = grouped(wanted, max_gap), []
    while waiting:
        request = waiting.pop()
        if len(request.registers) > 1:
            waiting += request.halves()
        else:
            single.append(request)
    assert sorted(id(r.registers[0]) for r in single) == sorted(map(id, wanted))
    assert all((r.address, r.size) == (r.registers[0].address, r.registers[0].size) for r in single)
