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
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, size)
            size += written
            view = view[written:]
        if self.sync:
            os.fsync(descriptor)
        db.execute("REPLACE INTO files VALUES (?, ?)", (str(path), size))

    def cut(self, db: apsw.Connection, path: Path, header: bytes = b"") -> None:
        """At the start: take away what was written and not committed; a new file gets its header."""
        self.append(db, path, b"", header)
        descriptor = self._descriptor(path)
        os.ftruncate(descriptor, self._committed(db, path, descriptor))

    def _descriptor(self, path: Path) -> int:
        if path not in self._open:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open[path] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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
