"""Expressions give what a plain evaluator gives, row by row, and nothing can get out of them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.expression import ExpressionError, compile_expression, constant
from pipeline.frame import Field, Frame, KeyTable, Progress, Schema, column

SCHEMA = Schema(
    "id",
    {
        "x": Field("float"),
        "y": Field("float", True),
        "n": Field("int"),
        "m": Field("int", True),
        "b": Field("bool"),
        "c": Field("bool", True),
        "s": Field("string"),
        "t": Field("string", True),
    },
)
KEYS = KeyTable(["a", "b"])
Row = dict[str, Any]


def frame(rows: list[Row]) -> Frame:
    n = len(rows)
    seq = np.arange(n)
    columns = {name: column(f.kind, [row[name] for row in rows]) for name, f in SCHEMA.fields.items()}
    progress = Progress(seq, seq, 0, 0, 10_000_000_000, n)
    return Frame(seq * 1_000_000_000, np.array([KEYS[row["id"]] for row in rows], np.int32), seq, columns, progress)


def evaluate(text: str, rows: list[Row]) -> list[Any]:
    return compile_expression(text, SCHEMA, None, KEYS)(frame(rows)).tolist()


floats = st.floats(-1e6, 1e6).map(lambda v: round(v, 3))
ints = st.integers(-1000, 1000)
words = st.sampled_from(["", "a", "ab", "open", "Shut"])
rows = st.lists(
    st.fixed_dictionaries(
        {
            "x": floats,
            "y": st.none() | floats,
            "n": ints,
            "m": st.none() | ints,
            "b": st.booleans(),
            "c": st.none() | st.booleans(),
            "s": words,
            "t": st.none() | words,
            "id": st.sampled_from(["a", "b"]),
        }
    ),
    min_size=1,
    max_size=6,
)

# --- the oracle: each generated expression is its text, and a function of one row; None is missing and unknown ---

Made = tuple[str, Callable[[Row], Any]]


def lifted(function: Callable[..., Any], *parts: Made) -> Callable[[Row], Any]:
    def run(row: Row) -> Any:
        values = [part[1](row) for part in parts]
        if any(v is None for v in values):
            return None
        try:
            result = function(*values)
        except (ZeroDivisionError, OverflowError, ValueError):
            return None
        if isinstance(result, float) and not math.isfinite(result):
            return None
        return result

    return run


def field(name: str) -> Made:
    return name, lambda row: row[name]


def both(a: Made, b: Made) -> Made:
    def run(row: Row) -> Any:
        values = [a[1](row), b[1](row)]
        return False if False in values else None if None in values else True

    return f"({a[0]} and {b[0]})", run


def either(a: Made, b: Made) -> Made:
    def run(row: Row) -> Any:
        values = [a[1](row), b[1](row)]
        return True if True in values else None if None in values else False

    return f"({a[0]} or {b[0]})", run


def chosen(test: Made, a: Made, b: Made) -> Made:
    def run(row: Row) -> Any:
        held = test[1](row)
        return None if held is None else a[1](row) if held else b[1](row)

    return f"({a[0]} if {test[0]} else {b[0]})", run


def infix(sign: str, function: Callable[..., Any]) -> Callable[[Made, Made], Made]:
    return lambda a, b: (f"({a[0]} {sign} {b[0]})", lifted(function, a, b))


def call(name: str, function: Callable[..., Any]) -> Callable[..., Made]:
    return lambda *parts: (f"{name}({', '.join(p[0] for p in parts)})", lifted(function, *parts))


ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}

numbers: st.SearchStrategy[Made] = st.deferred(
    lambda: st.one_of(
        st.sampled_from(["x", "y", "n", "m"]).map(field),
        st.integers(-9, 9).map(lambda v: (f"({v})", lambda _: v)),
        st.sampled_from([0.5, 2.25, -3.75]).map(lambda v: (f"({v})", lambda _: v)),
        *[st.builds(infix(sign, f), numbers, numbers) for sign, f in ARITHMETIC.items()],
        st.builds(call("abs", abs), numbers),
        st.builds(call("sqrt", math.sqrt), numbers),
        st.builds(call("floor", math.floor), numbers),
        st.builds(call("min", min), numbers, numbers),
        st.builds(call("max", max), numbers, numbers),
        st.builds(chosen, truths, numbers, numbers),
    )
)
texts: st.SearchStrategy[Made] = st.one_of(
    st.sampled_from(["s", "t", "id"]).map(field), words.map(lambda v: (repr(v), lambda _: v))
)
truths: st.SearchStrategy[Made] = st.deferred(
    lambda: st.one_of(
        st.sampled_from(["b", "c"]).map(field),
        *[st.builds(infix(sign, f), numbers, numbers) for sign, f in COMPARE.items()],
        *[st.builds(infix(sign, f), texts, texts) for sign, f in COMPARE.items()],
        st.builds(both, truths, truths),
        st.builds(either, truths, truths),
        st.builds(lambda a: (f"(not {a[0]})", lifted(operator.not_, a)), truths),
        st.builds(lambda a: (f"is_missing({a[0]})", lambda row: a[1](row) is None), numbers | texts),
        st.builds(call("contains", lambda a, b: b in a), texts, texts),
        st.builds(call("startswith", str.startswith), texts, texts),
        st.builds(
            lambda a: (f"({a[0]} in ('a', 'open'))", lifted(lambda v: v in ("a", "open"), a)),
            st.sampled_from(["s", "t"]).map(field),
        ),
    )
)


@settings(max_examples=300, deadline=None)
@given(numbers | truths, rows)
def test_any_expression_gives_what_a_plain_evaluator_gives(made: Made, some: list[Row]) -> None:
    """Missing is missing, unknown is unknown, what is not defined is missing, and numbers agree to the last digits."""
    text, oracle = made
    for got, row in zip(evaluate(text, some), some, strict=True):
        want = oracle(row)
        if want is None or got is None or isinstance(want, bool):
            assert got == want, (text, row)
        else:
            assert math.isclose(got, want, rel_tol=1e-9, abs_tol=1e-9), (text, row)


@settings(max_examples=100, deadline=None)
@given(truths, rows)
def test_holds_is_where_it_is_known_to_be_true(made: Made, some: list[Row]) -> None:
    text, oracle = made
    got = compile_expression(text, SCHEMA, "bool", KEYS).holds(frame(some))
    assert got.tolist() == [oracle(row) is True for row in some]


ROW: Row = {"x": 2.5, "y": None, "n": -7, "m": 3, "b": True, "c": None, "s": "Open", "t": None, "id": "b"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n // 2", -4),
        ("n % 3", 2),
        ("n // 0", None),
        ("2 ** 3", 8),
        ("2 < x < 3", True),
        ("2 < x < y", None),
        ("x > 100 and y > 1", False),
        ("true", True),
        ("lower(s)", "open"),
        ("upper(s) == 'OPEN'", True),
        ("matches(s, '^O.e')", True),
        ("coalesce(y, x)", 2.5),
        ("coalesce(y, y)", None),
        ("clip(x, 0, 1)", 1.0),
        ("round(x * 1.111, 2)", 2.78),
        ("exp(1000)", None),
        ("log(-1)", None),
        ("9223372036854775807 + n + 8", None),
        ("id == 'b'", True),
        ("hour()", 0),
        ("weekday()", 3),
        ("age()", 10.0),
        ("m not in (1, 2)", True),
        ("-m", -3),
    ],
)
def test_what_it_comes_to(text: str, value: Any) -> None:
    assert evaluate(text, [ROW]) == [pytest.approx(value) if isinstance(value, float) else value]


@pytest.mark.parametrize(
    "text",
    [
        "s.upper()",
        "x.__class__",
        "s[0]",
        "(lambda: 1)()",
        "[v for v in (1, 2)]",
        "{1: 2}",
        "f'{s}'",
        "__import__('os')",
        "eval('1')",
        "x := 3",
        "await x",
        "x if b",
        "n << 3",
        "~n",
        "x is None",
        "print(x)",
        "min(*[1, 2])",
        "round(x, ndigits=2)",
        "x ** 1000",
        "1" * 400,
        "-" * 100 + "1",
        "x +" * 2000 + " x",
        "matches(s, '(a+)+b')",
        "matches(s, '(a|a)*b')",
        "matches(s, t)",
        "b'bytes'",
        "1j",
        "None",
        "...",
        "x @ n",
        "x; n",
        "",
    ],
)
def test_nothing_gets_out(text: str) -> None:
    with pytest.raises(ExpressionError):
        compile_expression(text, SCHEMA, None, KEYS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("temprature > 1", '"temprature" is not a field'),
        ("xx > 1", 'did you mean "x"'),
        ("x > 'hot'", "cannot be compared"),
        ("x and b", "true or false is needed"),
        ("s + s", "a number is needed"),
        ("sqr(x)", 'did you mean "sqrt"'),
        ("sqrt()", "takes 1 argument"),
        ("'a' in s", "contains()"),
        ("x in (1, 'a')", "compared with a number"),
    ],
)
def test_errors_name_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ExpressionError, match=said.replace("(", r"\(").replace(")", r"\)")):
        compile_expression(text, SCHEMA, None, KEYS)


def test_the_wrong_kind_of_result() -> None:
    with pytest.raises(ExpressionError, match="true or false is needed"):
        compile_expression("x + 1", SCHEMA, "bool", KEYS)


def test_nan_is_a_value_only_where_it_may_be() -> None:
    schema = Schema(None, {"v": Field("float", nan=True)})
    seq = np.arange(1)
    columns = {"v": column("float", [math.nan])}
    one = Frame(seq, seq.astype(np.int32), seq, columns, Progress(seq, seq, 0, 0, 0, 1))
    assert math.isnan(compile_expression("v + 1", schema)(one).tolist()[0])
    assert compile_expression("v > 0", schema)(one).tolist() == [False]


def test_a_constant_is_always_missing() -> None:
    assert constant("string")(frame([ROW, ROW])).tolist() == [None, None]
