"""What is known of a connection to a broker beside the connection itself: how it is made, and what is under way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.mqtt.packets import Version, Will
from pipeline.mqtt.stream import Messages

if TYPE_CHECKING:
    import ssl


class MqttError(ConnectionError):
    """The broker said no, cannot be understood, or is gone. `code`: its reason, in MQTT 5."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class BrokerRefused(MqttError):
    """It does not let us in, or does not do what was asked."""


@dataclass(slots=True)
class UnderWay:
    """The packet ids of a session's messages that the broker may send again, marked as repeated."""

    unanswered: set[bytes] = field(default_factory=set)  # QoS 1: handed over, PUBACK not sent
    unreleased: set[int] = field(default_factory=set)  # QoS 2: handed over, PUBREL not come

    def forget(self) -> None:
        """It is another session: it knows nothing of these."""
        self.unanswered.clear()
        self.unreleased.clear()

    def take_out(self, messages: Messages) -> None:
        """Take out messages that were handed over before. Only what is marked as repeated can be such: a broker that has
        lost its last moments gives the same packet ids to new ones."""
        heads = messages.heads
        again = [place for place, id_ in messages.twice if heads[place] & 8 and id_ in self.unreleased]
        if not self.unanswered.isdisjoint(messages.acks):
            of_acks = (place for place, head in enumerate(heads) if head & 6 == 2)
            of_each = zip(of_acks, messages.acks, strict=True)
            again += [place for place, id_ in of_each if heads[place] & 8 and id_ in self.unanswered]
        self.unreleased.update(id_ for _, id_ in messages.twice)
        self.unanswered.update(messages.acks)
        for place in sorted(again, reverse=True):
            del messages.topics[place], messages.payloads[place], heads[place]
        if again and messages.cut:
            messages.cut = {at - sum(p < at for p in again): n for at, n in messages.cut.items() if at not in again}


@dataclass(slots=True)
class Options:
    host: str
    port: int
    client_id: str
    version: Version = 5
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    keepalive: int = 60  # s
    expiry: int = 0  # s that the broker keeps the session when we are gone; 0: it starts anew each time
    receive_maximum: int = 10_000  # messages not yet acknowledged that the broker may send; older ones do not ask
    longest: int = 1_000_000  # bytes of a message
    will: Will | None = None
    under_way: UnderWay = field(default_factory=UnderWay)  # of this session, over its connections


def later() -> asyncio.Future[Any]:
    """A future whose error need not be asked for: who waited may have gone."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future
