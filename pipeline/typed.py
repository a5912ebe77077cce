"""Readings of declared fields, from the values that a codec finds: their types, key and time, and what is refused in which words.

What codecs of typed formats share (json, msgpack, cbor, influx, senml, path, sparkplug). Those of text are in texts.py.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from pipeline.component import Context, Decoded, ReadingSettings, Refused, item_of
from pipeline.frame import Array, Bools, Column, Field, Ints, column
from pipeline.keys import UNFIT
from pipeline.reading import parse_fields
from pipeline.times import PER_UNIT, nanoseconds

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
RAW = 200  # characters of a refused reading that are kept
EMPTY = "empty: there is no reading in it"
REASONS = 1_000  # different errors whose wording is remembered
LONGEST_NUMBER = 2_000  # bits of a whole number that is a key: more digits than a key may have

_TYPES: dict[str, Any] = {"float": float, "int": int, "bool": bool, "string": str}
_FITTING: dict[str, set[type]] = {"float": {float, int}, "int": {int}, "bool": {bool}, "string": {str}}
_ZEROS: dict[str, Any] = {"float": 0.0, "int": 0, "bool": False, "string": ""}
_GOT = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
    "Nonsense": "what is none",
    "Ext": "an extension",
    "ext": "an extension",
    "datetime": "a time",
}
_SAID = {**_GOT, "string": "text"}
_NAMES: dict[type, str] = {int: "int", float: "float", bool: "bool", type(None): "null", list: "array", dict: "object"}
_EXPECTED = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Typed:
    """The declared part of a codec. `structs` takes readings that msgspec has checked, `lists` values as they were found."""

    form = "JSON"  # what the bytes are, for the words of an error

    def __init__(self, settings: ReadingSettings, context: Context, *, loose_times: bool = False) -> None:
        self.settings = settings
        self.keys = context.keys
        self.clock = context.clock  # None: what is decoded may be decoded once more later, and must be dated alike
        self._known: dict[str | int, int] = {}  # of the key table what this codec has met: bounded as that is
        quiet = Context(context.name, context.keys)  # the source reports wrong fields itself
        reserved = (settings.key, settings.time, "time")
        self.fields = {n: f for n, f in parse_fields(settings.fields, quiet).items() if n not in reserved}
        # A binary format has times of its own beside numbers and text: they are looked at here, not by msgspec.
        self.loose_times = loose_times
        self.reading = self.struct(whole_times=False)
        self.whole_times = False  # times are whole numbers, every one
        self._reasons: dict[str, str] = {}
        # A list comprehension over a fixed attribute is twice as fast as map(attrgetter): 7 ns a value.
        self._get = [eval(f"lambda rows: [row.f{i} for row in rows]") for i in range(len(self.fields))]

    def struct(self, *, whole_times: bool) -> type[Any]:
        """A Struct of the key, the time and the fields; attributes are numbered, so any name will do."""
        attributes: list[Any] = []
        rename: dict[str, str] = {}
        if self.settings.key is not None:
            attributes.append(("key", str | int))
            rename["key"] = self.settings.key
        if self.settings.time is not None:
            unit = self.settings.time_unit
            kind: Any = int if whole_times else {"iso": str, "auto": int | float | str}.get(unit, int | float)
            attributes.append(("time", Any if self.loose_times else kind))
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

    def now(self, unit: str) -> int | None:
        """The time at which something is read that brings none, in `unit`; None: it may be read again, and would change."""
        return None if self.clock is None else self.clock.wall() // PER_UNIT[unit]

    # --- words ---

    def reason(self, error: Exception) -> str:
        """What msgspec says, in a user's words; most mistakes are made again and again."""
        said = str(error)
        if said not in self._reasons:
            if len(self._reasons) >= REASONS:
                self._reasons.clear()
            self._reasons[said] = self._in_words(error)
        return self._reasons[said]

    def _in_words(self, error: Exception) -> str:
        text, _, path = str(error).partition(" - at `$")
        if isinstance(error, RecursionError):
            return "nested too deeply"
        if not isinstance(error, msgspec.ValidationError):
            return f"not {self.form}: {text.partition(' is malformed: ')[2] or text}"
        name = path.rstrip("`").removeprefix(".")
        if missing := re.fullmatch(r"Object missing required field `(.+)`", text):
            return f"{missing[1]}: missing"
        if found := _EXPECTED.fullmatch(text):
            kinds = [kind for kind in found[1].split(" | ") if kind != "null"]
            if name == self.settings.time and kinds == ["int"]:
                kinds = ["float"]  # fractions are only tried where there is one
            return _expected(name or "reading", kinds, found[2])
        return f"{name}: {text}" if name else text

    # --- readings to columns ---

    def structs(self, rows: list[Any], counts: list[int], refused: list[Refused]) -> Decoded:
        """Readings of `reading`, as many of each payload as `counts` says; what was refused before keeps its place."""
        bad: dict[int, str] = {}
        keys = self._codes([row.key for row in rows], bad) if self.settings.key is not None else None
        stamps = [row.time for row in rows] if self.settings.time is not None else None
        times = None if stamps is None else self._times(stamps, bad)
        columns = {
            name: self._column(name, field, self._get[i](rows), bad)
            for i, (name, field) in enumerate(self.fields.items())
        }
        decoded = Decoded(np.empty(0, np.int32) if keys is None else keys, times, columns, counts, refused)
        return without(bad, decoded, lambda row: shown(_by_name(rows[row])))

    def lists(
        self,
        keys: list[Any],
        stamps: list[Any],
        values: Mapping[str, list[Any]],
        counts: list[int],
        refused: list[Refused],
        raw: Callable[[int], str],
        unit: str | None = None,
    ) -> Decoded:
        """Readings as a list for the key, the time and each field; None is missing. `raw` shows one by its number; times are
        in `unit`, where that is not what the settings say."""
        bad: dict[int, str] = {}
        codes: Array = np.empty(0, np.int32)
        if self.settings.key is not None:
            self._fit(self.settings.key, {str, int}, ["int", "str"], keys, "-", bad)
            codes = self._codes(keys, bad)
        times = None if self.settings.time is None else self._times(stamps, bad, unit, checked=False)
        columns = {}
        for name, field in self.fields.items():
            fitting = _FITTING[field.kind] | ({type(None)} if field.optional else set())
            self._fit(name, fitting, [field.kind], values[name], _ZEROS[field.kind], bad)
            columns[name] = self._column(name, field, values[name], bad)
        return without(bad, Decoded(codes, times, columns, counts, refused), raw)

    def _fit(
        self, name: str, fitting: set[type], kinds: list[str], values: list[Any], zero: Any, bad: dict[int, str]
    ) -> None:
        """Note the values of another type, and put `zero` there: their readings are refused."""
        if set(map(type, values)) <= fitting:
            return
        for row, value in enumerate(values):
            if type(value) not in fitting:
                bad.setdefault(row, f"{name}: missing" if value is None else expected(name, kinds, value))
                values[row] = zero

    def _column(self, name: str, field: Field, values: list[Any], bad: dict[int, str]) -> Column:
        try:
            made = (
                column(field.kind, values) if field.optional or field.kind == "string" else _plain(field.kind, values)
            )
        except OverflowError:
            for row, value in enumerate(values):
                if value is not None and not _holds(field.kind, value):
                    bad.setdefault(row, f"{name}: beyond 64 bits")
                    values[row] = 0
            made = column(field.kind, values)
        if field.kind == "float" and not (finite := np.isfinite(made.values)).all():
            for row in np.flatnonzero(~finite).tolist():
                nan = bool(np.isnan(made.values[row]))
                if not (nan and field.nan):
                    bad.setdefault(row, f"{name}: expected a number, got {'NaN' if nan else 'infinity'}")
        return made

    def _codes(self, keys: list[Any], bad: dict[int, str]) -> Array:
        """The code of each reading's key. A plain dict is read twice as fast as the key table, which makes new codes."""
        known = self._known
        try:
            return np.fromiter([known[key] for key in keys], np.int32, len(keys))
        except KeyError:
            codes = [self._code(key) for key in keys]
            known.update((key, code) for key, code in zip(keys, codes, strict=True) if code >= 0)
        for row, code in enumerate(codes):
            if code < 0:
                bad.setdefault(row, self.keys.why(code))
        return np.array(codes, np.int32)

    def _code(self, key: str | int) -> int:
        if isinstance(key, int) and key.bit_length() > LONGEST_NUMBER:
            return UNFIT  # Python refuses to write out very long numbers
        return self.keys[key]

    def _times(self, stamps: list[Any], bad: dict[int, str], unit: str | None = None, *, checked: bool = True) -> Ints:
        name, unit = self.settings.time or "", unit or self.settings.time_unit
        exact: dict[int, int] = {}
        if self.loose_times or not checked:
            exact = {row: _since_1970(v) for row, v in enumerate(stamps) if isinstance(v, datetime)}
            stand_in: Any = "1970-01-01" if unit == "iso" else 0
            for row in exact:
                stamps[row] = stand_in
            kinds = {"iso": ["str"], "auto": ["float", "str"]}.get(unit, ["float"])
            fitting: set[type] = {str} if unit == "iso" else {int, float, str} if unit == "auto" else {int, float}
            self._fit(name, fitting, kinds, stamps, stand_in, bad)
        times, good = nanoseconds(_whole(stamps) if self.whole_times else stamps, unit)
        for row, ns in exact.items():
            times[row] = ns
        if good is not None:
            for row in np.flatnonzero(~good).tolist():
                bad.setdefault(row, f"{name}: not a time in range")
        return times


