"""Whole lives of a device by seed: faults, crashes, power cuts; then what was promised is looked for.

`make simulate SEEDS=1000`, or one that failed: `SEED=17 pytest tests/simulation -k one_seed`.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.device import simulate

SEEDS = int(os.environ.get("SEEDS", "50"))
PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_lost_and_nothing_is_doubled(part: int) -> None:
    for seed in range(part, SEEDS, PARTS):
        simulate(seed)


@pytest.mark.skipif("SEED" not in os.environ, reason="for a seed that failed")
def test_one_seed() -> None:
    simulate(int(os.environ["SEED"]))
