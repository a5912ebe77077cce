"""How many bytes the database has written, from what SQLite knows of itself: nothing is asked of the disk.

A page that is written goes into the log, with a head of 24 bytes; a checkpoint copies the newest of each page in the log into
the database. SQLite counts the first (`SQLITE_DBSTATUS_CACHE_WRITE`); the second are the different page numbers in the heads
of the frames that a checkpoint has passed. Checkpoints are therefore ours (`Log.copy`) and not SQLite's own. A VFS that
counts would be asked at every write, in Python: the writer would wait for the loop to let it run, ten times a commit.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import apsw
import numpy as np

from pipeline.journal.state import pack, unpack

LOG_PAGES = 1_000  # in the log before it is copied, as SQLite's own checkpoints
AGAIN_PAGES = 100  # more, after a copy that a reader has held up
SAVE_BYTES = 1_000_000  # written since the total was last saved: what a kill may make us forget
_HEAD, _FRAME_HEAD = 32, 24  # bytes: of the log, and of each page in it


class Log:
    """The write-ahead log of the one connection that writes: when it is copied, and what that and the commits wrote."""

    def __init__(self, db: apsw.Connection, file: Path | None) -> None:
        self.file = file  # None: it is in memory, and nothing is written
        self.written = 0  # bytes, since the database was made
        self.since = time.time_ns()  # it was made, by the wall clock
        self._saved = 0
        self._page = int(db.pragma("page_size"))
        self._counted = 0  # pages that SQLite said it had written
        self._pages = 0  # of these, since the last copy
        self._due = LOG_PAGES
        self._length = self._copied = 0  # frames in the log after the last copy, and those that it had passed
        if file is None:
            return
        db.wal_autocheckpoint(0)
        for (value,) in db.execute("SELECT value FROM meta WHERE name = 'flash'"):
            self.written, self.since = unpack(value)
            self._saved = self.written
        self.count(db)

    def count(self, db: apsw.Connection) -> None:
        """What the connection has written since it was last asked."""
        if self.file is None:
            return
        pages = db.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0]
        self.written += (pages - self._counted) * (self._page + _FRAME_HEAD)
        self._pages += pages - self._counted
        self._counted = pages

    def save(self, db: apsw.Connection, *, at_once: bool = False) -> None:
        """In a transaction: the total, if enough has come to it."""
        if self.written - self._saved >= SAVE_BYTES or (at_once and self.written > self._saved):
            db.execute("INSERT OR REPLACE INTO meta VALUES ('flash', ?)", (pack([self.written, self.since]),))
            self._saved = self.written

    def copy(self, db: apsw.Connection, *, at_once: bool = False) -> None:
        """Into the database, once it is long enough. A disk that refuses is asked again after some more pages."""
        if self.file is None or not (self._pages >= self._due or at_once):
            return
        self._due = self._pages + AGAIN_PAGES
        with contextlib.suppress(apsw.Error):
            length, copied = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            begun_anew = length < self._length + self._pages  # the one before was copied whole, and nobody read it
            self.written += self._page * self._different(0 if begun_anew else self._copied, copied)
            self._length, self._copied = length, copied
            self._pages, self._due = 0, LOG_PAGES if copied == length else AGAIN_PAGES

    def _different(self, first: int, end: int) -> int:
        """How many pages the frames from `first` to before `end` are of."""
        assert self.file is not None
        size = self._page + _FRAME_HEAD
        if end <= first or not self.file.exists() or os.path.getsize(self.file) < _HEAD + end * size:
            return 0
        bytes_ = np.memmap(self.file, np.uint8, "r")
        numbers = np.ndarray((end - first,), ">u4", bytes_, _HEAD + first * size, (size,))
        return len(np.unique(numbers))
