"""Field devices, served by pymodbus, that do what rows say; and safe values for when nobody says anything."""

from __future__ import annotations

import asyncio
import json
import signal
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from pipeline import settings
from pipeline.component import Batch, Outcome, SinkContext
from pipeline.config import loads
from pipeline.frame import NO_PROGRESS, Field, Frame, KeyTable, Schema, column
from pipeline.modbus import bus
from sinks import modbus
from sinks.modbus import Modbus, ModbusSettings
from tests.connectors.proxy import Proxy
from tests.device import Device, free_port
from tests.modbus_peer import Plant
from tests.waiting import eventually

SECOND = 1_000_000_000
PLAN = Schema("valve", {"setpoint": Field("float", True), "open": Field("bool", True), "note": Field("string", True)})
REGISTERS: dict[str, Any] = {
    "setpoint": {"address": 200, "type": "uint16", "scale": 0.1, "safe": 20.0, "min": 5.0, "max": 60.0},
    "open": {"address": 10, "table": "coil", "safe": False},
}
GIVEN: dict[str, Any] = {
    "units": {"north": 1, "south": 2},
    "registers": REGISTERS,
    "timeout": "20 s",
    "retries": 0,
    "at_start": "hold",
}


class Wall:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000 * SECOND

    def wall(self) -> int:
        return self.now

    def monotonic(self) -> int:
        return self.now


class Rig:
    """The sink, its rows and batches as the engine would make them."""

    def __init__(self, made: Modbus, wall: Wall) -> None:
        self.made = made
        self.wall = wall
        self.seq = 0
        self.waiting: list[tuple[str, Frame]] = []

    def enqueue(self, sink: str, stream: str, frame: Frame, *, keep: bool) -> None:
        self.waiting.append((stream, frame))

    def record(self, stream: str, frame: Frame) -> None: ...
    def append(self, path: Path, data: bytes, header: bytes = b"") -> None: ...

    def step(self, *rows: dict[str, Any]) -> int:
        """One step with these rows; how many of them are to be delivered."""
        keys = self.made.context.keys
        n = len(rows)
        time = np.array([self.wall.now - int(row.get("age", 0) * SECOND) for row in rows], np.int64)
        key = np.array([keys[row["valve"]] for row in rows], np.int32)
        seq = np.arange(self.seq, self.seq + n, dtype=np.int64)
        self.seq += n
        columns = {name: column(f.kind, [row.get(name) for row in rows]) for name, f in PLAN.fields.items()}
        progress = NO_PROGRESS._replace(clock=self.wall.now)
        before = len(self.waiting)
        self.made.write("plan", Frame(time, key, seq, columns, progress), self)
        return sum(len(frame) for _, frame in self.waiting[before:])

    def passes(self, seconds: float) -> None:
        """As if the input of each unit had been heard so much earlier."""
        for unit in self.made.units.values():
            assert unit.heard is not None
            unit.heard -= seconds
            unit._more.set()

    async def deliver(self) -> Outcome:
        batch, self.waiting = Batch("k", self.waiting), []
        return await self.made.deliver(batch)

    async def say(self, valve: str, **row: Any) -> dict[int, str]:
        """A row in a step of its own, delivered; what was rejected of it."""
        self.step({"valve": valve, **row})
        outcome = await self.deliver()
        assert outcome.delivered
        return dict(outcome.rejected)


def sink(wall: Wall | None = None, **given: Any) -> tuple[Modbus, list[tuple[str, str]]]:
    read = settings.read(ModbusSettings, {**GIVEN, **given})
    assert read.found == []
    context = SinkContext("valves", {"plan": PLAN}, KeyTable(["north", "south", "east"]), clock=wall)
    return Modbus(read.settings, context), context.problems


@asynccontextmanager
async def acting(plant: Plant, **given: Any) -> AsyncIterator[Rig]:
    async with plant.over_tcp() as url:
        wall = Wall()
        made, problems = sink(wall, url=url, **given)
        assert problems == []
        task = asyncio.create_task(made.run())
        await eventually(lambda: all(unit.heard is not None for unit in made.units.values()))
        try:
            yield Rig(made, wall)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await made.close()
        assert bus._SHARED == {}, "the bus was left"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reconnect.FIRST_S", 0.02)
    monkeypatch.setattr("pipeline.reconnect.LONGEST_S", 0.05)


