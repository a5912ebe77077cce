"""What MQTT packets are made of: numbers, texts, properties. Nothing is taken that the standard does not allow."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

LONGEST_TEXT = 0xFFFF  # bytes of a text, and of binary data
LARGEST_VARINT = 268_435_455  # four bytes of seven bits: what a packet may be long, too

Properties = Mapping[str, Any]


class Malformed(ValueError):
    """What came is not MQTT, or not allowed where it came."""


class Cursor:
    """Reads a packet's body from its start to its end."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.end = len(data)

    def take(self, size: int) -> bytes:
        if self.at + size > self.end:
            raise Malformed("it ends too early")
        found = self.data[self.at : self.at + size]
        self.at += size
        return found

    def rest(self) -> bytes:
        return self.take(self.end - self.at)

    def more(self) -> bool:
        return self.at < self.end

    def byte(self) -> int:
        return self.take(1)[0]

    def two(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def four(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 21:
                raise Malformed("a length of more than four bytes")
        if shift and not byte:
            raise Malformed("a length of more bytes than it needs")
        return value

    def binary(self) -> bytes:
        return self.take(self.two())

    def text(self) -> str:
        return checked_text(self.binary())

    def pair(self) -> tuple[str, str]:
        return self.text(), self.text()

    def flag(self) -> int:
        value = self.byte()
        if value > 1:
            raise Malformed(f"a flag of {value}")
        return value


def checked_text(data: bytes) -> str:
    """UTF-8 without the one character that MQTT forbids."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Malformed("a text that is not UTF-8") from None
    if "\0" in text:
        raise Malformed("a text with a NUL in it")
    return text


# --- and the other way -----------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    if not 0 <= value <= LARGEST_VARINT:
        raise ValueError(f"{value} does not fit into four bytes of seven bits")
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def binary(data: bytes) -> bytes:
    if len(data) > LONGEST_TEXT:
        raise ValueError(f"{len(data)} bytes, where MQTT allows {LONGEST_TEXT}")
    return len(data).to_bytes(2, "big") + data


def text(value: str) -> bytes:
    if "\0" in value:
        raise ValueError("a text with a NUL in it")
    return binary(value.encode())


def _pair(value: tuple[str, str]) -> bytes:
    return text(value[0]) + text(value[1])


# --- properties (MQTT 5) ---------------------------------------------------------------------------------------------


class _Property(NamedTuple):
    name: str
    read: Callable[[Cursor], Any]
    write: Callable[[Any], bytes]
    packets: frozenset[str]  # where it may stand
    zero: bool = True  # may it be 0
    repeats: bool = False  # then its value is a list


_BYTE, _TWO, _FOUR = struct.Struct("!B").pack, struct.Struct("!H").pack, struct.Struct("!I").pack


def _property(name: str, kind: str, packets: str, *, zero: bool = True, repeats: bool = False) -> _Property:
    kinds: dict[str, tuple[Callable[[Cursor], Any], Callable[[Any], bytes]]] = {
        "flag": (Cursor.flag, _BYTE),
        "two": (Cursor.two, _TWO),
        "four": (Cursor.four, _FOUR),
        "varint": (Cursor.varint, varint),
        "text": (Cursor.text, text),
        "binary": (Cursor.binary, binary),
        "pair": (Cursor.pair, _pair),
    }
    return _Property(name, *kinds[kind], frozenset(packets.split()), zero, repeats)


_ANY = "CONNECT CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE UNSUBACK DISCONNECT AUTH will"
_ANSWERS = "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH"

PROPERTIES = {
    0x01: _property("payload_format", "flag", "PUBLISH will"),
    0x02: _property("message_expiry", "four", "PUBLISH will"),
    0x03: _property("content_type", "text", "PUBLISH will"),
    0x08: _property("response_topic", "text", "PUBLISH will"),
    0x09: _property("correlation_data", "binary", "PUBLISH will"),
    0x0B: _property("subscription_identifier", "varint", "PUBLISH SUBSCRIBE", zero=False, repeats=True),
    0x11: _property("session_expiry", "four", "CONNECT CONNACK DISCONNECT"),
    0x12: _property("assigned_client_id", "text", "CONNACK"),
    0x13: _property("server_keep_alive", "two", "CONNACK"),
    0x15: _property("authentication_method", "text", "CONNECT CONNACK AUTH"),
    0x16: _property("authentication_data", "binary", "CONNECT CONNACK AUTH"),
    0x17: _property("request_problem_information", "flag", "CONNECT"),
    0x18: _property("will_delay", "four", "will"),
    0x19: _property("request_response_information", "flag", "CONNECT"),
    0x1A: _property("response_information", "text", "CONNACK"),
    0x1C: _property("server_reference", "text", "CONNACK DISCONNECT"),
    0x1F: _property("reason_string", "text", _ANSWERS),
    0x21: _property("receive_maximum", "two", "CONNECT CONNACK", zero=False),
    0x22: _property("topic_alias_maximum", "two", "CONNECT CONNACK"),
    0x23: _property("topic_alias", "two", "PUBLISH", zero=False),
    0x24: _property("maximum_qos", "flag", "CONNACK"),
    0x25: _property("retain_available", "flag", "CONNACK"),
    0x26: _property("user_property", "pair", _ANY, repeats=True),
    0x27: _property("maximum_packet_size", "four", "CONNECT CONNACK", zero=False),
    0x28: _property("wildcard_subscription_available", "flag", "CONNACK"),
    0x29: _property("subscription_identifiers_available", "flag", "CONNACK"),
    0x2A: _property("shared_subscription_available", "flag", "CONNACK"),
}
_NUMBERS = {p.name: number for number, p in PROPERTIES.items()}


def read_properties(cursor: Cursor, packet: str) -> dict[str, Any]:
    """The properties that begin here. A name that may repeat has a list."""
    size = cursor.varint()
    inner = Cursor(cursor.take(size))
    found: dict[str, Any] = {}
    while inner.more():
        number = inner.varint()
        known = PROPERTIES.get(number)
        if known is None or packet not in known.packets:
            raise Malformed(f"property {number:#04x}, which has no place in it")
        value = known.read(inner)
        if not known.zero and value == 0:
            raise Malformed(f"{known.name} of 0")
        if known.repeats and (packet != "SUBSCRIBE" or number == 0x26):
            found.setdefault(known.name, []).append(value)
        elif known.name in found:
            raise Malformed(f"{known.name} twice")
        else:
            found[known.name] = [value] if known.repeats else value
    return found


def properties(values: Properties, packet: str) -> bytes:
    """As bytes, with their length before them."""
    out = bytearray()
    for name, value in values.items():
        number = _NUMBERS[name]
        known = PROPERTIES[number]
        if packet not in known.packets:
            raise ValueError(f"{name} has no place in {packet}")
        for one in value if known.repeats else [value]:
            out.append(number)
            out += known.write(one)
    return varint(len(out)) + bytes(out)
