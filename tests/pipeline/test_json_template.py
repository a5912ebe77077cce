"""JSON with places to fill: values keep their kind, and none of them can break out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.json_template import JsonTemplate

KINDS = {"id": "string", "value": "float", "on": "bool", "n": "int"}


def filled(document: Any, **row: Any) -> Any:
    template = JsonTemplate(document, KINDS)
    assert template.problems == []
    return template.fill(row)


def test_a_field_alone_is_its_value() -> None:
    """And within a text, text."""
    document = {"sensor": "{id}", "v": "{value}", "on": "{on}", "note": "{id}: {value:.1f}, {on}", "unit": "°C", "k": 3}
    assert filled(document, id="s1", value=21.25, on=True) == {
        "sensor": "s1",
        "v": 21.25,
        "on": True,
        "note": "s1: 21.2, true",
        "unit": "°C",
        "k": 3,
    }


def test_what_is_missing_is_left_out() -> None:
    """Of a table the member, of a list the item; zero and false are not missing."""
    assert filled({"a": {"v": "{value}"}, "l": ["{value}", "{n}"], "t": "at {value}"}, n=0) == {"a": {}, "l": [0]}
    assert filled("{value}") is None


def test_braces_are_doubled_to_be_shown() -> None:
    assert filled({"a": "{{id}}", "{id}": 1}, id="x") == {"a": "{id}", "{id}": 1}


@given(st.text())
def test_no_value_breaks_out(text: str) -> None:
    """Whatever a key is called, the document has the members that it was given."""
    made = json.loads(json.dumps(filled({"a": "{id}", "b": ["<{id}>"]}, id=text)))
    assert made == {"a": text, "b": [f"<{text}>"]}


@pytest.mark.parametrize(
    ("document", "where", "said"),
    [
        ({"a": {"b": "{valu}"}}, "a.b", 'did you mean "value"'),
        ({"a": ["x", "{value:q}"]}, "a.1", "Unknown format code"),
        ({"a": "{id.__class__}"}, "a", "not a field"),
        ({"a": "{"}, "a", "a brace that is to be shown is written"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(document: Any, where: str, said: str) -> None:
    ((at, text),) = JsonTemplate(document, KINDS).problems
    assert at == where
    assert said in text


def test_tables_are_not_nested_for_ever() -> None:
    document: Any = "{id}"
    for _ in range(30):
        document = {"a": document}
    assert "tables within each other" in JsonTemplate(document, KINDS).problems[0][1]
