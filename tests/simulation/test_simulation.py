"""Whole lives of a device by seed: faults, crashes, power cuts; then what was promised is looked for.

`make simulate SEEDS=1000`, or one that failed: `SEED=17 pytest tests/simulation/test_simulation.py`.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.device import Simulation, simulate

SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else range(int(os.environ.get("SEEDS", "50")))
PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_lost_and_nothing_is_doubled(part: int) -> None:
    for seed in SEEDS[part::PARTS]:
        simulate(seed)


def test_a_seed_gives_the_same_run_again() -> None:
    assert [simulate(seed) for seed in range(5)] == [simulate(seed) for seed in range(5)]


def test_no_room_at_every_write_of_a_short_run() -> None:
    """The disk is full from the n-th write on, for a while: for each n there is."""
    last, n = 1, 0
    while n < last:
        n += 1

        def fills_up(simulation: Simulation, n: int = n) -> None:
            simulation.short_run(full_from=n)

        last = simulate(0, fills_up).writes
    assert last > 100
