"""The outbox: rows that wait for a delivering sink, and the batches they are sent in.

A batch is a range of rows, [first_id:first_row, last_id:last_row), written down with its key before its first try. So a
retry, also after a crash, is the same rows under the same key. Rows leave when their batch is finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import apsw
import orjson

from pipeline.component import Batch
from pipeline.frame import NO_PROGRESS, Frame, Schema, concatenate, decode, encode, rows
from pipeline.journal import state
from pipeline.thin import LADDER, schema_of, thin


class Bounds(NamedTuple):
    """Of a batch: from row `first_row` of entry `first_id` up to, not including, row `last_row` of entry `last_id`."""

    key: str
    first_id: int
    first_row: int
    last_id: int
    last_row: int
    attempts: int
    lane: str = "all"  # which entries between the two belong to it: all, those to keep ("kept"), the others ("rows")
    recovered: int = 0  # 1: its rows waited while the peer could not be reached


_LANES = {"all": "1", "kept": "keep", "rows": "NOT keep"}


class Waiting(NamedTuple):
    """What a sink's outbox holds, and what has become of the rest."""

    rows: int
    bytes: int
    oldest: int | None  # ns
    sent: int
    refused: int
    dropped: int
    thinned: int  # rows that others stand for now


def put(db: apsw.Connection, sink: str, stream: str, frame: Frame, *, keep: bool, clock: int) -> None:
    """Rows for a sink, within the transaction of their step. `keep`: they are never dropped to make room."""
    db.execute(
        "INSERT INTO outbox (sink, stream, keep, rows, clock, data) VALUES (?, ?, ?, ?, ?, ?)",
        (sink, stream, keep, len(frame), clock, encode(frame)),
    )


def status(db: apsw.Connection, sink: str) -> Waiting:
    total = "SELECT coalesce(sum(rows - sent), 0), coalesce(sum(size), 0), min(clock) FROM outbox WHERE sink = ?"
    ((count, size, oldest),) = list(db.execute(total, (sink,)))
    totals = list(db.execute("SELECT sent, refused, dropped, thinned FROM delivered WHERE sink = ?", (sink,)))
    return Waiting(count, size, oldest, *(totals[0] if totals else (0, 0, 0, 0)))


def unfinished(db: apsw.Connection, sink: str) -> Bounds | None:
    """The batch that was begun and has not been finished."""
    query = "SELECT key, first_id, first_row, last_id, last_row, attempts, lane, recovered FROM batches WHERE sink = ?"
    for found in db.execute(query, (sink,)):
        return Bounds._make(found)
    return None


