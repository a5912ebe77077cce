"""The journal and the checkpoint: what a restart needs to be where the last commit was.

An entry holds what came from outside in one step. The checkpoint holds the state of every node after some step;
journal entries up to it are dropped.
"""

from __future__ import annotations

from typing import Any

import apsw
import msgspec
import numpy as np

from pipeline.component import State

_ARRAY, _STRINGS = 1, 2  # extension types of packed state


def pack(value: Any) -> bytes:
    """State (numbers, text, lists, dicts, numpy arrays) as bytes; equal state is equal bytes."""
    return _encoder.encode(value)


def unpack(data: bytes) -> Any:
    """What `pack` was given; arrays are fresh and may be written to."""
    return _decoder.decode(data)


def _enc(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return msgspec.msgpack.Ext(_STRINGS, msgspec.msgpack.encode(value.tolist()))
        descr = value.dtype.descr if value.dtype.names else value.dtype.str
        return msgspec.msgpack.Ext(_ARRAY, msgspec.msgpack.encode((descr, value.shape, value.tobytes())))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | set):
        return list(value)
    raise TypeError(f"state cannot hold a {type(value).__name__}")


def _ext(code: int, data: memoryview) -> Any:
    if code == _STRINGS:
        texts = msgspec.msgpack.decode(data)
        strings = np.empty(len(texts), object)
        strings[:] = texts
        return strings
    descr, shape, body = msgspec.msgpack.decode(data)
    dtype = np.dtype(descr) if isinstance(descr, str) else np.dtype([tuple(field) for field in descr])
    return np.frombuffer(body, dtype).reshape(shape).copy()


_encoder = msgspec.msgpack.Encoder(enc_hook=_enc)
_decoder = msgspec.msgpack.Decoder(ext_hook=_ext)


class Part(msgspec.Struct, array_like=True):
    """What one source brought in one step."""

    frame: int | None = None  # id in `frames`; None: it brought nothing, or can be read again
    start: Any = None  # a replayable source: the positions between which it lies
    end: Any = None
    read: bool = False  # it is to be read again
    watermark: int = 0  # after the tick
    quiet: bool = False
    ended: bool = False
    runs: list[tuple[int, int]] | None = (
        None  # of what is to be read again: arrival number of the first of so many readings
    )
    refused: int | None = None  # id in `frames` of the rows of SOURCE.invalid, where an operator reads them


class Entry(msgspec.Struct, array_like=True):
    """One step: the clock, and what each source brought."""

    clock: int
    first_seq: int
    parts: dict[str, Part]
    stamp: int = 0  # the newest time of arrival that was given
    injected: list[
        tuple[str, int]
    ] = []  # where to (as `Graph.push` takes it), id in `frames`: rows for one operator alone
    forgotten: list[tuple[int, str | None]] = []  # code of a key, and in what comes of which stream (None: everywhere)


_ENTRY = msgspec.msgpack.Decoder(Entry)
_encode_entry = msgspec.msgpack.Encoder(enc_hook=_enc).encode


def add_entry(db: apsw.Connection, step: int, entry: Entry) -> None:
    db.execute("INSERT INTO steps VALUES (?, ?)", (step, _encode_entry(entry)))


def entries(db: apsw.Connection) -> list[tuple[int, Entry]]:
    """The journal: steps after the checkpoint, in order."""
    return [(step, _ENTRY.decode(data)) for step, data in db.execute("SELECT step, entry FROM steps ORDER BY step")]


def frame_bytes(db: apsw.Connection, frame: int) -> bytes:
    for (data,) in db.execute("SELECT data FROM frames WHERE id = ?", (frame,)):
        return bytes(data)
    raise LookupError(f"the journal's frame {frame} is gone")


def add_keys(db: apsw.Connection, first: int, names: list[str]) -> None:
    """Keys that a step saw for the first time; their codes go on from `first`."""
    db.executemany("INSERT OR IGNORE INTO keys VALUES (?, ?)", list(enumerate(names, first)))


def keys(db: apsw.Connection) -> list[str]:
    return [name for (name,) in db.execute("SELECT name FROM keys ORDER BY code")]


def save_position(db: apsw.Connection, source: str, position: Any) -> None:
    db.execute("REPLACE INTO positions VALUES (?, ?)", (source, pack(position)))


def positions(db: apsw.Connection) -> dict[str, Any]:
    return {source: unpack(data) for source, data in db.execute("SELECT source, position FROM positions")}


def checkpoint(db: apsw.Connection, step: int, states: dict[str, State]) -> None:
    """The state of every node after `step` takes the place of the last checkpoint and of the journal up to it."""
    db.execute("DELETE FROM checkpoint")
    db.executemany("INSERT INTO checkpoint VALUES (?, ?, ?)", [(n, step, pack(s)) for n, s in states.items()])
    db.execute("DELETE FROM steps WHERE step <= ?", (step,))
    db.execute("DELETE FROM frames WHERE journal AND NOT history AND step <= ?", (step,))
    db.execute("UPDATE frames SET journal = 0 WHERE journal AND step <= ?", (step,))


def load_checkpoint(db: apsw.Connection) -> tuple[int, dict[str, State]]:
    """The step after which it was taken, and each node's state; 0 and nothing if there is none."""
    step, states = 0, {}
    for node, at, data in db.execute("SELECT node, step, state FROM checkpoint"):
        step, states[node] = at, unpack(data)
    return step, states


def remember(db: apsw.Connection, source: str, request: str, clock: int, receipt: bytes, keep: int) -> None:
    """The answer to a request with an Idempotency-Key; only the newest `keep` of a source stay."""
    db.execute(
        "INSERT OR IGNORE INTO requests (source, request, clock, receipt) VALUES (?, ?, ?, ?)",
        (source, request, clock, receipt),
    )
    newest = db.last_insert_rowid()
    if newest % 100 == 0:
        old = "SELECT id FROM requests WHERE source = ? ORDER BY id DESC LIMIT -1 OFFSET ?"
        db.execute(f"DELETE FROM requests WHERE id IN ({old})", (source, keep))


def remembered(db: apsw.Connection) -> list[tuple[str, str, bytes]]:
    """(source, request, receipt), oldest first."""
    return [(s, q, bytes(r)) for s, q, r in db.execute("SELECT source, request, receipt FROM requests ORDER BY id")]
