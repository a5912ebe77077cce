"""Readings of a while ago as the engine would have seen them: steps, each with a Frame a source and how the time moved.

When a reading arrived is taken from its time: each comes at its own, or, if it is older than one that came before, together
with that one. A source without readings for `idle` lets its watermark run on, as it does in earnest: in one leap up to the
next reading or, if it is told when something is due, tick by tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
                pace.leaps & self.live & (silence >= pace.idle) & (last > NEVER), last - pace.disorder + silence, NEVER
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
        self,
        schemas: Mapping[str, Schema],
        live: Mapping[str, bool],
        *,
        disorder: int,
        idle: int,
        singly: bool = False,
        due: Callable[[], int | None] | None = None,
    ) -> None:
        self.disorder = disorder
        self.idle = idle
        self.singly = singly  # a step for each moment: something reads the clock
        self.due = due  # when something would be told without a further reading; None: a silence is one leap
        self.sources = {name: _Source(schema, live[name]) for name, schema in schemas.items()}
        self.alone = len(self.sources) == 1  # then silence needs no step of its own: nobody else is held back by it
        self.leaps = self.alone and due is None  # the watermark has run on when the next reading comes
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
            yield from self._ticks(int(clock[start]))
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
        if self.due is not None:
            return sorted((cuts | self._moments(clock, own)).items())
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

    def _moments(self, clock: Ints, own: Mapping[str, Ints]) -> dict[int, int]:
        """What comes while a source is silent, moment by moment: between two of them time may bring something about."""
        place = np.arange(len(clock))
        quiet = np.zeros(len(clock), np.bool_)
        for name, source in self.sources.items():
            if source.live:
                heard = np.append(source.heard, clock[own[name]])[np.searchsorted(own[name], place)]
                quiet |= clock - heard >= self.idle
        moments = np.unique(clock[quiet])
        ends = np.union1d(np.searchsorted(clock, moments), np.searchsorted(clock, moments, "right"))
        return {end: int(clock[end - 1]) for end in ends.tolist() if end}

    def _ticks(self, until: int) -> Iterator[dict[str, Frame]]:
        """What the engine would have pushed in a silence before this moment: whenever something is due that the watermark of
        a silent source comes to, and when a source falls silent."""
        while self.due is not None and (due := self.due()) is not None:
            when = min(
                (at for source in self.sources.values() if (at := self._acts(source, due)) is not None), default=until
            )
            if when >= until:
                return
            self.clock = max(self.clock, when)
            yield {name: self._nothing(name, self.clock) for name in self.sources}

    def _acts(self, source: _Source, due: int) -> int | None:
        """When its silence brings its watermark to `due`, or makes it idle; None: it does neither."""
        if not source.live:
            return None
        if not source.quiet:
            return source.heard + self.idle
        if source.newest == NEVER or source.watermark >= due:
            return None
        return source.heard + due - (source.newest - self.disorder)

    def _nothing(self, name: str, clock: int) -> Frame:
        source = self.sources[name]
        rows = empty(source.schema, Progress(NONE, NONE, NEVER, NEVER, 0, 0))
        return source.step(rows, NONE, self, clock, self.next_seq)

    def end(self, clock: int, *, over: bool) -> Iterator[dict[str, Frame]]:
        """The last steps: time has passed up to `clock`; `over`: finite sources are at their end."""
        yield from self._ticks(clock)
        frames = {}
        self.clock = max(self.clock, clock)
        for name, source in self.sources.items():
            frame = self._nothing(name, self.clock)
            if over and not source.live:
                frame = frame.with_progress(frame.progress._replace(quiet=True, ended=True))
            frames[name] = frame
        yield frames
