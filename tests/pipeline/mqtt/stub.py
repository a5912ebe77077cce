"""A broker that does what a test tells it, packet by packet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from pipeline.mqtt.packets import (
    ConnAck,
    Connect,
    Packet,
    PingReq,
    PingResp,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    Version,
    decode,
    encode,
)

P = TypeVar("P", bound=Packet)


class Stub:
    """Lets in, grants and answers pings by itself; all else that comes is `took`."""

    def __init__(self, version: Version = 5) -> None:
        self.version: Version = version
        self.port = 0
        self.welcome: ConnAck | None = ConnAck(False, 0)
        self.after: Sequence[Packet] = ()  # sent along with the CONNACK
        self.grants = True
        self.answers_pings = True
        self.pings = 0
        self.connects: list[Connect] = []
        self.queue: asyncio.Queue[Packet] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                first = (await reader.readexactly(1))[0]
                size = shift = 0
                while (byte := (await reader.readexactly(1))[0]) > 127:
                    size |= (byte & 127) << shift
                    shift += 7
                body = await reader.readexactly(size | byte << shift)
                self._handle(decode(first, body, self.version))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _handle(self, packet: Packet) -> None:
        match packet:
            case Connect():
                self.connects.append(packet)
                if self.welcome is not None:
                    self.send(self.welcome, *self.after)
            case PingReq():
                self.pings += 1
                if self.answers_pings:
                    self.send(PingResp())
            case Subscribe() if self.grants:
                self.queue.put_nowait(packet)
                self.send(SubAck(packet.id, tuple(s.qos for s in packet.subscriptions)))
            case Unsubscribe() if self.grants:
                self.queue.put_nowait(packet)
                self.send(UnsubAck(packet.id, (0,) * len(packet.topics)))
            case _:
                self.queue.put_nowait(packet)

    def send(self, *packets: Packet) -> None:
        """To the connection that was made last, in one piece."""
        self.send_bytes(b"".join(encode(p, self.version) for p in packets))

    def send_bytes(self, data: bytes) -> None:
        self.writers[-1].write(data)

    def hang_up(self) -> None:
        self.writers[-1].transport.abort()

    async def took(self, kind: type[P]) -> P:
        """The next packet that came, which must be of that kind."""
        packet = await asyncio.wait_for(self.queue.get(), 30)
        assert isinstance(packet, kind), packet
        return packet

    async def nothing(self) -> None:
        """Nothing has come, and nothing comes in a while."""
        await asyncio.sleep(0.05)
        assert self.queue.empty(), self.queue.get_nowait()


@asynccontextmanager
async def stub(version: Version = 5) -> AsyncIterator[Stub]:
    made = Stub(version)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in made.writers:
            writer.transport.abort()
        await server.wait_closed()


def messages(*ids: int, qos: int = 1, duplicate: bool = False) -> list[Packet]:
    """A message for each packet id, of which it tells."""
    return [Publish(f"t/{i}", str(i).encode(), qos, duplicate=duplicate, id=i) for i in ids]
