"""The text of an expression as a Python syntax tree of bounded size; how parts of it read in messages and explanations."""

from __future__ import annotations

import ast
import re
import warnings
from typing import NamedTuple

from pipeline.parts import ExpressionError

MAX_TEXT = 4_000  # characters
MAX_DEPTH = 50  # nested parts
_SHOWN = 80  # characters of an expression in a message
_COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)


def parse(text: str) -> ast.expr:
    """ExpressionError: it is not an expression, or too large for one."""
    if len(text) > MAX_TEXT:
        raise ExpressionError(f"an expression may have at most {MAX_TEXT:,} characters")
    source = text.strip()
    if "\n" in source:
        source = f"({source}\n)"  # lines of one expression, as """ lets one write them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's own: "\d" in a pattern is meant
            tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f'"{cut(text)}" is not an expression{_why(text, error)}') from None
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        if not level:
            return tree
    raise ExpressionError(f"an expression may be nested at most {MAX_DEPTH} deep")


def _why(text: str, error: Exception) -> str:
    for wrong, right in ((r"&&", "and"), (r"\|\|", "or"), (r"[^=!<>]=[^=]", "==")):
        if re.search(wrong, text):
            return f' (did you mean "{right}"?)'
    return f": {error.msg}" if isinstance(error, SyntaxError) else ": it cannot be read"


def cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def shown(node: ast.AST) -> str:
    return cut(ast.unparse(node))


class Clause(NamedTuple):
    """A part of a condition."""

    text: str
    sides: tuple[str, str] | None  # of one thing compared with one other
    wanted: bool  # what it must be for the condition; behind a `not` that is false


def clauses(text: str) -> list[Clause]:
    """The parts of a condition that `and`, `or` and `not` join, from left to right."""
    found: list[Clause] = []
    waiting: list[tuple[ast.expr, bool]] = [(parse(text), True)]
    while waiting:
        node, wanted = waiting.pop()
        if isinstance(node, ast.BoolOp):
            waiting += [(value, wanted) for value in reversed(node.values)]
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            waiting.append((node.operand, not wanted))
        else:
            sides = None
            if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], _COMPARISONS):
                sides = ast.unparse(node.left), ast.unparse(node.comparators[0])
            found.append(Clause(ast.unparse(node), sides, wanted))
    return found
