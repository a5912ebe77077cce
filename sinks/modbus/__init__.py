"""`modbus`: what rows say is written to the registers of field devices, with safe values for when nobody says anything."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from msgspec import Meta

from pipeline.component import Batch, Outcome, Settings, SinkContext, StepWrites
from pipeline.delivering import BatchSettings, BufferSettings, DeliveringSettings, DeliveringSink
from pipeline.frame import Frame
from pipeline.modbus.bus import Bus, BusSettings, patience, shared, where
from pipeline.modbus.protocol import Garbled
from pipeline.modbus.registers import Order, Register, RegisterSettings
from pipeline.problem import did_you_mean
from pipeline.quantity import Duration, Size, duration
from sinks.modbus.unit import Command, Output, Unit, fates, plain

if TYPE_CHECKING:
    from pipeline.frame import Bools

log = logging.getLogger("headwater")

STOP_S = 3.0  # how long the safe values may take at the stop: of all units that answer, then of all others
BUFFER = BufferSettings(size=Size(10_000_000))
AT_ONCE = BatchSettings(rows=500, wait=Duration(0))


class OutputSettings(RegisterSettings, frozen=True, kw_only=True):
    """A register or coil that is written."""

    safe: Annotated[
        float | bool | None, Meta(description="What it holds when nobody says anything. Absent: as it was.")
    ] = None
    min: Annotated[float | None, Meta(description="A row that says less is refused.")] = None
    max: Annotated[float | None, Meta(description="A row that says more is refused.")] = None


class HeartbeatSettings(Settings, frozen=True, kw_only=True):
    """A register by which the unit can see that this pipeline lives."""

    address: Annotated[int, Meta(ge=0, le=65_535, description="Where it is.")]
    table: Annotated[Literal["holding", "coil"], Meta(description="A register counts up, a coil goes on and off.")] = (
        "holding"
    )
    every: Annotated[Duration, Meta(ge=10_000_000, description="How often it is written.")] = duration("1 s")


class ModbusSettings(BusSettings, frozen=True, kw_only=True):
    units: Annotated[
        dict[str, Annotated[int, Meta(ge=0, le=255)]],
        Meta(description="Units by the keys of the rows that are for them; rows of other keys are passed over."),
    ]
    registers: Annotated[dict[str, OutputSettings], Meta(description="What is written, by the names of fields.")]
    order: Annotated[Order, Meta(description="Order of bytes where a register does not say.")] = "ABCD"
    where: Annotated[str | None, Meta(description="What must be true of a row to be obeyed. Absent: all are.")] = None
    expires: Annotated[Duration, Meta(gt=0, description="A row older than that is not obeyed any more.")] = duration(
        "10 s"
    )
    silent_for: Annotated[
        Duration | None, Meta(gt=0, description="Safe values are written after so long without a row. Absent: never.")
    ] = None
    at_start: Annotated[
        Literal["safe", "hold"], Meta(description="Until the first row: safe values, or what the units hold.")
    ] = "safe"
    refresh: Annotated[
        Duration | None, Meta(ge=10_000_000, description="How often what is in force is written again. Absent: never.")
    ] = None
    heartbeat: Annotated[
        HeartbeatSettings | None, Meta(description="A sign of life for the watchdog of each unit.")
    ] = None
    multiple: Annotated[
        bool, Meta(description="Write single registers by function 16, and coils by 15: for units that know no other.")
    ] = False


class Modbus(DeliveringSink):
    """Write to field devices what rows say: setpoints, relays, signal plans.

        [sinks.valves]
        type = "modbus"
        input = "plan"
        url = "tcp://192.168.1.20:502"
        units = { north = 1, south = 2 }
        expires = "5 s"
        silent_for = "30 s"
        heartbeat = { address = 90, every = "1 s" }

        [sinks.valves.registers]
        setpoint = { address = 200, type = "float32", safe = 20.0, min = 5.0, max = 60.0 }
        open = { address = 10, table = "coil", safe = false }

    The key of a row names the unit, its fields the registers; a missing field changes nothing. Only what changes is written,
    and of several rows that wait only the newest. A value of several registers goes in one request.
    Refused, and a dead letter: a value beyond `min`, `max` or the register's type (nothing is ever cut to fit), a row older
    than `expires`, and what the unit refuses.
    Safe values are written when the pipeline stops (SIGTERM, a reload, the end of its input), when a unit's input is silent
    for `silent_for`, at the start until the first row (`at_start`), and in the place of a command that ran out.
    Silent means that no row for the unit comes, whatever it says; behind `changes` let that repeat at times.
    Delivery: a row is obeyed once it is durable, and counts as delivered when it was done, or when a unit that does not
    answer will do it if it is back in time. That unit holds up no other; /health names it.
    Limits: after kill -9 or a power cut nobody writes safe values: the unit holds what it was told last until the pipeline
    starts again. If that may not be, let the unit's own watchdog look at `heartbeat` or `refresh`, which end with the
    process. A heartbeat says that the process lives, not that its input does. A unit that was switched off and on is told
    again at the next change, or by `refresh`. This is no safety function: what must never happen is to be prevented in the
    unit or by wiring. No two pipelines may write to the same register.
    """

    def __init__(self, settings: ModbusSettings, context: SinkContext) -> None:
        super().__init__(DeliveringSettings(where=settings.where, batch=AT_ONCE, buffer=BUFFER), context)
        self.settings = settings
        self.at = where(settings, context)
        self.bus: Bus | None = None  # while it runs
        wall = context.clock.wall if context.clock else time.time_ns
        self.wall = wall
        self.units = {
            name: Unit(
                name, number, self._outputs(first=name == next(iter(settings.units))), patience=patience(settings),
                silent_for=settings.silent_for, refresh=settings.refresh, heartbeat=settings.heartbeat, wall=wall, shown=self._show,
                context=context,
            )
            for name, number in settings.units.items()
        }  # fmt: skip
        self._by_code: dict[int, Unit | None] = {}
        self._check()
        if settings.at_start == "safe":
            for unit in self.units.values():
                unit.make_safe()

    # --- settings ---

    def _outputs(self, *, first: bool) -> list[Output]:
        """Those of one unit; what is wrong with them is told once."""
        context = self.context if first else SinkContext("", {}, self.context.keys)
        made = []
        for name, settings in self.settings.registers.items():
            setting = f"registers.{name}"
            register = Register(name, settings, self.settings.order, context, setting)
            output = Output(register, settings, self.settings.multiple)
            if settings.table in ("input", "discrete"):
                context.problem(f"{setting}.table", f'"{settings.table}" can only be read; write "holding" or "coil"')
            elif register.type == "string" or (register.type == "bool" and not register.in_bits):
                context.problem(
                    f"{setting}.type", f"a {register.type} in a register cannot be written; use a number, or a coil"
                )
            elif settings.safe is not None and (why := _unfit(output, settings.safe)):
                context.problem(f"{setting}.safe", why)
            made.append(output)
        return made

    def _check(self) -> None:
        settings, context = self.settings, self.context
        if not settings.units:
            context.problem("units", "name at least one: units = { valve = 1 }")
        if not settings.registers:
            context.problem("registers", "name at least one: registers = { setpoint = { address = 200 } }")
        for name, output in settings.registers.items():
            kinds = {s.fields[name].kind for s in context.inputs.values() if name in s.fields}
            known = [field for schema in context.inputs.values() for field in schema.fields]
            if not kinds:
                context.problem(f"registers.{name}", f"no input has this field{did_you_mean(name, known)}")
            elif kinds & {"string", "time"}:
                context.problem(f"registers.{name}", "is a text or a time: only numbers and truths can be written")
            elif output.table == "coil" and kinds != {"bool"}:
                context.problem(f"registers.{name}", "is a coil, and the field is no bool; make one with derive")
        if len(settings.units) > 1 and any(schema.key is None for schema in context.inputs.values()):
            context.problem("units", "an input has no key, so nothing says which unit is meant: name one unit only")
        if settings.silent_for and all(output.safe is None for output in settings.registers.values()):
            context.problem("silent_for", "no register has a safe value: add safe = …")

    # --- rows ---

    def write(self, stream: str, frame: Frame, writes: StepWrites) -> None:
        if stream in self.where:
            frame = frame.where(self.where[stream].holds(frame))
        if len(frame):
            frame = frame.where(self._commands(frame))
        if len(frame):
            writes.enqueue(self.context.name, stream, frame, keep=False)

    def _commands(self, frame: Frame) -> Bools:
        """The rows that change something: of each unit and field the newest of this step, if it says something new."""
        keep = np.zeros(len(frame), np.bool_)
        now, oldest = asyncio.get_running_loop().time(), frame.clock - self.settings.expires
        for code in np.unique(frame.key).tolist():
            if (unit := self._unit(code)) is None:
                continue
            rows = np.flatnonzero(frame.key == code)
            if bool((frame.time[rows] >= oldest).any()):
                unit.hear(now)
            for name in unit.outputs.keys() & frame.columns.keys():
                column = frame[name]
                there = rows if column.present is None else rows[column.present[rows]]
                if not len(there):
                    continue
                newest = int(there[-1])
                value = plain(column.values[newest])
                if unit.said.get(name) != value:
                    keep[newest] = True
                    if frame.time[newest] >= oldest:
                        unit.said[name] = value
        return keep

    def _unit(self, code: int) -> Unit | None:
        if code not in self._by_code:
            name = self.context.keys.names[code]
            self._by_code[code] = next(iter(self.units.values())) if name == "" else self.units.get(name)
        return self._by_code[code]

    async def deliver(self, batch: Batch) -> Outcome:
        """Hand each row's values to its unit, and wait for what becomes of them if the unit is not known to be away."""
        commands: list[tuple[int, Command]] = []
        rejected: dict[int, str] = {}
        awaited = []
        for row, frame, at in _by_arrival(batch):
            unit = self._unit(int(frame.key[at]))
            if unit is None:
                continue
            given, why = self._of_row(unit, frame, at)
            if why:
                rejected[row] = f"{unit.name}: {why}"
            for name, command in given.items():
                unit.tell(name, command)
                commands.append((row, command))
                if not unit.failures and command.fate is not None:
                    awaited.append(command.fate)
        if awaited:
            await asyncio.wait(awaited, timeout=self._patience())
        return Outcome(delivered=True, rejected=rejected | fates(commands))

    def _of_row(self, unit: Unit, frame: Frame, at: int) -> tuple[dict[str, Command], str]:
        """The commands of a row; or none, and why nothing of it is done."""
        loop, until = asyncio.get_running_loop(), int(frame.time[at]) + self.settings.expires
        values = {
            name: plain(frame[name].values[at])
            for name in unit.outputs
            if name in frame.columns and bool(frame[name].known()[at])
        }
        if why := self._too_late(unit, until):
            unit.forget(values)
            return {}, why
        for name, value in values.items():
            try:
                unit.outputs[name].request(value)
            except ValueError as error:
                unit.forget(values.keys() - {name})
                return {}, f"{name}: {error}"
        seq = int(frame.seq[at])
        return {name: Command(value, seq, until, loop.create_future()) for name, value in values.items()}, ""

    def _too_late(self, unit: Unit, until: int) -> str:
        if until <= self.wall():
            return f"expired: older than {self.settings.expires}"
        if unit.deaf(asyncio.get_running_loop().time()):
            return f"expired: the input has been silent for {self.settings.silent_for} since"
        return ""

    def _patience(self) -> float:
        """Seconds that a unit may take that answers: others have the bus meanwhile."""
        return 1.0 + 2 * self.settings.timeout.seconds * (1 + self.settings.retries)

    # --- units ---

    def _show(self) -> None:
        self.trouble = "; ".join(unit.trouble for unit in self.units.values() if unit.trouble)

    async def run(self) -> None:
        self.bus = shared(self.at)
        async with asyncio.TaskGroup() as group:
            for unit in self.units.values():
                group.create_task(unit.run(self.bus))

    async def close(self) -> None:
        if self.bus is None:
            return
        bus, self.bus = self.bus, None
        for unit in self.units.values():
            unit.make_safe()
        # Those that answer first: each that does not keeps the bus until its time is over.
        for ill in (False, True):
            some = [unit for unit in self.units.values() if bool(unit.failures) is ill]
            for why in filter(None, await asyncio.gather(*(self._last_words(unit, bus) for unit in some))):
                log.error("%s: %s", self.context.name, why)
        await bus.leave()

    async def _last_words(self, unit: Unit, bus: Bus) -> str:
        """Its safe values; why that was not possible."""
        # Asked twice: the answer to what was under way may come in the place of the first.
        unit.patience = unit.patience._replace(retries=max(1, unit.patience.retries))
        try:
            async with asyncio.timeout(STOP_S):
                await unit.write(bus)
        except (OSError, Garbled) as error:
            if any(output.safe is not None for output in unit.outputs.values()):
                return f"{unit.name}: safe values could not be written at the stop: {error or 'no time was left'}"
        return ""


def _unfit(output: Output, value: float | bool) -> str:
    """Why this register cannot hold it; "": it can."""
    if output.register.in_bits is not isinstance(value, bool):
        return "is true or false of a coil, and a number of a register"
    try:
        output.request(value)
    except ValueError as error:
        return str(error)
    return ""


def _by_arrival(batch: Batch) -> list[tuple[int, Frame, int]]:
    """Each row's place in the batch, its Frame and its place in that, in the order in which the rows arrived."""
    found: list[tuple[int, Frame, int]] = []
    for _, frame in batch.parts:
        before = len(found)
        found += [(before + i, frame, i) for i in range(len(frame))]
    return sorted(found, key=lambda row: int(row[1].seq[row[2]]))
