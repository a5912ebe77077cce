"""The outbox: rows that wait for a delivering sink, and the batches they are sent in.

A batch is a range of rows, [first_id:first_row, last_id:last_row), written down with its key before its first try. So a
retry, also after a crash, is the same rows under the same key. Rows leave when their batch is finished.
"""

from __future__ import annotations

from typing import NamedTuple

import apsw
import orjson

from pipeline.component import Batch
from pipeline.frame import NO_PROGRESS, Frame, Schema, concatenate, decode, encode, rows
from pipeline.journal import state


class Bounds(NamedTuple):
    """Of a batch: from row `first_row` of entry `first_id` up to, not including, row `last_row` of entry `last_id`."""

    key: str
    first_id: int
    first_row: int
    last_id: int
    last_row: int
    attempts: int


class Waiting(NamedTuple):
    """What a sink's outbox holds, and what has become of the rest."""

    rows: int
    bytes: int
    oldest: int | None  # ns
    sent: int
    refused: int
    dropped: int


def put(db: apsw.Connection, sink: str, stream: str, frame: Frame, *, keep: bool, clock: int) -> None:
    """Rows for a sink, within the transaction of their step. `keep`: they are never dropped to make room."""
    db.execute(
        "INSERT INTO outbox (sink, stream, keep, rows, clock, data) VALUES (?, ?, ?, ?, ?, ?)",
        (sink, stream, keep, len(frame), clock, encode(frame)),
    )


def status(db: apsw.Connection, sink: str) -> Waiting:
    total = "SELECT coalesce(sum(rows - sent), 0), coalesce(sum(size), 0), min(clock) FROM outbox WHERE sink = ?"
    ((count, size, oldest),) = list(db.execute(total, (sink,)))
    totals = list(db.execute("SELECT sent, refused, dropped FROM delivered WHERE sink = ?", (sink,)))
    return Waiting(count, size, oldest, *(totals[0] if totals else (0, 0, 0)))


def unfinished(db: apsw.Connection, sink: str) -> Bounds | None:
    """The batch that was begun and has not been finished."""
    query = "SELECT key, first_id, first_row, last_id, last_row, attempts FROM batches WHERE sink = ?"
    for found in db.execute(query, (sink,)):
        return Bounds(*found)
    return None


def begin(db: apsw.Connection, sink: str, key: str, limit: int, older_than: int) -> Bounds | None:
    """Write down the next batch: up to `limit` rows, oldest first. None if there are fewer and none came before `older_than`."""
    first = last = None
    start = taken = 0
    oldest = None
    waiting = "SELECT id, rows, sent, clock FROM outbox WHERE sink = ? ORDER BY id"
    for entry, count, skip, clock in db.execute(waiting, (sink,)):
        if first is None:
            first, start, oldest = entry, skip, clock
        last, last_row = entry, min(count, skip + limit - taken)
        taken += last_row - skip
        if taken >= limit:
            break
    if first is None or last is None or (taken < limit and oldest is not None and oldest > older_than):
        return None
    bounds = Bounds(key, first, start, last, last_row, 0)
    columns = "key, sink, first_id, first_row, last_id, last_row, attempts"
    db.execute(
        f"INSERT INTO batches ({columns}) VALUES (?, ?, ?, ?, ?, ?, 0)", (key, sink, first, start, last, last_row)
    )
    return bounds


def oldest(db: apsw.Connection, sink: str) -> int | None:
    """When the oldest row that waits was put here."""
    for (clock,) in db.execute("SELECT clock FROM outbox WHERE sink = ? ORDER BY id LIMIT 1", (sink,)):
        return int(clock)
    return None


def load(db: apsw.Connection, sink: str, bounds: Bounds) -> Batch:
    """The rows of a batch: neighbours of one stream are one Frame."""
    parts: list[tuple[str, Frame]] = []
    query = "SELECT id, stream, data FROM outbox WHERE sink = ? AND id BETWEEN ? AND ? ORDER BY id"
    for entry, stream, data in db.execute(query, (sink, bounds.first_id, bounds.last_id)):
        frame = decode(bytes(data), NO_PROGRESS)
        begin_row = bounds.first_row if entry == bounds.first_id else 0
        end_row = bounds.last_row if entry == bounds.last_id else len(frame)
        frame = frame.take(slice(begin_row, end_row))
        if parts and parts[-1][0] == stream and parts[-1][1].columns.keys() == frame.columns.keys():
            frame = concatenate([parts.pop()[1], frame])
        parts.append((stream, frame))
    return Batch(bounds.key, parts, bounds.attempts)


def tried(db: apsw.Connection, key: str) -> None:
    db.execute("UPDATE batches SET attempts = attempts + 1 WHERE key = ?", (key,))


def finish(db: apsw.Connection, sink: str, bounds: Bounds, count: int, *, delivered: bool) -> None:
    """The batch's rows leave, and are counted as sent or refused."""
    last_of_entry = list(db.execute("SELECT rows FROM outbox WHERE id = ?", (bounds.last_id,)))
    whole = bool(last_of_entry) and last_of_entry[0][0] == bounds.last_row
    gone = bounds.last_id if whole else bounds.last_id - 1
    db.execute("DELETE FROM outbox WHERE sink = ? AND id BETWEEN ? AND ?", (sink, bounds.first_id, gone))
    db.execute("UPDATE outbox SET sent = ? WHERE id = ?", (bounds.last_row, bounds.last_id))
    db.execute("DELETE FROM batches WHERE key = ?", (bounds.key,))
    _count(db, sink, sent=count if delivered else 0, refused=0 if delivered else count)


def refuse(
    db: apsw.Connection, sink: str, batch: Batch, schemas: dict[str, Schema], keys: list[str], clock: int, reason: str
) -> None:
    """The rows of a batch that the peer will never take, as dead letters."""
    letters = []
    for stream, frame in batch.parts:
        shown = [{"stream": stream, **row} for row in rows(frame, schemas[stream], keys)]
        letters += [(clock, sink, reason, orjson.dumps(row).decode()) for row in shown]
    state.bury(db, letters)


def make_room(db: apsw.Connection, sink: str, limit: int) -> int:
    """Drop the oldest entries beyond `limit` bytes, but for those to keep and those of a batch under way. How many rows."""
    under_way = unfinished(db, sink)
    after = under_way.last_id if under_way else 0
    ((size,),) = list(db.execute("SELECT coalesce(sum(size), 0) FROM outbox WHERE sink = ?", (sink,)))
    dropped = 0
    entries = "SELECT id, rows - sent, size FROM outbox WHERE sink = ? AND id > ? AND NOT keep ORDER BY id"
    gone = []
    for entry, count, length in db.execute(entries, (sink, after)):
        if size <= limit:
            break
        gone.append((entry,))
        dropped += count
        size -= length
    db.executemany("DELETE FROM outbox WHERE id = ?", gone)
    if dropped:
        _count(db, sink, dropped=dropped)
    return dropped


def _count(db: apsw.Connection, sink: str, *, sent: int = 0, refused: int = 0, dropped: int = 0) -> None:
    db.execute(
        "INSERT INTO delivered (sink, sent, refused, dropped) VALUES (?, ?, ?, ?) ON CONFLICT (sink) DO UPDATE SET "
        "sent = sent + excluded.sent, refused = refused + excluded.refused, dropped = dropped + excluded.dropped",
        (sink, sent, refused, dropped),
    )
