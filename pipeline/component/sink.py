"""What a sink is, and what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pipeline.component.context import Context
from pipeline.component.services import Server, Services
from pipeline.frame import Frame, KeyTable, Schema

if TYPE_CHECKING:
    from pipeline.expression import Expression


class StepWrites(Protocol):
    """What a sink may add to the transaction of a step."""

    def record(self, stream: str, frame: Frame) -> None:
        """Into the history."""
        ...

    def append(self, path: Path, data: bytes, header: bytes = b"") -> None:
        """To a file, exactly once over crashes; the header goes atop an empty one."""
        ...

    def enqueue(self, sink: str, stream: str, frame: Frame, *, keep: bool) -> None:
        """Into the outbox of a delivering sink; `keep`: never dropped to make room."""
        ...


@dataclass(slots=True)
class Batch:
    """Rows to deliver in one piece: the same rows under the same key on every try."""

    key: str
    parts: list[tuple[str, Frame]]  # stream, rows; in order
    attempt: int = 0
    recovered: bool = False  # its rows waited while the peer could not be reached
    resumed: bool = False  # it was begun in an earlier life, and may have been sent then

    def __len__(self) -> int:
        return sum(len(frame) for _, frame in self.parts)


@dataclass(slots=True)
class Outcome:
    """How a delivery ended. Neither flag: it failed and is tried again."""

    delivered: bool = False
    refused: bool = False  # for good: the batch goes to the dead letters and the next one is tried
    reason: str = ""
    retry_after: float | None = None  # seconds that the peer asked for
    # Of a batch that was delivered: the rows that the peer will never take, by their place in it, each with the reason.
    rejected: Mapping[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class Buffer:
    """How a delivering sink wants its outbox kept and cut."""

    size: int = 100_000_000  # bytes
    when_full: str = "drop_oldest"  # thin | drop_oldest | block
    rate: int = 1_000  # rows a second at most of what an outage left behind
    rows: int = 500  # at most in one batch
    wait: int = 5_000_000_000  # ns that the oldest row may wait for the batch to fill
    in_order: bool = False  # also after an outage, oldest first: nothing overtakes what it left behind


class SinkContext(Context):
    """What a sink is given: the streams that come to it; routes and services once the engine runs."""

    def __init__(self, name: str, inputs: dict[str, Schema], keys: KeyTable, **more: Any) -> None:
        super().__init__(name, keys, **more)
        self.inputs = inputs
        self.server: Server | None = None
        self.services: Services | None = None

    def expression(self, text: str, schema: Schema, setting: str, want: str | None = None) -> Expression:
        from pipeline.expression import ExpressionError, compile_expression, constant

        try:
            return compile_expression(text, schema, want, self.keys)
        except ExpressionError as error:
            self.problem(setting, str(error))
            return constant(want or "float")


class Kept(NamedTuple):
    """How much history there may be of some streams, all of them together."""

    streams: tuple[str, ...]
    age: int | None  # ns
    size: int | None  # bytes


class Sink:
    """Where rows go. `write` is called for each step in the loop and adds to its transaction; a sink with a `buffer`
    is also handed batches from its outbox, after the commit, until it says delivered or refused."""

    buffer: Buffer | None = None
    trouble: str = ""  # what is wrong beside its deliveries, for /health; "" when all is well
    needs_server: bool = False
    kept: Sequence[Kept] = ()  # of a sink that records
    rollups: Mapping[
        str, Mapping[int, int | None]
    ] = {}  # by stream and interval: how long each is kept, if it says; ns

    def __init__(self, settings: Any, context: SinkContext) -> None:
        self.context: SinkContext = context

    def write(self, stream: str, frame: Frame, writes: StepWrites) -> None:
        """The rows of one input in one step; never without rows."""

    def mount(self, server: Server) -> None:
        """Add HTTP routes."""

    def files(self) -> list[tuple[Path, bytes]]:
        """The files that it appends to, each with its header: at the start, what was not committed is cut off."""
        return []

    async def deliver(self, batch: Batch) -> Outcome:
        raise NotImplementedError

    async def run(self) -> None:
        """What it does beside its deliveries, from the start to the stop; most do nothing. Only of a sink with a `buffer`."""

    async def close(self) -> None:
        """Let go of what `deliver` and `run` opened; both have ended."""
