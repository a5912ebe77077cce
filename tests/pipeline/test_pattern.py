"""Patterns find what Python's `re` finds, and no text can make them slow."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pattern import MAX_MOVES, Pattern, PatternError

atoms = st.sampled_from(["a", "b", "-", ".", r"\.", r"\d", r"\W", "[ab]", "[^a]", "[]a]", "[a-c-]", r"[\d.]", "é", " "])
counts = st.sampled_from(["", "*", "+", "?", "*?", "{2}", "{1,}", "{0,2}", "{,1}", "{0}"])
pieces: st.SearchStrategy[str] = st.deferred(
    lambda: st.one_of(
        atoms,
        st.builds("{}{}".format, atoms, counts),
        st.builds("({}){}".format, eithers, counts),
        st.builds("(?:{}){}".format, eithers, counts),
    )
)
eithers: st.SearchStrategy[str] = st.lists(st.lists(pieces, max_size=3).map("".join), min_size=1, max_size=3).map(
    "|".join
)
patterns = st.builds("{}({}){}".format, st.sampled_from(["", "^"]), eithers, st.sampled_from(["", "$"])) | eithers
texts = st.text("ab-.1é \n", max_size=8)


@settings(max_examples=400, deadline=None)
@given(patterns.filter(lambda p: len(p) < 150), st.lists(texts, min_size=1, max_size=5))
def test_it_finds_what_re_finds(pattern: str, some: list[str]) -> None:
    """But for `$`, which here is the end and not also the place before a last line break."""
    ours, theirs = Pattern(pattern), re.compile(re.sub(r"\$$", r"\\Z", pattern))
    assert [ours.search(text) for text in some] == [theirs.search(text) is not None for text in some]


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+b", "((a|a))*b", "(a|aa)*b", "(.*)*b", "(.*a){20}", ".*.*.*.*=b", "a?" * 40 + "a" * 40 + "b", "(x*y*)*z"],
)
def test_no_text_makes_it_slow(pattern: str) -> None:
    """`re` would be at each of these until long after the device has rusted."""
    assert Pattern(pattern).search("a" * 20_000) is (pattern == "(.*a){20}")


def test_a_pattern_of_many_states_is_bounded() -> None:
    """What is remembered of the automaton is thrown away in time: `[ab]*a[ab]{20}` has a million states."""
    pattern = Pattern("^[ab]*a[ab]{20}$")
    text = "".join("ab"[(i * i >> 3) % 2] for i in range(20_000))
    assert pattern.search(text) is (text[-21] == "a")
    assert len(pattern._moves) <= MAX_MOVES


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(a", "never closed"),
        ("a)", "too many"),
        ("[a", "never closed"),
        ("*a", "stands before"),
        ("a**", "stands before"),
        ("a{2}{3}", "stands before"),
        ("a++", "stands before"),
        ("a{x}", "counts nothing"),
        ("a{3,2}", "wrong way round"),
        ("a^b", "may only stand at the start"),
        ("(a$)", "may only stand at the end"),
        ("^a|b", "need brackets"),
        (r"(a)\1", "not known here"),
        (r"\bword", "not known here"),
        ("a\\", "not known here"),
        ("(?=a)", "only"),
        ("(?i)a", "only"),
        ("[b-a]", "bad character range"),
        ("a" * 201, "more than 200"),
        ("a{501}", "more than 500"),
        ("((((a{9}){9}){9}){9}){9}", "more than 500"),
        ("(){9999}" * 20, "more than 500"),
        ("(" * 30 + "a" + ")" * 30, "at most 20 deep"),
    ],
)
def test_what_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(PatternError, match=said):
        Pattern(pattern)


def test_an_escaped_dollar_is_a_dollar() -> None:
    assert Pattern(r"5\$").search("5$ a day")
    assert not Pattern(r"5\\$").search("5\\ ")
    assert Pattern(r"5\\$").search("5\\")
