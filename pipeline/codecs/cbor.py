"""`cbor`: CBOR maps (RFC 8949), one, in an array, or one after the other (RFC 8742)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import cbor2
from msgspec import Meta

from pipeline import items
from pipeline.component import Context, Decoded, ReadingSettings, Refused, Settings
from pipeline.reading import options_of
from pipeline.typed import EMPTY, Typed, Unhurried, expected, shown


class CborOptions(Settings, frozen=True):
    sequence: Annotated[
        bool, Meta(description="When writing: maps one after the other; false gives one array for all rows of a step.")
    ] = True


class Cbor(Typed):
    """Readings as CBOR maps with names as keys; what is not declared is ignored, null and undefined are missing.

        a2 62 69 64 62 73 31 65 76 61 6c 75 65 f9 4d 60      {"id": "s1", "value": 21.5}

        format = "cbor"
        key = "id"
        fields = { value = "float" }

    An event time is a number or a text, as `time_unit` says, or tagged as a time (0 or 1), whatever it says.
    Needs `pip install "headwater[cbor]"`.
    A bad reading costs only itself; where the bytes themselves are no CBOR, what stands behind them in their payload cannot
    be told, and is refused with them, as are the readings of an array that is broken. In a file maps stand one after the
    other.
    """

    Options = CborOptions
    media_types = ("application/cbor", "application/cbor-seq")

    def __init__(self, settings: ReadingSettings, options: dict[str, Any], context: Context) -> None:
        super().__init__(settings, context)
        self.options = options_of(CborOptions, options, context)
        own = [name for name in (settings.key, settings.time) if name is not None]
        self._names = [*own, *self.fields]

    # --- bytes to readings ---

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        refused: list[Refused] = []
        rows: list[dict[Any, Any]] = []
        counts: list[int] = []
        with Unhurried():
            for i, payload in enumerate(payloads):
                before, item = len(rows), -1
                for item, (found, why) in enumerate(self._items(payload)):
                    if type(found) is dict:
                        rows.append(found)
                    else:
                        refused.append(
                            Refused(i, item, why or expected("reading", ["object"], found), payload[:100].hex())
                        )
                counts.append(len(rows) - before)
                if item < 0:
                    refused.append(Refused(i, 0, EMPTY, ""))
            columns = {
                name: [None if (value := row.get(name)) is cbor2.undefined else value for row in rows]
                for name in self._names
            }
        names = self._names
        keys = columns.get(self.settings.key or "", [])
        stamps = columns.get(self.settings.time or "", [])
        return self.lists(
            keys, stamps, columns, counts, refused, lambda row: shown({n: rows[row].get(n) for n in names})
        )

    def _items(self, payload: bytes) -> Iterator[tuple[Any, str]]:
        """Each item of a payload, or why there is none; those of an array by themselves."""
        for found, _, why in items.items(payload):
            if type(found) is list:
                for each in found:
                    yield each, ""
            else:
                yield found, why

    def readings(self, payload: bytes) -> list[bytes]:
        """Each reading of a payload as one of its own; those of an array are written anew."""
        pieces: list[bytes] = []
        at = 0
        for found, end, why in items.items(payload):
            if type(found) is list and not why:
                pieces += map(cbor2.dumps, found)
            else:
                pieces.append(payload[at:] if why else payload[at:end])
            at = end
        return pieces

    def whole(self, data: bytes) -> int:
        """How many bytes from the start of a file are whole items."""
        return items.whole(data)

    # --- rows to bytes ---

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """A map for each row."""
        if not self.options.sequence:
            return cbor2.dumps(list(rows))
        return b"".join(cbor2.dumps(row) for row in rows)

    def header(self, names: Sequence[str]) -> bytes:
        return b""
