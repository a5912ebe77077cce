"""What a connector gives to the contract: its real peer, its settings, and numbered readings.

`tests/connectors/sources/NAME.py` and `…/sinks/NAME.py` hold one class each, a `SourceRig` or a `SinkRig`, for the connector
`type = "NAME"`. A reading is a number `n`, from 0, never the same twice: `{"id": "c", "n": 17, "pad": "…"}` where the
format is free. A check that makes no sense for a connector is named in `without`, with the reason that the docs show.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from tests.waiting import eventually

SourcePromise = Literal["exactly once", "at least once", "at most once", "newest value"]
SinkPromise = Literal["exactly once", "at least once", "at most once"]

# What a test of credentials uses as the wrong one: it must not be seen anywhere.
WRONG = "not-the-secret-3f9c1a"

# Fields of the reading above, for settings of a source whose format is free.
FIELDS = 'key = "id"\nfields = { n = "int", pad = "string?" }'


class Rig:
    """A peer. `start` is called once, `stop` and `start` again for a restart; after a test `stop` whatever was started."""

    peer: ClassVar[str]  # who it is: "mosquitto", "pymodbus"
    promise: ClassVar[str]
    without: ClassVar[Mapping[str, str]] = {}  # check -> why it makes no sense here
    limit: ClassVar[str]  # what happens at the limit, in a few words, for the docs

    def __init__(self, folder: Path, device_port: int) -> None:
        self.folder = folder  # to write in; the pipeline file lies here, too
        self.device_port = device_port  # the [server] of the pipeline, for a peer that posts

    def version(self) -> str | None:
        """The peer's version. None: it cannot be had here, and the connector is not tested."""
        raise NotImplementedError

    async def start(self) -> int | None:
        """The TCP port at which the peer listens, the same at each start; None: it is not reached over TCP."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Ends it, as a crash would. Called again when it has ended: nothing."""
        raise NotImplementedError


class SourceRig(Rig):
    promise: ClassVar[SourcePromise]
    flood: ClassVar[int] = 5_000  # readings of 4 kB: more than the inbox and the buffers on the way to it hold
    # At the limit the peer has to wait; False: what is too much is dropped, and counted; None: somebody in between keeps it.
    waits: ClassVar[bool | None] = True

    def settings(self, port: int | None) -> str:
        """The lines of `[sources.given]`, `type` included, to reach the peer at that port of this machine. Time-outs
        that find a half-open connection are short: a second."""
        raise NotImplementedError

    def wrong_settings(self, port: int | None) -> str:
        """The same with credentials that the peer refuses: `WRONG` as the password or token."""
        raise NotImplementedError

    async def send(self, numbers: Sequence[int], pad: int = 0) -> list[int]:
        """Have the peer give readings with these numbers, each with about `pad` bytes beside it. Returns those for which the
        promise holds (acknowledged, or handed to a broker that keeps them), when it is known; no error is raised because
        nobody listens for the moment. Waits while the source pushes back."""
        raise NotImplementedError

    async def garbage(self) -> int:
        """Have the peer give what is no reading; how many dead letters that makes."""
        raise NotImplementedError

    def number(self, row: Mapping[str, Any]) -> int:
        """The number of a row of the stream."""
        return int(row["n"])


class SinkRig(Rig):
    promise: ClassVar[SinkPromise]
    password: ClassVar[str] = ""  # the right one

    def settings_with(self, port: int | None, password: str) -> str:
        """The lines of `[sinks.out]`, `type` included, without inputs, batch and buffer. Its rows have id, time, n, pad."""
        raise NotImplementedError

    def settings(self, port: int | None) -> str:
        return self.settings_with(port, self.password)

    def wrong_settings(self, port: int | None) -> str:
        return self.settings_with(port, WRONG)

    async def received(self) -> list[int]:
        """The number of each row that the peer has, in no order; a row that it has twice is there twice."""
        raise NotImplementedError

    def refuse(self, number: int) -> None:
        """From now on the peer refuses the row with this number for good."""
        raise NotImplementedError


class ServerRig(SinkRig):
    """Its peer is a process with a port of its own, which starts, stops, and keeps over that what it has."""

    server: Any

    async def start(self) -> int:
        await self.server.start()
        port: int = self.server.port
        return port

    async def stop(self) -> None:
        await self.server.stop()


# --- helpers of rigs --------------------------------------------------------------------------------------------------


def line(number: int, pad: int = 0) -> bytes:
    """A reading as JSON."""
    reading: dict[str, Any] = {"id": "c", "n": number}
    if pad:
        reading["pad"] = "x" * pad
    return json.dumps(reading).encode()


def program_version(program: str, *args: str, word: int = -1, row: int = 0) -> str | None:
    """A word of what a program says of its version; None: it is not installed."""
    if shutil.which(program) is None:
        return None
    done = subprocess.run([program, *args], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines()[row].split()[word]


async def ended(process: asyncio.subprocess.Process | None) -> None:
    """Kill a peer's process that the rig has started."""
    if process is not None and process.returncode is None:
        process.kill()
        await process.wait()


async def listening(port: int) -> None:
    """Until somebody listens there."""

    async def there() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await eventually(there, lambda: f"nobody listens on port {port}")
