"""A connection to an MQTT broker, from CONNECT to its end. It is never made anew: whoever wants another one connects again.

    client = await connect(Options("127.0.0.1", 1883, "a-name"), heard)
    await client.subscribe([Subscription("sensors/+/reading", qos=1)])
    ...                                    # heard(batch): all messages of one read of the socket
    batch.acknowledge()                    # once they are safe; PUBACKs go in the order in which the messages came
    why = await client.over()

A message is acknowledged only when told, and never over another connection than that by which it came: there its packet id
may be another message's. `UnderWay` remembers over connections which packet ids are under way; a message that comes again
under one of these is not handed over twice. Who keeps those of QoS 2 with the messages (`Batch.unreleased`) has each of them
exactly once over a crash, too: PUBREC and PUBCOMP wait for `acknowledge` like everything else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from pipeline.mqtt.outgoing import Outgoing
from pipeline.mqtt.packets import (
    PUBCOMP,
    PUBREC,
    Ack,
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
    encode,
)
from pipeline.mqtt.reasons import CONNACK_311, reason
from pipeline.mqtt.session import BrokerRefused, MqttError, Options, later
from pipeline.mqtt.stream import Messages, Reader
from pipeline.mqtt.wire import Malformed

PORTS = {"mqtt": 1883, "mqtts": 8883}
CONNECT_S = 10.0  # for the connection, TLS and the broker's answer together
ALIASES = 32  # topic aliases that a broker may use: 2 MB at most
PROTOCOL_ERROR, MALFORMED = 0x82, 0x81


async def connect(options: Options, heard: Callable[[Batch], None]) -> Client:
    """A connection that the broker has let in. `heard` may be called before this returns, with messages of the session.

    BrokerRefused, MqttError or OSError otherwise.
    """
    loop = asyncio.get_running_loop()
    client = Client(options, heard)
    try:
        async with asyncio.timeout(CONNECT_S):
            name = options.host if options.tls else None
            await loop.create_connection(
                lambda: client, options.host, options.port, ssl=options.tls, server_hostname=name
            )
            await client.accepted
    except TimeoutError:
        client.abort()
        raise MqttError(f"no answer within {CONNECT_S:.0f} s") from None
    except BaseException:
        client.abort()
        raise
    return client


class Batch:
    """The messages of one read of the socket. `answers` go out when it is acknowledged."""

    __slots__ = ("acknowledged", "acks", "answers", "client", "messages", "size", "unreleased")

    def __init__(self, client: Client, messages: Messages, answers: bytes, size: int) -> None:
        self.client = client
        self.messages = messages
        self.acks = messages.acks
        self.answers = answers
        self.size = size  # bytes that came
        self.acknowledged = False
        self.unreleased: list[int] | None = None  # packet ids after this batch, if it changed them

    def acknowledge(self) -> None:
        """They are safe. Nothing happens if the connection is another one by now."""
        self.acknowledged = True
        self.client.answer()


class Client(asyncio.Protocol):
    """One connection. `ended` has the reason once it is over."""

    def __init__(self, options: Options, heard: Callable[[Batch], None]) -> None:
        loop = asyncio.get_running_loop()
        self.options = options
        self.version: Version = options.version
        self.heard = heard
        self.accepted: asyncio.Future[None] = later()
        self.ended: asyncio.Future[MqttError] = loop.create_future()
        self.session_present = False
        self.limits: dict[str, Any] = {}  # what the broker said of itself (properties of CONNACK)
        self._under_way = options.under_way
        self._reader = Reader(options.version, options.longest, ALIASES)
        self._transport: asyncio.Transport | None = None
        self._unanswered: deque[Batch] = deque()
        self._outgoing = Outgoing(options.version, self._write)
        self._held = self._blocked = False  # by the user; by a broker that does not read
        self._heard = self._said = True  # since the last look
        self._pinged = False
        self._beat: asyncio.TimerHandle | None = None

    # --- from beginning to end ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, and does not say so
        self._transport.write(encode(self._connect(), self.version))

    def _connect(self) -> Connect:
        options, own = self.options, {}
        if self.version == 5:
            own = {"receive_maximum": options.receive_maximum, "topic_alias_maximum": ALIASES}
            if options.expiry:
                own["session_expiry"] = options.expiry
        password = None if options.password is None else options.password.encode()
        return Connect(
            options.client_id, not options.expiry, options.keepalive, options.username, password, options.will, own
        )

    async def over(self) -> MqttError:
        """Why it ended, once it has."""
        await asyncio.wait([self.ended])  # who waits for a future itself, and is cancelled, cancels it for all
        return self.ended.result()

    def abort(self) -> None:
        """Away, without a word: the broker publishes the will."""
        if self._transport is not None:
            self._transport.abort()

    async def disconnect(self, code: int = 0) -> None:
        """Say good-bye. What is not acknowledged comes again with the session."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(Disconnect(code), self.version))
            self._transport.close()
        await asyncio.wait([self.ended], timeout=1.0)
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(MqttError(_said(error) if error else "the broker closed the connection"))

    def _lose(self, why: MqttError) -> None:
        """The first reason counts."""
        if self._beat is not None:
            self._beat.cancel()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()
        if self.ended.done():
            return
        self.ended.set_result(why)
        if not self.accepted.done():
            self.accepted.set_exception(why)
        self._outgoing.lost(why)
        self._unanswered.clear()

    def _fail(self, text: str, code: int) -> None:
        """The broker does what must not be: the connection cannot go on."""
        if self.version == 5 and self._transport is not None and self.accepted.done():
            self._transport.write(encode(Disconnect(code), self.version))
            self._transport.close()
        self._lose(MqttError(f"what the broker sends cannot be understood: {text}", code))

    # --- what comes ---

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        self._heard = True
        try:
            messages, packets = self._reader.feed(data)
            answers = [self._handle(packet) for packet in packets] if packets else []
        except Malformed as error:
            self._fail(str(error), MALFORMED)
            return
        if not self.ended.done() and (messages or any(answers)):
            self._hand_over(messages, b"".join(answers), len(data))

    def _hand_over(self, messages: Messages, answers: bytes, size: int) -> None:
        if not self.accepted.done():
            self._fail("a message before CONNACK", PROTOCOL_ERROR)
            return
        changed = bool(messages.twice or answers)
        if messages.acks:
            answers += b"@\x02" + b"@\x02".join(messages.acks)
        if messages.twice:
            answers += b"".join(encode(Ack(PUBREC, id_), self.version) for _, id_ in messages.twice)
        self._under_way.take_out(messages)
        batch = Batch(self, messages, answers, size)
        if changed:
            batch.unreleased = sorted(self._under_way.unreleased)
        if answers:
            self._unanswered.append(batch)
        self.heard(batch)

    def _handle(self, packet: Packet) -> bytes:
        """Act upon a packet; what is to be answered with the batch that it came with."""
        if not self.accepted.done() and not isinstance(packet, ConnAck):
            raise Malformed("a packet before CONNACK")
        match packet:
            case Ack(kind=4 | 5 | 7):
                self._outgoing.answered(packet)
            case Ack():
                self._under_way.unreleased.discard(packet.id)
                return encode(Ack(PUBCOMP, packet.id), self.version)
            case ConnAck():
                self._welcome(packet)
            case SubAck() | UnsubAck():
                self._outgoing.told(packet)
            case PingResp():
                self._pinged = False
            case Disconnect() if self.version == 5:
                said = packet.properties.get("reason_string", "")
                self._lose(MqttError(f"the broker ended the connection: {reason(packet.code, said)}", packet.code))
            case _:
                raise Malformed(f"{type(packet).__name__.upper()}, which a broker does not send")
        return b""

    def _welcome(self, packet: ConnAck) -> None:
        if self.accepted.done():
            raise Malformed("a second CONNACK")
        if packet.code:
            self._lose(self._refused(packet))
            return
        self.session_present = packet.session_present
        if not packet.session_present:
            self._under_way.forget()
        self.limits = self._outgoing.limits = dict(packet.properties)
        # Pings may go more often than the broker asks for: a dead connection is found as soon as was wanted here.
        keepalive = min(self.options.keepalive, self.limits.get("server_keep_alive") or self.options.keepalive)
        if keepalive:
            self._beat = asyncio.get_running_loop().call_later(keepalive / 2, self._look, keepalive / 2)
        self.accepted.set_result(None)

    def _refused(self, packet: ConnAck) -> BrokerRefused:
        code = packet.code
        if self.version == 5 and (code in (1, 0x84)):
            return BrokerRefused('it does not speak MQTT 5; set version = "3.1.1"', code)
        if self.version == 4 and code in CONNACK_311:
            return BrokerRefused(f"refused: {CONNACK_311[code]}", code)
        return BrokerRefused(f"refused: {reason(code, packet.properties.get('reason_string', ''))}", code)

    # --- acknowledging, and holding back ---

    def answer(self) -> None:
        """Send the answers of all batches that are acknowledged, up to the first that is not."""
        waiting, out = self._unanswered, []
        while waiting and waiting[0].acknowledged:
            batch = waiting.popleft()
            out.append(batch.answers)
            self._under_way.unanswered.difference_update(batch.acks)
        if out and self._transport is not None:
            self._said = True
            self._transport.write(b"".join(out))

    def pause(self) -> None:
        """Read nothing more: what comes waits at the broker."""
        self._held = True
        self._flow()

    def resume(self) -> None:
        self._held = False
        self._flow()

    def pause_writing(self) -> None:
        # A broker that sends and does not read: our answers must not pile up here.
        self._blocked = True
        self._flow()

    def resume_writing(self) -> None:
        self._blocked = False
        self._flow()

    def _flow(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._held or self._blocked:
            transport.pause_reading()
        else:
            self._heard = True  # what waited is still to be read
            transport.resume_reading()

    # --- keep alive ---

    def _look(self, every: float) -> None:
        """Twice in each keepalive: ping if one side was silent since the last look; give up if no answer came since."""
        reading = not (self._held or self._blocked)
        if self._pinged and not self._heard and reading:
            self._lose(MqttError(f"the broker has been silent for {2 * every:.0f} s"))
            return
        if (not self._heard or not self._said) and not self._pinged and self._transport is not None:
            self._transport.write(encode(PingReq(), self.version))
            self._pinged = True
        elif self._pinged and not reading and self._transport is not None:
            self._transport.write(
                encode(PingReq(), self.version)
            )  # its answer waits in the socket; the broker wants signs
        self._heard = self._said = False
        self._beat = asyncio.get_running_loop().call_later(every, self._look, every)

    # --- asking, and publishing ---

    async def subscribe(self, wanted: Sequence[Subscription]) -> list[int]:
        """What the broker says to each: the QoS that it gives, or (from 128) a reason against it."""
        answer = await self._outgoing.ask(lambda id_: Subscribe(id_, tuple(wanted)))
        assert isinstance(answer, SubAck)
        if len(answer.codes) != len(wanted):
            raise MqttError(f"SUBACK has {len(answer.codes)} answers to {len(wanted)} subscriptions")
        return list(answer.codes)

    async def unsubscribe(self, topics: Sequence[str]) -> None:
        await self._outgoing.ask(lambda id_: Unsubscribe(id_, tuple(topics)))

    async def publish(self, messages: Sequence[Publish]) -> list[int]:
        """Send them in order; what the broker says of each (from 128: a reason against it), once it has said it of all.

        MqttError if the connection is lost before: some may have arrived. A message with a QoS that the broker does not take
        goes with the highest that it takes.
        """
        return await self._outgoing.publish(messages)

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._said = True
            self._transport.write(data)


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
