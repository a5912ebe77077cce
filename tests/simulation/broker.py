"""`broker`: a source that the simulation adds: messages that come again until they are acknowledged, as MQTT's QoS 1."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from pipeline.component import Inbox, Payload, ReadingSettings, SourceContext
from pipeline.reading import CodecSource

if TYPE_CHECKING:
    from tests.simulation.world import Broker


class BrokerSettings(ReadingSettings, frozen=True, kw_only=True):
    pass


class BrokerSource(CodecSource):
    """Readings of the broker of the simulation."""

    broker: Broker

    def __init__(self, settings: BrokerSettings, context: SourceContext) -> None:
        super().__init__(settings, context)

    async def run(self, inbox: Inbox, position: Any) -> None:
        given = -1
        while True:
            self.broker.more.clear()
            for number in [n for n in self.broker.waiting if n > given]:
                data = orjson.dumps(self.broker.waiting[number])
                given = number
                done = partial(self.broker.done, number)
                await inbox.put(Payload(data, len(data), request=f"m{number}", done=done))
            await self.broker.more.wait()
