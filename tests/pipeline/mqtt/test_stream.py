"""A stream of bytes, cut anywhere, gives the packets that are in it; what is too large or malformed costs what is said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.mqtt.packets import Ack, Packet, PingResp, Publish, SubAck, Version, encode
from pipeline.mqtt.stream import HEAD, SHOWN, Messages, Reader
from pipeline.mqtt.wire import Malformed
from tests.pipeline.mqtt.test_packets import ACKS, PUBLISHES, VERSIONS, older


class Message(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool
    duplicate: bool
    id: int


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted({p % (len(data) + 1) for p in places} | {len(data)})
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def read(reader: Reader, pieces: Sequence[bytes]) -> tuple[list[Message], list[Packet]]:
    found: list[Message] = []
    packets: list[Packet] = []
    for piece in pieces:
        messages, others = reader.feed(piece)
        found += rows(messages)
        packets += others
    return found, packets


def rows(messages: Messages) -> list[Message]:
    """One by one: ids stand in lists of their own, in the order of their messages."""
    acks, twice = iter(messages.acks), dict(messages.twice)
    made = []
    for i, (topic, payload, head) in enumerate(zip(messages.topics, messages.payloads, messages.heads, strict=True)):
        qos = head >> 1 & 3
        id_ = int.from_bytes(next(acks), "big") if qos == 1 else twice[i] if qos == 2 else 0
        made.append(Message(topic, payload, qos, bool(head & 1), bool(head & 8), id_))
    assert next(acks, None) is None
    return made


OTHERS = st.one_of(ACKS, st.just(PingResp()), st.integers(1, 9).map(lambda id_: SubAck(id_, (0, 128))))
LONG = st.integers(100, 20_000).map(lambda size: Publish("a/b", bytes(size), 1, id=7))


@given(st.lists(st.one_of(PUBLISHES, OTHERS, LONG), max_size=8), VERSIONS, st.lists(st.integers(0, 50_000), max_size=6))
def test_wherever_it_is_cut_the_same_packets_come(packets: list[Any], version: Version, places: list[int]) -> None:
    """Messages with and without properties, of all QoS, among other packets."""
    packets = [older(p) if version == 4 else p for p in packets]
    for p in packets:
        if isinstance(p, Publish) and isinstance(p.properties, dict):
            p.properties.pop("topic_alias", None)
    data = b"".join(encode(p, version) for p in packets)
    found, others = read(Reader(version, 1_000_000), cut(data, places))
    assert found == [Message(*p[:6]) for p in packets if isinstance(p, Publish)]
    assert others == [p for p in packets if not isinstance(p, Publish)]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4), VERSIONS)
def test_arbitrary_bytes_give_packets_or_malformed(data: bytes, places: list[int], version: Version) -> None:
    """Never another error; and the cut decides nothing."""
    outcomes = []
    for pieces in (cut(data, places), [data], [data[i : i + 1] for i in range(len(data))]):
        reader = Reader(version, 1_000_000)
        try:
            found: Any = read(reader, pieces)
        except Malformed:
            found = Malformed
        outcomes.append(found)
    assert outcomes[0] == outcomes[1] == outcomes[2]


@given(
    st.lists(st.integers(0, 300_000), min_size=1, max_size=4),
    st.lists(st.integers(0, 1_000_000), max_size=8),
    VERSIONS,
    st.integers(0, 2),
)
def test_a_message_that_is_too_large_costs_only_itself(
    sizes: list[int], places: list[int], version: Version, qos: int
) -> None:
    """It is told with its size and how it begins; it has its packet id, so that it can be acknowledged."""
    longest = 1_000
    sent = [Publish("a/b", b"x" * size, qos, id=i if qos else 0) for i, size in enumerate(sizes, 1)]
    encoded = [encode(p, version) for p in sent]
    reader = Reader(version, longest)
    found: list[Message] = []
    told: dict[int, int] = {}
    for piece in cut(b"".join(encoded), places):
        messages, _ = reader.feed(piece)
        told |= {len(found) + at: size for at, size in messages.cut.items()}
        found += rows(messages)
    assert [m.id for m in found] == [p.id for p in sent]
    for i, (message, data) in enumerate(zip(found, encoded, strict=True)):
        size = len(data) - (2 if len(data) < 130 else 3 if len(data) < 16_387 else 4)
        assert told.get(i) == (size if size > longest else None)
        assert message.payload == (sent[i].payload[:SHOWN] if size > longest else sent[i].payload)


def test_of_a_message_that_is_too_large_only_its_head_is_held() -> None:
    reader = Reader(4, 1_000)
    data = encode(Publish("a", bytes(50_000_000), 1, id=3), 4)
    most = count = 0
    for at in range(0, len(data), 65_536):
        messages, _ = reader.feed(data[at : at + 65_536])
        count += len(messages)
        most = max(most, len(reader._rest))
    assert count == 1
    assert most <= HEAD + 65_536
    assert rows(reader.feed(encode(Publish("b", b"after"), 4))[0])[0].payload == b"after"


def test_a_message_in_many_pieces_is_looked_at_when_it_is_whole() -> None:
    """Not at each piece: that would cost with the square of its size."""

    class Counting(Reader):
        looks = 0

        def _cut(self, data: bytes, messages: Messages, packets: list[Packet]) -> int:
            self.looks += 1
            return super()._cut(data, messages, packets)

    reader = Counting(5, 2_000_000)
    data = encode(Publish("a", bytes(1_000_000)), 5)
    found, _ = read(reader, [data[at : at + 100] for at in range(0, len(data), 100)])
    assert len(found) == 1
    assert reader.looks <= 3


def test_another_packet_that_is_too_large_is_malformed() -> None:
    """No broker has so much to say."""
    with pytest.raises(Malformed, match="SUBACK: 2,000,000 bytes"):
        Reader(5, 10_000_000).feed(b"\x90\x80\x89\x7a")


def test_a_topic_alias_stands_for_its_topic_until_it_is_given_anew() -> None:
    reader = Reader(5, 1_000, aliases=2)
    sent = [
        Publish("long/topic", b"1", properties={"topic_alias": 1}),
        Publish("", b"2", properties={"topic_alias": 1}),
        Publish("other", b"3", properties={"topic_alias": 1}),
        Publish("", b"4", properties={"topic_alias": 1}),
    ]
    found, _ = read(reader, [encode(p, 5) for p in sent])
    assert [m.topic for m in found] == ["long/topic", "long/topic", "other", "other"]


@pytest.mark.parametrize(
    ("alias", "topic", "said"),
    [(3, "a", "topic alias 3, where 2 are allowed"), (2, "", "topic alias 2 stands for nothing yet")],
)
def test_a_topic_alias_that_must_not_be_is_malformed(alias: int, topic: str, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        Reader(5, 1_000, aliases=2).feed(encode(Publish(topic, b"", properties={"topic_alias": alias}), 5))


@pytest.mark.parametrize("version", [4, 5])
def test_what_the_short_way_must_not_take_is_malformed(version: Version) -> None:
    """Wildcards, no topic, a packet id of 0, a repeated one with QoS 0: also among good ones, and again when it is known."""
    end = b"\0" if version == 5 else b""
    bad = [
        b"\0\1#" + end,
        b"\0\0" + end + b"x",
        b"\0\1\0" + end,
        b"\0\1\xff" + end,
    ]
    for first, body in [*((0x30, b) for b in bad), (0x38, b"\0\1a" + end), (0x32, b"\0\1a\0\0" + end)]:
        reader = Reader(version, 1_000)
        good = encode(Publish("a", b"1"), version)
        for _ in range(2):
            with pytest.raises(Malformed):
                reader.feed(good + bytes([first, len(body)]) + body)


def test_the_texts_of_topics_are_remembered_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.mqtt.stream.TOPICS", 10)
    reader = Reader(5, 1_000)
    found, _ = read(reader, [encode(Publish(f"t/{i % 25}", b""), 5) for i in range(100)])
    assert [m.topic for m in found] == [f"t/{i % 25}" for i in range(100)]
    assert len(reader._topics) <= 10


def test_acks_are_told_apart_from_messages() -> None:
    found, others = read(Reader(5, 100), [encode(Ack(4, 1), 5) + encode(Publish("a", b""), 5) + encode(Ack(6, 2), 5)])
    assert (len(found), others) == (1, [Ack(4, 1), Ack(6, 2)])
