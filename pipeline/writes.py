"""All that one step writes, in one transaction: its journal entry, the history, the outbox, files, dead letters."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import apsw

from pipeline.component import Receipt
from pipeline.frame import Frame
from pipeline.inbox import REQUESTS_KEPT
from pipeline.journal import alerts, dead, outbox, state
from pipeline.journal import history as frames
from pipeline.journal.files import Files


class Writes:
    """All that one step writes, as work for the writer thread. What sinks add to is `StepWrites`."""

    def __init__(self, files: Files, step: int, entry: state.Entry) -> None:
        self.files = files
        self.step = step
        self.entry = entry
        self.journal: dict[str, Frame] = {}  # by stream: what cannot be read again

        self.history: dict[str, Frame] = {}
        self.appends: list[tuple[Path, bytes, bytes]] = []
        self.outbox: list[tuple[str, str, Frame, bool]] = []
        self.positions: dict[str, Any] = {}
        self.keys: tuple[int, list[str]] = (0, [])
        self.injected: dict[str, Frame] = {}  # rows that went into single operators: of dead letters, of files
        self.letters: list[dead.Buried] = []
        self.replayed: list[int] = []  # letters that were taken in this step
        self.refused_again: dict[int, str] = {}  # letters that were tried in it and stay, with the new reason
        self.requests: list[tuple[str, str, Receipt]] = []
        self.unsure: Collection[str] = ()  # streams whose times may be wrong in this step

    def record(self, stream: str, frame: Frame) -> None:
        self.history[stream] = frame

    def append(self, path: Path, data: bytes, header: bytes = b"") -> None:
        self.appends.append((path, data, header))

    def enqueue(self, sink: str, stream: str, frame: Frame, *, keep: bool) -> None:
        self.outbox.append((sink, stream, frame, keep))

    def __call__(self, db: apsw.Connection) -> None:
        """In the writer thread, inside the transaction."""
        first, names = self.keys
        if names:
            state.add_keys(db, first, names)
        for name, frame in self.journal.items():
            kept = self.history.get(name) is frame
            id_ = self._put(db, name, frame, journal=True, history=kept)
            source, _, output = name.partition(".")
            if output:
                self.entry.parts[source].refused = id_
            else:
                self.entry.parts[source].frame = id_
        self.entry.injected = [
            (node, self._put(db, node, frame, journal=True, history=False)) for node, frame in self.injected.items()
        ]
        state.add_entry(db, self.step, self.entry)
        for stream, frame in self.history.items():
            if self.journal.get(stream) is not frame:
                self._put(db, stream, frame, journal=False, history=True)
        for sink, stream, frame, keep in self.outbox:
            heard = alerts.audible(db, sink, stream, frame, self.entry.clock) if keep else frame
            if len(heard):
                outbox.put(db, sink, stream, heard, keep=keep, clock=self.entry.clock)
        for source, position in self.positions.items():
            state.save_position(db, source, position)
        for source, request, receipt in self.requests:
            state.remember(db, source, request, self.entry.clock, state.pack(list(receipt)), keep=REQUESTS_KEPT)
        if self.replayed or self.refused_again:
            dead.forget(db, self.replayed)
            dead.refuse_again(db, self.refused_again.items())
        if self.letters:
            dead.bury(db, self.letters)
        for path, data, header in self.appends:
            self.files.append(db, path, data, header)

    def _put(self, db: apsw.Connection, stream: str, frame: Frame, *, journal: bool, history: bool) -> int:
        unsure = stream in self.unsure
        return frames.put(db, self.step, stream, frame, journal=journal, history=history, unsure=unsure)
