"""Files that sinks write: each byte exactly once over crashes, since the database knows how long they were at the commit."""

from __future__ import annotations

import os
from pathlib import Path

import apsw


class Files:
    """Held by the writer thread. Bytes go behind the length of the last commit, so what a crash left there is overwritten."""

    def __init__(self, *, sync: bool) -> None:
        self.sync = sync  # fsync before the commit that counts the bytes
        self._open: dict[Path, int] = {}

    def append(self, db: apsw.Connection, path: Path, data: bytes, header: bytes = b"") -> None:
        """Within a transaction: `data` at the end of the file, `header` before it if the file is empty."""
        descriptor = self._descriptor(path)
        size = self._committed(db, path, descriptor)
        if size == 0:
            data = header + data
        self.write(path, data, size)
        if self.sync:
            self.flush(path)
        db.execute("REPLACE INTO files VALUES (?, ?)", (str(path), size + len(data)))

    def cut(self, db: apsw.Connection, path: Path) -> None:
        """At the start: take away what was written and not committed. A file met for the first time is taken as it is."""
        size = self._committed(db, path, self._descriptor(path))
        self.truncate(path, size)
        db.execute("REPLACE INTO files VALUES (?, ?)", (str(path), size))
        if self.sync:
            self.flush(path)

    def write(self, path: Path, data: bytes, at: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor(path), view, at)
            at += written
            view = view[written:]

    def flush(self, path: Path) -> None:
        os.fsync(self._descriptor(path))

    def truncate(self, path: Path, size: int) -> None:
        os.ftruncate(self._descriptor(path), size)

    def _descriptor(self, path: Path) -> int:
        if path not in self._open:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open[path] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if self.sync:
                sync_name(path)
        return self._open[path]

    def _committed(self, db: apsw.Connection, path: Path, descriptor: int) -> int:
        """Where the next byte goes: never behind the file's end, should someone have emptied it."""
        actual = os.fstat(descriptor).st_size
        for (size,) in db.execute("SELECT size FROM files WHERE path = ?", (str(path),)):
            return min(int(size), actual)
        return actual

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()


def sync_name(path: Path) -> None:
    """So that the name of a file that was made, or got this name, survives the power, too."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
