"""The language of `where`, `when`, `aggregate` and `message`: parsed, type-checked, compiled to numpy.

A text becomes a Python syntax tree, of which only the listed nodes are let in; the tree becomes a tree of closures over
columns. Nothing else of Python can be reached: no attributes, no subscripts, no calls but the listed functions
(`functions.py`), and every size (text, nesting, powers) is bounded.

Missing values: a result is missing where what it is made of is missing or where it is not defined (x / 0, the log of a
negative number, a whole number beyond 64 bits). A comparison with a missing value is unknown; `and`, `or` and `not` treat
unknown as SQL does. NaN is a value, and only comes of a field that may hold it.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipeline import functions
from pipeline.frame import DTYPES, Array, Bools, Column, Frame, KeyTable, Schema
from pipeline.functions import NUMBERS, Part
from pipeline.functions import ExpressionError as ExpressionError  # the one that compile_expression raises
from pipeline.problem import did_you_mean

MAX_TEXT = 4_000  # characters
MAX_DEPTH = 50  # nested parts
MAX_POWER = 64  # literal exponents


class Expression:
    """A compiled expression. Called with a Frame it gives a Column; `holds` gives where it is known to be true."""

    def __init__(self, text: str, part: Part, names: Sequence[str]) -> None:
        self.text = text
        self.kind = part.kind
        self.optional = part.optional
        self.nan = part.nan
        self.names = tuple(names)  # what it reads: fields, the key's name, "time"
        self._evaluate = part.evaluate

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def __call__(self, frame: Frame) -> Column:
        values, present = self._evaluate(frame)
        if present is None or present.all():
            return Column(values)
        return Column(np.where(present, values, functions.zeros(self.kind, len(values))), present)

    def holds(self, frame: Frame) -> Bools:
        """True where it is true; false and unknown are False."""
        values, present = self._evaluate(frame)
        return values if present is None else values & present


def compile_expression(text: str, schema: Schema, want: str | None = None, keys: KeyTable | None = None) -> Expression:
    """The expression of a text over the fields of a schema. ExpressionError says what is wrong with it.

    `want`: the kind that it must give ("bool", "string"; "float" takes any number). `keys` is needed where the key is named.
    """
    if len(text) > MAX_TEXT:
        raise ExpressionError(f"an expression may have at most {MAX_TEXT:,} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it cannot be read"
        raise ExpressionError(f'"{text}" is not an expression: {reason}') from None
    compiler = _Compiler(schema, keys)
    part = compiler.compile(tree.body, 0)
    if want and part.kind != want and not (want == "float" and part.kind in NUMBERS):
        raise ExpressionError(f'"{text}" gives {_a(part.kind)}; {_a(want)} is needed here')
    return Expression(text, part, compiler.names)


def constant(kind: str) -> Expression:
    """An expression that is always missing: what stands in for one that could not be compiled."""

    def evaluate(frame: Frame) -> Column:
        n = len(frame)
        return Column(functions.zeros(kind, n), np.zeros(n, np.bool_))

    return Expression("", Part(kind, True, evaluate), ())


def _a(kind: str) -> str:
    return {"float": "a number", "int": "a whole number", "bool": "true or false", "string": "text", "time": "a time"}[
        kind
    ]


def _both(a: Bools | None, b: Bools | None) -> Bools | None:
    if a is None:
        return b
    return a if b is None else a & b


_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_MIRRORED = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE, ast.Eq: ast.Eq, ast.NotEq: ast.NotEq}
_CONSTANTS = {"true": True, "false": False}


class _Compiler:
    def __init__(self, schema: Schema, keys: KeyTable | None) -> None:
        self.schema = schema
        self.keys = keys
        self.names: list[str] = []

    def compile(self, node: ast.AST, depth: int) -> Part:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"an expression may be nested at most {MAX_DEPTH} deep")
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise ExpressionError(f'"{ast.unparse(node)}" is not allowed in an expression')
        part: Part = method(node, depth + 1)
        return part

    # --- leaves ---

    def _constant(self, node: ast.Constant, _: int) -> Part:
        value = node.value
        if isinstance(value, bool):
            kind = "bool"
        elif isinstance(value, int):
            if abs(value) >= 2**63:
                raise ExpressionError(f"{value} is beyond 64 bits")
            kind = "int"
        elif isinstance(value, float):
            if not np.isfinite(value):
                raise ExpressionError("a number is too large")
            kind = "float"
        elif isinstance(value, str):
            kind = "string"
        else:
            raise ExpressionError(f'"{ast.unparse(node)}" is not allowed in an expression')
        return _literal(kind, value)

    def _name(self, node: ast.Name, _: int) -> Part:
        name = node.id
        if name in self.schema.fields:
            self._read(name)
            field = self.schema.fields[name]
            return Part(field.kind, field.optional, lambda frame: frame.columns[name], nan=field.nan)
        if name == self.schema.key and self.keys is not None:
            self._read(name)
            names = self.keys.names
            return Part("string", False, lambda frame: Column(functions.texts([names[c] for c in frame.key.tolist()])))
        if name == "time":
            self._read(name)
            return Part("time", False, lambda frame: Column(frame.time))
        if name in _CONSTANTS:
            return _literal("bool", _CONSTANTS[name])
        known = self.schema.names()
        raise ExpressionError(
            f'"{name}" is not a field of the input{did_you_mean(name, known)}; it has {", ".join(known)}'
        )

    def _read(self, name: str) -> None:
        if name not in self.names:
            self.names.append(name)

    # --- logic ---

    def _boolop(self, node: ast.BoolOp, depth: int) -> Part:
        parts = [self._needs(value, "bool", depth) for value in node.values]
        combine = _and if isinstance(node.op, ast.And) else _or
        result = parts[0]
        for part in parts[1:]:
            result = _lift2(combine, result, part)
        return result

    def _needs(self, node: ast.AST, kind: str, depth: int) -> Part:
        part = self.compile(node, depth)
        if part.kind != kind:
            raise ExpressionError(f'"{ast.unparse(node)}" is {_a(part.kind)}; {_a(kind)} is needed')
        return part

    def _ifexp(self, node: ast.IfExp, depth: int) -> Part:
        test = self._needs(node.test, "bool", depth)
        yes, no = self.compile(node.body, depth), self.compile(node.orelse, depth)
        kind = _common(yes, no, ast.unparse(node))
        return functions.choose(test, yes, no, kind)

    # --- comparison ---

    def _compare(self, node: ast.Compare, depth: int) -> Part:
        result: Part | None = None
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            membership = isinstance(op, ast.In | ast.NotIn)
            one = (self._membership if membership else self._one)(op, left, right, depth)
            result = one if result is None else _lift2(_and, result, one)
            left = right
        assert result is not None
        return result

    def _one(self, op: ast.cmpop, left: ast.AST, right: ast.AST, depth: int) -> Part:
        compare = _COMPARE.get(type(op))
        if compare is None:
            raise ExpressionError("use == and != to compare; `is` is not allowed in an expression")
        a, b = self.compile(left, depth), self.compile(right, depth)
        if a.kind != b.kind and not (a.kind in NUMBERS and b.kind in NUMBERS):
            shown = f'"{ast.unparse(left)}" is {_a(a.kind)} and "{ast.unparse(right)}" is {_a(b.kind)}'
            raise ExpressionError(f"{shown}: they cannot be compared")
        if a.literal is not None and b.literal is None:
            return _compare_literal(_COMPARE[_MIRRORED[type(op)]], b, a.literal)
        if b.literal is not None:
            return _compare_literal(compare, a, b.literal)
        return _lift2(lambda x, y: _compared(compare, x, y), a, b)

    def _membership(self, op: ast.cmpop, left: ast.AST, right: ast.AST, depth: int) -> Part:
        value = self.compile(left, depth)
        if not isinstance(right, ast.Tuple | ast.List | ast.Set):
            raise ExpressionError(
                'after `in` comes a list of values: in ("open", "shut"); for a part of a text use contains()'
            )
        items = [self.compile(item, depth) for item in right.elts]
        for item, source in zip(items, right.elts, strict=True):
            if item.literal is None:
                raise ExpressionError(f'"{ast.unparse(source)}" in a list after `in` must be a plain value')
            if item.kind != value.kind and not (item.kind in NUMBERS and value.kind in NUMBERS):
                raise ExpressionError(
                    f'"{ast.unparse(source)}" is {_a(item.kind)}; the list is compared with {_a(value.kind)}'
                )
        literals = [item.literal for item in items]
        inverse = isinstance(op, ast.NotIn)

        def member(x: Column) -> Column:
            found = np.isin(x.values, literals) if x.values.dtype != object else functions.among(x.values, literals)
            return Column(~found if inverse else found, x.present)

        return Part("bool", value.optional, lambda frame: member(value.evaluate(frame)))

    # --- arithmetic ---

    def _unaryop(self, node: ast.UnaryOp, depth: int) -> Part:
        if isinstance(node.op, ast.Not):
            part = self._needs(node.operand, "bool", depth)
            return _lift1(lambda x: Column(~x.values, x.present), part)
        part = self._number(node.operand, depth)
        if isinstance(node.op, ast.UAdd):
            return part
        if not isinstance(node.op, ast.USub):
            raise ExpressionError(f'"{ast.unparse(node)}" is not allowed in an expression')
        if part.literal is not None:
            return _literal(part.kind, -part.literal)
        return functions.arithmetic("-", _literal(part.kind, 0), part)

    def _number(self, node: ast.AST, depth: int) -> Part:
        part = self.compile(node, depth)
        if part.kind not in NUMBERS:
            raise ExpressionError(f'"{ast.unparse(node)}" is {_a(part.kind)}; a number is needed')
        return part

    def _binop(self, node: ast.BinOp, depth: int) -> Part:
        sign = functions.SIGNS.get(type(node.op).__name__)
        if sign is None:
            raise ExpressionError(f'"{ast.unparse(node)}" is not allowed in an expression')
        a, b = self._number(node.left, depth), self._number(node.right, depth)
        if sign == "**" and b.literal is not None and abs(b.literal) > MAX_POWER:
            raise ExpressionError(f"a power may be at most {MAX_POWER}")
        return functions.arithmetic(sign, a, b)

    # --- functions ---

    def _call(self, node: ast.Call, depth: int) -> Part:
        if not isinstance(node.func, ast.Name) or node.keywords:
            raise ExpressionError(f'"{ast.unparse(node)}" is not allowed in an expression')
        name = node.func.id
        function = functions.FUNCTIONS.get(name)
        if function is None:
            raise ExpressionError(f'there is no function "{name}"{did_you_mean(name, functions.FUNCTIONS)}')
        parts = [self.compile(argument, depth) for argument in node.args]
        if function.default_time and not parts:
            parts = [Part("time", False, lambda frame: Column(frame.time))]
        return function.build(name, parts)


def _literal(kind: str, value: Any) -> Part:
    def evaluate(frame: Frame) -> Column:
        values: Array = np.full(len(frame), value, DTYPES[kind])
        return Column(values)

    return Part(kind, False, evaluate, value)


def _lift1(function: Callable[[Column], Column], a: Part) -> Part:
    inner = a.evaluate
    return Part("bool", a.optional, lambda frame: function(inner(frame)))


def _lift2(function: Callable[[Column, Column], Column], a: Part, b: Part) -> Part:
    left, right = a.evaluate, b.evaluate
    return Part("bool", a.optional or b.optional, lambda frame: function(left(frame), right(frame)))


def _and(a: Column, b: Column) -> Column:
    """False wins over unknown; a value that is not known is held as False."""
    if a.present is None and b.present is None:
        return Column(a.values & b.values)
    known_a, known_b = a.known(), b.known()
    false = (known_a & ~a.values) | (known_b & ~b.values)
    true = known_a & known_b & a.values & b.values
    return Column(true, true | false)


def _or(a: Column, b: Column) -> Column:
    if a.present is None and b.present is None:
        return Column(a.values | b.values)
    known_a, known_b = a.known(), b.known()
    true = (known_a & a.values) | (known_b & b.values)
    false = known_a & known_b & ~a.values & ~b.values
    return Column(true, true | false)


def _compared(compare: Callable[[Any, Any], Any], a: Column, b: Column) -> Column:
    values = np.asarray(compare(a.values, b.values), np.bool_)
    return Column(values, _both(a.present, b.present))


def _compare_literal(compare: Callable[[Any, Any], Any], a: Part, literal: Any) -> Part:
    inner = a.evaluate
    if a.kind == "string":
        # Object arrays compare item by item and give objects.
        def strings(frame: Frame) -> Column:
            values, present = inner(frame)
            return Column(np.asarray(compare(values, literal), np.bool_), present)

        return Part("bool", a.optional, strings)

    def numbers(frame: Frame) -> Column:
        values, present = inner(frame)
        return Column(compare(values, literal), present)

    return Part("bool", a.optional, numbers)


def _common(a: Part, b: Part, shown: str) -> str:
    if a.kind == b.kind:
        return a.kind
    if a.kind in NUMBERS and b.kind in NUMBERS:
        return "float"
    raise ExpressionError(f'"{shown}" gives {_a(a.kind)} or {_a(b.kind)}: both sides must be of one kind')
