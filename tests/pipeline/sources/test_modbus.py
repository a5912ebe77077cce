"""The registers of a plant, served by pymodbus: over TCP, over a serial line, silent, refusing, gone and back."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline import settings
from pipeline.component import Inbox, Payload, SourceContext
from pipeline.config import loads
from pipeline.frame import KeyTable
from pipeline.modbus import bus
from pipeline.sources import modbus
from pipeline.sources.modbus import Modbus, ModbusSettings
from tests.modbus_peer import Plant, have_socat, words
from tests.stranger import stranger
from tests.waiting import eventually

REGISTERS = {
    "flow": {"address": 100, "type": "float32", "order": "CDAB"},
    "pressure": {"address": 104, "type": "int16", "scale": 0.1},
    "running": {"address": 5, "table": "discrete"},
}


class Taken(Inbox):
    """An inbox without end that keeps what it is given."""

    def __init__(self) -> None:
        self.payloads: list[Payload] = []

    def offer(self, payload: Payload) -> bool:
        self.payloads.append(payload)
        return True

    async def put(self, payload: Payload) -> None:
        self.offer(payload)

    async def taken(self) -> None:
        pass

    def end(self) -> None:
        pass


def source(**given: Any) -> tuple[Modbus, list[tuple[str, str]]]:
    read = settings.read(ModbusSettings, {"every": "20 ms", "timeout": "20 s", "retries": 0, **given})
    assert read.found == []
    context = SourceContext("plant", KeyTable())
    return Modbus(read.settings, context), context.problems


def good(**given: Any) -> Modbus:
    made, problems = source(**given)
    assert problems == []
    return made


@asynccontextmanager
async def running(made: Modbus) -> AsyncIterator[Rows]:
    inbox = Taken()
    task = asyncio.create_task(made.run(inbox, None))
    try:
        yield Rows(made, inbox)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert bus._SHARED == {}, "the bus was left"


class Rows:
    def __init__(self, made: Modbus, inbox: Taken) -> None:
        self.made = made
        self.inbox = inbox

    def of(self, unit: str) -> list[dict[str, Any]]:
        if not self.inbox.payloads:
            return []
        decoded = self.made.decode(self.inbox.payloads)
        columns = {name: c.tolist() for name, c in decoded.columns.items()}
        keys = list(decoded.keys)
        return [{n: c[i] for n, c in columns.items()} for i, key in enumerate(keys) if key == unit]

    def refused(self) -> list[str]:
        return [r.reason for r in self.made.decode(self.inbox.payloads).refused]

    async def more(self, unit: str, count: int = 1) -> dict[str, Any]:
        before = len(self.of(unit))
        await eventually(lambda: len(self.of(unit)) >= before + count, lambda: self.made.trouble)
        return self.of(unit)[-1]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reconnect.FIRST_S", 0.02)
    monkeypatch.setattr("pipeline.reconnect.LONGEST_S", 0.05)


def fill(plant: Plant, number: int, flow: float, pressure: int, *, running: bool) -> None:
    value = struct.pack(">f", flow)
    plant.put(number, 100, value[2:] + value[:2])
    plant.put(number, 104, words(pressure))
    plant.put_bit(number, 5, running)


async def test_each_unit_gives_readings_with_all_fields() -> None:
    """In two requests a unit: the two holding registers go together, over the gap between them."""
    plant = Plant(1, 2)
    async with plant.over_tcp() as url:
        fill(plant, 1, 2.5, 215, running=True)
        fill(plant, 2, -1.25, -3 & 0xFFFF, running=False)
        async with running(good(url=url, units={"pump": 1, "fan": 2}, registers=REGISTERS)) as rows:
            assert await rows.more("pump", 2) == {"flow": 2.5, "pressure": 21.5, "running": True}
            assert await rows.more("fan", 2) == {"flow": -1.25, "pressure": -0.3, "running": False}
            assert rows.made.trouble == ""
            fill(plant, 1, 3.5, 1, running=False)
            await rows.more("pump")
            assert await rows.more("pump") == {"flow": 3.5, "pressure": 0.1, "running": False}
    assert set(plant.asked[:4]) == {(1, 2, 5, 1), (1, 3, 100, 5), (2, 2, 5, 1), (2, 3, 100, 5)}
    assert rows.refused() == []


@pytest.mark.skipif(not have_socat(), reason="needs socat")
async def test_over_a_serial_line(tmp_path: Path) -> None:
    """The same over RTU; and a second source of the same line shares it, each at its pace."""
    plant = Plant(1, 2)
    async with plant.over_serial(tmp_path) as url:
        fill(plant, 1, 2.5, 215, running=True)
        fill(plant, 2, 0.5, 7, running=True)
        line = {"url": url, "serial": {"baud": 115_200}, "registers": REGISTERS}
        async with running(good(**line, units={"pump": 1})) as rows:
            other = good(**line, units={"fan": 2}, every="50 ms")
            task = asyncio.create_task(other.run(taken := Taken(), None))
            assert await rows.more("pump", 5) == {"flow": 2.5, "pressure": 21.5, "running": True}
            assert await Rows(other, taken).more("fan", 2) == {"flow": 0.5, "pressure": 0.7, "running": True}
            assert len(bus._SHARED) == 1
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await rows.more("pump", 2)
            assert rows.made.trouble == other.trouble == ""


async def test_a_unit_that_is_silent_costs_only_its_own_readings() -> None:
    """It is told by name, once in NAME.invalid; the other goes on meanwhile; and it comes back by itself."""
    plant = Plant(1, 2)
    async with plant.over_tcp() as url:
        made = good(url=url, units={"pump": 1, "fan": 2}, registers=REGISTERS, timeout="1 s")
        async with running(made) as rows:
            await rows.more("fan")
            plant.silent.add(1)
            await eventually(lambda: made.trouble == "pump: no answer within 1 s")
            had = len(rows.of("pump"))
            await rows.more("fan", 3)
            assert len(rows.of("pump")) == had
            assert rows.refused() == ["pump: no answer within 1 s"]
            plant.silent.clear()
            await rows.more("pump", 2)
            await eventually(lambda: made.trouble == "")
            assert rows.refused() == ["pump: no answer within 1 s"]


async def test_a_register_that_a_unit_lacks_costs_only_its_field() -> None:
    """It is found by halves; from then on the requests are right, and the others keep together."""
    plant = Plant(1)
    plant.refuses[1] = {103}
    registers = {f"r{i}": {"address": 100 + i} for i in range(8)}
    async with plant.over_tcp() as url:
        plant.put(1, 100, words(*range(8)))
        async with running(good(url=url, units={"pump": 1}, registers=registers)) as rows:
            expected: dict[str, Any] = {f"r{i}": i for i in range(8)} | {"r3": None}
            assert await rows.more("pump") == expected
            assert rows.made.trouble == "pump: r3: illegal data address (exception 2)"
            await rows.more("pump", 3)
            assert rows.refused() == ["pump: r3: illegal data address (exception 2)"]
            plant.asked.clear()
            await rows.more("pump", 2)
    assert set(plant.asked) == {(1, 3, 100, 2), (1, 3, 102, 1), (1, 3, 103, 1), (1, 3, 104, 4)}


async def test_a_gap_that_a_unit_refuses_is_not_read_again() -> None:
    """Nothing of what is wanted is missing for it."""
    plant = Plant(1)
    plant.refuses[1] = {102}
    registers = {"a": {"address": 100}, "b": {"address": 104}}
    async with plant.over_tcp() as url:
        plant.put(1, 100, words(1, 2, 3, 4, 5))
        async with running(good(url=url, units={"pump": 1}, registers=registers)) as rows:
            assert await rows.more("pump") == {"a": 1, "b": 5}
            assert rows.made.trouble == ""


async def test_a_silent_unit_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question to it would keep the others waiting for the time-out."""
    plant = Plant(1, 2)
    async with (
        plant.over_tcp() as url,
        running(good(url=url, units={"pump": 1, "fan": 2}, registers=REGISTERS, timeout="3 s")) as rows,
    ):
        await rows.more("fan")
        monkeypatch.setattr("pipeline.reconnect.FIRST_S", 100.0)
        monkeypatch.setattr("pipeline.reconnect.LONGEST_S", 100.0)
        plant.silent.add(1)
        await eventually(lambda: rows.made.trouble)
        plant.asked.clear()
        await rows.more("fan", 5)
    assert {unit for unit, *_ in plant.asked} == {2}


