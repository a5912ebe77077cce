"""Functions of texts, and from texts to other kinds and back: by Python, value by value; 0.03 to 0.1 µs each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from pipeline.frame import Array, Bools, Column, Frame
from pipeline.parts import (
    NUMBERS,
    Build,
    ExpressionError,
    Part,
    arguments,
    as_float,
    defined,
    make,
    texts,
    together,
    without,
)
from pipeline.pattern import Pattern, PatternError

_SHORT = 256  # characters: so long are texts that come again and again
_REMEMBERED = 4_096  # answers


class _Answers(dict[str, Any]):
    """What a function says of each text, worked out once for those that come again and again: 0.03 µs for these."""

    def __init__(self, function: Callable[[str], Any]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, text: str) -> Any:
        answer = self._function(text)
        if len(text) <= _SHORT:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[text] = answer
        return answer


def _each(values: Array) -> Iterable[str]:
    """The text of each row; that of a literal again and again."""
    return values.tolist() if values.ndim else repeat(values.item())


def of_texts(test: Callable[[str, str], bool]) -> Build:
    def build(name: str, parts: Sequence[Part]) -> Part:
        arguments(name, parts, [("string",), ("string",)])
        text, other = parts
        if other.literal is not None:
            sought: str = other.literal
            return where_text(text, _Answers(lambda t: test(t, sought)).__getitem__, parts)

        def evaluate(frame: Frame) -> Column:
            a, b = text.evaluate(frame), other.evaluate(frame)
            n = a.values.size if a.values.ndim else b.values.size
            return Column(np.fromiter(map(test, _each(a.values), _each(b.values)), np.bool_, n), together(a, b))

        return make("bool", text.optional or other.optional, evaluate, parts)

    return build


def where_text(part: Part, test: Callable[[str], bool], operands: Sequence[Part]) -> Part:
    """Where a test of each text says yes."""

    def evaluate(frame: Frame) -> Column:
        values, present = part.evaluate(frame)
        return Column(np.fromiter(map(test, values.ravel().tolist()), np.bool_, values.size), present)

    return make("bool", part.optional, evaluate, operands)


def matches(name: str, parts: Sequence[Part]) -> Part:
    arguments(name, parts, [("string",), ("string",)])
    text, pattern = parts
    if pattern.literal is None:
        raise ExpressionError("the pattern of matches() must be plain text")
    try:
        found = Pattern(pattern.literal).search
    except PatternError as error:
        raise ExpressionError(f"the pattern of matches() cannot be used: {error}") from None
    return where_text(text, _Answers(found).__getitem__, parts)


def text_to_text(change: Callable[[str], str]) -> Build:
    def build(name: str, parts: Sequence[Part]) -> Part:
        arguments(name, parts, [("string",)])
        (part,) = parts

        def evaluate(frame: Frame) -> Column:
            values, present = part.evaluate(frame)
            return Column(texts(list(map(change, values.ravel().tolist()))), present)

        return make("string", part.optional, evaluate, parts)

    return build


def length(name: str, parts: Sequence[Part]) -> Part:
    """Characters."""
    arguments(name, parts, [("string",)])
    (part,) = parts

    def evaluate(frame: Frame) -> Column:
        values, present = part.evaluate(frame)
        return Column(np.fromiter(map(len, values.ravel().tolist()), np.int64, values.size), present)

    return make("int", part.optional, evaluate, parts)


# --- from one kind to another ---

_REAL = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?\s*")
_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*")
_DIGITS = 100  # a longer text is no number that anybody meant


def _number_in(text: str) -> float:
    return float(text) if len(text) <= _DIGITS and _REAL.fullmatch(text) else np.nan


def _integer_in(text: str) -> int | None:
    value = int(text) if len(text) <= _DIGITS and _INTEGER.fullmatch(text) else None
    return None if value is None or not -(2**63) <= value < 2**63 else value


def to_float(name: str, parts: Sequence[Part]) -> Part:
    """Of a text that is not a number, missing."""
    arguments(name, parts, [(*NUMBERS, "bool", "string")])
    (part,) = parts
    if part.kind != "string":
        return as_float(part)
    read = _Answers(_number_in).__getitem__

    def evaluate(frame: Frame) -> Column:
        values, present = part.evaluate(frame)
        return defined(np.fromiter(map(read, values.ravel().tolist()), np.float64, values.size), present)

    return make("float", True, evaluate, parts)


def to_int(name: str, parts: Sequence[Part]) -> Part:
    """What follows the point is cut off. Beyond 64 bits, and of a text that is not a whole number, missing."""
    arguments(name, parts, [(*NUMBERS, "bool", "string")])
    (part,) = parts
    if part.kind == "int":
        return part
    read = _Answers(_integer_in).__getitem__

    def evaluate(frame: Frame) -> Column:
        values, present = part.evaluate(frame)
        if part.kind == "bool":
            return Column(values.astype(np.int64), present)
        if part.kind == "float":
            good: Bools = (values >= -(2.0**63)) & (values < 2.0**63)
            return without(np.where(good, values, 0.0).astype(np.int64), present, ~good)
        found = list(map(read, values.ravel().tolist()))
        bad = np.fromiter((v is None for v in found), np.bool_, len(found))
        return without(np.array([v or 0 for v in found], np.int64), present, bad)

    return make("int", part.optional or part.kind != "bool", evaluate, parts)


def to_string(name: str, parts: Sequence[Part]) -> Part:
    """As JSON would show it; a text as it is."""
    arguments(name, parts, [(*NUMBERS, "bool", "string")])
    (part,) = parts
    if part.kind == "string":
        return part
    shown: Callable[[Any], str] = (lambda v: "true" if v else "false") if part.kind == "bool" else repr

    def evaluate(frame: Frame) -> Column:
        values, present = part.evaluate(frame)
        return Column(texts(list(map(shown, values.ravel().tolist()))), present)

    return make("string", part.optional, evaluate, parts)
