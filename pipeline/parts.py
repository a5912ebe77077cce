"""What expressions are put together from: parts, each of which gives a column for a Frame and never raises.

A literal is an array without dimension, one value for all rows; every other part gives a value for each row. What is made
of literals alone is worked out at once and is a literal again. Under a missing value may lie anything: `Expression` puts
zeros there in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.frame import DTYPES, NO_PROGRESS, SECOND, Array, Bools, Column, Frame, Ints, KeyTable

NUMBERS = ("float", "int")
SIGNS = {"Add": "+", "Sub": "-", "Mult": "*", "Div": "/", "FloorDiv": "//", "Mod": "%", "Pow": "**"}

Evaluate = Callable[[Frame], Column]


class ExpressionError(Exception):
    """An expression that cannot be compiled; the message says why, and what would do."""


class Part(NamedTuple):
    """A compiled part of an expression."""

    kind: str
    optional: bool
    evaluate: Evaluate
    literal: Any = None  # the value, of a literal
    nan: bool = False  # its numbers may be NaN without being undefined
    warns: bool = False  # numpy may warn: of divisions by zero, overflow
    holds: Callable[[Frame], Bools] | None = None  # of truths: where known to be true, cheaper than by `evaluate`


Build = Callable[[str, Sequence[Part]], Part]  # a call of a function, by its name and its arguments

_NOTHING = Frame(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64), {}, NO_PROGRESS)


def make(
    kind: str,
    optional: bool,
    evaluate: Evaluate,
    operands: Sequence[Part],
    *,
    nan: bool = False,
    warns: bool = False,
    holds: Callable[[Frame], Bools] | None = None,
) -> Part:
    """A part made of others; if all of them are literals, a literal, or one that is always missing."""
    part = Part(kind, optional, evaluate, None, nan, warns or any(p.warns for p in operands), holds)
    if any(p.literal is None for p in operands):
        return part
    with np.errstate(all="ignore"):
        values, present = evaluate(_NOTHING)
    if present is not None and not present.all():
        return missing(kind)
    return literal(kind, np.asarray(values).item())


def literal(kind: str, value: Any) -> Part:
    column = Column(np.array(value, DTYPES[kind]))

    def evaluate(frame: Frame) -> Column:
        return column

    return Part(kind, False, evaluate, value)


def spread(part: Part) -> Part:
    """The same with a value for each row, of a literal too."""
    if part.literal is None:
        return part
    value, dtype = part.literal, DTYPES[part.kind]
    return part._replace(literal=None, evaluate=lambda frame: Column(np.full(len(frame), value, dtype)))


def event_time() -> Part:
    return Part("time", False, lambda frame: Column(frame.time))


def missing(kind: str) -> Part:
    """A part that is always missing."""
    return Part(kind, True, lambda frame: Column(zeros(kind, len(frame)), np.zeros(len(frame), np.bool_)))


def zeros(kind: str, n: int) -> Array:
    """What lies under missing values in the end."""
    return np.full(n, "" if kind == "string" else 0, DTYPES[kind])


def texts(values: Sequence[str]) -> Array:
    array: Array = np.empty(len(values), object)
    array[:] = values
    return array


def known(column: Column) -> Any:
    """Where there is a value; one True for all if there is one everywhere."""
    return np.True_ if column.present is None else column.present


def together(*columns: Column) -> Bools | None:
    """Where all are present; None: everywhere."""
    present = None
    for column in columns:
        if column.present is not None:
            present = column.present if present is None else present & column.present
    return present


def without(values: Array, present: Bools | None, undefined: Bools) -> Column:
    """Results that are not defined become missing."""
    if not undefined.any():
        return Column(values, present)
    return Column(values, ~undefined if present is None else present & ~undefined)


def defined(values: Array, present: Bools | None, *nans: Array) -> Column:
    """Floats where they are finite, or NaN because one of `nans` is; missing elsewhere."""
    good = np.isfinite(values)
    if good.all():
        return Column(values, present)
    for operand in nans:
        good = good | np.isnan(operand)
    return without(values, present, ~good)


def arguments(name: str, parts: Sequence[Part], kinds: Sequence[Sequence[str]], optional: int = 0) -> None:
    """Check the number of arguments of a function and the kind of each."""
    low, high = len(kinds) - optional, len(kinds)
    if not low <= len(parts) <= high:
        wanted = str(low) if low == high else f"{low} to {high}"
        raise ExpressionError(f"{name}() takes {wanted} argument{'s' if high != 1 else ''}, got {len(parts)}")
    for i, (part, allowed) in enumerate(zip(parts, kinds, strict=False), 1):
        if part.kind not in allowed:
            raise ExpressionError(f"argument {i} of {name}() is {part.kind}; it takes {' or '.join(allowed)}")


# --- arithmetic ---

_UFUNCS: dict[str, Any] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "//": np.floor_divide,
    "%": np.remainder,
    "**": np.power,
}
_LEAST = np.iinfo(np.int64).min


def arithmetic(sign: str, a: Part, b: Part) -> Part:
    """A sign between two numbers. Whole numbers stay whole but for `/` and most powers; beyond 64 bits is missing."""
    whole = a.kind == b.kind == "int" and sign != "/"
    if not whole or (sign == "**" and (b.literal is None or b.literal < 0)):
        return _real(_UFUNCS[sign], a, b)
    return _divided(_UFUNCS[sign], a, b) if sign in ("//", "%") else _whole(_UFUNCS[sign], a, b)


def _real(ufunc: Any, a: Part, b: Part) -> Part:
    left, right, nan = as_float(a).evaluate, as_float(b).evaluate, a.nan or b.nan

    def evaluate(frame: Frame) -> Column:
        x, y = left(frame), right(frame)
        operands = (x.values, y.values) if nan else ()
        return defined(ufunc(x.values, y.values), together(x, y), *operands)

    return make("float", True, evaluate, (a, b), nan=nan, warns=True)


def _whole(ufunc: Any, a: Part, b: Part) -> Part:
    left, right = a.evaluate, b.evaluate

    def evaluate(frame: Frame) -> Column:
        x, y = left(frame), right(frame)
        values = ufunc(x.values, y.values)
        return without(values, together(x, y), _wrapped(ufunc, x.values, y.values, values))

    return make("int", True, evaluate, (a, b), warns=True)


def _wrapped(ufunc: Any, x: Array, y: Array, values: Ints) -> Bools:
    """Where the result lies beyond 64 bits. It is then off by 2**64 or more, a float of it by far less than 2**62."""
    off = ufunc(x.astype(np.float64), y.astype(np.float64)) - values
    wrapped: Bools = ~(np.abs(off) < 2.0**62)
    return wrapped


def _divided(ufunc: Any, a: Part, b: Part) -> Part:
    """`//` and `%` of whole numbers: not defined by zero, and the least one by -1 lies beyond 64 bits."""
    left, right = a.evaluate, b.evaluate
    safe = b.literal is not None and b.literal not in (0, -1)

    def evaluate(frame: Frame) -> Column:
        x, y = left(frame), right(frame)
        values, present = ufunc(x.values, y.values), together(x, y)
        if safe:
            return Column(values, present)
        undefined = y.values == 0
        if ufunc is np.floor_divide:
            undefined = undefined | ((x.values == _LEAST) & (y.values == -1))
        return without(values, present, undefined)

    return make("int", not safe or a.optional, evaluate, (a, b), warns=not safe)


def negative(a: Part) -> Part:
    if a.kind == "int":
        return arithmetic("-", literal("int", 0), a)
    inner = a.evaluate

    def evaluate(frame: Frame) -> Column:
        values, present = inner(frame)
        return Column(-values, present)

    return make("float", a.optional, evaluate, (a,), nan=a.nan)


def as_float(a: Part) -> Part:
    if a.kind == "float":
        return a
    inner = a.evaluate

    def evaluate(frame: Frame) -> Column:
        values, present = inner(frame)
        return Column(values.astype(np.float64), present)

    return make("float", a.optional, evaluate, (a,))


def seconds(a: Part, b: Part) -> Part:
    """From the time `b` to the time `a`."""
    difference = _whole(np.subtract, a, b)

    def evaluate(frame: Frame) -> Column:
        values, present = difference.evaluate(frame)
        return Column(values / SECOND, present)

    return make("float", True, evaluate, (difference,))


# --- truths ---


def compare(ufunc: Any, a: Part, b: Part) -> Part:
    left, right = a.evaluate, b.evaluate
    if b.literal is not None:
        value = right(_NOTHING).values

        def evaluate(frame: Frame) -> Column:
            values, present = left(frame)
            return Column(ufunc(values, value), present)
    else:

        def evaluate(frame: Frame) -> Column:
            x, y = left(frame), right(frame)
            return Column(ufunc(x.values, y.values), together(x, y))

    return make("bool", a.optional or b.optional, evaluate, (a, b))


def chain(ufuncs: Sequence[Any], parts: Sequence[Part]) -> Part:
    """`a < b < c`: each part is worked out once, however deep chains are nested in it."""
    evaluates = [p.evaluate for p in parts]

    def evaluate(frame: Frame) -> Column:
        columns = [e(frame) for e in evaluates]
        result = None
        for ufunc, x, y in zip(ufuncs, columns, columns[1:], strict=False):
            one = Column(ufunc(x.values, y.values), together(x, y))
            result = one if result is None else _and(result, one)
        assert result is not None
        return result

    return make("bool", any(p.optional for p in parts), evaluate, parts)


def truth(part: Part) -> Callable[[Frame], Bools]:
    """Where a part is known to be true."""
    if part.holds is not None:
        return part.holds
    inner = part.evaluate

    def holds(frame: Frame) -> Bools:
        values, present = inner(frame)
        return values if present is None else values & present

    return holds


def both(a: Part, b: Part) -> Part:
    left, right = truth(a), truth(b)
    return _joined(_and, a, b, lambda frame: left(frame) & right(frame))


def either(a: Part, b: Part) -> Part:
    left, right = truth(a), truth(b)
    return _joined(_or, a, b, lambda frame: left(frame) | right(frame))


def _joined(join: Callable[[Column, Column], Column], a: Part, b: Part, holds: Callable[[Frame], Bools]) -> Part:
    left, right = a.evaluate, b.evaluate
    return make("bool", a.optional or b.optional, lambda f: join(left(f), right(f)), (a, b), holds=holds)


def _and(a: Column, b: Column) -> Column:
    """False wins over unknown."""
    if a.present is None and b.present is None:
        return Column(a.values & b.values)
    known_a, known_b = known(a), known(b)
    true = (a.values & known_a) & (b.values & known_b)
    return Column(true, true | (known_a > a.values) | (known_b > b.values))  # of truths, x > y is `x and not y`


def _or(a: Column, b: Column) -> Column:
    """True wins over unknown."""
    if a.present is None and b.present is None:
        return Column(a.values | b.values)
    known_a, known_b = known(a), known(b)
    true = (a.values & known_a) | (b.values & known_b)
    return Column(true, true | (known_a & known_b))


def opposite(a: Part) -> Part:
    inner = a.evaluate

    def evaluate(frame: Frame) -> Column:
        values, present = inner(frame)
        return Column(~values, present)

    return make("bool", a.optional, evaluate, (a,))


def choose(test: Part, yes: Part, no: Part, kind: str) -> Part:
    """`yes if test else no`; missing where the test is unknown."""

    def evaluate(frame: Frame) -> Column:
        t, y, n = test.evaluate(frame), yes.evaluate(frame), no.evaluate(frame)
        values = np.where(t.values, y.values, n.values).astype(DTYPES[kind], copy=False)
        if t.present is None and y.present is None and n.present is None:
            return Column(values)
        return Column(values, known(t) & np.where(t.values, known(y), known(n)))

    optional = test.optional or yes.optional or no.optional
    return make(kind, optional, evaluate, (test, yes, no), nan=yes.nan or no.nan)


# --- of the key alone ---


def by_code(part: Part, name: str, keys: KeyTable) -> Part:
    """What reads nothing but the key, worked out once for each key rather than for each reading."""
    if part.literal is not None:
        return part
    values, present = zeros(part.kind, 0), np.zeros(0, np.bool_)

    def evaluate(frame: Frame) -> Column:
        nonlocal values, present
        if len(values) < len(keys.names):
            fresh = texts(keys.names[len(values) :])
            numbers = np.arange(len(fresh))
            found = part.evaluate(Frame(numbers, numbers, numbers, {name: Column(fresh)}, NO_PROGRESS))
            values = np.concatenate((values, found.values))
            present = np.concatenate((present, found.known()))
        return Column(values[frame.key], present[frame.key] if part.optional else None)

    return Part(part.kind, part.optional, evaluate, None, part.nan, part.warns)
