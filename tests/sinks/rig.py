"""A sink that delivers, with a real outbox and its courier: what the tests of such sinks share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.component import Sink
from pipeline.frame import NO_PROGRESS, Column, Field, Frame, Schema, column
from pipeline.testing.connectors import Outbox

WINDOWS = Schema("id", {"average": Field("float", True)}, "windows")
ALERTS = Schema("id", {"state": Field("string")}, "alerts")
SCHEMAS = {"ten_seconds": WINDOWS, "hot": ALERTS}


def windows(*averages: float | None) -> Frame:
    n = np.arange(len(averages), dtype=np.int64)
    return Frame(n * 10**9, np.zeros(len(n), np.int32), n, {"average": column("float", averages)}, NO_PROGRESS)


def alert() -> Frame:
    n = np.zeros(1, np.int64)
    return Frame(n, np.zeros(1, np.int32), n, {"state": Column(np.array(["firing"], object))}, NO_PROGRESS)


def rig(folder: Path, sink: Sink) -> Outbox:
    """The sink with a real outbox and its courier."""
    return Outbox(sink, folder)


class Enqueued:
    def __init__(self) -> None:
        self.rows: list[tuple[str, int, bool]] = []

    def enqueue(self, sink: str, stream: str, frame: Frame, *, keep: bool) -> None:
        self.rows.append((stream, len(frame), keep))

    def record(self, stream: str, frame: Frame) -> None: ...
    def append(self, path: Path, data: bytes, header: bytes = b"") -> None: ...
