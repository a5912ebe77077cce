"""`modbus`: a device of pymodbus' over TCP, which holds one number until it is given the next."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path

from tests.connectors.rig import SourceRig
from tests.device import free_port
from tests.modbus_peer import Plant
from tests.waiting import PATIENCE_S

SEEN_S = 0.5  # a value is there for so long, if nobody asks


class ModbusRig(SourceRig):
    peer = "pymodbus"
    promise = "newest value"
    limit = "it does not ask"
    without = {
        "flood": "it asks, for one answer at a time",
        "credentials": "the protocol has none; over TLS there are certificates",
    }

    def __init__(self, folder: Path, device_port: int) -> None:
        super().__init__(folder, device_port)
        self.port = free_port()
        self.plant = Plant(1)
        self.stack = AsyncExitStack()
        self.running = False

    def version(self) -> str:
        return version("pymodbus")

    async def start(self) -> int:
        await self.stack.enter_async_context(self.plant.over_tcp(self.port))
        self.running = True
        return self.port

    async def stop(self) -> None:
        self.running = False
        await self.stack.aclose()

    def settings(self, port: int | None) -> str:
        return f"""type = "modbus"
url = "tcp://127.0.0.1:{port}"
every = "20 ms"
timeout = "500 ms"
retries = 0
key = "id"
units = {{ c = 1 }}
registers = {{ n = {{ address = 100, type = "uint32" }} }}"""

    async def _seen(self, within_s: float = SEEN_S) -> None:
        """Until it has been asked for twice from now on: the second time it is what holds now."""
        await self.plant.polled(2, within_s)

    async def send(self, numbers: Sequence[int], pad: int = 0) -> list[int]:
        for number in numbers:
            if self.running:
                self.plant.put(1, 100, number.to_bytes(4, "big"))
                await self._seen()
        return list(numbers)

    async def garbage(self) -> int:
        """A register that is not there any more, for a while."""
        self.plant.refuses[1].add(100)
        await self._seen(PATIENCE_S)
        self.plant.refuses[1].clear()
        return 1
