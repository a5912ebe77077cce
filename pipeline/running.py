"""A command that a component runs, in a group of its own: what it writes, how it ended, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pipeline.quantity import Secret

CHUNK = 64_000  # bytes read at a time
GRACE_S = 2.0  # from SIGTERM to SIGKILL
LEAVING_S = 0.1  # for what is left in the pipes: what the command started may hold them open for ever
TOLD = 300  # bytes of the end of its standard error that are shown when it fails: a dead letter has room for them


class Running:
    """A command. It and what it started are gone when this is left.

    `output` is what it writes, and must be read. With `fed` it is given these bytes to read, and what it writes is dropped.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, Secret], folder: Path, fed: bytes | None = None
    ) -> None:
        self.command = command
        self.environment = environment
        self.folder = folder
        self.fed = fed
        self.status: int | None = None
        self.said = b""  # the end of its standard error

    async def __aenter__(self) -> Self:
        own = {name: value.reveal() for name, value in self.environment.items()}
        pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=nothing if self.fed is None else pipe,
            stdout=pipe if self.fed is None else nothing,
            stderr=pipe,
            cwd=self.folder,
            env={**os.environ, **own},
            start_new_session=True,
            limit=CHUNK,
        )
        self._tasks = [asyncio.create_task(self._listen(), name=f"errors of {self.command[0]}")]
        if self.fed is not None:
            self._tasks.append(asyncio.create_task(self._feed(self.fed), name=f"input of {self.command[0]}"))
        return self

    @property
    def output(self) -> asyncio.StreamReader:
        assert self.process.stdout is not None
        return self.process.stdout

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(CHUNK):
            self.said = (self.said + data)[-TOLD:]

    async def _feed(self, data: bytes) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it need not read it all
            self.process.stdin.write(data)
            await self.process.stdin.drain()
        self.process.stdin.close()

    async def ended(self) -> str:
        """How, in words."""
        self.status = await self.process.wait()
        await asyncio.wait(self._tasks[:1], timeout=LEAVING_S)
        how = f"was ended by signal {-self.status}" if self.status < 0 else f"ended with status {self.status}"
        said = " ".join(self.said.decode(errors="replace").split())
        return f"it {how}" + (f": {said}" if said else "")

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.process.returncode is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await self.process.wait()
        self._signal(signal.SIGKILL)
        await self.process.wait()
        with contextlib.suppress(TimeoutError):  # a pipe is closed once it has been read to its end
            async with asyncio.timeout(LEAVING_S):
                while self.process.stdout is not None and await self.process.stdout.read(CHUNK):
                    pass

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
