"""The language of `where`, `when`, `aggregate` and `message`: parsed, type-checked, compiled to numpy.

A text becomes a Python syntax tree (`syntax.py`), of which only the listed nodes are let in; the tree becomes a tree of
closures over columns (`parts.py`). Nothing else of Python can be reached: no attributes, no subscripts, no calls but the
listed functions (`functions.py`), and every size (text, nesting, powers, patterns) is bounded.

Missing values: a result is missing where what it is made of is missing or where it is not defined (x / 0, the log of a
negative number, a whole number beyond 64 bits). A comparison with a missing value is unknown; `and`, `or` and `not` treat
unknown as SQL does. NaN is a value, and only comes of a field that may hold it.

Kinds: float, int, bool, string, time; only int and float mix, as floats. `/`, `round`, `floor` and `ceil` give floats;
a time less a time gives seconds; a time is compared with a time or with text such as "2024-05-01T12:00:00Z".
"""

from __future__ import annotations

import ast
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from pipeline import parts
from pipeline.frame import Bools, Column, Frame, KeyTable, Schema
from pipeline.functions import ELSEWHERE, FUNCTIONS, Function, Remembering, among
from pipeline.parts import NUMBERS, Part, event_time, literal
from pipeline.parts import ExpressionError as ExpressionError  # the one that compile_expression raises
from pipeline.past import Past
from pipeline.problem import did_you_mean
from pipeline.syntax import cut, parse, shown
from pipeline.times import instant

MAX_POWER = 64  # literal exponents
_Result = TypeVar("_Result")


class Expression:
    """A compiled expression. Called with a Frame it gives a Column; `holds` gives where it is known to be true (false
    and unknown are False), with no more work than that takes."""

    def __init__(self, text: str, part: Part, names: Sequence[str]) -> None:
        self.text = text
        self.kind = part.kind
        self.optional = part.optional
        self.nan = part.nan
        self.names = tuple(names)  # what it reads: fields, the key's name, "time"
        part = parts.spread(part)
        self._evaluate = _quietly(part.evaluate) if part.warns else part.evaluate
        holds = parts.truth(part)
        self.holds = _quietly(holds) if part.warns else holds

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def __call__(self, frame: Frame) -> Column:
        values, present = self._evaluate(frame)
        if present is None or present.all():
            return Column(values)
        return Column(np.where(present, values, parts.zeros(self.kind, 1)), present)

    def watch(self, tell: Callable[[Bools], None]) -> None:
        """Tell where it holds, of a condition, whenever it is asked."""
        evaluate, holds = self._evaluate, self.holds

        def evaluated(frame: Frame) -> Column:
            found = evaluate(frame)
            values, present = found
            tell(values if present is None else values & present)
            return found

        def held(frame: Frame) -> Bools:
            found = holds(frame)
            tell(found)
            return found

        self._evaluate, self.holds = evaluated, held


def _quietly(evaluate: Callable[[Frame], _Result]) -> Callable[[Frame], _Result]:
    """Without numpy's warnings: what it warns of is found, and missing, in the end."""

    def quiet(frame: Frame) -> _Result:
        with np.errstate(all="ignore"):
            return evaluate(frame)

    return quiet


def compile_expression(
    text: str, schema: Schema, want: str | None = None, keys: KeyTable | None = None, past: Past | None = None
) -> Expression:
    """The expression of a text over the fields of a schema. ExpressionError says what is wrong with it.

    `want`: the kind that it must give ("bool", "string"; "float" takes any number). `keys` is needed where the key is named,
    `past` where functions of earlier readings may be called.
    """
    compiler = _Compiler(schema, keys, past)
    part = compiler.compile(parse(text))
    if want and part.kind != want and not (want == "float" and part.kind in NUMBERS):
        raise ExpressionError(f'"{cut(text)}" gives {_a(part.kind)}; {_a(want)} is needed here')
    return Expression(text, part, compiler.names)


def constant(kind: str) -> Expression:
    """An expression that is always missing: what stands in for one that could not be compiled."""
    return Expression("", parts.missing(kind), ())


def _a(kind: str) -> str:
    return {"float": "a number", "int": "a whole number", "bool": "true or false", "string": "text", "time": "a time"}[
        kind
    ]


_COMPARE: dict[type[ast.cmpop], Any] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
_MIRRORED = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE, ast.Eq: ast.Eq, ast.NotEq: ast.NotEq}
_CONSTANTS = {"true": True, "false": False}
_NOTHING = "missing"  # as one side of an `if`; a field of that name is the field
_WORDS = {ast.BitAnd: "and", ast.BitOr: "or"}


