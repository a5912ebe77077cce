"""Dead letters in and out of a step: what is kept of a reading that was refused, and how a letter is tried once more.

    refused   by a source: the reading is decoded by the source as if it had just come
    failed    in an operator: the row goes into that operator alone, and into the journal, since a restart must push it again
    rejected  by a sink's peer: the row goes to that sink alone, into its outbox

A letter that is taken is deleted in the transaction of that step; one that is not stays, with the new reason. So it
counts once, whenever the process is killed.
"""

from __future__ import annotations

import json
import math
from asyncio import Future
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.component import Payload, Refused, Sink, Source
from pipeline.frame import (
    NO_PROGRESS,
    Column,
    Field,
    Frame,
    KeyTable,
    Schema,
    alike,
    column,
    concatenate,
    instants,
    rows,
)
from pipeline.inbox import Waiting
from pipeline.journal.dead import LONGEST, Buried, Letter
from pipeline.times import instant

if TYPE_CHECKING:
    from pipeline.graph import Graph
    from pipeline.intake import Arrived
    from pipeline.writes import Writes

KINDS = {"source": "refused", "operator": "failed", "sink": "rejected"}
AT_ONCE = 200  # letters that one step takes up: as many bytes as it takes of a source
FAILED = "the engine stopped before this was durable"


def kind(graph: Graph, node: str) -> str | None:
    """What a letter of this node is; None: the pipeline has no such node (any more)."""
    found = graph.config.nodes.get(node)
    return KINDS[found.kind] if found else None


def why_not(graph: Graph, letter: Letter) -> str:
    """Why a letter cannot be tried once more; "" if it can."""
    node = letter.node
    if kind(graph, node) is None:
        return f'the pipeline has no node "{node}"'
    if not letter.whole or not letter.row:
        return "not all of it was kept"
    if node in graph.sources and graph.sources[node].again(letter.row.encode(), letter.format) is None:
        return f'the source "{node}" cannot take a reading once more'
    if node in graph.sinks and not _takes_again(graph.sinks[node]):
        return f'the sink "{node}" has no outbox and no file'
    return ""


def _takes_again(sink: Sink) -> bool:
    # A history takes the rows of a step as one Frame; it has no outside that could refuse some.
    return sink.buffer is not None or bool(sink.files())


def shown(graph: Graph, letters: Sequence[Letter]) -> list[dict[str, Any]]:
    """Letters as people and programs outside see them."""
    times = instants(np.array([letter.clock for letter in letters], np.int64), "iso")
    return [
        {
            "id": letter.id,
            "time": time,
            "node": letter.node,
            "kind": kind(graph, letter.node),
            "reason": letter.reason,
            "row": letter.row,
            "replayable": not why_not(graph, letter),
        }
        for letter, time in zip(letters, times, strict=True)
    ]


# --- into the dead letters -----------------------------------------------------------------------------------------


def refusals(name: str, source: Source, arrived: Arrived, refused: Sequence[Refused], clock: int) -> list[Buried]:
    """The readings that a source refused, each whole as it came if it can be told from its neighbours."""
    letters = []
    pieces: dict[int, list[bytes] | None] = {}
    alone = np.bincount([r.payload for r in refused], minlength=len(arrived.counts)) + arrived.counts == 1
    for r in refused:
        payload = arrived.waiting[r.payload].payload
        own = payload.codec is None or payload.codec is getattr(source, "codec", None)
        media_type = "" if own or payload.codec is None else payload.codec.media_types[0]
        if r.payload not in pieces:
            pieces[r.payload] = _pieces(source, payload, alone=bool(alone[r.payload]))
        found = pieces[r.payload]
        if found is None or (r.item >= len(found) and not alone[r.payload]):
            letters.append(Buried(clock, name, r.reason, r.raw, whole=False))
        else:
            letters.append(_reading(clock, name, r.reason, found[min(r.item, len(found) - 1)], media_type))
    return letters


def _pieces(source: Source, payload: Payload, *, alone: bool) -> list[bytes] | None:
    """The readings of a payload. What was refused as the only one of its payload is all of that."""
    try:
        found = source.readings(payload)
    except Exception:  # noqa: BLE001 - what a codec could not decode it need not be able to cut
        found = [payload.data] if isinstance(payload.data, bytes) else None
    return [payload.data] if alone and found is not None and isinstance(payload.data, bytes) else found


def _reading(clock: int, name: str, reason: str, reading: bytes, media_type: str) -> Buried:
    part = reading[: 4 * LONGEST + 4]  # no character is longer than 4 bytes
    try:
        return Buried(clock, name, reason, part.decode(), True, media_type)
    except UnicodeDecodeError:  # cut within a character, or not text: what is shown is not what came
        return Buried(clock, name, reason, part.decode(errors="replace"), False, media_type)


