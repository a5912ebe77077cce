"""The packets of MQTT: every one comes back as it was, whatever is no packet is told so, and paho writes the same properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.mqtt import packets
from pipeline.mqtt.packets import (
    NAMES,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Version,
    Will,
    decode,
    encode,
)
from pipeline.mqtt.wire import PROPERTIES, Cursor, Malformed, properties, varint

VERSIONS = st.sampled_from((4, 5))
TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12)
TOPICS = st.text(st.characters(exclude_characters="\0+#", codec="utf-8"), min_size=1, max_size=12)
BYTES = st.binary(max_size=20)
IDS = st.integers(1, 0xFFFF)
CODES = st.integers(0, 255)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "flag": st.integers(0, 1),
    "two": st.integers(0, 0xFFFF),
    "four": st.integers(0, 0xFFFF_FFFF),
    "varint": st.integers(1, 268_435_455),
    "text": TEXTS,
    "binary": BYTES,
    "pair": st.tuples(TEXTS, TEXTS),
}


def of(packet: str) -> st.SearchStrategy[dict[str, Any]]:
    """Properties that a packet may have."""
    known = {}
    for p in PROPERTIES.values():
        if packet in p.packets:
            value = VALUES[p.read.__name__]
            value = value if p.zero else value.filter(bool)
            most = 1 if packet == "SUBSCRIBE" and p.name == "subscription_identifier" else 3
            known[p.name] = st.lists(value, min_size=1, max_size=most) if p.repeats else value
    return st.fixed_dictionaries({}, optional=known)


WILLS = st.builds(Will, TOPICS, BYTES, st.integers(0, 2), st.booleans(), of("will"))
CONNECTS = st.builds(
    Connect,
    TEXTS,
    st.booleans(),
    st.integers(0, 0xFFFF),
    st.none() | TEXTS,
    st.none() | BYTES,
    st.none() | WILLS,
    of("CONNECT"),
)
PUBLISHES = st.builds(Publish, TOPICS, BYTES, st.integers(0, 2), st.booleans(), st.booleans(), IDS, of("PUBLISH")).map(
    lambda p: p if p.qos else p._replace(id=0, duplicate=False)
)
ACKS = st.sampled_from((PUBACK, PUBREC, PUBREL, PUBCOMP)).flatmap(
    lambda kind: st.builds(Ack, st.just(kind), IDS, CODES, of(NAMES[kind]))
)
SUBSCRIPTIONS = st.builds(Subscription, TOPICS, st.integers(0, 2), st.booleans(), st.booleans(), st.integers(0, 2))
PACKETS: st.SearchStrategy[Packet] = st.one_of(
    CONNECTS,
    st.builds(ConnAck, st.booleans(), CODES, of("CONNACK")),
    PUBLISHES,
    ACKS,
    st.builds(Subscribe, IDS, st.lists(SUBSCRIPTIONS, min_size=1, max_size=3).map(tuple), of("SUBSCRIBE")),
    st.builds(SubAck, IDS, st.lists(CODES, min_size=1, max_size=3).map(tuple), of("SUBACK")),
    st.builds(Unsubscribe, IDS, st.lists(TOPICS, min_size=1, max_size=3).map(tuple), of("UNSUBSCRIBE")),
    st.builds(UnsubAck, IDS, st.lists(CODES, min_size=1, max_size=3).map(tuple), of("UNSUBACK")),
    st.just(PingReq()),
    st.just(PingResp()),
    st.builds(Disconnect, CODES, of("DISCONNECT")),
    st.builds(Auth, CODES, of("AUTH")),
)


def older(packet: Packet) -> Packet:
    """What is left of a packet in MQTT 3.1.1."""
    fields: dict[str, Any] = {"properties": {}} if hasattr(packet, "properties") else {}
    match packet:
        case Connect():
            fields["will"] = packet.will and packet.will._replace(properties={})
            fields["password"] = None if packet.username is None else packet.password
        case Ack() | Disconnect():
            fields["code"] = 0
        case Subscribe():
            fields["subscriptions"] = tuple(Subscription(s.topic, s.qos) for s in packet.subscriptions)
        case UnsubAck():
            fields["codes"] = ()
    return packet._replace(**fields)


def split(data: bytes) -> tuple[int, bytes]:
    """The first byte and the body of one whole packet."""
    cursor = Cursor(data)
    first = cursor.byte()
    assert cursor.varint() == len(data) - cursor.at
    return first, cursor.rest()


@given(PACKETS, VERSIONS)
def test_every_packet_comes_back_as_it_was(packet: Packet, version: Version) -> None:
    if version == 4:
        if isinstance(packet, Auth):
            return
        packet = older(packet)
    assert decode(*split(encode(packet, version)), version) == packet


@given(PACKETS, VERSIONS, st.data())
def test_a_packet_that_was_cut_or_changed_is_told_or_is_another_one(
    packet: Packet, version: Version, data: st.DataObject
) -> None:
    """Never any other error; and what is taken can be said again."""
    if isinstance(packet, Auth) or (isinstance(packet, Connect) and version == 4):
        version = 5
    first, body = split(encode(packet, version))
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(0, 2))):
        if changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(changed[: data.draw(st.integers(0, len(changed)))])
    try:
        found = decode(first, cut, version)
    except Malformed:
        return
    assert decode(*split(encode(found, version)), version) == found


@given(st.integers(0, 255), st.binary(max_size=60), VERSIONS)
def test_arbitrary_bytes_are_a_packet_or_malformed(first: int, body: bytes, version: Version) -> None:
    try:
        found = decode(first, body, version)
    except Malformed:
        return
    assert decode(*split(encode(found, version)), version) == found


@pytest.mark.parametrize(
    ("first", "body", "version", "said"),
    [
        (0x36, b"\0\1a\0\1", 4, "PUBLISH: QoS 3"),
        (0x38, b"\0\1a", 4, "PUBLISH: marked as repeated, with QoS 0"),
        (0x32, b"\0\1a\0\0", 4, "PUBLISH: a packet id of 0"),
        (0x30, b"\0\1#", 4, 'PUBLISH: wildcards in the topic "#"'),
        (0x30, b"\0\0", 4, "PUBLISH: no topic"),
        (0x30, b"\0\0\0", 5, "PUBLISH: no topic"),
        (0x30, b"\0\5a", 4, "PUBLISH: it ends too early"),
        (0x30, b"\0\2a\0", 4, "PUBLISH: a text with a NUL in it"),
        (0x30, b"\0\1\xff", 4, "PUBLISH: a text that is not UTF-8"),
        (0x30, b"\0\3\xed\xa0\x80", 4, "PUBLISH: a text that is not UTF-8"),  # a surrogate
        (0x30, b"\0\1a\2\1\2", 5, "PUBLISH: a flag of 2"),
        (0x30, b"\0\1a\4\1\0\1\0", 5, "PUBLISH: payload_format twice"),
        (0x30, b"\0\1a\3\x23\0\0", 5, "PUBLISH: topic_alias of 0"),
        (0x30, b"\0\1a\3\x13\0\1", 5, "PUBLISH: property 0x13, which has no place in it"),
        (0x30, b"\0\1a\x81\0\1", 5, "PUBLISH: a length of more bytes than it needs"),
        (0x30, b"\0\1a\x80\x80\x80\x80\1", 5, "PUBLISH: a length of more than four bytes"),
        (0x60, b"\0\1", 4, "PUBREL: flags of 0"),
        (0x41, b"\0\1", 4, "PUBACK: flags of 1"),
        (0x40, b"\0\1\0", 4, "PUBACK: it goes on behind its end"),
        (0x20, b"\2\0", 4, "CONNACK: flags of 2"),
        (0x90, b"\0\1", 4, "SUBACK: no answer in it"),
        (0x82, b"\0\1", 4, "SUBSCRIBE: it ends too early"),
        (0x82, b"\0\1\0\1a\4", 4, "SUBSCRIBE: options of 0x04"),
        (0x82, b"\0\1\0\0\1a\x30", 5, "SUBSCRIBE: options of 0x30"),
        (0xA2, b"\0\1", 4, "UNSUBSCRIBE: it ends too early"),
        (0xF0, b"", 4, "AUTH: there is no such packet"),
        (0x00, b"", 5, "0: there is no such packet"),
        (0x10, b"\0\4MQTT\4\x40\0\0\0\0", 4, "CONNECT: a password without a user name"),
        (0x10, b"\0\4MQTT\4\1\0\0\0\0", 4, "CONNECT: the reserved flag is set"),
        (0x10, b"\0\4MQTT\4\x20\0\0\0\0", 4, "CONNECT: flags of a will, without a will"),
        (0x10, b"\0\4MQTT\4\x1c\0\0\0\0", 4, "CONNECT: QoS 3"),
        (0x10, b"\0\6MQIsdp\3\0\0\0", 4, "CONNECT: another protocol, or another version"),
    ],
)
def test_what_is_malformed_is_told(first: int, body: bytes, version: Version, said: str) -> None:
    with pytest.raises(Malformed) as error:
        decode(first, body, version)
    assert str(error.value) == said


@pytest.mark.parametrize(
    "packet",
    [
        Publish("a" * 65536, b""),
        Publish("a\0", b""),
        Publish("a", b"", properties={"server_keep_alive": 1}),
        Publish("a", b"", properties={"user_property": [("a" * 65536, "")]}),
        Connect("a", password=b"secret"),
    ],
)
def test_what_cannot_be_said_is_refused(packet: Packet) -> None:
    with pytest.raises(ValueError):
        encode(packet, 4 if isinstance(packet, Connect) else 5)


@given(st.integers(0, 268_435_455))
def test_a_length_takes_as_few_bytes_as_it_can(value: int) -> None:
    data = varint(value)
    assert Cursor(data).varint() == value
    assert len(data) == next(n for n in (1, 2, 3, 4) if value < 128**n)


# --- beside paho ---

PAHO = {
    "payload_format": "PayloadFormatIndicator",
    "message_expiry": "MessageExpiryInterval",
    "topic_alias": "TopicAlias",
    "content_type": "ContentType",
    "response_topic": "ResponseTopic",
    "correlation_data": "CorrelationData",
    "user_property": "UserProperty",
}


@given(of("PUBLISH").map(lambda found: {name: value for name, value in found.items() if name in PAHO}))
def test_paho_writes_the_same_properties(values: dict[str, Any]) -> None:
    """Property by property, and it reads ours."""
    paho = pytest.importorskip("paho.mqtt.properties")
    kind = pytest.importorskip("paho.mqtt.packettypes").PacketTypes.PUBLISH
    for name, value in values.items():
        theirs = paho.Properties(kind)
        for one in value if isinstance(value, list) else [value]:
            setattr(theirs, PAHO[name], one)
        assert properties({name: value}, "PUBLISH") == theirs.pack()
    read = paho.Properties(kind)
    read.unpack(properties(values, "PUBLISH"))
    assert {name: getattr(read, PAHO[name]) for name in values} == values


def test_every_packet_has_a_name() -> None:
    assert {NAMES[getattr(packets, name)] for name in NAMES.values()} == set(NAMES.values())
