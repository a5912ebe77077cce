"""What `socket` promises, over real sockets; with socat as the peer it is in the contract of connectors."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.component import SourceContext
from pipeline.frame import KeyTable
from pipeline.quantity import Size, duration
from pipeline.sources.socket import Socket, SocketSettings
from pipeline.tls import TlsSettings
from tests.certificates import Authority
from tests.device import free_port
from tests.small_engine import SmallEngine
from tests.waiting import eventually

Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reconnect.FIRST_S", 0.02)
    monkeypatch.setattr("pipeline.reconnect.LONGEST_S", 0.05)


OPEN: list[asyncio.StreamWriter] = []  # connections of the tests' own


@pytest.fixture(autouse=True)
async def nothing_stays_open() -> AsyncIterator[None]:
    yield
    for writer in OPEN:
        writer.transport.abort()
    OPEN.clear()
    await asyncio.sleep(0.01)


def source(folder: Path = Path(), **settings: Any) -> Socket:
    context = SourceContext("line", KeyTable(), folder=folder)
    made = Socket(SocketSettings(key="id", fields={"value": "float"}, **settings), context)
    assert context.problems == []
    return made


def problems(**settings: Any) -> list[tuple[str, str]]:
    context = SourceContext("line", KeyTable())
    Socket(SocketSettings(key="id", fields={"value": "float"}, **settings), context)
    return context.problems


def text(*values: float) -> bytes:
    return b"".join(b'{"id": "a", "value": %g}\n' % value for value in values)


class Peer:
    """Listens; each connection that is made waits in `connections`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.connections: asyncio.Queue[Connected] = asyncio.Queue()
        self.server: asyncio.Server | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            OPEN.append(writer)
            self.connections.put_nowait((reader, writer))

        self.server = await asyncio.start_server(accept, "127.0.0.1", self.port, ssl=tls)

    async def connected(self) -> Connected:
        return await asyncio.wait_for(self.connections.get(), 30)


