"""What a merge promises: rows in order of arrival, and the lowest watermark, whatever the cut."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.frame import NEVER, Column, Field, Frame, Progress, Schema
from pipeline.merge import Merge, merged_schema

ONE = Schema("id", {"value": Field("float")})
OTHER = Schema("id", {"value": Field("float"), "door": Field("bool")})

# (source, event time); a wait of the kind "source falls quiet" is (source, None)
Story = list[tuple[int, int | None]]
stories = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 50) | st.none()), max_size=20)


def naive(story: Story) -> list[tuple[int, int]]:
    """(event time, watermark before it) of each reading, one at a time with plain numbers."""
    newest = [NEVER, NEVER]
    quiet = [False, False]
    reached = NEVER
    seen = []
    for source, time in story:
        if time is None:
            quiet[source] = True
        else:
            seen.append((time, reached))
            quiet[source] = False
            newest[source] = max(newest[source], time)
        held = [n for n, q in zip(newest, quiet, strict=True) if not q]
        reached = max(reached, min(held) if held else max(newest))
    return seen


def merged(story: Story, cuts: list[int]) -> list[tuple[int, int]]:
    """The same by Frames: a step ends at each cut, and where a source falls quiet."""
    merge = Merge(ONE)
    newest, quiet = [NEVER, NEVER], [False, False]
    seen: list[tuple[int, int]] = []
    readings: list[tuple[int, int, int]] = []  # seq, source, time
    seq = 0

    def step(falls_quiet: int | None) -> None:
        frames = []
        for source in (0, 1):
            own = [(s, t) for s, who, t in readings if who == source]
            before = []
            for _, t in own:
                before.append(newest[source])
                newest[source] = max(newest[source], t)
            was_quiet = quiet[source]
            if own:
                quiet[source] = False
            if falls_quiet == source:
                quiet[source] = True
            progress = Progress(
                np.array([s for s, _ in own], np.int64),
                np.array(before, np.int64),
                newest[source],
                newest[source],
                0,
                seq,
                was_quiet,
                quiet[source],
            )
            time = np.array([t for _, t in own], np.int64)
            key = np.full(len(own), source, np.int32)
            frames.append(Frame(time, key, progress.seq, {"value": Column(time.astype(float))}, progress))
        out = merge(frames)
        seen.extend(zip(out.time.tolist(), out.watermark_before().tolist(), strict=True))
        readings.clear()

    for at, (source, time) in enumerate(story):
        if time is None:
            step(source)
            continue
        readings.append((seq, source, time))
        seq += 1
        if at in cuts:
            step(None)
    step(None)
    return seen


@given(stories, st.lists(st.integers(0, 20)))
def test_rows_in_order_of_arrival_with_the_lowest_watermark(story: Story, cuts: list[int]) -> None:
    """An input that has said nothing yet holds all back; a quiet one does not, until it speaks again."""
    assert merged(story, cuts) == naive(story)


def test_a_field_that_not_all_inputs_have_may_be_missing() -> None:
    schema, clashes = merged_schema([ONE, OTHER])
    assert schema == Schema("id", {"value": Field("float"), "door": Field("bool", optional=True)})
    assert clashes == []


def test_clashing_kinds_are_named() -> None:
    schema = Schema("id", {"value": Field("string")})
    assert merged_schema([ONE, schema])[1] == ["value"]


def test_missing_fields_are_filled_in() -> None:
    schema, _ = merged_schema([ONE, OTHER])
    seq = np.array([0], np.int64)
    progress = Progress(seq, np.array([NEVER]), 5, 5, 0, 1)
    frame = Frame(np.array([5]), np.array([0], np.int32), seq, {"value": Column(np.array([1.0]))}, progress)
    out = Merge(schema)([frame, frame.none()])
    assert out["door"].tolist() == [None]
    assert out["value"].tolist() == [1.0]
