"""Chains by columns agree with loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.frame import Field, KeyTable, column
from pipeline.journal.state import pack, unpack
from pipeline.turns import RowOfKey, after, beyond, by_key, by_text, from_news, linked

small = st.lists(st.integers(0, 6), min_size=1, max_size=40)


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_after(changes: list[bool]) -> None:
    n = len(changes)
    want = [next((j for j in range(i + 1, n) if changes[j]), n) for i in range(n)]
    assert after(np.array(changes, np.bool_)).tolist() == want


@given(small, st.integers(0, 3), st.integers(1, 45), st.booleans())
def test_beyond(values: list[int], band: int, within: int, both: bool) -> None:
    """Exact where the answer is near enough; else farther away than that."""
    found = beyond(np.array(values), np.array(values) - band if both else None, np.array(values) + band, within)
    n = len(values)
    for i, v in enumerate(values):
        want = next((j for j in range(i + 1, n) if values[j] > v + band or (both and values[j] < v - band)), n)
        assert found[i] == want if want - i < within else min(i + within, n) <= found[i] <= n


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.sets(st.integers(0, 39)))
def test_linked(steps: list[int], first: set[int]) -> None:
    n = len(steps)
    following = np.minimum(np.arange(n) + steps, n)
    starts = sorted(at for at in first if at < n)
    want = set()
    for start in starts:
        at = start
        while at < n:
            want.add(at)
            at = int(following[at])
    assert np.flatnonzero(linked(np.array(starts, np.int64), following)).tolist() == sorted(want)


@given(small, st.data())
def test_turns_and_news(keys: list[int], data: st.DataObject) -> None:
    key = np.array(keys, np.int32)
    new = np.array(data.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys))))
    turns = by_key(key)
    assert turns.order.tolist() == sorted(range(len(keys)), key=lambda row: keys[row])
    assert turns.keys.tolist() == sorted(set(keys))
    assert key[turns.order[turns.last]].tolist() == sorted(set(keys))
    assert turns.longest == max(keys.count(one) for one in keys)
    rows = [
        row for row in turns.order.tolist() if any(new[other] for other in range(row + 1) if keys[other] == keys[row])
    ]
    assert from_news(key, new).order.tolist() == rows


def test_by_text() -> None:
    keys = KeyTable(["b", "c", "a"])
    assert by_text(np.array([1, 2, 0, 2]), keys).tolist() == [2, 0, 1, 0]


def test_a_row_of_each_key_is_saved_and_restored() -> None:
    """Text too; keys that came since the last row have none."""
    fields = {"mode": Field("string", optional=True), "n": Field("int")}
    keys, rows = KeyTable("abc"), RowOfKey(fields)
    rows.grow(3)
    rows.put(np.array([0, 2]), np.array([5, 6]), {"mode": column("string", ["on", None]), "n": column("int", [1, 2])})
    saved = pack(rows.snapshot(keys))
    again = RowOfKey(fields)
    again.restore(unpack(saved))
    again.grow(40)
    assert again.has[:4].tolist() == [True, False, True, False]
    assert again.time[[0, 2]].tolist() == [5, 6]
    assert again.columns["mode"].take(np.arange(4)).tolist() == ["on", None, None, None]
    assert pack(again.snapshot(keys)) == saved
