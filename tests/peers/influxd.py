"""A real InfluxDB 1 on a port of its own. (Debian: influxdb)"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp

from tests.connectors.rig import ended, listening, program_version
from tests.device import free_port

USER, PASSWORD, DATABASE = "headwater", "right", "plant"

CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
[http]
bind-address = "127.0.0.1:{port}"
auth-enabled = true
[monitor]
store-enabled = false
"""


def version() -> str | None:
    """Such as 1.6.7~rc0."""
    return program_version("influxd", "version", word=1)


class Influxd:
    """Asks for the password of its one user; what it keeps it keeps over a restart."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "influx.conf"
        self.text = CONFIG.format(rpc=free_port(), port=self.port, folder=folder / "influx")
        self.process: asyncio.subprocess.Process | None = None
        self.new = True

    async def start(self) -> None:
        self.config.write_text(self.text)
        command = shutil.which("influxd") or "influxd"
        self.process = await asyncio.create_subprocess_exec(
            command, "-config", str(self.config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        await listening(self.port)
        if self.new:
            await self.ask(f"CREATE USER {USER} WITH PASSWORD '{PASSWORD}' WITH ALL PRIVILEGES")
            await self.ask(f"CREATE DATABASE {DATABASE}")
            self.new = False

    async def stop(self) -> None:
        await ended(self.process)

    async def ask(self, query: str) -> list[list[Any]]:
        """The rows of the first series of an answer."""
        parameters = {"q": query, "db": DATABASE, "epoch": "ns", "u": USER, "p": PASSWORD}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.url}/query", params=parameters) as answer,
        ):
            result = (await answer.json())["results"][0]
        assert "error" not in result, result
        rows: list[list[Any]] = result["series"][0]["values"] if "series" in result else []
        return rows
