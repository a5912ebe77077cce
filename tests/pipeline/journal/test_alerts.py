"""What people did about alerts, and what became of rows of alerts, in the database."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import numpy as np
import pytest

from pipeline.component import Acknowledged, Silence
from pipeline.frame import NO_PROGRESS, Frame, column
from pipeline.journal import alerts, state
from pipeline.journal.alerts import Row
from pipeline.journal.schema import TABLES


@pytest.fixture
def db() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    connection.execute(TABLES)
    yield connection
    connection.close()


def frame(*rows: tuple[int, int, str | None]) -> Frame:
    """Rows of (time, code of the key, alert)."""
    time, key, name = zip(*rows, strict=True)
    columns = {"alert": column("string", list(name))}
    return Frame(np.array(time), np.array(key, np.int32), np.arange(len(rows)), columns, NO_PROGRESS)


def silence(alert: str, key: str | None, until: int, now: int = 0) -> Silence:
    return Silence(alert, key, until, "ann", "", now)


def heard(db: apsw.Connection, now: int, *rows: tuple[int, int, str | None]) -> list[tuple[int, int]]:
    left = alerts.audible(db, "cloud", "merged", frame(*rows), now)
    return list(zip(left.time.tolist(), left.key.tolist(), strict=True))


def test_who_is_silent_and_how_long(db: apsw.Connection) -> None:
    """An alert for one key or for all, also of a key that nobody has seen yet, up to its end."""
    state.add_keys(db, 0, ["a", "b"])
    alerts.silence(db, silence("hot", "a", 10))
    alerts.silence(db, silence("cold", None, 20))
    alerts.silence(db, silence("hot", "new", 10))
    rows = (1, 0, "hot"), (2, 1, "hot"), (3, 0, "cold"), (4, 1, "cold"), (5, 0, "damp"), (6, 2, "hot")
    assert heard(db, 9, *rows) == [(2, 1), (5, 0), (6, 2)]
    state.add_keys(db, 2, ["new"])
    assert heard(db, 9, *rows) == [(2, 1), (5, 0)]
    assert heard(db, 10, *rows) == [(1, 0), (2, 1), (5, 0), (6, 2)]
    assert heard(db, 20, *rows) == [row[:2] for row in rows]


def test_a_stream_that_does_not_name_its_alert_is_one(db: apsw.Connection) -> None:
    alerts.silence(db, silence("merged", None, 10))
    assert heard(db, 5, (1, 0, None), (2, 0, "hot")) == [(2, 0)]


def test_a_new_silence_takes_the_place_of_the_old_one(db: apsw.Connection) -> None:
    """Of the same alert and key; one of no length ends it."""
    for until in (10, 5):
        alerts.silence(db, silence("hot", None, until))
        alerts.silence(db, silence("hot", "a", until + 1))
    assert [(s.key, s.until) for s in alerts.silences(db, 0)] == [("a", 6), (None, 5)]
    assert [s.key for s in alerts.silences(db, 5)] == ["a"]
    alerts.silence(db, silence("hot", "a", 3, now=3))
    assert [s.key for s in alerts.silences(db, 0)] == [None]


def test_what_became_of_each_row(db: apsw.Connection) -> None:
    alerts.silence(db, silence("cold", None, 10))
    heard(db, 5, (1, 0, "hot"), (1, 1, "hot"), (1, 0, "cold"))
    alerts.note(db, "cloud", alerts.rows_of("merged", frame((1, 0, "hot"))), "sent")
    alerts.note(db, "mail", [Row("hot", 0, 1)], "refused")
    asked = [Row("hot", 0, 1), Row("hot", 1, 1), Row("cold", 0, 1), Row("hot", 0, 2)]
    assert alerts.fates(db, asked) == [
        {"cloud": "sent", "mail": "refused"},
        {"cloud": "waiting"},
        {"cloud": "silenced"},
        {},
    ]


def test_an_acknowledgement(db: apsw.Connection) -> None:
    alerts.acknowledge(db, "x", Acknowledged("ann", "on my way", 1))
    alerts.acknowledge(db, "x", Acknowledged("bob", "", 2))
    assert alerts.acknowledged(db, ["x", "y", "x"]) == {"x": Acknowledged("bob", "", 2)}


def test_the_oldest_go_first(db: apsw.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is said and sent, for years: the tables stay bounded."""
    for name in ("ACKNOWLEDGED", "SILENCES", "FATES"):
        monkeypatch.setattr(alerts, name, 3)
    for i in range(1, 9):
        alerts.acknowledge(db, str(i), Acknowledged("ann", "", i))
        alerts.silence(db, silence(str(i), None, 1000, now=i))
        alerts.note(db, "cloud", [Row("hot", 0, i)], "sent")
    assert sorted(alerts.acknowledged(db, map(str, range(9)))) == ["6", "7", "8"]
    assert [s.alert for s in alerts.silences(db, 0)] == ["8", "7", "6"]
    assert [bool(f) for f in alerts.fates(db, [Row("hot", 0, i) for i in range(4, 9)])] == [
        False,
        False,
        True,
        True,
        True,
    ]
