"""Text with {field} and {field:format}, checked when the pipeline is built. Nothing else of Python's templates: no
attributes, no subscripts, no conversions, no nesting."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from pipeline.frame import instant_text
from pipeline.problem import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_WIDTH = 100  # of a formatted value: a message is a line
_EXAMPLES: dict[str, Any] = {"float": 1.5, "int": 1}  # others are shown as text


class Template:
    """`kinds`: what may be named, and of which kind it is. `escape`: what is done to each value for the text to stay what it
    is (an address). `problems` says what is wrong with the text."""

    def __init__(self, text: str, kinds: Mapping[str, str], escape: Callable[[str], str] = str) -> None:
        self.kinds = kinds
        self.escape = escape
        self.problems: list[str] = []
        self.names: list[str] = []
        self._parts: list[tuple[str, str | None, str]] = []  # text, then a name and its format
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            self.problems.append(f"{error}; a brace that is to be shown is written {{{{ or }}}}")
            parsed = []
        for before, name, form, conversion in parsed:
            problem = "" if name is None else self._wrong(name, form or "", conversion)
            if problem:
                self.problems.append(problem)
                continue
            self._parts.append((before, name, form or ""))
            if name is not None:
                self.names.append(name)

    def _wrong(self, name: str, form: str, conversion: str | None) -> str:
        """What is wrong with one {name:format}; nothing if it is right."""
        if name not in self.kinds:
            return f'"{name}" is not a field of the input{did_you_mean(name, self.kinds)}'
        if conversion or "{" in form:
            return f'"{name}" may be followed by a format, as in {{{name}:.1f}}, and by nothing else'
        if any(int(digits) > MAX_WIDTH for digits in "".join(c if c in string.digits else " " for c in form).split()):
            return f'"{{{name}:{form}}}": a width may be at most {MAX_WIDTH}'
        try:
            format(_EXAMPLES.get(self.kinds[name], "text"), form)
        except ValueError as error:
            return f'"{{{name}:{form}}}": {error}'
        return ""

    def fill(self, values: Mapping[Any, Any]) -> str:
        """The text with these values; a missing one reads "missing"."""
        text = ""
        for before, name, form in self._parts:
            text += before if name is None else before + self.escape(self._shown(values[name], self.kinds[name], form))
        return text

    def _shown(self, value: Any, kind: str, form: str) -> str:
        if value is None:
            return "missing"
        if kind == "time":
            value = instant_text(value)
        elif kind == "bool":
            value = "true" if value else "false"
        try:
            return format(value, form)
        except (ValueError, OverflowError):  # a number that the format cannot show, such as {n:c} for -1
            return str(value)