async def test_a_unit_that_refuses_all_is_not_silent() -> None:
    """It answers, so the connection is good; of a unit that a gateway does not reach nobody can say so."""
    plant = Plant(1, 2)
    plant.refuses[1] = {100}
    async with plant.over_tcp() as url:
        async with running(good(url=url, units={"pump": 1}, registers={"x": {"address": 100}})) as rows:
            await eventually(lambda: len(plant.asked) > 3)
            assert rows.made.trouble == "pump: x: illegal data address (exception 2)"
            assert rows.of("pump") == []
            assert plant.connections == 1
        plant.unreached.add(1)
        async with running(good(url=url, units={"pump": 1}, registers={"x": {"address": 100}})) as rows:
            await eventually(lambda: plant.connections > 2)
            said = "pump: x: the gateway's device did not answer (exception 11)"
            await eventually(lambda: rows.made.trouble.endswith(said), lambda: rows.made.trouble)


async def test_a_peer_that_goes_away_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """Told while it is away; each unit is asked at once when it is there again."""
    plant = Plant(1)
    async with plant.over_tcp() as url:
        made = good(url=url, units={"pump": 1}, registers=REGISTERS)
        running_ = running(made)
        rows = await running_.__aenter__()
        await rows.more("pump")
    await eventually(lambda: made.trouble.startswith(url), lambda: made.trouble)
    again = Plant(1)
    async with again.over_tcp(int(url.rpartition(":")[2])):
        fill(again, 1, 9.0, 1, running=True)
        await eventually(lambda: rows.of("pump")[-1]["flow"] == 9.0, lambda: made.trouble)
        await eventually(lambda: made.trouble == "")
        await running_.__aexit__(None, None, None)
    assert f"plant: connected to {url} again" in caplog.text