@asynccontextmanager
async def peer(tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    made = Peer()
    await made.start(tls)
    assert made.server is not None
    async with made.server:
        yield made


async def connect(port: int, tls: ssl.SSLContext | None = None) -> Connected:
    async def made() -> Connected | None:
        with contextlib.suppress(ConnectionRefusedError):
            return await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        return None

    found = await eventually(made, lambda: "nobody listens")
    OPEN.append(found[1])
    return found


# --- it connects ------------------------------------------------------------------------------------------------------


async def test_lines_of_a_peer() -> None:
    """In their order; the last one counts without a line end where the peer closed in order, and one that was torn does not."""
    async with peer() as there:
        engine = SmallEngine(source(url=f"tcp://127.0.0.1:{there.port}"))
        async with engine.running():
            _, writer = await there.connected()
            writer.write(text(1, 2) + text(3).strip())
            writer.close()
            await engine.have(3)
            _, writer = await there.connected()
            writer.write(text(4) + text(5).strip())
            await engine.have(4)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()  # a reset, not an end
            _, writer = await there.connected()
            writer.write(text(6))
            assert [row["value"] for row in await engine.have(5)] == [1, 2, 3, 4, 6]
        assert engine.refused == []


async def test_hello_is_said_each_time() -> None:
    async with peer() as there:
        engine = SmallEngine(source(url=f"tcp://127.0.0.1:{there.port}", hello="?WATCH\n"))
        async with engine.running():
            for _ in range(2):
                reader, writer = await there.connected()
                assert await reader.readline() == b"?WATCH\n"
                writer.close()


async def test_a_peer_that_is_away_is_told_and_found_again() -> None:
    there = Peer()
    engine = SmallEngine(source(url=f"tcp://127.0.0.1:{there.port}"))
    async with engine.running():
        await engine.until(lambda: engine.source.trouble)
        assert engine.source.trouble.startswith(f"tcp://127.0.0.1:{there.port}: ")
        await there.start()
        _, writer = await there.connected()
        writer.write(text(1))
        await engine.have(1)
        assert engine.source.trouble == ""
    assert there.server is not None
    there.server.close()


async def test_a_peer_that_closes_at_once_is_not_up() -> None:
    async with peer() as there:
        engine = SmallEngine(source(url=f"tcp://127.0.0.1:{there.port}"))
        async with engine.running():
            for _ in range(3):
                _, writer = await there.connected()
                writer.close()
            await engine.until(lambda: "was closed" in engine.source.trouble)
            _, writer = await there.connected()
            assert "was closed" in engine.source.trouble


async def test_a_peer_that_falls_silent_is_given_up() -> None:
    async with peer() as there:
        made = source(url=f"tcp://127.0.0.1:{there.port}", read_timeout=duration("2 s"))
        engine = SmallEngine(made)
        async with engine.running():
            _, first = await there.connected()
            first.write(text(1))
            await engine.have(1)
            await there.connected()  # anew, though the first is open
            assert made.trouble.endswith("nothing came for 2 s")


async def test_a_connection_that_waits_for_us_is_not_silent() -> None:
    """While the inbox is full nothing is read; that is not the peer's fault."""
    async with peer() as there:
        made = source(url=f"tcp://127.0.0.1:{there.port}", read_timeout=duration("1 s"))
        engine = SmallEngine(made, room=1)
        engine.held = True
        async with engine.running():
            _, writer = await there.connected()
            writer.write(text(1, 2, 3))
            await asyncio.sleep(1.5)
            assert there.connections.empty()
            engine.go_on()
            assert [row["value"] for row in await engine.have(3)] == [1, 2, 3]


async def test_while_the_inbox_is_full_the_peer_waits() -> None:
    """What is held beside the inbox is what the sockets' buffers and one read hold; then everything comes."""
    async with peer() as there:
        engine = SmallEngine(source(url=f"tcp://127.0.0.1:{there.port}"), room=10)
        engine.held = True
        async with engine.running():
            _, writer = await there.connected()
            filled = b'{"id": "a", "value": 1, "pad": "' + b"x" * 1_000 + b'"}\n'
            writer.write(filled * 20_000)
            sent = asyncio.create_task(writer.drain())
            await asyncio.sleep(0.2)
            assert not sent.done()
            engine.go_on()
            await engine.have(20_000)
            await sent


async def test_messages_behind_their_length() -> None:
    async with peer() as there:
        made = source(url=f"tcp://127.0.0.1:{there.port}", framing="u16_le", max_message=Size(100))
        engine = SmallEngine(made)
        async with engine.running():
            _, writer = await there.connected()
            for value in (1, 2):
                message = text(value)
                writer.write(len(message).to_bytes(2, "little") + message)
            await engine.have(2)
            writer.write(b"\xff\xff" + text(3))  # from here on nothing can be told apart
            _, writer = await there.connected()
            assert made.trouble.endswith("a message of 65,535 bytes was announced; max_message is 100")
            assert [r.reason for r in engine.refused] == ["longer than max_message (100 bytes)"]
            message = text(4)
            writer.write(len(message).to_bytes(2, "little") + message)
            assert [row["value"] for row in await engine.have(3)] == [1, 2, 4]


# --- it listens -------------------------------------------------------------------------------------------------------


async def test_peers_connect_and_are_apart() -> None:
    """Half a line of one is not completed by another; one that makes no sense costs the others nothing."""
    port = free_port()
    engine = SmallEngine(source(listen=f"tcp://127.0.0.1:{port}", max_message=Size(100)))
    async with engine.running():
        _, one = await connect(port)
        _, other = await connect(port)
        one.write(text(1)[:10])
        await one.drain()
        other.write(b"?" * 200 + b"\n" + text(2))
        await engine.have(1)
        one.write(text(1)[10:])
        assert [row["value"] for row in await engine.have(2)] == [2, 1]
        assert len(engine.refused) == 1


async def test_one_connection_too_many_is_closed() -> None:
    port = free_port()
    engine = SmallEngine(source(listen=f"tcp://127.0.0.1:{port}", max_connections=1))
    async with engine.running():
        _, first = await connect(port)
        first.write(text(1))
        await engine.have(1)
        reader, _ = await connect(port)
        assert await asyncio.wait_for(reader.read(), 30) == b""
        first.close()

        async def let_in() -> bool:
            """Once it has noticed that the first is gone."""
            reader, next_ = await connect(port)
            next_.write(text(2))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(), 0.1)
            next_.close()
            return len(engine.rows) >= 2

        await eventually(let_in)


