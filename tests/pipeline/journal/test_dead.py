"""Dead letters are bounded by number and by bytes, and known by number and by node."""

from __future__ import annotations

import shutil
from pathlib import Path

import apsw
import pytest

from pipeline.journal import dead
from pipeline.journal.commit import Store
from pipeline.journal.dead import BYTES, LETTERS, LONGEST, LONGEST_REASON, Buried
from pipeline.journal.schema import TABLES


@pytest.fixture
def db() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    connection.execute(TABLES)
    return connection


def held(db: apsw.Connection) -> tuple[int, int]:
    """What is counted; it is what there is."""
    ((count, size),) = db.execute("SELECT letters, bytes FROM dead_held")
    assert [(count, size)] == list(db.execute("SELECT count(*), coalesce(sum(size), 0) FROM dead"))
    return count, size


def test_so_many_are_kept(db: apsw.Connection) -> None:
    """The oldest go first, and within one step as well; those that were taken before leave room."""
    dead.bury(db, [Buried(0, "node", "why", str(i)) for i in range(LETTERS + 5)])
    dead.bury(db, [Buried(0, "node", "why", "last")])
    found = dead.letters(db, 10**6)
    assert (len(found), found[0].row, found[-1].row) == (LETTERS, "last", "6")
    dead.forget(db, [letter.id for letter in found[100:200]])
    dead.bury(db, [Buried(0, "node", "why", "more")] * 100)
    assert dead.letters(db, 10**6)[-1].row == "6"
    assert held(db)[0] == LETTERS


def test_so_many_bytes_are_kept(db: apsw.Connection) -> None:
    """As UTF-8 has them: a letter may be four of them."""
    letter = Buried(0, "node", "why", "🌡" * LONGEST)
    for _ in range(3):
        dead.bury(db, [letter] * 500)
    count, size = held(db)
    assert size <= BYTES < size + 2 * 4 * LONGEST
    assert [letter.id for letter in dead.letters(db, 10**6)] == list(range(1500, 1500 - count, -1))


def test_a_row_is_whole_or_said_to_be_cut(db: apsw.Connection) -> None:
    dead.bury(db, [Buried(0, "node", "why", "x" * LONGEST), Buried(0, "node", "why" * 1000, "x" * (LONGEST + 1))])
    dead.bury(db, [Buried(0, "node", "why", "?", whole=False)])
    found = dead.letters(db, 10)
    assert [(len(letter.row), letter.whole) for letter in found] == [(1, False), (LONGEST, False), (LONGEST, True)]
    assert len(found[1].reason) == LONGEST_REASON


def test_found_by_node_by_number_and_before_a_number(db: apsw.Connection) -> None:
    dead.bury(db, [Buried(i, "ab"[i % 2], "why", str(i)) for i in range(6)])
    assert [letter.row for letter in dead.letters(db, 2)] == ["5", "4"]
    assert [letter.row for letter in dead.letters(db, 2, before=5)] == ["3", "2"]
    assert [letter.row for letter in dead.letters(db, 10, "a", 5)] == ["2", "0"]
    assert [letter.row for letter in dead.chosen(db, [6, 2, 99])] == ["1", "5"]
    assert dead.numbers(db) == [1, 2, 3, 4, 5, 6]
    assert dead.numbers(db, "b") == [2, 4, 6]
    assert [found[:2] for found in dead.by_node(db)] == [("a", 3), ("b", 3)]


def test_one_that_stays_has_its_new_reason(db: apsw.Connection) -> None:
    dead.bury(db, [Buried(0, "node", "why", "row")])
    dead.refuse_again(db, [(1, "still not good")])
    assert dead.letters(db, 10)[0][:5] == (1, 0, "node", "still not good", "row")
    held(db)


def test_letters_of_the_first_format(tmp_path: Path) -> None:
    """They are counted; one that was cut there, at 200 characters, is not taken for a whole one."""
    shutil.copy(Path(__file__).parent / "formats" / "1" / "headwater.db", tmp_path)
    row = '{"id": "a", "note": "' + 300 * "x" + '"}'
    db = apsw.Connection(str(tmp_path / "headwater.db"))
    for text in (row, row[:200]):
        db.execute("INSERT INTO dead (clock, node, reason, row) VALUES (0, 'readings', 'why', ?)", (text,))
    db.close()
    store = Store(tmp_path, "process")
    assert [letter.whole for letter in dead.letters(store.connection, 10)] == [False, True, True]
    assert held(store.connection)[0] == 3
    store.close()
