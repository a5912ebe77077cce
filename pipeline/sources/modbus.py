"""`modbus`: the registers of field devices, over TCP or a serial line."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta

from pipeline.component import Inbox, Settings, SourceContext
from pipeline.frame import Field, Schema
from pipeline.modbus import protocol
from pipeline.modbus.bus import Bus, BusSettings, patience, shared, where
from pipeline.modbus.protocol import Garbled, Refusal
from pipeline.modbus.registers import Order, Register, RegisterSettings, Request, grouped
from pipeline.polling import PolledSource, Reading, Value, due_after
from pipeline.quantity import Duration, duration
from pipeline.reconnect import Connection, pause

log = logging.getLogger("headwater")


class UnitSettings(Settings, frozen=True, kw_only=True):
    """A unit with registers of its own."""

    id: Annotated[int, Meta(ge=0, le=255, description="Its number on the bus.")]
    registers: Annotated[dict[str, RegisterSettings], Meta(description="What it holds, by the names of the fields.")]


class ModbusSettings(BusSettings, frozen=True, kw_only=True):
    units: Annotated[
        dict[str, Annotated[int, Meta(ge=0, le=255)] | UnitSettings],
        Meta(description="Names of the units, each with its number, or a table with `id` and `registers` of its own."),
    ]
    registers: Annotated[
        dict[str, RegisterSettings], Meta(description="What each unit holds, by the names of the fields.")
    ] = {}
    every: Annotated[Duration, Meta(ge=1_000_000, description="How often each unit is read.")] = duration("1 s")
    order: Annotated[
        Order, Meta(description="Order of bytes where a register does not say: ABCD, CDAB, BADC or DCBA.")
    ] = "ABCD"
    key: Annotated[str, Meta(min_length=1, description="What the unit's name is called in a reading.")] = "unit"
    max_gap: Annotated[
        int, Meta(ge=0, le=125, description="Registers that nobody wants, and that are read to save a request.")
    ] = 8
    max_registers: Annotated[
        int, Meta(ge=1, le=protocol.MOST_REGISTERS, description="Registers in one request at most, for small devices.")
    ] = protocol.MOST_REGISTERS


class Modbus(PolledSource):
    """Registers of field devices: meters, drives, sensors, controllers.

        [sources.plant]
        type = "modbus"
        url = "tcp://192.168.1.20:502"
        every = "1 s"
        units = { pump = 1, fan = 2 }

        [sources.plant.registers]
        flow = { address = 100, type = "float32", order = "CDAB" }
        pressure = { address = 102, type = "int16", scale = 0.1 }
        running = { address = 5, table = "discrete" }

    Each unit gives a reading every `every`, with its name as key and all registers as fields, dated by its arrival. A field
    is missing where its unit has no such register, or did not tell it; so is a float that is not a number, and what
    `missing` names. Several buses are several sources; two sources may read one bus at different paces.
    `url`: tcp://host:502; tls://host:802; rtu:///dev/ttyUSB0 (a serial line, needs `headwater[modbus]`);
    rtu+tcp://host:port for a gateway that hands the serial line through. Sources and sinks of one url share one connection.
    Neighbouring registers are read in one request, over gaps of at most `max_gap`. A unit that refuses one is asked for its
    halves, down to the register that it does not have: that one is missing, the others come.
    A unit that is silent costs its own readings only: it is told on /health and once in NAME.invalid, and asked again
    with growing pauses. If all are silent, the connection is made anew.
    In a test, fields that a row does not name are missing.
    At the limit: while the inbox is full nothing is read; polls that were missed are not made up for.
    """

    def __init__(self, settings: ModbusSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        self.where = where(settings, context)
        self.patience = patience(settings)
        self.random = random.Random()
        if not settings.units:
            context.problem("units", "name at least one: units = { pump = 1 }")
        common = self._registers(settings.registers, "registers")
        self.maps: dict[str, tuple[int, list[Register]]] = {}
        for name, unit in settings.units.items():
            if isinstance(unit, UnitSettings):
                self.maps[name] = (unit.id, self._registers(unit.registers, f"units.{name}.registers"))
            else:
                self.maps[name] = (unit, common)
        self.schema = Schema(settings.key, self._fields())

    def _registers(self, given: Mapping[str, RegisterSettings], setting: str) -> list[Register]:
        made = [Register(n, s, self.settings.order, self.context, f"{setting}.{n}") for n, s in given.items()]
        for register in made:
            if register.name in (self.settings.key, "time"):
                self.context.problem(f"{setting}.{register.name}", "is the key or the time; give it another name")
            if not register.in_bits and register.size > self.settings.max_registers:
                self.context.problem(
                    f"{setting}.{register.name}", f"has {register.size} registers, more than max_registers"
                )
        return made

    def _fields(self) -> dict[str, Field]:
        fields: dict[str, Field] = {}
        for name, (_, registers) in self.maps.items():
            if not registers:
                self.context.problem(
                    "registers", f'"{name}" has none; name them: registers = {{ flow = {{ address = 100 }} }}'
                )
            for register in registers:
                if fields.setdefault(register.name, register.field) != register.field:
                    kinds = f"{fields[register.name].kind} and {register.field.kind}"
                    self.context.problem(f"units.{name}.registers.{register.name}", f"is {kinds}: one field, one type")
        return fields

    async def run(self, inbox: Inbox, position: Any) -> None:
        bus = shared(self.where)
        try:
            connection = Connection(self, self.where.url, (Garbled,), random_=self.random)
            units = [Unit(name, *of, self) for name, of in self.maps.items()]
            await connection.keep(lambda: self._session(bus, units, connection, inbox))
        finally:
            await bus.leave()

    async def _session(self, bus: Bus, units: list[Unit], connection: Connection, inbox: Inbox) -> None:
        """Poll until the connection is lost, or no unit answers any more."""
        loop = asyncio.get_running_loop()
        await bus.connect()
        for unit in units:
            unit.awake()
        every = self.settings.every.seconds
        due, heard = loop.time(), False
        while True:
            answered = False
            for unit in units:
                if unit.rests_until <= loop.time():
                    reading = await unit.poll(bus)
                    answered |= unit.answers
                    if reading.values is not None or reading.trouble:
                        await inbox.put(reading.payload())
            if not any(unit.answers for unit in units):
                await bus.reset()
                raise TimeoutError("; ".join(unit.trouble for unit in units))
            if answered and not heard:
                heard = True
                connection.up()
            self.trouble = "; ".join(unit.trouble for unit in units if unit.trouble)
            due = due_after(due, loop.time(), every)
            await asyncio.sleep(due - loop.time())

    def devices(self) -> Sequence[str]:
        return list(self.maps)


class Unit:
    """One unit as it is polled: its requests as they have proved to be answered, and what is wrong with it."""

    def __init__(self, name: str, number: int, registers: Sequence[Register], source: Modbus) -> None:
        self.name = name
        self.number = number
        self.source = source
        self.random = source.random
        self.requests = grouped(registers, source.settings.max_gap, source.settings.max_registers)
        self.answers = False
        self.trouble = ""
        self.failures = 0  # in a row
        self.rests_until = 0.0  # loop time

    def awake(self) -> None:
        """The connection is new: it is asked at once, whatever was before."""
        self.rests_until = 0.0

    async def poll(self, bus: Bus) -> Reading:
        """All its registers. OSError: the connection is lost."""
        values: dict[str, Value] = {}
        wrong: list[str] = []
        self.answers = False
        try:
            self.requests = [r for request in self.requests for r in await self._ask(bus, request, values, wrong)]
        except (TimeoutError, Garbled) as error:
            # What it has told before it fell silent is good; the rest would only keep the others waiting.
            wrong.append(str(error))
        if self.answers:
            self.failures = 0
        else:
            self.failures += 1
            self.rests_until = asyncio.get_running_loop().time() + pause(self.failures, self.random)
        before, self.trouble = self.trouble, f"{self.name}: {', '.join(wrong)}" if wrong else ""
        begun = self.trouble if self.trouble != before else ""
        if begun:
            log.warning("%s: %s", self.source.context.name, begun)
        elif before and not self.trouble:
            log.warning("%s: %s answers again", self.source.context.name, self.name)
        return Reading(self.name, values or None, begun)

    async def _ask(self, bus: Bus, request: Request, values: dict[str, Value], wrong: list[str]) -> list[Request]:
        """The values of one request; how it is better asked from now on."""
        asked = protocol.read(request.table, request.address, request.size)
        try:
            data = await bus.ask(self.number, asked, self.source.patience)
        except Refusal as refusal:
            self.answers |= refusal.code not in (10, 11)  # these are a gateway's word of a unit that is away
            if refusal.code in (1, 2, 3) and len(request.registers) > 1:
                return [r for half in request.halves() for r in await self._ask(bus, half, values, wrong)]
            wrong.append(f"{', '.join(r.name for r in request.registers)}: {refusal}")
            return [request]
        self.answers = True
        for register in request.registers:
            values[register.name] = register.value(data, register.address - request.address)
        return [request]
