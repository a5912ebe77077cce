"""The key table: a number for each key, which stays what it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.keys import FULL, MAX_KEY, UNFIT, KeyTable


def test_keys_are_numbered_as_they_come() -> None:
    """A code never changes, and a saved table gives the same ones."""
    keys = KeyTable()
    assert keys.codes(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
    assert keys.codes(["c", "d"]).tolist() == [2, 3]
    again = KeyTable(keys.names)
    assert again.codes(["d", "b"]).tolist() == [3, 0]
    with pytest.raises(ValueError, match="has keys already"):
        again.load(["x"])


def test_a_whole_number_is_the_key_of_its_digits() -> None:
    keys = KeyTable()
    assert keys.codes([7, "7", 8, 7]).tolist() == [0, 0, 1, 0]
    assert keys.names == ["7", "8"]
    assert len(keys) == 2


def test_at_the_limit_new_keys_are_refused_and_known_ones_are_not() -> None:
    keys = KeyTable(limit=2)
    assert keys.codes(["a", "b", "c", "a", 9]).tolist() == [0, 1, FULL, 0, FULL]
    assert keys.names == ["a", "b"]


def test_a_key_that_nobody_means_is_refused() -> None:
    """Empty, or very long; neither is kept. The one group of a stream without a key is another matter."""
    keys = KeyTable()
    assert keys.codes(["", "x" * (MAX_KEY + 1), "x" * MAX_KEY]).tolist() == [UNFIT, UNFIT, 0]
    assert keys.whole() == keys.whole() == 1
    assert keys.names == ["x" * MAX_KEY, ""]
    assert keys.codes(["", "a"]).tolist() == [UNFIT, 2]  # and no reading gets into it by its text
    assert KeyTable(keys.names).codes(["", "a"]).tolist() == [UNFIT, 2]
    assert KeyTable(keys.names).whole() == 1


@given(st.lists(st.lists(st.text(min_size=1, max_size=3)), max_size=4))
def test_ranks_follow_the_text(batches: list[list[str]]) -> None:
    """Also after more keys have come."""
    keys = KeyTable()
    for names in batches:
        keys.codes(names)
        ranks = keys.ranks()
        assert [keys.names[code] for code in np.argsort(ranks).tolist()] == sorted(keys.names)
        assert sorted(ranks.tolist()) == list(range(len(keys)))
