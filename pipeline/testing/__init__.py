"""The test kit, for our tests and for those of other people's operators.

    rows = run(Alert, {"when": "value > 30"}, "a31 b12 a- a29")

pushes these readings through the operator cut every way (whole; singly; in two at every place, with an empty Frame
between; with and without a restart at each cut) and fails if any two ways differ in one bit. On the way it holds the
operator to what the graph relies on: it does not write to what it is given, its rows fit its schema and leave in order
of arrival, its snapshot is a copy that can be saved, and it says beforehand when time alone would make rows leave.

Readings are dicts `{"key": "a", "time": 3, "value": 21.5}` (times in seconds, or ns from 10**10 on; None: missing),
with `tick(20)`, `file("…")` and `end()` among them; or text: `"a31 b-4@2.5 a- tick@20 end"`, where a reading comes each second
unless `@` gives its time, and `-` alone is a missing value. Hypothesis makes them by `streams()`.

Of an operator whose settings name further streams (`Operator.sides`), a reading with `"input": "doors"` comes by the stream
`doors`, in text `doors:a1`. Each stream is then as if it had a source of its own; ticks are for all.
"""

from __future__ import annotations

import itertools
import re
import typing
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from pipeline import quantity
from pipeline.component import Operator, OperatorContext
from pipeline.frame import (
    DTYPES,
    NEVER,
    SECOND,
    Array,
    Column,
    Field,
    Frame,
    Ints,
    KeyTable,
    Progress,
    Schema,
    Sided,
    column,
    concatenate,
    outside_frame,
)
from pipeline.frame import rows as rows_of
from pipeline.merge import Merge

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from hypothesis.strategies import SearchStrategy

READINGS = Schema("key", {"value": Field("float", optional=True)})  # of a stream that is written as text
FIRST_NS = 10**10  # a time as large as this is in ns: in seconds it would be the year 2286
MOST_CUTS = 40  # a longer stream is cut at so many places, evenly spread

_READING = re.compile(r"(?:(\w+):)?([A-Za-z_]+)(-?[0-9.]+(?:e-?[0-9]+)?|nan|-)(?:@(-?[0-9.]+))?")


class Mark(NamedTuple):
    """Stands among readings where a step of the engine ends; or, with a `content`, where one begins."""

    watermark: int | None = None  # ns; what a tick moves it to
    ended: bool = False
    content: str | None = None  # what a file that the operator reads (`OperatorContext.files`) has from here on


Reading = dict[str, Any]
Stream = list[Reading | Mark]


def tick(seconds: float) -> Mark:
    """Time passes without a reading: the watermark moves up to here."""
    return Mark(_ns(seconds))


def end() -> Mark:
    """A finite input is at its end."""
    return Mark(ended=True)


def file(content: str) -> Mark:
    """A file that the operator reads has changed."""
    return Mark(content=content)


def _ns(time: float) -> int:
    if isinstance(time, int) and abs(time) >= FIRST_NS:
        return time
    return round(time * SECOND)


# --- readings as Frames ---------------------------------------------------------------------------------------------


def parse(text: str) -> Stream:
    """`"a31 b-4@2.5 a- tick@20 end"` as readings of the schema `READINGS`."""
    stream: Stream = []
    for second, word in enumerate(text.split()):
        if word == "end":
            stream.append(end())
        elif word.startswith("tick@"):
            stream.append(tick(float(word[5:])))
        elif match := _READING.fullmatch(word):
            side, key, value, at = match.groups()
            time = float(at) if at else second
            reading = {"key": key, "time": time, "value": None if value == "-" else float(value)}
            stream.append({"input": side, **reading} if side else reading)
        else:
            raise ValueError(f'"{word}" is no reading; write "a1", "a1.5@20", "a-", "tick@30" or "end"')
    return stream


def compact(rows: Iterable[Mapping[str, Any]], field: str = "value", key: str = "key") -> str:
    """Rows as `parse` reads them, without their times."""
    return " ".join(f"{row[key]}{'-' if row[field] is None else format(row[field], 'g')}" for row in rows)


def frames(
    rows: str | Sequence[Reading | Mark],
    schema: Schema,
    keys: KeyTable,
    *,
    disorder: float = 0,
    cuts: Iterable[int] = (),
    clock: int = 0,
) -> list[Frame]:
    """The Frames of a source with these readings: one ends after each mark, and before each of `cuts` (positions).

    `disorder` in seconds: the watermark before a reading is the newest time before it, less this.
    """
    feed = _Feed(parse(rows) if isinstance(rows, str) else rows, schema, _ns(disorder), clock)
    return [feed.frame(a, b, keys) for a, b in feed.steps(cuts)]


