"""A disk that loses what hardware loses: SQLite's and the file sinks' writes go to real files, and beside it is kept what
of them a power cut would leave.

A write counts as durable once the file was synced after it. At a cut each later one is kept, lost or torn, in any
combination (so the order of writes is lost, too), and a file that was never synced may be gone altogether. A failed sync
leaves what it should have written in the cache and never durable, as Linux does. A kill loses nothing that was written.

Why this way, and not a record of writes that is replayed to every point: the engine runs while the disk fails, so that
what it does about a full disk is tried, too; and a crash at one point of one seed costs one run, not one for each prefix.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from pipeline.journal.files import Files


class Cut(Exception):
    """The power is off: nothing can be read or written any more."""


@dataclass
class _File:
    durable: bytearray | None = None  # None: its name is not on the disk yet
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, data); data None: cut to offset


class Disk:
    """`writes` counts every write, sync and truncation; the fault planned for a number happens there."""

    def __init__(self, chance: random.Random, folder: Path) -> None:
        self.chance = chance
        self.folder = folder
        self.files: dict[str, _File] = {}
        self.writes = 0
        self.syncs = 0
        self.crash_at: int | None = None
        self.full_until = self.failing_until = -1  # numbers of writes up to which each is refused
        self.sync_fails_at = -1
        self.full = False  # for as long as it is set
        self.dead = False
        self.ignores_sync: Callable[[str], bool] = lambda path: False  # a planted fault
        self.on_crash: Callable[[], None] = lambda: None
        self.on_write: dict[int, Callable[[], None]] = {}  # by the number of the write

    def _file(self, path: str) -> _File:
        return self.files.setdefault(path, _File())

    def _count(self) -> None:
        if self.dead:
            raise Cut
        self.writes += 1
        if self.writes in self.on_write:
            self.on_write[self.writes]()
        if self.crash_at is not None and self.writes >= self.crash_at:
            self.dead = True
            self.on_crash()

    def _refused(self) -> bool:
        return self.full or self.writes <= self.full_until

    def write(self, path: str, offset: int, data: bytes, really: Callable[[bytes], None], full: Exception) -> None:
        self._count()
        if self._refused() and not self.dead:
            raise full
        if self.writes <= self.failing_until and not self.dead:
            raise apsw.IOError if isinstance(full, apsw.Error) else OSError(errno.EIO, "it failed")
        self._file(path).pending.append((offset, data))
        really(data)
        if self.dead:
            raise Cut

    def truncate(self, path: str, size: int, really: Callable[[], None]) -> None:
        self._count()
        self._file(path).pending.append((size, None))
        really()
        if self.dead:
            raise Cut

    def sync(self, path: str) -> None:
        self._count()
        if self.dead:
            raise Cut
        self.syncs += 1
        if self.ignores_sync(path):
            return
        file = self._file(path)
        if self.writes == self.sync_fails_at:
            # What could not be written is forgotten: a later sync says nothing about it.
            file.pending.clear()
            raise apsw.IOError
        contents = bytearray() if file.durable is None else file.durable
        for change in file.pending:
            contents = _changed(contents, *change)
        file.durable, file.pending = contents, []

    def delete(self, path: str) -> None:
        if self.dead:
            raise Cut
        self.files.pop(path, None)

    def after_cut(self) -> dict[str, bytes]:
        """What is on the disk when the power comes back."""
        left = {}
        for path, file in self.files.items():
            how = self.chance.choice(["none", "all", "each"])
            if file.durable is None and (how == "none" or not file.pending):
                continue
            contents = bytearray() if file.durable is None else bytearray(file.durable)
            for offset, data in file.pending:
                luck = self.chance.random()
                if how == "none" or (how == "each" and luck < 0.5):
                    continue
                torn = how == "each" and data is not None and luck < 0.6 and len(data) > 1
                contents = _changed(
                    contents, offset, data[: self.chance.randrange(len(data))] if torn and data else data
                )
            left[path] = bytes(contents)
        return left

    def come_back(self, *, power: bool) -> None:
        """Real files as a kill (everything that was written) or a power cut leaves them."""
        left = self.after_cut() if power else None
        for file in [f for f in self.folder.rglob("*") if f.is_file()]:
            data = file.read_bytes() if left is None else left.get(str(file))
            if file.name.endswith("-shm") or file.name == "lock":
                file.unlink()
            elif file.name.endswith((".db", "-wal", ".csv")):
                file.unlink()  # a new file of that name: whoever has the old one open does not see it
                if data is not None:
                    file.write_bytes(data)
        kept = {} if left is None else left
        self.files = {path: _File(bytearray(data)) for path, data in kept.items()} if power else self.files
        self.dead, self.crash_at = False, None
        self.full_until = self.failing_until = self.sync_fails_at = -1


def _changed(contents: bytearray, offset: int, data: bytes | None) -> bytearray:
    if data is None:
        return contents[:offset]
    if len(contents) < offset:
        contents = contents + bytes(offset - len(contents))
    contents[offset : offset + len(data)] = data
    return contents


class SimulatedVFS(apsw.VFS):
    """SQLite's way to the disk."""

    def __init__(self, name: str, disk: Disk) -> None:
        self.disk = disk
        self.name = name
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        if self.disk.dead:
            raise Cut
        return _SimulatedFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.disk.delete(filename)
        super().xDelete(filename, syncdir)


class _SimulatedFile(apsw.VFSFile):
    def __init__(self, vfs: SimulatedVFS, name: Any, flags: list[int]) -> None:
        self.disk = vfs.disk
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        below = super().xWrite
        self.disk.write(self.path, offset, bytes(data), lambda d: below(d, offset), apsw.FullError("the disk is full"))

    def xTruncate(self, newsize: int) -> None:
        below = super().xTruncate
        self.disk.truncate(self.path, newsize, lambda: below(newsize))

    def xSync(self, flags: int) -> None:
        self.disk.sync(self.path)  # the real files may stay in the cache


class SimulatedFiles(Files):
    """The file sinks' way to the disk."""

    def __init__(self, disk: Disk, *, sync: bool) -> None:
        super().__init__(sync=sync)
        self.disk = disk

    def write(self, path: Path, data: bytes, at: int) -> None:
        below = super().write
        if data:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.disk.write(str(path), at, data, lambda d: below(path, d, at), full)

    def flush(self, path: Path) -> None:
        self.disk.sync(str(path))

    def truncate(self, path: Path, size: int) -> None:
        below = super().truncate
        self.disk.truncate(str(path), size, lambda: below(path, size))
