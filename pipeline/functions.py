"""The functions that an expression may call. Of a missing value each gives a missing one, but for `is_missing` and `coalesce`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from pipeline.frame import DTYPES, SECOND, Array, Column, Frame, Ints
from pipeline.parts import (
    NUMBERS,
    Build,
    ExpressionError,
    Part,
    arguments,
    as_float,
    defined,
    event_time,
    known,
    make,
    seconds,
    together,
    without,
)
from pipeline.past import Past
from pipeline.text_functions import (
    length,
    matches,
    of_texts,
    text_to_text,
    to_float,
    to_int,
    to_string,
    where_text,
)
from pipeline.zone import Zone, ZoneError

_MINUTE, _HOUR, _DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
_WHOLE = 2.0**52  # floats from here on have no digits after the point

Remember = Callable[[str, Sequence[Part], Past], Part]


@dataclass(frozen=True)
class Function:
    build: Build
    of_time: bool = False  # without a time among its arguments it is of the event time


@dataclass(frozen=True)
class Remembering:
    """A function of a key's readings before this one, too."""

    build: Remember


# --- numbers ---


def _partial(ufunc: Any) -> Build:
    """Of floats, and not defined for all of them."""

    def build(name: str, parts: Sequence[Part]) -> Part:
        arguments(name, parts, [NUMBERS])
        part = as_float(parts[0])

        def evaluate(frame: Frame) -> Column:
            x, present = part.evaluate(frame)
            return defined(ufunc(x), present, *((x,) if part.nan else ()))

        return make("float", True, evaluate, parts, nan=part.nan, warns=True)

    return build


def _total(ufunc: Any) -> Build:
    """Of floats, and defined for all of them."""

    def build(name: str, parts: Sequence[Part]) -> Part:
        arguments(name, parts, [NUMBERS])
        part = as_float(parts[0])

        def evaluate(frame: Frame) -> Column:
            x, present = part.evaluate(frame)
            return Column(ufunc(x), present)

        return make("float", part.optional, evaluate, parts, nan=part.nan)

    return build


def _sign(name: str, parts: Sequence[Part]) -> Part:
    """-1, 0 or 1."""
    arguments(name, parts, [NUMBERS])
    (part,) = parts

    def evaluate(frame: Frame) -> Column:
        x, present = part.evaluate(frame)
        return Column(np.sign(x), present)

    return make(part.kind, part.optional, evaluate, parts, nan=part.nan)


def _abs(name: str, parts: Sequence[Part]) -> Part:
    arguments(name, parts, [NUMBERS])
    (part,) = parts
    whole = part.kind == "int"

    def evaluate(frame: Frame) -> Column:
        x, present = part.evaluate(frame)
        values = np.abs(x)
        return without(values, present, values < 0) if whole else Column(values, present)  # of the least int: itself

    return make(part.kind, whole or part.optional, evaluate, parts, nan=part.nan, warns=whole)


def _round(name: str, parts: Sequence[Part]) -> Part:
    """Half to even."""
    arguments(name, parts, [NUMBERS, ("int",)], optional=1)
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
        arguments(name, parts, [NUMBERS] * len(parts))
        kind = "int" if all(p.kind == "int" for p in parts) else "float"

        def evaluate(frame: Frame) -> Column:
            columns = [p.evaluate(frame) for p in parts]
            return Column(reduce(pick, [c.values for c in columns]), together(*columns))

        return make(kind, any(p.optional for p in parts), evaluate, parts, nan=any(p.nan for p in parts))

    return build


def _clip(name: str, parts: Sequence[Part]) -> Part:
    """Never below the first bound, nor above the second."""
    arguments(name, parts, [NUMBERS] * 3)
    low = _extreme(np.maximum)("max", parts[:2])
    return _extreme(np.minimum)("min", [low, parts[2]])


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
        arguments(name, parts, [("time",), ("string",)], optional=1)
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
    arguments(name, parts, [("time",)])
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
    arguments(name, parts, [])
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
    "startswith": Function(of_texts(str.startswith)),
    "endswith": Function(of_texts(str.endswith)),
    "contains": Function(of_texts(operator.contains)),
    "matches": Function(matches),
    "lower": Function(text_to_text(str.lower)),
    "upper": Function(text_to_text(str.upper)),
    "trim": Function(text_to_text(str.strip)),
    "length": Function(length),
    "float": Function(to_float),
    "int": Function(to_int),
    "string": Function(to_string),
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
        return where_text(part, frozenset(values).__contains__, (part,))
    wanted = np.array(values, DTYPES["float"] if any(isinstance(v, float) for v in values) else None)

    def evaluate(frame: Frame) -> Column:
        x, present = part.evaluate(frame)
        if len(values) > _FEW:
            return Column(np.isin(x, wanted), present)
        return Column(reduce(np.logical_or, [x == one for one in wanted]), present)

    return make("bool", part.optional, evaluate, (part,))
