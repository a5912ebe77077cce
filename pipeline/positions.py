"""Where each key of a TOML text stands. Only run when there is a problem to report: a good file does not pay for it.

The text must be one that `tomllib` has accepted, so this reads structure and checks nothing.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

Path = tuple[str | int, ...]

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' + r"|'''.*?'{3,5}" + r'|"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'", re.DOTALL
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN_VALUE = re.compile(r"[^,\]}#\n]+")


def lines(text: str) -> dict[Path, int]:
    """Path of each key, table and array element -> line, from 1."""
    scanner = _Scanner(text)
    scanner.document()
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    return {path: bisect_right(starts, at) for path, at in scanner.found.items()}


def line_of(found: dict[Path, int], path: Path) -> int:
    """The line of a path, or of the nearest thing around it; 1 if there is none."""
    while path and path not in found:
        path = path[:-1]
    return found.get(path, 1)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, int] = {}
        self.tables: dict[Path, int] = {}  # array of tables -> how many it has so far

    def document(self) -> None:
        base: Path = ()
        self._skip(_SPACE)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                base = self._header()
            else:
                self._pair(base)
            self._skip(_SPACE)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()

    def _header(self) -> Path:
        """`[a.b]` or `[[a.b]]`: the path that the keys after it stand in."""
        start = self.at
        many = self.text.startswith("[[", start)
        self.at += 1 + many
        parts = self._key()
        self.at += 1 + many
        if not many:
            path = self._inside_last(parts)
            self._note(path, start)
            self.found[path] = start  # where it is declared, even if a table within it came before
            return path
        path = (*self._inside_last(parts[:-1]), parts[-1])
        self._note(path, start)
        index = self.tables[path] = self.tables.get(path, -1) + 1
        self._note((*path, index), start)
        return (*path, index)

    def _inside_last(self, parts: tuple[str, ...]) -> Path:
        """A header names the last element of an array of tables."""
        path: Path = ()
        for part in parts:
            path = (*path, part)
            if path in self.tables:
                path = (*path, self.tables[path])
        return path

    def _note(self, path: Path, at: int) -> None:
        for end in range(1, len(path) + 1):
            self.found.setdefault(path[:end], at)

    def _key(self) -> tuple[str, ...]:
        parts: list[str] = []
        while True:
            self._skip(_BLANK)
            quoted = self.text[self.at] in "\"'"
            match = (_STRING if quoted else _BARE_KEY).match(self.text, self.at)
            if not match:
                raise ValueError(f"no key at offset {self.at}")
            parts.append(tomllib.loads(f"k={match[0]}")["k"] if quoted else match[0])
            self.at = match.end()
            self._skip(_BLANK)
            if self.text[self.at : self.at + 1] != ".":
                return tuple(parts)
            self.at += 1

    def _pair(self, base: Path) -> None:
        start = self.at
        path = (*base, *self._key())
        self._note(path, start)
        self.at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        first = self.text[self.at]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._skip(_STRING if first in "\"'" else _PLAIN_VALUE)

    def _array(self, path: Path) -> None:
        self.at += 1
        self._skip(_SPACE)
        index = 0
        while self.text[self.at] != "]":
            self._note((*path, index), self.at)
            self._value((*path, index))
            index += 1
            self._comma()
        self.at += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        self._skip(_SPACE)
        while self.text[self.at] != "}":
            self._pair(path)
            self._comma()
        self.at += 1

    def _comma(self) -> None:
        self._skip(_SPACE)
        if self.text[self.at] == ",":
            self.at += 1
            self._skip(_SPACE)
