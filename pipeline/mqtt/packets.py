"""The packets of MQTT 3.1.1 and 5: values that are encoded and decoded, by a client's side and by a broker's.

`decode` is strict: what the standard calls malformed is `Malformed`, with the packet's name and what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Literal, NamedTuple

from pipeline.mqtt.wire import Cursor, Malformed, Properties, binary, properties, read_properties, text, varint

Version = Literal[4, 5]  # the number that CONNECT bears: 4 is MQTT 3.1.1

NONE: Properties = MappingProxyType({})

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)
NAMES = {
    CONNECT: "CONNECT",
    CONNACK: "CONNACK",
    PUBLISH: "PUBLISH",
    PUBACK: "PUBACK",
    PUBREC: "PUBREC",
    PUBREL: "PUBREL",
    PUBCOMP: "PUBCOMP",
    SUBSCRIBE: "SUBSCRIBE",
    SUBACK: "SUBACK",
    UNSUBSCRIBE: "UNSUBSCRIBE",
    UNSUBACK: "UNSUBACK",
    PINGREQ: "PINGREQ",
    PINGRESP: "PINGRESP",
    DISCONNECT: "DISCONNECT",
    AUTH: "AUTH",
}
_FLAGS = {PUBREL: 2, SUBSCRIBE: 2, UNSUBSCRIBE: 2}  # of the first byte; all others but PUBLISH have none


class Will(NamedTuple):
    """What the broker publishes when this client is gone without a word."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = NONE


class Connect(NamedTuple):
    client_id: str
    clean: bool = True  # start without what an earlier connection left; in 3.1.1 leave nothing either
    keepalive: int = 60  # seconds
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties = NONE


class ConnAck(NamedTuple):
    session_present: bool
    code: int
    properties: Properties = NONE


class Publish(NamedTuple):
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    duplicate: bool = False
    id: int = 0  # 0 with QoS 0
    properties: Properties = NONE


class Ack(NamedTuple):
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""

    kind: int
    id: int
    code: int = 0
    properties: Properties = NONE


class Subscription(NamedTuple):
    topic: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0  # 0: send retained messages; 1: only if the subscription is new; 2: do not


class Subscribe(NamedTuple):
    id: int
    subscriptions: tuple[Subscription, ...]
    properties: Properties = NONE


class SubAck(NamedTuple):
    id: int
    codes: tuple[int, ...]
    properties: Properties = NONE


class Unsubscribe(NamedTuple):
    id: int
    topics: tuple[str, ...]
    properties: Properties = NONE


class UnsubAck(NamedTuple):
    id: int
    codes: tuple[int, ...] = ()  # none in 3.1.1
    properties: Properties = NONE


class PingReq(NamedTuple):
    pass


class PingResp(NamedTuple):
    pass


class Disconnect(NamedTuple):
    code: int = 0
    properties: Properties = NONE


class Auth(NamedTuple):
    code: int = 0
    properties: Properties = NONE


Packet = (
    Connect
    | ConnAck
    | Publish
    | Ack
    | Subscribe
    | SubAck
    | Unsubscribe
    | UnsubAck
    | PingReq
    | PingResp
    | Disconnect
    | Auth
)


# --- from bytes ------------------------------------------------------------------------------------------------------


def decode(first: int, body: bytes, version: Version) -> Packet:
    """The packet with this first byte and this body, behind its length."""
    kind = first >> 4
    try:
        if kind == PUBLISH:
            return _publish(first, Cursor(body), version)
        if first & 15 != _FLAGS.get(kind, 0):
            raise Malformed(f"flags of {first & 15}")
        reader = _READERS.get(kind)
        if reader is None or (kind == AUTH and version == 4):
            raise Malformed("there is no such packet")
        cursor = Cursor(body)
        packet = reader(cursor, version, kind)
        if cursor.more():
            raise Malformed("it goes on behind its end")
        return packet
    except Malformed as error:
        raise Malformed(f"{NAMES.get(kind, kind)}: {error}") from None


