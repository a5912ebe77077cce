"""The pipeline file as it may be kept: the journal remembers its text, and what is secret in it must not be found there.

`${NAME}` stays as it is: the file is kept as written. A secret that is written out becomes "*** SETTING" (two tokens may not
be the same), a password within a URL "***". Nothing else is touched, so the text still makes the same graph.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import orjson

from pipeline import positions
from pipeline.quantity import MASK, Secret

if TYPE_CHECKING:
    from pipeline.settings import Where

_NAMES = {"token", "read_token", "password", "secret", "api_key"}
_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")  # alone, and without a default
_PASSWORD = re.compile(r"(://[^\s/:@\"'{}]*:)(?!\$\{)[^\s/@\"']+(?=@)")
_TEXT = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}' + r"|'''.*?'{3,5}" + r'|"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'", re.DOTALL)


class File(Protocol):
    """A pipeline file that has been read (pipeline/config.py)."""

    @property
    def text(self) -> str: ...
    @property
    def raw(self) -> dict[str, Any]: ...
    @property
    def server(self) -> Any: ...
    @property
    def nodes(self) -> Mapping[str, Any]: ...


def masked(config: File) -> str:
    """Its text without what is secret."""
    text = _PASSWORD.sub(rf"\g<1>{MASK}", config.text)
    written = written_out(config)
    if not written:
        return text
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    lines = positions.lines(text)
    for where in sorted(
        written, key=lambda where: lines.get(where, 0), reverse=True
    ):  # from below: lines keep their place
        start = starts[positions.line_of(lines, where) - 1]
        text = text[:start] + _without(text[start:], value(config, where), f"{MASK} {where[-1]}")
    return text


def written_out(config: File) -> list[Where]:
    """The secrets that stand in the file itself."""
    return [where for where in _secrets(config) if _is_literal(config, where)]


def _without(text: str, secret: str, mask: str) -> str:
    """The first text in there that is the secret, in whatever way it is quoted, becomes the mask."""
    for found in _TEXT.finditer(text):
        if tomllib.loads(f"v = {found[0]}")["v"] == secret:
            return f"{text[: found.start()]}{orjson.dumps(mask).decode()}{text[found.end() :]}"
    return text


def _is_literal(config: File, where: Where) -> bool:
    written = value(config, where)
    return isinstance(written, str) and bool(written) and not _VARIABLE.fullmatch(written)


def value(config: File, where: Where) -> Any:
    """What stands at a place of the file."""
    found: Any = config.raw
    for part in where:
        if isinstance(found, list) and isinstance(part, int):
            found = found[part]
        else:
            found = found.get(part) if isinstance(found, dict) else None
    return found


def _secrets(config: File) -> set[Where]:
    found = {*_within(config.server, ("server",)), *_named(config.raw, ())}
    for name, node in config.nodes.items():
        found |= {*_within(node.settings, (f"{node.kind}s", name))}
    return found


def _named(table: Any, where: Where) -> Iterator[Where]:
    """What is secret by its name: of a node that is not enabled nothing else is known."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _named(value, (*where, name))
        elif name in _NAMES:
            yield (*where, name)


def _within(value: Any, where: Where) -> Iterator[Where]:
    """Where settings are secret."""
    if isinstance(value, Secret):
        yield where
    elif isinstance(value, msgspec.Struct):
        for one in msgspec.structs.fields(value):
            yield from _within(getattr(value, one.name), (*where, one.encode_name))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _within(item, (*where, name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _within(item, (*where, index))
