"""What an operator is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from pipeline.component.context import Context, State
from pipeline.frame import Column, Field, Frame, Ints, KeyTable, Schema
from pipeline.perkey import PerKey

if TYPE_CHECKING:
    from reactivex import Observable

    from pipeline.expression import Expression
    from pipeline.past import Past


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

    def forget(self, keys: Ints, frame: Frame) -> Frame | None:
        """These keys, by code, are gone for good: keep nothing of them; one that is heard again begins anew. Comes at the end
        of a step, after its Frame, whose `progress` says where time is. What is to be told of it are rows of `schema`, with
        the number `frame.progress.next_seq`; None: nothing. An operator with state beside that of `per_key` drops its own."""
        for state in self.context.states.values():
            state.forget(keys)
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
