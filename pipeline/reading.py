"""What all sources share that decode bytes: the schema from their settings, and payloads to columns by codec."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

import msgspec

from pipeline.component import (
    Codec,
    Context,
    Decoded,
    Payload,
    ReadingSettings,
    Settings,
    Source,
    SourceContext,
    joined,
)
from pipeline.frame import Field, Schema
from pipeline.problem import did_you_mean
from pipeline.registry import codec_for
from pipeline.times import UNITS

KINDS = ("float", "int", "bool", "string")


def parse_fields(fields: dict[str, str], context: Context) -> dict[str, Field]:
    """`{ temperature = "float", humidity = "float?" }` as Fields; wrong ones are reported."""
    found = {}
    for name, text in fields.items():
        kind = text.removesuffix("?").strip()
        nan = kind.endswith(" nan")
        kind = kind.removesuffix(" nan").strip()
        if kind not in KINDS or (nan and kind != "float"):
            hint = did_you_mean(kind, KINDS)
            listed = '"float", "int", "bool" or "string", with ? if it may be absent'
            context.problem(f"fields.{name}", f'"{text}" is not a type{hint}; write {listed}')
            kind, nan = "float", False
        found[name] = Field(kind, text.endswith("?"), nan)
    return found


def schema_of(settings: ReadingSettings, context: Context) -> Schema:
    """The stream that these settings describe."""
    fields = parse_fields(settings.fields, context)
    if not fields:
        context.problem("fields", 'name the fields: fields = { temperature = "float" }')
    if settings.time_unit not in UNITS:
        hint = did_you_mean(settings.time_unit, UNITS)
        context.problem("time_unit", f'"{settings.time_unit}" is not one of {", ".join(UNITS)}{hint}')
    for reserved, what in ((settings.key, "key"), (settings.time, "time")):
        if reserved in fields:
            fields.pop(reserved, None)
            context.problem(f"fields.{reserved}", f"is the {what} already; leave it out of fields")
    if "time" in fields:
        context.problem("fields.time", '"time" names the event time; set time = "time"')
        fields.pop("time")
    return Schema(settings.key, fields)


GIVEN = "given"  # no media type: the codec of readings that stand in a `[[test]]` block
Options = TypeVar("Options", bound=Settings)


def options_of(made: type[Options], options: Mapping[str, Any], context: Context) -> Options:
    """What stands beside the `type` of a format, as the codec's options; wrong ones are reported, and their defaults taken."""
    known = made.__struct_fields__
    right: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            listed = f"; there are: {', '.join(known)}" if known else "; there are none"
            context.problem(f"format.{name}", f"is no option of this format{did_you_mean(name, known) or listed}")
            continue
        try:
            msgspec.convert({name: value}, made)
        except msgspec.ValidationError as error:
            context.problem(f"format.{name}", str(error).partition(" - at ")[0])
        else:
            right[name] = value
    return msgspec.convert(right, made)


class CodecSource(Source):
    """A source of bytes in some format."""

    def __init__(self, settings: ReadingSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.reading = settings
        self.schema = schema_of(settings, context)
        self.codec = codec_for(settings, context) if settings.time_unit in UNITS else None
        self._others: dict[str, Codec | None] = {}  # by media type: of readings that came in another format

    def decode(self, payloads: Sequence[Payload]) -> Decoded:
        """Neighbours of one codec are decoded at once."""
        parts = []
        start = 0
        for codec, group in groupby(payloads, lambda p: p.codec or self.codec):
            data = [p.data for p in group]
            parts.append((start, _decode(codec, data)))
            start += len(data)
        return parts[0][1] if len(parts) == 1 else joined(parts, self.context.keys)

    def readings(self, payload: Payload) -> list[bytes] | None:
        split = getattr(payload.codec or self.codec, "readings", None)
        return None if split is None else list(split(payload.data))

    def given(self, reading: Mapping[str, Any]) -> Payload | None:
        data = json.dumps(reading).encode()  # the standard library's knows NaN
        # Its fields lie flat, whatever the source's own format makes of JSON.
        if GIVEN not in self._others:
            flat = msgspec.structs.replace(self.reading, format="json")
            self._others[GIVEN] = codec_for(flat, self.context)
        return Payload(data, len(data), codec=self._others[GIVEN])

    def again(self, reading: bytes, media_type: str) -> Payload | None:
        if media_type and media_type not in self._others:
            self._others[media_type] = codec_for(self.reading, self.context, media_type)
        codec = self._others[media_type] if media_type else self.codec
        return None if codec is None else Payload(reading, len(reading), codec=codec)


def _decode(codec: Codec | None, data: list[bytes]) -> Decoded:
    assert codec is not None  # a source without its codec is a problem, and is not run
    return codec.decode(data)
