"""What the rows of all alerts have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.frame import Frame


def alert_names(frame: Frame, stream: str) -> list[str]:
    """The alert that each row is of; of a stream that does not say so, the stream."""
    column = frame.columns.get("alert")
    return [stream] * len(frame) if column is None else [str(name or stream) for name in column.tolist()]