async def test_a_row_is_done() -> None:
    """The key names the unit, the fields the registers; a missing one changes nothing, other keys are passed over."""
    plant = Plant(1, 2)
    async with acting(plant) as rig:
        assert await rig.say("north", setpoint=21.5, open=True) == {}
        assert (plant.registers(1, 200), plant.coil(1, 10)) == ([215], True)
        assert await rig.say("south", setpoint=30.0) == {}
        assert (plant.registers(2, 200), plant.coil(2, 10)) == ([300], False)
        assert rig.step({"valve": "east", "setpoint": 50.0}) == 0
        assert [(unit, address) for unit, _, address, _ in plant.written] == [(1, 200), (1, 10), (2, 200)]


async def test_only_what_changes_is_written_and_of_several_the_newest() -> None:
    """A thousand rows that say the same are one command; rows of one step are one command a unit."""
    plant = Plant(1, 2)
    async with acting(plant) as rig:
        assert rig.step(*({"valve": "north", "setpoint": 20.0 + i} for i in range(10))) == 1
        await rig.deliver()
        assert plant.registers(1, 200) == [290]
        for _ in range(5):
            assert rig.step({"valve": "north", "setpoint": 29.0}) == 0
        assert rig.step({"valve": "north", "setpoint": 29.0, "open": True}, {"valve": "north", "setpoint": 31.0}) == 2
        await rig.deliver()
        assert (plant.registers(1, 200), plant.coil(1, 10)) == ([310], True)
        assert len([w for w in plant.written if w[2] == 200]) == 2


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"setpoint": 60.5}, "north: setpoint: 60.5 is above max = 60"),
        ({"setpoint": 4.5}, "north: setpoint: 4.5 is below min = 5"),
        ({"setpoint": float("nan")}, "north: setpoint: nan does not fit into uint16"),
        ({"setpoint": 20.0, "age": 11}, "north: expired: older than 10 s"),
    ],
)
async def test_what_must_not_be_done_is_a_dead_letter(row: dict[str, Any], why: str) -> None:
    """Nothing of the row is done, nothing is cut to what would fit."""
    plant = Plant(1, 2)
    async with acting(plant) as rig:
        assert await rig.say("north", open=True, **row) == {0: why}
        assert plant.written == []
        assert await rig.say("north", open=True) == {}, "it is done now, though it says the same"
        assert plant.coil(1, 10)
        assert await rig.say("north", setpoint=20.0, open=True) == {}
        assert (plant.registers(1, 200), plant.coil(1, 10)) == ([200], True)


async def test_what_the_unit_refuses_is_a_dead_letter() -> None:
    """The other registers are written; the process and the other units go on."""
    plant = Plant(1, 2)
    plant.refuses_writes[1] = {200}
    async with acting(plant) as rig:
        said = {0: "setpoint = 20.0: illegal data address (exception 2)"}
        assert await rig.say("north", setpoint=20.0, open=True) == said
        assert plant.coil(1, 10)
        assert await rig.say("south", setpoint=21.0) == {}
        assert rig.made.trouble == ""


async def test_a_unit_that_is_silent_holds_up_no_other() -> None:
    """Its newest command is done when it is back in time; older ones never are; /health says which it is."""
    plant = Plant(1, 2)
    async with acting(plant, timeout="100 ms") as rig:
        plant.silent.add(1)
        assert await rig.say("north", setpoint=21.0) == {}, "it is in hand"
        await eventually(lambda: rig.made.trouble == "north: no answer within 0.1 s")
        rig.made._patience = lambda: 1_000.0  # type: ignore[method-assign]
        assert await asyncio.wait_for(rig.say("north", setpoint=22.0), 20) == {}, "nobody waits for it"
        assert await rig.say("south", setpoint=23.0) == {}
        await eventually(lambda: plant.registers(2, 200) == [230])
        plant.silent.clear()
        plant.written.clear()
        await eventually(lambda: plant.registers(1, 200) == [220])
        await eventually(lambda: rig.made.trouble == "")
        assert {tuple(values) for unit, _, _, values in plant.written if unit == 1} == {(220,)}


