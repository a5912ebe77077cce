"""The nodes of a pipeline as one RxPY graph: a step pushes one Frame from each source, and each node runs once.

Every node's output is a Subject, so what several consumers share is computed once. A node with several inputs sees
their Frames of a step zipped and merged in order of arrival; so does one whose settings name further streams (its sides),
which come beside them. An exception does not end a stream: it is caught at the
operator's edge, the guilty rows are set aside with the reason, and the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import reactivex
from reactivex import operators as ops
from reactivex.subject import Subject

from pipeline.component import Operator, OperatorContext, Sink, SinkContext, Source, SourceContext, State
from pipeline.frame import Field, Frame, Ints, KeyTable, Progress, Schema, Sided, concatenate, empty
from pipeline.merge import Merge, merged_schema
from pipeline.pictures import Pictures

if TYPE_CHECKING:
    from pipeline.clock import Clock
    from pipeline.config import Config, Node
    from pipeline.problem import Problem

log = logging.getLogger("headwater")

REFUSED = Schema(None, {"reason": Field("string"), "raw": Field("string")}, "refused")  # of every NAME.invalid


class Guilty(NamedTuple):
    """Rows that an error in an operator cost."""

    node: str
    reason: str
    rows: Frame
    schema: Schema
    side: str = ""  # the further stream they came by; "": the input


class Forget(NamedTuple):
    """A key is gone for good."""

    key: int
    stream: str | None  # in what comes of it; None: everywhere


class Edge:
    """An operator in the graph: its input, its outputs, and what becomes of its errors."""

    def __init__(self, name: str, operator: Operator, aside: Callable[[Guilty], None]) -> None:
        self.name = name
        self.operator = operator
        self.context: OperatorContext = operator.context
        self.aside = aside  # told the rows that an error cost
        # What comes in, by name: the input has none.
        self.inputs = {"": self.context.schema, **{s: f for of in self.context.sides.values() for s, f in of.items()}}
        self.outlets: dict[str, Subject[Frame]] = {"": Subject(), **{o: Subject() for o in self.context.outputs}}
        self.failure = ""  # the newest error, for /health
        self.rows_in = self.rows_out = 0
        self.forgets: Ints | None = None  # keys to forget after the next Frame
        self.injected: dict[str, Frame] = {}  # rows for this operator only, before those of its next Frame; as `inputs`
        self._came: list[Frame] = []
        self._error: Exception | None = None
        self._connect()

    def _connect(self) -> None:
        self._inlet: Subject[Frame] = Subject()
        self.operator(self._inlet).subscribe(self._came.append, self._failed)

    def _failed(self, error: Exception) -> None:
        # Rx ends the subscription of a stream that failed; the operator keeps its state, so a new one goes on.
        self._error = error
        self._connect()

    def grow(self) -> None:
        """Room for the keys that there are."""
        for state in self.context.states.values():
            state.grow(len(self.context.keys))

    def on_next(self, frame: Frame) -> None:
        """One Frame in, one Frame out of each output."""
        self.grow()
        if self.injected:
            frame, self.injected = _before(self.injected, frame), {}
        self._run(frame)
        if self.forgets is not None:
            self._forget(self.forgets, frame)
            self.forgets = None
        out = self._gather(self._came, self.operator.schema, frame.progress)
        self.rows_in += len(frame)
        self.rows_out += len(out)
        self.outlets[""].on_next(out)
        for name, schema in self.context.outputs.items():
            self.outlets[name].on_next(self._gather(self.context.emitted[name], schema, frame.progress))

    def _forget(self, keys: Ints, frame: Frame) -> None:
        """What comes of the others' forgetting has come in with the Frame: so nothing of the keys is left behind."""
        try:
            told = self.operator.forget(keys, frame)
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"
            log.exception("%s failed to forget keys", self.name)
            return
        if told is not None and len(told):
            self._came.append(told)

    def _gather(self, came: list[Frame], schema: Schema, progress: Progress) -> Frame:
        if not came:
            return empty(schema, progress)
        out = concatenate(came, progress)
        came.clear()
        return out

    def _run(self, frame: Frame) -> None:
        kept = len(self._came)
        self._inlet.on_next(frame)
        error, self._error = self._error, None
        self.context.settle(done=error is None)
        refused, self.context.refused = self.context.refused, []
        if error is None:
            for rows, self.failure in refused:
                log.error("%s failed: %s", self.name, self.failure)
                self.aside(Guilty(self.name, self.failure, rows, self.context.schema))
            return
        del self._came[kept:]
        self.failure = f"{type(error).__name__}: {error}"
        halves = frame.halves()
        if halves:  # look for the guilty rows: log2 of the Frame's length tries for each
            self._run(halves[0])
            self._run(halves[1])
            return
        # What is read of a file is no row that could be tried again.
        guilty = {name: rows for name, rows in {"": frame, **frame.sides}.items() if len(rows) and name in self.inputs}
        log.error("%s failed: %s", self.name, self.failure, exc_info=None if guilty else error)
        for side, rows in guilty.items():
            self.aside(Guilty(self.name, self.failure, rows, self.inputs[side], side))


