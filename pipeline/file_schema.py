"""The pipeline file as JSON Schema (2020-12), so that an editor completes and checks it as one types.

An editor cannot know what is in an expression or which names there are: `headwater check` does.
"""

from __future__ import annotations

import typing
from typing import Any, Literal

import msgspec

from pipeline import registry
from pipeline.config import PipelineSettings, ServerSettings
from pipeline.kinds import LISTS, TABLES, alternatives, bare, is_struct
from pipeline.nodes import KINDS
from pipeline.quantity import BYTE_UNITS, TIME_UNITS, Duration, Size
from pipeline.reference import component

Json = dict[str, Any]

_NAME = "^[A-Za-z_][A-Za-z0-9_]*$"
_STREAM = {"type": "string", "description": "A node's name; NODE.output names one of its further outputs."}
_LIMITS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
    "min_length": "minLength",
    "max_length": "maxLength",
}


def schema(test: Any = None) -> Json:
    """Of a whole pipeline file; `test`: the Struct of a [[test]] block."""
    tables = {table: _nodes(kind) for table, kind in KINDS.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Headwater pipeline",
        "type": "object",
        "additionalProperties": False,
        "required": ["sources"],
        "properties": {
            "pipeline": of(PipelineSettings) | {"description": "What holds for all of it."},
            "server": of(ServerSettings) | {"description": "The one HTTP server."},
            **tables,
            **({} if test is None else {"test": {"type": "array", "items": of(test)}}),
        },
    }


def _nodes(kind: str) -> Json:
    arms = [_node(kind, type_) for type_ in registry.types(kind)]
    return {
        "type": "object",
        "description": f"The {kind}s: [{kind}s.NAME]",
        "additionalProperties": False,
        "patternProperties": {_NAME: {"oneOf": arms}},
    }


def _node(kind: str, type_: str) -> Json:
    told = component(kind, type_)
    common: Json = {
        "type": {"const": type_, "description": told.promise},
        "enabled": {"type": "boolean", "default": True, "description": "false: as if it were not there."},
    }
    if kind != "source":
        common["input"] = _STREAM
        common["inputs"] = {"type": "array", "items": _STREAM, "minItems": 1, "description": "Several, merged."}
    if told.missing:  # of an extra that is not installed here: nothing is known of its settings
        return {"type": "object", "title": type_, "required": ["type"], "properties": common}
    arms = [of(arm) for arm in alternatives(registry.find(kind, type_)[1])]
    for arm in arms:
        arm["properties"] = common | arm["properties"]
        arm["required"] = ["type", *arm.get("required", [])]
    return {"title": type_} | _any_of(arms)


def of(kind: Any) -> Json:
    """The schema of a kind of setting."""
    plain, notes = bare(kind)
    arms = alternatives(plain)
    made = _one(plain) if len(arms) == 1 and arms[0] is plain else _any_of([of(arm) for arm in arms])
    for note in notes:
        if note.description:
            made = made | {"description": note.description}
        limits = {said: getattr(note, name) for name, said in _LIMITS.items() if getattr(note, name) is not None}
        if made.get("type") != "string" or "pattern" not in made:  # a limit of a duration is in ns, its text is not
            made = made | limits
    return made


def _any_of(arms: list[Json]) -> Json:
    return arms[0] if len(arms) == 1 else {"anyOf": arms}


def _one(kind: Any) -> Json:
    """A kind that is no union and has no limits."""
    origin, inside = typing.get_origin(kind) or kind, typing.get_args(kind)
    if is_struct(kind):
        return _struct(kind)
    if origin is Literal:
        return {"enum": list(inside)}
    if origin in LISTS:
        return {"type": "array", **({"items": of(inside[0])} if inside else {})}
    if origin in TABLES:
        return {"type": "object", **({"additionalProperties": of(inside[1])} if inside else {})}
    return _scalar(kind)


def _scalar(kind: Any) -> Json:
    if kind is Duration:
        return {"type": "string", "pattern": _quantity(TIME_UNITS), "examples": ["500 ms", "10 s", "2 min", "1 h"]}
    if kind is Size:
        return {"type": "string", "pattern": _quantity(BYTE_UNITS), "examples": ["100 MB", "64 MiB"]}
    if kind is bool:
        return {"type": "boolean"}
    if kind is int:
        return {"type": "integer"}
    if kind is float:
        return {"type": "number"}
    return {} if kind in (Any, object) else {"type": "string"}


def _quantity(units: typing.Iterable[str]) -> str:
    """A number and a unit, whatever its case; or text with an environment's variable."""
    either = "|".join("".join(f"[{c.lower()}{c.upper()}]" if c.isascii() else c for c in unit) for unit in units)
    return rf"^\s*[0-9]+(\.[0-9]+)?\s*({either})\s*$|\$\{{"


def _struct(kind: Any) -> Json:
    config = kind.__struct_config__
    properties: Json = {}
    required = []
    if config.tag_field:
        properties[config.tag_field] = {"const": config.tag}
        required.append(config.tag_field)
    for field in msgspec.structs.fields(kind):
        properties[field.encode_name] = of(field.type)
        if field.required:
            required.append(field.encode_name)
    made: Json = {"type": "object", "additionalProperties": False, "properties": properties}
    return made | ({"required": required} if required else {})
