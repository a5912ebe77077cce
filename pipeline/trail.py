"""Where a file that is written to goes on: after its rotation under another name, after its truncation in a copy."""

from __future__ import annotations

import logging
import os
import re
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

log = logging.getLogger("headwater")

BEHIND = 256  # bytes before a place that tell whether a file is the one that was read
_PACKED = (".gz", ".xz", ".bz2", ".zst")
# What a rotation adds to a name: `.1`, `-20260131`, `.2026-01-31_10-00`.
_DATED = re.compile(r"[-._][-._:TZ0-9]*[0-9][-._:TZ0-9]*")


class Place(NamedTuple):
    """How far a file was read. It is known by what stands just before, since a number of a file is soon used again."""

    inode: int
    offset: int
    behind: tuple[int, int] = (0, 0)  # how many bytes before `offset`, and their check sum
    written: int = 0  # when the file had been written to last, ns: those that came after it were later

    def moved(self, handle: BinaryIO, offset: int) -> Place:
        """Further on in the same file."""
        n = min(offset, BEHIND)
        behind = os.pread(handle.fileno(), n, offset - n)
        return Place(self.inode, offset, (n, zlib.crc32(behind)), os.fstat(handle.fileno()).st_mtime_ns)

    def is_in(self, handle: BinaryIO) -> bool:
        """Does what was read before this place stand in this file?"""
        found = os.fstat(handle.fileno())
        length, checksum = self.behind
        if found.st_size < self.offset or (not length and found.st_ino != self.inode):
            return False
        return zlib.crc32(os.pread(handle.fileno(), length, self.offset - length)) == checksum


class _Found(NamedTuple):
    age: tuple[float, float]  # rises from the oldest to the newest
    path: Path
    inode: int
    size: int


class Trail:
    """The file at a path, and those beside it that were once there."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def open(self, place: Place | None) -> tuple[BinaryIO, Place] | None:
        """The file that goes on from `place`, and where in it; None: there is none yet. Where it is gone (deleted, or
        packed), the one that came after it; without a place the one at the path, each from its beginning."""
        found = self._found()
        if place is not None:
            for candidate in sorted(found, key=lambda f: f.inode != place.inode):
                handle = _opened(candidate.path)
                if handle is not None and place.is_in(handle):
                    return handle, place._replace(inode=os.fstat(handle.fileno()).st_ino)
                if handle is not None:
                    handle.close()
        at = self.path
        if place is not None and place.offset:
            at = next((f.path for f in found if f.age > (place.written, 0.0) and f.size), self.path)
        handle = _opened(at)
        if handle is None:
            return None
        if place is not None and place.offset:
            log.warning("%s: the file read up to byte %d is gone, and what came after in it", self.path, place.offset)
        return handle, Place(os.fstat(handle.fileno()).st_ino, 0)

    def after(self, handle: BinaryIO) -> Place | None:
        """The beginning of the file that came after this one; None as long as nothing has been written to one.

        Until then who writes may still have the old one open.
        """
        own = os.fstat(handle.fileno())
        try:
            if self.path.stat().st_ino == own.st_ino:
                return None  # as nearly always
        except FileNotFoundError:
            pass
        found = self._found()
        age = next((f.age for f in found if f.inode == own.st_ino), (own.st_mtime_ns, float("inf")))
        later = [f for f in found if f.age > age and f.inode != own.st_ino and f.size]
        return Place(later[0].inode, 0) if later else None

    def _found(self) -> list[_Found]:
        """All of them, the oldest first; the one at the path is the newest."""
        found = []
        with os.scandir(self.path.parent) as entries:
            for entry in entries:
                own = entry.name == self.path.name
                if (own or self._was_rotated(entry.name)) and entry.is_file():
                    stat = entry.stat()
                    age = (float("inf"), 0.0) if own else (stat.st_mtime_ns, _number(entry.name))
                    found.append(_Found(age, Path(entry.path), stat.st_ino, stat.st_size))
        return sorted(found)

    def _was_rotated(self, name: str) -> bool:
        """`app.log.1`, `app.log-20260131` or `app-20260131.log` of `app.log`."""
        if name.endswith(_PACKED):
            return False
        for start, end in ((self.path.name, ""), (self.path.stem, self.path.suffix)):
            if name.startswith(start) and name.endswith(end) and len(name) > len(start) + len(end):
                added = name[len(start) : len(name) - len(end)]
                if _DATED.fullmatch(added):
                    return True
        return False


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None


def _number(name: str) -> float:
    """Of files that were last written to in the same moment: `.2` is older than `.1`, `-20260130` than `-20260131`."""
    digits = re.findall(r"\d+", name)
    number = float(digits[-1]) if digits else 0.0
    return -number if number < 10_000 else number