async def test_when_it_stops_peers_are_let_go() -> None:
    port = free_port()
    engine = SmallEngine(source(listen=f"tcp://127.0.0.1:{port}"))
    async with engine.running():
        reader, writer = await connect(port)
        writer.write(text(1))
        await engine.have(1)
    assert await asyncio.wait_for(reader.read(), 30) == b""


async def test_a_silent_peer_is_disconnected() -> None:
    port = free_port()
    engine = SmallEngine(source(listen=f"tcp://127.0.0.1:{port}", read_timeout=duration("50 ms")))
    async with engine.running():
        reader, _ = await connect(port)
        assert await asyncio.wait_for(reader.read(), 30) == b""
        assert engine.source.trouble == ""


async def test_a_port_that_is_taken_is_told_and_tried_again() -> None:
    port = free_port()
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    engine = SmallEngine(source(listen=f"tcp://127.0.0.1:{port}"))
    async with engine.running():
        await engine.until(lambda: "in use" in engine.source.trouble)
        taken.close()
        await taken.wait_closed()
        await engine.until(lambda: not engine.source.trouble)


async def test_what_is_durable_is_acknowledged() -> None:
    """Once for each message, those that were refused too, when the step is committed; also behind the peer's own end."""
    port = free_port()
    engine = SmallEngine(source(listen=f"tcp://127.0.0.1:{port}", acknowledge="OK\n"))
    engine.held = True
    async with engine.running():
        reader, writer = await connect(port)
        writer.write(text(1) + b"no reading\n" + text(2).strip())
        writer.write_eof()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readline(), 0.1)
        await engine.until(lambda: len(engine.payloads) == 3)
        engine.go_on()
        assert await asyncio.wait_for(reader.read(), 30) == b"OK\n" * 3
    assert engine.values() == [1, 2]


async def test_a_peer_that_does_not_read_what_it_is_told_is_not_read() -> None:
    port = free_port()
    engine = SmallEngine(source(listen=f"tcp://127.0.0.1:{port}", acknowledge="x" * 100_000))
    async with engine.running():
        _, writer = await connect(port)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(400):
            writer.write(text(1))
            await asyncio.sleep(0.001)
        assert len(engine.rows) < 300


async def test_what_could_not_be_kept_is_not_acknowledged() -> None:
    port = free_port()
    engine = SmallEngine(source(listen=f"tcp://127.0.0.1:{port}", acknowledge="OK\n"))
    engine.failed = "disk full"
    async with engine.running():
        reader, writer = await connect(port)
        writer.write(text(1))
        assert await asyncio.wait_for(reader.read(), 30) == b""


# --- TLS --------------------------------------------------------------------------------------------------------------


def trusting(authority: Authority, own: Path | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=authority.file)
    if own:
        made.load_cert_chain(own)
    return made


async def test_tls_towards_a_peer(tmp_path: Path) -> None:
    """Only one that shows a certificate of the authority; relative paths start where the pipeline file lies."""
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(authority.sign("server"))
    async with peer(served) as there:
        engine = SmallEngine(source(tmp_path, url=f"tls://127.0.0.1:{there.port}", tls=TlsSettings(ca=Path("ca.pem"))))
        async with engine.running():
            _, writer = await there.connected()
            writer.write(text(1))
            await engine.have(1)
        wrong = TlsSettings(ca=Path(stranger.file.name))
        engine = SmallEngine(source(tmp_path, url=f"tls://127.0.0.1:{there.port}", tls=wrong))
        async with engine.running():
            await engine.until(lambda: "certificate verify failed" in engine.source.trouble)


async def test_tls_of_those_who_connect(tmp_path: Path) -> None:
    """With a `ca` they must show a certificate of it."""
    authority = Authority(tmp_path)
    authority.sign("server")
    client = authority.sign("client")
    port = free_port()
    settings = TlsSettings(certificate=Path("server.pem"), ca=Path("ca.pem"))
    engine = SmallEngine(source(tmp_path, listen=f"tls://127.0.0.1:{port}", tls=settings))
    async with engine.running():
        _, writer = await connect(port, trusting(authority, client))
        writer.write(text(1))
        await engine.have(1)
        with contextlib.suppress(OSError):  # at the handshake, or it is closed behind it: that depends on the version
            reader, writer = await connect(port, trusting(authority))
            writer.write(text(2))
            assert await reader.read() == b""
    assert engine.values() == [1]