async def test_a_connection_that_is_half_open_is_made_anew() -> None:
    """All units are silent: after the time-out another connection is made."""
    plant = Plant(1)
    async with plant.over_tcp() as url:
        made = good(url=url, units={"pump": 1}, registers=REGISTERS, timeout="200 ms")
        async with running(made) as rows:
            await rows.more("pump")
            plant.silent.add(1)
            await eventually(lambda: "no answer within 0.2 s" in made.trouble)
            plant.silent.clear()
            await rows.more("pump", 2)
            assert plant.connections > 1


async def test_a_peer_that_speaks_something_else() -> None:
    """It is told, and tried again; nothing is taken for a reading."""
    async with (
        stranger() as port,
        running(good(url=f"tcp://127.0.0.1:{port}", units={"pump": 1}, registers=REGISTERS)) as rows,
    ):
        await eventually(lambda: "not Modbus TCP" in rows.made.trouble)
        assert rows.of("pump") == []


async def test_units_with_registers_of_their_own() -> None:
    """Fields that only another unit has are missing."""
    plant = Plant(1, 7)
    meter = {"id": 7, "registers": {"energy": {"address": 0, "table": "input", "type": "uint32"}}}
    async with plant.over_tcp() as url:
        plant.put(7, 0, words(1, 2), "i")
        plant.put(1, 0, words(5))
        units = {"pump": 1, "meter": meter}
        async with running(good(url=url, units=units, registers={"speed": {"address": 0}})) as rows:
            assert await rows.more("meter") == {"speed": None, "energy": 65_538}
            assert await rows.more("pump") == {"speed": 5, "energy": None}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"url": "192.168.1.20"}, ("url", "is not the address of a bus")),
        ({"url": "tcp://h:port"}, ("url", "needs a port")),
        ({"url": "rtu+tcp://gateway"}, ("url", "needs a port")),
        ({"url": "rtu://ttyUSB0"}, ("url", 'write it as "rtu:///dev/ttyUSB0"')),
        ({"serial": {"baud": 1200}}, ("serial", "is of an rtu:// bus")),
        ({"tls": {}}, ("tls", "is of a tls:// bus")),
        ({"units": {}}, ("units", "name at least one")),
        ({"registers": {}}, ("registers", '"pump" has none')),
        ({"registers": {"x": {"address": 400_101}}}, ("registers.x.address", 'address = 100, table = "holding"')),
        ({"registers": {"x": {"address": 1, "type": "string"}}}, ("registers.x", "needs its length")),
        ({"registers": {"x": {"address": 1, "table": "coil", "type": "int16"}}}, ("registers.x.type", "is one bit")),
        ({"registers": {"x": {"address": 1, "bit": 3}}}, ("registers.x.bit", "is of a bool")),
        ({"registers": {"x": {"address": 1, "type": "bool", "scale": 2.0}}}, ("registers.x.scale", "is of a number")),
        ({"registers": {"time": {"address": 1}}}, ("registers.time", "give it another name")),
        ({"max_registers": 1}, ("registers.flow", "more than max_registers")),
        (
            {"units": {"pump": 1, "fan": {"id": 2, "registers": {"flow": {"address": 1}}}}},
            ("units.fan.registers.flow", "one field, one type"),
        ),
    ],
)
def test_wrong_settings_are_told(given: dict[str, Any], problem: tuple[str, str]) -> None:
    base: dict[str, Any] = {"url": "tcp://127.0.0.1", "units": {"pump": 1}, "registers": REGISTERS}
    _, problems = source(**base | given)
    assert any(setting == problem[0] and problem[1] in text for setting, text in problems), problems


def test_a_test_block_gives_readings(tmp_path: Path) -> None:
    """`[[test]]`: the fields of a row, and those that it does not name are missing."""
    made = good(url="tcp://127.0.0.1", units={"pump": 1}, registers=REGISTERS)
    payloads = [made.given({"unit": "pump", "flow": 1.5}), made.given({"running": True})]
    decoded = made.decode([p for p in payloads if p is not None])
    assert list(decoded.keys) == ["pump", "pump"]
    assert {n: c.tolist() for n, c in decoded.columns.items()} == {
        "flow": [1.5, None],
        "pressure": [None, None],
        "running": [None, True],
    }


def test_the_example_of_the_docstring_is_a_good_source(tmp_path: Path) -> None:
    doc = (modbus.Modbus.__doc__ or "").split("\n\n", 1)[1].split("\n    Each unit", 1)[0]
    text = '[pipeline]\nname = "p"\n' + "\n".join(line.strip() for line in doc.splitlines())
    assert loads(text, tmp_path / "pipeline.toml").problems == []