def without(bad: Mapping[int, str], decoded: Decoded, raw: Callable[[int], str]) -> Decoded:
    """Take out readings that were well-formed and yet cannot be, each with its reason."""
    if not bad:
        return decoded
    counts, malformed = decoded.counts, decoded.refused
    payload = np.repeat(np.arange(len(counts)), counts)
    keep: Bools = np.ones(len(payload), np.bool_)
    keep[list(bad)] = False
    starts = np.cumsum(counts) - counts
    refused = list(malformed)
    for row, why in sorted(bad.items()):
        of = int(payload[row])
        item = item_of(row - int(starts[of]), of, malformed)
        refused.append(Refused(of, item, why, raw(row)[:RAW]))
    return Decoded(
        decoded.keys[keep] if len(decoded.keys) else decoded.keys,  # type: ignore[call-overload]
        None if decoded.times is None else decoded.times[keep],
        {name: c.take(keep) for name, c in decoded.columns.items()},
        np.bincount(payload[keep], minlength=len(counts)).tolist(),
        refused,
    )


class Nonsense:
    """Stands for a value that is written as none of its format."""


class Unhurried:
    """While tens of thousands of young objects are made, none of them in a cycle, nobody looks for cycles."""

    def __enter__(self) -> None:
        self.collecting = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self.collecting:
            gc.enable()


