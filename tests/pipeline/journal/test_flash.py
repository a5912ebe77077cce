"""What the store says it has written is what an SQLite VFS beneath it counts."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path

import apsw
import pytest

from benchmarks.durability import Counted, running
from pipeline.estimate import COMMIT_BYTES
from pipeline.journal.commit import Store
from pipeline.journal.flash import SAVE_BYTES


@pytest.fixture(scope="module")
def vfs() -> Counted:
    return Counted()


def insert(rows: list[tuple[int, bytes]], db: apsw.Connection) -> None:
    db.executemany("INSERT OR IGNORE INTO steps VALUES (?, ?)", rows)


async def fill(store: Store, commits: int, chance: random.Random) -> None:
    for _ in range(commits):
        rows = [(chance.randrange(10**9), bytes(chance.randrange(9_000)))]
        await store.write(partial(insert, rows))


async def settle(store: Store) -> None:
    """Until no copy of the log is on its way: its pages are counted when it has ended."""
    while True:
        for _ in range(2):  # a commit is told of before the log is looked at, and the next one after that
            await store.write(lambda _: None)
        if store.log.copier is None or not store.log.copier.busy:
            return
        await asyncio.sleep(0.001)


async def opened(folder: Path) -> Store:
    store = Store(folder, "process", vfs="counted")
    await store.write(lambda _: None)
    return store


async def test_commits_and_checkpoints_are_counted_to_the_page(tmp_path: Path, vfs: Counted) -> None:
    """Pages in the log, and those that checkpoints copy, also while a reader holds one up. The log's own head is left out."""
    before, chance = vfs.bytes, random.Random(1)
    store = await opened(tmp_path)
    await fill(store, 1_500, chance)
    reader = apsw.Connection(str(tmp_path / "headwater.db"), vfs="counted")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM steps").fetchall()
    await fill(store, 1_200, chance)
    reader.close()
    await fill(store, 1_500, chance)
    await settle(store)
    counted = vfs.bytes - before
    assert counted > 30_000_000
    assert store.log.written == pytest.approx(counted, rel=1e-3)
    assert (tmp_path / "headwater.db-wal").stat().st_size < 20_000_000  # the log is copied all the same
    store.close()
    assert store.log.written == pytest.approx(vfs.bytes - before, rel=1e-3)


async def test_the_total_survives_a_stop_and_all_but_a_little_a_kill(tmp_path: Path, vfs: Counted) -> None:
    chance = random.Random(2)
    store = await opened(tmp_path)
    await fill(store, 600, chance)
    written, since = store.log.written, store.log.since
    other = apsw.Connection(
        str(tmp_path / "headwater.db"), vfs="counted"
    )  # as another start would see it, after a kill
    ((saved,),) = other.execute("SELECT value FROM meta WHERE name = 'flash'")
    other.close()
    assert saved
    store.close()
    again = await opened(tmp_path)
    assert again.log.since == since
    assert written <= again.log.written < written + SAVE_BYTES
    again.close()


async def test_nothing_is_written_in_memory(tmp_path: Path) -> None:
    store = Store(tmp_path, "none")
    await fill(store, 50, random.Random(3))
    assert store.log.written == 0
    store.close()


async def test_the_estimate_of_check_agrees(tmp_path: Path, vfs: Counted) -> None:
    """Of a running pipeline with a window, an alert and a history: what a commit of a few readings writes."""
    async with running(tmp_path, vfs, "process") as pipeline:
        await pipeline.post(100, 100)
        await settle(pipeline.store)
        commits, written, counted = pipeline.store.commits, pipeline.store.log.written, vfs.bytes
        for _ in range(400):
            await pipeline.post(3, 100, every_ms=0)
        await settle(pipeline.store)
        log = pipeline.store.log.written - written
        assert log == pytest.approx(vfs.bytes - counted, rel=0.01)
        assert COMMIT_BYTES / 2 < log / (pipeline.store.commits - commits) < COMMIT_BYTES * 1.5
        assert pipeline.services.health()["flash"]["written_bytes"] == pipeline.store.log.written
