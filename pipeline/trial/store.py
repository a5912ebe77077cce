"""The writer of a trial: the same transactions, without a thread, so that no time passes and no run differs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from pipeline.journal.commit import Done, Store, Work
from pipeline.journal.files import Files


class InlineStore(Store):
    """What is handed over is committed as soon as the loop gets to it."""

    def __init__(self, folder: Path, durability: str) -> None:
        self._handed: list[tuple[Work, Done]] = []
        self._redirected = RedirectedFiles(folder)
        super().__init__(folder / "state", "none" if durability == "none" else "process")
        self.connection.pragma("synchronous", "off")  # nobody cuts the power of a trial

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()

    def files(self) -> Files:
        return self._redirected

    def submit(self, work: Work, done: Done) -> None:
        self._waiting += 1
        self._handed.append((work, partial(self._came_back, done)))
        if len(self._handed) == 1:
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        group, self._handed = self._handed, []
        if group:
            self._commit(group)

    async def read(self, work: Callable[[apsw.Connection], Any]) -> Any:
        return self._read(work)

    def close(self) -> None:
        self._turn()
        for connection in (getattr(self._local, "connection", None), self.connection):
            if connection is not None:
                connection.close()
        self._redirected.close()
        self._unlock()


class RedirectedFiles(Files):
    """The file sinks' way to the disk: whatever their paths, they end in a folder of the trial's own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(sync=False)
        self.folder = folder / "files"

    def _descriptor(self, path: Path) -> int:
        return super()._descriptor(self.folder / path.absolute().relative_to(path.absolute().anchor))
