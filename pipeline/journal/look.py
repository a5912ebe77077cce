"""A look at a state folder from outside, while its pipeline runs or not: nothing there is created or changed."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from urllib.parse import quote

import apsw

from pipeline.journal.schema import DATABASE


def database(folder: Path) -> Path:
    return folder / DATABASE


def in_use(folder: Path) -> bool:
    """True while a process holds the folder."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def connect(folder: Path) -> apsw.Connection:
    """The database, to be read.

    SQLite makes files beside a database even where it only reads. With `readonly_shm` it does not, and needs those of the
    process that runs or was killed; without them nobody writes, and what is there is all there is (`immutable`).
    """
    place = database(folder)
    beside = all(place.with_name(place.name + ending).exists() for ending in ("-wal", "-shm"))
    how = "mode=ro&readonly_shm=1" if beside or in_use(folder) else "mode=ro&immutable=1"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    db = apsw.Connection(f"file:{quote(str(place.absolute()))}?{how}", flags=flags)
    db.set_busy_timeout(10_000)
    return db
