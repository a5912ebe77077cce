"""`sparkplug`: payloads of Sparkplug B, the metrics of industrial gateways in protocol buffers."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, NoReturn

from msgspec import Meta

from pipeline.component import Context, Decoded, ReadingSettings, Refused, Settings
from pipeline.gather import Gathering, Row
from pipeline.problem import did_you_mean
from pipeline.reading import options_of
from pipeline.typed import EMPTY, RAW, Typed, Unhurried, shown

# The numbers of the datatypes that hold one value: bits of a whole number, negative where it is signed.
_INTEGERS = {1: -8, 2: -16, 3: -32, 4: -64, 5: 8, 6: 16, 7: 32, 8: 64, 13: 64}
_TYPES = {
    "Int8": 1,
    "Int16": 2,
    "Int32": 3,
    "Int64": 4,
    "UInt8": 5,
    "UInt16": 6,
    "UInt32": 7,
    "UInt64": 8,
    "DateTime": 13,
}
_TIMESTAMP, _METRICS = 1, 2  # fields of a payload
_NAME, _ALIAS, _TIME, _TYPE, _NULL = 1, 2, 3, 4, 7  # fields of a metric
_INT, _LONG, _FLOAT, _DOUBLE, _BOOLEAN, _STRING = 10, 11, 12, 13, 14, 15
_OTHERS = {16: "bytes", 17: "a data set", 18: "a template", 19: "an extension"}
_UNSURE = "may be negative, as its payload does not tell its type: datatypes = { … }"


class SparkplugOptions(Settings, frozen=True):
    separator: Annotated[
        str, Meta(description='What parts a metric\'s name into key and field, at its last place, mostly "/".')
    ] = ""
    aliases: Annotated[
        dict[str, str], Meta(description='The names of metrics that come by number: aliases = { 7 = "temperature" }.')
    ] = {}
    datatypes: Annotated[
        dict[str, str], Meta(description='Of metrics that come without: datatypes = { temperature = "Int16" }.')
    ] = {}


class Sparkplug(Typed):
    """The metrics of a payload that are declared as fields; those of one time are one reading.

        format = { type = "sparkplug", aliases = { 7 = "temperature" } }
        time = "time"
        fields = { temperature = "float?", "Pump/running" = "bool?" }

    The topic says which gateway and device it is: let it be the key. With a `separator`, what is before its last place in a
    metric's name is the key instead; with a key and no separator the name is the key, and the one field is `value`.
    `time = "time"` takes the times of the metrics, or of their payload.
    Gateways report what has changed, so fields are mostly optional, and a payload without any of them is no mistake.
    What a gateway said at its birth is not remembered: an alias has a name only if `aliases` tells it (with the fields that
    it is given, other aliases are left out), and a whole number that may be negative needs its type, in the payload or in
    `datatypes`. Data sets, templates and arrays are no values. It is read only.
    """

    Options = SparkplugOptions
    media_types = ("application/x-sparkplug-b",)
    writes = False
    alone = True  # nothing in a payload tells where it ends

    def __init__(self, settings: ReadingSettings, options: dict[str, Any], context: Context) -> None:
        super().__init__(settings, context)
        made = options_of(SparkplugOptions, options, context)
        self.separator = made.separator
        self._alone = settings.key is not None and not made.separator
        if settings.time not in (None, "time"):
            context.problem("time", 'the time of a metric has no name of its own; write time = "time"')
        if self._alone and set(self.fields) - {"value"}:
            context.problem("fields", 'a metric that is a key has one field, value; separator = "/" parts its name')
        self._aliases: dict[int, str] = {}
        for alias, name in made.aliases.items():
            if not (alias.isascii() and alias.isdigit() and int(alias) < 2**64):
                context.problem(f"format.aliases.{alias}", "an alias is a whole number")
                continue
            self._aliases[int(alias)] = name
        self._types: dict[str, int] = {}
        for name, type_ in made.datatypes.items():
            if type_ not in _TYPES:
                known = ", ".join(_TYPES)
                context.problem(
                    f"format.datatypes.{name}", f'"{type_}" is not one of {known}{did_you_mean(type_, _TYPES)}'
                )
                continue
            self._types[name] = _TYPES[type_]

    # --- bytes to readings ---

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        refused: list[Refused] = []
        rows: list[Row] = []
        counts: list[int] = []
        with Unhurried():
            for i, payload in enumerate(payloads):
                found, wrong = self._readings(payload)
                rows += found
                counts.append(len(found))
                raw = payload[: RAW // 2].hex()
                refused += [Refused(i, len(found) + item, why, raw) for item, why in enumerate(wrong)]
            columns = {name: [row.values.get(name) for row in rows] for name in self.fields}
        keys: list[Any] = [row.key for row in rows]
        now = self.now("ms")
        stamps = [now if row.time is None else row.time for row in rows]
        return self.lists(keys, stamps, columns, counts, refused, lambda row: shown(rows[row]), unit="ms")

    def _readings(self, payload: bytes) -> tuple[list[Row], list[str]]:
        """The readings of a payload, and why something in it could not be taken."""
        try:
            time, metrics = _payload(payload)
        except _Malformed as malformed:
            return [], [f"not Sparkplug B: {malformed}"]
        if not metrics:
            return [], [EMPTY] if not payload else []
        gathering = Gathering(self.fields, self.separator, keyed=self.settings.key is not None)
        wrong: dict[str, None] = {}  # each reason once: a payload may have hundreds of aliases
        alone: list[Row] = []
        for metric in metrics:
            name = metric.name if metric.name is not None else self._aliases.get(metric.alias or 0)
            if name is None:
                if not self._aliases:
                    wrong["its metrics are told by aliases: name those that are wanted, aliases = { … }"] = None
                continue
            stamp = metric.time if metric.time is not None else time
            value = self._value(name, metric)
            if isinstance(value, _Wrong):
                if self._wants(name):
                    wrong[f"{name[:50]}: {value}"] = None
            elif self._alone:
                alone.append(Row(name, stamp, {"value": value}))
            elif why := gathering.take(name, stamp, value):
                wrong[why] = None
        return alone or gathering.rows, list(wrong)

    def _wants(self, name: str) -> bool:
        field = name.rpartition(self.separator)[2] if self.separator else name
        return self._alone or field in self.fields

    def _value(self, name: str, metric: _Metric) -> Any:
        if metric.null or metric.value is None:
            return None
        type_ = metric.type or self._types.get(name, 0)
        if metric.field in (_INT, _LONG):
            number: int = metric.value
            bits = _INTEGERS.get(type_)
            if bits is None:
                width = 32 if metric.field == _INT else 64
                return _Wrong(_UNSURE) if not type_ and number >= 1 << (width - 1) else number
            number &= (1 << abs(bits)) - 1
            return number - (1 << -bits) if bits < 0 and number >> (-bits - 1) else number
        if metric.field in _OTHERS:
            return _Wrong(f"expected a value, got {_OTHERS[metric.field]}")
        return metric.value

    def readings(self, payload: bytes) -> list[bytes]:
        """A payload is not cut: its metrics may share their time."""
        return []

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> NoReturn:
        raise TypeError("sparkplug can be read, not written")

    def header(self, names: Sequence[str]) -> NoReturn:
        raise TypeError("sparkplug can be read, not written")


class _Wrong(str):
    """Why a value is none."""

    __slots__ = ()


# --- protocol buffers ------------------------------------------------------------------------------------------------


class _Metric(NamedTuple):
    name: str | None
    alias: int | None
    time: int | None  # ms
    type: int
    null: bool
    field: int  # which of the kinds of values it has
    value: Any


class _Malformed(ValueError):
    pass


def _payload(data: bytes) -> tuple[int | None, list[_Metric]]:
    """Its time, and its metrics."""
    time: int | None = None
    metrics = []
    for field, wire, value in _fields(data, 0, len(data)):
        if field == _TIMESTAMP:
            time = _of(wire, 0, value)
        elif field == _METRICS:
            metrics.append(_metric(data, *_of(wire, 2, value)))
    return time, metrics


def _metric(data: bytes, start: int, end: int) -> _Metric:
    name: str | None = None
    alias = time = None
    type_ = kind = 0
    null = False
    value: Any = None
    for field, wire, found in _fields(data, start, end):
        if field == _NAME:
            name = _text(data, _of(wire, 2, found))
        elif field == _ALIAS:
            alias = _of(wire, 0, found)
        elif field == _TIME:
            time = _of(wire, 0, found)
        elif field == _TYPE:
            type_ = _of(wire, 0, found)
        elif field == _NULL:
            null = bool(_of(wire, 0, found))
        elif field in (_INT, _LONG):
            kind, value = field, _of(wire, 0, found)
        elif field == _FLOAT:
            kind, value = field, struct.unpack_from("<f", data, _of(wire, 5, found))[0]
        elif field == _DOUBLE:
            kind, value = field, struct.unpack_from("<d", data, _of(wire, 1, found))[0]
        elif field == _BOOLEAN:
            kind, value = field, bool(_of(wire, 0, found))
        elif field == _STRING:
            kind, value = field, _text(data, _of(wire, 2, found))
        elif field in _OTHERS:
            kind, value = field, field
    return _Metric(name, alias, time, type_, null, kind, value)


def _of(wire: int, wanted: int, value: Any) -> Any:
    if wire != wanted:
        raise _Malformed("a field of another type than it has in a payload")
    return value


def _text(data: bytes, place: tuple[int, int]) -> str:
    return data[place[0] : place[1]].decode(errors="replace")


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, Any]]:
    """The fields of a message: number, type on the wire, and a number, or where its bytes are. Never reads beyond `end`."""
    while at < end:
        tag, at = _varint(data, at, end)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at, end)
            yield tag >> 3, wire, value
            continue
        if wire == 2:
            length, at = _varint(data, at, end)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise _Malformed("a type that no field has")
        if length > end - at:
            raise _Malformed("it ends too soon")
        yield tag >> 3, wire, (at, at + length) if wire == 2 else at
        at += length


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at < end and data[at] < 0x80:
        return data[at], at + 1
    number = shift = 0
    for at in range(at, min(end, at + 10)):  # noqa: B020 - where it ends is where it went on
        byte = data[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & (2**64 - 1), at + 1
        shift += 7
    raise _Malformed("it ends too soon" if at + 1 >= end else "a number of more than 64 bits")