def _before(injected: Mapping[str, Frame], frame: Frame) -> Frame:
    """The Frame with these rows before its own, by input."""
    came = {"": frame, **frame.sides}
    for name, rows in injected.items():
        came[name] = concatenate([rows, came[name]] if name in came else [rows], frame.progress)
    main = came.pop("")
    return Sided(main, came) if came else main


def _whole(made: Any) -> Any:
    """A component just made. TypeError: its author forgot what all others rely on."""
    if not hasattr(made, "context"):
        raise TypeError(f"{type(made).__name__}.__init__ does not call super().__init__(settings, context)")
    if not isinstance(made, Sink) and not hasattr(made, "schema"):
        raise TypeError(f"{type(made).__name__}.__init__ does not set self.schema: the fields of its readings")
    return made


class Graph:
    """The running graph of a pipeline. Built from a Config; `problems` holds what building found wrong."""

    def __init__(self, config: Config, keys: KeyTable, clock: Clock) -> None:
        self.config = config
        self.keys = keys
        self.clock = clock
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []  # what may be set and will yet hurt
        self.sources: dict[str, Source] = {}
        self.sinks: dict[str, Sink] = {}
        self.edges: dict[str, Edge] = {}
        self.merges: dict[str, Merge] = {}
        self.streams: dict[str, Schema] = {}  # every output that can be named
        self.inputs: dict[str, tuple[str, ...]] = {}
        self.guilty: list[Guilty] = []  # of the step that runs
        self._outlets: dict[str, Subject[Frame]] = {}
        self._places: dict[tuple[str, str], int] = {}  # of each sink's inputs, in the order of the file
        self._delivered: list[tuple[str, str, Frame]] = []  # of the step that runs: sink, stream, rows
        self._made: dict[str, Any] = {
            "folder": config.path.parent,
            "clock": clock,
            "pipeline": config.pipeline.name,
            "pictures": Pictures(),
        }
        for node in config.nodes.values():
            {"source": self._source, "operator": self._operator, "sink": self._sink}[node.kind](node)

    # --- building ---

    def _construct(self, node: Node, context: Any) -> Any:
        """The component; None if it could not be made. Its problems are added to ours, with their lines."""
        made = None
        try:
            made = _whole(node.component(node.settings, context))
        except Exception as error:  # noqa: BLE001 - other people's components may raise anything
            if not context.problems:
                self._problem(node, "", str(error) or type(error).__name__)
        for setting, text in context.problems:
            self._problem(node, setting, text)
        self.warnings += [self.config.problem(_path(node, setting), text) for setting, text in context.warnings]
        return made

    def _problem(self, node: Node, setting: str, text: str) -> None:
        self.problems.append(self.config.problem(_path(node, setting), text))

    def _source(self, node: Node) -> None:
        source = self._construct(node, SourceContext(node.name, self.keys, **self._made))
        if source is None:
            return
        for other in self.sources.values():
            for path in set(source.paths) & set(other.paths):
                self._problem(node, "path", f'"{path}" is taken by the source "{other.context.name}"')
        self.sources[node.name] = source
        self._add_stream(node.name, source.schema, Subject())
        self._add_stream(f"{node.name}.invalid", REFUSED, Subject())

    def _add_stream(self, name: str, schema: Schema, outlet: Subject[Frame]) -> None:
        self.streams[name] = schema
        self._outlets[name] = outlet

    def _inputs(self, node: Node) -> list[str]:
        """The streams of its inputs."""
        return self._known(node, {f"inputs.{i}": name for i, name in enumerate(node.inputs)})

    def _sides(self, node: Node) -> dict[str, dict[str, Schema]]:
        """The further streams that its settings name, by setting, with their schemas."""
        sides = {}
        for setting, streams in node.sides.items():
            places = [setting] if len(streams) == 1 else [f"{setting}.{i}" for i in range(len(streams))]
            found = self._known(node, dict(zip(places, streams, strict=True)))
            sides[setting] = {name: self.streams[name] for name in found}
        return sides

    def _known(self, node: Node, named: Mapping[str, str]) -> list[str]:
        """The streams that there are, of those that settings name. Another is a problem, unless its node has one already."""
        found = []
        for setting, name in named.items():
            base = name.partition(".")[0]
            if name in self.streams:
                found.append(name)
            elif base in self.edges or base in self.sources:
                outputs = sorted(s for s in self.streams if s.startswith(base + "."))
                known = ", ".join(f'"{s}"' for s in outputs) or "none"
                self._problem(node, setting, f'"{name}" is not an output of "{base}" (its further outputs: {known})')
        return found

    def _operator(self, node: Node) -> None:
        inputs = self._inputs(node)
        if not inputs:
            return
        schema, clashes = merged_schema([self.streams[i] for i in inputs])
        for field in clashes:
            self._problem(node, "inputs", f'the inputs give "{field}" different types; convert one with a derive')
        sides = self._sides(node)
        if any(len(found) < len(node.sides[setting]) for setting, found in sides.items()):
            return
        operator = self._construct(node, OperatorContext(node.name, schema, self.keys, sides=sides, **self._made))
        if operator is None:
            return
        edge = self.edges[node.name] = Edge(node.name, operator, self.set_aside)
        beside = [name for name in edge.inputs if name]
        self.inputs[node.name] = (*inputs, *(name for name in beside if name not in inputs))
        self._add_stream(node.name, operator.schema, edge.outlets[""])
        for output, output_schema in operator.context.outputs.items():
            self._add_stream(f"{node.name}.{output}", output_schema, edge.outlets[output])
        outlets = [self._outlets[i] for i in (*inputs, *beside)]
        if len(outlets) == 1:
            outlets[0].subscribe(edge.on_next)
        else:
            merge = self.merges[node.name] = Merge(schema, beside)
            reactivex.zip(*outlets).pipe(ops.map(merge)).subscribe(edge.on_next)

    def _sink(self, node: Node) -> None:
        inputs = self._inputs(node)
        if not inputs:
            return
        context = SinkContext(node.name, {i: self.streams[i] for i in inputs}, self.keys, **self._made)
        sink = self._construct(node, context)
        if sink is None:
            return
        self.sinks[node.name] = sink
        self.inputs[node.name] = tuple(inputs)
        for stream in inputs:
            self._places[node.name, stream] = len(self._places)
            self._outlets[stream].subscribe(self._deliver_to(node.name, stream))

    def _deliver_to(self, sink: str, stream: str) -> Callable[[Frame], None]:
        def deliver(frame: Frame) -> None:
            if len(frame):
                self._delivered.append((sink, stream, frame))

        return deliver

    def set_aside(self, guilty: Guilty) -> None:
        """Rows that an error cost; they become dead letters of the step that runs."""
        self.guilty.append(guilty)

    # --- running ---

    def push(
        self,
        frames: dict[str, Frame],
        injected: Mapping[str, Frame] = {},
        forgets: Sequence[Forget | tuple[int, str | None]] = (),
    ) -> list[tuple[str, str, Frame]]:
        """One step: a Frame for each source and each `SOURCE.invalid`. What reached the sinks: (sink, stream, rows).

        `injected`: rows for one input of single operators ("NODE", or "NODE.SIDE"), that go before what comes to them;
        their `seq` is lower. `forgets`: keys that operators forget when they have taken all this.
        """
        for key, stream in forgets:
            reached = {name.partition(".")[0] for name in self.reach(stream)}
            for edge in (self.edges[name] for name in reached & self.edges.keys()):
                edge.forgets = np.union1d(() if edge.forgets is None else edge.forgets, [key]).astype(np.int64)
        for address, rows in injected.items():
            name, _, side = address.partition(".")
            self.edges[name].injected[side] = rows
        delivered: list[tuple[str, str, Frame]] = []
        self._delivered = delivered
        self.guilty = []
        for name, frame in frames.items():
            outlet = self._outlets[name]
            if outlet.observers:  # Rx asks for a lock three times to find that nobody listens
                outlet.on_next(frame)
        for frame in frames.values():
            self.keys.heard(frame.key)
        self.keys.forgotten.update(key for key, stream in forgets if stream is None)
        # Rx calls the subscribers of a node in the order of their subscription; a file shows its inputs in that of the settings.
        delivered.sort(key=lambda came: self._places[came[0], came[1]])
        return delivered

    def served(self) -> list[Source | Sink]:
        """The sources and sinks that answer over HTTP."""
        parts: list[Source | Sink] = [*self.sources.values(), *self.sinks.values()]
        return [part for part in parts if part.needs_server]

    def reached_from(self, sources: Iterable[str]) -> set[str]:
        """All streams that rows of these sources may reach."""
        nodes = set(sources)
        for name in self.config.nodes:  # each comes after those that it reads
            if any(stream.partition(".")[0] in nodes for stream in self.inputs.get(name, ())):
                nodes.add(name)
        return {stream for stream in self.streams if stream.partition(".")[0] in nodes}

    def reach(self, stream: str | None) -> set[str]:
        """A stream's node with all that rows of it may reach; None: everything."""
        return set(self.streams) if stream is None else self.reached_from([stream.partition(".")[0]])

    def watch(self, stream: str, observer: Callable[[Frame], None]) -> None:
        """Call `observer` with each Frame of a stream."""
        self._outlets[stream].subscribe(observer)

    def due(self) -> int | None:
        """The lowest watermark at which a node would act without a further reading."""
        dues = [d for edge in self.edges.values() if (d := edge.operator.due()) is not None]
        return min(dues) if dues else None

    def snapshot(self) -> dict[str, State]:
        """The state of every node, as copies."""
        states = {name: edge.operator.snapshot() for name, edge in self.edges.items()}
        return states | {f"{name}.merge": {"reached": m.reached} for name, m in self.merges.items()}

    def restore(self, states: dict[str, State]) -> list[str]:
        """Back to a snapshot; a node that it does not hold starts anew. So do those of the answer, whose state is of
        another version of Headwater and is not understood."""
        strange = []
        for name, edge in self.edges.items():
            edge.grow()
            if name not in states:
                continue
            anew = edge.operator.snapshot()
            try:
                edge.operator.restore(states[name])
            except (LookupError, ValueError, TypeError, AttributeError):
                log.warning("%s: its state is of another version and is not understood: it starts anew", name)
                edge.operator.restore(anew)
                strange.append(name)
        for name, merge in self.merges.items():
            if f"{name}.merge" in states:
                merge.reached = states[f"{name}.merge"]["reached"]
        return strange


def _path(node: Node, setting: str) -> tuple[str | int, ...]:
    """Where a setting of a node stands in the file; of a list, with numbers."""
    return (*node.path, *(int(part) if part.isdigit() else part for part in setting.split(".") if part))