def _expected(name: str, kinds: Sequence[str], got: str) -> str:
    wanted = [_SAID.get(kind, kind) for kind in kinds if not (kind == "int" and "float" in kinds)]
    return f"{name}: expected {' or '.join(wanted)}, got {_GOT.get(got, got)}"


def expected(name: str, kinds: Sequence[str], value: Any) -> str:
    """The words for a value of another type than one of `kinds`."""
    return _expected(name, kinds, _NAMES.get(type(value), type(value).__name__))


def _by_name(row: Any) -> dict[str, Any]:
    values = msgspec.structs.asdict(row)
    names = dict(zip(row.__struct_fields__, row.__struct_encode_fields__, strict=True))
    return {names[name]: value for name, value in values.items()}


def shown(value: Any) -> str:
    """A reading, or what should have been one, for people to look at."""
    try:
        return json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError):  # a very long number, names that are no text, itself within itself
        return "(cannot be shown)"


def _holds(kind: str, value: Any) -> bool:
    """Whether an array of this kind has room for a value."""
    if kind == "int":
        return bool(-(2**63) <= value < 2**63)
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _whole(stamps: list[Any]) -> Ints | list[Any]:
    try:
        return np.fromiter(stamps, np.int64, len(stamps))
    except OverflowError:
        return stamps  # one of them is no time


def _since_1970(time: datetime) -> int:
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000


def _plain(kind: str, values: list[Any]) -> Column:
    dtype: Any = {"float": np.float64, "int": np.int64, "bool": np.bool_}[kind]
    array: Array = np.fromiter(values, dtype, len(values))
    return Column(array)
