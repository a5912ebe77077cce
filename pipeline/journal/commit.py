"""The one writer: a thread that puts everything that waits into one transaction, and the readers beside it.

Work is a function of the connection. What is handed over while a transaction is being written shares the next one
(group commit), in order. A full or failing disk is not the end: the same work is tried again until there is room, and
meanwhile the engine's input is held back. Any other error stops the writer and is given to everyone who waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw

from pipeline.journal.copier import Copier
from pipeline.journal.files import Files
from pipeline.journal.flash import Log
from pipeline.journal.schema import DATABASE, FORMAT, MIGRATIONS, TABLES

log = logging.getLogger("headwater")

T = TypeVar("T")
Work = Callable[[apsw.Connection], Any]
Done = Callable[[Any, BaseException | None], None]

READERS = 3  # threads that answer questions and read for the compactor; a slow one must not hold up all others
RETRY_S = 0.5  # how soon a commit that the disk refused is tried again
WAL_BYTES = 4_000_000  # what a large transaction made the log grow beyond this is given back
PASSING = (apsw.FullError, apsw.IOError, apsw.BusyError)  # errors of the disk that may heal
DAMAGED = (apsw.CorruptError, apsw.NotADBError)
_PASSING_OS = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


class StateInUse(Exception):
    """Another process holds the state folder, or its database cannot be used."""


class StateDamaged(StateInUse):
    """The database is not what was written: `set_aside` makes room for a new one."""


def passes(error: BaseException) -> bool:
    """True for an error of the disk after which the same may be tried again: it is full, or it failed this time."""
    return isinstance(error, PASSING) or (isinstance(error, OSError) and error.errno in _PASSING_OS)


def set_aside(folder: Path) -> Path:
    """Give the damaged database of a folder a name with the time, so that a new one can take its place."""
    held = lock(folder)
    try:
        name = f"{DATABASE}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        for ending in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                (folder / f"{DATABASE}{ending}").rename(folder / f"{name}{ending}")
    finally:
        os.close(held)
    return folder / name


def those_set_aside(folder: Path) -> list[Path]:
    """The databases that were set aside as damaged, oldest first."""
    return sorted(f for f in folder.glob(f"{DATABASE}.damaged-*Z") if f.is_file())


def lock(folder: Path) -> int:
    """Hold the state folder for this process; the descriptor is released by closing it, or by the process's end."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 100, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise StateInUse(f"the state folder {folder} is in use by process {holder or '(unknown)'}") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _connect(place: str, durability: str, vfs: str | None, *, readonly: bool = False) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_URI | (
        apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    )
    connection = apsw.Connection(place, flags=flags, vfs=vfs)
    connection.set_busy_timeout(10_000)
    if not readonly:
        # WAL: a commit is one append and one fsync, and readers never wait. FULL fsyncs at each commit, NORMAL only at
        # WAL checkpoints: that survives the death of the process, not of the power.
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full" if durability == "power" else "normal")
        connection.pragma("journal_size_limit", WAL_BYTES)
    return connection


