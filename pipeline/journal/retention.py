"""What is beyond the limits of the history is dropped. What its rollups do not have yet enters them first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import apsw
import numpy as np

from pipeline.frame import Frame, alike, concatenate
from pipeline.journal import rollup
from pipeline.journal.compaction import MOST_FRAMES, MOST_ROWS
from pipeline.journal.history import CHUNK_BYTES, FRAME_BYTES, drop_frames, holds, put
from pipeline.journal.rollup import Level, Wanted
from pipeline.packing import unpack_frame

# The end of a blob that is longer than this shares a page with little else: about a third of a page is left empty.
_LONG, _EMPTY = 1_000, 1_300
_FRAME_COST = f"size + {FRAME_BYTES} + {_EMPTY} * (size > {_LONG})"
_CHUNK_COST = f"size + {CHUNK_BYTES} + {_EMPTY} * (size > {_LONG})"

Ids = dict[str, list[int]]  # by table


def prune(
    db: apsw.Connection,
    streams: Sequence[str],
    before: int | None,
    max_bytes: int | None,
    wanted: Mapping[str, Wanted] | None = None,
) -> None:
    """In a transaction: drop what has no row younger than `before`, then the oldest until at most `max_bytes` are left.

    What the journal still needs stays until the checkpoint has passed it, but no longer shows in answers.
    """
    wanted = wanted or {}
    with_rollups = rollup.known(db).levels
    for stream in streams:
        if before is None:
            break
        if stream.partition("/")[0] in with_rollups:
            _drop(db, stream, _older(db, stream, before), wanted.get(stream, rollup.NONE))
        else:
            drop_frames(db, "stream = ? AND history AND last < ?", (stream, before))
            db.execute("DELETE FROM chunks WHERE stream = ? AND last < ?", (stream, before))
    if max_bytes is not None:
        for stream, ids in _too_much(db, streams, max_bytes).items():
            _drop(db, stream, ids, wanted.get(stream, rollup.NONE))


def held(db: apsw.Connection, streams: Sequence[str]) -> int:
    """Bytes that the history of these streams takes."""
    marks = ", ".join("?" * len(streams))
    frames = db.execute(f"SELECT sum({_FRAME_COST}) FROM frames WHERE stream IN ({marks}) AND history", streams)
    chunks = db.execute(f"SELECT sum({_CHUNK_COST}) FROM chunks WHERE stream IN ({marks})", streams)
    return sum(size or 0 for rows in (frames, chunks) for (size,) in rows)


def _older(db: apsw.Connection, stream: str, before: int) -> Ids:
    where = "stream = ? AND last < ?"
    return {
        "frames": [id_ for (id_,) in db.execute(f"SELECT id FROM frames WHERE {where} AND history", (stream, before))],
        "chunks": [id_ for (id_,) in db.execute(f"SELECT id FROM chunks WHERE {where}", (stream, before))],
    }


def _too_much(db: apsw.Connection, streams: Sequence[str], max_bytes: int) -> dict[str, Ids]:
    """The oldest of all these streams together."""
    gone: dict[str, Ids] = {}
    over = held(db, streams) - max_bytes
    if over <= 0:
        return gone
    marks = ", ".join("?" * len(streams))
    for table, id_, stream, size, _ in db.execute(
        f"SELECT 'frames', id, stream, {_FRAME_COST}, last FROM frames WHERE stream IN ({marks}) AND history UNION ALL "
        f"SELECT 'chunks', id, stream, {_CHUNK_COST}, last FROM chunks WHERE stream IN ({marks}) ORDER BY last, 1, 2",
        (*streams, *streams),
    ):
        gone.setdefault(stream, {"frames": [], "chunks": []})[table].append(id_)
        over -= size
        if over <= 0:
            break
    return gone


def _drop(db: apsw.Connection, stream: str, ids: Ids, wanted: Wanted) -> None:
    if levels := rollup.levels(db, stream, wanted):
        ids = _entered(db, stream, ids, levels, corrected=wanted.corrected)
    latest = [
        last
        for table, of_table in ids.items()
        for id_ in of_table
        for (last,) in db.execute(f"SELECT last FROM {table} WHERE id = ?", (id_,))
    ]
    if latest:
        rollup.lost(db, stream, max(latest) + 1)
    for id_ in ids["frames"]:
        drop_frames(db, "id = ?", (id_,))
    db.executemany("DELETE FROM chunks WHERE id = ?", [(id_,) for id_ in ids["chunks"]])


# --- into the rollups -----------------------------------------------------------------------------------------------


def _entered(db: apsw.Connection, stream: str, ids: Ids, levels: list[Level], *, corrected: bool) -> Ids:
    """What of these may be dropped now: what has entered all rollups; if there is too much to enter, the rest another time."""
    mask = rollup.mask_of(levels)
    may = _not_too_much(db, ids, mask)
    if corrected:
        may = _not_correcting(db, stream, may)
    found: dict[int, list[Frame]] = {}  # by the rollups that lack it
    unsure = False
    for rolled, doubtful, data in _lacking(db, may, mask):
        unsure = unsure or bool(doubtful)
        found.setdefault(mask & ~rolled, []).append(unpack_frame(data))
    others = _remaining(db, stream, may, found) if corrected and found else []
    for lacking, frames in found.items():
        for frame in _alike(frames):
            also = [other for mask, of_mask in found.items() if mask != lacking for other in of_mask]
            held = _as_it_holds(frame, [*others, *also]) if corrected else frame
            for level in levels:
                if level.bit & lacking and len(held):
                    put(
                        db, 0, level.name, rollup.reduced(held, level.every), journal=False, history=True, unsure=unsure
                    )
    return may


def _not_correcting(db: apsw.Connection, stream: str, ids: Ids) -> Ids:
    """Without what may correct a window that stays: that one would hold again."""
    going = {(table, id_) for table, of_table in ids.items() for id_ in of_table}
    spans: dict[tuple[str, int], tuple[int, int]] = {}  # of the corrections in what goes
    for part in going:
        for (data,) in db.execute(f"SELECT data FROM {part[0]} WHERE id = ?", (part[1],)):
            frame = unpack_frame(data)
            if "revision" in frame.columns and (at := frame.time[frame["revision"].values > 0]).size:
                spans[part] = (int(at.min()), int(at.max()))
    listed = "SELECT 'frames', id, first, last FROM frames WHERE stream = ? AND history"
    listed += " UNION ALL SELECT 'chunks', id, first, last FROM chunks WHERE stream = ?"
    extents = {(table, id_): (first, last) for table, id_, first, last in db.execute(listed, (stream, stream))}
    new = extents.keys() - going
    while new:
        stay = [part for part in spans.keys() & going if any(_overlap(spans[part], extents[other]) for other in new)]
        going -= {*stay}
        new = {*stay}
    return {table: [id_ for id_ in of_table if (table, id_) in going] for table, of_table in ids.items()}


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


def _not_too_much(db: apsw.Connection, ids: Ids, mask: int) -> Ids:
    may: Ids = {"chunks": [], "frames": []}
    rows = 0
    for table, rolled in (("chunks", "rolled"), ("frames", "0")):
        for id_ in ids[table]:
            if rows >= MOST_ROWS or len(may["frames"]) >= MOST_FRAMES:
                return may
            for n, has in db.execute(f"SELECT rows, {rolled} FROM {table} WHERE id = ?", (id_,)):
                rows += n if has & mask != mask else 0
            may[table].append(id_)
    return may


def _lacking(db: apsw.Connection, ids: Ids, mask: int) -> Iterator[tuple[int, int, bytes]]:
    """Those that are not in all of these rollups: in which they are, whether their times are unsure, and their rows."""
    for id_ in ids["chunks"]:
        yield from db.execute(
            "SELECT rolled, unsure, data FROM chunks WHERE id = ? AND rolled & ? <> ?", (id_, mask, mask)
        )
    for id_ in ids["frames"]:
        yield from db.execute("SELECT 0, unsure, data FROM frames WHERE id = ?", (id_,))


def _alike(frames: list[Frame]) -> list[Frame]:
    """As few as their fields allow: the pipeline file may have been changed between them."""
    groups: list[list[Frame]] = []
    for frame in frames:
        group = next((g for g in groups if alike(g[0], frame)), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    return [concatenate(group) for group in groups]


def _remaining(db: apsw.Connection, stream: str, going: Ids, found: dict[int, list[Frame]]) -> list[Frame]:
    """What stays of the time of what goes, or goes and is in the rollups: there may be a correction in it."""
    frames = [frame for of_mask in found.values() for frame in of_mask]
    first, last = min(int(f.time.min()) for f in frames), max(int(f.time.max()) for f in frames)
    others = []
    for table, also in (("frames", "AND history"), ("chunks", "")):
        gone = set(going[table])
        span = f"SELECT id, data FROM {table} WHERE stream = ? AND last >= ? AND first <= ? {also}"
        others += [unpack_frame(data) for id_, data in db.execute(span, (stream, first, last)) if id_ not in gone]
    return others


def _as_it_holds(frame: Frame, others: Collection[Frame]) -> Frame:
    """Without the windows that another row corrects."""
    if not {"start", "revision"} <= frame.columns.keys():
        return frame
    both = concatenate([frame, *(other for other in others if alike(frame, other))])
    return frame.where(np.asarray(holds(both)[: len(frame)]))
