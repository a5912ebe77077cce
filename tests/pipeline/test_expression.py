"""Expressions give what a plain evaluator gives, row by row, and nothing can get out of them."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.component import Operator, OperatorContext
from pipeline.expression import Expression, ExpressionError, compile_expression, constant
from pipeline.frame import DTYPES, SECOND, Field, Frame, KeyTable, Progress, Schema, column
from pipeline.functions import FUNCTIONS
from pipeline.graph import Edge
from pipeline.text_functions import _REMEMBERED, _Answers

SCHEMA = Schema(
    "id",
    {
        "x": Field("float"),
        "y": Field("float", True),
        "v": Field("float", True, nan=True),
        "n": Field("int"),
        "m": Field("int", True),
        "b": Field("bool"),
        "c": Field("bool", True),
        "s": Field("string"),
        "t": Field("string", True),
        "start": Field("time", True),
    },
)
CLOCK = 10 * SECOND
Row = dict[str, Any]


def frame(rows: list[Row], keys: KeyTable) -> Frame:
    n = len(rows)
    seq = np.arange(n)
    columns = {name: column(f.kind, [row[name] for row in rows]) for name, f in SCHEMA.fields.items()}
    for col in columns.values():
        col.values.flags.writeable = False
    progress = Progress(seq, seq, 0, 0, CLOCK, n)
    return Frame(
        np.array([r["time"] for r in rows], np.int64), keys.codes([row["id"] for row in rows]), seq, columns, progress
    )


class Node:
    """What an operator would be given: an expression with a memory of its own."""

    def __init__(self, text: str, keys: KeyTable) -> None:
        self.context = OperatorContext("node", SCHEMA, keys)
        self.expression: Expression = self.context.expression(text, "where")
        assert not self.context.problems, self.context.problems

    def __call__(self, frame: Frame, *, done: bool = True) -> list[Any]:
        for state in self.context.states.values():
            state.grow(len(self.context.keys))
        found = self.expression(frame)
        self.context.settle(done=done)
        return found.tolist()


def evaluate(text: str, rows: list[Row]) -> list[Any]:
    keys = KeyTable()
    return Node(text, keys)(frame(rows, keys))


floats = st.floats(-1e6, 1e6).map(lambda v: round(v, 3)) | st.sampled_from([0.0, 1e308, -1e308, 5e-324, 2.0**53])
ints = st.integers(-1000, 1000) | st.sampled_from([2**63 - 1, -(2**63), 2**62, 3_037_000_500, 2**53 + 1])
words = st.sampled_from(["", "a", "ab", "open", " Shut\t", "ß"])
rows = st.lists(
    st.fixed_dictionaries(
        {
            "time": st.integers(0, 2 * 10**18),
            "x": floats,
            "y": st.none() | floats,
            "v": st.none() | st.just(math.nan) | floats,
            "n": ints,
            "m": st.none() | ints,
            "b": st.booleans(),
            "c": st.none() | st.booleans(),
            "s": words,
            "t": st.none() | words,
            "start": st.none() | st.integers(-(2**62), 2**62),
            "id": st.sampled_from(["a", "b", " Shut"]),
        }
    ),
    min_size=1,
    max_size=8,
)


def told(some: list[Row]) -> list[Row]:
    """Each row knows the one of its key before it: that is all that the oracle needs to remember."""
    last: dict[str, Row] = {}
    found = []
    for row in some:
        found.append({**row, "before": last.get(row["id"])})
        last[row["id"]] = found[-1]
    return found


rows = rows.map(told)

# --- the oracle: a generated expression is its text, its kind, and a function of one row; None is missing and unknown ---


class Made(NamedTuple):
    text: str
    kind: str
    of: Callable[[Row], Any]


def lifted(kind: str, text: str, function: Callable[..., Any], *parts: Made) -> Made:
    """A function of the values of the parts; missing if one is, or if it is not defined for them."""

    def run(row: Row) -> Any:
        values = [part.of(row) for part in parts]
        if None in values:
            return None
        try:
            result = function(*values)
        except (ZeroDivisionError, OverflowError, ValueError):
            return None
        if kind == "int":
            return result if -(2**63) <= result < 2**63 else None
        if kind == "float":
            result = float(result)
            from_nan = math.isnan(result) and any(v != v for v in values)
            return result if from_nan or math.isfinite(result) else None
        return result

    return Made(text, kind, run)


def mixed(function: Callable[..., Any], *parts: Made) -> Callable[..., Any]:
    """Where a float is among them, whole numbers are floats, too."""
    if all(p.kind == "int" for p in parts):
        return function
    return lambda *values: function(*(float(v) for v in values))


def field(name: str) -> Made:
    kind = "string" if name == "id" else SCHEMA.fields[name].kind
    return Made(name, kind, lambda row: row[name])


def value(kind: str, v: Any) -> Made:
    return Made(f"({v})" if kind in ("int", "float") else repr(v), kind, lambda _: v)


def joined(a: Made, sign: str, b: Made) -> Made:
    wins = sign == "or"

    def run(row: Row) -> Any:
        values = [a.of(row), b.of(row)]
        return wins if wins in values else None if None in values else not wins

    return Made(f"({a.text} {sign} {b.text})", "bool", run)


def chosen(test: Made, a: Made, b: Made) -> Made:
    kind = "int" if a.kind == b.kind == "int" else "float"

    def run(row: Row) -> Any:
        held = test.of(row)
        found = None if held is None else a.of(row) if held else b.of(row)
        return float(found) if kind == "float" and found is not None else found

    return Made(f"({a.text} if {test.text} else {b.text})", kind, run)


def half(test: Made, a: Made, first: bool) -> Made:
    """One side of an `if` is missing."""
    nothing = Made("missing", a.kind, lambda _: None)

    def run(row: Row) -> Any:
        return a.of(row) if test.of(row) is first else None

    two = (a, nothing) if first else (nothing, a)
    return Made(f"({two[0].text} if {test.text} else {two[1].text})", a.kind, run)


def coalesced(a: Made, b: Made) -> Made:
    made = chosen(Made("", "bool", lambda row: a.of(row) is not None), a, b)
    return made._replace(text=f"coalesce({a.text}, {b.text})")


def calculated(a: Made, sign: str, b: Made) -> Made:
    kind = "int" if sign != "/" and a.kind == b.kind == "int" else "float"
    function = ARITHMETIC[sign] if kind == "int" else lambda x, y: ARITHMETIC[sign](float(x), float(y))
    return lifted(kind, f"({a.text} {sign} {b.text})", function, a, b)


def compared(a: Made, sign: str, b: Made) -> Made:
    function = COMPARE[sign] if a.kind == "string" else mixed(COMPARE[sign], a, b)
    return lifted("bool", f"({a.text} {sign} {b.text})", function, a, b)


def chained(a: Made, first: str, b: Made, second: str, c: Made) -> Made:
    one, two = compared(a, first, b), compared(b, second, c)
    return joined(one, "and", two)._replace(text=f"({a.text} {first} {b.text} {second} {c.text})")


def extreme(name: str, a: Made, b: Made) -> Made:
    kind = "int" if a.kind == b.kind == "int" else "float"

    def pick(x: Any, y: Any) -> Any:
        return x + y if x != x or y != y else (min if name == "min" else max)(x, y)

    return lifted(kind, f"{name}({a.text}, {b.text})", mixed(pick, a, b), a, b)


def clipped(a: Made, low: Made, high: Made) -> Made:
    """Never below the first bound; then never above the second, if they are the wrong way round."""
    return extreme("min", extreme("max", a, low), high)._replace(text=f"clip({a.text}, {low.text}, {high.text})")


def rounded(x: float) -> float:
    """As by numpy: scaled, to the nearest whole number, and back; NaN as it is."""
    return round(x * 100) / 100 if abs(x) < 2**52 else x


def previous(a: Made) -> Made:
    return Made(f"previous({a.text})", a.kind, lambda row: None if row["before"] is None else a.of(row["before"]))


def latest(a: Made) -> Made:
    def run(row: Row | None) -> Any:
        while row is not None and a.of(row) is None:
            row = row["before"]
        return None if row is None else a.of(row)

    return Made(f"latest({a.text})", a.kind, run)


def elapsed(row: Row) -> Any:
    return None if row["before"] is None else (row["time"] - row["before"]["time"]) / SECOND


def of_day(name: str, read: Callable[[datetime], int]) -> st.SearchStrategy[Made]:
    """`hour(start, "Asia/Kathmandu")` and the like, by the standard library's calendar."""

    def made(field_name: str, zone: str) -> Made:
        text = ", ".join(part for part in (field_name, zone and f"'{zone}'") if part)
        where = ZoneInfo(zone or "UTC")

        def run(row: Row) -> Any:
            ns = row[field_name or "time"]
            return None if ns is None else read(datetime.fromtimestamp(ns // SECOND, where))

        return Made(f"{name}({text})", "int", run)

    zones = ["", "Asia/Kathmandu", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns"]
    return st.builds(made, st.sampled_from(["", "time", "start"]), st.sampled_from(zones))


def as_text(v: Any) -> str:
    return str(v).lower() if isinstance(v, bool) else repr(v)


def call(name: str, kind: str, function: Callable[..., Any], more: str = "") -> Callable[..., Made]:
    return lambda *parts: lifted(kind, f"{name}({', '.join(p.text for p in parts)}{more})", function, *parts)


def float_call(name: str, function: Callable[[float], Any], more: str = "") -> Callable[[Made], Made]:
    return call(name, "float", lambda x: x if math.isnan(x) else function(float(x)), more)


ARITHMETIC = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
LISTS = ["(1, 2.5, -7)", "[0, 1000]", "(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)"]
signs = st.sampled_from(list(COMPARE))

ints_only = st.sampled_from(["n", "m"]).map(field)
NUMBERS = {"12": 12.0, " -7.5e3 ": -7500.0, "9" * 25: float("9" * 25)}
WHOLE = {"12": 12, "-7 ": -7}

numbers: st.SearchStrategy[Made] = st.deferred(
    lambda: st.one_of(
        st.sampled_from(["x", "y", "v", "n", "m"]).map(field),
        st.integers(-9, 9).map(lambda v: value("int", v)),
        st.sampled_from([0.5, 2.25, -3.75]).map(lambda v: value("float", v)),
        st.builds(calculated, numbers, st.sampled_from(list(ARITHMETIC)), numbers),
        st.builds(extreme, st.sampled_from(["min", "max"]), numbers, numbers),
        st.builds(chosen, truths, numbers, numbers),
        st.builds(half, truths, numbers, st.booleans()),
        st.builds(coalesced, numbers, numbers),
        numbers.map(lambda a: lifted(a.kind, f"(-{a.text})", operator.neg, a)),
        numbers.map(lambda a: lifted(a.kind, f"abs({a.text})", abs, a)),
        numbers.map(float_call("sqrt", math.sqrt)),
        numbers.map(float_call("floor", lambda x: float(math.floor(x)))),
        numbers.map(float_call("ceil", lambda x: float(math.ceil(x)))),
        numbers.map(float_call("round", lambda x: float(round(x)))),
        numbers.map(float_call("round", rounded, ", 2")),
        st.just(field("start")).map(call("age", "float", lambda t: (CLOCK - t) / SECOND)),
        of_day("minute", lambda t: t.minute),
        of_day("hour", lambda t: t.hour),
        of_day("weekday", lambda t: t.weekday()),
        of_day("day", lambda t: t.day),
        of_day("month", lambda t: t.month),
        of_day("year", lambda t: t.year),
        st.builds(clipped, numbers, numbers, numbers),
        numbers.map(lambda a: lifted(a.kind, f"sign({a.text})", lambda v: v if v != v else (v > 0) - (v < 0), a)),
        st.builds(lambda a, n: lifted("int", f"{a.text} ** {n}", lambda v: v**n, a), ints_only, st.integers(0, 9)),
        texts.map(call("length", "int", len)),
        (numbers | truths).map(lambda a: lifted("float", f"float({a.text})", float, a)),
        (numbers | truths).map(lambda a: lifted("int", f"int({a.text})", int, a)),
        st.sampled_from(["12", " -7.5e3 ", "9" * 25, "1_0", "nan", "0x1", "", "٣"]).map(
            lambda v: Made(f"float({v!r} if b else s)", "float", lambda r: NUMBERS.get(v) if r["b"] else None)
        ),
        st.sampled_from(["12", "-7 ", "7.5", "9" * 25, "1_0", ""]).map(
            lambda v: Made(f"int({v!r} if b else s)", "int", lambda r: WHOLE.get(v) if r["b"] else None)
        ),
        numbers.map(previous),
        numbers.map(latest),
        st.just(Made("elapsed()", "float", elapsed)),
    )
)
texts: st.SearchStrategy[Made] = st.deferred(
    lambda: st.one_of(
        st.sampled_from(["s", "t", "id"]).map(field),
        words.map(lambda v: value("string", v)),
        texts.map(call("upper", "string", str.upper)),
        texts.map(call("lower", "string", str.lower)),
        texts.map(call("trim", "string", str.strip)),
        (numbers | truths).map(call("string", "string", as_text)),
        texts.map(previous),
        texts.map(latest),
    )
)
truths: st.SearchStrategy[Made] = st.deferred(
    lambda: st.one_of(
        st.sampled_from(["b", "c"]).map(field),
        truths.map(previous),
        truths.map(latest),
        st.sampled_from([Made("true", "bool", lambda _: True), Made("False", "bool", lambda _: False)]),
        st.builds(compared, numbers, signs, numbers),
        st.builds(compared, texts, signs, texts),
        st.builds(half, truths, truths, st.booleans()),
        st.builds(chained, numbers, signs, numbers, signs, numbers),
        st.builds(joined, truths, st.sampled_from(["and", "or"]), truths),
        truths.map(lambda a: lifted("bool", f"(not {a.text})", operator.not_, a)),
        (numbers | texts | truths).map(lambda a: Made(f"is_missing({a.text})", "bool", lambda r: a.of(r) is None)),
        st.builds(call("contains", "bool", operator.contains), texts, texts),
        st.builds(call("startswith", "bool", str.startswith), texts, texts),
        st.builds(call("endswith", "bool", str.endswith), texts, texts),
        texts.map(call("matches", "bool", lambda a: re.search("^[aop]+b?", a) is not None, ", '^[aop]+b?'")),
        texts.map(lambda a: lifted("bool", f"({a.text} in ('a', 'open'))", lambda v: v in ("a", "open"), a)),
        st.builds(
            lambda a, some: lifted("bool", f"({a.text} not in {some})", lambda v: float(v) not in eval(some), a),
            numbers,
            st.sampled_from(LISTS),
        ),
    )
)


def same(got: Any, want: Any) -> bool:
    if isinstance(want, float) and isinstance(got, float):
        return got == want or (math.isnan(got) and math.isnan(want))
    return type(got) is type(want) and got == want


made = numbers | truths | texts
MOST = 1_000  # characters of an expression: the compiler takes no boundless ones


plain = st.sampled_from(["y", "m", "c", "t", "n", "s", "start"]).map(field) | st.builds(
    joined, st.sampled_from(["b", "c"]).map(field), st.sampled_from(["and", "or"]), st.just(field("c"))
)
earlier: st.SearchStrategy[Made] = st.deferred(
    lambda: (plain | earlier).map(previous) | (plain | earlier).map(latest)  # of one or of the other, nested too
)


@settings(max_examples=300, deadline=None)
@given(made | earlier, rows)
def test_any_expression_gives_what_a_plain_evaluator_gives(made: Made, some: list[Row]) -> None:
    """To the last bit: missing is missing, unknown is unknown, what is not defined is missing, NaN is NaN."""
    assume(len(made.text) < MOST)
    keys = KeyTable()
    whole = frame(some, keys)
    node = Node(made.text, keys)
    expression = node.expression
    assert expression.kind == made.kind
    found = expression(whole)
    for got, row in zip(found.tolist(), some, strict=True):
        want = made.of(row)
        assert same(got, want), (made.text, row, got, want)
        assert got is not None or expression.optional, f"{made.text} is said to be never missing"
        assert got == got or expression.nan, f"{made.text} is said to be never NaN"
    assert found.values.dtype == DTYPES[made.kind]
    if found.present is not None:
        assert not found.values[~found.present].any(), "zeros lie under missing values"
    if made.kind == "bool":
        assert expression.holds(whole).tolist() == [made.of(row) is True for row in some]


@settings(max_examples=200, deadline=None)
@given(made | earlier, rows, st.lists(st.integers(0, 8), max_size=3), st.booleans())
def test_how_rows_are_cut_into_frames_changes_nothing(
    made: Made, some: list[Row], at: list[int], stumbles: bool
) -> None:
    """Nor does a Frame that failed and comes again in parts, nor a restart between two of them; nor one that its operator
    takes in parts."""
    assume(len(made.text) < MOST)
    keys = KeyTable()
    whole = frame(some, keys)
    want = Node(made.text, keys)(whole)
    cuts = sorted({0, len(some), *(min(cut, len(some)) for cut in at)})
    node, found = Node(made.text, keys), []
    for start, end in [*pairwise(cuts), (len(some), len(some))]:
        if stumbles:
            node.expression(whole.take(slice(start, start + 2)))
            node(whole.take(slice(start + 2, None)), done=False)
        found += node(whole.take(slice(start, end)))
        again = Node(made.text, keys)
        Operator(None, again.context).restore(Operator(None, node.context).snapshot())
        node = again
    assert repr(found) == repr(want)
    parts = Node(made.text, keys)
    halves = [parts.expression(whole.take(slice(start, end))).tolist() for start, end in pairwise(cuts)]
    assert repr([value for half in halves for value in half]) == repr(want)
    assert node.expression(whole.none()).values.dtype == DTYPES[made.kind]


ROW: Row = {
    "x": 2.5,
    "y": None,
    "v": math.nan,
    "n": -7,
    "m": 3,
    "b": True,
    "c": None,
    "s": "Open",
    "t": None,
    "start": 90 * SECOND,
    "id": "b",
    "time": 0,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n // 2", -4),
        ("n % 3", 2),
        ("n // 0", None),
        ("2 ** 3", 8),
        ("x ** 2", 6.25),
        ("n ** 2", 49),
        ("n ** 22", 3909821048582988049),
        ("n ** 23", None),
        ("n ** -1", -1 / 7),
        ("n ** 0.5", None),
        ("2 < x < 3", True),
        ("2 < x < y", None),
        ("3 < x < y", False),
        ("x > 100 and y > 1", False),
        ("y > 1 or b", True),
        ("not y > 1", None),
        ("true", True),
        ("True and b == true", True),
        ("lower(s)", "open"),
        ("upper(s) == 'OPEN'", True),
        ("matches(s, '^O.e')", True),
        (r"matches(s, '^\w{4}$')", True),
        ("coalesce(y, x)", 2.5),
        ("coalesce(y, y)", None),
        ("coalesce(y, n)", -7.0),
        ("clip(x, 0, 1)", 1.0),
        ("clip(n, -2, 2)", -2),
        ("round(x * 1.111, 2)", 2.78),
        ("round(x)", 2.0),
        ("exp(1000)", None),
        ("exp(1)", math.e),
        ("log(x)", math.log(2.5)),
        ("log(-1)", None),
        ("log(0)", None),
        ("x / 0", None),
        ("9223372036854775807 + n + 8", None),
        ("-9223372036854775808", -(2**63)),
        ("abs(-9223372036854775808)", None),
        ("v + 1", math.nan),
        ("v > 0", False),
        ("v != v", True),
        ("is_missing(v)", False),
        ("is_missing(v / y)", True),
        ("id == 'b'", True),
        ("id", "b"),
        ("hour()", 0),
        ("weekday()", 3),
        ("weekday() == 3 and id in ('a', 'b')", True),
        ("age()", 10.0),
        ("start - time", 90.0),
        ("start > time", True),
        ("start >= '1970-01-01T00:01:30Z'", True),
        ("'1970-01-01' < '1971-01-01' > start", True),
        ("m not in (1, 2)", True),
        ("-m", -3),
        ("log10(1000)", 3.0),
        ("sin(0 * x)", 0.0),
        ("cos(0 * x)", 1.0),
        ("exp(log(x))", 2.5),
        ("float('1e400')", None),
        ("int(x)", 2),
        ("int(-x)", -2),
        ("int(x * 1e30)", None),
        ("int(v)", None),
        ("int(x * 0 + 9223372036854775808.0)", None),
        ("int(x * 0 - 9223372036854775808.0)", -(2**63)),
        ("string(n)", "-7"),
        ("string(b)", "true"),
        ("length('größe')", 5),
        ("hour(start, 'Asia/Kathmandu')", 5),
        ("minute('Asia/Kathmandu')", 30),
        ("year('America/New_York')", 1969),
        ("previous(x)", None),
        ("latest(y)", None),
        ("elapsed()", None),
        ("-(0.0 * x)", -0.0),
        ("x > 1\n  and b  # spread over lines\n", True),
    ],
)
def test_what_it_comes_to(text: str, value: Any) -> None:
    approximate = isinstance(value, float) and not math.isnan(value)
    (got,) = evaluate(text, [ROW])
    assert got == pytest.approx(value) if approximate else same(got, value)
    assert math.copysign(1, got) == math.copysign(1, value) if approximate else True


@pytest.mark.parametrize(
    "text",
    [
        "s.upper()",
        "x.__class__",
        "s[0]",
        "(lambda: 1)()",
        "[v for v in (1, 2)]",
        "{1: 2}",
        "{v: v for v in (1, 2)}",
        "(v for v in (1, 2))",
        "f'{s}'",
        "__import__('os')",
        "eval('1')",
        "x := 3",
        "(x := 3)",
        "await x",
        "(yield x)",
        "x if b",
        "n << 3",
        "n & 3",
        "~n",
        "x is None",
        "print(x)",
        "min(*[1, 2])",
        "min(**{})",
        "round(x, ndigits=2)",
        "round(x, 400)",
        "abs(x)(x)",
        "x ** 1000",
        "9 ** 9 ** 9",
        "s * 1000000000",
        "1" * 400,
        "1e999",
        "0x" + "f" * 3000,
        "-" * 100 + "1",
        "-" * 3900 + "1",
        "[" + "-" * 900 + "1]",
        "x" + ".a" * 1900,
        "x" + "(x)" * 900,
        "(" * 1900 + "x" + ")" * 1900,
        "lambda:" * 500 + "x",
        "x +" * 2000 + " x",
        "x" + " + x" * 60,
        "matches(s, r'(a)\\1')",
        "matches(s, '(?i)a')",
        "matches(s, t)",
        "matches(s, '" + "a" * 201 + "')",
        "b'bytes'",
        "'\\ud800'",
        "1j",
        "None",
        "...",
        "x @ n",
        "x; n",
        "x\n; n",
        "import os",
        "x, n",
        "*x",
        "x in ()",
        "x\0",
        "\ud800",
        "",
    ],
)
def test_nothing_gets_out(text: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        compile_expression(text, SCHEMA, None, KeyTable())
    assert len(str(refused.value)) < 400, "an error that can be read"


def test_logic_has_three_values() -> None:
    """The truth tables of SQL, in full, and of `holds` only what is true."""
    table = [{**ROW, "b": b, "c": c} for b in (True, False) for c in (True, False, None)]
    both, either = [True, False, None, False, False, False], [True, True, True, True, False, None]
    opposite = [False, True, None, False, True, None]
    for text, want in [
        ("b and c", both),
        ("c and b", both),
        ("b or c", either),
        ("c or b", either),
        ("not c", opposite),
    ]:
        keys = KeyTable()
        expression, rows = compile_expression(text, SCHEMA, "bool", keys), frame(table, keys)
        assert expression(rows).tolist() == want
        assert expression.holds(rows).tolist() == [value is True for value in want]


def test_nested_chains_are_worked_out_once() -> None:
    """Of `a < b < c` the middle is compared twice; if it were worked out twice, too, this would take a million years."""
    text = "x"
    for _ in range(20):
        text = f"(1 if 0 < {text} < 3 else 2)"
    assert evaluate(text, [ROW]) == [1]


def test_answers_for_texts_are_remembered_up_to_a_bound() -> None:
    """Texts that come again, more different ones than are remembered, and ones that are too long for it."""
    words = [f"{i}a" if i % 2 else str(i) for i in (*range(5_000), *range(10))] + ["7" * 60, "1" * 300, "1" * 300]
    table = [{**ROW, "s": word} for word in words]
    assert evaluate("matches(s, '^[0-9]+$')", table) == [re.fullmatch("[0-9]+", w) is not None for w in words]
    assert evaluate("endswith(s, 'a')", table) == [w.endswith("a") for w in words]
    assert evaluate("float(s)", table) == [None if "a" in w or len(w) > 100 else float(w) for w in words]
    assert evaluate("int(s)", table) == [None if "a" in w or len(w) > 19 else int(w) for w in words]


def test_what_is_remembered_of_texts_is_bounded() -> None:
    answers = _Answers(len)
    for i in range(2 * _REMEMBERED + 10):
        assert answers[f"text {i}"] == len(f"text {i}")
    assert answers["x" * 1_000] == 1_000
    assert 0 < len(answers) <= _REMEMBERED
    assert max(map(len, answers)) < 20


def test_a_pattern_cannot_be_made_slow() -> None:
    """Python's `re` would be at this until the sun goes out."""
    row = {**ROW, "s": "a" * 5_000}
    assert evaluate("matches(s, '((a|a))*b')", [row]) == [False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("temprature > 1", '"temprature" is not a field of the input; it has id, time, x'),
        ("strt > time", 'did you mean "start"'),
        ("x > 'hot'", '"x" is a number and "\'hot\'" is text: they cannot be compared'),
        ("x == b", "cannot be compared"),
        ("start > 5", "cannot be compared"),
        ("start > 'yesterday'", '"yesterday" is not a time; write it as "2024'),
        ("x and b", "true or false is needed"),
        ("s + s", "a number is needed"),
        ("start + 1", "a number is needed"),
        ("not x", "true or false is needed"),
        ("1 if b else 'a'", "both sides must be of one kind"),
        ("sqr(x)", 'did you mean "sqrt"'),
        ("sqrt()", "takes 1 argument"),
        ("sqrt(s)", "argument 1 of sqrt() is string; it takes float or int"),
        ("min(x)", "at least two"),
        ("'a' in s", "contains()"),
        ("x in (1, 'a')", "compared with a number"),
        ("x in (n, 1)", "must be a plain value"),
        ("0 < x in (1, 2)", "`in` compares alone"),
        ("x = 3", '(did you mean "=="?)'),
        ("b && c", '(did you mean "and"?)'),
        ("b || c", '(did you mean "or"?)'),
        ("b & c", "(did you mean `and`?)"),
        ("x == None", "is_missing(x)"),
        ("99999999999999999999 > x", "beyond 64 bits"),
        ("matches(s, '(a')", 'a "(" is never closed'),
        ("strlen(s) > 3", 'did you mean "length"'),
        ("day_of_week()", 'did you mean "weekday"'),
        ("lag(x)", 'did you mean "previous"'),
        (
            "previous(x)",
            "previous() looks at earlier readings, which cannot be done here; set a field to it in a derive",
        ),
        ("hour(x)", "argument 1 of hour() is float; it takes time"),
        ("hour(start, s)", "the time zone of hour() must be plain text"),
        ("hour('Europe/Berln')", '"Europe/Berln" is not a time zone (did you mean "Europe/Berlin"?)'),
        ("age('UTC')", "age() takes 1 argument"),
    ],
)
def test_errors_name_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(said)):
        compile_expression(text, SCHEMA, None, KeyTable())


def test_the_wrong_kind_of_result() -> None:
    with pytest.raises(ExpressionError, match=r'"x \+ 1" gives a number; true or false is needed'):
        compile_expression("x + 1", SCHEMA, "bool")


def test_it_knows_what_it_reads() -> None:
    text = "x > 1 and id == 'a' and hour() > 3 and not is_missing(coalesce(y, x))"
    assert compile_expression(text, SCHEMA, None, KeyTable()).names == ("x", "id", "time", "y")


def test_names_as_people_write_them() -> None:
    """Python reads the micro sign as the Greek letter."""
    schema = Schema(None, {"µg": Field("float"), "größe": Field("float")})
    assert compile_expression("µg + größe", schema).names == ("µg", "größe")


def test_what_reads_only_the_key_follows_new_keys() -> None:
    """Such a part is worked out once a key, also for keys that come later."""
    keys = KeyTable()
    expression = compile_expression("upper(id) if id in ('b', 'c') else lower('X')", SCHEMA, None, keys)
    first = frame([{**ROW, "id": name} for name in "aba"], keys)
    assert expression(first).tolist() == ["x", "B", "x"]
    second = frame([{**ROW, "id": name} for name in "cda"], keys)
    assert expression(second).tolist() == ["C", "x", "x"]
    assert expression(first).tolist() == ["x", "B", "x"]
    assert Node("previous(id)", keys)(first) == [None, None, "a"], "earlier readings are more than the key"
    dated = frame([{**ROW, "id": "2023", "time": 1_700_000_000 * SECOND}], keys)
    assert Node("string(year('UTC')) == id", keys)(dated) == [True], "and so is the time"
    odd = compile_expression("1 / (0 if id == 'a' else 2)", SCHEMA, None, keys)
    assert odd(first).tolist() == [None, 0.5, None]


def remembered(text: str) -> int:
    """Bytes a key in the state of an expression of these rows' keys."""
    keys = KeyTable()
    node = Node(text, keys)
    rows = [{**ROW, "id": f"sensor-{i}"} for i in range(100)]
    node(frame(rows, keys))
    snapshot = Operator(None, node.context).snapshot()
    return sum(array.nbytes for array in snapshot.values()) // 100


def test_what_is_remembered() -> None:
    """9 bytes a key for each function of earlier readings, the same one twice being one; else nothing."""
    assert remembered("x > 1 and hour() > 3") == 0
    assert remembered("x - previous(x) > 5 or previous(x) > 10") == 9
    assert remembered("previous(previous(x)) > 5") == 18
    assert remembered("elapsed() + elapsed() > 5") == 9


def test_one_expression_does_not_move_the_memory_of_another() -> None:
    """Two that read the same in one operator each have their own, though only one of them is asked."""
    keys = KeyTable()
    context = OperatorContext("node", SCHEMA, keys)
    one, two = context.expression("previous(n)", "set"), context.expression("previous(n)", "set")
    first, second, third = (frame([{**ROW, "n": n}], keys) for n in (1, 2, 3))
    found = []
    for given_to, rows in [((one, two), first), ((one,), second), ((one, two), third)]:
        for state in context.states.values():
            state.grow(len(keys))
        found.append([e(rows).tolist() for e in given_to])
        context.settle(done=True)
    assert found == [[[None], [None]], [[1]], [[2], [1]]]
    assert len(context.states) == 4


def test_a_frame_that_failed_leaves_no_trace() -> None:
    keys = KeyTable()
    node = Node("previous(n)", keys)
    first, second = (frame([{**ROW, "n": n}], keys) for n in (1, 2))
    assert node(first) == [None]
    assert node(second, done=False) == [1]
    node.context.settle(done=True)
    assert node(second) == [1]
    assert node(first) == [2]


def test_a_frame_in_parts_leaves_no_trace_if_the_last_fails() -> None:
    """Nor does it come back when a later Frame fails."""
    keys = KeyTable()
    node = Node("previous(n)", keys)
    whole = frame([{**ROW, "n": n} for n in (1, 2, 3, 4)], keys)
    parts = [whole.take(slice(i, i + 1)) for i in range(4)]
    for part in parts[:2]:
        node.context.states["where 0: 0 value"].grow(1)
        node.context.states["where 0: 0 known"].grow(1)
        node.expression(part)
    assert node(parts[2], done=False) == [2]
    assert [node.expression(part).tolist() for part in parts[:2]] == [[None], [1]]
    assert node(parts[2]) == [2]
    assert node(parts[3], done=False) == [3]
    assert node(parts[3]) == [3]


class Fails(Operator):
    """Cannot take a reading whose n is 13; what it was before goes on beside the others."""

    def __init__(self, settings: Any, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.before = context.expression("previous(n)", "where")
        self.came: list[Any] = []

    def on_frame(self, frame: Frame) -> Frame:
        before = self.before(frame).tolist()
        if 13 in frame["n"].tolist():
            raise ValueError("13")
        self.came += before
        return frame


def test_in_the_graph_a_reading_that_fails_is_not_remembered() -> None:
    """The Frame comes again in halves, of which some fail, too: each reading is remembered once, and in its place."""
    keys = KeyTable()
    operator = Fails(None, OperatorContext("node", SCHEMA, keys))
    aside: list[int] = []
    edge = Edge("node", operator, lambda guilty: aside.extend(guilty.rows["n"].tolist()))
    edge.on_next(frame([{**ROW, "n": n} for n in (1, 2, 13, 4, 5, 13, 13)], keys))
    edge.on_next(frame([{**ROW, "n": n} for n in (6,)], keys))
    assert aside == [13, 13, 13]
    assert operator.came == [None, 1, 2, 4, 5]


def test_every_function_is_in_the_docs() -> None:
    """docs/expressions.md names each as it is called, and each call there can be compiled."""
    text = (Path(__file__).parents[2] / "docs" / "expressions.md").read_text()
    table = [row.split(" | ")[0] for row in text.splitlines() if row.startswith("| `")]
    calls = [code for row in table for code in re.findall("`([^`]+)`", row)]
    for call in calls:
        Node(call.replace("(t)", "(start)"), KeyTable())
    assert {call.partition("(")[0] for call in calls} == set(FUNCTIONS)


def test_one_side_of_an_if_may_be_missing() -> None:
    """Hysteresis in one line: between the limits nothing is said. Elsewhere the word is a mistake, with the way out."""
    readings = frame([ROW | {"x": x} for x in (20.0, 26.0, 30.0)], KeyTable())
    on = compile_expression("true if x > 28 else false if x < 25 else missing", SCHEMA)
    assert (on.kind, on.optional, on(readings).tolist()) == ("bool", True, [False, None, True])
    for wrong in ("x == missing", "missing", "missing if x > 1 else missing", "null if x > 1 else x", "x is None"):
        with pytest.raises(ExpressionError, match=r"is_missing\(x\)"):
            compile_expression(wrong, SCHEMA)
    named = Schema("id", {"missing": Field("float")})
    assert not compile_expression("1.0 if true else missing", named).optional, "a field of that name is the field"


def test_a_constant_is_always_missing() -> None:
    two = frame([ROW, ROW], KeyTable())
    assert constant("string")(two).tolist() == [None, None]
    assert constant("bool").holds(two).tolist() == [False, False]
