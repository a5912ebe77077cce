"""The functions that an expression may call. Of a missing value each gives a missing one, but for `is_missing` and `coalesce`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import repeat
from typing import Any

import numpy as np

from pipeline.frame import DTYPES, SECOND, Array, Column, Frame
from pipeline.parts import (
    NUMBERS,
    ExpressionError,
    Part,
    as_float,
    defined,
    known,
    make,
    seconds,
    texts,
    together,
    without,
)
from pipeline.pattern import Pattern, PatternError

_DAY = 86_400 * SECOND
_WHOLE = 2.0**52  # floats from here on have no digits after the point

Build = Callable[[str, Sequence[Part]], Part]


@dataclass(frozen=True)
class Function:
    build: Build
    default_time: bool = False  # without an argument it is of the event time


def _arguments(name: str, parts: Sequence[Part], kinds: Sequence[Sequence[str]], optional: int = 0) -> None:
    """Check the number of arguments and the kind of each."""
    low, high = len(kinds) - optional, len(kinds)
    if not low <= len(parts) <= high:
        wanted = str(low) if low == high else f"{low} to {high}"
        raise ExpressionError(f"{name}() takes {wanted} argument{'s' if high != 1 else ''}, got {len(parts)}")
    for i, (part, allowed) in enumerate(zip(parts, kinds, strict=False), 1):
        if part.kind not in allowed:
            raise ExpressionError(f"argument {i} of {name}() is {part.kind}; it takes {' or '.join(allowed)}")


# --- numbers ---


def _partial(ufunc: Any) -> Build:
    """Of floats, and not defined for all of them."""

    def build(name: str, parts: Sequence[Part]) -> Part:
        _arguments(name, parts, [NUMBERS])
        part = as_float(parts[0])

        def evaluate(frame: Frame) -> Column:
            x, present = part.evaluate(frame)
            return defined(ufunc(x), present, *((x,) if part.nan else ()))

        return make("float", True, evaluate, parts, nan=part.nan, warns=True)

    return build


def _total(ufunc: Any) -> Build:
    """Of floats, and defined for all of them."""

    def build(name: str, parts: Sequence[Part]) -> Part:
        _arguments(name, parts, [NUMBERS])
        part = as_float(parts[0])

        def evaluate(frame: Frame) -> Column:
            x, present = part.evaluate(frame)
            return Column(ufunc(x), present)

        return make("float", part.optional, evaluate, parts, nan=part.nan)

    return build


def _abs(name: str, parts: Sequence[Part]) -> Part:
    _arguments(name, parts, [NUMBERS])
    (part,) = parts
    whole = part.kind == "int"

    def evaluate(frame: Frame) -> Column:
        x, present = part.evaluate(frame)
        values = np.abs(x)
        return without(values, present, values < 0) if whole else Column(values, present)  # of the least int: itself

    return make(part.kind, whole or part.optional, evaluate, parts, nan=part.nan, warns=whole)


def _round(name: str, parts: Sequence[Part]) -> Part:
    """Half to even."""
    _arguments(name, parts, [NUMBERS, ("int",)], optional=1)
    digits = parts[1].literal if len(parts) > 1 else 0
    if digits is None or not 0 <= digits <= 15:
        raise ExpressionError("the digits of round() must be a plain whole number from 0 to 15")
    if digits == 0:
        return _total(np.rint)(name, parts[:1])

    def rounded(x: Array) -> Array:
        # Scaled up, a large number would overflow; it has nothing to round.
        return np.where(np.abs(x) < _WHOLE, np.round(x, digits), x)

    part = _total(rounded)(name, parts[:1])
    return part._replace(warns=True)


def _extreme(pick: Any) -> Build:
    def build(name: str, parts: Sequence[Part]) -> Part:
        if len(parts) < 2:
            raise ExpressionError(f"{name}() takes at least two arguments; for a window use it in `aggregate`")
        _arguments(name, parts, [NUMBERS] * len(parts))
        kind = "int" if all(p.kind == "int" for p in parts) else "float"

        def evaluate(frame: Frame) -> Column:
            columns = [p.evaluate(frame) for p in parts]
            return Column(reduce(pick, [c.values for c in columns]), together(*columns))

        return make(kind, any(p.optional for p in parts), evaluate, parts, nan=any(p.nan for p in parts))

    return build


def _clip(name: str, parts: Sequence[Part]) -> Part:
    """Never below the first bound, nor above the second."""
    _arguments(name, parts, [NUMBERS] * 3)
    low = _extreme(np.maximum)("max", parts[:2])
    return _extreme(np.minimum)("min", [low, parts[2]])


# --- texts: by Python, value by value; 0.03 to 0.1 µs each ---


def _each(values: Array) -> Iterable[str]:
    """The text of each row; that of a literal again and again."""
    return values.tolist() if values.ndim else repeat(values.item())


def _of_texts(test: Callable[[str, str], bool]) -> Build:
    def build(name: str, parts: Sequence[Part]) -> Part:
        _arguments(name, parts, [("string",), ("string",)])
        text, other = parts

        def evaluate(frame: Frame) -> Column:
            a, b = text.evaluate(frame), other.evaluate(frame)
            n = a.values.size if a.values.ndim else b.values.size
            return Column(np.fromiter(map(test, _each(a.values), _each(b.values)), np.bool_, n), together(a, b))

        return make("bool", text.optional or other.optional, evaluate, parts)

    return build


def _test(part: Part, test: Callable[[str], bool], operands: Sequence[Part]) -> Part:
    """Where a test of each text says yes."""

    def evaluate(frame: Frame) -> Column:
        values, present = part.evaluate(frame)
        return Column(np.fromiter(map(test, values.ravel().tolist()), np.bool_, values.size), present)

    return make("bool", part.optional, evaluate, operands)


def _matches(name: str, parts: Sequence[Part]) -> Part:
    _arguments(name, parts, [("string",), ("string",)])
    text, pattern = parts
    if pattern.literal is None:
        raise ExpressionError("the pattern of matches() must be plain text")
    try:
        found = Pattern(pattern.literal).search
    except PatternError as error:
        raise ExpressionError(f"the pattern of matches() cannot be used: {error}") from None
    return _test(text, found, parts)


def _text_to_text(change: Callable[[str], str]) -> Build:
    def build(name: str, parts: Sequence[Part]) -> Part:
        _arguments(name, parts, [("string",)])
        (part,) = parts

        def evaluate(frame: Frame) -> Column:
            values, present = part.evaluate(frame)
            return Column(texts(list(map(change, values.ravel().tolist()))), present)

        return make("string", part.optional, evaluate, parts)

    return build


# --- missing values ---


def _is_missing(name: str, parts: Sequence[Part]) -> Part:
    if len(parts) != 1:
        raise ExpressionError(f"{name}() takes 1 argument, got {len(parts)}")
    (part,) = parts

    def evaluate(frame: Frame) -> Column:
        values, present = part.evaluate(frame)
        return Column(np.zeros(values.shape, np.bool_) if present is None else ~present)

    return make("bool", False, evaluate, parts)


def _coalesce(name: str, parts: Sequence[Part]) -> Part:
    if len(parts) < 2:
        raise ExpressionError("coalesce() takes at least two arguments")
    kinds = {p.kind for p in parts}
    if len(kinds) > 1 and not kinds <= set(NUMBERS):
        raise ExpressionError(f"the arguments of coalesce() must be of one kind, not {' and '.join(sorted(kinds))}")
    kind = "float" if len(kinds) > 1 else kinds.pop()
    sure = next((i for i, p in enumerate(parts) if not p.optional), len(parts) - 1)
    used = parts[: sure + 1]  # what stands behind one that is always there is never needed

    def evaluate(frame: Frame) -> Column:
        first = used[0].evaluate(frame)
        values, present = first.values.astype(DTYPES[kind], copy=False), first.present
        for part in used[1:]:
            if present is None:
                break
            other = part.evaluate(frame)
            values = np.where(present, values, other.values).astype(DTYPES[kind], copy=False)
            present = None if other.present is None else present | known(other)
        return Column(values, present)

    return make(kind, all(p.optional for p in used), evaluate, used, nan=any(p.nan for p in used))


# --- time ---


def _of_time(compute: Callable[[Array], Array]) -> Build:
    def build(name: str, parts: Sequence[Part]) -> Part:
        _arguments(name, parts, [("time",)])
        (part,) = parts

        def evaluate(frame: Frame) -> Column:
            values, present = part.evaluate(frame)
            return Column(compute(values), present)

        return make("int", part.optional, evaluate, parts)

    return build


def _age(name: str, parts: Sequence[Part]) -> Part:
    """Seconds between the clock of the step and a time."""
    _arguments(name, parts, [("time",)])
    clock = Part("time", False, lambda frame: Column(np.array(frame.clock, np.int64)))
    return seconds(clock, parts[0])


FUNCTIONS: dict[str, Function] = {
    "abs": Function(_abs),
    "min": Function(_extreme(np.minimum)),
    "max": Function(_extreme(np.maximum)),
    "round": Function(_round),
    "sqrt": Function(_partial(np.sqrt)),
    "exp": Function(_partial(np.exp)),
    "log": Function(_partial(np.log)),  # the natural one
    "floor": Function(_total(np.floor)),
    "ceil": Function(_total(np.ceil)),
    "clip": Function(_clip),
    "startswith": Function(_of_texts(str.startswith)),
    "endswith": Function(_of_texts(str.endswith)),
    "contains": Function(_of_texts(operator.contains)),
    "matches": Function(_matches),
    "lower": Function(_text_to_text(str.lower)),
    "upper": Function(_text_to_text(str.upper)),
    "is_missing": Function(_is_missing),
    "coalesce": Function(_coalesce),
    "hour": Function(_of_time(lambda t: t % _DAY // (3600 * SECOND)), default_time=True),
    "weekday": Function(_of_time(lambda t: (t // _DAY + 3) % 7), default_time=True),  # Monday is 0
    "age": Function(_age, default_time=True),
}


# --- lists after `in` ---

_FEW = 8  # so many comparisons take less time than a search of a sorted list


def among(part: Part, values: Sequence[Any]) -> Part:
    """Whether a value is one of these."""
    if part.kind == "string":
        return _test(part, frozenset(values).__contains__, (part,))
    wanted = np.array(values, DTYPES["float"] if any(isinstance(v, float) for v in values) else None)

    def evaluate(frame: Frame) -> Column:
        x, present = part.evaluate(frame)
        if len(values) > _FEW:
            return Column(np.isin(x, wanted), present)
        return Column(reduce(np.logical_or, [x == one for one in wanted]), present)

    return make("bool", part.optional, evaluate, (part,))
