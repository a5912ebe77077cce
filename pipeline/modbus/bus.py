"""A Modbus bus: a serial line, or a TCP peer. One request at a time; source and sink of the same bus share it.

bus = shared(where)    # one for all that name it alike: a line bears one master, a device few connections
data = await bus.ask(unit, request, patience)  # connects if need be
await bus.leave()      # the last one closes it
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

from msgspec import Meta

from pipeline.component import Context, Settings
from pipeline.modbus.protocol import Framing, Garbled, RtuFraming, TcpFraming, data_of
from pipeline.quantity import Duration, duration
from pipeline.tls import TlsSettings, client_context
from pipeline.tls import check as check_tls

if TYPE_CHECKING:
    import serial

CONNECT_S = 10.0  # a peer that takes longer is away
UNANSWERED = 3  # requests in a row, to whichever units: then the connection itself is suspected
SILENT_CHARACTERS = 3.5  # that part two frames on a serial line
LEAST_SILENCE_S = 0.00175  # above 19,200 baud the silence is no shorter than that
_FORMS = "tcp://192.168.1.20:502, rtu:///dev/ttyUSB0, rtu+tcp://gateway:4001 or tls://host:802"


class SerialSettings(Settings, frozen=True, kw_only=True):
    baud: Annotated[int, Meta(ge=50, le=4_000_000, description="Bits a second.")] = 9_600
    parity: Annotated[Literal["none", "even", "odd"], Meta(description="The standard's default is even.")] = "even"
    stop_bits: Annotated[Literal[1, 2], Meta(description="2 is usual where there is no parity.")] = 1


class BusSettings(Settings, frozen=True, kw_only=True):
    """Settings of what speaks on a bus."""

    url: Annotated[str, Meta(description=f"Where the bus is: {_FORMS}.")]
    serial: Annotated[SerialSettings, Meta(description="How the line of an rtu:// is set.")] = SerialSettings()
    tls: Annotated[TlsSettings | None, Meta(description="Whom a tls:// trusts, and what it shows.")] = None
    timeout: Annotated[Duration, Meta(description="How long a unit may take to answer.")] = duration("1 s")
    retries: Annotated[int, Meta(ge=0, le=10, description="How often a request is repeated that was not answered.")] = 1
    pause: Annotated[Duration, Meta(description="Least time between an answer and the next request.")] = Duration(0)


class Patience(NamedTuple):
    """How long to wait for a unit, in seconds, and how often to ask."""

    timeout: float
    retries: int = 0
    pause: float = 0.0  # after each answer


class Where(NamedTuple):
    """A bus, as components name it."""

    url: str
    serial: SerialSettings
    tls: TlsSettings | None
    folder: Path


def patience(settings: BusSettings) -> Patience:
    return Patience(settings.timeout.seconds, settings.retries, settings.pause.seconds)


def where(settings: BusSettings, context: Context) -> Where:
    """The bus of these settings; what is wrong with them is reported."""
    parts = urlsplit(settings.url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme == "rtu":
        if parts.netloc or not parts.path.strip("/"):
            context.problem("url", f'"{settings.url}" names no port; write it as "rtu:///dev/ttyUSB0"')
        _need_pyserial(context)
    elif parts.scheme not in ("tcp", "tls", "rtu+tcp") or not parts.hostname:
        context.problem("url", f'"{settings.url}" is not the address of a bus; write it as {_FORMS}')
    elif port is None and (parts.scheme == "rtu+tcp" or ":" in parts.netloc.rpartition("]")[2]):
        context.problem("url", f'"{settings.url}" needs a port, as "rtu+tcp://gateway:4001"')
    if parts.scheme != "rtu" and settings.serial != SerialSettings():
        context.problem("serial", "is of an rtu:// bus; behind a gateway the gateway has these settings")
    if settings.tls is not None:
        if parts.scheme != "tls":
            context.problem("tls", "is of a tls:// bus")
        check_tls(settings.tls, context)
    if settings.timeout < 1_000_000:
        context.problem("timeout", 'must be at least "1 ms"')
    return Where(settings.url, settings.serial, settings.tls, context.folder)


def _need_pyserial(context: Context) -> None:
    from importlib.util import find_spec

    if find_spec("serial") is None:
        context.problem("url", 'a serial line needs pyserial: pip install "headwater[modbus]"')


# --- the bus --------------------------------------------------------------------------------------------------------


class Bus:
    """Asks units, one request at a time."""

    def __init__(self, where: Where) -> None:
        self.where = where
        self.loop = asyncio.get_running_loop()
        self.users = 0
        self.framing: Framing = RtuFraming() if where.url.startswith("rtu") else TcpFraming()
        self._link: Link | None = None
        self._lock = asyncio.Lock()
        self._number = 0
        self._unanswered = 0  # requests since the last answer
        self._free_at = 0.0  # loop time from which on the line may be used

    @property
    def numbered(self) -> bool:
        """Answers tell which request they are of."""
        return isinstance(self.framing, TcpFraming)

    async def connect(self) -> None:
        """OSError, TimeoutError: the peer is away."""
        async with self._lock:
            await self._connected()

    async def ask(self, unit: int, request: bytes, patience: Patience) -> bytes:
        """What the unit answers. Refusal; Garbled; TimeoutError: it is silent. Any other OSError: the connection is lost."""
        for _ in range(patience.retries):
            try:
                return await self._once(unit, request, patience)
            except (TimeoutError, Garbled):
                pass  # another may have the bus in between
        return await self._once(unit, request, patience)

    async def _once(self, unit: int, request: bytes, patience: Patience) -> bytes:
        async with self._lock:
            link = await self._connected()
            await asyncio.sleep(max(0.0, self._free_at - self.loop.time()))
            self._number = self._number % 0xFFFF + 1
            link.came.clear()  # what nobody waits for any more
            try:
                link.write(self.framing.wrap(self._number, unit, request))
                async with asyncio.timeout(patience.timeout):
                    answer = await self._answer(link, unit, request[0])
                self._unanswered = 0
                return data_of(request, answer)
            except TimeoutError:
                self._unanswered += 1
                if self._unanswered >= UNANSWERED:  # it may be half-open: nobody would ever answer by it
                    self._drop()
                raise TimeoutError(f"no answer within {patience.timeout:g} s") from None
            except Garbled:
                if self.numbered:
                    self._drop()  # where the next frame begins is not known any more
                raise
            except OSError:
                self._drop()
                raise
            finally:
                self._free_at = self.loop.time() + max(patience.pause, link.silence)

    async def _answer(self, link: Link, unit: int, function: int) -> bytes:
        while True:
            await link.more()
            answer = self.framing.unwrap(link.came, self._number, unit, function)
            if answer is not None:
                return answer

    async def _connected(self) -> Link:
        if self._link is not None and self._link.lost:
            self._drop()
        if self._link is None:
            try:
                async with asyncio.timeout(CONNECT_S):
                    self._link = await _link(self.where)
            except TimeoutError:
                raise TimeoutError(f"no connection within {CONNECT_S:g} s") from None
        return self._link

    async def reset(self) -> None:
        """The connection is no good: nobody answers. The next request makes another."""
        async with self._lock:
            self._drop()

    def _drop(self) -> None:
        self._unanswered = 0
        if self._link is not None:
            self._link.close()
            self._link = None

    async def leave(self) -> None:
        """Whoever took it has no more use for it."""
        self.users -= 1
        if not self.users:
            if _SHARED.get(self.where) is self:
                del _SHARED[self.where]
            await self.reset()


_SHARED: dict[Where, Bus] = {}


def shared(where: Where) -> Bus:
    """The bus of this process there. Whoever takes it leaves it."""
    bus = _SHARED.get(where)
    if bus is None or bus.loop is not asyncio.get_running_loop():
        bus = _SHARED[where] = Bus(where)
    bus.users += 1
    return bus


# --- what bytes go over ---------------------------------------------------------------------------------------------


class Link(Protocol):
    """A connection that is there."""

    came: bytearray  # and was not yet taken
    lost: bool
    silence: float  # seconds between two frames

    def write(self, data: bytes) -> None: ...
    async def more(self) -> None:
        """Until something has come. ConnectionError: it is lost."""
        ...

    def close(self) -> None: ...


async def _link(where: Where) -> Link:
    parts = urlsplit(where.url)
    if parts.scheme == "rtu":
        return _Line(parts.path, where.serial)
    context = client_context(where.tls, where.folder) if parts.scheme == "tls" else None
    port = parts.port or (802 if context else 502)
    _, stream = await asyncio.get_running_loop().create_connection(_Stream, parts.hostname or "", port, ssl=context)
    return stream


class _Arrivals:
    def __init__(self) -> None:
        self.came = bytearray()
        self.lost = False
        self.silence = 0.0
        self._more = asyncio.Event()

    def arrived(self, data: bytes) -> None:
        self.came += data
        self._more.set()

    def gone(self) -> None:
        self.lost = True
        self._more.set()

    async def more(self) -> None:
        await self._more.wait()
        self._more.clear()
        if self.lost:
            raise ConnectionResetError("the connection was closed")


class _Stream(_Arrivals, asyncio.Protocol):
    """TCP, with or without TLS."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.arrived(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone()

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def close(self) -> None:
        self.transport.abort()


class _Line(_Arrivals):
    """A serial port, that nobody else may have."""

    def __init__(self, path: str, settings: SerialSettings) -> None:
        super().__init__()
        import serial

        parity = {"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}[settings.parity]
        try:
            self.port: serial.Serial = serial.Serial(
                path, settings.baud, parity=parity, stopbits=settings.stop_bits, timeout=0, exclusive=True
            )
        except serial.SerialException as error:
            raise ConnectionError(str(error)) from error
        bits = 1 + 8 + (settings.parity != "none") + settings.stop_bits
        self.silence = max(LEAST_SILENCE_S, SILENT_CHARACTERS * bits / settings.baud)
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(self.port.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self.port.fileno(), 4_096)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # it was unplugged
        if data:
            self.arrived(data)
        else:
            self.loop.remove_reader(self.port.fileno())
            self.gone()

    def write(self, data: bytes) -> None:
        if os.write(self.port.fileno(), data) != len(data):
            raise ConnectionError("the line takes nothing more")

    def close(self) -> None:
        if self.port.is_open:
            self.loop.remove_reader(self.port.fileno())
            self.port.close()
