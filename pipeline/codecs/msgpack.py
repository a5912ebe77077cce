"""`msgpack`: MessagePack maps, one, in an array, or one after the other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pipeline.component import Context, Decoded, ReadingSettings, Refused, Settings
from pipeline.reading import options_of
from pipeline.typed import EMPTY, UNREADABLE, Typed, Unhurried

AT_ONCE = 4_096  # values that are looked for in one go, where several stand one after the other

_ARRAYS = (*range(0x90, 0xA0), 0xDC, 0xDD)
_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")


class MsgpackOptions(Settings, frozen=True):
    sequence: Annotated[
        bool, Meta(description="When writing: maps one after the other; false gives one array for all rows of a step.")
    ] = True


class Msgpack(Typed):
    """Readings as MessagePack maps with names as keys; fields that are not declared are ignored, nil is missing.

        82 a2 69 64 a2 73 31 a5 76 61 6c 75 65 cb 40 35 80 00 00 00 00 00      {"id": "s1", "value": 21.5}

        format = "msgpack"
        key = "id"
        fields = { value = "float" }

    An event time is a number or a text, as `time_unit` says, or MessagePack's own timestamp, whatever it says.
    A bad reading costs only itself; where the bytes themselves are no MessagePack, what stands behind them in their payload
    cannot be told, and is refused with them. In a file maps stand one after the other.
    """

    form = "MessagePack"
    Options = MsgpackOptions
    media_types = ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack")

    def __init__(self, settings: ReadingSettings, options: dict[str, Any], context: Context) -> None:
        super().__init__(settings, context, loose_times=True)
        self.options = options_of(MsgpackOptions, options, context)
        self._one = msgspec.msgpack.Decoder(self.reading).decode
        self._many = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode

    # --- bytes to readings ---

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        refused: list[Refused] = []
        rows: list[Any] = []
        counts: list[int] = []
        with Unhurried():
            for i, payload in enumerate(payloads):
                before = len(rows)
                try:
                    rows.append(self._one(payload))
                except UNREADABLE:
                    self._each(i, self.readings(payload), rows, refused)
                counts.append(len(rows) - before)
        return self.structs(rows, counts, refused)

    def _each(self, index: int, pieces: list[bytes], rows: list[Any], refused: list[Refused]) -> None:
        """Decode one after the other; the iterator goes on behind an error."""
        source = map(self._one, pieces)
        start, bad = len(rows), 0
        while True:
            try:
                rows.extend(source)
                break
            except UNREADABLE as error:
                item = len(rows) - start + bad
                refused.append(Refused(index, item, self.reason(error), pieces[item][:100].hex()))
                bad += 1
        if not pieces:
            refused.append(Refused(index, 0, EMPTY, ""))

    def readings(self, payload: bytes) -> list[bytes]:
        """Each reading of a payload as one of its own; what is no MessagePack is the last of them."""
        found, rest, _ = self._sequence(payload)
        pieces: list[bytes] = []
        for piece in [*found, rest] if rest else found:
            try:
                pieces += map(bytes, self._many(piece)) if piece[0] in _ARRAYS else [piece]
            except UNREADABLE:
                pieces.append(piece)
        return pieces

    def whole(self, data: bytes) -> int:
        """How many bytes from the start of a file are whole; what can never become whole counts as that, and is refused."""
        _, rest, torn = self._sequence(data)
        return len(data) - len(rest) if torn else len(data)

    def _sequence(self, data: bytes) -> tuple[list[bytes], bytes, bool]:
        """The values that stand one after the other, what is left, and whether that is only cut off. msgspec reads one value,
        and says where it ends if more comes: so the head of an array is put before them, of fewer and fewer values while
        there are not as many."""
        pieces: list[bytes] = []
        at, n = 0, AT_ONCE
        while at < len(data):
            some = b"\xdd" + n.to_bytes(4, "big") + data[at:]
            try:
                found, end = self._first(some)
            except UNREADABLE as error:
                if n == 1:
                    return pieces, data[at:], "truncated" in str(error)
                n //= 4
            else:
                pieces += map(bytes, found)
                at += end - 5
        return pieces, b"", False

    def _first(self, data: bytes) -> tuple[list[Any], int]:
        """The array that stands first, and where it ends."""
        try:
            return self._many(data), len(data)
        except msgspec.DecodeError as error:
            trailing = _TRAILING.search(str(error))
            if trailing is None:
                raise
        end = int(trailing[1])
        return self._many(data[:end]), end

    # --- rows to bytes ---

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """A map for each row."""
        if not self.options.sequence:
            return msgspec.msgpack.encode(rows)
        return b"".join(map(msgspec.msgpack.Encoder().encode, rows))

    def header(self, names: Sequence[str]) -> bytes:
        return b""