async def test_a_connection_that_is_half_open_is_given_up() -> None:
    """The command is done by another one."""
    plant = Plant(1, 2)
    async with plant.over_tcp() as url, Proxy(int(url.rpartition(":")[2])) as proxy:
        made, _ = sink(Wall(), url=f"tcp://127.0.0.1:{proxy.port}", timeout="100 ms")
        rig, task = Rig(made, Wall()), asyncio.create_task(made.run())
        try:
            await rig.say("north", setpoint=21.0)
            await eventually(lambda: plant.registers(1, 200) == [210])
            await eventually(proxy.freeze)
            await rig.say("north", setpoint=22.0)
            await eventually(lambda: plant.registers(1, 200) == [220])
            await eventually(lambda: made.trouble == "")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await made.close()


async def test_a_command_that_ran_out_is_not_done_after_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    """The safe value takes its place; the next row is news even if it says the same."""
    plant = Plant(1, 2)
    async with acting(plant, timeout="100 ms") as rig:
        plant.silent.add(1)
        await rig.say("north", setpoint=33.0)
        await eventually(lambda: rig.made.trouble)
        rig.wall.now += 11 * SECOND
        await eventually(lambda: "setpoint = 33.0: expired" in caplog.text)
        plant.silent.clear()
        await eventually(lambda: plant.registers(1, 200) == [200])
        assert [330] not in [values for *_, values in plant.written]
        assert await rig.say("north", setpoint=33.0) == {}
        await eventually(lambda: plant.registers(1, 200) == [330])


async def test_an_older_row_that_comes_later_is_not_done() -> None:
    """After an outage newest alerts are delivered first."""
    plant = Plant(1, 2)
    async with acting(plant) as rig:
        rig.step({"valve": "north", "setpoint": 10.0})
        older = rig.waiting.pop()
        await rig.say("north", setpoint=40.0)
        rig.waiting.append(older)
        assert (await rig.deliver()).rejected == {}
        assert plant.registers(1, 200) == [400]


async def test_silence_of_the_input() -> None:
    """Each unit by itself; a row that says the same keeps it; what comes after is done again."""
    plant = Plant(1, 2)
    async with acting(plant, silent_for="1 h") as rig:
        await rig.say("north", setpoint=50.0, open=True)
        await rig.say("south", setpoint=50.0)
        for _ in range(2):
            rig.passes(40 * 60)
            rig.step({"valve": "south", "setpoint": 50.0})
        await eventually(lambda: plant.registers(1, 200) == [200])
        await eventually(lambda: not plant.coil(1, 10))
        assert plant.registers(2, 200) == [500]
        assert await rig.say("north", setpoint=50.0, open=True) == {}
        assert (plant.registers(1, 200), plant.coil(1, 10)) == ([500], True)


async def test_rows_that_are_too_old_do_not_break_the_silence() -> None:
    """A backlog that a broker kept says nothing about now."""
    plant = Plant(1, 2)
    async with acting(plant, silent_for="1 h") as rig:
        await rig.say("north", setpoint=50.0)
        for _ in range(2):
            rig.passes(40 * 60)
            rig.step({"valve": "north", "setpoint": 50.0, "age": 60})
        await eventually(lambda: plant.registers(1, 200) == [200])


async def test_a_row_that_is_too_old_does_not_hide_the_next() -> None:
    """Both may come before either is delivered."""
    plant = Plant(1, 2)
    async with acting(plant) as rig:
        assert rig.step({"valve": "north", "setpoint": 50.0, "age": 60}) == 1
        assert rig.step({"valve": "north", "setpoint": 50.0}) == 1
        assert (await rig.deliver()).rejected == {0: "north: expired: older than 10 s"}
        assert plant.registers(1, 200) == [500]


async def test_a_row_that_waited_longer_than_the_silence_is_not_done() -> None:
    """The safe value came meanwhile, and is not undone by what was said before it."""
    plant = Plant(1, 2)
    async with acting(plant, silent_for="1 h") as rig:
        rig.step({"valve": "north", "setpoint": 50.0})
        rig.passes(60 * 60)
        await eventually(lambda: plant.registers(1, 200) == [200])
        outcome = await rig.deliver()
        assert outcome.rejected == {0: "north: expired: the input has been silent for 1 h since"}
        assert plant.registers(1, 200) == [200]