class _Feed:
    """A stream as columns, from which any step can be cut: its readings that come by one input."""

    def __init__(
        self,
        stream: Sequence[Reading | Mark],
        schema: Schema,
        disorder: int,
        clock: int,
        name: str = "",
        sides: Collection[str] = (),
    ) -> None:
        self.stream = stream
        self.schema = schema
        self.clock = clock
        self.own = [isinstance(r, dict) and _input_of(r, sides) == name for r in stream]
        readings: list[Any] = list(itertools.compress(stream, self.own))
        self.files = [i for i, r in enumerate(stream) if isinstance(r, Mark) and r.content is not None]
        self.marked = [i for i, r in enumerate(stream) if isinstance(r, Mark) and r.content is None]
        self.number_at = np.cumsum(
            [0, *(not isinstance(r, Mark) or r.content is not None for r in stream)]
        )  # arrivals before each
        self.reading_at = np.cumsum([0, *self.own])  # those of this input
        self.at = np.flatnonzero(self.own)
        self.time = np.array([_ns(r["time"]) for r in readings], np.int64)
        table = KeyTable()
        self.key = table.codes([r["key"] for r in readings]) if schema.key else np.zeros(len(readings), np.int32)
        self.names = table.names
        self.columns = {n: column(f.kind, [r.get(n) for r in readings]) for n, f in schema.fields.items()}
        self.watermarks = self._watermarks(disorder)
        for array in (self.time, *(a for c in self.columns.values() for a in c if a is not None)):
            array.flags.writeable = False

    def _watermarks(self, disorder: int) -> Ints:
        """The watermark before each position of the stream, and after the last."""
        marks = [NEVER]
        for item, own in zip(self.stream, self.own, strict=True):
            if isinstance(item, Mark):
                to = NEVER if item.watermark is None else item.watermark
            else:
                to = _ns(item["time"]) - disorder if own else NEVER
            marks.append(max(marks[-1], to))
        return np.array(marks, np.int64)

    def steps(self, cuts: Iterable[int]) -> list[tuple[int, int]]:
        """Start and end of each Frame, as positions in the stream."""
        bounds = sorted(
            {
                0,
                len(self.stream),
                *self.files,
                *(i + 1 for i in self.marked),
                *(c for c in cuts if c < len(self.stream)),
            }
        )
        return list(itertools.pairwise(bounds))

    def _codes(self, key: Array, keys: KeyTable) -> Array:
        """Their codes in a table, in which there may be more by now than the keys of the stream."""
        if self.schema.key is None:
            return np.full(len(key), keys.whole(), np.int32)
        return keys.codes(self.names[: int(key.max(initial=-1)) + 1])[key]

    def frame(self, start: int, end: int, keys: KeyTable) -> Frame:
        """The readings between two positions; only the last may be a mark."""
        first, last = int(self.reading_at[start]), int(self.reading_at[end])
        seq = self.number_at[self.at[first:last]]
        before = self.watermarks[self.at[first:last]]
        key = self._codes(self.key[first:last], keys)
        for array in (seq, before, key):
            array.flags.writeable = False
        mark = self.stream[end - 1] if end > start else None
        ended = isinstance(mark, Mark) and mark.ended
        progress = Progress(
            seq,
            before,
            after=int(self.watermarks[end - 1 if isinstance(mark, Mark) else end]),
            watermark=int(self.watermarks[end]),
            clock=self.clock,
            next_seq=int(self.number_at[end]),
            quiet=ended,
            ended=ended,
        )
        columns = MappingProxyType({name: c.take(slice(first, last)) for name, c in self.columns.items()})
        return Frame(self.time[first:last], key, seq, columns, progress)


def _input_of(reading: Reading, sides: Collection[str]) -> str:
    """The stream by which a reading comes; "": the input."""
    name = reading.get("input", "")
    return name if name in sides else ""


