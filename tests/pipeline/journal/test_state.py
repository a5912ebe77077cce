"""Packed state comes back as it was; the journal and the checkpoint drop what they may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest

from pipeline.frame import NO_PROGRESS, Column, Frame
from pipeline.journal import history, state
from pipeline.journal.files import Files
from pipeline.journal.schema import TABLES


@pytest.fixture
def db() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    connection.execute(TABLES)
    return connection


def frame(*times: int) -> Frame:
    time = np.array(times, np.int64)
    return Frame(time, np.zeros(len(time), np.int32), time.copy(), {"value": Column(time.astype(float))}, NO_PROGRESS)


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, "x", None, True], "b": {"c": -(2**63)}},
        np.arange(6).reshape(2, 3),
        np.array(["x", "", "ü"], object),
        np.array([(True, 1.5)], [("seen", "?"), ("value", "f8")]),
        np.empty(0, np.float64),
    ],
)
def test_packed_state_comes_back(value: Any) -> None:
    back = state.unpack(state.pack(value))
    if isinstance(value, np.ndarray):
        assert back.dtype == value.dtype
        assert back.tolist() == value.tolist()
        assert back.flags.writeable
    else:
        assert back == value


def test_what_cannot_be_packed_says_so() -> None:
    with pytest.raises(TypeError, match="state cannot hold a object"):
        state.pack({"a": object()})


def test_the_checkpoint_drops_the_journal_and_keeps_the_history(db: apsw.Connection) -> None:
    """A Frame that both read stays for the one that still needs it."""
    only_journal = history.put(db, 1, "s", frame(1), journal=True, history=False)
    both = history.put(db, 1, "s", frame(2), journal=True, history=True)
    later = history.put(db, 2, "s", frame(3), journal=True, history=False)
    for step in (1, 2):
        state.add_entry(db, step, state.Entry(0, 0, {}))
    state.checkpoint(db, 1, {"node": {"n": 1}})
    assert state.load_checkpoint(db) == (1, {"node": {"n": 1}})
    assert [step for step, _ in state.entries(db)] == [2]
    left = dict(db.execute("SELECT id, journal FROM frames"))
    assert left == {both: 0, later: 1}
    assert only_journal not in left


def test_a_file_is_cut_to_what_was_committed(tmp_path: Path, db: apsw.Connection) -> None:
    """A torn row behind the last commit is gone after the start; what is appended then follows the committed part."""
    path = tmp_path / "out" / "rows.csv"
    files = Files(sync=False)
    with db:
        files.append(db, path, b"1\n", header=b"value\n")
    with pytest.raises(RuntimeError), db:
        files.append(db, path, b"2\n")
        raise RuntimeError("the commit failed")
    assert path.read_bytes() == b"value\n1\n2\n"
    files.close()
    again = Files(sync=False)
    again.cut(db, path)
    assert path.read_bytes() == b"value\n1\n"
    again.append(db, path, b"3\n", header=b"value\n")
    assert path.read_bytes() == b"value\n1\n3\n"


def test_a_file_that_was_there_is_added_to(tmp_path: Path, db: apsw.Connection) -> None:
    path = tmp_path / "rows.ndjson"
    path.write_bytes(b"theirs\n")
    files = Files(sync=True)
    files.cut(db, path)
    files.append(db, path, b"ours\n")
    assert path.read_bytes() == b"theirs\nours\n"
