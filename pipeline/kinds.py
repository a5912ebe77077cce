"""What a setting may be: the kinds that annotations name, taken apart, and said in words."""

from __future__ import annotations

import typing
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union

import msgspec

from pipeline.quantity import Duration, Secret, Size

LISTS = (list, tuple, set, frozenset, Sequence, AbstractSet, Collection)
TABLES = (dict, Mapping)
_SAID: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "text",
    Secret: "text",
    Duration: 'text such as "10 s"',
    Size: 'text such as "100 MB"',
}
TOML_KINDS: dict[Any, frozenset[type]] = {
    **dict.fromkeys((str, Path, Secret, Duration, Size), frozenset({str})),
    int: frozenset({int}),
    float: frozenset({int, float}),
    bool: frozenset({bool}),
}


def is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union without None, which TOML cannot say; else the kind itself."""
    if typing.get_origin(kind) in (Union, UnionType):
        return tuple(arm for arm in typing.get_args(kind) if arm is not NoneType)
    return (kind,)


def bare(kind: Any) -> tuple[Any, list[msgspec.Meta]]:
    """A kind and its limits."""
    if typing.get_origin(kind) is not Annotated:
        return kind, []
    bare, *notes = typing.get_args(kind)
    return bare, [note for note in notes if isinstance(note, msgspec.Meta)]


def forms(kind: Any) -> AbstractSet[type]:
    """The types by which tomllib gives what can be that kind."""
    origin = typing.get_origin(kind) or kind
    if is_struct(kind) or origin in TABLES:
        return {dict}
    if origin in LISTS:
        return {list}
    if origin is Literal:
        return {type(word) for word in typing.get_args(kind)}
    return TOML_KINDS.get(kind, frozenset())


# --- in words ------------------------------------------------------------------------------------------------------


def in_words(kind: Any) -> str:
    """What is expected."""
    origin = typing.get_origin(kind) or kind
    if origin is Literal:
        return listed(typing.get_args(kind))
    if is_struct(kind) or origin in TABLES:
        return "a table"
    return "a list" if origin in LISTS else _SAID.get(kind, str(kind))


def listed(words: Sequence[Any]) -> str:
    shown = [f'"{word}"' if isinstance(word, str) else str(word) for word in words]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
