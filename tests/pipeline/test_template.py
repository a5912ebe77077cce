"""What a template promises: fields and formats, checked beforehand, and nothing else of Python."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.template import Template

KINDS = {"t": "float", "n": "int", "on": "bool", "s": "string", "at": "time"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("{s} is at {t:.1f} °C", "door is at 21.5 °C"),
        ("{n:03d}|{s:>6}|{t}", "007|  door|21.46"),
        ("{on} {at}", "true 1970-01-01T00:00:01.500Z"),
        ("{{{n}}} and {{s}}", "{7} and {s}"),
    ],
)
def test_fields_and_formats(text: str, shown: str) -> None:
    """Values as people write them; doubled braces are braces."""
    template = Template(text, KINDS)
    assert not template.problems
    assert template.fill({"t": 21.46, "n": 7, "on": True, "s": "door", "at": 1_500_000_000}) == shown


@pytest.mark.parametrize("kind", KINDS.values())
def test_a_missing_value_is_said(kind: str) -> None:
    assert Template("{x} {x:5}", {"x": kind}).fill({"x": None}) == "missing missing"


def test_a_number_that_a_format_cannot_show_is_shown_plainly() -> None:
    """No reading can make a message fail."""
    assert Template("{n:c}", KINDS).fill({"n": -1}) == "-1"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{temp}", '"temp" is not a field of the input'),
        ("{}", '"" is not a field'),
        ("{0}", '"0" is not a field'),
        ("{s.__class__}", '"s.__class__" is not a field'),
        ("{s[0]}", '"s[0]" is not a field'),
        ("{s!r}", "by nothing else"),
        ("{t:{n}}", "by nothing else"),
        ("{t:1000.1f}", "at most 100"),
        ("{t:.99999999f}", "at most 100"),
        ("{t:d}", "'d' for object of type 'float'"),
        ("{s:.1f}", "'f' for object of type 'str'"),
        ("{t", "a brace that is to be shown"),
        ("t}", "a brace that is to be shown"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    """Attributes, subscripts, conversions, nesting, boundless widths, formats of another kind, lonely braces."""
    problems: list[Any] = Template(text, KINDS).problems
    assert len(problems) == 1
    assert problem in problems[0]
