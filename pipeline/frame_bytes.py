"""A Frame as bytes, and back."""

from __future__ import annotations

import msgspec
import numpy as np

from pipeline.frame import Array, Bools, Column, Frame, Progress


class _Head(msgspec.Struct, array_like=True):
    rows: int
    fields: list[tuple[str, str, bool]]  # name, kind of array, is there a mask


_HEAD = msgspec.msgpack.Decoder(_Head)
_STRINGS = msgspec.msgpack.Decoder(list[str])


def encode(frame: Frame) -> bytes:
    """The rows as bytes (without progress): a small header, then each array, little-endian, one after the other."""
    fields: list[tuple[str, str, bool]] = []
    parts: list[bytes] = []
    for name, (values, present) in frame.columns.items():
        if values.dtype == object:
            fields.append((name, "s", present is not None))
            body = msgspec.msgpack.encode(values.tolist())
            parts.append(len(body).to_bytes(4, "little") + body)
        else:
            fields.append((name, values.dtype.str, present is not None))
            parts.append(values.tobytes())
        if present is not None:
            parts.append(np.packbits(present).tobytes())
    head = msgspec.msgpack.encode(_Head(len(frame), fields))
    start = len(head).to_bytes(4, "little") + head
    return b"".join((start, frame.time.tobytes(), frame.key.tobytes(), frame.seq.tobytes(), *parts))


def decode(data: bytes, progress: Progress) -> Frame:
    """The Frame that `encode` was given, with this progress."""
    size = int.from_bytes(data[:4], "little")
    head = _HEAD.decode(data[4 : 4 + size])
    at = 4 + size
    n = head.rows

    def array(dtype: str, width: int) -> Array:
        nonlocal at
        found: Array = np.frombuffer(data, dtype, n, at)
        at += n * width
        return found

    time, key, seq = array("<i8", 8), array("<i4", 4), array("<i8", 8)
    columns: dict[str, Column] = {}
    for name, kind, masked in head.fields:
        if kind == "s":
            length = int.from_bytes(data[at : at + 4], "little")
            values: Array = np.empty(n, object)
            values[:] = _STRINGS.decode(data[at + 4 : at + 4 + length])
            at += 4 + length
        else:
            values = array(kind, np.dtype(kind).itemsize)
        present: Bools | None = None
        if masked:
            packed = np.frombuffer(data, np.uint8, (n + 7) // 8, at)
            present = np.unpackbits(packed, count=n).astype(np.bool_)
            at += (n + 7) // 8
        columns[name] = Column(values, present)
    return Frame(time, key, seq, columns, progress)