class Store:
    """The database of a state folder: `submit` and `write` for the writer thread, `read` for the readers."""

    def __init__(self, folder: Path, durability: str, vfs: str | None = None) -> None:
        self.folder = folder
        self.durability = durability
        self.vfs = vfs  # of SQLite: how it reads and writes; None: the system's
        self.trouble = ""  # why the last commit has not succeeded yet; "" when it has
        self.commits = 0
        self.commit_seconds = 0.0
        self._lock: int | None = None
        self._files: list[Files] = []
        if durability == "none":
            self._place = f"file:/headwater-{id(self)}?vfs=memdb"
        else:
            self._lock = lock(folder)
            self._place = str(folder / DATABASE)
        try:
            self.connection = _connect(self._place, durability, vfs)
            self._prepare()
            self.log = Log(self.connection, None if durability == "none" else folder / f"{DATABASE}-wal")
        except DAMAGED as error:
            self._unlock()
            raise StateDamaged(f"{self._place} is damaged: {error}") from error
        except apsw.Error as error:
            self._unlock()
            if passes(error):
                raise
            raise StateInUse(f"{self._place} cannot be used as a state database: {error}") from error
        except StateInUse:
            self._unlock()
            raise
        self._queue: queue.SimpleQueue[tuple[Work, Done] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._stopping = threading.Event()
        self._readers: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._start()

    def _start(self) -> None:
        if self.log.file is not None:
            self.log.copier = Copier(partial(_connect, self._place, self.durability, self.vfs), self.log.file)
        self._thread = threading.Thread(target=self._write_forever, name="writer", daemon=True)
        self._thread.start()

    def _prepare(self) -> None:
        """New tables, or those of an earlier format brought up to this one, in one transaction."""
        found = self.connection.pragma("user_version")
        if found == FORMAT:
            return
        if found > FORMAT:
            raise StateInUse(
                f"{self._place} was written by a later Headwater (format {found}; this one knows up to {FORMAT}): "
                "install that version again, or start with another state folder"
            )
        with self.connection:
            for earlier in range(found, FORMAT) if found else ():
                self.connection.execute(MIGRATIONS[earlier])
            if not found:
                self.connection.execute(TABLES)
            self.connection.pragma("user_version", FORMAT)

    def files(self) -> Files:
        """Of the sinks that write files: their bytes are as durable as the database's."""
        self._files.append(self._new_files())
        return self._files[-1]

    def _new_files(self) -> Files:
        return Files(sync=self.durability == "power")

    # --- from the loop ---

    @property
    def waiting(self) -> int:
        """Pieces of work handed over and not yet committed."""
        return self._waiting

    def submit(self, work: Work, done: Done) -> None:
        """`work` in the next transaction; then `done(result, None)`, in the loop. Keeps the order of calls."""
        loop = asyncio.get_running_loop()
        self._waiting += 1

        def back(result: Any, error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: no one is left to be told
                loop.call_soon_threadsafe(self._came_back, done, result, error)

        self._queue.put((work, back))

    def _came_back(self, done: Done, result: Any, error: BaseException | None) -> None:
        self._waiting -= 1
        done(result, error)

    async def write(self, work: Callable[[apsw.Connection], T]) -> T:
        """What `work` returns, once it is committed."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.submit(work, done)
        return await future

    async def read(self, work: Callable[[apsw.Connection], T]) -> T:
        """What `work` returns on a read-only connection, in a thread beside the loop."""
        if self._readers is None:
            self._readers = ThreadPoolExecutor(READERS, "reader")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def _read(self, work: Callable[[apsw.Connection], T]) -> T:
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _connect(self._place, self.durability, self.vfs, readonly=True)
        with connection:  # one snapshot for all that the work reads
            found = work(connection)
        return found  # noqa: RET504 - apsw's context manager may swallow, says its type

    def close(self) -> None:
        """Commit what waits, then let go of the folder."""
        self._queue.put(None)
        self._stopping.set()
        self._thread.join()
        if self._readers is not None:
            self._readers.shutdown()
        with contextlib.suppress(apsw.Error), self.connection:
            self.log.save(self.connection, at_once=True)
        self.log.close(self.connection)
        self.connection.close()
        self._let_go()

    def _let_go(self) -> None:
        """Of the files of sinks, and of the folder."""
        for files in self._files:
            files.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- the writer thread ---

    def _write_forever(self) -> None:
        while True:
            group = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while group[-1] is not None:
                    group.append(self._queue.get_nowait())
            last = group[-1] is None
            work = [item for item in group if item is not None]
            if work:
                self._commit(work)
            if last:
                return

    def _commit(self, group: list[tuple[Work, Done]]) -> None:
        """Until it is done, or has failed for good; on a full disk, until there is room."""
        while (error := self._settle(group)) is not None:
            if self._stopping.wait(RETRY_S):
                self._fail(group, error)
                return
        self.log.copy(self.connection)

    def _settle(self, group: list[tuple[Work, Done]]) -> Exception | None:
        """Try once, and tell everyone who waits. The error, if the same is to be tried again and no one was told."""
        started = time.perf_counter()
        try:
            results = self._transaction(group)
        except Exception as error:  # noqa: BLE001 - every waiter must hear of it, whatever it is
            if passes(error):
                if not self.trouble:
                    log.error("the disk refuses a commit, trying again until it does not: %s", error)
                self.trouble = str(error)
                return error
            if len(group) == 1:
                self._fail(group, error)
                return None
            for item in group:  # one of them is to blame: each on its own, so that the others are kept
                self._commit([item])
            return None
        if self.trouble:
            log.warning("the disk takes commits again")
            self.trouble = ""
        self.commits += 1
        self.commit_seconds += time.perf_counter() - started
        for (_, done), result in zip(group, results, strict=True):
            done(result, None)
        return None

    def _fail(self, group: list[tuple[Work, Done]], error: BaseException) -> None:
        for _, done in group:
            done(None, error)

    def _transaction(self, group: list[tuple[Work, Done]]) -> list[Any]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            results = [work(self.connection) for work, _ in group]
            self.log.save(self.connection)
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        finally:
            self.log.count(self.connection)
        return results