class _Feeds:
    """All that comes to an operator: by its input, and by the further streams that its settings name."""

    def __init__(
        self, stream: Sequence[Reading | Mark], schema: Schema, sides: Mapping[str, Schema], disorder: int, clock: int
    ) -> None:
        self.stream = stream
        self.schema = schema
        self.sides = sides
        named = {"": schema, **sides}
        self.feeds = [_Feed(stream, s, disorder, clock, name, sides) for name, s in named.items()]
        self.steps = self.feeds[0].steps

    def frames(self, start: int, end: int, keys: KeyTable) -> list[Frame]:
        """The Frame of each between two positions; only the last may be a mark, and the first a file."""
        return [feed.frame(start, end, keys) for feed in self.feeds]

    def file(self, start: int, operator: Operator) -> dict[str, Frame]:
        """The rows of a file that has changed at this position, as a side."""
        item = self.stream[start]
        if not isinstance(item, Mark) or item.content is None:
            return {}
        ((name, outside),) = operator.context.files.items()
        return {name: outside_frame(outside.read(item.content.encode()), int(self.feeds[0].number_at[start]))}

    def nothing(self, at: int, keys: KeyTable) -> list[Frame]:
        """Without rows, and without time."""
        found = []
        for feed in self.feeds:
            frame, mark = feed.frame(at, at, keys), int(feed.watermarks[at])
            found.append(frame.with_progress(frame.progress._replace(after=mark, watermark=mark)))
        return found


# --- an operator run every way --------------------------------------------------------------------------------------


def make(
    cls: type[Operator],
    settings: Mapping[str, Any],
    schema: Schema = READINGS,
    *,
    name: str = "node",
    keys: KeyTable | None = None,
    sides: Mapping[str, Schema] | None = None,
    folder: Path = Path(),
) -> tuple[Operator, list[tuple[str, str]]]:
    """The operator, from settings as they stand in a pipeline file, and the problems that it found in them.

    `sides`: the schemas of further streams that the settings name; of one that is not in it, that of the input.
    `folder`: where the pipeline file would lie.
    """
    kind = typing.get_type_hints(cls.__init__)["settings"]
    converted = msgspec.convert(dict(settings), kind, dec_hook=quantity.convert)
    schemas = sides or {}
    beside = {s: {n: schemas.get(n, schema) for n in _streams_of(settings.get(s, ()))} for s in cls.sides}
    context = OperatorContext(name, schema, KeyTable() if keys is None else keys, sides=beside, folder=folder)
    operator = cls(converted, context)
    return operator, context.problems


def _streams_of(named: Any) -> Sequence[str]:
    return [named] if isinstance(named, str) else named


