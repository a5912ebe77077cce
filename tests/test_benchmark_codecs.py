"""The benchmark of codecs knows every codec, and what it gives them is good input. No time is asserted."""

from __future__ import annotations

import pytest

from benchmarks.codecs import CASES, Case, Cost, chosen, measure, table
from pipeline import registry


def test_every_codec_has_a_case() -> None:
    assert {case.type for case in chosen([])} == set(registry.types("codec"))
    assert [case.name for case in chosen(["influx"])] == ["influx", "influx mixed"]
    with pytest.raises(SystemExit, match="no codec jsn"):
        chosen(["jsn"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_takes_every_reading(case: Case) -> None:
    cost = measure(case, 50, runs=1)
    assert (cost.encode is None) == (case.type in ("sparkplug", "path", "regex"))


def test_the_table_shows_each() -> None:
    shown = list(table({"a": Cost(1.0, 2.0, None, 0.5), "b": Cost(1.0, 2.0, 3.0, 0.5)}))
    assert shown[2:] == ["| a | 1.00 | 2.00 |  | 0.50 | 2.0 |", "| b | 1.00 | 2.00 | 3.00 | 0.50 | 2.0 |"]
