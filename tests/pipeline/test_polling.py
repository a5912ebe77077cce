"""When the next poll is due."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.polling import due_after


def test_the_schedule_keeps_its_grid() -> None:
    """However late a poll is, the next is due on the grid: neither a rush nor a drift."""
    assert [due_after(0.0, now, 1.0) for now in (-0.1, 0.0, 0.3, 1.0, 1.2, 7.9)] == [1.0, 1.0, 1.0, 2.0, 2.0, 8.0]


@given(st.integers(0, 1_000), st.integers(0, 100_000), st.integers(1, 500))
def test_it_is_ahead_and_on_the_grid(due: int, late: int, every: int) -> None:
    """Never a poll at once for one that was missed, never more than one interval to wait."""
    now = due + late
    found = due_after(float(due), float(now), float(every))
    assert now < found <= now + every
    assert (found - due) % every == 0
