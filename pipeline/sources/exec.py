"""`exec`: what a command writes."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any

from msgspec import Meta

from pipeline.component import Inbox, SourceContext
from pipeline.framing import StreamSettings, StreamSource
from pipeline.quantity import Duration, Secret
from pipeline.reconnect import Connection
from pipeline.running import CHUNK, Running

STEADY_S = 1.0  # a command that has run for so long is well


class ExecSettings(StreamSettings, frozen=True, kw_only=True):
    command: Annotated[tuple[str, ...], Meta(description="The program and its arguments; no shell reads them.")]
    environment: Annotated[dict[str, Secret], Meta(description="Variables beside those of this process.")] = {}
    every: Annotated[
        Duration | None, Meta(description="Run it so often, each time to its end. Absent: it runs on and on.")
    ] = None
    timeout: Annotated[
        Duration | None, Meta(description="A run that takes longer, or a silence that lasts longer, ends it.")
    ] = None


class Exec(StreamSource):
    """Run a command, and take the lines that it writes as readings.

        [sources.radio]
        type = "exec"
        command = ["rtl_433", "-F", "json"]
        key = "id"
        fields = { temperature_C = "float?" }

        [sources.battery]
        type = "exec"
        command = ["/usr/local/bin/battery", "--json"]
        every = "1 min"
        timeout = "10 s"
        fields = { volts = "float" }

    It runs in the folder of the pipeline file. One that ends, whatever its status, is started again with growing pauses; with
    `every`, one that fails is. /health tells the status and the end of what it wrote to its standard error.
    When the pipeline stops, the command and what it started get SIGTERM, then SIGKILL. After a kill -9 of this process the
    command ends at its next line, as it finds nobody to read it.
    Delivery: what was read and not committed is lost when this process is killed.
    At the limit: while the inbox is full nothing is read, and the command has to wait. A line beyond `max_message` is refused.
    """

    def __init__(self, settings: ExecSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        self.every = settings.every.seconds if settings.every else None
        self.timeout = settings.timeout.seconds if settings.timeout else None
        if not settings.command or not settings.command[0]:
            context.problem("command", 'name the program: command = ["rtl_433", "-F", "json"]')
        for name, given in (("every", settings.every), ("timeout", settings.timeout)):
            if given is not None and given < 10_000_000:
                context.problem(name, 'must be at least "10 ms"')

    async def run(self, inbox: Inbox, position: Any) -> None:
        # Its arguments may hold what nobody should see.
        connection = Connection(self, self.settings.command[0])
        await connection.keep(partial(self._on_and_on if self.every is None else self._often, inbox, connection))

    def _running(self) -> Running:
        return Running(self.settings.command, self.settings.environment, self.context.folder)

    async def _on_and_on(self, inbox: Inbox, connection: Connection) -> None:
        steady = asyncio.get_running_loop().call_later(STEADY_S, connection.up)
        try:
            async with self._running() as running:
                await self._read(running, inbox)
                raise OSError(await running.ended())
        finally:
            steady.cancel()

    async def _often(self, inbox: Inbox, connection: Connection) -> None:
        assert self.every is not None
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            async with self._running() as running:
                try:
                    async with asyncio.timeout(self.timeout):
                        await self._read(running, inbox)
                        said = await running.ended()
                except TimeoutError:
                    raise TimeoutError(f"it did not end within {self.settings.timeout}") from None
            if running.status != 0:
                raise OSError(said)
            connection.up()
            due = max(due + self.every, loop.time())  # after a pause: no rush to make up for what was missed
            await asyncio.sleep(due - loop.time())

    async def _read(self, running: Running, inbox: Inbox) -> None:
        stream = self.stream()
        while data := await self._some(running.output):
            for payload in stream.feed(data):
                await inbox.put(payload)
            if stream.broken:
                raise OSError(stream.broken)
        for payload in stream.end():
            await inbox.put(payload)

    async def _some(self, output: asyncio.StreamReader) -> bytes:
        if self.every is not None:
            return await output.read(CHUNK)  # the whole run has its time
        try:
            async with asyncio.timeout(self.timeout):
                return await output.read(CHUNK)
        except TimeoutError:
            raise TimeoutError(f"it wrote nothing for {self.settings.timeout}") from None