def _connect(cursor: Cursor, version: Version, _: int) -> Connect:
    if cursor.text() != "MQTT" or cursor.byte() != version:
        raise Malformed("another protocol, or another version")
    flags = cursor.byte()
    if flags & 1:
        raise Malformed("the reserved flag is set")
    if not flags & 0x04 and flags & 0x38:
        raise Malformed("flags of a will, without a will")
    if flags >> 3 & 3 == 3:
        raise Malformed("QoS 3")
    if version == 4 and flags & 0xC0 == 0x40:
        raise Malformed("a password without a user name")
    keepalive = cursor.two()
    own = read_properties(cursor, "CONNECT") if version == 5 else NONE
    client_id = cursor.text()
    will = None
    if flags & 0x04:
        of_will = read_properties(cursor, "will") if version == 5 else NONE
        topic = _name(cursor.text())
        will = Will(topic, cursor.binary(), flags >> 3 & 3, bool(flags & 0x20), of_will)
    username = cursor.text() if flags & 0x80 else None
    password = cursor.binary() if flags & 0x40 else None
    return Connect(client_id, bool(flags & 2), keepalive, username, password, will, own)


def _connack(cursor: Cursor, version: Version, _: int) -> ConnAck:
    present = cursor.byte()
    if present > 1:
        raise Malformed(f"flags of {present}")
    code = cursor.byte()
    # A broker that does not speak version 5 answers as an older one: two bytes.
    own = read_properties(cursor, "CONNACK") if version == 5 and cursor.more() else NONE
    return ConnAck(bool(present), code, own)


def _publish(first: int, cursor: Cursor, version: Version) -> Publish:
    qos = first >> 1 & 3
    if qos == 3:
        raise Malformed("QoS 3")
    if first & 8 and not qos:
        raise Malformed("marked as repeated, with QoS 0")
    topic = cursor.text()
    id_ = _id(cursor) if qos else 0
    own = read_properties(cursor, "PUBLISH") if version == 5 else NONE
    if topic or "topic_alias" not in own:
        _name(topic)
    return Publish(topic, cursor.rest(), qos, bool(first & 1), bool(first & 8), id_, own)


def _ack(cursor: Cursor, version: Version, kind: int) -> Ack:
    id_ = _id(cursor)
    code = cursor.byte() if version == 5 and cursor.more() else 0
    own = read_properties(cursor, NAMES[kind]) if cursor.more() and version == 5 else NONE
    return Ack(kind, id_, code, own)


def _subscribe(cursor: Cursor, version: Version, _: int) -> Subscribe:
    id_ = _id(cursor)
    own = read_properties(cursor, "SUBSCRIBE") if version == 5 else NONE
    found: list[Subscription] = []
    while cursor.more() or not found:
        topic, options = _filter(cursor.text()), cursor.byte()
        if options & (0xC0 if version == 5 else 0xFC) or options & 3 == 3 or options >> 4 & 3 == 3:
            raise Malformed(f"options of {options:#04x}")
        found.append(Subscription(topic, options & 3, bool(options & 4), bool(options & 8), options >> 4 & 3))
    return Subscribe(id_, tuple(found), own)


def _suback(cursor: Cursor, version: Version, kind: int) -> SubAck | UnsubAck:
    id_ = _id(cursor)
    own = read_properties(cursor, NAMES[kind]) if version == 5 else NONE
    if kind == UNSUBACK:
        return UnsubAck(id_, tuple(cursor.rest()) if version == 5 else (), own)
    codes = tuple(cursor.rest())
    if not codes:
        raise Malformed("no answer in it")
    return SubAck(id_, codes, own)


def _unsubscribe(cursor: Cursor, version: Version, _: int) -> Unsubscribe:
    id_ = _id(cursor)
    own = read_properties(cursor, "UNSUBSCRIBE") if version == 5 else NONE
    topics: list[str] = []
    while cursor.more() or not topics:
        topics.append(_filter(cursor.text()))
    return Unsubscribe(id_, tuple(topics), own)


def _ping(_: Cursor, __: Version, kind: int) -> PingReq | PingResp:
    return PingReq() if kind == PINGREQ else PingResp()


def _disconnect(cursor: Cursor, version: Version, kind: int) -> Disconnect | Auth:
    code = cursor.byte() if version == 5 and cursor.more() else 0
    own = read_properties(cursor, NAMES[kind]) if version == 5 and cursor.more() else NONE
    return Disconnect(code, own) if kind == DISCONNECT else Auth(code, own)


_READERS: dict[int, Callable[[Cursor, Version, int], Packet]] = {
    CONNECT: _connect,
    CONNACK: _connack,
    **dict.fromkeys((PUBACK, PUBREC, PUBREL, PUBCOMP), _ack),
    SUBSCRIBE: _subscribe,
    SUBACK: _suback,
    UNSUBSCRIBE: _unsubscribe,
    UNSUBACK: _suback,
    PINGREQ: _ping,
    PINGRESP: _ping,
    DISCONNECT: _disconnect,
    AUTH: _disconnect,
}