def failures(
    node: str, reason: str, frame: Frame, schema: Schema, keys: Sequence[str], *, side: str = "", **more: str
) -> list[Buried]:
    """Rows that an error cost, as JSON; NaN is told from what is missing. `side`: the stream beside the input they came by."""
    shown = [more | row for row in rows(frame, schema, keys)]
    if side:
        shown = [{"input": side, "row": row} for row in shown]
    return [Buried(frame.clock, node, reason, json.dumps(row, ensure_ascii=False)) for row in shown]


# --- and out of them -----------------------------------------------------------------------------------------------


class Replay:
    """Some dead letters on their way through one step. `done` gives why those that stay could not be taken, by number."""

    def __init__(self, letters: Sequence[Letter] = (), done: Future[dict[int, str]] | None = None) -> None:
        self.letters = letters
        self.done = done
        self.failed: dict[int, str] = {}
        self.new: list[Buried] = []  # of a letter that held several readings, those that were refused again
        self.injected: dict[str, Frame] = {}  # rows for operators, as `Graph.push` takes them
        self._payloads: dict[str, list[tuple[int, Payload]]] = {}
        self._for_sinks: list[tuple[int, str, dict[str, Any]]] = []
        self._of: dict[tuple[str, int], int] = {}  # operator and arrival number of an injected row -> letter

    def begin(self, graph: Graph, first: int) -> int:
        """Sort them by their way. Injected rows are numbered from `first`; the next number comes back."""
        by_operator: dict[str, list[Frame]] = {}
        for letter in self.letters:
            try:
                if reason := why_not(graph, letter):
                    raise ValueError(reason)
                if letter.node in graph.sources:
                    self._refused(graph, letter)
                elif letter.node in graph.edges:
                    address, schema, row = _input_of(graph, letter)
                    frame = frame_of(row, schema, graph.keys, first)
                    by_operator.setdefault(address, []).append(frame)
                    self._of[letter.node, first] = letter.id
                    first += 1
                else:
                    self._for_sinks.append((letter.id, letter.node, _loaded(letter.row)))
            except ValueError as error:
                self.failed[letter.id] = str(error)
        self.injected = {node: concatenate(frames) for node, frames in by_operator.items()}
        return first

    # --- refused by a source ---

    def _refused(self, graph: Graph, letter: Letter) -> None:
        payload = graph.sources[letter.node].again(letter.row.encode(), letter.format)
        assert payload is not None  # `why_not` has asked
        payload.arrival = letter.clock  # what has no time of its own is dated by when it came, and that was then
        self._payloads.setdefault(letter.node, []).append((letter.id, payload))

    def waiting(self, source: str) -> list[Waiting]:
        """Its readings, before all that has come since."""
        return [Waiting(0, payload) for _, payload in self._payloads.get(source, ())]

    def readings(self, source: str) -> int:
        """How many there are of it."""
        return len(self._payloads.get(source, ()))

    def judge(self, name: str, source: Source, arrived: Arrived, clock: int) -> None:
        """See which were taken. What was refused once more was told as that before: it is not refused anew."""
        letters = self._payloads.get(name, ())
        again = [r for r in arrived.refused if r.payload < len(letters)]
        arrived.refused = [r for r in arrived.refused if r.payload >= len(letters)]
        for i, (id_, _) in enumerate(letters):
            own = [r for r in again if r.payload == i]
            if len(own) == 1 and not arrived.counts[i]:
                self.failed[id_] = own[0].reason
            else:
                self.new += refusals(name, source, arrived, own, clock)

    # --- failed in an operator ---

    def failed_again(self, node: str, reason: str, frame: Frame) -> bool:
        """True if the rows that an error cost are an injected one: its letter stays."""
        id_ = self._of.get((node, int(frame.seq[0])))
        if id_ is not None:
            self.failed[id_] = reason
        return id_ is not None

    # --- rejected by a sink's peer ---

    def deliver(self, graph: Graph, writes: Writes) -> None:
        """To their sinks, as these write them; rows that were thinned go as they are."""
        before = len(writes.outbox)
        for id_, name, row in self._for_sinks:
            try:
                stream = _stream(row.pop("stream", None), graph.inputs[name])
                self._deliver(graph, writes, name, stream, row)
            except Exception as error:  # noqa: BLE001 - a component may raise anything; it costs this letter's try
                self.failed[id_] = str(error) or type(error).__name__
        writes.outbox[before:] = _joined(writes.outbox[before:])

    def _deliver(self, graph: Graph, writes: Writes, name: str, stream: str, row: dict[str, Any]) -> None:
        sink, schema = graph.sinks[name], graph.streams[stream]
        if sink.buffer is not None and set(row) != set(schema.names()):
            frame = frame_of(row, schema, graph.keys, 0, free=True)
            writes.enqueue(name, stream, frame, keep=schema.role == "alerts")
            return
        waiting = len(writes.outbox)
        sink.write(stream, frame_of(row, schema, graph.keys, 0), writes)
        if sink.buffer is not None and len(writes.outbox) == waiting:
            raise ValueError("the sink's settings leave this row out")

    # --- the end ---

    def taken(self) -> list[int]:
        """The letters whose rows are in this step."""
        return [letter.id for letter in self.letters if letter.id not in self.failed]

    def finish(self, error: BaseException | None) -> None:
        """The step is durable, or has failed."""
        if self.done is not None and not self.done.done():
            everything = {letter.id: FAILED for letter in self.letters}
            self.done.set_result(self.failed if error is None else everything)


