"""What every operator must obey, whoever wrote it: its answer depends on the readings and on nothing else.

`run` pushes a stream cut every way, with and without a restart at each cut, with empty Frames between, over arrays that
cannot be written to; the streams hold late readings, missing values, ticks and the end of the input at any place.
"""

from __future__ import annotations

import textwrap
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import registry
from pipeline.frame import Field, Schema
from pipeline.testing import Stream, make, run, streams

READINGS = Schema(
    "key",
    {
        "value": Field("float", optional=True),
        "count": Field("int"),
        "door": Field("bool", optional=True),
        "mode": Field("string", optional=True),
    },
)

# Settings of each operator by which all that it can do is tried. A new operator needs some here.
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "alert": [
        {"when": "value > 1", "clear": "value < 0"},
        {"when": "door and count > 0", "for": "2 s", "message": "{mode}: {value:.2f} at {time}"},
        {"levels": {"low": {"when": "value > 0"}, "high": {"when": "value > 2", "clear": "value < 1", "for": "3 s"}}},
    ],
    "derive": [
        {"set": {"twice": "value * 2", "open": "coalesce(door, false)", "value": "value / count"}, "drop": ["mode"]},
    ],
    "filter": [{"where": "value > 0 or door"}, {"where": 'key in ("a", "c") and not is_missing(mode)'}],
    "window": [
        {"size": "5 s", "aggregate": {"n": "count()", "m": "mean(value)", "low": "min(count)", "high": "max(value)"}},
        {
            "size": "3 s",
            "lateness": "2 s",
            "aggregate": {"s": "sum(value)", "last": "last(door)", "v": "stddev(value)"},
        },
        {"size": "4 s", "offset": "1 s", "by": [], "aggregate": {"q": "median(value)", "d": "distinct(mode)"}},
        {"size": "4 s", "by": ["mode", "door"], "aggregate": {"n": "count(value)", "first": "first(count)"}},
    ],
}

# Whatever stands in the examples of docstrings.
DOCUMENTED = Schema(
    "sensor_id",
    {
        "temperature": Field("float"),
        "humidity": Field("float", optional=True),
        "celsius": Field("float", optional=True),
        "door": Field("bool", optional=True),
    },
)

OPERATORS = registry.types("operator")


def test_every_operator_has_examples() -> None:
    assert sorted(EXAMPLES) == OPERATORS


CASES = [
    pytest.param(type_, example, id=f"{type_}-{i}") for type_ in EXAMPLES for i, example in enumerate(EXAMPLES[type_])
]


@pytest.mark.parametrize(("type_", "example"), CASES)
def test_no_cut_and_no_restart_changes_a_row(type_: str, example: dict[str, Any]) -> None:
    """The same rows bit for bit, of each output; and all else that `run` watches over."""
    cls, _ = registry.find("operator", type_)

    @settings(max_examples=40, deadline=None)
    @given(streams(READINGS, max_size=15), st.integers(0, 3))
    def holds(stream: Stream, disorder: int) -> None:
        run(cls, example, stream, schema=READINGS, disorder=disorder)

    holds()


@pytest.mark.parametrize("type_", OPERATORS)
def test_the_docstring_has_an_example_that_runs(type_: str) -> None:
    """The TOML in it is a whole operator of this type, without a problem."""
    cls, _ = registry.find("operator", type_)
    examples = _toml_of(cls.__doc__ or "")
    assert examples, f"the docstring of {cls.__name__} has no [operators.NAME] to copy"
    for text in examples:
        for name, table in tomllib.loads(text)["operators"].items():
            assert table.pop("type") == type_
            assert table.pop("input", None) or table.pop("inputs"), "an operator has an input"
            _, problems = make(cls, table, DOCUMENTED, name=name)
            assert not problems
            reading = {"key": "a", "temperature": 31.0, "humidity": None, "celsius": 20.0, "door": True}
            run(cls, table, [{**reading, "time": second} for second in (0, 5, 30)], schema=DOCUMENTED, name=name)


def _toml_of(doc: str) -> list[str]:
    """The blocks of a docstring that begin with [operators.NAME]; each ends at an empty line that text follows."""
    lines = textwrap.dedent("    " + doc).splitlines()
    blocks: list[list[str]] = []
    inside = False
    for line in lines:
        if line.strip().startswith("[operators."):
            blocks.append([])
            inside = True
        elif not line.strip():
            inside = False
        if inside:
            blocks[-1].append(line.strip())
    return ["\n".join(block) for block in blocks]
