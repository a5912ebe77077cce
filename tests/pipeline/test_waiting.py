"""What waits for the watermark comes back by time, each row once, however it came."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import waiting
from pipeline.frame import NO_PROGRESS, Frame
from pipeline.waiting import FAR, Waiting

times = st.integers(0, 50)
steps = st.lists(st.tuples(st.lists(times, max_size=8), times), max_size=40)


def frame(time: list[int], first: int) -> Frame:
    n = len(time)
    return Frame(np.array(time, np.int64), np.zeros(n, np.int32), np.arange(first, first + n), {}, NO_PROGRESS)


def rows(of: Frame) -> list[tuple[int, int]]:
    return list(zip(of.time.tolist(), of.seq.tolist(), strict=True))


@pytest.mark.parametrize("many", [2, 1_024])
@given(steps, st.sets(st.integers(0, 40)))
def test_it_agrees_with_a_sorted_list(many: int, steps: list[tuple[list[int], int]], restarts: set[int]) -> None:
    """The oracle: a list; rows are ordered by time and, as they came, by number. Restarts change nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "_MANY", many)
        waits, listed, came = Waiting(frame([], 0)), list[tuple[int, int]](), 0
        for i, (time, before) in enumerate(steps):
            if time:
                waits.add(frame(time, came))
            listed = sorted([*listed, *rows(frame(time, came))])
            came += len(time)
            if i in restarts:
                kept, waits = waits.rows(), Waiting(frame([], 0))
                waits.put_back(kept)
            assert rows(waits.take(before)) == [row for row in listed if row[0] < before]
            listed = [row for row in listed if row[0] >= before]
            assert len(waits) == len(listed)
            assert waits.first == (listed[0][0] if listed else FAR)
            assert rows(waits.rows()) == listed
