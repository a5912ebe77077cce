"""Modbus as bytes: requests, answers, and how both are framed over TCP and over a serial line. No input or output here."""

from __future__ import annotations

import struct
from typing import Literal, Protocol

Table = Literal["holding", "input", "coil", "discrete"]

READ_BY: dict[Table, int] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
WRITE_COIL, WRITE_REGISTER, WRITE_COILS, WRITE_REGISTERS = 5, 6, 15, 16
MOST_REGISTERS, MOST_BITS = 125, 2_000  # that one request may read
REFUSED = 0x80  # added to the function of an answer that refuses

_MBAP = struct.Struct(">HHHB")  # transaction, protocol (0), length of what follows, unit
_WORDS = struct.Struct(">BHH")
_LONGEST = 254  # bytes of a PDU with its unit

EXCEPTIONS = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledged, it will take long",
    6: "device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "the gateway's device did not answer",
}


class Refusal(Exception):
    """The unit answered that it will not (an exception response)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{EXCEPTIONS.get(code, 'exception')} (exception {code})")
        self.code = code


class Garbled(Exception):
    """What came is no answer to what was asked: noise on the line, or not a Modbus peer."""


# --- requests and answers -------------------------------------------------------------------------------------------


def read(table: Table, address: int, count: int) -> bytes:
    """Ask for registers or bits."""
    return _WORDS.pack(READ_BY[table], address, count)


def write_registers(address: int, data: bytes, *, multiple: bool = False) -> bytes:
    """Set registers, two bytes each; all of them in one request, so that no half of a value is ever in effect."""
    if len(data) == 2 and not multiple:
        return struct.pack(">BH", WRITE_REGISTER, address) + data
    return struct.pack(">BHHB", WRITE_REGISTERS, address, len(data) // 2, len(data)) + data


def write_coil(address: int, on: bool, *, multiple: bool = False) -> bytes:
    if multiple:
        return struct.pack(">BHHBB", WRITE_COILS, address, 1, 1, on)
    return _WORDS.pack(WRITE_COIL, address, 0xFF00 if on else 0)


def data_of(request: bytes, answer: bytes) -> bytes:
    """What an answer to this request holds: of a read the data, of a write nothing. Refusal; Garbled."""
    function = request[0]
    if answer[0] == function | REFUSED and len(answer) == 2:
        raise Refusal(answer[1])
    if answer[0] != function:
        raise Garbled(f"asked by function {function}, answered by {answer[0]}")
    if function in READ_BY.values():
        data = answer[2:]
        if len(answer) < 2 or len(data) != answer[1] or len(data) != _data_size(request):
            raise Garbled(f"{len(data)} bytes came where {_data_size(request)} were asked for")
        return data
    if answer[1:5] != request[1:5]:  # address and value, or address and count
        raise Garbled("another write was answered")
    return b""


def _data_size(request: bytes) -> int:
    count: int = _WORDS.unpack(request)[2]
    return 2 * count if request[0] > READ_BY["discrete"] else (count + 7) // 8


# --- framing --------------------------------------------------------------------------------------------------------


class Framing(Protocol):
    def wrap(self, number: int, unit: int, pdu: bytes) -> bytes:
        """The frame of a request."""
        ...

    def unwrap(self, came: bytearray, number: int, unit: int, function: int) -> bytes | None:
        """The answer to that request, taken out of what came; None: it is not all there. Garbled."""
        ...


class TcpFraming:
    """A number goes with each request, so an answer that comes too late is known as such and dropped."""

    def wrap(self, number: int, unit: int, pdu: bytes) -> bytes:
        return _MBAP.pack(number, 0, len(pdu) + 1, unit) + pdu

    def unwrap(self, came: bytearray, number: int, unit: int, function: int) -> bytes | None:
        while len(came) >= _MBAP.size:
            its_number, protocol, length, its_unit = _MBAP.unpack_from(came)
            if protocol != 0 or not 2 <= length <= _LONGEST:
                raise Garbled("this is not Modbus TCP")
            end = _MBAP.size - 1 + length
            if len(came) < end:
                return None
            pdu = bytes(came[_MBAP.size : end])
            del came[:end]
            if its_number == number and its_unit == unit:
                return pdu
        return None


class RtuFraming:
    """Unit, PDU and a checksum. Nothing tells whose answer it is but the unit and the function."""

    def wrap(self, number: int, unit: int, pdu: bytes) -> bytes:
        frame = bytes([unit]) + pdu
        return frame + crc(frame)

    def unwrap(self, came: bytearray, number: int, unit: int, function: int) -> bytes | None:
        if len(came) < 3:
            return None
        size = _answer_size(came[1], came[2])
        if size is None:
            raise Garbled("noise on the line")
        if len(came) < size + 3:
            return None
        frame = bytes(came[: size + 1])
        checksum = bytes(came[size + 1 : size + 3])
        if crc(frame) != checksum:
            raise Garbled("noise on the line: the checksum is wrong")
        del came[: size + 3]
        if frame[0] != unit or frame[1] & ~REFUSED != function:
            return self.unwrap(came, number, unit, function)
        return frame[1:]


def _answer_size(function: int, byte: int) -> int | None:
    """Bytes of an answer's PDU that begins with these two; None: no answer begins so."""
    if function & REFUSED:
        return 2
    if function in READ_BY.values():
        return 2 + byte
    return 5 if function in (WRITE_COIL, WRITE_REGISTER, WRITE_COILS, WRITE_REGISTERS) else None


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
        table.append(value)
    return table


_CRC = _crc_table()


def crc(data: bytes) -> bytes:
    """CRC-16/MODBUS, low byte first as it goes over the line."""
    value = 0xFFFF
    for byte in data:
        value = (value >> 8) ^ _CRC[(value ^ byte) & 0xFF]
    return value.to_bytes(2, "little")
