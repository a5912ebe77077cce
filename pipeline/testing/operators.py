"""An operator run every way: cut at every place, with and without restarts, and held to what the graph relies on."""

from __future__ import annotations

import typing
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from pipeline import quantity
from pipeline.component import Operator, OperatorContext
from pipeline.frame import DTYPES, NEVER, Column, Field, Frame, KeyTable, Schema, Sided, concatenate
from pipeline.frame import rows as rows_of
from pipeline.merge import Merge
from pipeline.testing.readings import READINGS, Feeds, Mark, Reading, ns, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MOST_CUTS = 40  # a longer stream is cut at so many places, evenly spread


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
    every_way: bool = True,
) -> list[dict[str, Any]]:
    """The rows that leave the operator (or its output `output`), times in ns. AssertionError if a cut or a restart
    changes them (which costs most of the time: `every_way`), or if the operator breaks a rule that the graph relies on."""
    operator, problems = make(cls, settings, schema, name=name, sides=sides, folder=folder)
    assert not problems, f"the settings are wrong: {problems}"
    beside = {stream: s for of in operator.context.sides.values() for stream, s in of.items()}
    feed = Feeds(parse(rows) if isinstance(rows, str) else rows, schema, beside, ns(disorder), clock)
    runner = _Runner(cls, settings, feed, name, folder)
    whole = runner.rows((), restarts=False, pauses=False)
    if not every_way:
        return [row for _, row in whole[output]]
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

    def __init__(self, cls: type[Operator], settings: Mapping[str, Any], feed: Feeds, name: str, folder: Path) -> None:
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
                others: Rows = {output: [] for output in rows}
                left.push(self.feed.frames(start, stop, left.keys), others, files, self.feed.forgets(stop))
            frames = self.feed.frames(start, stop, node.keys)
            node.push(frames, rows, self.feed.file(start, node.operator), self.feed.forgets(stop))
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

    def push(
        self,
        frames: Sequence[Frame],
        rows: Rows,
        files: Mapping[str, Frame] = MappingProxyType({}),
        forgets: str | None = None,
    ) -> None:
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
        if (key := self.keys.get(forgets)) is not None:
            told = self.operator.forget(np.array([key], np.int64), frame)
            self._gather(None, self.operator.schema, [] if told is None else [told], frame, rows)
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