def run(
    cls: type[Operator],
    settings: Mapping[str, Any],
    rows: str | Sequence[Reading | Mark],
    *,
    schema: Schema = READINGS,
    sides: Mapping[str, Schema] | None = None,
    disorder: float = 0,
    output: str | None = None,
    name: str = "node",
    clock: int = 0,
    folder: Path = Path(),
) -> list[dict[str, Any]]:
    """The rows that leave the operator (or its output `output`), times in ns. AssertionError if a cut or a restart
    changes them, or if the operator breaks a rule that the graph relies on."""
    operator, problems = make(cls, settings, schema, name=name, sides=sides, folder=folder)
    assert not problems, f"the settings are wrong: {problems}"
    beside = {stream: s for of in operator.context.sides.values() for stream, s in of.items()}
    feed = _Feeds(parse(rows) if isinstance(rows, str) else rows, schema, beside, _ns(disorder), clock)
    runner = _Runner(cls, settings, feed, name, folder)
    whole = runner.rows((), restarts=False, pauses=False)
    every = range(1, len(feed.stream))
    _same(whole, runner.rows(every, restarts=False, pauses=False), "one reading at a time")
    _same(whole, runner.rows(every, restarts=True, pauses=True), "one reading at a time, with a restart after each")
    spread = every[:: max(1, -(-len(every) // MOST_CUTS))]
    for cut in spread:
        _same(whole, runner.rows((cut,), restarts=False, pauses=True), f"cut before reading {cut}")
        _same(whole, runner.rows((cut,), restarts=True, pauses=False), f"cut before reading {cut}, with a restart")
    return [row for _, row in whole[output]]


Rows = dict[str | None, list[tuple[int, dict[str, Any]]]]  # output -> (arrival number, row)


def _same(whole: Rows, other: Rows, how: str) -> None:
    # As text: floats to the last bit, NaN equal to NaN, 0.0 unlike -0.0, and 1 unlike 1.0.
    for output in whole:
        a, b = [str(r) for r in whole[output]], [str(r) for r in other[output]]
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            one, two = (r[at] if at < len(r) else "nothing" for r in (a, b))
            where = f' of output "{output}"' if output else ""
            raise AssertionError(f"{how}: row {at}{where} is\n    {two}\nbut whole it is\n    {one}")


class _Runner:
    """One operator and one stream; each call of `rows` is a fresh run."""

    def __init__(self, cls: type[Operator], settings: Mapping[str, Any], feed: _Feeds, name: str, folder: Path) -> None:
        self.cls = cls
        self.settings = settings
        self.feed = feed
        self.name = name
        self.folder = folder

    def rows(self, cuts: Iterable[int], *, restarts: bool, pauses: bool) -> Rows:
        """What leaves when the stream is cut so. `pauses`: an empty Frame after each, in which no time passes."""
        node = left = self._node(KeyTable())
        rows: Rows = {None: [], **{o: [] for o in node.operator.context.outputs}}
        snapshots = []
        for start, stop in self.feed.steps(cuts):
            if left is not node:  # the one before the restart goes on as well, for what it may do to its snapshot
                files = self.feed.file(start, left.operator)
                left.push(self.feed.frames(start, stop, left.keys), {output: [] for output in rows}, files)
            frames = self.feed.frames(start, stop, node.keys)
            node.push(frames, rows, self.feed.file(start, node.operator))
            if pauses and not frames[0].ended:
                node.push(self.feed.nothing(stop, node.keys), rows)
            if restarts:
                snapshot = node.operator.snapshot()
                saved = _pack(snapshot)
                snapshots.append((snapshot, saved))
                left, node = node, self._node(KeyTable(node.keys.names), _unpack(saved), node.merge.reached)
        for snapshot, saved in snapshots:
            assert _pack(snapshot) == saved, "snapshot gave the state itself, and it changed afterwards: give copies"
        return rows

    def _node(self, keys: KeyTable, state: Any = None, reached: int = NEVER) -> _Node:
        feed = self.feed
        named: dict[str, Any] = {"name": self.name, "sides": feed.sides, "folder": self.folder}
        operator, _ = make(self.cls, self.settings, feed.schema, keys=keys, **named)
        merge = Merge(feed.schema, [*feed.sides])
        merge.reached = reached
        return _Node(operator, merge, state)


class _Node:
    """An operator as the graph runs it: an RxPY operator on a Subject."""

    def __init__(self, operator: Operator, merge: Merge, state: Any = None) -> None:
        from reactivex.subject import Subject

        self.operator = operator
        self.merge = merge
        self.keys = operator.context.keys
        self.came: list[Frame] = []
        self.errors: list[Exception] = []
        self.inlet: Subject[Frame] = Subject()
        operator(self.inlet).subscribe(self.came.append, self.errors.append)
        self._grow()
        if state is not None:
            operator.restore(state)

    def _grow(self) -> None:
        for state in self.operator.context.states.values():
            state.grow(len(self.keys))

    def push(self, frames: Sequence[Frame], rows: Rows, files: Mapping[str, Frame] = MappingProxyType({})) -> None:
        """One step; what leaves is added to `rows`."""
        frame = self.merge(frames) if self.merge.sides else frames[0]
        if files:
            frame = Sided(frame, {**frame.sides, **files})
        self._grow()
        due = self.operator.due()
        had = len(rows[None])
        self.inlet.on_next(frame)
        if self.errors:
            raise self.errors[0]
        self.operator.context.settle(done=True)
        self._gather(None, self.operator.schema, self.came, frame, rows)
        if len(rows[None]) > had and not len(frame.progress.seq) and not frame.ended:
            assert due is not None, "rows left because time passed, but `due` had said None: nobody would have ticked"
            assert due <= frame.watermark, f"rows left at the watermark {frame.watermark}; `due` had said {due}"
        due = self.operator.due()
        assert due is None or due > frame.watermark or frame.ended, (
            f"due at {due} after the watermark {frame.watermark}"
        )
        for output, schema in self.operator.context.outputs.items():
            self._gather(output, schema, self.operator.context.emitted[output], frame, rows)

    def _gather(self, output: str | None, schema: Schema, came: list[Frame], pushed: Frame, rows: Rows) -> None:
        if not came:
            return
        frame = concatenate(came, pushed.progress)
        came.clear()
        if len(frame):
            _check(frame, schema, pushed, self.keys)
            rows[output].extend(zip(frame.seq.tolist(), rows_of(frame, schema, self.keys.names, "ns"), strict=True))


def _check(frame: Frame, schema: Schema, pushed: Frame, keys: KeyTable) -> None:
    """What leaves fits the schema, and comes in order of arrival."""
    n = len(frame)
    assert frame.time.dtype == np.int64, f"time is {frame.time.dtype}, not int64"
    assert frame.key.dtype == np.int32, f"key is {frame.key.dtype}, not int32"
    assert len(frame.key) == len(frame.seq) == n, "time, key and seq differ in length"
    assert set(frame.key.tolist()) <= set(range(len(keys))), "a key code that is not in the key table"
    assert bool((np.diff(frame.seq) >= 0).all()), f"rows do not leave in order of arrival: {frame.seq.tolist()}"
    first = pushed.progress.seq[0] if len(pushed.progress.seq) else pushed.progress.next_seq
    assert first <= frame.seq[0], f"arrival number {frame.seq[0]} is of an earlier step"
    assert frame.seq[-1] <= pushed.progress.next_seq, f"arrival number {frame.seq[-1]} is of a later step"
    assert list(frame.columns) == list(schema.fields), f"columns {list(frame.columns)}, schema {list(schema.fields)}"
    for name, field in schema.fields.items():
        _check_column(name, field, frame.columns[name], n)


def _check_column(name: str, field: Field, found: Column, n: int) -> None:
    values, present = found
    assert values.dtype == DTYPES[field.kind], f"{name} is {values.dtype}; {field.kind} was said"
    assert len(values) == n, f"{name} has {len(values)} values for {n} rows"
    if present is not None:
        assert field.optional or present.all(), (
            f"{name} is missing somewhere, but the schema does not say that it may be"
        )
        absent = values[~present].tolist()
        assert not any(absent), f"under a missing {name} lies {absent}; it must be the zero of its type"
    if field.kind == "float" and not field.nan:
        assert not np.isnan(values).any(), f"{name} is NaN somewhere, but the schema does not say that it may be"


def _pack(state: Any) -> bytes:
    from pipeline.journal.state import pack

    return pack(state)


def _unpack(data: bytes) -> Any:
    from pipeline.journal.state import unpack

    return unpack(data)


# --- streams made by Hypothesis -------------------------------------------------------------------------------------


def streams(
    schema: Schema = READINGS,
    *,
    keys: str = "abc",
    values: SearchStrategy[Any] | None = None,
    late: int = 3,
    ticks: bool = True,
    max_size: int = 20,
    sides: Mapping[str, Schema] | None = None,
    files: Sequence[str] = (),
) -> SearchStrategy[Stream]:
    """Readings of several keys. Time moves on by whole seconds, often not at all; a reading may be dated up to `late`
    seconds back, an optional value may be missing, and (with `ticks`) time may run ahead between them and the end come.

    `values`: what the fields are drawn from; else small numbers, so that equal ones and small differences are frequent.
    `sides`: further streams by which readings come, with their schemas; `files`: contents that a file may come to have.
    """
    from hypothesis import strategies as st

    small = {
        "float": st.integers(-8, 8).map(lambda n: n / 2),
        "int": st.integers(-4, 4),
        "bool": st.booleans(),
        "string": st.sampled_from(["", "open", "shut"]),
        "time": st.integers(0, 10).map(lambda s: s * SECOND),
    }

    def of_field(field: Field) -> SearchStrategy[Any]:
        of = small[field.kind] if values is None else values
        return st.one_of(of, st.none()) if field.optional else of

    def by_input(name: str, of: Schema) -> SearchStrategy[Reading]:
        own = {"input": st.just(name)} if name else {}
        fields = {field_name: of_field(field) for field_name, field in of.fields.items()}
        return st.fixed_dictionaries({**own, "key": st.sampled_from(keys), "back": st.integers(0, late), **fields})

    reading = st.one_of([by_input(name, of) for name, of in {"": schema, **(sides or {})}.items()])
    changes = [st.sampled_from([*files]).map(file)] if files else []
    item = st.one_of(reading, reading, reading, *([st.none()] if ticks else []), *changes)
    steps = st.lists(st.tuples(st.sampled_from([0, 0, 1, 1, 2, 5]), item), max_size=max_size)

    def stream(made: tuple[list[tuple[int, Reading | Mark | None]], bool]) -> Stream:
        now, found = late, Stream()
        for pause, one in made[0]:
            now += pause
            if one is None:
                found.append(tick(now))
            elif isinstance(one, Mark):
                found.append(one)
            else:
                found.append({**{n: v for n, v in one.items() if n != "back"}, "time": now - one["back"]})
        return [*found, end()] if made[1] else found

    return st.tuples(steps, st.booleans() if ticks else st.just(False)).map(stream)
