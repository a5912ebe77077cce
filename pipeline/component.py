"""All that the author of a component reads: what a source, codec, operator and sink is, and what each is given.

A component is one file: its settings, its class, its docstring. It is constructed from its settings and a `Context`;
construction touches no network and no disk, and reports what is wrong by `context.problem`. It never imports the engine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Protocol

import msgspec
import numpy as np
from msgspec import Meta

from pipeline.frame import Array, Column, Field, Frame, Ints, KeyTable, Schema
from pipeline.perkey import PerKey
from pipeline.pictures import Pictures

if TYPE_CHECKING:
    from aiohttp import web
    from reactivex import Observable

    from pipeline.clock import Clock
    from pipeline.expression import Expression
    from pipeline.past import Past
    from pipeline.web import HttpProblem

State = dict[str, Any]  # what `snapshot` gives: numpy arrays, numbers, text, lists and dicts of these


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every component's settings; `type`, `enabled`, `input` and `inputs` are the graph's and not listed here."""


class Context:
    """What every component is given at construction."""

    def __init__(
        self,
        name: str,
        keys: KeyTable,
        *,
        folder: Path = Path(),
        clock: Clock | None = None,
        pipeline: str = "",
        pictures: Pictures | None = None,
    ) -> None:
        self.name = name
        self.pipeline = pipeline  # the name of the pipeline: for what must be called the same at each start, outside
        self.keys = keys
        self.folder = folder  # where the pipeline file lies: relative paths start here
        self.clock = clock
        self.pictures = pictures or Pictures()  # of the last moments, of all sources that see
        self.problems: list[tuple[str, str]] = []
        self.warnings: list[tuple[str, str]] = []

    def problem(self, setting: str, text: str) -> None:
        """Report what is wrong with a setting (`levels.warning.when`); all problems are shown together."""
        self.problems.append((setting, text))

    def warn(self, setting: str, text: str) -> None:
        """Report what may be set and will yet hurt, with the way out: `headwater check` shows it, and a run goes on."""
        self.warnings.append((setting, text))


# --- operators ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutsideFile:
    """A file that an operator reads. What is in it comes as rows of `frame.sides[name]` when the pipeline starts and when it
    has changed, as part of a step: so a replay sees the same. A file that cannot be read changes nothing, and is told."""

    path: Path
    read: Callable[
        [bytes], dict[str, Column]
    ]  # one row at least; ValueError says what is wrong. Called in another thread
    needed: Callable[[], bool]  # whether the operator has nothing from it yet: then a start without it fails
    most: int = 10_000_000  # bytes that it may have


