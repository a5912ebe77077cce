"""What a register holds: its settings, its value from bytes and back, and neighbours grouped into few requests."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from pipeline.component import Context, Settings
from pipeline.frame import Field
from pipeline.modbus.protocol import MOST_BITS, MOST_REGISTERS, Table
from pipeline.polling import Value

Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]
Type = Literal[
    "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "bool", "string"
]  # fmt: skip

_CODES = {"uint16": "H", "int16": "h", "uint32": "I", "int32": "i", "uint64": "Q", "int64": "q"}
_CODES |= {"float32": "f", "float64": "d"}
_LARGEST = 2**63 - 1  # of a whole number in a stream


class RegisterSettings(Settings, frozen=True, kw_only=True):
    """One value of a unit."""

    address: Annotated[int, Meta(ge=0, description="As it goes over the wire, from 0: 40101 of a manual is 100.")]
    table: Annotated[Table, Meta(description="Which of the unit's four tables it is in.")] = "holding"
    type: Annotated[
        Type | None, Meta(description="What it holds. Absent: uint16; of a coil or discrete input bool.")
    ] = None
    order: Annotated[
        Order | None,
        Meta(description="Order of bytes, A the highest: ABCD big-endian, CDAB low word first. Absent: the source's."),
    ] = None
    bit: Annotated[int | None, Meta(ge=0, le=15, description="Of a bool in a register: which bit, 0 the lowest.")] = (
        None
    )
    length: Annotated[int | None, Meta(ge=1, le=MOST_REGISTERS, description="Registers of a string.")] = None
    scale: Annotated[float, Meta(description="What the number in the register is multiplied by.")] = 1.0
    offset: Annotated[float, Meta(description="What is added after that.")] = 0.0
    missing: Annotated[
        tuple[float, ...], Meta(description="Numbers in the register by which the unit says that there is no value.")
    ] = ()


class Register:
    """A value of a unit, ready to be read and written."""

    def __init__(self, name: str, settings: RegisterSettings, order: Order, context: Context, setting: str) -> None:
        self.name = name
        self.table = settings.table
        self.address = settings.address
        self.in_bits = settings.table in ("coil", "discrete")
        self.type: Type = settings.type or ("bool" if self.in_bits else "uint16")
        self.order: Order = settings.order or order
        self.bit = settings.bit or 0
        self.scale, self.offset = settings.scale, settings.offset
        self.missing = frozenset(settings.missing)
        self.size = 1  # registers, or bits
        if self.type == "string":
            self.size = settings.length or 1
        elif self.type in _CODES:
            self.number = struct.Struct(">" + _CODES[self.type])
            self.size = self.number.size // 2
        self._check(settings, context, setting)

    def _check(self, settings: RegisterSettings, context: Context, setting: str) -> None:
        if self.address + self.size > 65_536:
            table = {0: "coil", 1: "discrete", 3: "input", 4: "holding"}.get(self.address // 100_000)
            hint = f', and 400101 of a manual is address = 100, table = "{table or "holding"}"'
            context.problem(f"{setting}.address", f"goes up to 65535{hint}")
        if self.in_bits and self.type != "bool":
            context.problem(f"{setting}.type", f'a {self.table} is one bit: type = "bool"')
        if self.type == "string" and settings.length is None:
            context.problem(setting, "a string needs its length in registers: length = 8")
        if settings.length is not None and self.type != "string":
            context.problem(f"{setting}.length", f"is of a string; {self.type} has {self.size}")
        if settings.bit is not None and (self.type != "bool" or self.in_bits):
            context.problem(f"{setting}.bit", 'is of a bool in a register: type = "bool"')
        if (self.scale, self.offset) != (1.0, 0.0) and self.type not in _CODES:
            context.problem(f"{setting}.scale", f"is of a number, and this is a {self.type}")
        if not self.scale:
            context.problem(f"{setting}.scale", "must not be 0")

    @property
    def field(self) -> Field:
        """What it is in a stream. It may be absent: a unit answers some requests and not others."""
        if self.type == "bool" or self.type == "string":
            return Field(self.type, True)
        return Field("float" if self._scaled or "float" in self.type else "int", True)

    @property
    def _scaled(self) -> bool:
        return (self.scale, self.offset) != (1.0, 0.0)

    def value(self, data: bytes, at: int) -> Value:
        """The value in an answer; `at`: how many registers (or bits) of it lie before this one."""
        if self.in_bits:
            return bool(data[at // 8] >> (at % 8) & 1)
        raw = data[2 * at : 2 * (at + self.size)]
        if self.type == "string":  # its words are in order; only the two letters in each may be swapped
            letters = reordered(raw, "BADC" if self.order in ("BADC", "DCBA") else "ABCD")
            return letters.split(b"\0")[0].decode(errors="replace").rstrip()
        raw = reordered(raw, self.order)
        if self.type == "bool":
            return bool(int.from_bytes(raw, "big") >> self.bit & 1)
        (number,) = self.number.unpack(raw)
        if number in self.missing or not math.isfinite(number):
            return None
        if self._scaled:
            return scaled(number, self.scale) + self.offset
        return None if self.field.kind == "int" and number > _LARGEST else number

    def data(self, value: float) -> bytes:
        """The registers that hold this value. ValueError: it has no place in them."""
        number = unscaled(value - self.offset, self.scale) if self._scaled else value
        try:
            if not math.isfinite(number):
                raise OverflowError
            raw = self.number.pack(number if "float" in self.type else round(number))
        except (struct.error, OverflowError) as error:
            raise ValueError(f"{value!r} does not fit into {self.type}") from error
        return reordered(raw, self.order)


def reordered(raw: bytes, order: Order) -> bytes:
    """Bytes in this order as big-endian ones, and back: each order undoes itself."""
    if order == "DCBA":
        return raw[::-1]
    if order == "BADC":
        return b"".join(raw[i : i + 2][::-1] for i in range(0, len(raw), 2))
    if order == "CDAB":
        return b"".join(raw[i : i + 2] for i in range(len(raw) - 2, -1, -2))
    return raw


def scaled(number: float, scale: float) -> float:
    """`number * scale`; by a tenth, as a division by 10, which gives 0.3 and not 0.30000000000000004."""
    parts = _parts(scale)
    return number / parts if parts else number * scale


def unscaled(number: float, scale: float) -> float:
    parts = _parts(scale)
    return number * parts if parts else number / scale


def _parts(scale: float) -> int:
    """10 for a tenth, 100 for a hundredth, …; 0 for what is no such part of one."""
    parts = round(1 / scale) if 1e-12 < abs(scale) < 1 else 0
    return parts if parts and abs(1 / scale - parts) < 1e-9 * abs(parts) else 0


# --- requests -------------------------------------------------------------------------------------------------------


class Request(NamedTuple):
    """Neighbouring registers that are read in one go."""

    table: Table
    address: int
    size: int
    registers: tuple[Register, ...]

    def halves(self) -> list[Request]:
        """The same in two requests, each without what lies beside its own registers."""
        middle = len(self.registers) // 2
        return [_request(self.registers[:middle]), _request(self.registers[middle:])]


def grouped(registers: Iterable[Register], max_gap: int, max_registers: int = MOST_REGISTERS) -> list[Request]:
    """Few requests that read all of them: none longer than allowed, none over more than `max_gap` that nobody wants."""
    found: list[list[Register]] = []
    end = 0  # of the last group
    for register in sorted(registers, key=lambda r: (r.table, r.address, r.size)):
        most = MOST_BITS if register.in_bits else max_registers
        if found:
            first = found[-1][0]
            longer = max(end, register.address + register.size)
            near = first.table == register.table and register.address - end <= max_gap
            if near and longer - first.address <= most:
                found[-1].append(register)
                end = longer
                continue
        found.append([register])
        end = register.address + register.size
    return [_request(group) for group in found]


def _request(registers: Sequence[Register]) -> Request:
    first = registers[0]
    size = max(r.address + r.size for r in registers) - first.address
    return Request(first.table, first.address, size, tuple(registers))
