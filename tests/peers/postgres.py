"""A real PostgreSQL, started by a test in a folder of its own."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import weakref
from pathlib import Path

from tests.device import free_port
from tests.waiting import eventually

USER, PASSWORD, DATABASE = "postgres", "right", "postgres"


def programs() -> Path | None:
    """Where its programs are; Debian does not have them on the path. None: it is not installed."""
    found = shutil.which("postgres")
    places = (
        [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    )
    return places[0] if places else None


def version() -> str | None:
    place = programs()
    if place is None:
        return None
    said = subprocess.run([place / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[2]


class Postgres:
    """It refuses to run as root: it then runs as the user `postgres` of its package."""

    def __init__(self) -> None:
        place = programs()
        assert place is not None
        self.programs = place
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="headwater-postgres-"))  # not below a folder that is root's alone
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.process: asyncio.subprocess.Process | None = None
        self._as: list[str] = []
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        word = self.folder / "password"
        word.write_text(PASSWORD)
        word.chmod(0o644)
        command = [*self._as, str(self.programs / "initdb"), "--no-sync", "-D", str(self.data), "-U", USER]
        options = ["-A", "scram-sha-256", f"--pwfile={word}", "-E", "UTF8", "--locale=C"]
        subprocess.run([*command, *options], check=True, capture_output=True, cwd=self.folder)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}"

    async def start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_wal_size": "64MB",
            "log_min_messages": "panic",
        }
        command = [*self._as, str(self.programs / "postgres"), "-D", str(self.data)]
        given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self.process = await asyncio.create_subprocess_exec(
            *command, *given, stderr=subprocess.DEVNULL, cwd=self.folder
        )
        await self._ready()

    async def _ready(self) -> None:
        import asyncpg

        async def lets_in() -> bool:
            try:
                connection = await asyncpg.connect(self.url, password=PASSWORD)
            except (OSError, asyncpg.PostgresError):
                assert self.process is not None
                assert self.process.returncode is None, "PostgreSQL ended by itself"
                return False
            await connection.close()
            return True

        await eventually(lets_in, lambda: "PostgreSQL did not get ready")

    async def stop(self) -> None:
        """At once, as in a crash, and its processes with it."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGQUIT)
            await self.process.wait()
        self.process = None

    def run(self, sql: str) -> None:
        """Without a loop."""
        command = [str(self.programs / "psql"), "-q", "-c", sql, self.url]
        subprocess.run(command, env={"PGPASSWORD": PASSWORD}, check=True, capture_output=True)
