"""`json`: one value, an array of values, or one value a line (NDJSON)."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from pipeline.component import Context, Decoded, ReadingSettings, Refused, item_of
from pipeline.frame import Array, Bools, Column, Field, Ints, column
from pipeline.reading import parse_fields
from pipeline.times import nanoseconds

RAW = 200  # characters of a refused reading that are kept
REASONS = 1_000  # different errors whose wording is remembered
_TYPES: dict[str, Any] = {"float": float, "int": int, "bool": bool, "string": str}
_SAID = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text", "string": "text"}
_GOT = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
_EXPECTED = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")


class Json:
    """Readings as JSON objects; fields that are not declared are ignored, null is missing.

        {"id": "s1", "value": 21.5}
        [{"id": "s1", "value": 21.5}, {"id": "s2", "value": 19.0}]

        format = "json"

    A bad reading costs only itself. Options when writing: `lines = false` gives one array instead of lines.
    """

    media_types = ("application/json", "application/x-ndjson", "application/jsonl", "application/ndjson")

    def __init__(self, settings: ReadingSettings, options: dict[str, Any], context: Context) -> None:
        self.lines = options.pop("lines", True)
        if options or not isinstance(self.lines, bool):
            context.problem("format", "json has one option: lines = true or false")
        self.settings = settings
        self.keys = context.keys
        self._known: dict[str | int, int] = {}  # of the key table what this codec has met: bounded as that is
        quiet = Context(context.name, context.keys)  # the source reports wrong fields itself
        reserved = (settings.key, settings.time, "time")
        self.fields = {n: f for n, f in parse_fields(settings.fields, quiet).items() if n not in reserved}
        self._reading = self._struct(whole_times=False)
        # Numbers are whole in most data, and then cost half: only when one is not, fractions are allowed for good.
        self._whole_times = settings.time is not None and settings.time_unit != "iso"
        got = "str" if settings.time_unit == "auto" else "float"
        self._fraction_at = (f"got `{got}` - at `$.{settings.time}`", f"got `float` - at `$.{settings.time}`")
        self._fractions = msgspec.json.Decoder(self._reading).decode
        self._one = (
            msgspec.json.Decoder(self._struct(whole_times=True)).decode if self._whole_times else self._fractions
        )
        self._many = msgspec.json.Decoder(list[msgspec.Raw]).decode
        self._any = msgspec.json.Decoder(msgspec.Raw).decode
        self._reasons: dict[str, str] = {}
        # A list comprehension over a fixed attribute is twice as fast as map(attrgetter): 7 ns a value.
        self._get = [eval(f"lambda rows: [row.f{i} for row in rows]") for i in range(len(self.fields))]
        self._nan = any(f.nan for f in self.fields.values())

    def _struct(self, *, whole_times: bool) -> type[Any]:
        """A Struct of the key, the time and the fields; attributes are numbered, so any name will do."""
        attributes: list[Any] = []
        rename: dict[str, str] = {}
        if self.settings.key is not None:
            attributes.append(("key", str | int))
            rename["key"] = self.settings.key
        if self.settings.time is not None:
            unit = self.settings.time_unit
            kind = int if whole_times else {"iso": str, "auto": int | float | str}.get(unit, int | float)
            attributes.append(("time", kind))
            rename["time"] = self.settings.time
        optional = []
        for i, (name, field) in enumerate(self.fields.items()):
            kind = _TYPES[field.kind]
            if field.optional:
                optional.append((f"f{i}", kind | None, None))
            else:
                attributes.append((f"f{i}", kind))
            rename[f"f{i}"] = name
        return msgspec.defstruct("Reading", [*attributes, *optional], rename=rename, gc=False)

    # --- bytes to readings ---

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        refused: list[Refused] = []
        rows: list[Any] = []
        counts: list[int] = []
        collecting = gc.isenabled()
        gc.disable()  # tens of thousands of young objects, none of them in a cycle
        try:
            for i, payload in enumerate(payloads):
                before = len(rows)
                self._payload(i, payload, rows, refused)
                counts.append(len(rows) - before)
        finally:
            if collecting:
                gc.enable()
        return self._columns(rows, counts, refused)

    def _payload(self, index: int, payload: bytes, rows: list[Any], refused: list[Refused]) -> None:
        self._each(index, self._texts(payload), rows, refused)

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
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return [payload]

    def _each(self, index: int, texts: Sequence[bytes], rows: list[Any], refused: list[Refused]) -> None:
        """Decode one after the other. What `extend` took before an error stays, and the iterator goes on behind it:
        so a bad reading costs no second look at its neighbours (per reading 0.15 us, as much as `orjson.loads`)."""
        source = map(self._one, texts)
        start, bad, blank = len(rows), 0, 0
        while True:
            try:
                rows.extend(source)
                break
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                text = texts[len(rows) - start + bad + blank]
                if not text.strip():
                    blank += 1
                elif (again := self._with_nan(text)) is not None:
                    rows.append(again)
                elif self._whole_times and str(error).endswith(self._fraction_at):
                    self._whole_times, self._one = False, self._fractions
                    source = map(self._one, texts[len(rows) - start + bad + blank :])
                else:
                    raw = text[: 4 * RAW].decode(errors="replace")[:RAW]
                    refused.append(Refused(index, len(rows) - start + bad, self._reason(error), raw))
                    bad += 1
        if len(rows) == start and not bad:
            refused.append(Refused(index, 0, "empty: there is no reading in it", ""))

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
            return msgspec.convert(found, self._reading)
        except (ValueError, AttributeError, msgspec.ValidationError):
            return None

    def _reason(self, error: Exception) -> str:
        """What msgspec says, in a user's words; most mistakes are made again and again."""
        said = str(error)
        if said not in self._reasons:
            if len(self._reasons) >= REASONS:
                self._reasons.clear()
            self._reasons[said] = self._in_words(error)
        return self._reasons[said]

    def _in_words(self, error: Exception) -> str:
        text, _, path = str(error).partition(" - at `$")
        if not isinstance(error, msgspec.ValidationError):
            return f"not JSON: {text.removeprefix('JSON is malformed: ')}"
        name = path.rstrip("`").removeprefix(".")
        if missing := re.fullmatch(r"Object missing required field `(.+)`", text):
            return f"{missing[1]}: missing"
        if found := _EXPECTED.fullmatch(text):
            kinds = [kind for kind in found[1].split(" | ") if kind != "null"]
            if name == self.settings.time and kinds == ["int"]:
                kinds = ["float"]  # fractions are only tried where there is one
            wanted = [_SAID.get(kind, kind) for kind in kinds if not (kind == "int" and "float" in kinds)]
            return f"{name or 'reading'}: expected {' or '.join(wanted)}, got {_GOT.get(found[2], found[2])}"
        return f"{name}: {text}" if name else text

    # --- readings to columns ---

    def _columns(self, rows: list[Any], counts: list[int], refused: list[Refused]) -> Decoded:
        n = len(rows)
        bad: dict[int, str] = {}
        keys: Array = np.empty(0, np.int32)
        if self.settings.key is not None:
            keys = np.fromiter(self._codes(rows), np.int32, n)
            bad |= {i: self.keys.why(int(keys[i])) for i in np.flatnonzero(keys < 0).tolist()}
        times: Ints | None = None
        if self.settings.time is not None:
            stamps = [row.time for row in rows]
            values = np.fromiter(stamps, np.int64, n) if self._whole_times else stamps
            times, good = nanoseconds(values, self.settings.time_unit)
            if good is not None:
                bad |= dict.fromkeys(np.flatnonzero(~good).tolist(), f"{self.settings.time}: not a time in range")
        columns = {}
        for i, (name, field) in enumerate(self.fields.items()):
            columns[name] = self._column(name, field, self._get[i](rows), bad)
        decoded = Decoded(keys, times, columns, counts, refused)
        return self._without(bad, rows, decoded) if bad else decoded

    def _column(self, name: str, field: Field, values: list[Any], bad: dict[int, str]) -> Column:
        try:
            return (
                column(field.kind, values) if field.optional or field.kind == "string" else _plain(field.kind, values)
            )
        except OverflowError:
            for i, value in enumerate(values):
                if value is not None and not -(2**63) <= value < 2**63:
                    bad[i] = f"{name}: beyond 64 bits"
                    values[i] = 0
            return column(field.kind, values)

    def _codes(self, rows: list[Any]) -> list[int]:
        """The code of each reading's key. A plain dict is read twice as fast as the key table, which makes new codes."""
        known = self._known
        try:
            return [known[row.key] for row in rows]
        except KeyError:
            codes = [self.keys[row.key] for row in rows]
            known.update((row.key, code) for row, code in zip(rows, codes, strict=True) if code >= 0)
            return codes

    def _without(self, bad: dict[int, str], rows: list[Any], decoded: Decoded) -> Decoded:
        """Take out readings that were JSON of the right form and yet cannot be."""
        keep: Bools = np.ones(len(rows), np.bool_)
        keep[list(bad)] = False
        counts, malformed = decoded.counts, decoded.refused
        payload = np.repeat(np.arange(len(counts)), counts)
        starts = np.cumsum(counts) - counts
        refused = list(malformed)
        for row, why in sorted(bad.items()):
            of = int(payload[row])
            item = item_of(row - int(starts[of]), of, malformed)
            refused.append(Refused(of, item, why, msgspec.json.encode(rows[row]).decode()[:RAW]))
        return Decoded(
            decoded.keys[keep] if len(decoded.keys) else decoded.keys,  # type: ignore[call-overload]
            None if decoded.times is None else decoded.times[keep],
            {name: c.take(keep) for name, c in decoded.columns.items()},
            np.bincount(payload[keep], minlength=len(counts)).tolist(),
            refused,
        )

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


def _plain(kind: str, values: list[Any]) -> Column:
    dtype: Any = {"float": np.float64, "int": np.int64, "bool": np.bool_}[kind]
    array: Array = np.fromiter(values, dtype, len(values))
    return Column(array)
