"""The tail of the history becomes chunks: what came together step by step is laid together by key and time.

A Frame a commit is cheap to write and dear to read: a question for one key would look at all keys, commit by commit. So
what has gathered is rearranged now and then, in three steps, each done when there is enough of it:

    gather   many small Frames of the tail           -> one
    sort     the tail, some hundred rows a key       -> a chunk of each key
    join     eight small chunks of each key          -> one

What is sorted enters the rollups of its stream (rollup.py) in the same transaction; they are rearranged like streams, and what
they hold of one interval in several parts becomes one. Chunks that a rollup has missed, since it is new, enter it later.

Each takes a bounded piece of work. It is read and rearranged beside the writer, which only puts the result in the place of
what it came from; that goes wrong harmlessly if some of it has been dropped meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import apsw
import msgspec
import numpy as np

from pipeline.frame import Frame, alike, concatenate
from pipeline.journal import rollup
from pipeline.journal.history import chunk_id, drop_frames, put
from pipeline.journal.rollup import Level, Wanted
from pipeline.packing import pack_frame, unpack_frame

MANY_FRAMES = 256  # of the tail, each of which a question may have to open
MANY_PARTS = 16  # of the tail of a rollup: most of their rows are of intervals that the others have rows of, too
ROWS_A_KEY = 300  # in the tail, on average, before it is worth a chunk of each key
LEAST_ROWS = 3_000  # in the tail before it is sorted
MOST_ROWS = 250_000  # in one piece of work: about 10 MB
MOST_FRAMES = 5_000  # in one piece of work
MOST_BYTES = 8_000_000  # of the tail, however few rows a key has in it: a question reads all of it
CHUNK_ROWS = 3_000  # of a chunk that is large enough
SMALL_CHUNK = 1_500  # as the index chunks_to_join says
MANY_CHUNKS = 8  # small ones of a key
MISSED_CHUNKS = 64  # that enter a new rollup in one piece of work

_pack = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Piece:
    """One piece of work: what it takes away, and what comes in its place."""

    stream: str
    frames: list[int] = field(default_factory=list)  # ids
    chunks: list[int] = field(default_factory=list)
    unsure: bool = False
    gathered: Frame | None = None
    sorted: list[Frame] = field(default_factory=list)  # of one key each
    rolled: int = 0  # the rollups that have their rows, or will
    rollups: list[tuple[Level, Frame]] = field(default_factory=list)  # what enters them
    entered: list[int] = field(default_factory=list)  # ids of chunks that stay, and whose rows enter

    def packed(self) -> Iterator[tuple[Any, ...]]:
        """The rows of `chunks` to be written, each about 0.3 ms of work; before each the last arrival number in it."""
        for frame in self.sorted:
            first, last = int(frame.time[0]), int(frame.time[-1])
            data, summary = pack_frame(frame), _pack(summary_of(frame))
            yield (
                int(frame.seq.max()),
                self.stream,
                int(frame.key[0]),
                len(frame),
                first,
                last,
                data,
                summary,
                self.unsure,
                self.rolled,
            )

    def enter(self, levels: list[Level], frame: Frame) -> None:
        """These rows enter these rollups."""
        self.rolled |= rollup.mask_of(levels)
        self.rollups += [(level, rollup.reduced(frame, level.every)) for level in levels]


def find(db: apsw.Connection, stream: str, keys: int, wanted: Wanted = rollup.NONE) -> Piece | None:
    """The next piece of work for a stream, or rollup, with about so many keys; None: there is nothing worth it."""
    levels = [] if wanted.corrected else rollup.levels(db, stream, wanted)
    return _to_join(db, stream) or _to_sort_or_gather(db, stream, keys, levels) or _to_enter(db, stream, levels)


def _to_join(db: apsw.Connection, stream: str) -> Piece | None:
    """Of many keys at once: their small chunks lie side by side, so a page is written once for all of them."""
    groups = (
        f"SELECT key, unsure, rolled FROM chunks WHERE stream = ? AND rows < {SMALL_CHUNK} GROUP BY key, unsure, rolled"
        f" HAVING count(*) >= {MANY_CHUNKS} ORDER BY count(*) DESC"
    )
    piece: Piece | None = None
    for key, unsure, rolled in list(db.execute(groups, (stream,))):
        if piece is not None and (piece.unsure, piece.rolled) != (bool(unsure), rolled):
            continue
        where = f"stream = ? AND key = ? AND rows < {SMALL_CHUNK} AND unsure = ? AND rolled = ? ORDER BY first, id"
        ids, frames = _alike_of_key(db, f"SELECT id, data FROM chunks WHERE {where}", (stream, key, unsure, rolled))
        if len(frames) > 1:
            piece = piece or Piece(stream, unsure=bool(unsure), rolled=rolled)
            piece.chunks += ids
            piece.sorted.append(_in_time(_parts_as_one(stream, concatenate(frames))))
            if sum(map(len, piece.sorted)) >= MOST_ROWS or len(piece.chunks) >= MOST_FRAMES:
                break
    return piece


def _alike_of_key(db: apsw.Connection, sql: str, values: tuple[Any, ...]) -> tuple[list[int], list[Frame]]:
    """The oldest of these chunks that can be laid together, as many as make a large one."""
    ids: list[int] = []
    frames: list[Frame] = []
    for id_, data in db.execute(sql, values):
        frame = unpack_frame(data)
        if frames and (not alike(frame, frames[0]) or sum(map(len, frames)) >= CHUNK_ROWS):
            if len(frames) > 1:
                break
            ids, frames = [], []  # the one before stays as it is: the pipeline file was changed after it
        ids.append(id_)
        frames.append(frame)
    return ids, frames


def _to_sort_or_gather(db: apsw.Connection, stream: str, keys: int, levels: list[Level]) -> Piece | None:
    tail = "SELECT id, rows, size, unsure FROM frames WHERE stream = ? AND history ORDER BY id"
    listed = list(db.execute(tail, (stream,)))
    rows, size = sum(r for _, r, _, _ in listed), sum(s for _, _, s, _ in listed)
    if rows >= max(LEAST_ROWS, ROWS_A_KEY * keys) or size >= MOST_BYTES or rows >= MOST_ROWS:
        return _sorted(*_read(db, stream, listed, MOST_ROWS), levels)
    many = MANY_FRAMES if rollup.interval_of(stream) is None else MANY_PARTS
    small = [f for f in listed if f[1] < LEAST_ROWS]
    if len(small) < many:
        return None
    piece, frame = _read(db, stream, small, LEAST_ROWS)
    if len(piece.frames) < many // 2:
        return _sorted(piece, frame, levels)  # the pipeline file was changed after it: nothing more will come to these
    piece.gathered = frame
    return piece


def _sorted(piece: Piece, frame: Frame, levels: list[Level]) -> Piece:
    piece.sorted = by_key(frame)
    piece.enter(levels, frame)
    return piece


def _to_enter(db: apsw.Connection, stream: str, levels: list[Level]) -> Piece | None:
    """Chunks that lack the same rollups."""
    mask = rollup.mask_of(levels)
    if not mask:
        return None
    missed = "SELECT id, unsure, rolled FROM chunks WHERE id IN (SELECT id FROM chunks INDEXED BY chunks_by_time"
    missed += " WHERE stream = ? AND rolled & ? <> ? LIMIT ?)"
    piece: Piece | None = None
    frames: list[Frame] = []
    lacking: list[Level] = []
    for id_, unsure, rolled in list(db.execute(missed, (stream, mask, mask, MISSED_CHUNKS))):
        if piece is None:
            piece = Piece(stream, unsure=bool(unsure))
            lacking = [level for level in levels if not level.bit & rolled]
        if (piece.unsure, rollup.mask_of(lacking)) != (bool(unsure), mask & ~rolled):
            continue
        for (data,) in db.execute("SELECT data FROM chunks WHERE id = ?", (id_,)):
            frame = unpack_frame(data)
            if not frames or alike(frame, frames[0]):
                frames.append(frame)
                piece.entered.append(id_)
    if piece is not None:
        piece.enter(lacking, concatenate(frames))
    return piece


def _read(db: apsw.Connection, stream: str, listed: list[Any], most: int) -> tuple[Piece, Frame]:
    """The oldest of them, as far as they are alike, and their rows by arrival."""
    piece, rows = Piece(stream, unsure=bool(listed[0][3])), 0
    frames: list[Frame] = []
    for id_, n, _, unsure in listed:
        if unsure != piece.unsure or (rows and rows + n > most) or len(frames) >= MOST_FRAMES:
            break
        for (data,) in db.execute("SELECT data FROM frames WHERE id = ?", (id_,)):
            frame = unpack_frame(data)
            if frames and not alike(frame, frames[0]):  # the pipeline file was changed between them
                return piece, _parts_as_one(stream, concatenate(frames))
            frames.append(frame)
        piece.frames.append(id_)
        rows += n
    return piece, _parts_as_one(stream, concatenate(frames))


def _parts_as_one(stream: str, frame: Frame) -> Frame:
    """Of a rollup, no more of each interval than it needs."""
    every = rollup.interval_of(stream)
    return frame if every is None else rollup.reduced(frame, every)


def by_key(frame: Frame) -> list[Frame]:
    """A Frame of each key, or several of one that has many rows; each by time, rows of one time in order of arrival."""
    frame = frame.take(np.lexsort((frame.seq, frame.time, frame.key)))
    starts = np.flatnonzero(np.diff(frame.key, prepend=-1))
    found = []
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(frame)], strict=True):
        pieces = max(1, round((end - start) / CHUNK_ROWS))
        bounds = np.linspace(start, end, pieces + 1).astype(np.int64).tolist()
        found += [frame.take(slice(a, b)) for a, b in pairwise(bounds)]
    return found


def _in_time(frame: Frame) -> Frame:
    return frame.take(np.lexsort((frame.seq, frame.time)))


def summary_of(frame: Frame) -> dict[str, list[float]]:
    """Of each field with numbers: how many there are, their sum, the least and the greatest with their times, the ends.

    `[count, sum, min, min's time, max, max's time, first, last]`; NaN counts as missing.
    """
    summary: dict[str, list[float]] = {}
    for name, column in frame.columns.items():
        if column.values.dtype.kind not in "fi" or name.startswith("#"):
            continue
        at = np.flatnonzero(rollup.numbers_of(column))
        if not len(at):
            summary[name] = [0]
            continue
        values, times = column.values[at], frame.time[at]
        low, high = int(values.argmin()), int(values.argmax())
        ends = [values[low], times[low], values[high], times[high], values[0], values[-1]]
        summary[name] = [len(at), values.sum(dtype=np.float64).item(), *(v.item() for v in ends)]
    return summary


def replace(db: apsw.Connection, piece: Piece, chunks: list[tuple[Any, ...]]) -> bool:
    """In a transaction: what was rearranged takes the place of what it came from. False: some of that is gone."""
    for table, ids, also in (("frames", piece.frames, "AND history"), ("chunks", [*piece.chunks, *piece.entered], "")):
        marks = ", ".join("?" * len(ids))
        ((there,),) = db.execute(f"SELECT count(*) FROM {table} WHERE id IN ({marks}) {also}", ids)
        if there != len(ids):
            return False
    if piece.gathered is not None:
        put(db, 0, piece.stream, piece.gathered, journal=False, history=True, unsure=piece.unsure)
    columns = "id, stream, key, rows, first, last, data, summary, unsure, rolled"
    for seq, *values in chunks:
        marks = ", ".join("?" * (1 + len(values)))
        db.execute(f"INSERT INTO chunks ({columns}) VALUES ({marks})", (_free_id(db, seq), *values))
    for level, frame in piece.rollups:
        put(db, 0, level.name, frame, journal=False, history=True, unsure=piece.unsure)
    db.executemany("UPDATE chunks SET rolled = rolled | ? WHERE id = ?", [(piece.rolled, id_) for id_ in piece.entered])
    for id_ in piece.frames:
        drop_frames(db, "id = ?", (id_,))
    db.executemany("DELETE FROM chunks WHERE id = ?", [(id_,) for id_ in piece.chunks])
    return True


def _free_id(db: apsw.Connection, seq: int) -> int:
    """For a chunk whose last row to arrive has this number. What is behind a moment is so found by id (`history.since`)."""
    while True:
        low, high = chunk_id(seq), chunk_id(seq + 1)
        ((taken,),) = db.execute("SELECT max(id) FROM chunks WHERE id >= ? AND id < ?", (low, high))
        if taken is None or taken + 1 < high:
            return low if taken is None else int(taken) + 1
        seq += 1  # more chunks end with this number than it has ids: a higher one is opened in vain, no more