def begin(
    db: apsw.Connection,
    sink: str,
    key: str,
    limit: int,
    older_than: int,
    now: int = 2**62,
    turns: Sequence[str] = ("live", "backlog"),
) -> Bounds | None:
    """Write down the next batch of up to `limit` rows; None if there are fewer and none came before `older_than`.

    Oldest first. While there is a backlog from an outage: first what must be kept, the newest before the older, then by
    `turns` what came since ("live") and the backlog, oldest first; a turn that is left out must wait.
    """
    bounds = _next(db, sink, key, limit, older_than, now, turns)
    if bounds is not None:
        columns = "key, first_id, first_row, last_id, last_row, attempts, lane, recovered, sink"
        db.execute(f"INSERT INTO batches ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*bounds, sink))
    return bounds


def _next(
    db: apsw.Connection, sink: str, key: str, limit: int, older_than: int, now: int, turns: Sequence[str]
) -> Bounds | None:
    last = backlog(db, sink)
    if not last:
        return _take(db, sink, key, limit, older_than, now, "all", "id > ?", 0)
    for where, recovered in (("id > ?", False), ("id <= ?", True)):
        if taken := _take(db, sink, key, limit, now, now, "kept", where, last, recovered=recovered, newest_first=True):
            return taken
    for turn in turns:
        if turn == "live":
            taken = _take(db, sink, key, limit, older_than, now, "rows", "id > ?", last)
        else:
            taken = _take(db, sink, key, limit, now, now, "rows", "id <= ?", last, recovered=True)
        if taken:
            return taken
    return None


def _take(
    db: apsw.Connection,
    sink: str,
    key: str,
    limit: int,
    older_than: int,
    now: int,
    lane: str,
    where: str,
    id_: int,
    *,
    recovered: bool = False,
    newest_first: bool = False,
) -> Bounds | None:
    """Neighbours of a lane, from one end. Newest first: whole entries only, but for one that is too large alone."""
    order = "DESC" if newest_first else ""
    waiting = (
        f"SELECT id, rows, sent, clock FROM outbox WHERE sink = ? AND {_LANES[lane]} AND {where} ORDER BY id {order}"
    )
    found: list[tuple[int, int, int]] = []  # entry, from row, to row
    taken = 0
    oldest = now
    for entry, count, sent, clock in db.execute(waiting, (sink, id_)):
        # An entry of which a batch has taken some can only be the first one: bounds say no more than that.
        if found and (sent or (newest_first and (taken + count > limit or found[0][1]))):
            break
        oldest = clock if not found else min(oldest, clock)
        found.append((entry, sent, min(count, sent + limit - taken)))
        taken += found[-1][2] - sent
        if taken >= limit or found[-1][2] < count:
            break
    # A clock that was set back must not make rows wait: what seems to come from the future has waited enough.
    if not found or (taken < limit and older_than < oldest <= now):
        return None
    (first, first_row, _), (last, _, last_row) = min(found), max(found)
    return Bounds(key, first, first_row, last, last_row, 0, lane, recovered)


# --- outages ---------------------------------------------------------------------------------------------------------


def failing(db: apsw.Connection, sink: str) -> bool:
    """True if the last try failed."""
    return any(failing for (failing,) in db.execute("SELECT failing FROM outages WHERE sink = ?", (sink,)))


def fail(db: apsw.Connection, sink: str) -> None:
    """The peer cannot be reached."""
    db.execute("INSERT INTO outages VALUES (?, 1, 0) ON CONFLICT (sink) DO UPDATE SET failing = 1", (sink,))


def recover(db: apsw.Connection, sink: str) -> None:
    """It can again: what waits now is the backlog of the outage."""
    newest = "(SELECT coalesce(max(id), 0) FROM outbox WHERE sink = ?)"
    db.execute(f"UPDATE outages SET failing = 0, backlog = {newest} WHERE sink = ?", (sink, sink))


def backlog(db: apsw.Connection, sink: str) -> int:
    """The last entry of the backlog of an outage; 0 if none of it is left."""
    query = "SELECT backlog FROM outages WHERE sink = ?1 AND EXISTS (SELECT 1 FROM outbox WHERE sink = ?1 AND id <= backlog)"
    for (last,) in db.execute(query, (sink,)):
        return int(last)
    return 0


def oldest(db: apsw.Connection, sink: str) -> int | None:
    """When the oldest row that waits was put here."""
    for (clock,) in db.execute("SELECT clock FROM outbox WHERE sink = ? ORDER BY id LIMIT 1", (sink,)):
        return int(clock)
    return None


def load(db: apsw.Connection, sink: str, bounds: Bounds) -> Batch:
    """The rows of a batch: neighbours of one stream are one Frame."""
    parts: list[tuple[str, Frame]] = []
    lane = _LANES[bounds.lane]
    query = f"SELECT id, stream, data FROM outbox WHERE sink = ? AND id BETWEEN ? AND ? AND {lane} ORDER BY id"
    for entry, stream, data in db.execute(query, (sink, bounds.first_id, bounds.last_id)):
        frame = decode(bytes(data), NO_PROGRESS)
        begin_row = bounds.first_row if entry == bounds.first_id else 0
        end_row = bounds.last_row if entry == bounds.last_id else len(frame)
        frame = frame.take(slice(begin_row, end_row))
        if parts and parts[-1][0] == stream and parts[-1][1].columns.keys() == frame.columns.keys():
            frame = concatenate([parts.pop()[1], frame])
        parts.append((stream, frame))
    return Batch(bounds.key, parts, bounds.attempts, bool(bounds.recovered))


def tried(db: apsw.Connection, key: str) -> None:
    db.execute("UPDATE batches SET attempts = attempts + 1 WHERE key = ?", (key,))


def finish(db: apsw.Connection, sink: str, bounds: Bounds, count: int, *, delivered: bool) -> None:
    """The batch's rows leave, and are counted as sent or refused."""
    last_of_entry = list(db.execute("SELECT rows FROM outbox WHERE id = ?", (bounds.last_id,)))
    whole = bool(last_of_entry) and last_of_entry[0][0] == bounds.last_row
    gone = bounds.last_id if whole else bounds.last_id - 1
    lane = _LANES[bounds.lane]
    db.execute(f"DELETE FROM outbox WHERE sink = ? AND id BETWEEN ? AND ? AND {lane}", (sink, bounds.first_id, gone))
    db.execute("UPDATE outbox SET sent = ? WHERE id = ?", (bounds.last_row, bounds.last_id))
    db.execute("DELETE FROM batches WHERE key = ?", (bounds.key,))
    _count(db, sink, sent=count if delivered else 0, refused=0 if delivered else count)


def refuse(
    db: apsw.Connection, sink: str, batch: Batch, schemas: dict[str, Schema], keys: list[str], clock: int, reason: str
) -> None:
    """The rows of a batch that the peer will never take, as dead letters."""
    letters = []
    for stream, frame in batch.parts:
        shown = [{"stream": stream, **row} for row in rows(frame, schema_of(schemas[stream], frame), keys)]
        letters += [(clock, sink, reason, orjson.dumps(row).decode()) for row in shown]
    state.bury(db, letters)


ENTRY_BYTES = 130  # what an entry costs in the database beside its data: its row, and its place in the index
CHUNK = 4_000_000  # bytes that are thinned at a time
SPARE = 0.95  # of the limit is what making room goes down to: so it is not done at every step


def held(db: apsw.Connection, sink: str) -> int:
    """Bytes that a sink's outbox takes."""
    total = f"SELECT coalesce(sum(size + {ENTRY_BYTES}), 0) FROM outbox WHERE sink = ?"
    ((size,),) = list(db.execute(total, (sink,)))
    return int(size)


def make_room(db: apsw.Connection, sink: str, limit: int) -> int:
    """Drop the oldest entries beyond `limit` bytes, but for those to keep and those of a batch under way. How many rows."""
    over = held(db, sink) - limit
    if over <= 0:
        return 0
    dropped = 0
    free = "sink = ? AND NOT id BETWEEN ? AND ? AND NOT keep"
    entries = f"SELECT id, rows - sent, size + {ENTRY_BYTES} FROM outbox WHERE {free} ORDER BY id"
    gone = []
    for entry, count, size in db.execute(entries, (sink, *_under_way(db, sink))):
        if over <= 0:
            break
        gone.append((entry,))
        dropped += count
        over -= size
    db.executemany("DELETE FROM outbox WHERE id = ?", gone)
    if dropped:
        _count(db, sink, dropped=dropped)
    return dropped


def make_thinner(db: apsw.Connection, sink: str, schemas: dict[str, Schema]) -> int:
    """Thin a chunk of the oldest entries: of the level that holds most, its older half. How many bytes that saved.

    0: there is nothing left that thinning would make smaller.
    """
    chosen = _to_thin(db, sink)
    if not chosen:
        return 0
    level = chosen[0][2]
    by_stream: dict[str, list[tuple[int, int]]] = {}
    for entry, stream, _, size in chosen:
        by_stream.setdefault(stream, []).append((entry, size))
    saved = 0
    for stream, entries in by_stream.items():
        saved += _thin(
            db, sink, [e for e, _ in entries], sum(s + ENTRY_BYTES for _, s in entries), level, schemas[stream]
        )
    return saved


def _to_thin(db: apsw.Connection, sink: str) -> list[tuple[int, str, int, int]]:
    """(id, stream, level, size) of the entries to thin next."""
    free = "sink = ? AND NOT id BETWEEN ? AND ? AND NOT keep AND sent = 0 AND level < ?"
    values = (sink, *_under_way(db, sink), len(LADDER))
    levels = list(
        db.execute(f"SELECT level, sum(size + {ENTRY_BYTES}) AS held FROM outbox WHERE {free} GROUP BY level", values)
    )
    if not levels:
        return []
    level, most = max(levels, key=lambda found: (found[1], -found[0]))
    chosen = []
    taken = 0
    entries = f"SELECT id, stream, level, size FROM outbox WHERE {free} AND level = ? ORDER BY id"
    for found in db.execute(entries, (*values, level)):
        chosen.append(found)
        taken += found[3] + ENTRY_BYTES
        if taken >= min(CHUNK, most / 2):
            break
    return chosen


def _thin(db: apsw.Connection, sink: str, ids: list[int], size: int, level: int, schema: Schema) -> int:
    """These entries of one stream and level become one, in the place of the first. How many bytes that saved."""
    data = [d for i in ids for (d,) in db.execute("SELECT data FROM outbox WHERE id = ?", (i,))]
    frame = concatenate([decode(bytes(d), NO_PROGRESS) for d in data])
    for to in range(level + 1, len(LADDER) + 1):
        made = thin(frame, schema, to)
        packed = encode(made)
        if 2 * (len(packed) + ENTRY_BYTES) <= size:
            break
    else:  # too few readings for any interval: only dropping makes them smaller
        made, packed = frame, encode(frame)
    db.execute("UPDATE outbox SET data = ?, rows = ?, level = ? WHERE id = ?", (packed, len(made), to, ids[0]))
    db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in ids[1:]])
    _count(db, sink, thinned=len(frame) - len(made))
    return size - len(packed) - ENTRY_BYTES


def _under_way(db: apsw.Connection, sink: str) -> tuple[int, int]:
    """The entries between these belong to a batch under way, whose bytes must stay what they are."""
    begun = unfinished(db, sink)
    return (0, -1) if begun is None or begun.lane == "kept" else (begun.first_id, begun.last_id)


def _count(
    db: apsw.Connection, sink: str, *, sent: int = 0, refused: int = 0, dropped: int = 0, thinned: int = 0
) -> None:
    db.execute(
        "INSERT INTO delivered (sink, sent, refused, dropped, thinned) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (sink) DO UPDATE SET sent = sent + excluded.sent, refused = refused + excluded.refused, "
        "dropped = dropped + excluded.dropped, thinned = thinned + excluded.thinned",
        (sink, sent, refused, dropped, thinned),
    )
