"""JSON with places to fill: a document of the pipeline file whose texts name fields.

    { sensor = "{id}", reading = { at = "{time}", celsius = "{value}" }, note = "{id} is at {value:.1f}" }

A text that is one {field} and nothing else becomes the value as it is, a number or true; any other text stays a text with
the values in it. The document is filled as a tree and only then written, so no value can end its text or add a member.
A member (or an item of a list) whose field is missing is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.template import Template

_ALONE = re.compile(r"\{([^{}:!]+)\}")
_LEFT_OUT: Any = object()
DEEPEST = 20  # tables within tables

Row = Mapping[str, Any]
_Fill = Callable[[Row], Any]


class JsonTemplate:
    """`kinds`: what may be named, and of which kind it is. `problems`: where something is wrong (`reading.at`), and what."""

    def __init__(self, document: Any, kinds: Mapping[str, str]) -> None:
        self.kinds = kinds
        self.names: set[str] = set()
        self.problems: list[tuple[str, str]] = []
        self._fill = self._compiled(document, (), 0)

    def fill(self, row: Row) -> Any:
        """The document with the values of a row: a tree, to be written as JSON."""
        filled = self._fill(row)
        return None if filled is _LEFT_OUT else filled

    def _compiled(self, part: Any, where: tuple[str, ...], depth: int) -> _Fill:
        if depth > DEEPEST:
            self.problems.append((".".join(where[:3]), f"holds more than {DEEPEST} tables within each other"))
            return lambda _: None
        if isinstance(part, dict):
            return _table({name: self._compiled(one, (*where, name), depth + 1) for name, one in part.items()})
        if isinstance(part, list):
            return _list([self._compiled(one, (*where, str(i)), depth + 1) for i, one in enumerate(part)])
        if isinstance(part, str) and ("{" in part or "}" in part):
            return self._text(part, where)
        return lambda _: part

    def _text(self, text: str, where: tuple[str, ...]) -> _Fill:
        template = Template(text, self.kinds)
        self.problems += [(".".join(where), problem) for problem in template.problems]
        self.names |= set(template.names)
        names = tuple(template.names)
        if _ALONE.fullmatch(text) and len(names) == 1:
            return lambda row: _LEFT_OUT if row.get(names[0]) is None else row[names[0]]
        return lambda row: _LEFT_OUT if any(row.get(n) is None for n in names) else template.fill(row)


def _table(parts: dict[str, _Fill]) -> _Fill:
    def fill(row: Row) -> Any:
        filled = ((name, part(row)) for name, part in parts.items())
        return {name: value for name, value in filled if value is not _LEFT_OUT}

    return fill


def _list(parts: list[_Fill]) -> _Fill:
    def fill(row: Row) -> Any:
        return [value for part in parts if (value := part(row)) is not _LEFT_OUT]

    return fill
