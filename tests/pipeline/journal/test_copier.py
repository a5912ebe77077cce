"""The log is copied beside the writer: commits go on, the log begins anew, and a disk that is too slow holds up the writer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from pipeline.journal.commit import Store
from pipeline.journal.copier import Copied
from pipeline.journal.flash import LONGEST_PAGES, REST_PAGES
from tests.waiting import eventually

FRAME = 4_096 + 24
WRITERS = 8  # at a time: something always waits for the next commit


class Watched(apsw.VFS):
    """The system's files; the writes to the database itself, which only copies make, pass through `on_write`."""

    def __init__(self) -> None:
        super().__init__("watched", "")
        self.on_write: Callable[[], None] = lambda: None
        self.copied_by: set[str] = set()

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, vfs: Watched, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self.vfs = vfs
        self.database = bool(flags[0] & apsw.SQLITE_OPEN_MAIN_DB)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self.database:
            self.vfs.copied_by.add(threading.current_thread().name)
            self.vfs.on_write()
        super().xWrite(data, offset)


@pytest.fixture(scope="module")
def registered() -> Watched:
    return Watched()


@pytest.fixture
def vfs(registered: Watched) -> Watched:
    registered.on_write = lambda: None
    registered.copied_by.clear()
    return registered


def insert(number: int, db: apsw.Connection) -> None:
    db.execute("INSERT INTO steps VALUES (?, ?)", (number, bytes(9_000)))


async def fill(store: Store, first: int, end: int) -> None:
    """A commit each."""
    for number in range(first, end):
        await store.write(partial(insert, number))


def numbers(folder: Path) -> list[int]:
    """What another process would find."""
    db = apsw.Connection(str(folder / "headwater.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [number for (number,) in db.execute("SELECT step FROM steps ORDER BY step")]
    finally:
        db.close()


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_the_bulk_is_copied_beside_the_writer_and_the_log_begins_anew(
    tmp_path: Path, vfs: Watched, durability: str
) -> None:
    store = Store(tmp_path, durability, vfs="watched")
    vfs.copied_by.clear()
    logs = set()

    async def without_rest(first: int) -> None:
        for number in range(first, 3_000, WRITERS):
            await store.write(partial(insert, number))
            logs.add(store.log._mark.salts)

    await asyncio.gather(*map(without_rest, range(WRITERS)))
    assert "copier" in vfs.copied_by
    assert len(logs) > 2, "the log never began anew"
    assert numbers(tmp_path) == list(range(3_000))
    store.close()
    assert not (tmp_path / "headwater.db-wal").exists()
    assert numbers(tmp_path) == list(range(3_000))


async def test_commits_go_on_while_a_copy_hangs(tmp_path: Path, vfs: Watched) -> None:
    going_on = threading.Event()
    hangs = threading.Event()

    def hang() -> None:
        hangs.set()
        going_on.wait()

    store = Store(tmp_path, "process", vfs="watched")
    vfs.copied_by.clear()
    try:
        vfs.on_write = hang
        n = 0
        while not hangs.is_set():
            await store.write(partial(insert, n))
            n += 1
        await fill(store, n, n + 20)
        assert numbers(tmp_path) == list(range(n + 20))
        assert vfs.copied_by == {"copier"}
        going_on.set()
        n += 20
        while "writer" not in vfs.copied_by and n < LONGEST_PAGES:
            await fill(store, n, n + 1)
            n += 1
        assert "writer" in vfs.copied_by  # of what came meanwhile: nothing is left then, and the log begins anew
    finally:
        going_on.set()
        store.close()
    assert numbers(tmp_path) == list(range(n))


async def test_a_disk_that_takes_pages_too_slowly_holds_up_the_writer(
    tmp_path: Path, vfs: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the log is what grows: as long as it may be it gets, and not longer."""
    going_on, waits = threading.Event(), threading.Event()
    store = Store(tmp_path, "process", vfs="watched")
    copier = store.log.copier
    assert copier is not None
    result = copier.result

    def hang() -> None:
        going_on.wait()

    def waited() -> Copied | None:
        waits.set()
        return result()

    monkeypatch.setattr(copier, "result", waited)
    vfs.on_write = hang
    filling = asyncio.create_task(fill(store, 0, LONGEST_PAGES))  # three pages or more each
    try:
        await eventually(waits.is_set)
        assert not filling.done()
        assert (tmp_path / "headwater.db-wal").stat().st_size < (LONGEST_PAGES + REST_PAGES) * FRAME
    finally:
        going_on.set()
        await filling
        store.close()
    assert numbers(tmp_path) == list(range(LONGEST_PAGES))


async def test_a_disk_that_refuses_a_copy_is_asked_again(tmp_path: Path, vfs: Watched) -> None:
    refused = 0

    def refuse() -> None:
        nonlocal refused
        refused += 1
        raise apsw.FullError("full")

    store = Store(tmp_path, "process", vfs="watched")
    vfs.on_write = refuse
    n = 0
    while refused < 3:
        await fill(store, n, n + 20)
        n += 20
    vfs.on_write = lambda: None
    vfs.copied_by.clear()
    while not vfs.copied_by:
        await fill(store, n, n + 20)
        n += 20
    assert store.trouble == ""
    store.close()
    assert numbers(tmp_path) == list(range(n))


async def test_an_idle_store_has_no_thread_for_it(tmp_path: Path) -> None:
    def copiers() -> int:
        return sum(thread.name == "copier" for thread in threading.enumerate())

    store = Store(tmp_path, "process")
    await fill(store, 0, 3)
    assert copiers() == 0
    await fill(store, 3, 1_000)
    await eventually(lambda: copiers() == 1)
    store.close()
    assert copiers() == 0
