"""Tables to settings: what msgspec would make of a table, but with every mistake named."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Meta, field

from pipeline import quantity
from pipeline.component import Settings
from pipeline.quantity import Duration, Secret, duration
from pipeline.settings import names, read


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Inner(Settings, kw_only=True, frozen=True):
    rows: Annotated[int, Meta(ge=1, lt=10, multiple_of=2)]
    wait: Duration = duration("5 s")


class Outer(Settings, kw_only=True, frozen=True):
    text: Annotated[str, Meta(min_length=1, pattern="^[a-z]*$")] = "a"
    number: float = 0.5
    switch: bool = False
    word: Literal["one", "two", 1] = "one"
    colour: Colour = Colour.RED
    for_: Duration | None = field(name="for", default=None)
    token: Secret | None = None
    many: Annotated[list[int], Meta(max_length=2)] = field(default_factory=list)
    pair: tuple[int, str] | None = None
    texts: tuple[str, ...] = ()
    either: int | str | list[str] = 0
    inner: Inner | None = None
    named: dict[str, Inner] = field(default_factory=dict)
    format: str | dict[str, Any] = "json"


scalars = st.sampled_from([0, 1, 2, 3, 11, -1, 0.5, True, False, "", "a", "A", "one", "red", "5 s", "5 parsecs", 2**70])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["rows", "wait", "x"]), inner)
)
tables = st.dictionaries(st.sampled_from([*names(Outer), "other"]), values, max_size=4)


@given(tables)
@example({"word": True})
def test_it_agrees_with_msgspec(table: dict[str, Any]) -> None:
    """On what is right, and on what comes out of it."""
    try:
        expected = msgspec.convert(table, Outer, dec_hook=quantity.convert)
    except msgspec.ValidationError:
        expected = None
    made, found = read(Outer, table)
    assert (not found) == (expected is not None)
    if expected is not None:
        assert made == expected


@given(tables, tables)
def test_no_mistake_hides_another(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two tables side by side have the mistakes of each."""
    found = read(dict[str, Outer], {"one": one, "other": other}).found
    apart = [
        ((name, *where), text) for name, t in (("one", one), ("other", other)) for where, text in read(Outer, t).found
    ]
    assert found == apart


def test_after_a_mistake_there_is_something_to_go_on_with() -> None:
    """What was most likely meant, the default, or a zero."""
    made, found = read(Outer, {"txet": "b", "word": "on", "number": "x", "named": {"n": {"row": 4}}})
    assert [where[0] for where, _ in found] == ["txet", "number", "word", "named"]
    assert (made.text, made.word, made.number, made.named["n"].rows) == ("b", "one", 0.5, 4)
    assert read(Inner, {}).settings == Inner(rows=1)


def test_where_it_would_mislead_there_is_nothing() -> None:
    """A list or table that is lost may decide which fields there are."""
    for table in ({"named": 3}, {"many": "x"}, {"inner": [1]}, {"zzz": {"a": 1}}, 3):
        made, found = read(Outer, table)
        assert made is None
        assert len(found) == 1


def test_messages_do_not_tell_what_was_in_a_secret() -> None:
    for value in (["hush"], 3, {"hush": 1}):
        assert "hush" not in str(read(Outer, {"token": value}).found)


def test_paths_and_kinds_of_plug_ins() -> None:
    class Odd(Settings, kw_only=True, frozen=True):
        path: Path
        anything: Any = None

    assert read(Odd, {"path": "a/b", "anything": [1]}).settings == Odd(path=Path("a/b"), anything=[1])
    assert read(Odd, {"path": 1}).found == [(("path",), "expected text, got a whole number")]


def test_text_is_what_nothing_else_can_read() -> None:
    """Whatever the order of the union."""

    class Either(Settings, kw_only=True, frozen=True):
        wait: str | Duration

    assert read(Either, {"wait": "5 s"}).settings == Either(wait=duration("5 s"))
    assert read(Either, {"wait": "long"}).settings == Either(wait="long")


def test_a_check_of_the_settings_themselves() -> None:
    """`__post_init__` speaks for the whole table."""

    class Range(Settings, kw_only=True, frozen=True):
        low: int
        high: int

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")

    assert read(Range, {"low": 3, "high": 1}, ("a",)).found == [(("a",), "low is above high")]