class OperatorContext(Context):
    """What an operator is given: the schema of its input, expressions over it, further outputs, state by key."""

    def __init__(
        self,
        name: str,
        schema: Schema,
        keys: KeyTable,
        *,
        sides: Mapping[str, Mapping[str, Schema]] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(name, keys, **more)
        self.schema = schema
        self.sides = sides or {}  # setting (one of `Operator.sides`) -> the streams that it names, with their schemas
        self.outputs: dict[str, Schema] = {}
        self.emitted: dict[str, list[Frame]] = {}
        self.refused: list[tuple[Frame, str]] = []  # rows of the Frame that is being pushed, each with the reason
        self.states: dict[str, PerKey] = {}
        self.files: dict[str, OutsideFile] = {}  # by the name of their rows in `frame.sides`; no name of a stream
        self.pasts: list[Past] = []  # of the expressions that remember readings
        self.conditions: dict[str, Expression] = {}  # by setting

    @property
    def fields(self) -> dict[str, Field]:
        """The fields of the input."""
        return self.schema.fields

    def expression(
        self, text: str, setting: str, want: str | None = None, schema: Schema | None = None, *, remembers: bool = True
    ) -> Expression:
        """`text` compiled over the fields of `schema` (None: the input's); `want` is the kind it must give ("bool"). A wrong
        one is reported as a problem of `setting`, and what comes back gives missing values, so that construction goes on.

        `remembers`: it may use `previous` and the like, whose state is saved with the operator's. Such an expression must be
        called with all rows of each Frame (also twice, also in parts, one after the other); where it is not, say False.
        """
        from pipeline.expression import ExpressionError, compile_expression, constant
        from pipeline.past import Past

        past = Past(f"{setting} {len(self.pasts)}", self.per_key) if remembers else None
        try:
            expression = compile_expression(text, schema or self.schema, want, self.keys, past)
        except ExpressionError as error:
            self.problem(setting, str(error))
            return constant(want or "float")
        if want == "bool":
            self.conditions[setting] = expression
        if past:
            self.pasts.append(past)
        return expression

    def settle(self, *, done: bool) -> None:
        """The operator is through with a Frame, or has failed: what its expressions noted of it is remembered, or is not."""
        for past in self.pasts:
            past.settle(done=done)

    def output(self, name: str, schema: Schema) -> Callable[[Frame], None]:
        """A further output, `NODE.name` in the pipeline file; call what comes back with a Frame to emit it."""
        self.outputs[name] = schema
        emitted = self.emitted[name] = []
        return emitted.append

    def refuse(self, rows: Frame, reason: str) -> None:
        """Rows of the input that cost an error, where the others could go on: they are set aside as dead letters."""
        self.refused.append((rows, reason))

    def per_key(self, name: str, kinds: Sequence[tuple[str, str]] | str) -> PerKey:
        """State for each key; `name` and the names of `kinds` are part of what is saved."""
        state = self.states[name] = PerKey(kinds)
        state.grow(len(self.keys))
        return state


class Memory(NamedTuple):
    """What an operator may hold at most."""

    per_key: int = 0  # bytes for each key; of a window for each group
    per: str = "key"  # what that is for, if there may be several for a key: "key and open window"
    beyond: str = ""  # what is held beside it and has no bound by the keys; "": nothing


class Operator:
    """A node of the graph: Frames in, Frames out, state by `snapshot` and `restore`. A pure function of these.

    For each Frame that comes in exactly one goes out, if need be without rows: it carries the time for those behind.
    `on_frame` does what can raise before it changes state: then the graph can set aside the row that is guilty.

    An operator may read further streams beside its input, which its settings name: `sides` lists those settings, each
    with the name of a stream or a list of such. Their rows of a step are in `frame.sides`, by stream (`frame.Sided` says
    how they lie to those of the input), their schemas in `context.sides`. A disabled stream is in neither.
    """

    sides: ClassVar[tuple[str, ...]] = ()
    # Settings that may change at a reload while the state stays: none of it depends on `presentation`; after a change of
    # `adapts` it goes on under the new ones. `levels.*.when`: of every name. A change of any other starts the node anew.
    presentation: ClassVar[tuple[str, ...]] = ()
    adapts: ClassVar[tuple[str, ...]] = ()
    # Its rows are readings of its input, whole and as they came: what was recorded of it can stand for these.
    only_leaves_out: ClassVar[bool] = False
    schema: Schema  # what goes out; set in __init__

    def __init__(self, settings: Any, context: OperatorContext) -> None:
        self.context = context
        self.schema = context.schema

    def on_frame(self, frame: Frame) -> Frame:
        raise NotImplementedError

    def __call__(self, source: Observable[Frame]) -> Observable[Frame]:
        from reactivex import operators as ops

        return source.pipe(ops.map(self.on_frame))

    tick_by_tick = False  # what it tells of a silence depends on each tick in it, not only on how far time has come

    def due(self) -> int | None:
        """The lowest watermark at which rows would leave without a further reading; None: no such. ns"""
        return None

    def explain(self, key: int, readings: Frame) -> dict[str, Any] | None:
        """For people: what it makes of a key, by code, of which these are the newest readings, in order; None: it does not
        say. Changes nothing."""
        return None

    def memory(self) -> Memory:
        """What it may hold at most, for `headwater check`."""
        return Memory(sum(state.dtype.itemsize for state in self.context.states.values()))

    def snapshot(self) -> State:
        """The state, as copies."""
        return {name: state.data[: len(self.context.keys)].copy() for name, state in self.context.states.items()}

    def restore(self, state: State) -> None:
        """Back to what `snapshot` gave."""
        for name, per_key in self.context.states.items():
            saved = state[name]
            per_key.data = np.zeros(0, per_key.dtype)
            per_key.grow(max(len(saved), len(self.context.keys)))
            per_key.data[: len(saved)] = saved


# --- codecs ---------------------------------------------------------------------------------------------------------


class Refused(NamedTuple):
    """A reading that was not taken, and why."""

    payload: int  # index of the payload
    item: int  # index of the reading within it, from 0
    reason: str
    raw: str  # the reading as it came, cut to a sensible length


def item_of(taken: int, payload: int, refused: Sequence[Refused]) -> int:
    """Which reading of a payload the `taken`-th good one is, counting those refused before."""
    item = taken
    for bad in sorted(r.item for r in refused if r.payload == payload):
        item += bad <= item
    return item


class Decoded(NamedTuple):
    """Readings as columns, in order of arrival, and those refused."""

    keys: Sequence[str | int] | Array  # one for each reading, or its code; empty where the stream has no key
    times: Ints | None  # ns; None: the time of arrival
    columns: dict[str, Column]
    counts: Sequence[int]  # readings taken from each payload
    refused: list[Refused]


def joined(parts: Sequence[tuple[int, Decoded]], keys: KeyTable) -> Decoded:
    """What was decoded in several goes, as one; each with the index of its first payload."""
    decoded = [d for _, d in parts]
    columns = {}
    for name in decoded[0].columns:
        made = [d.columns[name] for d in decoded]
        present = None if all(c.present is None for c in made) else np.concatenate([c.known() for c in made])
        columns[name] = Column(np.concatenate([c.values for c in made]), present)
    # A part without a reading may say either: what could not be decoded at all does not know whether there are times.
    timed = [d.times for d in decoded if d.times is not None and len(d.times)]
    untimed = any(d.times is None and sum(d.counts) for d in decoded)
    return Decoded(
        np.concatenate([keys.codes(d.keys) for d in decoded]),
        np.concatenate(timed) if timed else None if untimed else decoded[0].times,
        columns,
        [n for d in decoded for n in d.counts],
        [Refused(start + r.payload, *r[1:]) for start, d in parts for r in d.refused],
    )


class Codec(Protocol):
    """Bytes to columns and back. Decoding many payloads at once is the usual case."""

    media_types: ClassVar[tuple[str, ...]]
    # A codec that only reads also has `writes = False`; one with options names their Struct, as `Options`.

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        """The readings of all payloads; a bad one costs only itself."""
        ...

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """Rows (plain values, times already as shown) as bytes."""
        ...

    def header(self, names: Sequence[str]) -> bytes:
        """What stands once atop a file of rows with these columns, mostly nothing; `encode` keeps to their order then."""
        ...


class ReadingSettings(Settings, kw_only=True, frozen=True):
    """Settings of every source that decodes bytes."""

    format: Annotated[
        str | dict[str, Any], Meta(description='How readings are written: "json", "csv" …; a table gives options.')
    ] = "json"
    key: Annotated[str | None, Meta(description="The field that names the series. Absent: all is one.")] = None
    time: Annotated[str | None, Meta(description="The field with the event time. Absent: the time of arrival.")] = None
    time_unit: Annotated[
        str, Meta(description='How it is written: "s", "ms", "us", "ns", "iso", or "auto" by its size.')
    ] = "auto"
    fields: Annotated[
        dict[str, str],
        Meta(description="Field = float, int, bool or string; with ? it may be absent, with nan it may be NaN."),
    ] = msgspec.field(default_factory=dict)


# --- sources --------------------------------------------------------------------------------------------------------


class Receipt(NamedTuple):
    """What became of a payload; given when its readings are durable."""

    taken: int
    refused: list[Refused]
    failed: str | None = None  # nothing was kept: the reason
    repeated: bool = False  # it had come before under the same `request`; nothing was counted again


@dataclass(slots=True)
class Payload:
    """What arrived in one piece: a request body, a chunk of a file, one sample of this host."""

    data: Any
    size: int  # bytes it counts for in the inbox
    position: Any = None  # where the source would go on after it (file offset); saved with the step
    request: str | None = None  # Idempotency-Key: counted once, also over restarts
    codec: Codec | None = None  # None: the source's own
    arrival: int = 0  # wall clock, ns; set by the inbox
    done: Callable[[Receipt], None] | None = None  # called in the loop once durable (or failed)


class Inbox(Protocol):
    """Where a source puts what arrives. Bounded: this is where backpressure starts."""

    def offer(self, payload: Payload) -> bool:
        """Take it if there is room; False: tell the sender to come back later."""
        ...

    async def put(self, payload: Payload) -> None:
        """Take it, waiting for room."""
        ...

    async def taken(self) -> None:
        """Wait until all that was put here is in a step."""
        ...

    def end(self) -> None:
        """Nothing more will come (a file at its end)."""
        ...


class SourceContext(Context):
    """What a source is given; `server` and `services` are there once the engine runs."""

    def __init__(self, name: str, keys: KeyTable, **more: Any) -> None:
        super().__init__(name, keys, **more)
        self.server: Server | None = None  # where routes are mounted; None: there is no [server] in this run
        self.services: Services | None = None


class Source:
    """Where readings come from. `run` puts payloads into the inbox; `decode` makes readings of many at once."""

    schema: Schema
    live: bool = True  # False: finite; its end flushes the windows, and it is never idle before
    replayable: bool = False  # True: `reread` can give the payloads between two positions again
    trouble: str = ""  # why nothing comes for now (a peer that is away), for /health; "" when all is well

    def __init__(self, settings: Any, context: SourceContext) -> None:
        self.context: SourceContext = context

    def mount(self, server: Server) -> None:
        """Add HTTP routes; called before `run`. Only if `needs_server`."""

    needs_server: bool = False
    paths: tuple[str, ...] = ()  # that it mounts: no two sources may have the same

    async def run(self, inbox: Inbox, position: Any) -> None:
        """Produce until cancelled, or until `inbox.end()`. `position` is that of the last durable payload, or None."""
        raise NotImplementedError

    def decode(self, payloads: Sequence[Payload]) -> Decoded:
        raise NotImplementedError

    def readings(self, payload: Payload) -> list[bytes] | None:
        """Each reading of a payload, as `again` takes it, in the order in which `decode` counts them. None: they cannot be
        told apart, or not be given again."""
        return None

    def again(self, reading: bytes, media_type: str) -> Payload | None:
        """A reading that was refused, as a payload to be decoded once more. None: this source cannot."""
        return None

    def given(self, reading: Mapping[str, Any]) -> Payload | None:
        """The fields of a reading, as a `[[test]]` block names them, as a payload to be decoded. None: this source takes none."""
        return None

    def reread(self, start: Any, end: Any) -> list[Payload]:
        """The payloads between two positions, cut as before. OSError or ValueError if they are gone."""
        raise NotImplementedError

    def progress(self) -> tuple[int, int] | None:
        """For a finite source: (done, total) in bytes, for a progress bar."""
        return None


# --- sinks ----------------------------------------------------------------------------------------------------------


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


# --- what the engine offers to sources and sinks that answer over HTTP ----------------------------------------------


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
