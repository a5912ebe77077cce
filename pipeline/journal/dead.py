"""Dead letters: what was refused, failed or rejected, with the reason, kept until a person has looked at it.

They are bounded by number and by bytes; the oldest go first. What is held is counted by triggers (`dead_held`), so that
a commit with letters costs no look at the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import apsw

LETTERS = 10_000  # as many are kept
BYTES = 16_000_000  # and at most so large, in all
LONGEST = 4_000  # characters of a row; what is longer is cut, and can be looked at only
LONGEST_REASON = 500


class Buried(NamedTuple):
    """A letter as it is written."""

    clock: int
    node: str
    reason: str
    row: str  # a reading as it came, or a row as JSON
    whole: bool = True  # False: the row cannot be replayed, since not all of it is there
    format: str = ""  # the media type in which a reading came; "": the source's own format


class Letter(NamedTuple):
    """A letter as it is found."""

    id: int
    clock: int
    node: str
    reason: str
    row: str
    whole: bool
    format: str


def bury(db: apsw.Connection, letters: Sequence[Buried]) -> None:
    """Write letters; the oldest make room for them."""
    db.executemany(
        "INSERT INTO dead (clock, node, reason, row, whole, format) VALUES (?, ?, ?, ?, ?, ?)",
        [_fitted(letter) for letter in letters[-LETTERS:]],
    )
    _make_room(db)


def _fitted(letter: Buried) -> Buried:
    whole = letter.whole and len(letter.row) <= LONGEST
    return letter._replace(reason=letter.reason[:LONGEST_REASON], row=letter.row[:LONGEST], whole=whole)


def _make_room(db: apsw.Connection) -> None:
    ((count, size),) = list(db.execute("SELECT letters, bytes FROM dead_held"))
    gone = []
    if count > LETTERS or size > BYTES:
        for letter, bytes_ in db.execute("SELECT id, size FROM dead ORDER BY id"):
            gone.append(letter)
            count, size = count - 1, size - bytes_
            if count <= LETTERS and size <= BYTES:
                break
    forget(db, gone)


def forget(db: apsw.Connection, ids: Iterable[int]) -> None:
    """They have been taken, or make room."""
    db.executemany("DELETE FROM dead WHERE id = ?", [(id_,) for id_ in ids])


def refuse_again(db: apsw.Connection, reasons: Iterable[tuple[int, str]]) -> None:
    """Letters that were tried and stay, each with its new reason."""
    found = [(reason[:LONGEST_REASON], id_) for id_, reason in reasons]
    db.executemany("UPDATE dead SET reason = ? WHERE id = ?", found)


def held(db: apsw.Connection) -> int:
    """How many there are."""
    ((count,),) = db.execute("SELECT letters FROM dead_held")
    return int(count)


def letters(db: apsw.Connection, limit: int, node: str | None = None, before: int | None = None) -> list[Letter]:
    """The newest first; of one node, or of all; with a number below `before`."""
    where, values = _where(("node = ?", node), ("id < ?", before))
    return _select(db, f"{where} ORDER BY id DESC LIMIT ?", [*values, limit])


def numbers(db: apsw.Connection, node: str | None = None) -> list[int]:
    """Of all letters, the oldest first; or of those of one node."""
    where, values = _where(("node = ?", node))
    return [id_ for (id_,) in db.execute(f"SELECT id FROM dead {where} ORDER BY id", values)]


def chosen(db: apsw.Connection, ids: Sequence[int]) -> list[Letter]:
    """Those of these numbers that there are, the oldest first."""
    return _select(db, f"WHERE id IN ({', '.join('?' * len(ids))}) ORDER BY id", ids)


def by_node(db: apsw.Connection) -> list[tuple[str, int, int, int]]:
    """(node, how many letters, bytes of their rows, clock of the newest), by node."""
    query = "SELECT node, count(*), sum(length(row)), max(clock) FROM dead GROUP BY node ORDER BY node"
    return list(db.execute(query))


def _where(*asked: tuple[str, int | str | None]) -> tuple[str, list[int | str]]:
    given = [(condition, value) for condition, value in asked if value is not None]
    return "WHERE " + " AND ".join(c for c, _ in given) if given else "", [value for _, value in given]


def _select(db: apsw.Connection, rest: str, values: Sequence[int | str]) -> list[Letter]:
    # The command also looks at a database that an earlier version wrote and this one has not yet opened for writing.
    columns = "whole, format" if db.pragma("user_version") != 1 else "0, ''"
    found = db.execute(f"SELECT id, clock, node, reason, row, {columns} FROM dead {rest}", tuple(values))
    return [Letter._make((*letter[:5], bool(letter[5]), letter[6])) for letter in found]
