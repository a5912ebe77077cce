"""How much history is kept: what the sinks that record say of its age and size, and when it is time to see to that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.component import Sink
from pipeline.frame import Frame
from pipeline.journal import history, retention, rollup
from pipeline.journal.rollup import Wanted

if TYPE_CHECKING:
    import apsw

PRUNE_NS = 60_000_000_000  # so often at least is the history cut to its limits, while something comes


def frame_bytes(frame: Frame) -> int:
    """About what a Frame takes as bytes; text counts for a pointer."""
    return 8 * len(frame) * (3 + len(frame.columns))


class HistoryLimits:
    """Of all sinks that record: how old and how large their streams may become, and for how long their rollups are kept."""

    def __init__(self, sinks: Iterable[Sink], now: int) -> None:
        sinks = list(sinks)
        self.bounds = [kept for sink in sinks for kept in sink.kept if kept.age or kept.size]
        self.ages: dict[str, dict[int, int]] = {}  # of rollups, by stream and interval
        self.rollups: dict[str, Wanted] = {}  # by stream
        for sink in sinks:
            for stream, ages in sink.rollups.items():
                known = self.ages.setdefault(stream, {})
                for interval, given in ages.items():
                    every, age = int(interval), int(given or rollup.age_of(interval))
                    known[every] = min(age, known.get(every, age))
                corrected = history.corrects(sink.context.inputs[stream])
                self.rollups[stream] = Wanted(tuple(known), corrected)
        self.smallest: int | None = min((kept.size for kept in self.bounds if kept.size), default=None)
        self.recorded = 0  # bytes put into the history since it was last cut
        self.cut_at = now

    def record(self, frames: Iterable[Frame]) -> None:
        """These have gone into the history."""
        self.recorded += sum(history.FRAME_BYTES + frame_bytes(frame) for frame in frames)

    def due(self, now: int) -> bool:
        """Often enough that the history is never more than a fiftieth beyond its size, or a minute beyond its time."""
        if self.smallest is not None and self.recorded > self.smallest // 50:
            return True
        return bool(self.bounds or self.rollups) and now - self.cut_at >= PRUNE_NS

    def begun(self, now: int) -> None:
        """It is being cut."""
        self.recorded, self.cut_at = 0, now

    def cut(self, db: apsw.Connection, clock: int) -> None:
        """In a transaction: what is beyond the limits goes. A rollup that the pipeline file no longer names goes in time."""
        if self.rollups:
            rollup.register(db, self.rollups)
        for streams, age, size in self.bounds:
            retention.prune(db, streams, clock - age if age else None, size, self.rollups)
        known = rollup.known(db)
        for stream in known.levels:
            for level in known.of(stream):
                age = self.ages.get(stream, {}).get(level.every, rollup.age_of(level.every))
                retention.prune(db, [level.name], clock - age, None)
