"""`opcua`: a server of asyncua's, with one variable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncua as library
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.user_managers import UserManager

from tests.connectors.rig import WRONG, SourceRig
from tests.device import free_port

asyncua: Any = library  # its types are no help

PASSWORD = "right"
SEEN_S = 0.05  # two and a half publishing intervals


class Users(UserManager):
    def get_user(self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:
        return User(UserRole.User) if (username, password) == ("pi", PASSWORD) else None


class OpcuaRig(SourceRig):
    peer = "asyncua"
    promise = "newest value"
    limit = "the oldest changes are dropped"
    without = {"flood": "the peer is slower than we are; what is dropped: tests/pipeline/sources/test_opcua.py"}

    def __init__(self, folder: Path, device_port: int) -> None:
        super().__init__(folder, device_port)
        self.port = free_port()
        self.server: Any = None
        self.running = False

    def version(self) -> str:
        return version("asyncua")

    async def start(self) -> int:
        if self.server is None:
            logging.getLogger("asyncua").setLevel(logging.CRITICAL)
            self.server = asyncua.Server(user_manager=Users())
            await self.server.init()
            self.server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}")
            self.server.set_security_policy([asyncua.ua.SecurityPolicyType.NoSecurity])
            space = await self.server.register_namespace("urn:contract")
            self.node = await self.server.nodes.objects.add_variable(asyncua.ua.NodeId("N", space), "N", 0.0)
        await self.server.start()
        self.running = True
        return self.port

    async def stop(self) -> None:
        if self.running:
            self.running = False
            await self.server.stop()

    def _settings(self, port: int | None, password: str) -> str:
        return f"""type = "opcua"
url = "opc.tcp://127.0.0.1:{port}"
every = "20 ms"
timeout = "2 s"
queue = 1000
key = "id"
user = "pi"
password = "{password}"
fields = {{ n = "float" }}
nodes = {{ c = {{ n = "ns=2;s=N" }} }}"""

    def settings(self, port: int | None) -> str:
        return self._settings(port, PASSWORD)

    def wrong_settings(self, port: int | None) -> str:
        return self._settings(port, WRONG)

    async def send(self, numbers: Sequence[int], pad: int = 0) -> list[int]:
        for number in numbers:
            await self._write(float(number))
        await asyncio.sleep(SEEN_S)
        return list(numbers[-1:])

    async def _write(self, value: float) -> None:
        now = datetime.now(UTC).replace(tzinfo=None)  # as asyncua has it
        stamped = asyncua.ua.DataValue(asyncua.ua.Variant(value), SourceTimestamp=now)
        await self.server.write_attribute_value(self.node.nodeid, stamped)

    async def garbage(self) -> int:
        await self._write(float("nan"))
        await asyncio.sleep(SEEN_S)
        return 1
