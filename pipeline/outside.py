"""Files that operators read beside their streams: looked at off the hot path, and brought into a step when they change.

What a file holds enters as part of a step and is in the journal with it, like a reading; so a replay sees what was seen.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.frame import Frame, outside_frame

if TYPE_CHECKING:
    from pipeline.component import OperatorContext, OutsideFile
    from pipeline.frame import Column

log = logging.getLogger("headwater")

LOOK_S = (
    2.0  # a file is looked at this often, and taken once it has stayed the same for so long: it may be being written
)

Sign = tuple[int, int, int] | None  # of what a file holds, without reading it; None: there is none


class _Watched:
    """One file, and what is known of it."""

    def __init__(self, file: OutsideFile) -> None:
        self.file = file
        self.seen: Sign = None  # at the last look
        self.taken: Sign = None  # when it was last read, well or not
        self.digest = b""  # of what was last brought

    def look(self) -> dict[str, Column] | None:
        """Its rows, none if they are those from before; None: it need not be read. An error if they cannot be had."""
        before, self.seen = self.seen, _sign(self.file.path)
        return None if self.seen != before or self.seen == self.taken else self.read()

    def read(self) -> dict[str, Column]:
        self.seen = self.taken = _sign(self.file.path)
        try:
            with self.file.path.open("rb") as opened:
                data = opened.read(self.file.most + 1)
        except OSError as error:
            raise ValueError(error.strerror or str(error)) from error
        if len(data) > self.file.most:
            raise ValueError(f"it is larger than {self.file.most:,} bytes")
        digest = hashlib.blake2b(data).digest()
        if digest == self.digest:
            return {}
        columns = self.file.read(data)
        self.digest = digest
        return columns


def _sign(path: Path) -> Sign:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class Outside:
    """The files of all operators, by where their rows go (as `Graph.push` takes it)."""

    def __init__(self, operators: Mapping[str, OperatorContext], wake: Callable[[], None]) -> None:
        self.wake = wake
        self.troubles: dict[str, str] = {}  # of a file that cannot be read, for /health
        self._brought: dict[str, dict[str, Column]] = {}  # waits for a step
        self._watched = {
            f"{node}.{name}": _Watched(file)
            for node, context in operators.items()
            for name, file in context.files.items()
        }

    def __bool__(self) -> bool:
        """Something waits for a step."""
        return bool(self._brought)

    def begin(self) -> None:
        """All that there is, for the first step. ValueError if an operator cannot do without one that cannot be read."""
        for address, watched in self._watched.items():
            try:
                self._found(address, watched.read())
            except Exception as error:
                if watched.file.needed():
                    raise ValueError(self._told(address, error)) from error
                self._troubled(address, error)

    async def watch(self) -> None:
        """Until cancelled."""
        while self._watched:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Once at every file."""
        for address, watched in self._watched.items():
            try:
                found = await asyncio.to_thread(watched.look)
            except Exception as error:  # noqa: BLE001 - as above
                self._troubled(address, error)
            else:
                if found is not None:
                    self._found(address, found)

    def _found(self, address: str, columns: dict[str, Column]) -> None:
        self.troubles.pop(address, None)
        if columns:
            self._brought[address] = columns
            self.wake()

    def _troubled(self, address: str, error: Exception) -> None:
        self.troubles[address] = self._told(address, error)
        log.error("%s", self.troubles[address])

    def _told(self, address: str, error: Exception) -> str:
        name = self._watched[address].file.path.name
        return f'{address.partition(".")[0]}: "{name}" cannot be taken: {error}'

    def take(self, first: int) -> tuple[dict[str, Frame], int]:
        """What waits, for this step, numbered from `first`; and the number after it."""
        brought, self._brought = self._brought, {}
        frames = {address: outside_frame(columns, first + i) for i, (address, columns) in enumerate(brought.items())}
        return frames, first + len(frames)
