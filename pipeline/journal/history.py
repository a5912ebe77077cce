"""The history: what was recorded of each stream, by event time.

    frames   as they were committed, one a step: the tail
    chunks   what was rearranged (compaction.py): some thousand rows of one key, by time

A question reads of both what may hold rows of its span.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import apsw
import numpy as np

from pipeline.component import RowsQuery, StreamInfo
from pipeline.frame import DTYPES, NO_PROGRESS, Bools, Column, Frame, Schema, concatenate, empty
from pipeline.journal import rollup
from pipeline.packing import pack_frame, unpack_frame

FRAME_BYTES = 150  # what a Frame costs in the database beside its data: its row, and its entries in the indexes
CHUNK_BYTES = 250  # what a chunk does
_CHUNKS_A_NUMBER = 16  # bits: a tick may close the windows of so many keys at once, and their rows share a number
_MANY_KEYS = 500  # SQLite takes so many values in one question; beyond, the chunks of all keys are looked at


def put(
    db: apsw.Connection, step: int, stream: str, frame: Frame, *, journal: bool, history: bool, unsure: bool = False
) -> int:
    """Write a Frame for the journal, the history or both; its id. `unsure`: its times may be wrong."""
    columns = "step, stream, journal, history, rows, first, last, data, unsure"
    first, last = int(frame.time.min()), int(frame.time.max())
    db.execute(
        f"INSERT INTO frames ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (step, stream, journal, history, len(frame), first, last, pack_frame(frame), unsure),
    )
    return db.last_insert_rowid()


# --- questions ------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """A Frame of the tail or a chunk."""

    first: int  # its earliest and latest time
    last: int
    table: str
    id: int
    rows: int
    key: int  # of a chunk


def rows(db: apsw.Connection, query: RowsQuery, schema: Schema, codes: list[int] | None) -> Frame:
    """The rows that a query asks for, by time (rows of one time in order of arrival), at most `limit`."""
    found: list[Frame] = []
    held, worth = 0, query.limit  # rows in `found`, and how many of them are worth a look at which to keep
    edge: int | None = None  # the time of the last row that can still belong to the answer
    for part in listed(db, query, codes):
        if edge is not None and (part.last < edge if query.descending else part.first > edge):
            break
        frame = read(db, part, query, schema, codes, edge)
        if not len(frame):
            continue
        found.append(frame)
        held += len(frame)
        if held >= worth:
            best = _ordered(found, query)
            if len(best) >= query.limit:
                edge = int(best.time[query.limit - 1])
                # All of that time stay: a correction among them may be told from what it corrects only at the end.
                best = best.where(best.time >= edge if query.descending else best.time <= edge)
            found, held = [best], len(best)
            worth = 2 * max(held, query.limit)
    if not found:
        return empty(schema, NO_PROGRESS)
    return _ordered(found, query).take(slice(0, query.limit))


def _ordered(found: list[Frame], query: RowsQuery) -> Frame:
    frame = concatenate(found)
    if query.corrected:
        frame = frame.where(holds(frame))
    order = np.lexsort((frame.seq, frame.time))
    return frame.take(order[::-1] if query.descending else order)


def corrects(schema: Schema) -> bool:
    """Its rows are windows, which may be corrected."""
    return schema.role == "windows" and {"start", "revision"} <= schema.fields.keys()


def holds(frame: Frame) -> Bools:
    """True where no other row has the same key and `start`, and a higher `revision`."""
    start, revision = frame["start"].values, frame["revision"].values
    order = np.lexsort((revision, start, frame.key))
    key, start, revision = frame.key[order], start[order], revision[order]
    ends = np.flatnonzero(np.append((key[1:] != key[:-1]) | (start[1:] != start[:-1]), True))
    highest = np.repeat(revision[ends], np.diff(ends, prepend=-1))
    holds = np.empty(len(frame), np.bool_)
    holds[order] = revision == highest
    return holds


def listed(
    db: apsw.Connection, query: RowsQuery, codes: list[int] | None, *, by_key: bool = False, lacking: int = 0
) -> list[Part]:
    """Whatever may hold rows of the query, in the order in which it begins to matter. `by_key`: tell chunks' keys.

    `lacking`: no chunks whose rows are in this rollup.
    """
    where, values = "stream = ?", [query.stream]
    span: list[int] = []
    if query.start is not None:
        where, span = where + " AND last >= ?", [*span, query.start]
    if query.end is not None:
        where, span = where + " AND first < ?", [*span, query.end]
    tail = f"SELECT first, last, 'frames', id, rows, -1 FROM frames WHERE {where} AND history"
    found = list(db.execute(tail, [*values, *span]))
    where += f" AND rolled & {lacking} = 0" if lacking else ""
    if codes is None or len(codes) > _MANY_KEYS:
        index, key = ("chunks_by_key", "key") if by_key else ("chunks_by_time", "-1")
        chunks = f"SELECT first, last, 'chunks', id, rows, {key} FROM chunks INDEXED BY {index} WHERE {where}"
        found += db.execute(chunks, [*values, *span])
    else:
        keys = where.replace("stream = ?", f"stream = ? AND key IN ({', '.join('?' * len(codes))})")
        chunks = f"SELECT first, last, 'chunks', id, rows, key FROM chunks WHERE {keys}"
        found += db.execute(chunks, [*values, *codes, *span])
    parts = [Part(*row) for row in found]
    if query.descending:
        return sorted(parts, key=lambda p: (p.last, p.table, p.id), reverse=True)
    return sorted(parts, key=lambda p: (p.first, p.table, p.id))


def read(
    db: apsw.Connection,
    part: Part,
    query: RowsQuery,
    schema: Schema,
    codes: list[int] | None,
    edge: int | None = None,
    *,
    counts: bool = False,
) -> Frame:
    """The rows of a part that the query asks for; with `edge` none beyond it. `counts`: as rollups have them, too."""
    for (data,) in db.execute(f"SELECT data FROM {part.table} WHERE id = ?", (part.id,)):
        found = unpack_frame(data, only=None if counts else schema.fields.keys())
        frame = fitting(found, schema)
        if counts:
            frame = frame.with_columns(rollup.counts(found, schema))
        keep = np.ones(len(frame), np.bool_)
        if query.start is not None:
            keep &= frame.time >= query.start
        if query.end is not None:
            keep &= frame.time < query.end
        if edge is not None:
            keep &= frame.time >= edge if query.descending else frame.time <= edge
        if codes is not None:
            keep &= np.isin(frame.key, codes)
        return frame.where(keep)
    raise KeyError(f"{part.table} {part.id}")  # one transaction saw it listed


def fitting(frame: Frame, schema: Schema) -> Frame:
    """With the fields of today: the pipeline file may have had others when these rows were written."""
    wanted = {name: DTYPES[field.kind] for name, field in schema.fields.items()}
    if {name: c.values.dtype for name, c in frame.columns.items()} == wanted:
        return frame
    columns = {name: _as(frame.columns.get(name), dtype, len(frame)) for name, dtype in wanted.items()}
    return Frame(frame.time, frame.key, frame.seq, columns, frame.progress)


def _as(column: Column | None, dtype: Any, n: int) -> Column:
    """A number as another kind of number where nothing is lost; what is not of the kind counts as missing."""
    if column is not None and (column.values.dtype == dtype or (column.values.dtype.kind, dtype.kind) == ("i", "f")):
        return Column(column.values.astype(dtype), column.present)
    zero = "" if dtype.kind == "O" else dtype.type(0)
    return Column(np.full(n, zero, dtype), np.zeros(n, np.bool_))


def since(
    db: apsw.Connection, stream: str, schema: Schema, first: int, end: int, codes: list[int] | None, limit: int
) -> tuple[Frame, int]:
    """The rows that arrived from number `first` to before `end`, in order of arrival, at most about `limit`; and how many
    older ones of them were left out. Rows that a later step recorded have higher numbers than those of a step before."""
    tail = "SELECT step, rows, data FROM frames WHERE stream = ? AND history ORDER BY id DESC"
    chunks = "SELECT 0, rows, data FROM chunks WHERE stream = ? AND id >= ? ORDER BY id DESC"
    found: list[Frame] = []
    count = left_out = 0
    reached = False  # `first`, in the tail: what steps before have written need not be opened
    for step, size, data in chain(db.execute(tail, (stream,)), db.execute(chunks, (stream, chunk_id(first)))):
        if step and reached:
            continue
        if count >= limit:
            left_out += size
            continue
        frame = unpack_frame(data)
        keep = (frame.seq >= first) & (frame.seq < end)
        reached = reached or (step > 0 and not keep.any() and int(frame.seq[-1]) < first)
        if codes is not None:
            keep &= np.isin(frame.key, codes)
        if keep.any() and frame.columns.keys() == schema.fields.keys():  # else the pipeline file was changed since
            found.append(frame.where(keep))
            count += len(found[-1])
    if not found:
        return empty(schema, NO_PROGRESS), left_out
    frame = concatenate(found)
    frame = frame.take(np.lexsort((frame.time, frame.seq))[-limit:])
    return frame, left_out + count - len(frame)


def chunk_id(seq: int) -> int:
    """The lowest id of a chunk whose last row to arrive has this number: so those that hold later rows have higher ids."""
    return seq << _CHUNKS_A_NUMBER


def ends(db: apsw.Connection, stream: str) -> tuple[int, int] | None:
    """Its earliest and its latest time; None: there are no rows."""
    found = [
        row
        for table, where in (("frames", "AND history"), ("chunks", ""))
        for row in db.execute(f"SELECT min(first), max(last) FROM {table} WHERE stream = ? {where}", (stream,))
        if row[0] is not None
    ]
    return (min(first for first, _ in found), max(last for _, last in found)) if found else None


def info(db: apsw.Connection, stream: str, schema: Schema) -> StreamInfo:
    """How much of a stream there is, and from when to when."""
    total = "SELECT coalesce(sum(rows), 0), min(first), max(last), coalesce(sum(rows) FILTER (WHERE unsure), 0)"
    found = [
        row
        for table, where in (("frames", "stream = ? AND history"), ("chunks", "stream = ?"))
        for row in db.execute(f"{total} FROM {table} WHERE {where}", (stream,))
    ]
    counts, firsts, lasts, unsure = zip(*found, strict=True)
    oldest = min((t for t in firsts if t is not None), default=None)
    newest = max((t for t in lasts if t is not None), default=None)
    return StreamInfo(stream, schema, sum(counts), oldest, newest, unsure=sum(unsure))


def drop_frames(db: apsw.Connection, where: str, values: Sequence[object]) -> None:
    """They are no longer part of the history; those that the journal needs stay for it."""
    db.execute(f"UPDATE frames SET history = 0 WHERE journal AND {where}", tuple(values))
    db.execute(f"DELETE FROM frames WHERE NOT journal AND {where}", tuple(values))
