"""`senml`: Sensor Measurement Lists (RFC 8428), as JSON or CBOR."""

from __future__ import annotations

import base64
import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from pipeline.component import Context, Decoded, ReadingSettings, Refused, Settings
from pipeline.gather import Gathering, Row
from pipeline.reading import options_of
from pipeline.times import nanoseconds
from pipeline.typed import EMPTY, RAW, UNREADABLE, Typed, Unhurried, expected, shown

VERSION = 10  # of SenML; a pack of a later one must not be read
RELATIVE = 2**28  # s; a time below it is counted from now
LATEST = 1e12  # s; beyond all times, and small enough to be counted in us

# The numbers that stand for labels in CBOR.
_LABELS = {-1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs"}
_LABELS |= {0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd"}
_NUMBERS = {name: number for number, name in _LABELS.items()}
_KINDS: dict[str, tuple[set[type], list[str]]] = dict.fromkeys(("bn", "bu", "n", "u", "vs"), ({str}, ["string"]))
_KINDS |= dict.fromkeys(("bver", "bt", "bv", "bs", "v", "s", "t", "ut"), ({int, float}, ["float"]))
_KINDS |= {"vb": ({bool}, ["bool"]), "vd": ({str, bytes}, ["string"])}
_VALUES = ("v", "vs", "vb", "vd")
_ALONE = ("value", "sum", "unit")  # the fields of a record that is a reading by itself


class SenmlOptions(Settings, frozen=True):
    separator: Annotated[
        str,
        Meta(
            description="What parts the name into key and field, at its last place. Absent: it is all key, or all field."
        ),
    ] = ""
    encoding: Annotated[
        Literal["json", "cbor"], Meta(description="How it is written, and stands in a file. What comes may be either.")
    ] = "json"


class Senml(Typed):
    """The records of a pack, resolved: base names, times, values, sums and units are applied.

        [{"bn": "urn:dev:ow:10e2073a01080063:", "bt": 1700000000, "n": "temperature", "u": "Cel", "v": 21.5},
         {"n": "humidity", "u": "%RH", "v": 40}]

        format = { type = "senml", separator = ":" }
        key = "device"
        time = "time"
        fields = { temperature = "float", humidity = "float?" }

    With a `separator`, what is before its last place in the name is the key and what is behind it is the field; records of
    one key and time are one reading. Without, the name is the key, each record is a reading, and its fields are `value`,
    `sum` and `unit`. In a source whose key comes from elsewhere (a topic) the name is the field. Other fields are left out.
    `time = "time"` takes the times of the records; below 2**28 s they are counted from the time at which they are read, which a
    file does not have: there they are refused. Data (`vd`) is text in base64url.
    A wrong record costs only itself, a wrong base all records behind it. One pack, or one a line; CBOR needs
    `pip install "headwater[senml]"`. Written, the rows of a step are a pack, with times to the microsecond.
    """

    Options = SenmlOptions
    media_types = ("application/senml+json", "application/senml+cbor")

    def __init__(self, settings: ReadingSettings, options: dict[str, Any], context: Context) -> None:
        super().__init__(settings, context)
        self.context = context
        self.options = options_of(SenmlOptions, options, context)
        self._alone = settings.key is not None and not self.options.separator
        if settings.time not in (None, "time"):
            context.problem("time", 'the time of a record has no name of its own; write time = "time"')
        for name in self.fields if self._alone else ():
            if name not in _ALONE:
                way = 'separator = ":" parts the name into key and field'
                context.problem(f"fields.{name}", f"a record has the fields {', '.join(_ALONE)}; {way}")
        self._json = msgspec.json.Decoder().decode
        if self.options.encoding == "cbor":
            self.whole = _items().whole  # it has no lines in a file

    # --- bytes to packs ---

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        refused: list[Refused] = []
        rows: list[Row] = []
        counts: list[int] = []
        with Unhurried():
            for i, payload in enumerate(payloads):
                before, item, told = len(rows), 0, len(refused)
                empty = True
                for pack, why in self._packs(payload):
                    empty = empty and pack == []
                    for found in self._readings(pack) if not why else [why]:
                        if isinstance(found, Row):
                            rows.append(found)
                        else:
                            reason, raw = (
                                found if isinstance(found, tuple) else (found, payload[:RAW].decode(errors="replace"))
                            )
                            refused.append(Refused(i, item, reason, raw[:RAW]))
                        item += 1
                counts.append(len(rows) - before)
                if empty and len(refused) == told:
                    refused.append(Refused(i, 0, EMPTY, ""))
            columns = {name: [row.values.get(name) for row in rows] for name in self.fields}
        keys: list[Any] = [row.key for row in rows]
        stamps = self._stamps(rows) if self.settings.time is not None else []
        return self.lists(keys, stamps, columns, counts, refused, lambda row: shown(rows[row]), unit="us")

    def _packs(self, payload: bytes) -> Iterator[tuple[Any, str]]:
        """Each pack of a payload, or why it is none."""
        if 0x80 <= (payload[:1] or b"[")[0] <= 0x9F:  # the head of an array in CBOR, and no JSON
            try:
                found = _items().items(payload)
            except ImportError:
                yield None, 'CBOR cannot be read here: pip install "headwater[senml]"'
                return
            yield from ((_labelled(pack), why) for pack, _, why in found)
            return
        try:
            yield self._json(payload), ""
            return
        except UNREADABLE as error:
            lines = payload.split(b"\n") if b"\n" in payload.strip() else []
            if not lines and payload.strip():
                yield None, self.reason(error)
        for line in lines:
            try:
                if line.strip():
                    yield self._json(line), ""
            except UNREADABLE as error:
                yield None, self.reason(error)

    def readings(self, payload: bytes) -> list[bytes]:
        """A record says little without the bases before it: a reading cannot be told by itself."""
        return []

    # --- packs to readings ---

    def _readings(self, pack: Any) -> list[Row | tuple[str, str]]:
        """Readings in the order of their first records, and what is refused, as reason and record."""
        if not isinstance(pack, list):
            return [(expected("pack", ["array"], pack), shown(pack))]
        found: list[Row | tuple[str, str]] = []
        gathering = Gathering(self.fields, self.options.separator, keyed=self.settings.key is not None)
        bases: dict[str, Any] = {}
        for record in pack:
            try:
                resolved = _resolved(record, bases)
            except _Wrong as wrong:
                found.append((str(wrong), shown(record)))
                if wrong.base:
                    break
                continue
            if resolved is None:
                continue
            if self._alone:
                values = {"value": resolved.value, "sum": resolved.sum, "unit": resolved.unit}
                found.append(Row(resolved.name, resolved.time, values))
                continue
            before = len(gathering.rows)
            if why := gathering.take(resolved.name, resolved.time, resolved.value):
                found.append((why, shown(record)))
            found += gathering.rows[before:]
        return found

    def _stamps(self, rows: list[Row]) -> list[Any]:
        """In us: seconds as a float are good to about that."""
        now = self.now("us")
        found: list[Any] = []
        for row in rows:
            us = round(row.time * 1e6) if abs(row.time) < LATEST else row.time
            found.append(us if row.time >= RELATIVE or us is row.time else None if now is None else now + us)
        return found

    # --- rows to bytes ---

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """A pack of all rows."""
        if not rows:
            return b""
        times: list[int | None] = [None] * len(rows)
        if "time" in rows[0]:
            times = nanoseconds([row["time"] for row in rows], self.settings.time_unit)[0].tolist()
        pack = [record for row, time in zip(rows, times, strict=True) for record in self._records(row, time)]
        if self.options.encoding == "cbor":
            numbered = [{_NUMBERS[name]: value for name, value in record.items()} for record in pack]
            return importlib.import_module("cbor2").dumps(numbered) if pack else b""
        return msgspec.json.encode(pack) + b"\n" if pack else b""

    def _records(self, row: Mapping[str, Any], ns: int | None) -> Iterator[dict[str, Any]]:
        seconds = None if ns is None else ns // 10**9 if ns % 10**9 == 0 else round(ns / 10**9, 6)
        time = {} if seconds is None else {"t": seconds}
        key = self.settings.key
        values = {n: v for n, v in row.items() if n not in (key, "time") and _sayable(v)}
        if self._alone:
            named = {"v": "value", "s": "sum", "u": "unit"}
            record = {label: values[name] for label, name in named.items() if name in values}
            value = {_label(record.pop("v")): values["value"]} if "v" in record else {}
            if value or "s" in record:
                yield {"n": row[key], **time, **record, **value} if key else {**time, **record, **value}
            return
        before = f"{row[key]}{self.options.separator}" if key else ""
        for name, value in values.items():
            yield {"n": before + name, **time, _label(value): value}

    def header(self, names: Sequence[str]) -> bytes:
        others = [name for name in names if name not in (self.settings.key, "time", *_ALONE)]
        if self._alone and others:
            way = 'say what joins key and field in a name: separator = ":"'
            self.context.problem(
                "format", f"a record has the fields {', '.join(_ALONE)}, not {', '.join(others)}; {way}"
            )
        return b""


class _Record(NamedTuple):
    """A record with all that the bases say."""

    name: str
    time: float
    unit: str | None
    value: Any
    sum: Any


class _Wrong(Exception):
    def __init__(self, text: str, *, base: bool = False) -> None:
        super().__init__(text)
        self.base = base  # what comes behind it cannot be told


def _resolved(record: Any, bases: dict[str, Any]) -> _Record | None:
    """The record; None: it only sets bases, which `bases` has from then on."""
    if not isinstance(record, dict):
        raise _Wrong(expected("record", ["object"], record))
    for label, value in record.items():
        kinds = _KINDS.get(label)
        if kinds is None:
            if isinstance(label, str) and label.endswith("_"):
                raise _Wrong(f'"{label[:50]}" must be understood, and is not', base=True)
        elif type(value) not in kinds[0]:
            raise _Wrong(expected(label, kinds[1], value), base=label[0] == "b")
        elif label[0] == "b":
            bases[label] = value
    if bases.get("bver", VERSION) > VERSION:
        raise _Wrong(f"of version {bases['bver']}, and {VERSION} is the last that is known", base=True)
    own = [label for label in record if label in _KINDS and label[0] != "b"]
    if not own:
        return None
    name = bases.get("bn", "") + record.get("n", "")
    if not name:
        raise _Wrong("it has no name")
    said = [label for label in _VALUES if label in record]
    if len(said) > 1:
        raise _Wrong(f"two values in it: {' and '.join(said)}")
    value = record[said[0]] if said else None
    if isinstance(value, bytes):
        value = base64.urlsafe_b64encode(value).decode().rstrip("=")
    try:
        # A base is added where there is something to add it to, or nothing else is said.
        if "bv" in bases and (said == ["v"] or (not said and "s" not in record)):
            value = bases["bv"] + (value or 0)
        total = bases.get("bs", 0) + record.get("s", 0) if "bs" in bases or "s" in record else None
        time = float(bases.get("bt", 0)) + record.get("t", 0)
    except OverflowError:
        raise _Wrong("a number in it is beyond all that can be held") from None
    if value is None and total is None:
        raise _Wrong("it has no value")
    return _Record(name, time, record.get("u", bases.get("bu")), value, total)


def _labelled(pack: Any) -> Any:
    """A pack of CBOR with the labels of JSON."""
    if not isinstance(pack, list):
        return pack
    return [
        {_LABELS.get(label, label) if type(label) is int else label: v for label, v in record.items()}
        if isinstance(record, dict)
        else record
        for record in pack
    ]


def _items() -> Any:
    return importlib.import_module("pipeline.items")


def _label(value: Any) -> str:
    return "vb" if isinstance(value, bool) else "vs" if isinstance(value, str) else "v"


def _sayable(value: Any) -> bool:
    """JSON has no NaN, and nothing says that a value is missing."""
    return value is not None and value == value and value not in (float("inf"), float("-inf"))
