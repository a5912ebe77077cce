"""Requests and answers as bytes, beside those of pymodbus; whatever comes instead never harms."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest, WriteSingleCoilRequest
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

from pipeline.modbus import protocol
from pipeline.modbus.protocol import Garbled, Refusal, RtuFraming, TcpFraming

READS = {
    "holding": ReadHoldingRegistersRequest,
    "input": ReadInputRegistersRequest,
    "coil": ReadCoilsRequest,
    "discrete": ReadDiscreteInputsRequest,
}
ADDRESSES = st.integers(0, 65_535)


@given(st.sampled_from(sorted(READS)), ADDRESSES, st.integers(1, 125), st.integers(0, 255), st.integers(1, 65_000))
def test_frames_are_those_of_pymodbus(table: Any, address: int, count: int, unit: int, number: int) -> None:
    theirs = READS[table](address=address, count=count, dev_id=unit, transaction_id=number)
    ours = protocol.read(table, address, count)
    assert TcpFraming().wrap(number, unit, ours) == FramerSocket(DecodePDU(False)).buildFrame(theirs)
    assert RtuFraming().wrap(number, unit, ours) == FramerRTU(DecodePDU(False)).buildFrame(theirs)


@given(ADDRESSES, st.lists(ADDRESSES, min_size=2, max_size=4), st.booleans())
def test_writes_are_those_of_pymodbus(address: int, values: list[int], on: bool) -> None:
    def framed(theirs: Any) -> bytes:
        return FramerSocket(DecodePDU(False)).buildFrame(theirs)[7:]

    data = b"".join(v.to_bytes(2, "big") for v in values)
    several = WriteMultipleRegistersRequest(address=address, registers=values)
    one = WriteSingleRegisterRequest(address=address, registers=values[:1])
    assert protocol.write_registers(address, data) == framed(several)
    assert protocol.write_registers(address, data[:2]) == framed(one)
    assert protocol.write_registers(address, data[:2], multiple=True)[0] == 16
    assert protocol.write_coil(address, on) == framed(WriteSingleCoilRequest(address=address, bits=[on]))


@pytest.mark.parametrize("framing", [TcpFraming(), RtuFraming()])
@given(data=st.binary(min_size=8, max_size=8), pieces=st.lists(st.integers(0, 40), max_size=5))
def test_an_answer_may_come_in_pieces(framing: Any, data: bytes, pieces: list[int]) -> None:
    answer = bytes([3, 8]) + data
    frame = framing.wrap(7, 2, answer)
    came = bytearray()
    cuts = [0, *sorted(min(p, len(frame)) for p in pieces), len(frame)]
    found = None
    for start, end in itertools.pairwise(cuts):
        assert found is None or start == end == len(frame)
        came += frame[start:end]
        found = framing.unwrap(came, 7, 2, 3) or found
    assert found == answer
    assert protocol.data_of(protocol.read("holding", 0, 4), answer) == data
    assert not came


@pytest.mark.parametrize("framing", [TcpFraming(), RtuFraming()])
@given(noise=st.binary(max_size=300))
def test_noise_is_no_answer(framing: Any, noise: bytes) -> None:
    """It is told as such, or waited for in vain; nothing else is raised."""
    with contextlib.suppress(Garbled, Refusal):
        answer = framing.unwrap(bytearray(noise), 7, 2, 3)
        if answer:
            protocol.data_of(protocol.read("holding", 0, 4), answer)


def test_an_answer_to_another_request_is_passed_over() -> None:
    """What comes too late has the number of a request that nobody waits for; on a serial line, another unit."""
    tcp, rtu = TcpFraming(), RtuFraming()
    late, now = bytes([3, 2, 0, 1]), bytes([3, 2, 0, 2])
    assert tcp.unwrap(bytearray(tcp.wrap(6, 2, late) + tcp.wrap(7, 2, now)), 7, 2, 3) == now
    assert tcp.unwrap(bytearray(tcp.wrap(7, 1, late) + tcp.wrap(7, 2, now)), 7, 2, 3) == now
    assert rtu.unwrap(bytearray(rtu.wrap(0, 1, late) + rtu.wrap(0, 2, now)), 0, 2, 3) == now
    assert tcp.unwrap(bytearray(tcp.wrap(6, 2, late)), 7, 2, 3) is None


def test_a_wrong_checksum_is_noise() -> None:
    frame = bytearray(RtuFraming().wrap(0, 1, bytes([3, 2, 0, 1])))
    frame[4] ^= 1
    with pytest.raises(Garbled, match="checksum"):
        RtuFraming().unwrap(frame, 0, 1, 3)


def test_refusals_and_answers_of_another_size() -> None:
    asked = protocol.read("holding", 0, 2)
    with pytest.raises(Refusal, match=r"illegal data address \(exception 2\)"):
        protocol.data_of(asked, bytes([0x83, 2]))
    for wrong in (bytes([3, 2, 0, 1]), bytes([3, 4, 0, 1]), bytes([4, 4, 0, 1, 0, 2]), bytes([3])):
        with pytest.raises(Garbled):
            protocol.data_of(asked, wrong)
    written = protocol.write_registers(5, b"\x00\x07")
    assert protocol.data_of(written, written) == b""
    with pytest.raises(Garbled):
        protocol.data_of(written, protocol.write_registers(5, b"\x00\x08"))
