"""What people did about alerts (acknowledged, silenced), and what became of each row of one on its way out.

A silence holds from the commit of it to its end: rows of the alert that a step commits meanwhile do not enter the outbox.
The graph knows nothing of it, so no replay of the journal depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import apsw
import numpy as np

from pipeline.alerts import alert_names
from pipeline.component import Acknowledged, Silence
from pipeline.frame import Frame

ACKNOWLEDGED = 10_000  # as many are kept, the newest
SILENCES = 10_000
FATES = 20_000


class Row(NamedTuple):
    """A row of an alert, as its fate is kept."""

    alert: str
    key: int
    time: int  # ns


def rows_of(stream: str, frame: Frame) -> list[Row]:
    columns = (alert_names(frame, stream), frame.key.tolist(), frame.time.tolist())
    return [Row(*row) for row in zip(*columns, strict=True)]


# --- what people do ---


def acknowledge(db: apsw.Connection, alert: str, done: Acknowledged) -> None:
    """The last one to say so counts."""
    db.execute("INSERT OR REPLACE INTO acknowledged VALUES (?, ?, ?, ?)", (alert, *done))
    newest = "SELECT clock FROM acknowledged ORDER BY clock DESC LIMIT 1 OFFSET ?"
    db.execute(f"DELETE FROM acknowledged WHERE clock <= ({newest})", (ACKNOWLEDGED,))


def acknowledged(db: apsw.Connection, alerts: Iterable[str]) -> dict[str, Acknowledged]:
    """Those of these that were."""
    query = "SELECT by, note, clock FROM acknowledged WHERE alert = ?"
    return {alert: Acknowledged(*found) for alert in set(alerts) for found in db.execute(query, (alert,))}


def silence(db: apsw.Connection, new: Silence) -> None:
    """In place of the one of the same alert and key. One that is over already (`until`) ends that."""
    db.execute("DELETE FROM silences WHERE alert = ? AND key IS ?", (new.alert, new.key))
    db.execute("INSERT INTO silences (alert, key, until, by, note, clock) VALUES (?, ?, ?, ?, ?, ?)", new)
    db.execute("DELETE FROM silences WHERE until <= ?", (new.clock,))
    db.execute("DELETE FROM silences WHERE id <= (SELECT max(id) FROM silences) - ?", (SILENCES,))


def silences(db: apsw.Connection, now: int) -> list[Silence]:
    """Those that hold, the newest first."""
    query = "SELECT alert, key, until, by, note, clock FROM silences WHERE until > ? ORDER BY id DESC"
    return [Silence(*found) for found in db.execute(query, (now,))]


# --- rows on their way out ---


def audible(db: apsw.Connection, sink: str, stream: str, frame: Frame, now: int) -> Frame:
    """The rows of alerts that may go to a sink, within the transaction of their step; what becomes of each is noted."""
    rows = rows_of(stream, frame)
    held = {
        (alert, code if key is not None else None)
        for alert, key, code in db.execute(
            "SELECT alert, key, (SELECT code FROM keys WHERE name = silences.key) FROM silences WHERE until > ?", (now,)
        )
        if key is None or code is not None
    }
    silent = [(row.alert, None) in held or (row.alert, row.key) in held for row in rows]
    note(db, sink, [row for row, yes in zip(rows, silent, strict=True) if not yes], "waiting")
    if not any(silent):
        return frame
    note(db, sink, [row for row, yes in zip(rows, silent, strict=True) if yes], "silenced")
    return frame.where(~np.array(silent))


def note(db: apsw.Connection, sink: str, rows: Sequence[Row], fate: str) -> None:
    if not rows:
        return
    db.executemany(
        "INSERT INTO fates (alert, key, time, sink, fate) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (alert, key, time, sink) DO UPDATE SET fate = excluded.fate",
        [(*row, sink, fate) for row in rows],
    )
    db.execute("DELETE FROM fates WHERE id <= (SELECT max(id) FROM fates) - ?", (FATES,))


def silenced(db: apsw.Connection, sink: str) -> int:
    """How many of the rows whose fate is known a silence kept from a sink."""
    query = "SELECT count(*) FROM fates WHERE sink = ? AND fate = 'silenced'"
    ((count,),) = list(db.execute(query, (sink,)))
    return int(count)


def fates(db: apsw.Connection, rows: Sequence[Row]) -> list[dict[str, str]]:
    """What became of each of these rows, by sink; nothing is known of rows of long ago."""
    query = "SELECT sink, fate FROM fates WHERE alert = ? AND key = ? AND time = ? ORDER BY sink"
    return [dict(db.execute(query, row)) for row in rows]