async def test_the_stop_writes_safe_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of each unit that answers; the one that does not is not waited for."""
    monkeypatch.setattr(modbus, "STOP_S", 60.0)
    plant = Plant(1, 2)
    async with acting(plant, timeout="1 s") as rig:
        await rig.say("north", setpoint=50.0, open=True)
        await rig.say("south", setpoint=50.0, open=True)
        plant.silent.add(1)
    assert (plant.registers(1, 200), plant.registers(2, 200)) == ([500], [200])
    assert not plant.coil(2, 10)


async def test_at_the_stop_those_that_answer_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not would use up the time of all."""
    monkeypatch.setattr(modbus, "STOP_S", 5.0)
    plant = Plant(1, 2)
    async with acting(plant, timeout="10 s") as rig:
        await rig.say("south", setpoint=50.0)
        plant.silent.add(1)
        rig.made.units["north"].failures = 1
    assert plant.registers(2, 200) == [200]


@pytest.mark.parametrize(("at_start", "holds"), [("safe", [200]), ("hold", [0])])
async def test_the_start(at_start: str, holds: list[int]) -> None:
    """What the units hold is not known; until the first row they hold the safe values, or what they held."""
    plant = Plant(1, 2)
    async with acting(plant, at_start=at_start) as rig:
        await rig.say("south", setpoint=50.0)
        await eventually(lambda: plant.registers(1, 200) == holds)
        assert plant.registers(2, 200) == [500]


async def test_heartbeat_and_refresh() -> None:
    """A counter for the unit's watchdog; what is in force is written again, however old, and nothing else."""
    plant = Plant(1, 2)
    async with acting(plant, heartbeat={"address": 90, "every": "20 ms"}, refresh="50 ms") as rig:
        await rig.say("north", setpoint=50.0)
        rig.wall.now += 3_600 * SECOND
        plant.written.clear()
        await eventually(lambda: len([w for w in plant.written if w[2] == 200]) >= 3)
        beats = [values[0] for unit, _, address, values in plant.written if (unit, address) == (1, 90)]
        await eventually(lambda: any((unit, address) == (2, 90) for unit, _, address, _ in plant.written))
    assert beats == list(range(beats[0], beats[0] + len(beats)))
    assert {tuple(values) for _, _, address, values in plant.written if address == 200} == {(500,), (200,)}
    assert plant.registers(1, 200) == [200]


async def test_a_value_of_several_registers_goes_in_one_request() -> None:
    plant = Plant(1)
    registers = {"setpoint": {"address": 200, "type": "float32", "order": "CDAB"}}
    async with acting(plant, units={"north": 1}, registers=registers) as rig:
        await rig.say("north", setpoint=21.5)
        low_first = struct.unpack(">2H", struct.pack(">f", 21.5))[::-1]
        assert plant.written == [(1, 16, 200, list(low_first))]


async def test_functions_for_units_that_know_no_other() -> None:
    plant = Plant(1, 2)
    async with acting(plant, multiple=True) as rig:
        await rig.say("north", setpoint=21.5, open=True)
    assert {function for _, function, *_ in plant.written} == {15, 16}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"units": {}}, ("units", "name at least one")),
        ({"registers": {}}, ("registers", "name at least one")),
        ({"registers": {"setpont": {"address": 1}}}, ("registers.setpont", 'did you mean "setpoint"?')),
        ({"registers": {"note": {"address": 1}}}, ("registers.note", "only numbers and truths")),
        ({"registers": {"setpoint": {"address": 1, "table": "coil"}}}, ("registers.setpoint", "the field is no bool")),
        ({"registers": {"setpoint": {"address": 1, "table": "input"}}}, ("registers.setpoint.table", "only be read")),
        ({"registers": {"open": {"address": 1, "type": "bool"}}}, ("registers.open.type", "cannot be written")),
        ({"registers": {"setpoint": {"address": 1, "safe": 70_000.0}}}, ("registers.setpoint.safe", "does not fit")),
        (
            {"registers": {"setpoint": {"address": 1, "safe": 1.0, "min": 2.0}}},
            ("registers.setpoint.safe", "below min"),
        ),
        ({"registers": {"setpoint": {"address": 1, "safe": False}}}, ("registers.setpoint.safe", "a number of a")),
        ({"registers": {"setpoint": {"address": 1}}, "silent_for": "1 s"}, ("silent_for", "no register has a safe")),
        ({"where": "setpont > 1"}, ("where", "setpont")),
        ({"url": "http://h"}, ("url", "is not the address of a bus")),
    ],
)
def test_wrong_settings_are_told(given: dict[str, Any], problem: tuple[str, str]) -> None:
    _, problems = sink(**{"url": "tcp://127.0.0.1", **given})
    assert any(setting == problem[0] and problem[1] in text for setting, text in problems), problems
    assert len(problems) == len(set(problems))


