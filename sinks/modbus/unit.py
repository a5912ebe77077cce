"""One unit that is told what to do: what each of its registers shall hold, and the task that sees to it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.modbus.bus import Bus, Patience
from pipeline.modbus.protocol import Garbled, Refusal, write_coil, write_registers
from pipeline.modbus.registers import Register
from pipeline.quantity import Duration
from pipeline.reconnect import pause

if TYPE_CHECKING:
    from pipeline.component import Context
    from sinks.modbus import HeartbeatSettings, OutputSettings

log = logging.getLogger("headwater")

LONGEST_PAUSE_S = 5.0  # between tries of a unit that is silent: what is to be done must not wait long once it is back
FOR_GOOD = (1, 2, 3)  # refusals that will be the same next time: no such function, address, value

Said = float | bool | str  # a value as a stream has it


class Command(NamedTuple):
    """A value that a register shall hold from now on."""

    value: Said
    seq: int  # arrival of the row that says so
    until: int | None  # wall clock, ns: later than that it is not begun any more; None: whenever it can be
    fate: asyncio.Future[str] | None = None  # "" when it was done, or a newer one took its place; else why not

    def ends(self, why: str = "") -> None:
        if self.fate is not None and not self.fate.done():
            self.fate.set_result(why)


class Output:
    """A register or coil that is written, and what it shall hold."""

    def __init__(self, register: Register, settings: OutputSettings, multiple: bool) -> None:
        self.register = register
        self.name = register.name
        self.safe = settings.safe
        self.least, self.most = settings.min, settings.max
        self.multiple = multiple
        self.command: Command | None = None  # the newest; None: it is left as it is
        self.done = False  # the unit has confirmed it

    def request(self, value: Said) -> bytes:
        """ValueError: it may not, or cannot, hold this."""
        if self.least is not None and value < self.least:  # type: ignore[operator]
            raise ValueError(f"{value!r} is below min = {self.least:g}")
        if self.most is not None and value > self.most:  # type: ignore[operator]
            raise ValueError(f"{value!r} is above max = {self.most:g}")
        if self.register.in_bits:
            return write_coil(self.register.address, bool(value), multiple=self.multiple)
        return write_registers(self.register.address, self.register.data(value), multiple=self.multiple)  # type: ignore[arg-type]

    def take(self, command: Command) -> None:
        """In the place of an older one."""
        if self.command is not None:
            if command.seq < self.command.seq:
                command.ends()
                return
            self.command.ends()
        self.command, self.done = command, False


class Unit:
    """What a unit shall do, and the task that has it done."""

    def __init__(
        self,
        name: str,
        number: int,
        outputs: Sequence[Output],
        *,
        patience: Patience,
        silent_for: Duration | None,
        refresh: Duration | None,
        heartbeat: HeartbeatSettings | None,
        wall: Callable[[], int],
        shown: Callable[[], None],
        context: Context,
    ) -> None:
        self.name = name
        self.number = number
        self.outputs = {output.name: output for output in outputs}
        self.patience = patience
        self.silent_for = silent_for.seconds if silent_for else None
        self.refresh = refresh.seconds if refresh else None
        self.heartbeat = heartbeat
        self.wall = wall
        self.shown = shown  # called when `trouble` is another
        self.context = context
        self.random = random.Random()
        self.said: dict[str, Said] = {}  # what the newest rows said, so that only changes are commands
        self.heard: float | None = None  # loop time of the newest row, or of the start
        self.silent = False  # its input was, and safe values are in force
        self.trouble = ""
        self.failures = 0  # in a row
        self.beats = 0
        self._more = asyncio.Event()
        self._seq = -1  # of the newest command

    # --- what it shall do ---

    def hear(self, now: float) -> None:
        """A row has come that is not too old."""
        self.heard, self.silent = now, False

    def deaf(self, now: float) -> bool:
        """Nothing was heard for longer than may be."""
        return self.silent_for is not None and self.heard is not None and now - self.heard >= self.silent_for

    def tell(self, name: str, command: Command) -> None:
        self._seq = max(self._seq, command.seq)
        self.outputs[name].take(command)
        self._more.set()

    def forget(self, names: Iterable[str]) -> None:
        """What rows said of these was not done: the next row is news even if it says the same."""
        for name in names:
            self.said.pop(name, None)

    def make_safe(self) -> None:
        """The safe values are in force; what has none is left as it is, and is not told what it was to be told."""
        self.said.clear()
        for output in self.outputs.values():
            if output.safe is not None:
                output.take(Command(output.safe, self._seq, None))
            elif output.command is not None and not output.done:
                output.command.ends("the input is silent")
                output.command = None
        self._more.set()

    # --- having it done ---

    async def run(self, bus: Bus) -> None:
        loop = asyncio.get_running_loop()
        self.heard = loop.time() if self.heard is None else self.heard
        beat = loop.time() if self.heartbeat else None
        fresh = loop.time() + self.refresh if self.refresh else None
        while True:
            self._more.clear()
            now = loop.time()
            if self.deaf(now) and not self.silent:
                self.silent = True
                log.warning(
                    "%s: %s: its input has been silent for %g s: safe values", self.context.name, self.name,
                    self.silent_for,
                )  # fmt: skip
                self.make_safe()
            if fresh is not None and self.refresh and now >= fresh:
                fresh = now + self.refresh
                for output in self.outputs.values():
                    output.done = False
            self._expire()
            try:
                await self.write(bus)
                if beat is not None and self.heartbeat and now >= beat:
                    beat = now + self.heartbeat.every.seconds
                    await self._beat(bus, self.heartbeat)
                self._well()
            except (OSError, Garbled) as error:
                self._failed(str(error) or type(error).__name__)
                await asyncio.sleep(min(pause(self.failures, self.random), LONGEST_PAUSE_S))
                continue
            await self._until(self._next(beat, fresh))

    async def write(self, bus: Bus) -> None:
        """All that is not done. OSError, Garbled: not all of it could be; it is to be tried again."""
        later: ConnectionError | None = None
        for output in self.outputs.values():
            command = output.command
            if command is None or output.done:
                continue
            try:
                await bus.ask(self.number, output.request(command.value), self.patience)
            except Refusal as refusal:
                why = f"{output.name} = {command.value!r}: {refusal}"
                if refusal.code in FOR_GOOD:
                    self._refused(output, command, why)
                else:
                    later = ConnectionError(why)
                continue
            if output.command is command:
                output.command = command._replace(until=None, fate=None)  # it is in force, however old it gets
                output.done = True
            command.ends()
        if later is not None:
            raise later

    def _refused(self, output: Output, command: Command, why: str) -> None:
        """The unit holds on to what it had; it is asked again when rows say something else."""
        command.ends(why)
        if output.command is command:
            output.command = None
        log.warning("%s: %s: %s", self.context.name, self.name, why)

    def _expire(self) -> None:
        """What should have been done by now is not done any more: the safe value takes its place."""
        now = self.wall()
        for output in self.outputs.values():
            command = output.command
            if command is None or output.done or command.until is None or command.until > now:
                continue
            why = f"{output.name} = {command.value!r}: expired, it could not be written in time"
            log.warning("%s: %s: %s", self.context.name, self.name, why)
            command.ends(why)
            self.said.pop(output.name, None)
            output.command = None if output.safe is None else Command(output.safe, command.seq, None)

    async def _beat(self, bus: Bus, settings: HeartbeatSettings) -> None:
        self.beats = (self.beats + 1) & 0xFFFF
        if settings.table == "coil":
            request = write_coil(settings.address, bool(self.beats & 1))
        else:
            request = write_registers(settings.address, self.beats.to_bytes(2, "big"))
        try:
            await bus.ask(self.number, request, self.patience)
        except Refusal as refusal:
            raise ConnectionError(f"heartbeat: {refusal}") from refusal

    def _next(self, beat: float | None, fresh: float | None) -> float | None:
        """Loop time at which there is something to do even if nothing comes."""
        due = [time for time in (beat, fresh) if time is not None]
        if self.silent_for is not None and self.heard is not None and not self.silent:
            due.append(self.heard + self.silent_for)
        return min(due) if due else None

    async def _until(self, time: float | None) -> None:
        try:
            async with asyncio.timeout_at(time):
                await self._more.wait()
        except TimeoutError:
            pass

    def _failed(self, why: str) -> None:
        self.failures += 1
        if why != self.trouble.partition(": ")[2]:
            log.warning("%s: %s: %s; trying again", self.context.name, self.name, why)
        self.trouble = f"{self.name}: {why}"
        self.shown()

    def _well(self) -> None:
        if self.trouble:
            log.warning("%s: %s answers again", self.context.name, self.name)
            self.trouble = ""
            self.shown()
        self.failures = 0


def fates(commands: Sequence[tuple[int, Command]]) -> dict[int, str]:
    """By row: why its commands will not be done, as far as that is known."""
    found: dict[int, list[str]] = {}
    for row, command in commands:
        if command.fate is not None and command.fate.done() and (why := command.fate.result()):
            found.setdefault(row, []).append(why)
    return {row: "; ".join(whys) for row, whys in found.items()}


def plain(value: Any) -> Said:
    """A value of a column as Python has it."""
    made: Said = value.item() if hasattr(value, "item") else value
    return made
