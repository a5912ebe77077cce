"""A plant of field devices for tests: the server of pymodbus, over TCP or a serial line, whose devices can fall silent."""

from __future__ import annotations

import asyncio
import logging
import shutil
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from tests.device import free_port

SIZE = 300  # registers and bits of each table

logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)


class Plant:
    """Devices by number, each with four tables of `SIZE`."""

    def __init__(self, *numbers: int) -> None:
        self.silent: set[int] = set()
        self.refuses: dict[int, set[int]] = {n: set() for n in numbers}  # addresses of registers that a device lacks
        self.unreached: set[int] = set()  # devices that a gateway does not reach
        self.connections = 0
        self.refuses_writes: dict[int, set[int]] = {n: set() for n in numbers}
        self.asked: list[tuple[int, int, int, int]] = []  # device, function, address, count
        self.written: list[tuple[int, int, int, list[Any]]] = []  # device, function, address, values
        self.devices = [self._device(n) for n in numbers]
        self.server: Any = None

    def _device(self, number: int) -> SimDevice:
        bits = [SimData(0, count=SIZE, values=[False], datatype=DataType.BITS)]
        words = [SimData(0, count=SIZE, values=0, datatype=DataType.REGISTERS)]

        async def action(function: int, first: int, address: int, count: int, now: Any, values: Any) -> ExcCodes | None:
            if values is None:
                self.asked.append((number, function, address, count))
            if number in self.silent:
                await asyncio.Event().wait()
            if number in self.unreached:
                return ExcCodes.GATEWAY_NO_RESPONSE
            if function in (3, 4) and self.refuses[number] & set(range(address, address + count)):
                return ExcCodes.ILLEGAL_ADDRESS
            if values is not None:
                if address in self.refuses_writes[number]:
                    return ExcCodes.ILLEGAL_ADDRESS
                self.written.append((number, function, address, list(values)))
            return None

        return SimDevice(number, simdata=(bits, bits, words, words), action=action)

    def _table(self, number: int, table: str) -> list[int]:
        found: list[int] = self.server.context.devices[number].block[table][2]
        return found

    def put(self, number: int, address: int, data: bytes, table: str = "h") -> None:
        """Registers, big-endian; `table`: h or i."""
        words = struct.unpack(f">{len(data) // 2}H", data)
        self._table(number, table)[address : address + len(words)] = words

    def put_bit(self, number: int, address: int, on: bool, table: str = "d") -> None:
        word = self._table(number, table)
        word[address // 16] = word[address // 16] & ~(1 << address % 16) | on << address % 16

    def registers(self, number: int, address: int, count: int = 1) -> list[int]:
        return self._table(number, "h")[address : address + count]

    async def polled(self, times: int, seconds: float) -> None:
        """Until it was asked so often from now on, or so long."""
        before, until = len(self.asked), asyncio.get_running_loop().time() + seconds
        while len(self.asked) < before + times and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.005)

    def coil(self, number: int, address: int) -> bool:
        return bool(self._table(number, "c")[address // 16] >> address % 16 & 1)

    @asynccontextmanager
    async def over_tcp(self, port: int | None = None) -> AsyncIterator[str]:
        """Its url. With `port` it comes back where it was."""
        port = free_port() if port is None else port
        self.server = ModbusTcpServer(self.devices, address=("127.0.0.1", port))
        accept, accepted = self.server.callback_new_connection, []

        def accepting() -> Any:
            self.connections += 1
            accepted.append(accept())
            return accepted[-1]

        self.server.callback_new_connection = accepting
        await self.server.serve_forever(background=True)
        try:
            yield f"tcp://127.0.0.1:{port}"
        finally:
            await self.server.shutdown()
            for one in accepted:  # what the client has just closed is not always closed at this end
                if one.transport is not None:
                    one.transport.abort()
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def over_serial(self, folder: Path) -> AsyncIterator[str]:
        """The same at the other end of a serial line, which socat makes of two pseudo-terminals."""
        ends = [folder / "ours", folder / "theirs"]
        line = await asyncio.create_subprocess_exec("socat", *(f"pty,raw,echo=0,link={end}" for end in ends))
        try:
            while not all(end.exists() for end in ends):
                await asyncio.sleep(0.01)
            self.server = ModbusSerialServer(self.devices, port=str(ends[1]), baudrate=115_200)
            await self.server.serve_forever(background=True)
            yield f"rtu://{ends[0]}"
            await self.server.shutdown()
        finally:
            if line.returncode is None:
                line.terminate()
            await line.wait()


def have_socat() -> bool:
    return shutil.which("socat") is not None


def words(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}H", *numbers)
