"""Prometheus remote write 1.0: samples as protobuf in snappy's block format. Both are simple enough to be written here.

WriteRequest { repeated TimeSeries timeseries = 1 }
TimeSeries   { repeated Label labels = 1; repeated Sample samples = 2 }
Label        { string name = 1; string value = 2 }
Sample       { double value = 1; int64 timestamp = 2 }      timestamp in ms
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

Labels = tuple[tuple[str, str], ...]  # sorted by name, `__name__` among them

_VALUE = b"\x09"  # field 1, 64 bits
_STAMP = b"\x10"  # field 2, varint
_LITERAL = 65_536  # bytes of one literal


def varint(number: int) -> bytes:
    number &= 0xFFFF_FFFF_FFFF_FFFF  # a negative one has ten bytes
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def _nested(field: int, body: bytes) -> bytes:
    return bytes([field << 3 | 2]) + varint(len(body)) + body


def write_request(series: Mapping[Labels, Iterable[tuple[int, float]]]) -> bytes:
    """`series`: by labels, (ms, value) in order of time."""
    made = []
    for labels, samples in series.items():
        parts = [_nested(1, _nested(1, name.encode()) + _nested(2, value.encode())) for name, value in labels]
        parts += [_nested(2, _VALUE + struct.pack("<d", value) + _STAMP + varint(at)) for at, value in samples]
        made.append(_nested(1, b"".join(parts)))
    return b"".join(made)


def snappy(data: bytes) -> bytes:
    """Snappy's block format, of literals only: anybody can read it, and it saves a library."""
    parts = [varint(len(data))]
    for start in range(0, len(data), _LITERAL):
        piece = data[start : start + _LITERAL]
        # The length, less one, stands in the tag; of more than 60 bytes in two bytes behind the tag 61.
        rest = len(piece) - 1
        parts += [bytes([rest << 2]) if rest < 60 else b"\xf4" + struct.pack("<H", rest), piece]
    return b"".join(parts)
