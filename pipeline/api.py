"""What the HTTP interface answers, as types: /openapi.json tells them, and the client gives them.

An answer may gain members; none is renamed or taken away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

Time = Annotated[str, Meta(description="RFC 3339, UTC.", examples=["2026-01-31T12:00:00.000Z"])]
Row = Annotated[
    dict[str, Any], Meta(description="The key under its name, `time`, and the fields; missing ones are null.")
]


class Problem(Struct, kw_only=True):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    parameter: Annotated[str | UnsetType, Meta(description="The parameter that was not understood.")] = UNSET
    taken: Annotated[int | UnsetType, Meta(description="Readings of the request that were kept.")] = UNSET
    refused: Annotated[int | UnsetType, Meta(description="Readings of the request that were not.")] = UNSET
    errors: Annotated[list[RefusedReading] | UnsetType, Meta(description="Each refused reading.")] = UNSET


class RefusedReading(Struct):
    index: Annotated[int, Meta(description="Its place in the request, from 0.")]
    reason: str


class Taken(Struct):
    """The readings are durable."""

    status: str
    message: str | UnsetType = UNSET


class Stream(Struct, kw_only=True):
    """A stream that is kept."""

    name: str
    role: Annotated[str, Meta(description="readings, windows, alerts or refused.")]
    key: Annotated[str | None, Meta(description="The name of the key in rows; null: rows have none.")]
    fields: Annotated[dict[str, str], Meta(description="The kind of each: float, int, bool, string; ? may be missing.")]
    keys: list[str]
    rows: int
    oldest: Time | None
    newest: Time | None
    clock: Annotated[str, Meta(description="sure, or unsure: some rows were dated by a clock that was not set.")]
    unsure: Annotated[int, Meta(description="How many rows those are.")]


class Streams(Struct):
    streams: list[Stream]


class Latest(Struct):
    stream: str
    rows: list[Row]


class Rows(Struct):
    stream: str
    rows: list[Row]
    next: Annotated[str | UnsetType | None, Meta(description="Where the rows after these are; null: nowhere.")] = UNSET


class Question(Struct):
    sql: Annotated[str, Meta(max_length=64_000, description="One SELECT; each stream is a table.")]
    parameters: Annotated[
        list[str | int | float | None] | dict[str, str | int | float | None],
        Meta(description="What stands for ? or :name in it."),
    ] = field(default_factory=list)
    limit: Annotated[int, Meta(ge=1, le=10_000, description="Rows in the answer.")] = 10_000


class Answer(Struct):
    columns: list[str]
    rows: list[dict[str, Any]]
    truncated: Annotated[bool, Meta(description="There would be more rows.")]


class Silenced(Struct, kw_only=True):
    """Rows of an alert that are not delivered for a time."""

    alert: str
    key: Annotated[str | None, Meta(description="null: each.")]
    until: Time
    by: str
    note: str
    time: Annotated[str, Meta(description="When it was said.")]


class Alerts(Struct):
    alerts: Annotated[
        list[dict[str, Any]],
        Meta(description="The newest row of each, with `id`, `stream`, `acknowledged`, `silenced`, `delivery`."),
    ]
    silences: list[Silenced]
    total: Annotated[int, Meta(description="How many there are, on all pages.")]
    next: Annotated[str | None, Meta(description="Where those after these are; null: nowhere.")]


class Alert(Struct):
    alert: Annotated[dict[str, Any], Meta(description="Its newest row.")]
    rows: list[dict[str, Any]]


class Why(Struct, kw_only=True):
    """What raised an alert."""

    alert: Annotated[dict[str, Any], Meta(description="The row that told of it.")]
    operator: Annotated[
        dict[str, Any] | None,
        Meta(description="Its conditions at the last of the readings, part by part, and its times."),
    ]
    readings: Annotated[list[dict[str, Any]], Meta(description="Of its key, from `since` on, each with its `stream`.")]
    hint: Annotated[str | None, Meta(description="What is not recorded, and how it would be.")]


class WhyNot(Struct, kw_only=True):
    """What an alert makes of a key now."""

    alert: str
    key: str | None
    firing: bool
    because: Annotated[str, Meta(description="In a sentence.")]
    levels: Annotated[
        list[dict[str, Any]], Meta(description="Each with `when` and `clear` part by part, and its `state`.")
    ]
    group: Annotated[bool, Meta(description="Its rows are of many keys.")]
    repeat: str | UnsetType = UNSET
    silence: Annotated[dict[str, Any] | UnsetType, Meta(description="`silent_for`, and when the key was heard.")] = (
        UNSET
    )
    inhibit: Annotated[dict[str, bool] | UnsetType, Meta(description="Which of these alerts fire for the key.")] = UNSET
    flapping: dict[str, Any] | UnsetType = UNSET
    reading: Annotated[dict[str, Any] | None, Meta(description="The newest of the key that is recorded.")]
    silenced: Silenced | None
    hint: Annotated[str | None, Meta(description="What is not recorded, and how it would be.")]


class Acknowledge(Struct):
    by: Annotated[str, Meta(min_length=1, max_length=1000)]
    note: Annotated[str, Meta(max_length=1000)] = ""


class Silence(Struct, kw_only=True):
    alert: Annotated[str, Meta(description="Its operator's name.")]
    by: Annotated[str, Meta(min_length=1, max_length=1000)]
    length: Annotated[str, Meta(description="Such as 1 h; 0 s ends it.")] = field(name="for")
    key: Annotated[str | None, Meta(description="Absent: each.")] = None
    note: Annotated[str, Meta(max_length=1000)] = ""


class Silences(Struct):
    silences: list[Silenced]


class DeadLetter(Struct, kw_only=True):
    """A row that was refused, failed or was rejected."""

    id: int
    time: Time
    node: str
    kind: str
    reason: str
    row: Any
    replayable: bool


class Dead(Struct):
    dead: list[DeadLetter]


class NotReplayed(Struct):
    id: int
    reason: str


class Replayed(Struct):
    replayed: int
    failed: list[NotReplayed]


class ReplayDead(Struct, omit_defaults=True):
    """Exactly one of them."""

    ids: list[Annotated[int, Meta(ge=0)]] | UnsetType = UNSET
    node: str | UnsetType = UNSET
    all: Annotated[bool | UnsetType, Meta(description="true")] = UNSET


class SinkState(Struct, kw_only=True):
    """What waits for a sink, and how it gets on."""

    sink: str
    state: Annotated[str, Meta(description="idle, waiting, sending, retrying or catching up.")]
    waiting: Annotated[int, Meta(description="Rows.")]
    backlog: int
    bytes: int
    oldest: Time | None
    sent: int
    failed: Annotated[int, Meta(description="Rows that the other end refused for good.")]
    dropped: int
    thinned: int
    silenced: Annotated[int, Meta(description="Rows that a silence kept back, of the newest 20,000 rows of alerts.")]
    attempts: Annotated[int, Meta(description="Failures since the last success.")]
    retry_in: Annotated[float | None, Meta(description="Seconds.")]
    last_error: str | None
    warning: str | None


class Delivery(Struct):
    sinks: list[SinkState]


class GraphNode(Struct, kw_only=True):
    name: str
    kind: str
    type: str
    inputs: list[str]
    rows_in: int | UnsetType = UNSET
    rows_out: int | UnsetType = UNSET
    refused: int | UnsetType = UNSET
    waiting: int | UnsetType = UNSET
    error: str | UnsetType | None = UNSET


class Nodes(Struct):
    nodes: list[GraphNode]


class Flash(Struct, kw_only=True):
    written_bytes: Annotated[int, Meta(description="To the state folder's database, since it was made.")]
    since: Annotated[str, Meta(description="When it was made.")]
    per_day_bytes: Annotated[int | None, Meta(description="At the rate of the last hour; null in the first minute.")]
    endurance_bytes: Annotated[int, Meta(description="What the flash may be written, by [pipeline] endurance.")]
    used_up: Annotated[str | None, Meta(description="When that will be reached at this rate; null: not in 100 years.")]


class Health(Struct, kw_only=True):
    status: Annotated[str, Meta(description="ok or degraded.")]
    reasons: list[str]
    clock: str
    pipeline: str
    ready: bool
    uptime_seconds: float
    step: int
    reloads: Annotated[int, Meta(description="Times that a changed pipeline file took over.")]
    flash: Flash


class Ready(Struct):
    ready: bool


class Process(Struct, kw_only=True):
    pid: int
    memory_bytes: Annotated[int, Meta(description="Resident.")]
    open_files: int
    threads: int
    tasks: int


class SourceSizes(Struct, kw_only=True):
    name: str
    waiting: Annotated[int, Meta(description="Payloads in its inbox.")]
    waiting_bytes: int
    taken: Annotated[int, Meta(description="Readings since the start.")]


class OperatorSizes(Struct):
    name: str
    state_bytes: Annotated[int, Meta(description="Of what a checkpoint holds of it.")]


class LatestSizes(Struct):
    stream: str
    keys: Annotated[int, Meta(description="Of which the newest row is in memory.")]


class Sizes(Struct, kw_only=True):
    step: int
    in_flight: Annotated[int, Meta(description="Steps not yet durable.")]
    journal_steps: Annotated[int, Meta(description="Since the checkpoint: what a restart replays.")]
    journal_bytes: int
    keys: int
    sources: list[SourceSizes]
    operators: list[OperatorSizes]
    latest: list[LatestSizes]


class Stack(Struct):
    name: str
    count: Annotated[int, Meta(description="How many of this name stand here.")]
    stack: Annotated[list[str], Meta(description="Places in the code, the innermost one last.")]


class Debug(Struct, kw_only=True):
    """What the process is doing and holds; no values."""

    process: Process
    pipeline: Sizes | None
    tasks: list[Stack]
    threads: list[Stack]


class Forget(Struct, omit_defaults=True):
    key: str
    stream: Annotated[
        str | None, Meta(description="Only in this stream and in what comes of it. Absent: everywhere.")
    ] = None


class Forgotten(Struct):
    key: str
    streams: Annotated[list[str], Meta(description="Those that showed a row of it as its latest, and show it no more.")]


class Reload(Struct, omit_defaults=True):
    only_plan: Annotated[bool, Meta(description="Say what would change, and change nothing.")] = False


class Reloading(Struct):
    plan: Annotated[list[str], Meta(description="What becomes of each node that is not as it was.")]
    reloads: Annotated[int, Meta(description="As in /health, until the file has taken over: then one more.")]


# --- how a route carries its description ----------------------------------------------------------------------------


class Parameter(NamedTuple):
    """Of the query."""

    name: str
    description: str
    kind: Any = str  # its type, as msgspec has it
    repeated: bool = False  # key=a&key=b


class Operation(NamedTuple):
    """What one method of a path does. `answer` and `body` are types, or a function of the handler's object that gives a
    JSON Schema: what an http source takes, its settings decide."""

    summary: str
    answer: Any = None
    parameters: tuple[Parameter, ...] | Callable[[Any], list[Parameter]] = ()
    body: Any = None
    taken: tuple[str, ...] = ("application/json",)  # media types of the body; the schema is that of the first
    given: tuple[str, ...] = ("application/json",)  # and of the answer
    statuses: tuple[int, ...] = (200,)  # under which it has this form
    reads: bool = False  # a POST that changes nothing: a token that may only read may send it
    inside: bool = False  # it tells of the process: for the token that may do all; without tokens, for this machine


Any_ = TypeVar("Any_", bound=Callable[..., Any])


def described(operation: Operation) -> Callable[[Any_], Any_]:
    """A handler with its description, for /openapi.json and /docs."""

    def mark(handler: Any_) -> Any_:
        handler.operation = operation  # type: ignore[attr-defined]
        return handler

    return mark


def operation_of(handler: Any) -> Operation:
    """A handler's description; without one, what its docstring says first."""
    found = getattr(handler, "operation", None)
    if isinstance(found, Operation):
        return found
    words = str(getattr(handler, "__doc__", None) or getattr(handler, "__name__", ""))
    return Operation(words.strip().partition("\n")[0], given=("*/*",))


def schemas(types: list[Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The JSON Schema of each type, and of what they refer to."""
    made, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return list(made), components