# --- datagrams --------------------------------------------------------------------------------------------------------


async def sender(port: int) -> asyncio.DatagramTransport:
    made, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("127.0.0.1", port)
    )
    return made


async def test_datagrams() -> None:
    """Each a message, and lines in one are several readings; what is dropped at the limit is told for as long as it lasts."""
    port = free_port()
    engine = SmallEngine(source(listen=f"udp://127.0.0.1:{port}", max_message=Size(100)), room=2)
    async with engine.running():
        await eventually(lambda: f":{port:04X} " in Path("/proc/net/udp").read_text())
        out = await sender(port)
        out.sendto(text(1) + text(2))
        await engine.have(2)
        out.sendto(b"")
        out.sendto(b"x" * 101)
        await engine.until(lambda: engine.refused)
        assert len(engine.refused) == 1
        engine.held = True
        for value in range(3, 8):
            out.sendto(text(value))
        await engine.until(lambda: engine.turned_away == 3)
        assert engine.source.trouble.endswith("the inbox is full, datagrams are dropped")
        engine.go_on()
        out.sendto(text(9))
        assert [row["value"] for row in await engine.have(5)] == [1, 2, 3, 4, 9]
        assert engine.source.trouble == ""
        out.close()


async def test_a_peer_that_is_asked_for_datagrams() -> None:
    """`hello` is sent, and again when nothing has come for read_timeout."""
    port = free_port()
    made = source(url=f"udp://127.0.0.1:{port}", hello="subscribe", read_timeout=duration("100 ms"))
    engine = SmallEngine(made)

    class Answering(asyncio.DatagramProtocol):
        asked = 0

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            assert data == b"subscribe"
            Answering.asked += 1
            self.transport.sendto(text(Answering.asked), addr)

    async with engine.running():
        await engine.until(lambda: made.trouble)  # nobody is there: ICMP says so
        there, _ = await asyncio.get_running_loop().create_datagram_endpoint(Answering, local_addr=("127.0.0.1", port))
        assert [row["value"] for row in await engine.have(3)][:3] == [1, 2, 3]
        there.close()


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({}, ["url"]),
        ({"url": "tcp://h:1", "listen": "tcp://127.0.0.1:1"}, ["url"]),
        ({"url": "http://h:1"}, ["url"]),
        ({"url": "tcp://h"}, ["url"]),
        ({"url": "tcp://h:x"}, ["url"]),
        ({"url": "tcp://h:1/path"}, ["url"]),
        ({"url": "tcp://h:1", "tls": TlsSettings()}, ["tls"]),
        ({"listen": "tls://0.0.0.0:1"}, ["tls"]),
        ({"listen": "tcp://0.0.0.0:1"}, ["listen"]),
        ({"listen": "udp://192.168.0.1:1"}, ["listen"]),
        ({"listen": "udp://127.0.0.1:1", "acknowledge": "x"}, ["acknowledge"]),
        ({"listen": "udp://127.0.0.1:1", "framing": "u8"}, ["framing"]),
        ({"url": "tcp://h:1", "read_timeout": duration("0 s")}, ["read_timeout"]),
        ({"listen": "tcp://0.0.0.0:1", "insecure": True}, []),
        ({"listen": "tls://0.0.0.0:1", "tls": TlsSettings(certificate=Path("c.pem"))}, []),
        ({"listen": "tcp://[::1]:1"}, []),
        ({"url": "tls://h:1"}, []),
        ({"url": "udp://h:1", "hello": "x"}, []),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], wrong: list[str]) -> None:
    assert [setting for setting, _ in problems(**settings)] == wrong


def test_readings_of_tests_and_dead_letters() -> None:
    made = source(url="tcp://h:1", format={"type": "csv", "header": ["id", "value"]})
    given = made.given({"id": "a", "value": 2})
    again = made.again(b"a,3", "")
    assert given is not None
    assert again is not None
    assert made.decode([given, again]).columns["value"].tolist() == [2.0, 3.0]
