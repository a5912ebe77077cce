"""Rearranges the history beside the engine: a piece at a time, read and packed in other threads, put in place by the writer."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import apsw

from pipeline.journal import compaction, rollup
from pipeline.journal.rollup import Wanted

if TYPE_CHECKING:
    from pipeline.journal.commit import Store

log = logging.getLogger("headwater")

EVERY_S = 30.0
AT_ONCE = 8  # chunks packed in one go, 2 to 3 ms: then others get their turn


class Compactor:
    """For each recorded stream, as long as there is something worth it (pipeline/journal/compaction.py says what)."""

    def __init__(
        self,
        store: Store,
        streams: Iterable[str],
        keys: Callable[[str], int],
        rollups: Mapping[str, Wanted] | None = None,
    ) -> None:
        self.store = store
        self.streams = list(streams)
        self.rollups = rollups or {}
        self.keys = keys  # about how many a stream has
        self.pieces = 0  # done since the start

    async def run(self) -> None:
        """Until cancelled. What goes wrong with the disk is tried again the next time."""
        commits = -1
        await self._tried(self.begin)
        while True:
            await asyncio.sleep(EVERY_S)
            if self.store.commits == commits:
                continue  # nothing has come
            await self._tried(self.work)
            commits = self.store.commits

    async def _tried(self, do: Callable[[], Awaitable[None]]) -> None:
        try:
            await do()
        except (apsw.Error, OSError) as error:
            log.warning("the history could not be rearranged, trying again later: %s", error)

    async def begin(self) -> None:
        """Rollups are known from the start: they can be asked for before the first piece of work."""
        if self.rollups:
            await self.store.write(lambda db: rollup.register(db, self.rollups))

    async def work(self) -> None:
        """All that there is to do now."""
        levels: list[tuple[str, int]] = []
        await self.begin()
        if self.rollups:
            known = await self.store.read(rollup.known)
            levels = [(level.name, self.keys(stream)) for stream in self.rollups for level in known.of(stream)]
        for stream, keys in [*((stream, self.keys(stream)) for stream in self.streams), *levels]:
            while await self.piece(stream, keys):
                self.pieces += 1

    async def piece(self, stream: str, keys: int) -> bool:
        """One piece of work. False: there is none, or what it was about is gone."""
        wanted = self.rollups.get(stream, rollup.NONE)
        piece = await self.store.read(lambda db: compaction.find(db, stream, keys, wanted))
        if piece is None:
            return False
        packing = piece.packed()
        chunks = []
        while some := await self.store.read(lambda _: list(itertools.islice(packing, AT_ONCE))):
            chunks += some
        return await self.store.write(lambda db: compaction.replace(db, piece, chunks))
