"""Event times as clients write them; what cannot be one is told apart, whatever stands beside it."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.times import nanoseconds

NOON = 1_769_860_800_000_000_000  # 2026-01-31T12:00:00Z


@pytest.mark.parametrize("beside", [NOON // 10**9, NOON // 10**6, NOON / 1e9, "2026-01-31T12:00:00Z"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf"), 10**30, "soon"])
def test_what_is_no_time_costs_only_itself(beside: Any, wrong: Any) -> None:
    times, good = nanoseconds([beside, wrong], "auto")
    assert good is not None
    assert good.tolist() == [True, False]
    assert times.tolist()[0] == NOON


@pytest.mark.parametrize("unit", ["auto", "s", "ns"])
def test_the_number_of_64_bits_that_has_no_opposite_is_no_time(unit: str) -> None:
    times, good = nanoseconds([5, -(2**63)], unit)
    assert good is not None
    assert (times.tolist()[0], good.tolist()) == (5 * (1 if unit == "ns" else 10**9), [True, False])
