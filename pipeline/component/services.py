"""What the engine offers to sources and sinks that answer over HTTP: the server, and what can be asked of a running pipeline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pipeline.frame import Frame, Schema

if TYPE_CHECKING:
    from aiohttp import web

    from pipeline.web import HttpProblem


# A body, and whom to call in the loop once it is durable: with None, or with the problem to answer with.
TakesBody = Callable[[bytes, Callable[["HttpProblem | None"], None]], None]


class Server(Protocol):
    """The one aiohttp server of the pipeline."""

    def route(
        self,
        method: str,
        path: str,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
        *,
        public: bool = False,
    ) -> bool:
        """Mount a handler; False: another one has that method and path already. `public`: it tells nothing of this
        pipeline, and needs no token."""
        ...

    def quick(
        self, path: str, takes: Callable[[str], TakesBody | None], answer: bytes, *, status: int, max_body: int
    ) -> None:
        """A shorter way for what is posted to a path most: small bodies with no header that means anything but their type.

        `takes` is asked for a Content-Type and gives what takes such bodies, or None: then, and for all that is not so plain, the
        route's handler is asked. Who takes one raises HttpProblem, or calls back later; `answer` is JSON that says it was taken.
        """
        ...

    def on_close(self, end: Callable[[], None]) -> None:
        """Call `end` when the server closes: answers that have no end of their own come to it."""
        ...


@dataclass(slots=True)
class RowsQuery:
    """A question to the history."""

    stream: str
    keys: list[str] | None = None
    start: int | None = None  # ns, inclusive
    end: int | None = None  # ns, exclusive
    limit: int = 1000
    descending: bool = False
    corrected: bool = False  # of rows with the same key and `start`, only those of the highest `revision`
    points: int = 0  # for a chart: instead of `limit`, about so many rows a key that keep its shape
    fields: tuple[str, ...] = ()  # whose shape that is


class Unanswerable(ValueError):
    """A question that is not answered; the text says why, and what would be."""


class Table(NamedTuple):
    """An answer to a question in SQL."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    truncated: bool  # there would be more rows


@dataclass(slots=True)
class StreamInfo:
    name: str
    schema: Schema
    rows: int = 0
    oldest: int | None = None
    newest: int | None = None
    keys: list[str] = field(default_factory=list)
    unsure: int = 0  # rows that were dated by this device's clock when it was not to be trusted


class Acknowledged(NamedTuple):
    """Somebody has seen an alert."""

    by: str
    note: str
    clock: int  # ns


class Silence(NamedTuple):
    """Rows of an alert are not delivered for a time."""

    alert: str
    key: str | None  # None: of each
    until: int  # ns
    by: str
    note: str
    clock: int  # when it was said, ns


class AlertNotes(NamedTuple):
    """What is known of rows of alerts beside what they say themselves."""

    acknowledged: dict[str, Acknowledged]  # by the alert's id
    delivery: list[dict[str, str]]  # of each row, by sink: waiting, sent, refused, silenced
    silences: list[Silence]  # all that hold now


class Services(Protocol):
    """What the engine can tell. The awaitable ones read the disk off the loop; all show only what is durable."""

    def latest(self, stream: str) -> Frame:
        """The newest row of each key, by key."""
        ...

    def alerts(self, stream: str) -> Frame:
        """The newest row of each alert for each key, of a stream of alerts."""
        ...

    def schema(self, stream: str) -> Schema: ...
    async def rows(self, query: RowsQuery) -> Frame:
        """Unanswerable: it asks for more points than an answer may have."""
        ...

    async def sql(
        self, streams: Sequence[str], sql: str, parameters: Sequence[Any] | Mapping[str, Any], limit: int
    ) -> Table:
        """A question in SQL to the history of these streams. Unanswerable: the text says why."""
        ...

    def listen(self, heard: Callable[[Mapping[str, Frame], int], None]) -> int:
        """From now on call `heard` in the loop after each commit: the recorded rows by stream, and the arrival number below
        which all is durable now. The answer is that number as it is before the first such call."""
        ...

    async def since(
        self, stream: str, first: int, end: int, keys: Sequence[str] | None, limit: int
    ) -> tuple[Frame, int]:
        """The recorded rows with arrival numbers from `first` to before `end`, in order of arrival. Second: about how many
        more there are, the oldest ones, that were left out because of `limit`."""
        ...

    async def streams(self) -> list[StreamInfo]: ...
    async def delivery(self) -> list[dict[str, Any]]: ...
    async def alert_notes(self, ids: Sequence[str], rows: Sequence[tuple[str, int, int]]) -> AlertNotes:
        """Of alerts with these ids, and of rows of (alert, code of the key, time)."""
        ...

    def inputs(self, node: str) -> tuple[str, ...]:
        """The streams that come to an operator; none: there is no such."""
        ...

    async def explain(self, node: str, key: int, readings: Mapping[str, Frame]) -> dict[str, Any] | None:
        """What an operator makes of a key (`Operator.explain`). `readings` of it, by input and each in order."""
        ...

    async def acknowledge(self, id_: str, by: str, note: str) -> None:
        """Durable when it returns; so is a silence."""
        ...

    async def silence(self, alert: str, key: str | None, length: int, by: str, note: str) -> None:
        """From now for `length` ns; 0 ends one."""
        ...

    async def forget(self, key: str, stream: str | None) -> list[str] | None:
        """Keep nothing of a key but its history, everywhere or in what comes of a stream. Durable when it returns: the
        streams that showed a row of it; None: the pipeline has failed. Unanswerable: there is no such key, or stream."""
        ...

    async def dead(self, limit: int, node: str | None = None, before: int | None = None) -> list[dict[str, Any]]: ...
    async def replay_dead(self, ids: Sequence[int] | None, node: str | None = None) -> dict[str, Any]:
        """Dead letters once more, by number; None: all (of a node)."""
        ...

    def reload(self, *, only_plan: bool) -> list[str]:
        """What the pipeline file as it is now would change; and have it take over. ConfigError: it has mistakes, and
        changes nothing. Unanswerable: there is no file."""
        ...

    def health(self) -> dict[str, Any]: ...
    def graph(self) -> list[dict[str, Any]]: ...
    def debug(self) -> dict[str, Any]:
        """What the process is doing and holds: stacks and sizes."""
        ...

    async def metrics(self) -> list[tuple[str, str, str, list[tuple[dict[str, str], float]]]]:
        """(name, type, help, [(labels, value)]) of each metric."""
        ...
