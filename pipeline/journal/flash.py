"""How many bytes the database has written, from what SQLite knows of itself: nothing is asked of the disk.

A page that is written goes into the log, with a head of 24 bytes; a checkpoint copies the newest of each page in the log into
the database. SQLite counts the first (`SQLITE_DBSTATUS_CACHE_WRITE`); the second are the different page numbers in the heads
of the frames that a checkpoint has passed. Checkpoints are therefore ours (`Log.copy`) and not SQLite's own. A VFS that
counts would be asked at every write, in Python: the writer would wait for the loop to let it run, ten times a commit.
"""

from __future__ import annotations

import time
from pathlib import Path

import apsw

from pipeline.journal.copier import FRAME_HEAD, Copied, Copier, Mark, copy
from pipeline.journal.state import pack, unpack

LOG_PAGES = 1_000  # in the log before it is copied, as SQLite's own checkpoints
AGAIN_PAGES = 100  # more, after a copy that a reader or the disk has held up
REST_PAGES = 100  # that came while the copier copied: so few the writer copies by itself
LONGEST_PAGES = 8_000  # a disk that takes pages more slowly than they come: the writer waits
SAVE_BYTES = 1_000_000  # written since the total was last saved: what a kill may make us forget


class Log:
    """The write-ahead log of the one connection that writes: when it is copied, and what that and the commits wrote."""

    def __init__(self, db: apsw.Connection, file: Path | None) -> None:
        self.file = file  # None: it is in memory, and nothing is written
        self.copier: Copier | None = None  # None: the writer copies all by itself
        self.written = 0  # bytes, since the database was made
        self.since = time.time_ns()  # it was made, by the wall clock
        self._saved = 0
        self._page = int(db.pragma("page_size"))
        self._counted = 0  # pages that SQLite said it had written
        self._pages = 0  # of these, since the last copy began
        self._due = LOG_PAGES
        self._length = 0  # frames in the log before these
        self._mark = Mark()
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
        self.written += (pages - self._counted) * (self._page + FRAME_HEAD)
        self._pages += pages - self._counted
        self._counted = pages

    def save(self, db: apsw.Connection, *, at_once: bool = False) -> None:
        """In a transaction: the total, if enough has come to it."""
        if self.written - self._saved >= SAVE_BYTES or (at_once and self.written > self._saved):
            db.execute("INSERT OR REPLACE INTO meta VALUES ('flash', ?)", (pack([self.written, self.since]),))
            self._saved = self.written

    def copy(self, db: apsw.Connection) -> None:
        """Into the database, once it is long enough: the bulk by the copier, and what came meanwhile at once."""
        if self.file is None:
            return
        if self.copier is not None and self.copier.busy:
            if self.copier.done() or self._too_long:
                self._take(db, self.copier)
        elif self._pages >= self._due:
            self._begin(db)

    def close(self, db: apsw.Connection) -> None:
        """The last copy, of all that is left."""
        if self.copier is not None:
            if self.copier.busy:
                self._passed(self.copier.result())
            self.copier.close()
        if self.file is not None:
            self.count(db)
            self._copy(db)

    @property
    def _too_long(self) -> bool:
        return self._length + self._pages >= LONGEST_PAGES

    def _take(self, db: apsw.Connection, copier: Copier) -> None:
        """What the copier has done, and the rest: the log begins anew only once nothing is left to copy."""
        whole = self._passed(copier.result())
        if whole and (self._pages <= REST_PAGES or self._too_long):
            self._copy(db)
        elif whole:
            self._begin(db)

    def _begin(self, db: apsw.Connection) -> None:
        if self.copier is None:
            self._copy(db)
        else:
            self._length += self._pages
            self._pages = 0
            self.copier.order(self._mark)

    def _copy(self, db: apsw.Connection) -> None:
        assert self.file is not None
        self._pages = 0
        if self._passed(copy(db, self.file, self._mark)):
            self._length = 0  # the next commit begins it anew

    def _passed(self, copied: Copied | None) -> bool:
        """Whether all that was there is copied. If not, a reader or the disk is asked again after some more pages."""
        whole = copied is not None and copied.whole
        self._due = LOG_PAGES if whole else self._pages + AGAIN_PAGES
        if copied is not None:
            self.written += self._page * copied.pages
            self._length, self._mark = copied.length, copied.mark
        return whole
