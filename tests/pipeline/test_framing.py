"""Messages out of a stream of bytes: however it is cut, they are the same."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.component import SourceContext
from pipeline.frame import KeyTable
from pipeline.framing import Lengths, Lines, StreamSettings, StreamSource, TooLong, framing
from pipeline.quantity import Size

MOST = 8
KINDS = {"u8": (1, "big"), "u16": (2, "big"), "u32": (4, "big"), "u16_le": (2, "little"), "u32_le": (4, "little")}


def fed(made: Any, data: bytes, cuts: list[int]) -> list[bytes | TooLong]:
    """All messages, from pieces that end at `cuts`."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    found: list[bytes | TooLong] = []
    for start, end in pairwise(places):
        if not made.broken:  # the connection is closed then
            found += made.feed(data[start:end])
    return found + made.end()


def plainly(data: bytes) -> list[bytes | None]:
    """The oracle: lines of the whole; None: too long."""
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    return [line if len(line) <= MOST else None for line in lines if len(line) > MOST or line.strip()]


TEXTS = st.lists(st.sampled_from([b"a", b"bc", b"12345678", b"123456789", b" ", b" " * 9, b"\r", b"\n", b"\r\n"])).map(
    b"".join
)
CUTS = st.lists(st.integers(0, 200))


@settings(max_examples=300)
@given(TEXTS, CUTS)
def test_lines_are_those_of_the_whole_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    found = [None if isinstance(m, TooLong) else m for m in fed(Lines(MOST), data, cuts)]
    assert found == plainly(data)


@settings(max_examples=200)
@given(st.sampled_from(sorted(KINDS)), st.lists(st.binary(max_size=MOST)), CUTS)
def test_messages_behind_their_length(kind: Any, messages: list[bytes], cuts: list[int]) -> None:
    """One of length 0 is a sign of life; one that was cut off at the end is none."""
    size, order = KINDS[kind]
    data = b"".join(len(m).to_bytes(size, order) + m for m in messages)  # type: ignore[arg-type]
    torn = (5).to_bytes(size, order) + b"torn"  # type: ignore[arg-type]
    assert fed(framing(kind, MOST), data + torn, cuts) == [m for m in messages if m]


@given(CUTS)
def test_a_length_that_cannot_be_ends_the_stream(cuts: list[int]) -> None:
    made = Lengths(MOST, 2, "big")
    found = fed(made, b"\x00\x02ok\x00\x09123456789\x00\x02no", cuts)
    assert found[0] == b"ok"
    assert [type(m) for m in found[1:]] == [TooLong]
    assert made.broken == "a message of 9 bytes was announced; max_message is 8"


def test_a_long_line_is_not_held_in_memory() -> None:
    made = Lines(MOST)
    found = [m for _ in range(10_000) for m in made.feed(b"0123456789")]
    assert found == [TooLong(b"0123456789")]
    assert len(made._held) == 0
    assert made.feed(b"\nok\n") == [b"ok"]


def source(**settings: Any) -> StreamSource:
    context = SourceContext("line", KeyTable())
    made = StreamSource(StreamSettings(key="id", fields={"value": "float"}, **settings), context)
    assert context.problems == []
    return made


def test_a_message_too_long_becomes_a_refusal_between_good_ones() -> None:
    made = source(max_message=Size(30))
    stream = made.stream()
    good = b'{"id":"a","value":1}\n'
    decoded = made.decode(stream.feed(good + b"x" * 31 + b"\n" + good))
    assert list(decoded.counts) == [1, 0, 1]
    assert [(r.payload, r.reason, r.raw) for r in decoded.refused] == [
        (1, "longer than max_message (30 bytes)", "x" * 31)
    ]
    assert len(decoded.keys) == 2


def test_only_messages_too_long_can_be_decoded_alone() -> None:
    """Also where readings are dated by their arrival, and where they are not."""
    for more in ({}, {"time": "t"}):
        made = source(max_message=Size(3), **more)
        decoded = made.decode(made.stream().feed(b"12345\n67890\n"))
        assert list(decoded.counts) == [0, 0]
        assert len(decoded.refused) == 2
        assert (decoded.times is None) == (not more)


def test_the_header_of_csv_is_each_connection_s_first_line() -> None:
    made = source(format="csv")
    for order in (b"id,value\na,1\nb,2\n", b"value,id\n1,a\n2,b\n"):
        stream = made.stream()
        decoded = made.decode([*stream.feed(order[:12]), *stream.feed(order[12:])])
        assert decoded.refused == []
        assert decoded.columns["value"].tolist() == [1.0, 2.0]


def test_max_message_must_be_something() -> None:
    context = SourceContext("line", KeyTable())
    StreamSource(StreamSettings(key="id", fields={"value": "float"}, max_message=Size(0)), context)
    assert [setting for setting, _ in context.problems] == ["max_message"]


@pytest.mark.parametrize("timed", [True, False])
def test_a_message_too_long_is_no_reading_to_be_tried_again(timed: bool) -> None:
    made = source(max_message=Size(3))
    (payload,) = made.stream().feed(b"12345\n")
    assert made.readings(payload) is None
