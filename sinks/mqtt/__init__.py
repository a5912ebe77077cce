"""`mqtt`: rows to an MQTT broker, and to Home Assistant."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import orjson
from msgspec import Meta

from pipeline.broker import MINUTE, Broker, ClientId, Keepalive, MqttVersion, Password, Tls, Url, Username, WillSettings
from pipeline.component import Batch, Outcome, SinkContext
from pipeline.delivering import BatchSettings, DeliveringSettings, DeliveringSink
from pipeline.mqtt.client import Client, connect
from pipeline.mqtt.packets import Publish
from pipeline.mqtt.reasons import REFUSED, reason
from pipeline.quantity import Duration, duration
from pipeline.template import Template
from sinks.mqtt.discovery import Discovery, HomeAssistantSettings

TOPICS = 100_000  # different topics of which is known how new their retained message is
LONGEST_TOPIC = 65_535  # bytes
# Refusals of one message that will not pass: not authorized, topic not valid, too large, payload not of its format.
FOR_GOOD = {0x87, 0x90, 0x95, 0x99}


class MqttSettings(DeliveringSettings, frozen=True, kw_only=True):
    url: Url
    topic: Annotated[str, Meta(description="Where a row goes: {key}, {stream} and its fields may stand in it.")] = (
        "headwater/{stream}/{key}"
    )
    value: Annotated[
        str | None, Meta(description="The field that is sent, as a bare value. Absent: the row, as a JSON object.")
    ] = None
    qos: Annotated[Literal[0, 1, 2], Meta(description="0: counts as delivered once it is sent.")] = 1
    retain: Annotated[
        bool | None,
        Meta(description="The broker keeps the latest row of each topic. Absent: only with home_assistant."),
    ] = None
    home_assistant: Annotated[
        HomeAssistantSettings | None, Meta(description="Announce each key and field; {} is enough.")
    ] = None
    version: MqttVersion = "5"
    username: Username = None
    password: Password = None
    client_id: ClientId = ""
    tls: Tls = None
    keepalive: Keepalive = MINUTE
    timeout: Annotated[Duration, Meta(description="How long the broker may take to answer for a batch.")] = duration(
        "30 s"
    )
    will: Annotated[WillSettings | None, Meta(description="Tell on a topic whether we are there.")] = None
    batch: Annotated[BatchSettings, Meta(description="How rows are put together.")] = BatchSettings(
        wait=duration("50 ms")
    )


class Mqtt(DeliveringSink):
    """Publish rows to an MQTT broker (3.1.1 or 5).

        [sinks.house]
        type = "mqtt"
        inputs = ["ten_seconds", "overheat"]
        url = "mqtt://127.0.0.1:1883"
        topic = "plant/{key}/{stream}"
        retain = true

    A message is the row as JSON (`stream`, the key, `time`, the fields that are there), or with `value = "average"` that field
    alone, as text; a row without it is left out. In `topic` stand {stream}, {key} (whatever the key is called) and fields.
    With `retain` a late or delayed row does not take the place of a newer one.
    Delivery: at least once with qos = 1 or 2. A message that the broker has and whose answer was lost on the way is published
    once more; so what listens should mind `time`. What a broker of MQTT 5 refuses for good (no right to publish there, too
    large) becomes a dead letter, as does a row whose topic would have a wildcard in it; a broker of 3.1.1 drops
    such a message without a word.
    `home_assistant = {}` announces every key and field to Home Assistant (MQTT discovery): one device a key, with a sensor
    for each field, a binary sensor for each that is true or false and for each alert; unavailable while we are away. The
    announcements are sent anew with each connection. Then `topic` has no fields in it, and what is retained is `true`.
    At the limit (`buffer.when_full`): as for `cloud`.
    """

    def __init__(self, settings: MqttSettings, context: SinkContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        self.retain = settings.home_assistant is not None if settings.retain is None else settings.retain
        will = settings.will
        if settings.home_assistant is not None and will is None:
            will = WillSettings(topic=f"headwater/{context.pipeline}/{context.name}")
        self.broker = Broker(settings, context, will)
        self.topic = Template(settings.topic, self.kinds() | {"key": "string"})
        for problem in self.topic.problems:
            context.problem("topic", problem)
        if not settings.topic or set(settings.topic) & set("+#\0"):
            context.problem("topic", f'"{settings.topic}" is not a topic: it is empty, or has a wildcard in it')
        if settings.value is not None and all(settings.value not in s.fields for s in context.inputs.values()):
            context.problem("value", f'"{settings.value}" is not a field of any input')
        if settings.timeout <= 0:
            context.problem("timeout", 'must be more than "0 s"')
        self.discovery = self._discovery(settings.home_assistant, will)
        self._newest: dict[str, str] = {}  # time of the row that was published last, by topic
        self._client: Client | None = None

    def _discovery(self, settings: HomeAssistantSettings | None, will: WillSettings | None) -> Discovery | None:
        if settings is None or will is None:
            return None
        if self.settings.value is not None:
            self.context.problem("value", "cannot be set with home_assistant, which reads JSON")
        keys = {schema.key for schema in self.context.inputs.values()}
        if extra := set(self.topic.names) - keys - {"stream", "key"}:
            self.context.problem("topic", f'must be the same for all rows of a key with home_assistant: "{min(extra)}"')
        return Discovery(settings, self.context, will, self._topic_of)

    def _topic_of(self, stream: str, key: str) -> str:
        schema = self.context.inputs[stream]
        return self.topic.fill({"stream": stream, "key": key, schema.key or "key": key})

    # --- delivering ---

    async def deliver(self, batch: Batch) -> Outcome:
        told = self.told(batch)
        rejected: dict[int, str] = {}
        places, messages = [], []
        for place, row in enumerate(told):
            payload = self._payload(row)
            if payload is None:
                continue
            topic = self._topic(row)
            if wrong := _wrong(topic):
                rejected[place] = wrong
            else:
                places.append(place)
                messages.append(Publish(topic, payload, self.settings.qos, self._newer(topic, row["time"])))
        client = await self._connected()
        try:
            async with asyncio.timeout(self.settings.timeout.seconds):
                if self.discovery is not None:
                    await client.publish(self.discovery.of(told))
                codes = await client.publish(messages)
        except TimeoutError:
            client.abort()  # what is on its way may come or not: the next try is by another connection
            self._client = None
            return Outcome(reason=f"{self.broker.shown} did not answer within {self.settings.timeout}")
        refused = {places[i]: code for i, code in enumerate(codes) if code >= REFUSED}
        if passing := [code for code in refused.values() if code not in FOR_GOOD]:
            return Outcome(reason=f"{self.broker.shown}: {reason(passing[0])}")
        return Outcome(delivered=True, rejected=rejected | {place: reason(code) for place, code in refused.items()})

    def _topic(self, row: dict[str, Any]) -> str:
        schema = self.context.inputs.get(row["stream"])
        key = row.get(schema.key) if schema and schema.key else row.get("key")
        return self.topic.fill({name: key if name == "key" else row.get(name) for name in self.topic.names})

    def _payload(self, row: dict[str, Any]) -> bytes | None:
        """What is sent of a row; None: it has nothing to send."""
        if self.settings.value is None:
            return orjson.dumps(row)
        value = row.get(self.settings.value)
        if value is None:
            return None
        return value.encode() if isinstance(value, str) else orjson.dumps(value)

    def _newer(self, topic: str, time: str) -> bool:
        """Whether this row is to be retained: it is not older than what is."""
        if not self.retain:
            return False
        if len(self._newest) >= TOPICS:
            self._newest.clear()
        time = time.removesuffix("Z")  # then a text with more digits is behind one with fewer
        if self._newest.get(topic, "") > time:
            return False
        self._newest[topic] = time
        return True

    # --- the connection ---

    async def _connected(self) -> Client:
        if self._client is not None and not self._client.ended.done():
            return self._client
        client = await connect(self.broker.options(), lambda batch: batch.acknowledge())
        self._client = client
        if self.discovery is not None:
            self.discovery.forget()
        await self.broker.arrive(client)
        return client

    async def close(self) -> None:
        if self._client is not None:
            await self.broker.leave(self._client)
            self._client = None


def _wrong(topic: str) -> str:
    """Why nothing can be published there; "": it can."""
    if set(topic) & set("+#\0"):
        return f'the topic "{topic[:200]}" has a wildcard or a NUL in it'
    if not topic or len(topic.encode()) > LONGEST_TOPIC:
        return f"the topic is empty or longer than {LONGEST_TOPIC:,} bytes"
    return ""
