"""The outbox: rows that wait for a delivering sink, and the batches they are sent in.

A batch is a range of rows, [first_id:first_row, last_id:last_row), written down with its key before its first try. So a
retry, also after a crash, is the same rows under the same key. Rows leave when their batch is finished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

import apsw
import orjson

from pipeline.component import Batch
from pipeline.frame import NO_PROGRESS, Frame, Schema, concatenate, rows
from pipeline.frame_bytes import decode, encode
from pipeline.journal import dead
from pipeline.thin import LADDER, shown, thin


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


# The plus keeps SQLite from walking through all entries by `outbox_by_sink` to find the few to keep, which have their own index.
_LANES = {"all": "sink = ?", "kept": "+sink = ? AND keep = 1", "rows": "sink = ? AND keep = 0"}
_INSIDE = {lane: f"{those} AND id BETWEEN ? AND ?" for lane, those in _LANES.items()}

# What an entry takes of the database: rows share pages of 4,096 bytes as far as whole ones fit, so 3,000 bytes take a page;
# larger ones have pages of their own. And its place in the index. Measured: 1,405 for 1,000 of data, 4,141 for 2,100, 30,757
# for 30,000, of 70 rather less than this says.
_PAGE = 4_096
COST = f"(CASE WHEN size < 4000 THEN {_PAGE} / ({_PAGE} / (size + 45)) + 50 ELSE size + 500 END)"


def cost(data: bytes) -> int:
    """The same in Python."""
    size = len(data)
    return _PAGE // (_PAGE // (size + 45)) + 50 if size < 4_000 else size + 500


class Waiting(NamedTuple):
    """What a sink's outbox holds, and what has become of the rest."""

    rows: int
    bytes: int  # what counts against the buffer's size
    oldest: int | None  # ns
    backlog: int  # rows that an outage left behind
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
    sums = f"coalesce(sum(rows - sent), 0), coalesce(sum({COST}), 0), min(clock)"
    ((count, size, since),) = list(db.execute(f"SELECT {sums} FROM outbox WHERE sink = ?", (sink,)))
    left = "SELECT coalesce(sum(rows - sent), 0) FROM outbox WHERE sink = ? AND id <= ?"
    ((behind,),) = list(db.execute(left, (sink, backlog(db, sink))))
    totals = list(db.execute("SELECT sent, refused, dropped, thinned FROM delivered WHERE sink = ?", (sink,)))
    return Waiting(count, size, since, behind, *(totals[0] if totals else (0, 0, 0, 0)))


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
    bounds = _next(db, _Asked(sink, key, limit, older_than, now), turns)
    if bounds is not None:
        columns = "key, first_id, first_row, last_id, last_row, attempts, lane, recovered, sink"
        db.execute(f"INSERT INTO batches ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*bounds, sink))
    return bounds


class _Asked(NamedTuple):
    """What `begin` was asked for."""

    sink: str
    key: str
    limit: int  # rows
    older_than: int
    now: int

    def must_wait(self, rows: int, oldest: int) -> bool:
        """True if the batch is not full and its oldest row may still wait for others."""
        # A clock that was set back must not make rows wait: what seems to come from the future has waited enough.
        return rows < self.limit and self.older_than < oldest <= self.now


def _next(db: apsw.Connection, asked: _Asked, turns: Sequence[str]) -> Bounds | None:
    last = backlog(db, asked.sink)
    if not last:
        return _take(db, asked, "all", "id > ?", 0)
    at_once = asked._replace(older_than=asked.now)
    for where, recovered in (("id > ?", False), ("id <= ?", True)):
        if taken := _take(db, at_once, "kept", where, last, recovered=recovered, newest_first=True):
            return taken
    for turn in turns:
        if turn == "live":
            taken = _take(db, asked, "rows", "id > ?", last)
        else:
            taken = _take(db, at_once, "rows", "id <= ?", last, recovered=True)
        if taken:
            return taken
    return None


def _take(
    db: apsw.Connection,
    asked: _Asked,
    lane: str,
    where: str,
    id_: int,
    *,
    recovered: bool = False,
    newest_first: bool = False,
) -> Bounds | None:
    """Neighbours of a lane, from one end. Newest first: whole entries only, but for one that is too large alone."""
    order = "DESC" if newest_first else ""
    waiting = f"SELECT id, rows, sent, clock FROM outbox WHERE {_LANES[lane]} AND {where} ORDER BY id {order}"
    found: list[tuple[int, int, int]] = []  # entry, from row, to row
    taken = 0
    oldest = asked.now
    for entry, count, sent, clock in db.execute(waiting, (asked.sink, id_)):
        # An entry of which a batch has taken some can only be the first one: bounds say no more than that.
        if found and (sent or (newest_first and (taken + count > asked.limit or found[0][1]))):
            break
        oldest = clock if not found else min(oldest, clock)
        found.append((entry, sent, min(count, sent + asked.limit - taken)))
        taken += found[-1][2] - sent
        if taken >= asked.limit or found[-1][2] < count:
            break
    if not found or asked.must_wait(taken, oldest):
        return None
    (first, first_row, _), (last, _, last_row) = min(found), max(found)
    return Bounds(asked.key, first, first_row, last, last_row, 0, lane, recovered)


# --- outages ---------------------------------------------------------------------------------------------------------


def failing(db: apsw.Connection, sink: str) -> bool:
    """True if the last try failed."""
    return any(failing for (failing,) in db.execute("SELECT failing FROM outages WHERE sink = ?", (sink,)))


def fail(db: apsw.Connection, sink: str) -> None:
    """The peer cannot be reached."""
    db.execute("INSERT INTO outages VALUES (?, 1, 0) ON CONFLICT (sink) DO UPDATE SET failing = 1", (sink,))


def recover(db: apsw.Connection, sink: str, *, in_order: bool = False) -> None:
    """It can again: what waits now is the backlog of the outage. `in_order`: it goes as if there had been none."""
    newest = "0" if in_order else "(SELECT coalesce(max(id), 0) FROM outbox WHERE sink = ?1)"
    db.execute(f"UPDATE outages SET failing = 0, backlog = {newest} WHERE sink = ?1", (sink,))


def backlog(db: apsw.Connection, sink: str) -> int:
    """The last entry of the backlog of an outage; 0 if none of it is left."""
    query = "SELECT backlog FROM outages WHERE sink = ?1 AND EXISTS (SELECT 1 FROM outbox WHERE sink = ?1 AND id <= backlog)"
    for (last,) in db.execute(query, (sink,)):
        return int(last)
    return 0


def oldest(db: apsw.Connection, sink: str, after: int = 0) -> int | None:
    """When the oldest row that waits was put here; of those behind entry `after`."""
    for (clock,) in db.execute("SELECT clock FROM outbox WHERE sink = ? AND id > ? ORDER BY id LIMIT 1", (sink, after)):
        return int(clock)
    return None


# --- a batch on its way ----------------------------------------------------------------------------------------------


def load(db: apsw.Connection, sink: str, bounds: Bounds) -> Batch:
    """The rows of a batch: neighbours of one stream are one Frame."""
    parts: list[tuple[str, list[Frame]]] = []
    query = f"SELECT id, stream, data FROM outbox WHERE {_INSIDE[bounds.lane]} ORDER BY id"
    for entry, stream, data in db.execute(query, (sink, bounds.first_id, bounds.last_id)):
        frame = decode(bytes(data), NO_PROGRESS)
        begin_row = bounds.first_row if entry == bounds.first_id else 0
        end_row = bounds.last_row if entry == bounds.last_id else len(frame)
        frame = frame.take(slice(begin_row, end_row))
        if not (parts and parts[-1][0] == stream and _kinds(parts[-1][1][0]) == _kinds(frame)):
            parts.append((stream, []))
        parts[-1][1].append(frame)
    joined = [(stream, concatenate(frames)) for stream, frames in parts]
    return Batch(bounds.key, joined, bounds.attempts, bool(bounds.recovered))


def _kinds(frame: Frame) -> dict[str, str]:
    """What rows must have in common to be one Frame: the pipeline file may have changed since the first were put here."""
    return {name: column.values.dtype.str for name, column in frame.columns.items()}


def tried(db: apsw.Connection, key: str) -> None:
    db.execute("UPDATE batches SET attempts = attempts + 1 WHERE key = ?", (key,))


def finish(db: apsw.Connection, sink: str, bounds: Bounds, count: int, *, refused: int) -> int:
    """The batch's rows leave, and are counted: so many as refused, the others as sent. How many bytes that freed."""
    last_of_entry = list(db.execute("SELECT rows FROM outbox WHERE id = ?", (bounds.last_id,)))
    whole = bool(last_of_entry) and last_of_entry[0][0] == bounds.last_row
    gone = bounds.last_id if whole else bounds.last_id - 1
    inside = _INSIDE[bounds.lane]
    sizes = f"SELECT coalesce(sum({COST}), 0) FROM outbox WHERE {inside}"
    ((freed,),) = list(db.execute(sizes, (sink, bounds.first_id, gone)))
    db.execute(f"DELETE FROM outbox WHERE {inside}", (sink, bounds.first_id, gone))
    db.execute("UPDATE outbox SET sent = ? WHERE id = ?", (bounds.last_row, bounds.last_id))
    db.execute("DELETE FROM batches WHERE key = ?", (bounds.key,))
    _count(db, sink, sent=count - refused, refused=refused)
    return int(freed)


def refuse(
    db: apsw.Connection,
    sink: str,
    batch: Batch,
    schemas: Mapping[str, Schema],
    keys: list[str],
    clock: int,
    reasons: Mapping[int, str],
) -> None:
    """The rows of a batch that the peer will never take, by their place in it, as dead letters."""
    if not reasons:
        return
    told = [
        {"stream": stream, **row}
        for stream, frame in batch.parts
        for row in rows(*shown(frame, schemas.get(stream)), keys)
    ]
    dead.bury(db, [dead.Buried(clock, sink, why, orjson.dumps(told[i]).decode()) for i, why in sorted(reasons.items())])


CHUNK = 4_000_000  # bytes that are thinned at a time
SPARE = 0.95  # of the limit is what making room goes down to: so it is not done at every step


def held(db: apsw.Connection, sink: str) -> int:
    """Bytes that a sink's outbox takes."""
    return grown(db, sink, 0)[0]


def kept(db: apsw.Connection, sink: str) -> int:
    """Bytes of what is never dropped."""
    query = f"SELECT coalesce(sum({COST}), 0) FROM outbox WHERE {_LANES['kept']}"
    ((size,),) = list(db.execute(query, (sink,)))
    return int(size)


def grown(db: apsw.Connection, sink: str, after: int) -> tuple[int, int]:
    """Bytes of the entries behind entry `after`, and the last of them: so a total needs not be summed anew each time."""
    total = f"SELECT coalesce(sum({COST}), 0), coalesce(max(id), ?) FROM outbox WHERE sink = ? AND id > ?"
    ((size, last),) = list(db.execute(total, (after, sink, after)))
    return int(size), int(last)


def make_room(db: apsw.Connection, sink: str, over: int) -> int:
    """Drop the oldest entries, `over` bytes, but none to keep and none of a batch under way. How many bytes that freed."""
    freed = dropped = 0
    free = "sink = ? AND NOT id BETWEEN ? AND ? AND keep = 0"
    entries = f"SELECT id, rows - sent, {COST} FROM outbox WHERE {free} ORDER BY id"
    gone = []
    for entry, count, size in db.execute(entries, (sink, *_under_way(db, sink))):
        if freed >= over:
            break
        gone.append((entry,))
        dropped += count
        freed += size
    db.executemany("DELETE FROM outbox WHERE id = ?", gone)
    if dropped:
        _count(db, sink, dropped=dropped)
    return freed


def make_thinner(db: apsw.Connection, sink: str, schemas: Mapping[str, Schema]) -> int | None:
    """Thin a chunk of the oldest entries: of the level that holds most, its older half. How many bytes that saved.

    None: there is nothing left that thinning would make smaller.
    """
    chosen, level = _to_thin(db, sink)
    if not chosen:
        return None
    return sum(_thin(db, sink, ids, level, schemas.get(stream)) for stream, ids in chosen.items())


def _to_thin(db: apsw.Connection, sink: str) -> tuple[dict[str, list[int]], int]:
    """The entries to thin next, by stream, and their level."""
    begun = _under_way(db, sink)
    free = "sink = ? AND keep = 0 AND sent = 0 AND level < ? AND NOT id BETWEEN ? AND ?"
    query = f"SELECT level, sum({COST}), min(id) FROM outbox WHERE {free} GROUP BY level"
    levels = list(db.execute(query, (sink, len(LADDER), *begun)))
    if not levels:
        return {}, 0
    level, most, first = max(levels, key=lambda found: (found[1], -found[0]))
    behind = backlog(db, sink)
    chosen: dict[str, list[int]] = {}
    passed_by: set[str] = set()
    taken = 0
    entries = f"SELECT id, stream, level, sent, {COST} FROM outbox WHERE sink = ? AND keep = 0 AND id >= ? ORDER BY id"
    for entry, stream, its_level, sent, size in db.execute(entries, (sink, first)):
        # What is merged moves to the place of the first: not past a batch under way, nor out of what came after an outage.
        if begun[0] <= entry <= begun[1] or first <= behind < entry:
            break
        if stream in passed_by:
            continue
        if sent or its_level != level:  # nor past others of its stream
            passed_by.add(stream)
            continue
        chosen.setdefault(stream, []).append(entry)
        taken += size
        if taken >= min(CHUNK, most / 2):
            break
    return chosen, level


def _thin(db: apsw.Connection, sink: str, ids: list[int], level: int, schema: Schema | None) -> int:
    """These entries of one stream and level become one, in the place of the first. How many bytes that saved.

    At the first level that halves them; for many small entries it may be enough that they are one.
    """
    data = [d for i in ids for (d,) in db.execute("SELECT data FROM outbox WHERE id = ?", (i,))]
    frames = [decode(d, NO_PROGRESS) for d in data]
    alike = len(list(takewhile(lambda frame: _kinds(frame) == _kinds(frames[0]), frames)))
    size = sum(map(cost, data[:alike]))
    frame = concatenate(frames[:alike])
    to, made = level, frame
    packed = encode(made)
    while 2 * cost(packed) > size and to < len(LADDER):
        to += 1
        made = thin(frame, schema, to)
        packed = encode(made)
    if cost(packed) > size:  # too few readings for any interval: only dropping makes them smaller
        made, packed = frame, encode(frame)
    db.execute("UPDATE outbox SET data = ?, rows = ?, level = ? WHERE id = ?", (packed, len(made), to, ids[0]))
    db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in ids[1:alike]])
    _count(db, sink, thinned=len(frame) - len(made))
    return size - cost(packed)


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
