"""What a socket gives, cut into packets: all messages of one read at once, as columns.

A message costs 0.5 us here, so its topic is looked up rather than decoded, and what is rare (properties, aliases, messages
that are too large) takes a longer way.
"""

from __future__ import annotations

from pipeline.mqtt.packets import NAMES, PUBLISH, Packet, Publish, Version, decode
from pipeline.mqtt.wire import Malformed, checked_text

TOPICS = 10_000  # different topics whose text is remembered
SHOWN = 200  # bytes of a message that is too large that are handed on
# Of such a message, what must be there before it is judged: the longest topic, a packet id, properties of a usual size.
HEAD = 70_000
OTHERS = 1_000_000  # bytes that a packet may have that is no message: a broker's answers are a few


class Messages:
    """Messages in the order in which they came. `cut` has the size of those that were too large: they are not whole."""

    __slots__ = ("acks", "cut", "heads", "payloads", "topics", "twice")

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.payloads: list[bytes] = []
        self.heads: list[int] = []  # first byte of each: QoS, retained, repeated
        self.acks: list[bytes] = []  # packet id of each with QoS 1
        self.twice: list[tuple[int, int]] = []  # place and packet id of each with QoS 2
        self.cut: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.topics)


class Reader:
    """Cuts a stream of bytes. `longest`: a message of more bytes is not kept; the stream goes on behind it."""

    def __init__(self, version: Version, longest: int, aliases: int = 0) -> None:
        self.version: Version = version
        self.longest = longest
        self.aliases = aliases  # how many the other side may use (MQTT 5)
        self._rest = bytearray()
        self._needed = 0  # bytes until the packet at the start of `_rest` can be taken
        self._skip = 0  # bytes of a message that is too large that are still to come
        self._topics: dict[bytes, str] = {}
        self._by_alias: dict[int, str] = {}

    def feed(self, data: bytes) -> tuple[Messages, list[Packet]]:
        """What is whole by now. Malformed: the connection must be closed."""
        messages, packets = Messages(), list[Packet]()
        if self._skip:
            gone = min(self._skip, len(data))
            self._skip -= gone
            data = data[gone:]
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return messages, packets
            data = bytes(self._rest)
            self._rest.clear()
        at = self._cut(data, messages, packets)
        if at < len(data):
            self._rest += data[at:] if at else data
        if b"\0\0" in messages.acks:
            raise Malformed("PUBLISH: a packet id of 0")
        return messages, packets

    def _cut(self, data: bytes, messages: Messages, packets: list[Packet]) -> int:
        """Take packets; where the one begins that is not whole."""
        known, five, longest = self._topics, self.version == 5, self.longest
        topics, payloads, heads, acks = messages.topics, messages.payloads, messages.heads, messages.acks
        at, end = 0, len(data)
        self._needed = 0
        while at + 2 <= end:
            first, size, start = data[at], data[at + 1], at + 2
            if size > 127:
                if start < end and 0 < data[start] < 128:  # two bytes: nearly all that are not one
                    size, start = size & 127 | data[start] << 7, start + 1
                else:
                    size, start = _length(data, at + 1)
                    if not start:
                        break
            stop = start + size
            if first & 0xF0 == 0x30 and first & 0x06 != 0x04 and size >= 4 and size <= longest and stop <= end:
                body = start + 2 + (data[start] << 8 | data[start + 1])
                raw = data[start + 2 : body]
                if first & 0x06:
                    body += 2
                if five:
                    body += 1
                if body <= stop and not (five and data[body - 1]):
                    topic = known.get(raw)
                    topics.append(self._topic(raw) if topic is None else topic)
                    payloads.append(data[body:stop])
                    heads.append(first)
                    if first & 0x06:
                        acks.append(data[body - 3 : body - 1] if five else data[body - 2 : body])
                    elif first & 8:
                        raise Malformed("PUBLISH: marked as repeated, with QoS 0")
                    at = stop
                    continue
            kind = first >> 4
            if size > (longest if kind == PUBLISH else OTHERS):
                if kind != PUBLISH:
                    raise Malformed(f"{NAMES.get(kind, kind)}: {size:,} bytes")
                if end - start < min(size, HEAD):
                    self._needed = start - at + min(size, HEAD)
                    break
                self._too_large(first, data[start : min(stop, end)], size, messages)
                self._skip = max(stop - end, 0)
            elif stop > end:
                self._needed = stop - at
                break
            elif kind == PUBLISH:
                self._message(_whole(first, data[start:stop], self.version), first, messages)
            else:
                packets.append(decode(first, data[start:stop], self.version))
            at = min(stop, end)
        return at

    def _topic(self, raw: bytes) -> str:
        """The topic as text; most come again and again."""
        topic = checked_text(raw)
        if not topic or "+" in topic or "#" in topic:
            raise Malformed(f'PUBLISH: no topic, or wildcards in it: "{topic[:100]}"')
        if len(self._topics) >= TOPICS:
            self._topics.clear()
        self._topics[raw] = topic
        return topic

    def _message(self, packet: Publish, first: int, messages: Messages) -> None:
        """One that has properties, or QoS 2, or that is malformed after all."""
        if packet.qos == 1:
            messages.acks.append(packet.id.to_bytes(2, "big"))
        elif packet.qos == 2:
            messages.twice.append((len(messages), packet.id))
        messages.topics.append(self._meant(packet))
        messages.payloads.append(packet.payload)
        messages.heads.append(first)

    def _meant(self, packet: Publish) -> str:
        """The topic of a message that may have an alias instead."""
        alias = packet.properties.get("topic_alias")
        if alias is None:
            return packet.topic
        if alias > self.aliases:
            raise Malformed(f"PUBLISH: topic alias {alias}, where {self.aliases} are allowed")
        if packet.topic:
            self._by_alias[alias] = packet.topic
        elif alias not in self._by_alias:
            raise Malformed(f"PUBLISH: topic alias {alias} stands for nothing yet")
        return self._by_alias[alias]

    def _too_large(self, first: int, head: bytes, size: int, messages: Messages) -> None:
        packet = _whole(first, head, self.version)
        messages.cut[len(messages)] = size
        self._message(packet._replace(payload=packet.payload[:SHOWN]), first, messages)


def _whole(first: int, body: bytes, version: Version) -> Publish:
    packet = decode(first, body, version)
    assert isinstance(packet, Publish)
    return packet


def _length(data: bytes, at: int) -> tuple[int, int]:
    """The length that begins here, and where it ends; (0, 0) if that is still to come."""
    value = shift = 0
    for place in range(at, min(at + 4, len(data))):
        value |= (data[place] & 0x7F) << shift
        if data[place] < 0x80:
            if shift and not data[place]:
                raise Malformed("a length of more bytes than it needs")
            return value, place + 1
        shift += 7
    if len(data) >= at + 4:
        raise Malformed("a length of more than four bytes")
    return 0, 0
