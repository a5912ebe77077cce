"""The functions that an expression may call. Of a missing value each gives a missing one, but for `is_missing` and `coalesce`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import repeat
from typing import Any

import numpy as np

from pipeline.frame import DTYPES, SECOND, Array, Bools, Column, Frame, Ints
from pipeline.parts import (
    NUMBERS,
    ExpressionError,
    Part,
    as_float,
    defined,
    event_time,
    known,
    make,
    seconds,
    texts,
    together,
    without,
)
from pipeline.past import Past
from pipeline.pattern import Pattern, PatternError
from pipeline.zone import Zone, ZoneError

_MINUTE, _HOUR, _DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
_WHOLE = 2.0**52  # floats from here on have no digits after the point

Build = Callable[[str, Sequence[Part]], Part]
Remember = Callable[[str, Sequence[Part], Past], Part]


@dataclass(frozen=True)
class Function:
    build: Build
    of_time: bool = False  # without a time among its arguments it is of the event time


@dataclass(frozen=True)
class Remembering:
    """A function of a key's readings before this one, too."""

    build: Remember


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


def _sign(name: str, parts: Sequence[Part]) -> Part:
    """-1, 0 or 1."""
    _arguments(name, parts, [NUMBERS])
    (part,) = parts

    def evaluate(frame: Frame) -> Column:
        x, present = part.evaluate(frame)
        return Column(np.sign(x), present)

    return make(part.kind, part.optional, evaluate, parts, nan=part.nan)


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


def _of_texts(test: Callable[[str, str], bool]) -> Build:
    def build(name: str, parts: Sequence[Part]) -> Part:
        _arguments(name, parts, [("string",), ("string",)])
        text, other = parts
        if other.literal is not None:
            sought: str = other.literal
            return _test(text, _Answers(lambda t: test(t, sought)).__getitem__, parts)

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
    return _test(text, _Answers(found).__getitem__, parts)


def _text_to_text(change: Callable[[str], str]) -> Build:
    def build(name: str, parts: Sequence[Part]) -> Part:
        _arguments(name, parts, [("string",)])
        (part,) = parts

        def evaluate(frame: Frame) -> Column:
            values, present = part.evaluate(frame)
            return Column(texts(list(map(change, values.ravel().tolist()))), present)

        return make("string", part.optional, evaluate, parts)

    return build


def _length(name: str, parts: Sequence[Part]) -> Part:
    """Characters."""
    _arguments(name, parts, [("string",)])
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


def _to_float(name: str, parts: Sequence[Part]) -> Part:
    """Of a text that is not a number, missing."""
    _arguments(name, parts, [(*NUMBERS, "bool", "string")])
    (part,) = parts
    if part.kind != "string":
        return as_float(part)
    read = _Answers(_number_in).__getitem__

    def evaluate(frame: Frame) -> Column:
        values, present = part.evaluate(frame)
        return defined(np.fromiter(map(read, values.ravel().tolist()), np.float64, values.size), present)

    return make("float", True, evaluate, parts)


def _to_int(name: str, parts: Sequence[Part]) -> Part:
    """What follows the point is cut off. Beyond 64 bits, and of a text that is not a whole number, missing."""
    _arguments(name, parts, [(*NUMBERS, "bool", "string")])
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


def _to_string(name: str, parts: Sequence[Part]) -> Part:
    """As JSON would show it; a text as it is."""
    _arguments(name, parts, [(*NUMBERS, "bool", "string")])
    (part,) = parts
    if part.kind == "string":
        return part
    shown: Callable[[Any], str] = (lambda v: "true" if v else "false") if part.kind == "bool" else repr

    def evaluate(frame: Frame) -> Column:
        values, present = part.evaluate(frame)
        return Column(texts(list(map(shown, values.ravel().tolist()))), present)

    return make("string", part.optional, evaluate, parts)


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
        first, *others = [p.evaluate(frame) for p in used]  # all of them: one may remember what it is shown
        values, present = first.values.astype(DTYPES[kind], copy=False), first.present
        for other in others:
            if present is None:
                break
            values = np.where(present, values, other.values).astype(DTYPES[kind], copy=False)
            present = None if other.present is None else present | known(other)
        return Column(values, present)

    return make(kind, all(p.optional for p in used), evaluate, used, nan=any(p.nan for p in used))


# --- time ---


def _of_time(compute: Callable[[Ints], Ints]) -> Build:
    """Of a time: in UTC, or as the clocks of a time zone show it."""

    def build(name: str, parts: Sequence[Part]) -> Part:
        _arguments(name, parts, [("time",), ("string",)], optional=1)
        time = parts[0]
        local = _zone(name, parts[1]).local if len(parts) > 1 else None

        def evaluate(frame: Frame) -> Column:
            values, present = time.evaluate(frame)
            return Column(compute(values if local is None else local(values)), present)

        return make("int", time.optional, evaluate, (time,))

    return build


