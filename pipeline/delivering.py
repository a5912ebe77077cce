"""What sinks share that deliver from the outbox: how rows are put together, where they wait, which of them go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from pipeline.component import Batch, Buffer, Outcome, Settings, Sink, SinkContext, StepWrites
from pipeline.frame import Frame, rows
from pipeline.quantity import Duration, Size, duration
from pipeline.thin import shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pipeline.expression import Expression


class BatchSettings(Settings, frozen=True):
    rows: Annotated[int, Meta(ge=1, le=100_000, description="Rows in a batch at most.")] = 500
    wait: Annotated[Duration, Meta(description="How long a row waits at most for its batch to fill.")] = duration("5 s")


class BufferSettings(Settings, frozen=True):
    size: Annotated[Size, Meta(description="What rows that wait may take of the database.")] = Size(100_000_000)
    when_full: Annotated[
        Literal["thin", "drop_oldest", "block"],
        Meta(description="The oldest rows are thinned, or dropped, or no more input is taken."),
    ] = "drop_oldest"
    rate: Annotated[int, Meta(ge=1, description="Rows a second at most of what an outage left behind.")] = 1_000


class DeliveringSettings(Settings, frozen=True, kw_only=True):
    """Settings of every sink that delivers; a sink with other defaults names them anew."""

    where: Annotated[str | None, Meta(description="What must be true of a row to be sent. Absent: all are.")] = None
    batch: Annotated[BatchSettings, Meta(description="How rows are put together.")] = BatchSettings()
    buffer: Annotated[BufferSettings, Meta(description="Where rows wait while the peer is away.")] = BufferSettings()


async def guilty(rows: Sequence[int], take: Callable[[Sequence[int]], Awaitable[str]]) -> dict[int, str]:
    """The rows that a peer refuses, each with the reason, where it takes or refuses rows together.

    `take` offers it some, and says why it refused them ("": it has them). What is refused is offered again in halves, until
    the guilty ones are alone: one in 500 costs 18 offers.
    """
    reason = await take(rows)
    if not reason:
        return {}
    if len(rows) == 1:
        return {rows[0]: reason}
    middle = len(rows) // 2
    return {**await guilty(rows[:middle], take), **await guilty(rows[middle:], take)}


async def in_parts(count: int, offer: Callable[[Sequence[int]], Awaitable[Outcome]]) -> Outcome:
    """How a batch of so many rows ends where `offer` sends some of them: those that are refused alone are rejected."""

    async def take(rows: Sequence[int]) -> str:
        outcome = await offer(rows)
        if not (outcome.delivered or outcome.refused):
            raise _Failed(outcome)
        return "" if outcome.delivered else outcome.reason or "refused"

    try:
        rejected = await guilty(range(count), take)
    except _Failed as failed:
        return failed.outcome
    return Outcome(delivered=True, rejected=rejected)


class _Failed(Exception):
    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class DeliveringSink(Sink):
    """A sink whose rows go into the outbox with their step, and to its `deliver` after the commit.

    `where` holds for the inputs that have its fields; the others go whole. Alerts are kept when the buffer is full.
    """

    def __init__(self, settings: DeliveringSettings, context: SinkContext) -> None:
        super().__init__(settings, context)
        buffer, batch = settings.buffer, settings.batch
        self.buffer = Buffer(buffer.size, buffer.when_full, buffer.rate, batch.rows, int(batch.wait))
        self.where = self._conditions(settings.where) if settings.where else {}

    def _conditions(self, text: str) -> dict[str, Expression]:
        """The condition for each input that has all of its fields. In none of them: a problem."""
        from pipeline.expression import ExpressionError, compile_expression

        found: dict[str, Expression] = {}
        errors: list[str] = []
        for stream, schema in self.context.inputs.items():
            try:
                found[stream] = compile_expression(text, schema, "bool", self.context.keys)
            except ExpressionError as error:
                errors.append(str(error))
        if not found:
            self.context.problem("where", errors[0])
        return found

    def write(self, stream: str, frame: Frame, writes: StepWrites) -> None:
        if stream in self.where:
            frame = frame.where(self.where[stream].holds(frame))
        if len(frame):
            keep = self.context.inputs[stream].role == "alerts"
            writes.enqueue(self.context.name, stream, frame, keep=keep)

    def kinds(self) -> dict[str, str]:
        """What a template may name of a row as it is told, and of which kind each is."""
        kinds = {"stream": "string", "time": "string", "recovered": "bool", "thinned": "int", "until": "string"}
        for schema in self.context.inputs.values():
            own = {schema.key: "string"} if schema.key else {}
            kinds |= own | {n: "string" if f.kind == "time" else f.kind for n, f in schema.fields.items()}
        return kinds

    def told(self, batch: Batch) -> list[dict[str, Any]]:
        """The rows of a batch as plain objects: `stream`, the key, `time` and the fields that are there.

        The same batch gives the same objects: no time, no chance.
        """
        flags = {"recovered": True} if batch.recovered else {}
        return [
            {"stream": stream, **flags, **{name: value for name, value in row.items() if value is not None}}
            for stream, frame in batch.parts
            for row in rows(*shown(frame, self.context.inputs.get(stream)), self.context.keys.names)
        ]