def _input_of(graph: Graph, letter: Letter) -> tuple[str, Schema, dict[str, Any]]:
    """Where in an operator a row goes (`Graph.push` says how that is written), what it must be, and the row."""
    inputs, row = graph.edges[letter.node].inputs, _loaded(letter.row)
    if not isinstance(row.get("row"), dict):  # no field is a table, so this cannot be a row of the input
        return letter.node, inputs[""], row
    side = row.get("input")
    if side not in inputs:
        raise ValueError(f'the operator does not read "{side}"')
    return f"{letter.node}.{side}", inputs[side], row["row"]


NOTHING = Replay()  # most steps replay no letters: without any, nothing in it ever changes


def _stream(told: Any, inputs: Sequence[str]) -> str:
    if told in inputs:
        return str(told)
    raise ValueError(f'"{told}" is not an input of it')


def _joined(entries: list[tuple[str, str, Frame, bool]]) -> list[tuple[str, str, Frame, bool]]:
    """Neighbours that go the same way as one: an entry of the outbox costs more than a row."""
    found: list[tuple[str, str, Frame, bool]] = []
    for entry in entries:
        sink, stream, frame, keep = entry
        if found and (sink, stream, keep) == (*found[-1][:2], found[-1][3]) and alike(found[-1][2], frame):
            found[-1] = (sink, stream, concatenate([found[-1][2], frame]), keep)
        else:
            found.append(entry)
    return found


# --- a row as JSON, and back ---------------------------------------------------------------------------------------


def _loaded(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("it is not a row")
    return found


def frame_of(row: Mapping[str, Any], schema: Schema, keys: KeyTable, seq: int, *, free: bool = False) -> Frame:
    """A row as `rows` shows it, as a Frame; ValueError if it does not fit.

    `free`: whatever it holds is taken, as the kind that it has.
    """
    time = instant(row["time"]) if isinstance(row.get("time"), str) else None
    if time is None:
        raise ValueError("time: missing")
    if schema.key is None:
        code = keys.whole()
    elif isinstance(name := row.get(schema.key), str) and name:
        code = keys[name]
    else:
        raise ValueError(f"{schema.key}: missing")
    if code < 0:
        raise ValueError(keys.why(code))
    columns = (
        dict(_free_columns(row, schema)) if free else {n: _one(n, f, row.get(n)) for n, f in schema.fields.items()}
    )
    return Frame(np.array([time]), np.array([code], np.int32), np.array([seq]), columns, NO_PROGRESS)


def _one(name: str, field: Field, value: Any) -> Column:
    if value is None and field.nan and not field.optional:
        value = math.nan  # strict JSON has no NaN, and shows it as what is missing
    found = None if value is None else _fitting(field.kind, value)
    if found is None and not (value is None and field.optional):
        raise ValueError(f"{name}: missing" if value is None else f"{name}: expected {field.kind}")
    return column(field.kind, [found])


def _fitting(kind: str, value: Any) -> Any:
    """The value as one of this kind; None if it is none."""
    if kind == "time":
        return instant(value) if isinstance(value, str) else None
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wanted = {"float": float, "int": int, "bool": bool, "string": str}[kind]
    fits = isinstance(value, wanted) and (kind == "bool" or not isinstance(value, bool))
    return value if fits and not (kind == "int" and abs(value) >= 2**63) else None


def _free_columns(row: Mapping[str, Any], schema: Schema) -> Iterator[tuple[str, Column]]:
    kinds = ((bool, "bool"), (int, "int"), (float, "float"), (str, "string"))
    for name, value in row.items():
        kind_ = next((k for type_, k in kinds if isinstance(value, type_)), None)
        if name not in (schema.key, "time") and kind_ is not None:
            yield name, column(kind_, [value])