PIPELINE = """
[pipeline]
name = "p"
state = "state"
durability = "process"

[server]
listen = "127.0.0.1:{port}"

[sources.plan]
type = "http"
key = "valve"
fields = {{ setpoint = "float?", open = "bool?" }}

[sinks.local]
type = "query_server"
inputs = ["plan"]

[sinks.valves]
type = "modbus"
input = "plan"
url = "{url}"
units = {{ north = 1, south = 2 }}
timeout = "2 s"
retries = 0
registers.setpoint = {{ address = 200, type = "uint16", safe = 20 }}
registers.open = {{ address = 10, table = "coil", safe = false }}
"""


async def test_a_pipeline_that_is_stopped_and_killed(tmp_path: Path) -> None:
    """SIGTERM leaves safe values; kill -9 what was told last, until the pipeline starts again."""
    plant, port = Plant(1, 2), free_port()
    async with plant.over_tcp() as url, aiohttp.ClientSession() as http:
        file = tmp_path / "pipeline.toml"
        file.write_text(PIPELINE.format(port=port, url=url))

        async def tell(**row: Any) -> None:
            async with http.post(f"http://127.0.0.1:{port}/data", data=json.dumps(row)) as answer:
                assert answer.status == 201

        async def delivered() -> bool:
            async with http.get(f"http://127.0.0.1:{port}/api/delivery") as answer:
                return not any(sink["waiting"] for sink in (await answer.json())["sinks"])

        async with Device(file, port) as device:
            await device.start(http)
            await eventually(lambda: plant.registers(1, 200) == [20])
            await tell(valve="north", setpoint=50, open=True)
            await eventually(lambda: plant.coil(1, 10) and plant.registers(1, 200) == [50])
            assert await device.end() == 0
            assert (plant.registers(1, 200), plant.coil(1, 10)) == ([20], False)
            await device.start(http)
            await tell(valve="north", setpoint=51, open=True)
            await eventually(lambda: plant.coil(1, 10) and plant.registers(1, 200) == [51])
            await eventually(delivered)  # else it is told once more after the start
            await device.end(signal.SIGKILL)
            assert (plant.registers(1, 200), plant.coil(1, 10)) == ([51], True)
            await device.start(http)
            await eventually(lambda: plant.registers(1, 200) == [20] and not plant.coil(1, 10))
            plant.silent.add(2)
            await tell(valve="south", setpoint=52)

            async def told() -> bool:
                async with http.get(f"http://127.0.0.1:{port}/health") as answer:
                    return "valves: south: no answer within 2 s" in (await answer.json())["reasons"]

            await eventually(told)
            plant.silent.clear()
            assert await device.end() == 0


def test_the_example_of_the_docstring_is_a_good_sink(tmp_path: Path) -> None:
    doc = (modbus.Modbus.__doc__ or "").split("\n\n", 1)[1].split("\n    The key of a row", 1)[0]
    source = '[sources.plan]\ntype = "http"\nkey = "valve"\nfields = { setpoint = "float", open = "bool" }\n'
    text = '[pipeline]\nname = "p"\n' + source + "\n".join(line.strip() for line in doc.splitlines())
    assert loads(text, tmp_path / "pipeline.toml").problems == []
