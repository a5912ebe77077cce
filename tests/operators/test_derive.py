"""What `derive` promises, beyond the contract that every operator keeps."""

from __future__ import annotations

from typing import Any

from operators.derive import Derive, DeriveSettings
from pipeline.component import OperatorContext
from pipeline.frame import Field, KeyTable, Schema
from pipeline.testing import run

# What the contract tries (tests/test_contract.py).
EXAMPLES: list[dict[str, Any]] = [
    {"set": {"twice": "value * 2", "open": "coalesce(door, false)", "value": "value / count"}, "drop": ["mode"]},
    {"set": {"step": "value - previous(value)", "before": "previous(step)", "said": "latest(mode)", "of": "elapsed()"}},
]

SCHEMA = Schema("id", {"celsius": Field("float", True), "n": Field("int")})


def test_a_later_field_may_read_an_earlier_one() -> None:
    """Missing gives missing; what is not defined is missing."""
    rows = run(Derive, {"set": {"twice": "value * 2", "more": "twice + 1", "share": "1 / value"}}, "a1 a0 a-")
    shown = [(r["value"], r["twice"], r["more"], r["share"]) for r in rows]
    assert shown == [(1, 2, 3, 1), (0, 0, 1, None), (None, None, None, None)]


def test_fields_are_put_in_the_place_of_others_and_dropped() -> None:
    rows = run(Derive, {"set": {"value": "value + 1", "high": "value > 2"}, "drop": ["value"]}, "a1 a2")
    assert [(r["high"], "value" in r) for r in rows] == [(False, False), (True, False)]


def test_keep_names_all_that_goes_on() -> None:
    """Fields that were set only to compute others need not go on; the key and the time always do."""
    rows = run(Derive, {"set": {"twice": "value * 2", "more": "twice + 1"}, "keep": ["more"]}, "a1 b-")
    assert [{name: row[name] for name in row if name not in ("time", "key")} for row in rows] == [
        {"more": 3},
        {"more": None},
    ]
    assert [row["key"] for row in rows] == ["a", "b"]


def test_a_new_field_may_take_the_name_of_one_that_it_reads() -> None:
    rows = run(Derive, {"set": {"value": "value + 1", "again": "value"}}, "a1")
    assert [(row["value"], row["again"]) for row in rows] == [(2, 2)]


def test_what_comes_out_has_its_kind() -> None:
    context = OperatorContext("d", SCHEMA, KeyTable())
    made = Derive(
        DeriveSettings(set={"f": "celsius * 1.8 + 32", "half": "n / 2", "name": "upper(id)"}, drop=("n",)), context
    )
    kinds = {name: field.kind for name, field in made.schema.fields.items()}
    assert kinds == {"celsius": "float", "f": "float", "half": "float", "name": "string"}
    assert made.schema.fields["f"].optional
    assert not made.schema.fields["name"].optional
    assert context.problems == []


def test_mistakes_are_named() -> None:
    context = OperatorContext("d", SCHEMA, KeyTable())
    Derive(DeriveSettings(set={"id": "n", "x": "celsuis"}, drop=("m",)), context)
    assert [setting for setting, _ in context.problems] == ["set.id", "set.x", "drop"]
    assert 'did you mean "celsius"' in context.problems[1][1]
    Derive(DeriveSettings(drop=("n",), keep=("celsuis",)), context)
    assert context.problems[3:] == [
        ("keep", 'either "drop" or "keep"'),
        ("keep", '"celsuis" is not a field (did you mean "celsius"?)'),
    ]


def test_the_input_keeps_its_schema() -> None:
    """What is set is known to later expressions, not to whoever else looks at the input."""
    context = OperatorContext("d", SCHEMA, KeyTable())
    Derive(DeriveSettings(set={"f": "celsius + 1", "g": "f + 1"}), context)
    assert context.schema is SCHEMA
    assert context.problems == []
