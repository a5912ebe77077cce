"""`socket`: messages over TCP or UDP, from a peer or from whoever connects."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import urlsplit

from msgspec import Meta

from pipeline import tls
from pipeline.component import Inbox, Payload, Receipt, SourceContext
from pipeline.framing import StreamSettings, StreamSource
from pipeline.loopback import is_loopback
from pipeline.quantity import Duration
from pipeline.reconnect import Connection

if TYPE_CHECKING:
    import ssl

CHUNK = 64_000  # bytes read at a time
CONNECT_S = 10.0
STEADY_S = 1.0  # a connection that has lasted so long is up, though nothing was heard
# A peer that vanished (power, cable) is noticed within a minute and a half, though nothing is sent.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
DATAGRAM_BUFFER = 4_000_000  # asked of the system: what comes while a step is computed waits there


class SocketSettings(StreamSettings, frozen=True, kw_only=True):
    url: Annotated[str | None, Meta(description="The peer to connect to: tcp://, tls:// or udp://HOST:PORT.")] = None
    listen: Annotated[str | None, Meta(description="Where peers connect: tcp://, tls:// or udp://ADDRESS:PORT.")] = None
    tls: Annotated[
        tls.TlsSettings | None,
        Meta(description="Of tls://; with `listen`, a `ca` makes every peer show a certificate of it."),
    ] = None
    insecure: Annotated[bool, Meta(description="Listen to a network without tls.")] = False
    hello: Annotated[str | None, Meta(description="Sent first; some peers want to be asked.")] = None
    acknowledge: Annotated[
        str | None, Meta(description='Written back for each message once it is durable: "OK\\n". Not over UDP.')
    ] = None
    read_timeout: Annotated[
        Duration | None, Meta(description="A connection on which nothing came for so long is given up.")
    ] = None
    max_connections: Annotated[int, Meta(ge=1, description="Open at once; a further one is closed.")] = 100


class Address(NamedTuple):
    scheme: str
    host: str
    port: int


class Socket(StreamSource):
    """Lines, or messages behind their length, over TCP (with or without TLS) or UDP; each in the source's format.

        [sources.scales]
        type = "socket"
        url = "tcp://192.168.1.20:4001"
        read_timeout = "1 min"
        key = "scale"
        fields = { kilograms = "float" }

        [sources.counters]
        type = "socket"
        listen = "udp://127.0.0.1:8125"
        key = "lane"
        fields = { vehicles = "int" }

    With `url` it stays connected to the peer; with `listen` peers connect, many at once. A datagram is one message. The last
    line of a connection counts without a line end if the peer closed it in order.
    Other machines can reach a `listen` that is not on loopback: it needs tls, or `insecure = true`.
    Delivery: TCP and UDP know of no acknowledgement, so what was received and not committed is lost when the process is killed.
    With `acknowledge` the peer is told of each message once it is durable, in order; a peer that sends again what it was not
    told of loses nothing (at least once). Messages that were refused are acknowledged, too: they are among the dead letters.
    At the limit: while the inbox is full the connection is not read, and the peer has to wait; datagrams are dropped, which
    /health tells and `headwater_pushed_back_total` counts. A message beyond `max_message` is refused; in a stream with
    lengths the connection is closed, since where the next one begins is not to be trusted.
    """

    def __init__(self, settings: SocketSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        self.listens = settings.listen is not None
        self.address = _address(settings, context)
        self.shown = str(settings.listen if self.listens else settings.url)
        _check(settings, self.address, context)
        self.timeout = settings.read_timeout.seconds if settings.read_timeout else None
        self.acknowledge = (settings.acknowledge or "").encode()
        self.hello = (settings.hello or "").encode()

    async def run(self, inbox: Inbox, position: Any) -> None:
        sessions = {
            (False, False): self._connect,
            (False, True): self._accept,
            (True, False): self._datagrams,
            (True, True): self._datagrams,
        }
        connection = Connection(self, self.shown)
        await connection.keep(partial(sessions[self.address.scheme == "udp", self.listens], inbox, connection))

    # --- streams ---

    async def _connect(self, inbox: Inbox, connection: Connection) -> None:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(
                self.address.host, self.address.port, ssl=self._tls(tls.client_context), limit=CHUNK
            )
        # A peer that accepts and closes at once is not up: it would be told as often as it is tried.
        steady = asyncio.get_running_loop().call_later(STEADY_S, connection.up)
        try:
            await self._read(reader, writer, inbox, connection.up)
        finally:
            steady.cancel()
            writer.close()

    async def _accept(self, inbox: Inbox, connection: Connection) -> None:
        peers: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(peers) >= self.settings.max_connections:
                writer.close()
                return
            task = asyncio.create_task(self._serve(reader, writer, inbox), name=f"peer of {self.context.name}")
            peers.add(task)
            task.add_done_callback(peers.discard)

        server = await asyncio.start_server(
            accept, self.address.host, self.address.port, ssl=self._tls(tls.server_context), limit=CHUNK
        )
        connection.up()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for task in peers:
                task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inbox: Inbox) -> None:
        try:
            await self._read(reader, writer, inbox, lambda: None)
        except OSError:
            pass  # this peer is gone, or makes no sense; the others are none the worse
        finally:
            writer.close()

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inbox: Inbox, up: Callable[[], None]
    ) -> None:
        """Until the peer closes. OSError: it was lost, was silent for too long, or cannot be understood."""
        _keep_alive(writer)
        writer.write(self.hello)
        stream, answers = self.stream(), _Answers(writer, self.acknowledge)
        while data := await self._some(reader):
            up()
            for payload in stream.feed(data):
                await inbox.put(answers.wanted(payload))
            if stream.broken:
                raise ConnectionError(stream.broken)
            await writer.drain()  # a peer that does not read its acknowledgements is not read either
        for payload in stream.end():
            await inbox.put(answers.wanted(payload))
        await answers.given()

    async def _some(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(self.timeout):
                return await reader.read(CHUNK)
        except TimeoutError:
            raise TimeoutError(f"nothing came for {self.settings.read_timeout}") from None

    def _tls(self, make: Callable[..., ssl.SSLContext]) -> ssl.SSLContext | None:
        return make(self.settings.tls, self.context.folder) if self.address.scheme == "tls" else None

    # --- datagrams ---

    async def _datagrams(self, inbox: Inbox, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        place = (self.address.host, self.address.port)
        where: dict[str, Any] = {"local_addr": place} if self.listens else {"remote_addr": place}
        transport, protocol = await loop.create_datagram_endpoint(lambda: _Datagrams(self, inbox, connection), **where)
        try:
            if not self.listens:
                transport.sendto(self.hello)
            connection.up()
            await protocol.lost()
        finally:
            transport.close()


class _Answers:
    """The acknowledgements of one connection."""

    def __init__(self, writer: asyncio.StreamWriter, text: bytes) -> None:
        self.writer = writer
        self.text = text
        self.owed = 0
        self._none = asyncio.Event()

    def wanted(self, payload: Payload) -> Payload:
        if self.text:
            self.owed += 1
            payload.done = self._done
        return payload

    def _done(self, receipt: Receipt) -> None:
        self.owed -= 1
        if receipt.failed is not None:
            self.writer.close()  # what is not acknowledged is sent again over the next connection
        elif not self.writer.is_closing():
            self.writer.write(self.text)
        if not self.owed:
            self._none.set()

    async def given(self) -> None:
        """Until none is owed: a peer may say that it is done, and wait for what it is owed."""
        while self.owed:
            self._none.clear()
            await self._none.wait()


class _Datagrams(asyncio.DatagramProtocol):
    """Each datagram a message."""

    def __init__(self, source: Socket, inbox: Inbox, connection: Connection) -> None:
        self.source = source
        self.inbox = inbox
        self.connection = connection
        self.heard = False
        self._lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BUFFER)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.heard = True
        if not data.strip():
            return
        if not self.inbox.offer(self.source.whole(data)):
            self.source.trouble = f"{self.source.shown}: the inbox is full, datagrams are dropped"
        elif self.source.trouble:
            self.connection.up()

    def error_received(self, exc: Exception) -> None:
        """As ICMP tells: nobody is there."""
        self.connection_lost(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._lost.done():
            self._lost.set_result(exc or ConnectionError("the socket was closed"))

    async def lost(self) -> None:
        """OSError: the socket failed, or nothing came for so long."""
        while True:
            self.heard = False
            done, _ = await asyncio.wait([self._lost], timeout=self.source.timeout)
            if done:
                raise self._lost.result()
            if not self.heard:
                raise TimeoutError(f"nothing came for {self.source.settings.read_timeout}")


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    connected = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            if hasattr(socket, option):  # not every system lets these be set
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


# --- settings -------------------------------------------------------------------------------------------------------


def _address(settings: SocketSettings, context: SourceContext) -> Address:
    if (settings.url is None) == (settings.listen is None):
        context.problem("url", "name one of the two: url (the peer to connect to) or listen (where peers connect)")
        return Address("tcp", "127.0.0.1", 0)
    setting, text = ("listen", settings.listen) if settings.url is None else ("url", settings.url)
    try:
        parts = urlsplit(text or "")
        if parts.scheme in ("tcp", "tls", "udp") and parts.hostname and parts.port and not parts.path.strip("/"):
            return Address(parts.scheme, parts.hostname, parts.port)
    except ValueError:
        pass  # a port that is no number
    context.problem(setting, f'"{text}" is not an address such as "tcp://127.0.0.1:7000" (tcp, tls or udp)')
    return Address("tcp", "127.0.0.1", 0)


def _check(settings: SocketSettings, address: Address, context: SourceContext) -> None:
    if settings.tls is not None:
        tls.check(settings.tls, context)
        if address.scheme != "tls":
            context.problem("tls", f"is not used over {address.scheme}; write tls://{address.host}:{address.port}")
    if address.scheme == "tls" and settings.listen and (settings.tls is None or settings.tls.certificate is None):
        context.problem("tls", 'needs a certificate to show: tls = { certificate = "…", key = "…" }')
    if settings.listen and address.scheme != "tls" and not settings.insecure and not is_loopback(address.host):
        reach = f"{address.host} can be reached from other machines"
        context.problem("listen", f"{reach}; use tls:// with a certificate, or insecure = true")
    if address.scheme == "udp":
        for name, wrong in (
            ("acknowledge", settings.acknowledge is not None),
            ("framing", settings.framing != "lines"),
            ("hello", settings.hello is not None and settings.listen is not None),
        ):
            if wrong:
                context.problem(name, "is not for udp: a datagram is one message, and nothing is written back")
    if settings.read_timeout is not None and settings.read_timeout <= 0:
        context.problem("read_timeout", "must be more than 0 s; absent, silence is no fault")
