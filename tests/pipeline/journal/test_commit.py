"""What the writer promises: order, one transaction for all that waits, and that a full disk passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import apsw
import pytest

from pipeline.journal.commit import StateDamaged, StateInUse, Store


def put(name: str, value: bytes = b"") -> Callable[[apsw.Connection], object]:
    return lambda db: db.execute("INSERT INTO meta VALUES (?, ?)", (name, value))


def names(db: apsw.Connection) -> list[str]:
    return [name for (name,) in db.execute("SELECT name FROM meta ORDER BY name")]


async def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "state", "process")
    await store.write(put("a"))
    assert await store.read(names) == ["a"]
    store.close()


async def test_what_waits_shares_a_transaction(tmp_path: Path) -> None:
    """While one commit is held up, ten more wait; they are two commits at most, and in order."""
    store = Store(tmp_path / "state", "process")
    loop = asyncio.get_running_loop()
    order: list[int] = []
    hold, first = asyncio.Event(), loop.create_future()

    def slow(db: apsw.Connection) -> None:
        asyncio.run_coroutine_threadsafe(hold.wait(), loop).result()

    def ordered(i: int, db: apsw.Connection) -> None:
        order.append(i)

    store.submit(slow, lambda *_: first.set_result(None))
    writes = [asyncio.ensure_future(store.write(partial(ordered, i))) for i in range(10)]
    await asyncio.sleep(0)
    hold.set()
    await asyncio.gather(first, *writes)
    assert order == list(range(10))
    assert store.commits <= 2
    store.close()


async def test_one_that_fails_does_not_cost_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path / "state", "process")
    results = await asyncio.gather(
        store.write(put("a")), store.write(put("a")), store.write(put("b")), return_exceptions=True
    )
    assert [type(r) for r in results].count(apsw.ConstraintError) == 1
    assert await store.read(names) == ["a", "b"]
    store.close()


async def test_a_full_disk_passes(tmp_path: Path) -> None:
    """The commit waits and says why; when there is room it goes through, and what came after it follows in order."""
    store = Store(tmp_path / "state", "process")
    full = [True]

    def refuses(db: apsw.Connection) -> None:
        if full[0]:
            raise apsw.FullError("database or disk is full")
        put("a")(db)

    first = asyncio.ensure_future(store.write(refuses))
    while not store.trouble:
        await asyncio.sleep(0.01)
    second = asyncio.ensure_future(store.write(put("b")))
    assert "full" in store.trouble
    assert not first.done()
    full[0] = False
    await asyncio.gather(first, second)
    assert store.trouble == ""
    assert await store.read(names) == ["a", "b"]
    store.close()


async def test_a_second_one_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "state", "process")
    with pytest.raises(StateInUse, match="in use by process"):
        Store(tmp_path / "state", "process")
    store.close()
    Store(tmp_path / "state", "process").close()


async def test_a_database_of_another_format_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "state", "process").close()
    db = apsw.Connection(str(tmp_path / "state" / "headwater.db"))
    db.pragma("user_version", 99)
    db.close()
    with pytest.raises(StateInUse, match="format 99"):
        Store(tmp_path / "state", "process")


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "headwater.db").write_bytes(b"not a database, " * 1000)
    with pytest.raises(StateDamaged, match="damaged: file is not a database"):
        Store(tmp_path / "state", "process")


async def test_memory_only_leaves_no_trace(tmp_path: Path) -> None:
    """`durability = "none"` writes nothing, and readers see what the writer wrote."""
    store = Store(tmp_path / "state", "none")
    await store.write(put("a"))
    assert await store.read(names) == ["a"]
    store.close()
    assert not (tmp_path / "state").exists()
