"""Whole lives of a device by seed: faults, crashes, power cuts; then what was promised is looked for.

`make simulate SEEDS=1000`, or one that failed: `SEED=17 pytest tests/simulation/test_simulation.py`.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.simulation import Simulation, simulate

SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else range(int(os.environ.get("SEEDS", "50")))
PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_lost_and_nothing_is_doubled(part: int) -> None:
    for seed in SEEDS[part::PARTS]:
        simulate(seed)


def test_a_seed_gives_the_same_run_again() -> None:
    assert [simulate(seed) for seed in range(5)] == [simulate(seed) for seed in range(5)]


@pytest.mark.parametrize("when_full", ["thin", "drop_oldest", "block"])
def test_a_full_buffer_does_what_it_should(when_full: str) -> None:
    """Seeds are tried until the buffer was full in one of them; what holds then is looked for in each."""

    def small(simulation: Simulation) -> None:
        simulation.choose(simulation.chosen._replace(size=4_000, when_full=when_full))

    for seed in range(20):
        ran = simulate(seed, small)
        if {"thin": ran.thinned, "drop_oldest": ran.dropped, "block": ran.pushed_back}[when_full]:
            return
    pytest.fail("it was never full")


def test_no_room_at_every_write_of_a_short_run() -> None:
    """The disk is full from the n-th write on, for a while: for each n there is, or every few if few seeds are asked for."""
    last, n = 1, 1
    while n <= last:

        def fills_up(simulation: Simulation, n: int = n) -> None:
            simulation.short_run(full_from=n)

        last = simulate(0, fills_up).writes
        n += 1 if len(SEEDS) > 50 else 17
    assert last > 100
