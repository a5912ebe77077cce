"""Readings of a while ago as the engine would have seen them: steps, each with a Frame a source and how the time moved.

When a reading arrived is taken from its time: each comes at its own, or, if it is older than one that came before, together
with that one. A source without readings for `idle` lets its watermark run on, as it does in earnest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.frame import NEVER, Frame, Ints, Progress, Schema, empty

STEP_ROWS = 16_384  # of a step, all sources together: enough that what a step costs does not count
NONE: Ints = np.empty(0, np.int64)


@dataclass(slots=True)
class _Source:
    """How far the time of a source has come: what `Intake` is in the engine."""

    schema: Schema
    live: bool
    newest: int = NEVER
    watermark: int = NEVER
    heard: int = 0
    quiet: bool = False

    def step(self, rows: Frame, clock: Ints, pace: Pace, end: int, next_seq: int) -> Frame:
        """These rows, which arrived at `clock`, and the tick at `end`."""
        quiet_before, n = self.quiet, len(rows)
        before, after = NONE, self.watermark
        if n:
            newest = np.maximum(np.maximum.accumulate(rows.time), self.newest)
            reached = newest - pace.disorder
            silence = np.diff(clock, prepend=self.heard)
            last = np.append(self.newest, newest[:-1])
            ran = np.where(
                pace.alone & self.live & (silence >= pace.idle) & (last > NEVER), last - pace.disorder + silence, NEVER
            )
            before = np.maximum.accumulate(np.maximum(ran, np.append(self.watermark, reached[:-1])))
            after = max(int(before[-1]), int(reached[-1]))
            self.newest, self.heard = int(newest[-1]), int(clock[-1])
        silent = end - self.heard
        self.quiet = self.live and silent >= pace.idle
        self.watermark = after
        if self.quiet and self.newest > NEVER:
            self.watermark = max(after, self.newest - pace.disorder + silent)
        progress = Progress(rows.seq, before, after, self.watermark, end, next_seq, quiet_before, self.quiet)
        return rows.with_progress(progress)


class Pace:
    """The steps of a replay over several sources."""

    def __init__(
        self, schemas: Mapping[str, Schema], live: Mapping[str, bool], *, disorder: int, idle: int, singly: bool = False
    ) -> None:
        self.disorder = disorder
        self.idle = idle
        self.singly = singly  # a step for each moment: something reads the clock
        self.sources = {name: _Source(schema, live[name]) for name, schema in schemas.items()}
        self.alone = len(self.sources) == 1  # then silence needs no step of its own: nobody else is held back by it
        self.clock = NEVER
        self.next_seq = 0

    def steps(self, part: Mapping[str, Frame]) -> Iterator[dict[str, Frame]]:
        """A Frame of each source, step by step; `part` is in order of arrival, and so are the parts one after the other."""
        names = list(self.sources)
        seq = np.concatenate([part[name].seq for name in names])
        order = np.argsort(seq, kind="stable")
        seq = seq[order]
        time = np.concatenate([part[name].time for name in names])[order]
        owner = np.repeat(np.arange(len(names)), [len(part[name]) for name in names])[order]
        if not len(seq):
            return
        clock = np.maximum(np.maximum.accumulate(time), self.clock)
        if self.clock == NEVER:
            for source in self.sources.values():
                source.heard = int(clock[0])
        at = dict.fromkeys(names, 0)
        own = {name: np.flatnonzero(owner == i) for i, name in enumerate(names)}
        start = 0
        for end, tick in self._cuts(clock, own):
            next_seq = int(seq[end - 1]) + 1 if end > start else self.next_seq
            frames = {}
            for name, source in self.sources.items():
                to = int(np.searchsorted(own[name], end))
                rows = part[name].take(slice(at[name], to))
                frames[name] = source.step(rows, clock[own[name][at[name] : to]], self, tick, next_seq)
                at[name] = to
            self.clock, self.next_seq, start = tick, next_seq, end
            yield frames

    def _cuts(self, clock: Ints, own: Mapping[str, Ints]) -> list[tuple[int, int]]:
        """Where each step ends, and when.

        Where several sources meet, one that falls quiet holds the others back no longer, and where all are quiet the one
        that is furthest on counts. So the silence of one ends a step before the next reading of any, and before its own.
        """
        n = len(clock)
        cuts = {end: int(clock[end - 1]) for end in (*range(STEP_ROWS, n, STEP_ROWS), n)}
        if self.singly:
            cuts |= {end: int(clock[end - 1]) for end in (np.flatnonzero(np.diff(clock)) + 1).tolist()}
        for name, source in self.sources.items():
            if self.alone or not source.live:
                continue
            falls = np.append(source.heard, clock[own[name]]) + self.idle
            speaks = np.append(own[name], n)
            quiet = np.searchsorted(clock, falls, "right")
            silent = (quiet <= speaks) & (quiet < n)
            for end in (*quiet[silent].tolist(), *speaks[silent].tolist()):
                if end < n:
                    cuts[end] = int(clock[end])
        return sorted(cuts.items())

    def end(self, clock: int, *, over: bool) -> dict[str, Frame]:
        """The last step: time has passed up to `clock`; `over`: finite sources are at their end."""
        frames = {}
        self.clock = max(self.clock, clock)
        for name, source in self.sources.items():
            rows = empty(source.schema, Progress(NONE, NONE, NEVER, NEVER, 0, 0))
            frame = source.step(rows, NONE, self, self.clock, self.next_seq)
            if over and not source.live:
                frame = frame.with_progress(frame.progress._replace(quiet=True, ended=True))
            frames[name] = frame
        return frames
