"""What expressions are made of: arithmetic that never raises, and the functions that may be called."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.frame import DTYPES, SECOND, Array, Bools, Column, Frame

NUMBERS = ("float", "int")
SIGNS = {"Add": "+", "Sub": "-", "Mult": "*", "Div": "/", "FloorDiv": "//", "Mod": "%", "Pow": "**"}
MAX_PATTERN = 200  # characters of a regular expression
_DAY = 86_400 * SECOND


class Part(NamedTuple):
    """A compiled part of an expression. `nan`: its numbers may be NaN without being undefined."""

    kind: str
    optional: bool
    evaluate: Callable[[Frame], Column]
    literal: Any = None  # the value, of a literal
    nan: bool = False


class ExpressionError(Exception):
    """An expression that cannot be compiled; the message says why, and what would do."""


def zeros(kind: str, n: int) -> Array:
    """What lies under missing values."""
    return texts([""] * n) if kind == "string" else np.zeros(n, DTYPES[kind])


def texts(values: Sequence[str]) -> Array:
    array: Array = np.empty(len(values), object)
    array[:] = values
    return array


def among(values: Array, literals: Sequence[Any]) -> Bools:
    wanted = set(literals)
    return np.fromiter((v in wanted for v in values.tolist()), np.bool_, len(values))


def together(columns: Sequence[Column]) -> Bools | None:
    """Where all are present; None: everywhere."""
    present = None
    for column in columns:
        if column.present is not None:
            present = column.present if present is None else present & column.present
    return present


def without(values: Array, present: Bools | None, undefined: Bools) -> Column:
    """Results that are not defined become missing, with zeros under them."""
    if not undefined.any():
        return Column(values, present) if present is None else Column(np.where(present, values, 0), present)
    kept = ~undefined if present is None else present & ~undefined
    return Column(np.where(kept, values, 0), kept)


# --- arithmetic ---

_FLOAT = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "//": np.floor_divide,
    "%": np.mod,
    "**": np.power,
}


def arithmetic(sign: str, a: Part, b: Part) -> Part:
    """A sign between two numbers. Whole numbers stay whole but for `/`; what does not fit into 64 bits is missing."""
    whole = a.kind == b.kind == "int" and sign != "/"
    if whole and sign == "**" and not (b.literal is not None and b.literal >= 0):
        whole = False
    nan = a.nan or b.nan
    compute = _whole(sign) if whole else _real(sign, nan=nan)
    left, right = a.evaluate, b.evaluate

    return Part("int" if whole else "float", True, lambda f: compute(left(f), right(f)), None, nan)


def _real(sign: str, *, nan: bool) -> Callable[[Column, Column], Column]:
    ufunc: Any = _FLOAT[sign]

    def compute(a: Column, b: Column) -> Column:
        x, y = a.values.astype(np.float64, copy=False), b.values.astype(np.float64, copy=False)
        with np.errstate(all="ignore"):
            values = ufunc(x, y)
        return defined(values, together((a, b)), (x, y) if nan else ())

    return compute


def defined(values: Array, present: Bools | None, nans: Sequence[Array] = ()) -> Column:
    """Floats where they are finite, or NaN because one of `nans` is; missing elsewhere."""
    undefined = ~np.isfinite(values)
    if nans and undefined.any():
        undefined &= ~(np.isnan(values) & np.logical_or.reduce([np.isnan(n) for n in nans]))
    return without(values, present, undefined)


def _whole(sign: str) -> Callable[[Column, Column], Column]:
    ufunc: Any = _FLOAT[sign]
    divides = sign in ("//", "%")

    def compute(a: Column, b: Column) -> Column:
        x, y = a.values, b.values
        with np.errstate(all="ignore"):
            undefined = y == 0 if divides else _overflows(sign, x, y)
            values = ufunc(x, np.where(undefined, 1, y)) if divides else ufunc(x, y)
        if divides:
            undefined = undefined | ((x == np.iinfo(np.int64).min) & (y == -1))
        return without(values, together((a, b)), undefined)

    return compute


def _overflows(sign: str, x: Array, y: Array) -> Bools:
    """Where the float result lies beyond 64 bits; whole numbers this close to the edge count as beyond, too."""
    result: Array = _FLOAT[sign](x.astype(np.float64), y.astype(np.float64))
    beyond: Bools = ~(np.abs(result) < 9.2e18)
    return beyond


def choose(test: Part, yes: Part, no: Part, kind: str) -> Part:
    """`yes if test else no`; missing where the test is unknown."""

    def evaluate(frame: Frame) -> Column:
        t, y, n = test.evaluate(frame), yes.evaluate(frame), no.evaluate(frame)
        values = np.where(t.values, y.values, n.values).astype(DTYPES[kind], copy=False)
        if t.present is None and y.present is None and n.present is None:
            return Column(values)
        present = t.known() & np.where(t.values, y.known(), n.known())
        return Column(np.where(present, values, zeros(kind, len(values))), present)

    return Part(kind, test.optional or yes.optional or no.optional, evaluate, None, yes.nan or no.nan)


# --- functions ---

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


def _float_function(compute: Callable[[Array], Array]) -> Build:
    def build(name: str, parts: Sequence[Part]) -> Part:
        _arguments(name, parts, [NUMBERS])
        (part,) = parts

        def evaluate(frame: Frame) -> Column:
            values, present = part.evaluate(frame)
            x = values.astype(np.float64, copy=False)
            with np.errstate(all="ignore"):
                return defined(compute(x), present, (x,) if part.nan else ())

        return Part("float", True, evaluate, None, part.nan)

    return build


def _abs(name: str, parts: Sequence[Part]) -> Part:
    _arguments(name, parts, [NUMBERS])
    (part,) = parts

    def evaluate(frame: Frame) -> Column:
        values, present = part.evaluate(frame)
        if part.kind == "float":
            return Column(np.abs(values), present)
        return without(np.abs(values), present, values == np.iinfo(np.int64).min)

    return Part(part.kind, part.optional or part.kind == "int", evaluate, None, part.nan)


def _round(name: str, parts: Sequence[Part]) -> Part:
    _arguments(name, parts, [NUMBERS, ("int",)], optional=1)
    digits = parts[1].literal if len(parts) > 1 else 0
    if digits is None or not -15 <= digits <= 15:
        raise ExpressionError("the digits of round() must be a plain whole number from -15 to 15")
    part = parts[0]

    def evaluate(frame: Frame) -> Column:
        values, present = part.evaluate(frame)
        return defined(np.round(values.astype(np.float64, copy=False), digits), present, (values,) if part.nan else ())

    return Part("float", True, evaluate, None, part.nan)


def _extreme(pick: Any) -> Build:
    def build(name: str, parts: Sequence[Part]) -> Part:
        if len(parts) < 2:
            raise ExpressionError(f"{name}() takes at least two arguments; for a window use it in `aggregate`")
        _arguments(name, parts, [NUMBERS] * len(parts))
        kind = "int" if all(p.kind == "int" for p in parts) else "float"

        def evaluate(frame: Frame) -> Column:
            columns = [p.evaluate(frame) for p in parts]
            values = pick.reduce([c.values for c in columns]).astype(DTYPES[kind], copy=False)
            present = together(columns)
            return Column(values if present is None else np.where(present, values, 0), present)

        return Part(kind, any(p.optional for p in parts), evaluate, None, any(p.nan for p in parts))

    return build


def _clip(name: str, parts: Sequence[Part]) -> Part:
    _arguments(name, parts, [NUMBERS] * 3)
    low = _extreme(np.maximum)("max", parts[:2])
    return _extreme(np.minimum)("min", [low, parts[2]])


def _of_texts(compute: Callable[[str, str], bool]) -> Build:
    def build(name: str, parts: Sequence[Part]) -> Part:
        _arguments(name, parts, [("string",), ("string",)])
        text, other = parts

        def evaluate(frame: Frame) -> Column:
            a, b = text.evaluate(frame), other.evaluate(frame)
            pairs = zip(a.values.tolist(), b.values.tolist(), strict=True)
            found = np.fromiter((compute(x, y) for x, y in pairs), np.bool_, len(a.values))
            return Column(found, together((a, b)))

        return Part("bool", text.optional or other.optional, evaluate)

    return build


# A repeat of what itself repeats takes time that grows with the power of the text's length.
_NESTED_REPEAT = re.compile(r"[*+}]\)*[*+{]|\([^()]*[*+{|][^()]*\)[*+{]")


def _matches(name: str, parts: Sequence[Part]) -> Part:
    _arguments(name, parts, [("string",), ("string",)])
    text, pattern = parts
    if pattern.literal is None:
        raise ExpressionError("the pattern of matches() must be plain text")
    if (
        len(pattern.literal) > MAX_PATTERN
        or _NESTED_REPEAT.search(pattern.literal)
        or re.search(r"\\\d|\(\?", pattern.literal)
    ):
        raise ExpressionError(
            f"the pattern of matches() may have {MAX_PATTERN} characters, no repeated group that repeats, "
            "no back reference and no (?…)"
        )
    try:
        found = re.compile(pattern.literal).search
    except re.error as error:
        raise ExpressionError(f"the pattern of matches() is not a regular expression: {error}") from None

    def evaluate(frame: Frame) -> Column:
        values, present = text.evaluate(frame)
        hits = np.fromiter((found(v[:10_000]) is not None for v in values.tolist()), np.bool_, len(values))
        return Column(hits, present)

    return Part("bool", text.optional, evaluate)


def _text_to_text(compute: Callable[[str], str]) -> Build:
    def build(name: str, parts: Sequence[Part]) -> Part:
        _arguments(name, parts, [("string",)])
        (part,) = parts

        def evaluate(frame: Frame) -> Column:
            values, present = part.evaluate(frame)
            return Column(texts([compute(v) for v in values.tolist()]), present)

        return Part("string", part.optional, evaluate)

    return build


def _is_missing(name: str, parts: Sequence[Part]) -> Part:
    if len(parts) != 1:
        raise ExpressionError(f"{name}() takes 1 argument, got {len(parts)}")
    (part,) = parts
    return Part("bool", False, lambda frame: Column(~part.evaluate(frame).known()))


def _coalesce(name: str, parts: Sequence[Part]) -> Part:
    if len(parts) < 2:
        raise ExpressionError("coalesce() takes at least two arguments")
    kinds = {p.kind for p in parts}
    if len(kinds) > 1 and not kinds <= set(NUMBERS):
        raise ExpressionError(f"the arguments of coalesce() must be of one kind, not {' and '.join(sorted(kinds))}")
    kind = "float" if len(kinds) > 1 else kinds.pop()

    def evaluate(frame: Frame) -> Column:
        result = parts[0].evaluate(frame)
        values, present = result.values.astype(DTYPES[kind], copy=False), result.known()
        for part in parts[1:]:
            other = part.evaluate(frame)
            values = np.where(present, values, other.values).astype(DTYPES[kind], copy=False)
            present = present | other.known()
        return Column(values, None if present.all() else present)

    return Part(kind, all(p.optional for p in parts), evaluate, None, any(p.nan for p in parts))


def _of_time(compute: Callable[[Array], Array]) -> Build:
    def build(name: str, parts: Sequence[Part]) -> Part:
        _arguments(name, parts, [("time",)])
        (part,) = parts

        def evaluate(frame: Frame) -> Column:
            values, present = part.evaluate(frame)
            result = compute(values)
            return Column(result if present is None else np.where(present, result, 0), present)

        return Part("int", part.optional, evaluate)

    return build


def _age(name: str, parts: Sequence[Part]) -> Part:
    """Seconds between the clock of the step and a time."""
    _arguments(name, parts, [("time",)])
    (part,) = parts

    def evaluate(frame: Frame) -> Column:
        values, present = part.evaluate(frame)
        result = (frame.clock - values) / SECOND
        return Column(result if present is None else np.where(present, result, 0), present)

    return Part("float", part.optional, evaluate)


FUNCTIONS: dict[str, Function] = {
    "abs": Function(_abs),
    "min": Function(_extreme(np.minimum)),
    "max": Function(_extreme(np.maximum)),
    "round": Function(_round),
    "sqrt": Function(_float_function(np.sqrt)),
    "exp": Function(_float_function(np.exp)),
    "log": Function(_float_function(np.log)),
    "floor": Function(_float_function(np.floor)),
    "ceil": Function(_float_function(np.ceil)),
    "clip": Function(_clip),
    "startswith": Function(_of_texts(str.startswith)),
    "endswith": Function(_of_texts(str.endswith)),
    "contains": Function(_of_texts(str.__contains__)),
    "matches": Function(_matches),
    "lower": Function(_text_to_text(str.lower)),
    "upper": Function(_text_to_text(str.upper)),
    "is_missing": Function(_is_missing),
    "coalesce": Function(_coalesce),
    "hour": Function(_of_time(lambda t: t % _DAY // (3600 * SECOND)), default_time=True),
    "weekday": Function(_of_time(lambda t: (t // _DAY + 3) % 7), default_time=True),  # Monday is 0
    "age": Function(_age, default_time=True),
}