def _id(cursor: Cursor) -> int:
    found = cursor.two()
    if not found:
        raise Malformed("a packet id of 0")
    return found


def _name(topic: str) -> str:
    if not topic:
        raise Malformed("no topic")
    if "+" in topic or "#" in topic:
        raise Malformed(f'wildcards in the topic "{topic[:100]}"')
    return topic


def _filter(topic: str) -> str:
    if not topic:
        raise Malformed("no topic")
    return topic


# --- to bytes --------------------------------------------------------------------------------------------------------


def encode(packet: Packet, version: Version) -> bytes:
    """ValueError: it cannot be said in MQTT (a text of more than 65,535 bytes, …)."""
    five = version == 5
    match packet:
        case Publish():
            first = PUBLISH << 4 | packet.duplicate << 3 | packet.qos << 1 | packet.retain
            id_ = packet.id.to_bytes(2, "big") if packet.qos else b""
            own = properties(packet.properties, "PUBLISH") if five else b""
            return _packet(first, text(packet.topic) + id_ + own + packet.payload)
        case Ack():
            return _packet(
                packet.kind << 4 | _FLAGS.get(packet.kind, 0), packet.id.to_bytes(2, "big") + _tail(packet, version)
            )
        case Connect():
            return _packet(CONNECT << 4, _connect_body(packet, version))
        case ConnAck():
            own = properties(packet.properties, "CONNACK") if five else b""
            return _packet(CONNACK << 4, bytes([packet.session_present, packet.code]) + own)
        case Subscribe():
            asked = [text(s.topic) + bytes([_options(s) if five else s.qos]) for s in packet.subscriptions]
            return _packet(SUBSCRIBE << 4 | 2, _opening(packet, "SUBSCRIBE", version) + b"".join(asked))
        case Unsubscribe():
            body = _opening(packet, "UNSUBSCRIBE", version) + b"".join(map(text, packet.topics))
            return _packet(UNSUBSCRIBE << 4 | 2, body)
        case SubAck():
            return _packet(SUBACK << 4, _opening(packet, "SUBACK", version) + bytes(packet.codes))
        case UnsubAck():
            return _packet(
                UNSUBACK << 4, _opening(packet, "UNSUBACK", version) + (bytes(packet.codes) if five else b"")
            )
        case Disconnect() | Auth():
            kind = DISCONNECT if isinstance(packet, Disconnect) else AUTH
            return _packet(kind << 4, _tail(packet, version))
        case PingReq():
            return b"\xc0\x00"
        case PingResp():
            return b"\xd0\x00"


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + varint(len(body)) + body


def _tail(packet: Ack | Disconnect | Auth, version: Version) -> bytes:
    """Reason code and properties, left out where they say nothing."""
    if version == 4 or not (packet.code or packet.properties):
        return b""
    kind = packet.kind if isinstance(packet, Ack) else DISCONNECT if isinstance(packet, Disconnect) else AUTH
    own = properties(packet.properties, NAMES[kind]) if packet.properties else b""
    return bytes([packet.code]) + own


def _opening(packet: Subscribe | SubAck | Unsubscribe | UnsubAck, name: str, version: Version) -> bytes:
    return packet.id.to_bytes(2, "big") + (properties(packet.properties, name) if version == 5 else b"")


def _options(of: Subscription) -> int:
    return of.qos | of.no_local << 2 | of.retain_as_published << 3 | of.retain_handling << 4


def _connect_body(packet: Connect, version: Version) -> bytes:
    if version == 4 and packet.username is None and packet.password is not None:
        raise ValueError("MQTT 3.1.1 has no password without a user name")
    flags = packet.clean << 1 | (packet.username is not None) << 7 | (packet.password is not None) << 6
    will = packet.will
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
    parts = [text("MQTT"), bytes([version, flags]), packet.keepalive.to_bytes(2, "big")]
    if version == 5:
        parts.append(properties(packet.properties, "CONNECT"))
    parts.append(text(packet.client_id))
    if will is not None:
        own = properties(will.properties, "will") if version == 5 else b""
        parts += [own, text(will.topic), binary(will.payload)]
    if packet.username is not None:
        parts.append(text(packet.username))
    if packet.password is not None:
        parts.append(binary(packet.password))
    return b"".join(parts)
