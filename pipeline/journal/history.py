"""The history: the Frames of recorded streams, by stream and event time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import apsw
import numpy as np

from pipeline.component import RowsQuery, StreamInfo
from pipeline.frame import NO_PROGRESS, Frame, Schema, concatenate, decode, empty, encode

FRAME_BYTES = 150  # what a Frame costs in the database beside its data: its row, and its entries in the indexes


def put(
    db: apsw.Connection, step: int, stream: str, frame: Frame, *, journal: bool, history: bool, unsure: bool = False
) -> int:
    """Write a Frame for the journal, the history or both; its id. `unsure`: its times may be wrong."""
    columns = "step, stream, journal, history, rows, first, last, data, unsure"
    first, last = int(frame.time.min()), int(frame.time.max())
    db.execute(
        f"INSERT INTO frames ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (step, stream, journal, history, len(frame), first, last, encode(frame), unsure),
    )
    return db.last_insert_rowid()


def rows(db: apsw.Connection, query: RowsQuery, schema: Schema, codes: list[int] | None) -> Frame:
    """The rows that a query asks for, by time (rows of one time in order of arrival), at most `limit`."""
    found: list[Frame] = []
    count = 0
    for bound, frame in _candidates(db, query, codes):
        if count >= query.limit and _settled(found, query, bound):
            break
        if len(frame):
            found.append(frame)
            count += len(frame)
    if not found:
        return empty(schema, NO_PROGRESS)
    return _ordered(found, query)


def _ordered(found: list[Frame], query: RowsQuery) -> Frame:
    frame = concatenate(found)
    order = np.lexsort((frame.seq, frame.time))
    if query.descending:
        order = order[::-1]
    return frame.take(order[: query.limit])


def _settled(found: list[Frame], query: RowsQuery, bound: int) -> bool:
    """True if no Frame from `bound` on can hold a row that belongs before the last of those found."""
    best = _ordered(found, query)
    found[:] = [best]
    return bool(best.time[-1] > bound) if query.descending else bool(best.time[-1] < bound)


def _candidates(db: apsw.Connection, query: RowsQuery, codes: list[int] | None) -> Iterator[tuple[int, Frame]]:
    """Each Frame that may hold rows of the query, cut to them, with the time before (after) which none of it lies."""
    where = "stream = ? AND history"
    values: list[str | int] = [query.stream]
    if query.start is not None:
        where, values = where + " AND last >= ?", [*values, query.start]
    if query.end is not None:
        where, values = where + " AND first < ?", [*values, query.end]
    edge, direction = ("last", "DESC") if query.descending else ("first", "")
    listed = list(db.execute(f"SELECT {edge}, id FROM frames WHERE {where} ORDER BY {edge} {direction}, id", values))
    for bound, frame_id in listed:
        for (data,) in db.execute("SELECT data FROM frames WHERE id = ?", (frame_id,)):
            yield bound, _cut(decode(data, NO_PROGRESS), query, codes)


def _cut(frame: Frame, query: RowsQuery, codes: list[int] | None) -> Frame:
    keep = np.ones(len(frame), np.bool_)
    if query.start is not None:
        keep &= frame.time >= query.start
    if query.end is not None:
        keep &= frame.time < query.end
    if codes is not None:
        keep &= np.isin(frame.key, codes)
    return frame.where(keep)


def info(db: apsw.Connection, stream: str, schema: Schema) -> StreamInfo:
    """How much of a stream there is, and from when to when."""
    total = "SELECT coalesce(sum(rows), 0), min(first), max(last), coalesce(sum(rows) FILTER (WHERE unsure), 0)"
    ((count, oldest, newest, unsure),) = db.execute(f"{total} FROM frames WHERE stream = ? AND history", (stream,))
    return StreamInfo(stream, schema, count, oldest, newest, unsure=unsure)


def prune(db: apsw.Connection, streams: Sequence[str], before: int | None, max_bytes: int | None) -> None:
    """Drop Frames whose newest row is older than `before`, then the oldest of all until at most `max_bytes` are left.

    What the journal still needs stays until the checkpoint has passed it, but no longer shows in answers.
    """
    marks = ", ".join("?" * len(streams))
    if before is not None:
        _drop(db, f"stream IN ({marks}) AND history AND last < ?", (*streams, before))
    if max_bytes is None:
        return
    sizes = f"SELECT sum(size + {FRAME_BYTES}) FROM frames WHERE stream IN ({marks}) AND history"
    ((held,),) = db.execute(sizes, streams)
    over = (held or 0) - max_bytes
    if over <= 0:
        return
    gone = []
    oldest = f"SELECT id, size + {FRAME_BYTES} FROM frames WHERE stream IN ({marks}) AND history ORDER BY last, id"
    for frame_id, size in db.execute(oldest, streams):
        gone.append(frame_id)
        over -= size
        if over <= 0:
            break
    for frame_id in gone:
        _drop(db, "id = ?", (frame_id,))


def _drop(db: apsw.Connection, where: str, values: Sequence[object]) -> None:
    db.execute(f"UPDATE frames SET history = 0 WHERE journal AND {where}", tuple(values))
    db.execute(f"DELETE FROM frames WHERE NOT journal AND {where}", tuple(values))
