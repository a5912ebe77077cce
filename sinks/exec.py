"""`exec`: rows to a command."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from msgspec import Meta

from pipeline.component import Batch, Outcome, SinkContext
from pipeline.delivering import DeliveringSettings, DeliveringSink
from pipeline.quantity import Duration, Secret, duration
from pipeline.running import Running
from pipeline.template import Template

AGAIN = 75  # EX_TEMPFAIL of sysexits.h


class ExecSettings(DeliveringSettings, frozen=True, kw_only=True):
    command: Annotated[
        tuple[str, ...], Meta(description="The program and its arguments, with {field} where it runs for each row.")
    ]
    per: Annotated[Literal["batch", "row"], Meta(description="What it runs for.")] = "batch"
    environment: Annotated[dict[str, Secret], Meta(description="Variables beside those of this process.")] = {}
    timeout: Annotated[Duration, Meta(description="One that runs longer is killed.")] = duration("30 s")


class Exec(DeliveringSink):
    """Run a command for each batch, or for each row.

        [sinks.lamp]
        type = "exec"
        inputs = ["overheat"]
        command = ["/usr/local/bin/lamp", "--state", "{state}", "--", "{sensor_id}"]
        per = "row"
        timeout = "10 s"

    Its standard input has the rows as JSON, one a line, each with `stream`, the key, `time` and its fields; what it writes to
    its standard output is dropped. No shell reads the arguments: a value can only be (a part of) one. A row is refused if a
    field that an argument names is missing, or if a text would make an option of an argument (it begins with "-").
    It runs in the folder of the pipeline file, with HEADWATER_KEY, which stays the same on every try of the same rows, and
    HEADWATER_ROWS, how many there are: if this process is killed the command may read fewer, and should end without effect.
    Delivery: at least once, one command at a time, in order; nothing overtakes what an outage left behind. Status 0: it has
    them. Status 75 (EX_TEMPFAIL), the end by a signal, a run beyond `timeout`, or a program that cannot be started: it is
    tried again with growing pauses. Any other status refuses the rows, and the end of its standard error is the reason.
    It and what it has started are killed as a group, also when the pipeline stops. At the limit (`buffer.when_full`): as for
    `cloud`.
    """

    def __init__(self, settings: ExecSettings, context: SinkContext) -> None:
        super().__init__(settings, context)
        assert self.buffer
        self.buffer.in_order = True
        self.settings = settings
        if not settings.command or not settings.command[0]:
            context.problem("command", 'name the program: command = ["/usr/local/bin/lamp", "--on"]')
        self.program = settings.command[:1]
        self.arguments: list[Template] = []
        if settings.per == "row":
            self.arguments = [Template(text, self.kinds()) for text in settings.command[1:]]
            for argument in self.arguments:
                for problem in argument.problems:
                    context.problem("command", problem)
        self._batch = ""  # that is under way, and what became of each of its rows; "" is taken
        self._fates: dict[int, str] = {}

    async def deliver(self, batch: Batch) -> Outcome:
        import orjson

        told = self.told(batch)
        lines = [orjson.dumps(row) + b"\n" for row in told]
        if self.settings.per == "batch":
            return await self._run([*self.settings.command], lines, batch.key)
        if self._batch != batch.key:
            self._batch, self._fates = batch.key, {}
        for i, row in enumerate(told):
            if i in self._fates:
                continue
            outcome = Outcome(refused=True, reason=unfit) if (unfit := self._unfit(row)) else None
            if outcome is None:
                command = [*self.program, *(argument.fill(row) for argument in self.arguments)]
                outcome = await self._run(command, [lines[i]], f"{batch.key}-{i}")
            if not (outcome.delivered or outcome.refused):
                return outcome
            self._fates[i] = "" if outcome.delivered else outcome.reason
        return Outcome(delivered=True, rejected={i: reason for i, reason in self._fates.items() if reason})

    def _unfit(self, row: dict[str, Any]) -> str:
        """Why a row cannot be arguments."""
        for template, text in zip(self.arguments, self.settings.command[1:], strict=True):
            if missing := [name for name in template.names if name not in row]:
                return f'the command names "{missing[0]}", which is missing'
            filled = template.fill(row)
            if "\0" in filled:
                return "an argument cannot hold a NUL"
            number = any(not isinstance(row[name], str) for name in template.names[:1])
            if filled.startswith("-") and not text.startswith("-") and not number:
                return f'"{text}" would be an option: {filled[:50]}'
        return ""

    async def _run(self, command: list[str], lines: list[bytes], key: str) -> Outcome:
        environment = {**self.settings.environment, "HEADWATER_KEY": Secret(key)}
        environment["HEADWATER_ROWS"] = Secret(str(len(lines)))
        name = self.program[0]  # its arguments may hold what nobody should see
        try:
            async with Running(command, environment, self.context.folder, b"".join(lines)) as running:
                async with asyncio.timeout(self.settings.timeout.seconds):
                    said = await running.ended()
        except TimeoutError:
            return Outcome(reason=f"{name}: it did not end within {self.settings.timeout}, and was killed")
        except OSError as error:
            return Outcome(reason=f"{name}: {error.strerror or error}")
        if running.status == 0:
            return Outcome(delivered=True)
        assert running.status is not None
        return Outcome(refused=running.status > 0 and running.status != AGAIN, reason=f"{name}: {said}")
