"""What every operator must obey, whoever wrote it: its answer depends on the readings and on nothing else.

`run` pushes a stream cut every way, with and without a restart at each cut, with empty Frames between, over arrays that
cannot be written to; the streams hold late readings, missing values, ticks and the end of the input at any place.
"""

from __future__ import annotations

import importlib.util
import textwrap
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import registry
from pipeline.frame import SECOND, Field, Schema
from pipeline.testing import Mark, Reading, Stream, forget, make, run, streams

READINGS = Schema(
    "key",
    {
        "value": Field("float", optional=True),
        "count": Field("int"),
        "door": Field("bool", optional=True),
        "mode": Field("string", optional=True),
    },
)

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


def examples_of(type_: str) -> list[dict[str, Any]]:
    """`EXAMPLES` of an operator's own test: settings by which all that it can do is tried, over the fields of `READINGS`."""
    found: list[dict[str, Any]] = _own_test(type_).EXAMPLES
    return found


def sides_of(type_: str, example: Mapping[str, Any]) -> dict[str, Schema]:
    """The further streams that an example names. `SIDES` in the operator's own test are their schemas; else the input's."""
    cls, _ = registry.find("operator", type_)
    schemas: dict[str, Schema] = getattr(_own_test(type_), "SIDES", {})
    named = [example.get(setting, ()) for setting in cls.sides]
    streams = [stream for one in named for stream in ([one] if isinstance(one, str) else one)]
    return {stream: schemas.get(stream, READINGS) for stream in streams}


def folder_of(type_: str) -> Path:
    """Where the pipeline file would lie: `FOLDER` in the operator's own test."""
    found: Path = getattr(_own_test(type_), "FOLDER", Path())
    return found


@cache
def _own_test(type_: str) -> Any:
    file = Path(__file__).parent / "operators" / f"test_{type_}.py"
    assert file.exists(), f"{type_} has no test: write {file.name}, with EXAMPLES for the contract"
    spec = importlib.util.spec_from_file_location(f"contract_{type_}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CASES = [
    pytest.param(type_, example, id=f"{type_}-{i}")
    for type_ in OPERATORS
    for i, example in enumerate(examples_of(type_))
]


@pytest.mark.parametrize(("type_", "example"), CASES)
def test_no_cut_and_no_restart_changes_a_row(type_: str, example: dict[str, Any]) -> None:
    """The same rows bit for bit, of each output; and all else that `run` watches over."""
    cls, _ = registry.find("operator", type_)
    sides = sides_of(type_, example)
    files = getattr(_own_test(type_), "FILES", ()) if "table" in example else ()

    @settings(max_examples=40, deadline=None)
    @given(streams(READINGS, max_size=15, sides=sides, files=files, forgets=True), st.integers(0, 3))
    def holds(stream: Stream, disorder: int) -> None:
        run(cls, example, stream, schema=READINGS, sides=sides, disorder=disorder, folder=folder_of(type_))

    holds()


# What one key does is by these no business of that key alone.
ACROSS_KEYS = {"group", "expect", "max_waiting", "by", "on", "function"}


@pytest.mark.parametrize(
    ("type_", "example"),
    [case for case in CASES if not ACROSS_KEYS & {*case.values[1]}],  # type: ignore[misc]
)
def test_a_key_that_was_forgotten_begins_anew(type_: str, example: dict[str, Any]) -> None:
    """After `forget` it is as if another key had said what this one had said before; no other key notices anything."""
    cls, _ = registry.find("operator", type_)
    sides, folder = sides_of(type_, example), folder_of(type_)
    files = getattr(_own_test(type_), "FILES", ()) if "table" in example else ()
    some = streams(READINGS, keys="ab", max_size=12, sides=sides, files=files)

    @settings(max_examples=100, deadline=None)
    @given(some, some, st.integers(0, 3))
    def holds(before: Stream, after: Stream, disorder: int) -> None:
        before = [item for item in before if not (isinstance(item, Mark) and item.ended)]
        start = max([r["time"] for r in before if isinstance(r, dict)], default=0)
        after = [_later(item, start) for item in after]
        other = [{**r, "key": "z"} if isinstance(r, dict) and r["key"] == "a" else r for r in before]
        more: dict[str, Any] = {"schema": READINGS, "sides": sides, "disorder": disorder, "folder": folder}
        more["every_way"] = False
        told = len(_of(run(cls, example, [*before, forget("a")], **more), "a"))
        found = run(cls, example, [*before, forget("a"), *after], **more)
        wanted = run(cls, example, [*other, *after], **more)
        assert [str(row) for row in _of(found, "a")[told:]] == [str(row) for row in _of(wanted, "a")]
        assert [str(row) for row in _of(found, "b")] == [str(row) for row in _of(wanted, "b")]

    holds()


def _of(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["key"] == key]


def _later(item: Reading | Mark, seconds: float) -> Reading | Mark:
    if isinstance(item, dict):
        return {**item, "time": item["time"] + seconds}
    return item if item.watermark is None else item._replace(watermark=item.watermark + int(seconds * SECOND))


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
            sides: dict[str, Schema] = getattr(_own_test(type_), "SIDES", {})
            _, problems = make(cls, table, DOCUMENTED, name=name, sides=sides, folder=folder_of(type_))
            assert not problems
            reading = {"key": "a", "temperature": 31.0, "humidity": None, "celsius": 20.0, "door": True}
            stream = [{**reading, "time": second} for second in (0, 5, 30)]
            run(cls, table, stream, schema=DOCUMENTED, sides=sides, name=name, folder=folder_of(type_))


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
