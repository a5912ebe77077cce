"""Copies the write-ahead log into the database, beside the writer: commits go on meanwhile.

A copy of 1,000 pages takes some milliseconds (tens on an SD card); inside the writer each reading that came meanwhile waited
for it. SQLite allows one connection to copy while another appends to the log, but begins the log anew only when all of it was
copied, and a writer that never rests is always some pages ahead. So the copier takes the bulk, and the writer the few pages
that came meanwhile (`flash.Log.copy`).
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import msgspec
import numpy as np

_HEAD, FRAME_HEAD = 32, 24  # bytes: of the log, and of each page in it
_SALTS, _FRAME_SALTS = slice(16, 24), slice(8, 16)  # in these heads: others once the log has begun anew
_FRAMES = 256  # read at a time


class Mark(msgspec.Struct, frozen=True):
    """How far a log has been copied: the frames of the log that has these salts."""

    salts: bytes = b""
    frames: int = 0


class Copied(msgspec.Struct, frozen=True):
    """What one copy did."""

    length: int  # frames in the log
    mark: Mark  # those that are in the database
    pages: int  # written to the database

    @property
    def whole(self) -> bool:
        return self.mark.frames == self.length


def copy(db: apsw.Connection, file: Path, before: Mark) -> Copied | None:
    """Copy what the readers allow; `before` is where the last copy ended. None: the disk refused, or another copies.

    The log is read before it is copied, for the count of pages: a log that is copied whole may begin anew at once.
    """
    page = int(db.pragma("page_size"))
    start, numbers = _pages(file, page, before)
    try:
        length, frames = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    except apsw.Error:
        return None
    now, rest = _pages(file, page, Mark(start.salts, start.frames + len(numbers)))  # what has come since it was read
    if now.salts == start.salts:
        numbers = np.concatenate([numbers, rest])
    new, whole = max(frames - start.frames, 0), length - start.frames
    # Of a page that is in the log again after the last frame that is copied, SQLite copies neither.
    return Copied(length, Mark(start.salts, frames), len(np.setdiff1d(numbers[:new], numbers[new:whole])))


def _pages(file: Path, page: int, after: Mark) -> tuple[Mark, np.ndarray]:
    """The number of the page in each frame of the log after those of `after`, and where that begins: at 0 in another log.

    Read, not mapped: a writer that begins the log anew may cut it, and a mapped page that is gone ends the process.
    """
    size = page + FRAME_HEAD
    found = [np.empty(0, ">u4")]
    start = Mark()
    with contextlib.suppress(OSError), file.open("rb") as log:  # it is copied, whether it can be counted or not
        salts = log.read(_HEAD)[_SALTS]
        start = after if salts == after.salts else Mark(salts)
        log.seek(_HEAD + size * start.frames)
        while bytes_ := log.read(_FRAMES * size):
            frames = np.frombuffer(bytes_, np.uint8, len(bytes_) // size * size).reshape(-1, size)
            valid = (frames[:, _FRAME_SALTS] == np.frombuffer(salts, np.uint8)).all(axis=1)
            n = len(frames) if valid.all() else int(valid.argmin())
            found.append(frames[:n, :4].copy().view(">u4")[:, 0])
            if n < _FRAMES:
                break
    return start, np.concatenate(found)


class Copier:
    """A thread with a connection of its own, made at the first order; one copy at a time."""

    def __init__(self, connect: Callable[[], apsw.Connection], file: Path) -> None:
        self.busy = False  # ordered, and its result not yet taken
        self._connect = connect
        self._file = file
        self._orders: queue.SimpleQueue[Mark | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Copied | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def order(self, before: Mark) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._copy_forever, name="copier", daemon=True)
            self._thread.start()
        self.busy = True
        self._orders.put(before)

    def done(self) -> bool:
        """Whether `result` would return at once."""
        return self.busy and not self._results.empty()

    def result(self) -> Copied | None:
        """Of the last order, once it is there. None: nothing was copied."""
        found = self._results.get()
        self.busy = False
        return found

    def close(self) -> None:
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()

    def _copy_forever(self) -> None:
        connection: apsw.Connection | None = None
        while (before := self._orders.get()) is not None:
            found = None
            try:
                connection = connection or self._connect()
                found = copy(connection, self._file, before)
            except apsw.Error:
                pass  # the disk gives no connection now: the writer orders again after some more pages
            finally:
                self._results.put(found)
        if connection is not None:
            connection.close()
