"""Messages to readings: what their topics give, and where in a batch what was refused stood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipeline.component import Codec, Decoded, Payload, Refused, joined
from pipeline.frame import Array, KeyTable
from pipeline.mqtt.stream import Messages
from pipeline.topics import TopicPart

TOPICS = 10_000  # different topics of which is remembered what they give
RAW = 200  # characters of a refused message that are shown


class ByTopic(dict[str, Any]):
    """What a topic gives, looked up: topics come again and again. A key that found no room finds none later either."""

    part: TopicPart | None = None

    def __init__(self, of: Callable[[str], Any]) -> None:
        super().__init__()
        self._of = of

    def __missing__(self, topic: str) -> Any:
        found = self[topic] = self._of(topic)
        return found

    def array(self, topics: Sequence[str], kind: Any) -> Array:
        if len(self) > TOPICS:
            self.clear()
        made: Array = np.empty(len(topics), kind)
        made[:] = list(map(self.__getitem__, topics))
        return made


def with_topic(payload: Payload, topic: str) -> Payload:
    messages = Messages()
    messages.topics.append(topic)
    messages.payloads.append(payload.data)
    payload.data = messages
    return payload


def decode_each(codec: Codec, data: list[bytes], keys: KeyTable) -> Decoded:
    """What the codec makes of them. If that fails as a whole, each on its own, and the guilty ones are refused."""
    try:
        return codec.decode(data)
    except Exception as error:  # noqa: BLE001 - a fault in a codec must cost no other message
        if len(data) > 1:
            return joined([(i, decode_each(codec, [one], keys)) for i, one in enumerate(data)], keys)
        nothing = codec.decode([])
        refused = Refused(0, 0, f"could not be decoded: {type(error).__name__}: {error}", "")
        return nothing._replace(counts=[0], refused=[refused])


def placed(
    refused: list[tuple[int, int, str, str]], topics: Sequence[str], batch_of: Array, kept: Array, counts: Array
) -> list[Refused]:
    """What was refused of each message, as an item of its batch: behind all readings of the messages before it."""
    if not refused:
        return []
    items = np.zeros(len(topics), np.int64)
    items[kept] = counts
    np.add.at(items, [message for message, *_ in refused], 1)
    before = np.cumsum(items) - items
    first = np.searchsorted(batch_of, np.arange(int(batch_of[-1]) + 1))
    start = before - before[first[batch_of]]
    return [
        Refused(int(batch_of[message]), int(start[message]) + item, why, f"{topics[message]} {raw}"[:RAW])
        for message, item, why, raw in sorted(refused)
    ]
