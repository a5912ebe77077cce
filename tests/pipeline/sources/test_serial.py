"""What `serial` promises, over pseudo-terminals; with socat as the peer it is in the contract of connectors."""

from __future__ import annotations

import asyncio
import os
import pty
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.component import SourceContext
from pipeline.frame import KeyTable
from pipeline.quantity import Size, duration
from pipeline.sources.serial import Serial, SerialSettings
from tests.small_engine import SmallEngine


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reconnect.FIRST_S", 0.02)
    monkeypatch.setattr("pipeline.reconnect.LONGEST_S", 0.05)


class Device:
    """The other end of a line, which can be unplugged; the name in the file system stays the same."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "line"
        self.ends: list[int] = []

    def plug_in(self) -> None:
        here, there = pty.openpty()
        tty.setraw(there)
        self.ends = [here, there]
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(there))

    def unplug(self) -> None:
        self.path.unlink(missing_ok=True)
        for end in self.ends:
            os.close(end)
        self.ends = []

    def say(self, data: bytes) -> None:
        os.write(self.ends[0], data)

    def heard(self) -> bytes:
        os.set_blocking(self.ends[0], False)
        try:
            return os.read(self.ends[0], 1_000)
        except BlockingIOError:
            return b""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    made.plug_in()
    yield made
    made.unplug()


class Watched(Serial):
    """It is known when the line is open: what was said before is not heard."""

    opened = 0

    def _open(self) -> Any:
        made = super()._open()
        self.opened += 1
        return made


def source(device: Device, **settings: Any) -> Watched:
    context = SourceContext("scale", KeyTable())
    made = Watched(SerialSettings(device=str(device.path), key="id", fields={"value": "float"}, **settings), context)
    assert context.problems == []
    return made


@asynccontextmanager
async def listening(engine: SmallEngine, times: int = 1) -> AsyncIterator[None]:
    async with engine.running():
        await opened(engine, times)
        yield


async def opened(engine: SmallEngine, times: int) -> None:
    await engine.until(lambda: engine.source.opened >= times)  # type: ignore[attr-defined]


def text(*values: float) -> bytes:
    return b"".join(b'{"id": "a", "value": %g}\r\n' % value for value in values)


async def test_lines_and_not_the_half_of_one(device: Device) -> None:
    """What comes before the first line end may have begun before we listened: 5 is not 21.5."""
    engine = SmallEngine(source(device))
    async with listening(engine):
        for half in (b'{"id": "a", ', b'"value": 5}'):
            device.say(half)
            await asyncio.sleep(0.05)
        device.say(b"\n" + text(1) + text(2)[:9])
        await engine.have(1)
        device.say(text(2)[9:] + b"\x00\xff noise\n" + text(3))
        assert [row["value"] for row in await engine.have(3)] == [1, 2, 3]
        assert len(engine.refused) == 1


async def test_a_device_that_is_asked(device: Device) -> None:
    """What follows `hello` is whole."""
    engine = SmallEngine(source(device, hello="READ\r\n"))
    async with engine.running():
        heard = b""
        while b"\n" not in heard:
            await asyncio.sleep(0.01)
            heard += device.heard()
        assert heard == b"READ\r\n"
        device.say(text(1))
        await engine.have(1)


async def test_a_device_that_is_unplugged_is_told_and_found_again(device: Device) -> None:
    engine = SmallEngine(source(device))
    async with listening(engine):
        device.say(b"\n" + text(1))
        await engine.have(1)
        device.unplug()
        await engine.until(lambda: "No such file" in engine.source.trouble)
        device.plug_in()
        await opened(engine, 2)
        device.say(b"\n" + text(2))
        assert [row["value"] for row in await engine.have(2)] == [1, 2]
        assert engine.source.trouble == ""


async def test_a_line_that_somebody_else_has_is_not_shared(device: Device) -> None:
    first, second = SmallEngine(source(device)), SmallEngine(source(device))
    async with listening(first):
        device.say(b"\n" + text(1))
        await first.have(1)
        async with second.running():
            await second.until(lambda: "lock" in second.source.trouble)
    third = SmallEngine(source(device))
    async with listening(third):
        device.say(b"\n" + text(1))
        await third.have(1)


async def test_a_silence_that_lasts_opens_it_anew(device: Device) -> None:
    engine = SmallEngine(source(device, read_timeout=duration("50 ms"), hello="?"))
    async with engine.running():
        await engine.until(lambda: device.heard().count(b"?"))
        await engine.until(lambda: device.heard().count(b"?"))


async def test_messages_behind_their_length(device: Device) -> None:
    """When they make no sense the line is opened anew, and may begin anew."""
    made = source(device, framing="u8", max_message=Size(100))
    engine = SmallEngine(made)
    message = text(1)
    async with listening(engine):
        device.say(bytes([len(message)]) + message + b"\xff" * 10)
        await engine.until(lambda: engine.refused)
        assert engine.values() == [1]
        await opened(engine, 2)
        device.say(bytes([len(message)]) + message)
        await engine.have(2)


async def test_while_the_inbox_is_full_the_line_is_not_read(device: Device) -> None:
    engine = SmallEngine(source(device), room=2)
    engine.held = True
    async with listening(engine):
        os.set_blocking(device.ends[0], False)
        sent = 0
        for _ in range(100):
            try:
                sent += os.write(device.ends[0], b"\n" + text(1))
            except BlockingIOError:
                break
            await asyncio.sleep(0.001)
        assert sent < 20_000
        await engine.until(lambda: len(engine.payloads) == 2)
        engine.go_on()
        await engine.have(3)


def test_how_the_line_is_set(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    import serial

    asked: dict[str, Any] = {}
    monkeypatch.setattr(serial, "Serial", lambda *args, **more: asked.update(more, args=args))
    source(device, baud=19_200, data_bits=7, parity="even", stop_bits=2, flow="software")._open()
    assert asked["args"] == (str(device.path), 19_200)
    assert (asked["bytesize"], asked["parity"], asked["stopbits"]) == (serial.SEVENBITS, serial.PARITY_EVEN, 2)
    assert (asked["xonxoff"], asked["rtscts"], asked["exclusive"]) == (True, False, True)


@pytest.mark.parametrize(
    ("settings", "wrong"), [({"device": ""}, "device"), ({"read_timeout": duration("0 s")}, "read_timeout")]
)
def test_settings_that_cannot_be(settings: dict[str, Any], wrong: str) -> None:
    context = SourceContext("scale", KeyTable())
    usual: dict[str, Any] = {"device": "/dev/ttyUSB0", "key": "id", "fields": {"value": "float"}}
    Serial(SerialSettings(**usual | settings), context)
    assert [setting for setting, _ in context.problems] == [wrong]


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.serial.find_spec", lambda _: None)
    context = SourceContext("scale", KeyTable())
    Serial(SerialSettings(device="/dev/ttyUSB0", key="id", fields={"value": "float"}), context)
    assert context.problems == [("type", 'needs pyserial: pip install "headwater[serial]"')]
