"""`mqtt`: readings of an MQTT broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from pipeline.broker import MINUTE, Broker, ClientId, Keepalive, MqttVersion, Password, Tls, Url, Username, WillSettings
from pipeline.component import Codec, Decoded, Inbox, Payload, ReadingSettings, SourceContext, joined
from pipeline.frame import Array, Column, Field, Schema
from pipeline.mqtt.client import Batch, Client, connect
from pipeline.mqtt.packets import Subscription
from pipeline.mqtt.reasons import REFUSED, reason
from pipeline.mqtt.session import BrokerRefused, MqttError, UnderWay
from pipeline.mqtt.stream import Messages
from pipeline.quantity import Duration, Size, duration
from pipeline.reading import CodecSource
from pipeline.reconnect import Connection, pause
from pipeline.sources.mqtt.feed import Feed
from pipeline.sources.mqtt.messages import RAW, ByTopic, decode_each, placed, with_topic
from pipeline.topics import TopicPart, made_up, opened, sealed, wrong_filter

log = logging.getLogger("headwater")

NO_PART = -3  # stands for the key of a topic that has not so many levels; beside FULL and UNFIT
RETAIN_HANDLING = {"always": 0, "new": 1, "never": 2}  # as MQTT 5 numbers it


class MqttSettings(ReadingSettings, frozen=True, kw_only=True):
    url: Url
    topics: Annotated[
        tuple[str, ...], Meta(description='"+" is one level, "#" all that follow; "$share/GROUP/…" shares them.')
    ]
    qos: Annotated[Literal[0, 1, 2], Meta(description="0: may be lost; 1: at least once; 2: exactly once.")] = 1
    retained: Annotated[
        Literal["new", "always", "never"],
        Meta(description="The broker's last values: for a new subscription, at each connection, or not."),
    ] = "new"
    key: Annotated[
        str | None, Meta(description='What names the series: a field, or "topic", "topic[1]", "topic[1]/topic[2]".')
    ] = None
    key_name: Annotated[
        str, Meta(description='What a key is called that comes from the topic. Absent: "topic", or "key" for a part.')
    ] = ""
    from_topic: Annotated[
        dict[str, str], Meta(description='Further fields, of texts, from the topic: { room = "topic[1]" }.')
    ] = msgspec.field(default_factory=dict)
    version: MqttVersion = "5"
    username: Username = None
    password: Password = None
    client_id: ClientId = ""
    tls: Tls = None
    keepalive: Keepalive = MINUTE
    session: Annotated[
        Duration, Meta(description="How long the broker keeps messages for us when we are away; 0 s: not at all.")
    ] = duration("7 d")
    max_message: Annotated[Size, Meta(description="A larger message is refused.")] = Size(1_000_000)
    will: Annotated[WillSettings | None, Meta(description="Tell on a topic whether we are there.")] = None


class Mqtt(CodecSource):
    """Readings that devices publish to an MQTT broker (3.1.1 or 5).

        [sources.greenhouse]
        type = "mqtt"
        url = "mqtt://127.0.0.1:1883"
        topics = ["sensors/+/reading"]
        format = "json"
        key = "topic[1]"
        key_name = "sensor_id"
        fields = { temperature = "float" }

    The key is a field of the message, or of its topic: `topic`, one level (`topic[1]`, from 0; `topic[-1]` is the last), or
    several (`topic[1]/topic[2]`). What is bad costs only itself, and is kept with its topic among the dead letters.
    Delivery: a message is acknowledged once its readings are durable, in the order in which they came. With qos = 1 those
    that became durable just before a kill or a broken connection, whose acknowledgement the broker did not get, come twice;
    what else it sends again is known. With qos = 2 each comes exactly once, also over `kill -9`: which messages are
    under way is committed with their readings. That takes two commits a message instead of one.
    While we are away the broker keeps messages with a QoS for us, in a session under `client_id`, for `session`. A topic
    that is taken out of the file is unsubscribed. A pipeline that runs on several devices needs a `client_id` for each, as
    in `client_id = "headwater-${HOSTNAME}"`.
    A broker that is away, or refuses us or a topic, is told on /health and tried again.
    At the limit: while the inbox is full nothing is read from the socket, and the broker keeps the rest, as far as its own
    limits go (mosquitto: max_queued_messages). A message beyond `max_message` is refused.
    """

    def __init__(self, settings: MqttSettings, context: SourceContext) -> None:
        key = settings.key or ""
        by_topic = TopicPart.is_one(key) or key.startswith("topic[")
        plain = msgspec.structs.replace(settings, key=None) if by_topic else settings
        super().__init__(plain, context)
        self.settings = settings
        self.broker = Broker(settings, context, settings.will)
        self._key_part = self._part(key, "key") if by_topic else None
        self._texts: dict[str, ByTopic] = {}
        self._codes = ByTopic(self._code_of)
        self._name_key(by_topic=by_topic)
        self._add_fields()
        self._check()
        self._session = f"{self.broker.shown}/{self.broker.client_id}"  # what is known of it holds for no other
        self._known: list[str] = []  # topics that this session may be subscribed to
        self.under_way = UnderWay()

    # --- settings ---

    def _part(self, text: str, setting: str) -> TopicPart | None:
        try:
            return TopicPart(text)
        except ValueError as error:
            self.context.problem(setting, str(error))
            return None

    def _name_key(self, *, by_topic: bool) -> None:
        settings, part = self.settings, self._key_part
        if part is None:
            if settings.key_name and not by_topic:
                self.context.problem("key_name", "is for a key that comes from the topic; a field has a name already")
            return
        name = settings.key_name or ("topic" if part.levels == [None] else "key")
        if name in {*self.schema.fields, "time"}:
            self.context.problem("key_name", f'"{name}" is the name of a field; take another one')
        self.schema = self.schema._replace(key=name)

    def _add_fields(self) -> None:
        fields: dict[str, Field] = dict(self.schema.fields)
        for name, text in self.settings.from_topic.items():
            setting = f"from_topic.{name}"
            if name in {*fields, "time", self.schema.key}:
                self.context.problem(setting, "there is a field, or a key, of that name already")
            elif (part := self._part(text, setting)) is not None:
                fields[name] = Field("string", optional=True)
                self._texts[name] = ByTopic(part.of)
                self._texts[name].part = part
        self.schema = Schema(self.schema.key, fields, self.schema.role)

    def _check(self) -> None:
        settings, problem = self.settings, self.context.problem
        if not settings.topics:
            problem("topics", 'name them: topics = ["sensors/+/reading"]')
        for i, topic in enumerate(settings.topics):
            if wrong := wrong_filter(topic):
                problem(f"topics.{i}", f'"{topic[:100]}" {wrong}')
            elif topic in settings.topics[:i]:
                problem(f"topics.{i}", f'"{topic}" stands there already')
        if settings.max_message < 1:
            problem("max_message", "must be at least 1 B")
        if settings.session % 1_000_000_000 or settings.session.seconds >= 2**32:
            problem("session", 'must be whole seconds, such as "7 d"')

    # --- readings of messages ---

    def decode(self, payloads: Sequence[Payload]) -> Decoded:
        parts = []
        start = 0
        for codec, group in groupby(payloads, lambda p: p.codec or self.codec):
            batches = [p.data for p in group]
            parts.append((start, self._decode(codec, batches)))
            start += len(batches)
        return parts[0][1] if len(parts) == 1 else joined(parts, self.context.keys)

    def _decode(self, codec: Codec | None, batches: list[Messages]) -> Decoded:
        """The messages of all batches at once; what is refused is told by batch, as its items are counted there."""
        assert codec is not None
        topics = [topic for batch in batches for topic in batch.topics]
        data = [payload for batch in batches for payload in batch.payloads]
        batch_of = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])
        codes = self._codes.array(topics, np.int32) if self._key_part is not None else None
        bad = self._unfit(batches, topics, codes)
        kept = np.array([i for i in range(len(data)) if i not in bad], np.int64) if bad else np.arange(len(data))
        decoded = decode_each(codec, [data[i] for i in kept] if bad else data, self.context.keys)
        counts = np.asarray(decoded.counts, np.int64)
        columns = {name: decoded.columns[name] for name in self.schema.fields if name not in self._texts}
        for name, texts in self._texts.items():
            found = texts.array(topics, object)[kept].repeat(counts)
            present = np.fromiter((text is not None for text in found), np.bool_, len(found))
            columns[name] = Column(found) if present.all() else Column(np.where(present, found, ""), present)
        keys = decoded.keys if codes is None else codes[kept].repeat(counts)
        of_batch = np.bincount(batch_of[kept], counts, len(batches)).astype(np.int64).tolist()
        refused = [*((int(kept[r.payload]), r.item, r.reason, r.raw) for r in decoded.refused)]
        refused += [(i, 0, why, data[i][:RAW].decode(errors="replace")) for i, why in bad.items()]
        return Decoded(keys, decoded.times, columns, of_batch, placed(refused, topics, batch_of, kept, counts))

    def _unfit(self, batches: Sequence[Messages], topics: Sequence[str], codes: Array | None) -> dict[int, str]:
        """Messages that are refused without a look into them: they are too large, or their topic gives no key."""
        bad: dict[int, str] = {}
        start = 0
        for batch in batches:
            for i, size in batch.cut.items():
                bad[start + i] = f"too large: {size:,} bytes, where max_message is {self.settings.max_message}"
            start += len(batch)
        if codes is not None and len(codes) and codes.min() < 0:
            for i in np.flatnonzero(codes < 0).tolist():
                bad.setdefault(i, self._no_key(topics[i], int(codes[i])))
        return bad

    def _no_key(self, topic: str, code: int) -> str:
        if code != NO_PART:
            return self.context.keys.why(code)
        return f'the topic "{topic[:RAW]}" has no {self._key_part.text if self._key_part else "key"}'

    def _code_of(self, topic: str) -> int:
        assert self._key_part is not None
        name = self._key_part.of(topic)
        return NO_PART if name is None else self.context.keys[name]

    # --- readings once more, and in tests ---

    def readings(self, payload: Payload) -> list[bytes] | None:
        """Each with its topic; in the order in which `decode` counts them."""
        codec, messages = payload.codec or self.codec, payload.data
        codes = None if self._key_part is None else self._codes.array(messages.topics, np.int32)
        unfit = self._unfit([messages], messages.topics, codes)
        split: Callable[[bytes], Sequence[bytes]] | None = getattr(codec, "readings", None)
        found = []
        for i, (topic, data) in enumerate(zip(messages.topics, messages.payloads, strict=True)):
            pieces = [data]
            if i not in unfit and codec is not None:
                if split is not None:
                    pieces = list(split(data)) or pieces
                elif sum((alone := codec.decode([data])).counts) + len(alone.refused) > 1:
                    return None
            found += [sealed(topic, piece, whole=i not in messages.cut) for piece in pieces]
        return found

    def again(self, reading: bytes, media_type: str) -> Payload | None:
        message = opened(reading)
        if message is None:
            return None
        payload = super().again(message[1], media_type)
        return None if payload is None else with_topic(payload, message[0])

    def given(self, reading: Mapping[str, Any]) -> Payload | None:
        """A row of a test may name a topic; or what would come from it, and a topic is made up."""
        row = dict(reading)
        parts = {texts.part: name for name, texts in self._texts.items()}
        if self._key_part is not None and self.schema.key is not None:
            parts[self._key_part] = self.schema.key
        topic = None if "topic" in self.settings.fields or not parts else row.pop("topic", None)
        named = {part: str(row.pop(name)) for part, name in parts.items() if part is not None and name in row}
        payload = super().given(row)
        return None if payload is None else with_topic(payload, made_up(named) if topic is None else str(topic))

    # --- the connection ---

    async def run(self, inbox: Inbox, position: Any) -> None:
        if position and position["session"] == self._session:
            self._known = position["topics"]
            self.under_way.unreleased.update(position["unreleased"])
        feed = Feed(self, inbox)
        feeding = asyncio.create_task(feed.work())
        connection = Connection(self, self.broker.shown, (MqttError,))
        try:
            await connection.keep(lambda: self._connected(feed, connection))
        finally:
            feeding.cancel()

    async def _connected(self, feed: Feed, connection: Connection) -> None:
        """One connection, to its end."""
        under_way = bool(self.under_way.unreleased)
        expiry = int(self.settings.session.seconds)
        options = self.broker.options(expiry=expiry, longest=int(self.settings.max_message), under_way=self.under_way)
        client = await connect(options, feed.heard)
        try:
            if not client.session_present:
                self._known = []
                if under_way:
                    await feed.remember()  # before packet ids of another session come
            await self._subscribe(client, feed, connection)
            why = await client.over()
            raise MqttError(self.broker.why(why), why.code)
        finally:
            await self.broker.leave(client)

    async def _subscribe(self, client: Client, feed: Feed, connection: Connection) -> None:
        """Ask for the topics until each is granted; what was asked for once and is not any more is given up."""
        wanted = list(self.settings.topics)
        gone = [topic for topic in self._known if topic not in wanted]
        if self.settings.session and set(wanted) - set(self._known):
            self._known = [*wanted, *gone]
            await feed.remember()  # first: whatever happens now, they can be given up later
        missing, tries = wanted, 0
        while missing and not client.ended.done():
            answers = await self._ask(client, missing)
            if len(answers) == len(wanted):
                raise BrokerRefused(next(iter(answers.values())))
            if not tries:
                connection.up()
                await self.broker.arrive(client)
                if gone:
                    await client.unsubscribe(gone)
                    self._known = wanted
                    feed.remember_soon()
            missing, tries = list(answers), tries + 1
            self.trouble = f"{self.broker.shown}: {'; '.join(answers.values())}" if answers else ""
            if missing:
                await asyncio.wait([client.ended], timeout=pause(tries, connection.random))

    async def _ask(self, client: Client, topics: Sequence[str]) -> dict[str, str]:
        """The topics that were refused, each with the reason."""
        qos, handling = self.settings.qos, RETAIN_HANDLING[self.settings.retained]
        codes = await client.subscribe([Subscription(topic, qos, retain_handling=handling) for topic in topics])
        for topic, code in zip(topics, codes, strict=True):
            if code < min(qos, REFUSED):
                log.warning('%s: the broker gives "%s" with QoS %d only', self.context.name, topic, code)
        return {t: f'no "{t}": {reason(code)}' for t, code in zip(topics, codes, strict=True) if code >= REFUSED}

    def position(self, unreleased: Sequence[int]) -> dict[str, Any]:
        return {"session": self._session, "topics": list(self._known), "unreleased": list(unreleased)}

    def wanted(self, batch: Batch) -> Messages:
        """A batch without retained messages that are not wanted; a broker of MQTT 5 does not send these."""
        messages, retained = batch.messages, self.settings.retained
        old = retained == "never" or (retained == "new" and batch.client.session_present)
        if self.broker.version == 5 or not old or not any(head & 9 == 1 for head in messages.heads):
            return messages
        found = Messages()
        for i, head in enumerate(messages.heads):
            if head & 9 != 1:  # retained, and not one of before that is repeated
                if i in messages.cut:
                    found.cut[len(found)] = messages.cut[i]
                found.topics.append(messages.topics[i])
                found.payloads.append(messages.payloads[i])
        return found
