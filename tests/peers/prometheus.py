"""A real Prometheus that is written to, on a port of its own. (Debian: prometheus)"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp

from pipeline.http_auth import basic
from tests.connectors.rig import ended, listening, program_version
from tests.device import free_port
from tests.waiting import eventually

USER, PASSWORD = "headwater", "right"
WHO = {"Authorization": basic(USER, PASSWORD)}
# bcrypt of the password, of the lowest cost, as its web configuration wants it
HASHED = "$2b$04$CmtRLbuXAqxsJjoF9uLZMO25a3Bgs17vSZHF6tvR7RzdRlPu.OfKW"


def version() -> str | None:
    """Such as 2.42.0+ds."""
    return program_version("prometheus", "--version", word=2)


class Prometheus:
    """Asks for the password of its one user; what it keeps it keeps over a restart."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config, self.web = folder / "prometheus.yml", folder / "web.yml"
        self.arguments = [
            f"--config.file={self.config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--web.config.file={self.web}",
            "--web.enable-remote-write-receiver",
            *more,
        ]
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.config.write_text("global: { scrape_interval: 1h }\n")
        self.web.write_text(f"basic_auth_users: {{ {USER}: {HASHED} }}\n")
        command = shutil.which("prometheus") or "prometheus"
        self.process = await asyncio.create_subprocess_exec(
            command, *self.arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        await listening(self.port)
        async with aiohttp.ClientSession(headers=WHO) as http:

            async def ready() -> bool:
                async with http.get(f"{self.url}/-/ready") as answer:
                    return answer.status == 200

            await eventually(ready, lambda: "Prometheus did not get ready")

    async def stop(self) -> None:
        await ended(self.process)

    async def samples(
        self, selector: str, hours: int = 24
    ) -> dict[tuple[tuple[str, str], ...], list[tuple[float, str]]]:
        """All samples of the last hours: labels -> (s, value as it is told)."""
        parameters = {"query": f"{selector}[{hours}h]"}
        async with (
            aiohttp.ClientSession(headers=WHO) as http,
            http.get(f"{self.url}/api/v1/query", params=parameters) as answer,
        ):
            told: Any = await answer.json()
        return {
            tuple(sorted(series["metric"].items())): [tuple(pair) for pair in series["values"]]
            for series in told["data"]["result"]
        }