def _zone(name: str, part: Part) -> Zone:
    if part.literal is None:
        raise ExpressionError(f"the time zone of {name}() must be plain text")
    try:
        return Zone(part.literal)
    except ZoneError as error:
        raise ExpressionError(str(error)) from None


def _in_months(time: Ints) -> Ints:
    """Months since January 1970."""
    months: Ints = time.astype("datetime64[ns]").astype("datetime64[M]").astype(np.int64)
    return months


def _day(time: Ints) -> Ints:
    first = _in_months(time).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    day: Ints = time // _DAY - first + 1
    return day


def _age(name: str, parts: Sequence[Part]) -> Part:
    """Seconds between the clock of the step and a time."""
    _arguments(name, parts, [("time",)])
    clock = Part("time", False, lambda frame: Column(np.array(frame.clock, np.int64)))
    return seconds(clock, parts[0])


# --- of earlier readings ---


def _of_earlier(remember: Callable[[Past, Part], Part]) -> Remember:
    def build(name: str, parts: Sequence[Part], past: Past) -> Part:
        if len(parts) != 1:
            raise ExpressionError(f"{name}() takes 1 argument, got {len(parts)}")
        return remember(past, parts[0])

    return build


def _elapsed(name: str, parts: Sequence[Part], past: Past) -> Part:
    """Seconds of event time since the key's reading before this one; below 0 if that is dated later."""
    _arguments(name, parts, [])
    now = event_time()
    return seconds(now, past.previous(now))


FUNCTIONS: dict[str, Function | Remembering] = {
    "abs": Function(_abs),
    "min": Function(_extreme(np.minimum)),
    "max": Function(_extreme(np.maximum)),
    "round": Function(_round),
    "sqrt": Function(_partial(np.sqrt)),
    "exp": Function(_partial(np.exp)),
    "log": Function(_partial(np.log)),  # the natural one
    "log10": Function(_partial(np.log10)),
    "sin": Function(_total(np.sin)),  # of radians
    "cos": Function(_total(np.cos)),
    "sign": Function(_sign),
    "floor": Function(_total(np.floor)),
    "ceil": Function(_total(np.ceil)),
    "clip": Function(_clip),
    "startswith": Function(_of_texts(str.startswith)),
    "endswith": Function(_of_texts(str.endswith)),
    "contains": Function(_of_texts(operator.contains)),
    "matches": Function(_matches),
    "lower": Function(_text_to_text(str.lower)),
    "upper": Function(_text_to_text(str.upper)),
    "trim": Function(_text_to_text(str.strip)),
    "length": Function(_length),
    "float": Function(_to_float),
    "int": Function(_to_int),
    "string": Function(_to_string),
    "is_missing": Function(_is_missing),
    "coalesce": Function(_coalesce),
    "minute": Function(_of_time(lambda t: t % _HOUR // _MINUTE), of_time=True),
    "hour": Function(_of_time(lambda t: t % _DAY // _HOUR), of_time=True),
    "weekday": Function(_of_time(lambda t: (t // _DAY + 3) % 7), of_time=True),  # Monday is 0
    "day": Function(_of_time(_day), of_time=True),  # of the month
    "month": Function(_of_time(lambda t: _in_months(t) % 12 + 1), of_time=True),
    "year": Function(_of_time(lambda t: _in_months(t) // 12 + 1970), of_time=True),
    "age": Function(_age, of_time=True),
    "previous": Remembering(_of_earlier(Past.previous)),
    "latest": Remembering(_of_earlier(Past.latest)),
    "elapsed": Remembering(_elapsed),
}

# What SQL, PromQL and Kapacitor call them.
ELSEWHERE = {
    "day_of_month": "day",
    "day_of_week": "weekday",
    "dayofweek": "weekday",
    "difference": "x - previous(x)",
    "fill": "latest",
    "ifnull": "coalesce",
    "ispresent": "not is_missing(x)",
    "isnull": "is_missing",
    "lag": "previous",
    "len": "length",
    "ln": "log",
    "nvl": "coalesce",
    "pow": "x ** 2",
    "regexp": "matches",
    "sgn": "sign",
    "str": "string",
    "strcontains": "contains",
    "strhasprefix": "startswith",
    "strhassuffix": "endswith",
    "strip": "trim",
    "strlength": "length",
    "strlen": "length",
    "strtolower": "lower",
    "strtoupper": "upper",
    "strtrimspace": "trim",
    "timestamp": "time",
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
