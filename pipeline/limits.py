"""How much history is kept: what the sinks that record say of its age and size, and when it is time to see to that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.component import Sink
from pipeline.frame import Frame
from pipeline.journal import history

if TYPE_CHECKING:
    import apsw

PRUNE_NS = 60_000_000_000  # so often at least is the history cut to its limits, while something comes


def frame_bytes(frame: Frame) -> int:
    """About what a Frame takes as bytes; text counts for a pointer."""
    return 8 * len(frame) * (3 + len(frame.columns))


class HistoryLimits:
    """Of all sinks that record: how old (`retention`, ns) and how large (`max_size`, bytes) their streams may become."""

    def __init__(self, sinks: Iterable[Sink], now: int) -> None:
        bounds = [(list(s.context.inputs), getattr(s, "retention", None), getattr(s, "max_size", None)) for s in sinks]
        self.bounds = [(streams, age, size) for streams, age, size in bounds if age or size]
        self.smallest: int | None = min((size for _, _, size in self.bounds if size), default=None)
        self.recorded = 0  # bytes put into the history since it was last cut
        self.cut_at = now

    def record(self, frames: Iterable[Frame]) -> None:
        """These have gone into the history."""
        self.recorded += sum(history.FRAME_BYTES + frame_bytes(frame) for frame in frames)

    def due(self, now: int) -> bool:
        """Often enough that the history is never more than a fiftieth beyond its size, or a minute beyond its time."""
        if self.smallest is not None and self.recorded > self.smallest // 50:
            return True
        return bool(self.bounds) and now - self.cut_at >= PRUNE_NS

    def begun(self, now: int) -> None:
        """It is being cut."""
        self.recorded, self.cut_at = 0, now

    def cut(self, db: apsw.Connection, clock: int) -> None:
        """In a transaction: what is beyond the limits goes."""
        for streams, age, size in self.bounds:
            history.prune(db, streams, clock - age if age else None, size)
