"""CBOR items one after the other, as cbor and senml have them. Needs cbor2, which is an extra: imported only by what uses it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import cbor2

LONGEST = 200  # characters of what cbor2 says
TORN = "not CBOR: it ends too soon"

# cbor2 raises these at what it cannot read, of its own and of Python's.
_UNREADABLE = (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError, MemoryError)


def items(data: bytes) -> Iterator[tuple[Any, int, str]]:
    """Each item, with where it ends; at last, if something is left, why it is none."""
    stream = io.BytesIO(data)
    decode = cbor2.CBORDecoder(stream).decode
    at, size = 0, len(data)
    while at < size:
        try:
            found = decode()
        except cbor2.CBORDecodeEOF:
            yield None, at, TORN
            return
        except _UNREADABLE as error:
            yield None, size, f"not CBOR: {error}"[:LONGEST]
            return
        at = stream.tell()
        yield found, at, ""


def whole(data: bytes) -> int:
    """How many bytes from the start of a file are whole; what can never become whole counts as that, and is refused."""
    return max((end for _, end, _ in items(data)), default=0)
