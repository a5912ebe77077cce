"""`serial`: messages over a serial line."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from pipeline.component import Inbox, SourceContext
from pipeline.framing import StreamSettings, StreamSource
from pipeline.quantity import Duration
from pipeline.reconnect import Connection

if TYPE_CHECKING:
    import serial

CHUNK = 4_096  # bytes read at a time: what the system holds of a line


class SerialSettings(StreamSettings, frozen=True, kw_only=True):
    device: Annotated[str, Meta(description="Such as /dev/serial/by-id/usb-…; that name stays the same.")]
    baud: Annotated[int, Meta(ge=50, le=4_000_000, description="Bits a second.")] = 9_600
    data_bits: Annotated[Literal[5, 6, 7, 8], Meta(description="Of a character.")] = 8
    parity: Annotated[Literal["none", "even", "odd", "mark", "space"], Meta(description="Its check bit.")] = "none"
    stop_bits: Annotated[Literal[1, 2], Meta(description="Behind each character.")] = 1
    flow: Annotated[
        Literal["none", "hardware", "software"], Meta(description="How we ask to wait: not, RTS/CTS, XON/XOFF.")
    ] = "none"
    hello: Annotated[str | None, Meta(description="Sent first; some devices want to be asked.")] = None
    read_timeout: Annotated[
        Duration | None, Meta(description="When nothing came for so long, the line is opened anew.")
    ] = None


class Serial(StreamSource):
    """Lines, or messages behind their length, from a device on a serial line; each in the source's format.

        [sources.scale]
        type = "serial"
        device = "/dev/ttyUSB0"
        baud = 115200
        format = { type = "regex", pattern = '(?P<kilograms>[0-9.]+) kg' }
        fields = { kilograms = "float" }

    Needs `pip install "headwater[serial]"`. A device that is unplugged is found again when it is back; nobody else may have
    the line meanwhile. What comes before the first line end may be half a line, and is left out, but not behind `hello`.
    Delivery: a serial line knows of no acknowledgement; what was read and not committed is lost when the process is killed.
    At the limit: while the inbox is full the line is not read. With `flow` the device has to wait; without, the system holds
    some thousand bytes, and what comes then is lost. A message beyond `max_message` is refused; with lengths the line is
    opened anew, since where the next one begins is not to be trusted.
    """

    def __init__(self, settings: SerialSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        self.timeout = settings.read_timeout.seconds if settings.read_timeout else None
        self.hello = (settings.hello or "").encode()
        if find_spec("serial") is None:
            context.problem("type", 'needs pyserial: pip install "headwater[serial]"')
        if not settings.device:
            context.problem("device", 'name it: device = "/dev/ttyUSB0"')
        if settings.read_timeout is not None and settings.read_timeout <= 0:
            context.problem("read_timeout", "must be more than 0 s; absent, silence is no fault")

    async def run(self, inbox: Inbox, position: Any) -> None:
        connection = Connection(self, self.settings.device)
        await connection.keep(partial(self._listen, inbox, connection))

    async def _listen(self, inbox: Inbox, connection: Connection) -> None:
        port = await asyncio.to_thread(self._open)
        try:
            connection.up()
            if self.hello:
                await asyncio.to_thread(port.write, self.hello)
            await self._read(port, inbox)
        finally:
            port.close()

    async def _read(self, port: serial.Serial, inbox: Inbox) -> None:
        """Until the device is gone, or cannot be understood: OSError says so."""
        stream = self.stream()
        torn = self.framing == "lines" and not self.hello
        while True:
            data = await self._some(port)
            if torn:
                _, end, data = data.partition(b"\n")
                torn = not end
            for payload in stream.feed(data):
                await inbox.put(payload)
            if stream.broken:
                raise OSError(stream.broken)

    async def _some(self, port: serial.Serial) -> bytes:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(port.fileno(), ready.set)
        try:
            async with asyncio.timeout(self.timeout):
                await ready.wait()
        except TimeoutError:
            raise TimeoutError(f"nothing came for {self.settings.read_timeout}") from None
        finally:
            loop.remove_reader(port.fileno())
        if data := os.read(port.fileno(), CHUNK):
            return data
        raise ConnectionError("the device is gone")

    def _open(self) -> serial.Serial:
        """OSError: it is not there, or somebody else has it."""
        import serial

        settings = self.settings
        return serial.Serial(
            settings.device,
            settings.baud,
            bytesize=settings.data_bits,
            parity=settings.parity[0].upper(),
            stopbits=settings.stop_bits,
            rtscts=settings.flow == "hardware",
            xonxoff=settings.flow == "software",
            timeout=0,
            write_timeout=1,
            exclusive=True,
        )