class _Compiler:
    """One method a node of the tree; a node without a method is not let in."""

    def __init__(self, schema: Schema, keys: KeyTable | None, past: Past | None) -> None:
        self.schema = schema
        self.keys = keys
        self.past = past
        self.remembering: dict[str, Part] = {}  # by what they read as: the same one twice is one
        self.names: list[str] = []
        self.of_key = False  # within a part that reads nothing but the key

    def compile(self, node: ast.AST) -> Part:
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise ExpressionError(f'"{shown(node)}" is not allowed in an expression')
        if self.of_key or self.keys is None or not self._reads_only_key(node):
            part: Part = method(node)
            return part
        self.of_key = True
        part = method(node)
        self.of_key = False
        assert self.schema.key is not None
        return parts.by_code(part, self.schema.key, self.keys)

    def _reads_only_key(self, node: ast.AST) -> bool:
        """Whether each name in it is the key's, and no call is of the event time or of earlier readings."""
        key = self.schema.key
        if key is None or key in self.schema.fields:
            return False
        names, calls = set(), set()
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call):
                calls.add(inner.func)
                called = FUNCTIONS.get(inner.func.id) if isinstance(inner.func, ast.Name) else None
                if not isinstance(called, Function) or called.of_time:
                    return False
            elif isinstance(inner, ast.Name):
                names.add(inner)
        return {name.id for name in names - calls} - {*_CONSTANTS, _NOTHING} == {key}

    # --- leaves ---

    def _constant(self, node: ast.Constant) -> Part:
        value = node.value
        if isinstance(value, bool):
            return literal("bool", value)
        if isinstance(value, int):
            if not -(2**63) <= value < 2**63:
                raise ExpressionError(f'"{cut(str(value))}" is beyond 64 bits')
            return literal("int", value)
        if isinstance(value, float):
            if not np.isfinite(value):
                raise ExpressionError("a number is too large")
            return literal("float", value)
        if isinstance(value, str):
            if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
                raise ExpressionError("a text holds half a character (a lone surrogate)")
            return literal("string", value)
        hint = "; write `missing` as one side of an `if`, and is_missing(x) to compare" if value is None else ""
        raise ExpressionError(f'"{shown(node)}" is not allowed in an expression{hint}')

    def _name(self, node: ast.Name) -> Part:
        # Python takes µ (the micro sign) and μ (the letter) for one in names; a field may be called either.
        fields = self.schema.fields
        same = (f for f in fields if unicodedata.normalize("NFKC", f) == node.id)
        name = node.id if node.id in fields or node.id.isascii() else next(same, node.id)
        if name in fields:
            self._read(name)
            field = fields[name]
            return Part(field.kind, field.optional, lambda frame: frame.columns[name], nan=field.nan)
        if name == self.schema.key and self.keys is not None:
            self._read(name)
            return Part("string", False, lambda frame: frame.columns[name])  # those of `by_code`
        if name == "time":
            self._read(name)
            return event_time()
        if name in _CONSTANTS:
            return literal("bool", _CONSTANTS[name])
        if name.lower() in (_NOTHING, "null", "none"):
            raise ExpressionError(f'"{name}": write `missing` as one side of an `if`, and is_missing(x) to compare')
        known = self.schema.names()
        raise ExpressionError(
            f'"{name}" is not a field of the input{did_you_mean(name, known)}; it has {", ".join(known)}'
        )

    def _read(self, name: str) -> None:
        if name not in self.names:
            self.names.append(name)

    # --- logic ---

    def _boolop(self, node: ast.BoolOp) -> Part:
        join = parts.both if isinstance(node.op, ast.And) else parts.either
        result, *others = [self._needs(value, "bool") for value in node.values]
        for other in others:
            result = join(result, other)
        return result

    def _needs(self, node: ast.AST, kind: str) -> Part:
        part = self.compile(node)
        if part.kind != kind:
            raise ExpressionError(f'"{shown(node)}" is {_a(part.kind)}; {_a(kind)} is needed')
        return part

    def _ifexp(self, node: ast.IfExp) -> Part:
        test = self._needs(node.test, "bool")
        if self._is_nothing(node.body):
            no = self.compile(node.orelse)
            return parts.choose(test, parts.missing(no.kind), no, no.kind)
        yes = self.compile(node.body)
        if self._is_nothing(node.orelse):
            return parts.choose(test, yes, parts.missing(yes.kind), yes.kind)
        no = self.compile(node.orelse)
        if yes.kind == no.kind:
            return parts.choose(test, yes, no, yes.kind)
        if yes.kind in NUMBERS and no.kind in NUMBERS:
            return parts.choose(test, yes, no, "float")
        raise ExpressionError(f'"{shown(node)}" gives {_a(yes.kind)} or {_a(no.kind)}: both sides must be of one kind')

    def _is_nothing(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id == _NOTHING and node.id not in self.schema.names()

    # --- comparison ---

    def _compare(self, node: ast.Compare) -> Part:
        if isinstance(node.ops[0], ast.In | ast.NotIn) and len(node.ops) == 1:
            return self._membership(node)
        for op in node.ops:
            if type(op) not in _COMPARE:
                raise ExpressionError(
                    "`in` compares alone: join it to others by `and`"
                    if isinstance(op, ast.In | ast.NotIn)
                    else "use == and != to compare, and is_missing(x); `is` is not allowed in an expression"
                )
        ufuncs = [_COMPARE[type(op)] for op in node.ops]
        nodes = [node.left, *node.comparators]
        operands = _times(self.compile(n) for n in nodes)
        for i in range(len(ufuncs)):
            a, b = operands[i : i + 2]
            if a.kind != b.kind and not (a.kind in NUMBERS and b.kind in NUMBERS):
                both = f'"{shown(nodes[i])}" is {_a(a.kind)} and "{shown(nodes[i + 1])}" is {_a(b.kind)}'
                raise ExpressionError(f"{both}: they cannot be compared")
        if len(ufuncs) > 1:
            return parts.chain(ufuncs, operands)
        a, b = operands
        if a.literal is not None and b.literal is None:
            return parts.compare(_COMPARE[_MIRRORED[type(node.ops[0])]], b, a)
        return parts.compare(ufuncs[0], a, b)

    def _membership(self, node: ast.Compare) -> Part:
        right = node.comparators[0]
        value = self.compile(node.left)
        if not isinstance(right, ast.Tuple | ast.List | ast.Set) or not right.elts:
            raise ExpressionError(
                'after `in` comes a list of values: in ("open", "shut"); for a part of a text use contains()'
            )
        found = among(value, [self._member(item, value) for item in right.elts])
        return parts.opposite(found) if isinstance(node.ops[0], ast.NotIn) else found

    def _member(self, node: ast.AST, value: Part) -> Any:
        item = self.compile(node)
        if item.literal is None:
            raise ExpressionError(f'"{shown(node)}" in a list after `in` must be a plain value')
        if item.kind != value.kind and not (item.kind in NUMBERS and value.kind in NUMBERS):
            raise ExpressionError(f'"{shown(node)}" is {_a(item.kind)}; the list is compared with {_a(value.kind)}')
        return item.literal

    # --- arithmetic ---

    def _unaryop(self, node: ast.UnaryOp) -> Part:
        if isinstance(node.op, ast.Not):
            return parts.opposite(self._needs(node.operand, "bool"))
        if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant) and node.operand.value == 2**63:
            return literal("int", -(2**63))  # its positive one would be beyond 64 bits
        part = self._number(node.operand)
        if isinstance(node.op, ast.UAdd):
            return part
        if not isinstance(node.op, ast.USub):
            raise ExpressionError(f'"{shown(node)}" is not allowed in an expression')
        return parts.negative(part)

    def _number(self, node: ast.AST) -> Part:
        return self._as_number(self.compile(node), node)

    def _as_number(self, part: Part, node: ast.AST) -> Part:
        if part.kind not in NUMBERS:
            raise ExpressionError(f'"{shown(node)}" is {_a(part.kind)}; a number is needed')
        return part

    def _binop(self, node: ast.BinOp) -> Part:
        sign = parts.SIGNS.get(type(node.op).__name__)
        if sign is None:
            word = _WORDS.get(type(node.op))
            hint = f" (did you mean `{word}`?)" if word else ""
            raise ExpressionError(f'"{shown(node)}" is not allowed in an expression{hint}')
        a, b = self.compile(node.left), self.compile(node.right)
        if sign == "-" and a.kind == b.kind == "time":
            return parts.seconds(a, b)
        self._as_number(a, node.left)
        self._as_number(b, node.right)
        if sign == "**" and b.literal is not None and abs(b.literal) > MAX_POWER:
            raise ExpressionError(f"a power may be at most {MAX_POWER}")
        return parts.arithmetic(sign, a, b)

    # --- functions ---

    def _call(self, node: ast.Call) -> Part:
        if not isinstance(node.func, ast.Name) or node.keywords:
            raise ExpressionError(f'"{shown(node)}" is not allowed in an expression')
        name = node.func.id
        function = FUNCTIONS.get(name)
        if function is None:
            raise ExpressionError(f'there is no function "{name}"{_meant(name)}')
        arguments = [self.compile(argument) for argument in node.args]
        if isinstance(function, Remembering):
            return self._remembered(node, name, arguments, function)
        if function.of_time and (not arguments or arguments[0].kind == "string"):
            self._read("time")
            arguments = [event_time(), *arguments]
        return function.build(name, arguments)

    def _remembered(self, node: ast.Call, name: str, arguments: list[Part], function: Remembering) -> Part:
        if self.past is None:
            raise ExpressionError(
                f"{name}() looks at earlier readings, which cannot be done here; set a field to it in a derive before"
            )
        text = ast.dump(node)
        if text not in self.remembering:
            self.remembering[text] = function.build(name, arguments, self.past)
        if not node.args:
            self._read("time")
        return self.remembering[text]


def _meant(name: str) -> str:
    """What a function that there is not may be called here."""
    other = ELSEWHERE.get(name.lower().replace("_", ""), ELSEWHERE.get(name.lower()))
    return f' (did you mean "{other}"?)' if other else did_you_mean(name, FUNCTIONS)


def _times(operands: Iterable[Part]) -> list[Part]:
    """What is compared, plain text beside a time being taken as a time."""
    found = list(operands)
    if all(p.kind != "time" for p in found):
        return found
    return [_instant(p.literal) if p.kind == "string" and p.literal is not None else p for p in found]


def _instant(text: str) -> Part:
    ns = instant(text)
    if ns is None:
        raise ExpressionError(f'"{cut(text)}" is not a time; write it as "2024-05-01T12:00:00Z"')
    return literal("time", ns)
