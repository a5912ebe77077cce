"""What each component is, read from its code: its promise, its settings, an example. For people (`headwater components`)."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from pipeline import registry
from pipeline.component import Settings
from pipeline.kinds import LISTS, TABLES, alternatives, bare, in_words, is_struct
from pipeline.quantity import Secret

KINDS = ("source", "codec", "operator", "sink")  # in the order in which a reading meets them


class Setting(NamedTuple):
    """One setting of a component; `batch.rows` is one within a table."""

    name: str
    takes: str  # in words
    default: str | None  # as TOML; None: it must be given, or it is absent
    required: bool
    description: str


class Component(NamedTuple):
    """What is told of a component. `missing`: why it cannot be loaded here, with the way out, and all there is to tell."""

    kind: str
    type: str
    promise: str = ""
    text: str = ""  # the rest of its docstring
    settings: tuple[Setting, ...] = ()
    missing: str = ""
    distribution: str = ""  # that brings it, with its version; "": it is built in


def all_of(type_: str | None = None) -> list[Component]:
    """Every component, or those of that name; their own and those of other distributions."""
    return [component(kind, name) for kind in KINDS for name in registry.types(kind) if type_ is None or name == type_]


def component(kind: str, type_: str) -> Component:
    brought_by = registry.distribution(kind, type_)
    try:
        made, settings = registry.find(kind, type_)
    except registry.Unloadable as error:
        return Component(kind, type_, missing=str(error), distribution=brought_by)
    promise, _, text = (inspect.getdoc(made) or "").partition("\n\n")
    if kind == "codec":  # its settings are those of its source; its own stand in the table `format`
        settings = getattr(made, "Options", Settings)
    listed_ = tuple(settings_of(settings))
    told = " ".join(promise.split()), text.strip("\n")
    return Component(kind, type_, *told, listed_, distribution=brought_by)


def settings_of(kind: Any, within: str = "") -> Iterator[Setting]:
    """The settings of a Struct, or of all in a tagged union, those that must be given first; those of a table within it
    follow it."""
    structs = alternatives(kind)
    if (tag := structs[0].__struct_config__.tag_field) and len(structs) > 1:
        words = ", ".join(json.dumps(struct.__struct_config__.tag) for struct in structs[:-1])
        last = json.dumps(structs[-1].__struct_config__.tag)
        yield Setting(
            within + tag, f"{words} or {last}", None, True, "Which of them it is: each has settings of its own."
        )
    fields = {field.encode_name: field for struct in structs for field in msgspec.structs.fields(struct)}
    for field in sorted(fields.values(), key=lambda field: not field.required):
        plain, notes = bare(field.type)
        name = within + field.encode_name
        default = None if field.required else _default(field)
        yield Setting(name, takes(plain), default, field.required, _description(notes))
        for arm in alternatives(plain):
            inner = bare(arm)[0]
            if is_struct(inner):
                yield from settings_of(inner, f"{name}.")


def _default(field: Any) -> str | None:
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return None if value is None else toml(value)


def _description(notes: list[msgspec.Meta]) -> str:
    return next((note.description for note in notes if note.description), "")


def takes(kind: Any) -> str:
    """What may be written, in words."""
    said = []
    for arm in alternatives(kind):
        plain = bare(arm)[0]
        origin, inside = typing.get_origin(plain) or plain, typing.get_args(plain)
        if origin is Literal:
            said += [json.dumps(word) for word in inside]
        elif origin in LISTS and inside:
            said.append(f"a list of {_many(inside[0])}")
        elif origin in TABLES and inside:
            said.append(f"a table of {_many(inside[1])}")
        else:
            said.append("anything" if plain is Any else in_words(plain))
    words = list(dict.fromkeys(said))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _many(kind: Any) -> str:
    word = takes(bare(kind)[0])
    return {"a number": "numbers", "a whole number": "whole numbers", "a table": "tables", "a list": "lists"}.get(
        word, word
    )


def toml(value: Any) -> str:
    """A value as it would be written in the pipeline file."""
    if isinstance(value, Secret):
        return '"***"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, msgspec.Struct):
        value = {f.encode_name: getattr(value, f.name) for f in msgspec.structs.fields(type(value))}
    if isinstance(value, Mapping):
        inside = ", ".join(f"{name} = {toml(item)}" for name, item in value.items() if item is not None)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(toml, value))}]"
    if type(value) in (int, float):
        return repr(value)
    return json.dumps(
        str(value) if isinstance(value, Path) or not isinstance(value, str) else value, ensure_ascii=False
    )
