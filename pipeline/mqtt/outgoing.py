"""What goes to the broker and is answered: SUBSCRIBE and the like, and messages with QoS 1 and 2."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.mqtt.packets import (
    PUBREC,
    PUBREL,
    Ack,
    Packet,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    Version,
    encode,
)
from pipeline.mqtt.reasons import REFUSED
from pipeline.mqtt.session import MqttError, later

ANSWER_S = 20.0  # for SUBACK and the like
WINDOW = 1_000  # messages under way to a broker at once
# A broker of MQTT 3.1.1 cannot say how many it takes; mosquitto hangs up at more than 20 with QoS 2, if left as installed.
OLDER_WINDOW = 20
TOO_LARGE = 0x95


class _Sending:
    """One call of `publish`: what the broker says of each message."""

    __slots__ = ("codes", "done", "left")

    def __init__(self, count: int, done: asyncio.Future[None]) -> None:
        self.codes = [0] * count
        self.left = count
        self.done = done

    def answered(self, place: int, code: int) -> None:
        self.codes[place] = code
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)


class Outgoing:
    """The packets under way over one connection, by packet id."""

    def __init__(self, version: Version, write: Callable[[bytes], None]) -> None:
        self.version: Version = version
        self.write = write
        self.limits: dict[str, Any] = {}  # what the broker said of itself (properties of CONNACK)
        self._asked: dict[int, asyncio.Future[Packet]] = {}
        self._sent: dict[int, tuple[_Sending, int]] = {}  # whose, and its place there
        self._ids = itertools.cycle(range(1, 0x10000))
        self._room = asyncio.Event()
        self._lost: MqttError | None = None

    def lost(self, why: MqttError) -> None:
        """The connection is over: nothing is answered any more."""
        self._lost = why
        waiting: list[asyncio.Future[Any]] = [
            *self._asked.values(),
            *(sending.done for sending, _ in self._sent.values()),
        ]
        for future in waiting:
            if not future.done():
                future.set_exception(why)
        self._room.set()

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _id(self) -> int:
        return next(i for i in self._ids if i not in self._sent and i not in self._asked)

    # --- questions ---

    async def ask(self, question: Callable[[int], Subscribe | Unsubscribe]) -> Packet:
        self._check()
        packet = question(self._id())
        future: asyncio.Future[Packet] = later()
        self._asked[packet.id] = future
        self.write(encode(packet, self.version))
        try:
            async with asyncio.timeout(ANSWER_S):
                return await future
        except TimeoutError:
            raise MqttError(f"no answer to {type(packet).__name__.lower()} within {ANSWER_S:.0f} s") from None
        finally:
            self._asked.pop(packet.id, None)

    def told(self, packet: SubAck | UnsubAck) -> None:
        """An answer. One that nobody waits for is of a question that was given up."""
        future = self._asked.pop(packet.id, None)
        if future is not None and not future.done():
            future.set_result(packet)

    # --- messages ---

    async def publish(self, messages: Sequence[Publish]) -> list[int]:
        self._check()
        sending = _Sending(len(messages), later())
        out: list[bytes] = []
        for place, message in enumerate(messages):
            packet = self._allowed(message)
            if packet.qos:
                while len(self._sent) >= self._window():
                    self._flush(out)
                    self._room.clear()
                    await self._room.wait()
                    self._check()
                packet = packet._replace(id=self._id())
            data = encode(packet, self.version)
            if len(data) > self.limits.get("maximum_packet_size", len(data)):
                sending.answered(place, TOO_LARGE)
                continue
            out.append(data)
            if packet.qos:
                self._sent[packet.id] = (sending, place)
            else:
                sending.answered(place, 0)
        self._flush(out)
        if sending.left:
            await sending.done
        return sending.codes

    def _allowed(self, message: Publish) -> Publish:
        qos = min(message.qos, self.limits.get("maximum_qos", 2))
        return message._replace(qos=qos, retain=message.retain and bool(self.limits.get("retain_available", 1)))

    def _window(self) -> int:
        return min(WINDOW, int(self.limits.get("receive_maximum", WINDOW))) if self.version == 5 else OLDER_WINDOW

    def _flush(self, out: list[bytes]) -> None:
        self.write(b"".join(out))
        out.clear()

    def answered(self, packet: Ack) -> None:
        """PUBACK, PUBREC or PUBCOMP. One that nobody waits for is of a message that was given up."""
        if packet.kind == PUBREC and packet.code < REFUSED:
            self.write(encode(Ack(PUBREL, packet.id), self.version))
            return
        known = self._sent.pop(packet.id, None)
        if known is not None:
            sending, place = known
            sending.answered(place, packet.code)
            self._room.set()
