"""`json`: one value, an array of values, or one value a line (NDJSON)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pipeline.component import Context, Decoded, ReadingSettings, Refused, Settings
from pipeline.reading import options_of
from pipeline.typed import EMPTY, RAW, UNREADABLE, Typed, Unhurried


class JsonOptions(Settings, frozen=True):
    lines: Annotated[
        bool, Meta(description="When writing: an object a line; false gives one array for all rows of a step.")
    ] = True


class Json(Typed):
    """Readings as JSON objects; fields that are not declared are ignored, null is missing.

        {"id": "s1", "value": 21.5}
        [{"id": "s1", "value": 21.5}, {"id": "s2", "value": 19.0}]

        format = "json"

    A bad reading costs only itself.
    """

    Options = JsonOptions
    media_types = ("application/json", "application/x-ndjson", "application/jsonl", "application/ndjson")

    def __init__(self, settings: ReadingSettings, options: dict[str, Any], context: Context) -> None:
        self.lines = options_of(JsonOptions, options, context).lines
        super().__init__(settings, context)
        # Numbers are whole in most data, and then cost half: only when one is not, fractions are allowed for good.
        self.whole_times = settings.time is not None and settings.time_unit != "iso"
        got = "str" if settings.time_unit == "auto" else "float"
        self._fraction_at = (f"got `{got}` - at `$.{settings.time}`", f"got `float` - at `$.{settings.time}`")
        self._fractions = msgspec.json.Decoder(self.reading).decode
        whole = self.struct(whole_times=True) if self.whole_times else self.reading
        self._one = msgspec.json.Decoder(whole).decode
        self._many = msgspec.json.Decoder(list[msgspec.Raw]).decode
        self._any = msgspec.json.Decoder(msgspec.Raw).decode
        self._nan = any(f.nan for f in self.fields.values())

    # --- bytes to readings ---

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        refused: list[Refused] = []
        rows: list[Any] = []
        counts: list[int] = []
        rest = iter(payloads)
        with Unhurried():
            while len(counts) < len(payloads):
                before = len(rows)
                try:  # mostly a payload is one reading, or many lines, which this sees at the end of the first
                    rows.extend(map(self._one, rest))
                except UNREADABLE:  # what came before it stays, and `rest` goes on behind it
                    counts += [1] * (len(rows) - before)
                    before, at = len(rows), len(counts)
                    self._each(at, self._texts(payloads[at]), rows, refused)
                    counts.append(len(rows) - before)
                else:
                    counts += [1] * (len(rows) - before)
        return self.structs(rows, counts, refused)

    def _texts(self, payload: bytes) -> list[bytes]:
        """One value, an array, or lines. A single object on one line is the shortest way through `_each`, too."""
        texts: list[bytes] | None = None
        first = payload[: payload.find(b"\n")] if b"\n" in payload else payload
        if not first.rstrip().endswith(b"}"):
            texts = self._spread(payload)
        return payload.split(b"\n") if texts is None else texts

    def readings(self, payload: bytes) -> list[bytes]:
        """Each reading of a payload as one of its own."""
        return [text for text in self._texts(payload) if text.strip()]

    def _spread(self, payload: bytes) -> list[bytes] | None:
        """The values of an array, or the one value that stands on several lines; None: neither."""
        try:
            if payload.lstrip()[:1] == b"[":
                return [bytes(value) for value in self._many(payload)]
            self._any(payload)
        except UNREADABLE:
            return None
        return [payload]

    def _each(self, index: int, texts: Sequence[bytes], rows: list[Any], refused: list[Refused]) -> None:
        """Decode one after the other. What `extend` took before an error stays, and the iterator goes on behind it:
        so a bad reading costs no second look at its neighbours (per reading 0.15 us, as much as `orjson.loads`)."""
        source: Iterator[Any] = map(self._one, texts)
        start, bad, blank = len(rows), 0, 0
        while True:
            try:
                rows.extend(source)
                break
            except UNREADABLE as error:
                text = texts[len(rows) - start + bad + blank]
                if not text.strip():
                    blank += 1
                elif (again := self._with_nan(text)) is not None:
                    rows.append(again)
                    if self.whole_times and not isinstance(again.time, int):
                        source = self._allow_fractions(texts[len(rows) - start + bad + blank :])
                elif self.whole_times and str(error).endswith(self._fraction_at):
                    source = self._allow_fractions(texts[len(rows) - start + bad + blank :])
                else:
                    raw = text[: 4 * RAW].decode(errors="replace")[:RAW]
                    refused.append(Refused(index, len(rows) - start + bad, self.reason(error), raw))
                    bad += 1
        if len(rows) == start and not bad:
            refused.append(Refused(index, 0, EMPTY, ""))

    def _allow_fractions(self, texts: Sequence[bytes]) -> Iterator[Any]:
        self.whole_times, self._one = False, self._fractions
        return map(self._one, texts)

    def _with_nan(self, text: bytes) -> Any:
        """A reading with NaN in it, which JSON does not know but many programs write; only for `float nan` fields."""
        if not self._nan or b"NaN" not in text:
            return None
        names = {n for n, f in self.fields.items() if f.nan}
        try:
            found = json.loads(text)
            nans = {k for k, v in found.items() if isinstance(v, float) and v != v}
            if not nans <= names:
                return None
            return msgspec.convert(found, self.reading)
        except (ValueError, AttributeError, RecursionError, msgspec.ValidationError):
            return None

    # --- rows to bytes ---

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """One object a line; or one array."""
        import orjson

        if not self.lines:
            return orjson.dumps(rows)
        dumps: Callable[[Any], bytes] = orjson.dumps
        return b"\n".join(map(dumps, rows)) + b"\n" if rows else b""

    def header(self, names: Sequence[str]) -> bytes:
        return b""
