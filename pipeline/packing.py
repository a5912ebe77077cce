"""Columns as few bytes, exactly: whole numbers by differences, floats by the decimals that sensors send, in the smallest width.

    times      delta of delta (Pelkonen et al., "Gorilla", VLDB 2015), in the coarsest unit that loses nothing
    floats     where every value has so few decimals: v * 10**p as whole numbers; else XOR with the one before
    text       a list of the different ones and their numbers
    all        bytes of equal weight side by side (shuffle), which zlib likes

Each block begins with a byte that says how it is coded, so that better ways may come beside these.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec
import numpy as np

from pipeline.frame import NO_PROGRESS, Array, Bools, Column, Frame, Ints, Progress
from pipeline.frame_bytes import decode, encode

# How a block is coded. These numbers are in every database.
_LINE, _PLAIN, _DELTA, _DELTA2, _DECIMAL, _XOR, _BITS, _TEXTS, _WORDS = range(9)
_WIDTHS = (np.uint8, np.uint16, np.uint32, np.uint64)
_UNITS = (1_000_000_000, 1_000_000, 1_000, 1)  # a time in whole seconds, milliseconds …
_MOST_DECIMALS = 6
_EXACT = 2.0**53
_SAMPLE = 64  # values by which the way is chosen

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


# --- whole numbers --------------------------------------------------------------------------------------------------


def _zigzag(x: Ints) -> Array:
    """Small numbers of both signs as small ones without."""
    return ((x << 1) ^ (x >> 63)).view(np.uint64)


def _unzigzag(u: Array) -> Ints:
    return (u >> np.uint64(1)).view(np.int64) ^ -(u & np.uint64(1)).view(np.int64)


def _shuffled(u: Array) -> tuple[int, bytes]:
    """The smallest width that holds all, and the bytes: first the lowest of every number, then the next."""
    most = int(u.max(initial=0))
    width = next(w for w in _WIDTHS if most <= np.iinfo(w).max)
    narrow = u.astype(np.dtype(width).newbyteorder("<"))
    size = narrow.dtype.itemsize
    return size, narrow.view(np.uint8).reshape(-1, size).T.tobytes()


def _unshuffled(data: bytes, n: int, width: int) -> Array:
    columns = np.frombuffer(data, np.uint8, n * width).reshape(width, n)
    wide: Array = np.ascontiguousarray(columns.T).view(f"<u{width}").ravel().astype(np.uint64)
    return wide


def pack_ints(x: Ints) -> bytes:
    """Whole numbers of 64 bits; differences may wrap around, and come back."""
    first = int(x[0]) if len(x) else 0
    steps = np.diff(x)
    step = int(steps[0]) if len(steps) else 0
    if (steps == step).all():
        return bytes([_LINE]) + _pack([first, step])
    low = int(x.min())
    ways = [(_PLAIN, low, 0, (x - low).view(np.uint64)), (_DELTA, first, 0, _zigzag(steps))]
    ways.append((_DELTA2, first, step, _zigzag(np.diff(steps))))
    way, start, step, u = min(ways, key=lambda w: _cost(w[3]))
    width, body = _shuffled(u)
    return bytes([way, width]) + _framed(_pack([start, step])) + body


def _cost(u: Array) -> float:
    """About the bits of a number, from some of them."""
    some = u[:: len(u) // _SAMPLE + 1].astype(np.float64)
    return float(np.log2(some + 1).sum()) / max(len(some), 1)


def unpack_ints(data: bytes, n: int) -> Ints:
    way = data[0]
    if way == _LINE:
        first, step = _unpack(data[1:])
        with np.errstate(over="ignore"):
            return np.int64(first) + np.int64(step) * np.arange(n, dtype=np.int64)
    width = data[1]
    head, at = _unframed(data, 2)
    start, step = _unpack(head)
    lost = {_PLAIN: 0, _DELTA: 1, _DELTA2: 2}[way]
    u = _unshuffled(data[at:], n - lost, width)
    if way == _PLAIN:
        return u.view(np.int64) + np.int64(start)
    x = _unzigzag(u)
    if way == _DELTA2:
        x = np.cumsum(np.concatenate((np.array([step], np.int64), x)))
    return np.cumsum(np.concatenate((np.array([start], np.int64), x)))


def pack_times(x: Ints) -> bytes:
    unit = next(u for u in _UNITS if not (x % u).any())
    return bytes([_UNITS.index(unit)]) + pack_ints(x // unit)


def unpack_times(data: bytes, n: int) -> Ints:
    return unpack_ints(data[1:], n) * _UNITS[data[0]]


# --- the other kinds ------------------------------------------------------------------------------------------------


def pack_floats(v: Array) -> bytes:
    p = _decimals(v)
    if p is not None:
        return bytes([_DECIMAL, p]) + pack_ints(np.rint(v * 10.0**p).astype(np.int64))
    u = v.view(np.uint64).copy()
    u[1:] ^= v.view(np.uint64)[:-1]
    return bytes([_XOR]) + u.astype("<u8").view(np.uint8).reshape(-1, 8).T.tobytes()


def unpack_floats(data: bytes, n: int) -> Array:
    if data[0] == _DECIMAL:
        return unpack_ints(data[2:], n) / 10.0 ** data[1]
    u = _unshuffled(data[1:], n, 8)
    return np.bitwise_xor.accumulate(u).view(np.float64) if n else u.view(np.float64)


def _decimals(v: Array) -> int | None:
    """So many decimals give back every value to the last bit; None: no such number."""
    with np.errstate(invalid="ignore", over="ignore"):
        for p in range(_MOST_DECIMALS + 1):
            if _fits(v[:_SAMPLE], p) and _fits(v, p):
                return p
    return None


def _fits(v: Array, p: int) -> bool:
    r = np.rint(v * 10.0**p)
    if not (np.abs(r) < _EXACT).all():  # False for NaN and infinity, too
        return False
    return bool(np.array_equal((r.astype(np.int64) / 10.0**p).view(np.uint64), v.view(np.uint64)))  # -0.0 is not 0.0


def pack_bools(b: Bools) -> bytes:
    return bytes([_BITS]) + np.packbits(b).tobytes()


def unpack_bools(data: bytes, n: int) -> Bools:
    return np.unpackbits(np.frombuffer(data, np.uint8, offset=1), count=n).astype(np.bool_)


def pack_texts(texts: Sequence[str]) -> bytes:
    words = dict.fromkeys(texts)
    if 2 * len(words) > len(texts):
        return bytes([_TEXTS]) + _pack(list(texts))
    number = {word: i for i, word in enumerate(words)}
    codes = np.fromiter(map(number.__getitem__, texts), np.int64, len(texts))
    return bytes([_WORDS]) + _framed(_pack(list(words))) + pack_ints(codes)


def unpack_texts(data: bytes, n: int) -> Array:
    if data[0] == _TEXTS:
        return _objects(_unpack(data[1:]))
    words, at = _unframed(data, 1)
    texts: Array = _objects(_unpack(words))[unpack_ints(data[at:], n)]
    return texts


def _objects(texts: list[str]) -> Array:
    array: Array = np.empty(len(texts), object)
    array[:] = texts
    return array


# --- columns, and several blocks as one -----------------------------------------------------------------------------

_KINDS = {"f": "f", "i": "i", "b": "b", "O": "s"}  # numpy's letter for an array -> ours
_PACK: dict[str, Callable[[Array], bytes]] = {"f": pack_floats, "i": pack_ints, "b": pack_bools}
_UNPACK: dict[str, Callable[[bytes, int], Array]] = {
    "f": unpack_floats,
    "i": unpack_ints,
    "b": unpack_bools,
    "s": unpack_texts,
}


def pack_column(column: Column) -> tuple[str, bytes]:
    """The kind, in capitals where a mask comes first, and the bytes."""
    kind = _KINDS[column.values.dtype.kind]
    body = pack_texts(column.values.tolist()) if kind == "s" else _PACK[kind](column.values)
    if column.present is None:
        return kind, body
    return kind.upper(), _framed(pack_bools(column.present)) + body


def unpack_column(kind: str, data: bytes, n: int) -> Column:
    if kind.islower():
        return Column(_UNPACK[kind](data, n))
    mask, at = _unframed(data, 0)
    return Column(_UNPACK[kind.lower()](data[at:], n), unpack_bools(mask, n))


def join(head: Any, blocks: Sequence[bytes]) -> bytes:
    """A head (numbers, text, lists) and blocks as one, compressed."""
    start = _pack([head, [len(b) for b in blocks]])
    return zlib.compress(_framed(start) + b"".join(blocks), 1)


def split(data: bytes) -> tuple[Any, list[bytes]]:
    """What `join` was given."""
    raw = zlib.decompress(data)
    start, at = _unframed(raw, 0)
    head, lengths = _unpack(start)
    blocks = []
    for length in lengths:
        blocks.append(raw[at : at + length])
        at += length
    return head, blocks


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def _unframed(data: bytes, at: int) -> tuple[bytes, int]:
    """A block with its length before it, and where it ends."""
    end = at + 4 + int.from_bytes(data[at : at + 4], "little")
    return data[at + 4 : end], end


# --- Frames ---------------------------------------------------------------------------------------------------------

SMALL = 64  # rows; packing a Frame takes about 0.2 ms, however few there are
_PACKED = b"\xff\xff\xff\xff"  # no Frame as `encode` gives it begins so: this would be the length of its head


def pack_frame(frame: Frame) -> bytes:
    """The rows as bytes (without progress), a tenth of what `encode` makes of them; of a few, what that makes."""
    if len(frame) < SMALL:
        return encode(frame)
    packed = {name: pack_column(column) for name, column in frame.columns.items()}
    fields = [[name, kind] for name, (kind, _) in packed.items()]
    blocks = [pack_times(frame.time), pack_ints(frame.key.astype(np.int64)), pack_ints(frame.seq)]
    return _PACKED + join([len(frame), fields], [*blocks, *(body for _, body in packed.values())])


def unpack_frame(data: bytes, progress: Progress = NO_PROGRESS, only: Collection[str] | None = None) -> Frame:
    """The Frame that `pack_frame` or `encode` was given, with this progress. `only`: others of its columns may be left out."""
    if data[:4] != _PACKED:
        return decode(data, progress)
    (n, fields), (time, key, seq, *blocks) = split(data[4:])
    columns = {
        name: unpack_column(kind, block, n)
        for (name, kind), block in zip(fields, blocks, strict=True)
        if only is None or name in only
    }
    codes = unpack_ints(key, n).astype(np.int32)
    return Frame(unpack_times(time, n), codes, unpack_ints(seq, n), columns, progress)
