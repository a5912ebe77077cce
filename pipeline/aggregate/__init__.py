"""What a window computes: `count()`, `mean(temperature)`, `quantile(x - y, 0.95)`.

    count()  count(x)            how many readings; how many that have x
    sum  mean  range             range: the highest less the lowest
    min  max  mode               mode: the most frequent value, of equally frequent ones the smallest
    first  last  delta           by event time, of equal times by arrival; delta: last less first
    stddev  variance             of the sample: missing for a single value
    median  quantile(x, 0.95)    between two values linearly; within 0.5 % of that beyond 4,096 values in a window
    distinct                     how many different values, up to 4,096; mode is one of the first 4,096
    rate                         increase per second from first to last; a counter that falls has begun again at 0
    time_weighted_mean           each value holds until the group's next one, the last one until the window's end

The argument is any expression over the input. Missing values are left out; where none is left, so is the result, but
for the numbers of `count` and `distinct`. `min max first last mode` give what they are given, also text and times;
`sum`, `range` and `delta` of whole numbers are whole, and missing beyond 64 bits. True and false count as 1 and 0.

Numbers are added up reading by reading, in order of arrival (`running.py`), in tables (`cells.py`, `slots.py`). What
needs all values at once keeps them until the window is past, in order (`kept.py`, `whole.py`) or counted (`tally.py`).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.aggregate.kept import Kept
from pipeline.aggregate.running import Accumulator, Columns, Count, Edge, Extreme, Moments, Readings, Total, WholeTotal
from pipeline.aggregate.tally import Counts, Tally
from pipeline.aggregate.whole import Values
from pipeline.frame import DTYPES, Array, Bools, Column, Field, Frame, Ints
from pipeline.problem import did_you_mean

if TYPE_CHECKING:
    from pipeline.component import OperatorContext
    from pipeline.expression import Expression

NUMBERS = ("float", "int", "bool")
_MOST = 9.2e18  # a whole number whose float is beyond this may have left 64 bits


class Argument:
    """What is aggregated: an expression, and what is kept of its values."""

    def __init__(self, text: str, expression: Expression) -> None:
        self.text = text
        self.expression = expression
        self.kind = expression.kind
        self.optional = expression.optional
        self.nan = expression.nan
        self.accumulators: dict[str, Accumulator] = {}
        self.stores: dict[
            str, int
        ] = {}  # how its values are kept ("ordered", "buckets", "values") -> the place in a Store

    @property
    def count(self) -> str:
        """The column that counts its values; without missing ones that is the number of readings."""
        return f"count({self.text if self.optional else ''})"

    def keep_up(self, what: str, count: Count) -> None:
        """`what` is needed of its values. `count` counts them."""
        if what in self.accumulators:
            return
        self.accumulators[what] = self._accumulator(what, count)
        self.accumulators.setdefault("count", count)  # told last: see `Count`
        self.accumulators["count"] = self.accumulators.pop("count")

    def _accumulator(self, what: str, count: Count) -> Accumulator:
        if what in ("min", "max"):
            return Extreme(what, self.text, self.kind, count)
        if what in ("first", "last"):
            return Edge(what, self.text, self.kind)
        if what == "moments":
            return Moments(self.text, count)
        return {"count": count, "sum": Total(self.text), "whole sum": WholeTotal(self.text)}[what]


class Leaving:
    """The cells whose aggregates are wanted, seen by one argument."""

    def __init__(self, argument: Argument, columns: Columns, slots: Ints, values: Values | Counts | None) -> None:
        self.argument = argument
        self.columns = columns
        self.slots = slots
        self._values = values

    def __getitem__(self, what: str) -> Array:
        """What an accumulator holds."""
        column: Array = self.columns[self.argument.accumulators[what].name][self.slots]
        return column

    def variance(self) -> Array:
        moments = self.argument.accumulators["moments"]
        assert isinstance(moments, Moments)
        return moments.variance(self.columns, self.slots)

    @property
    def values(self) -> Values:
        assert isinstance(self._values, Values)
        return self._values

    @property
    def counts(self) -> Counts:
        assert isinstance(self._values, Counts)
        return self._values

    @property
    def count(self) -> Ints:
        return self["count"] if self._values is None else self._values.count


Finish = Callable[..., tuple[Array, Any]]  # a Leaving (and a parameter) -> results, and where they are defined


class Aggregate(NamedTuple):
    """How one is computed. `gives` None: what it is given; "number": that too, with true and false as numbers."""

    finish: Finish
    needs: tuple[str, ...] = ()  # accumulators
    gives: str | None = "float"
    any_kind: bool = False
    parameter: bool = False
    keeps: str = ""  # how its values are kept, if it needs all of them at once


def _sum(of: Leaving) -> tuple[Array, Any]:
    if of.argument.kind == "float":
        return of["sum"], of.count > 0
    return of["whole sum"], (of.count > 0) & (np.abs(of["sum"]) < _MOST)


def _difference(of: Leaving, high: str, low: str) -> tuple[Array, Any]:
    a, b = of[high], of[low]
    if of.argument.kind == "float":
        return a - b, of.count > 0
    apart = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return a.astype(np.int64) - b.astype(np.int64), (of.count > 0) & (apart < _MOST)


AGGREGATES: dict[str, Aggregate] = {
    "count": Aggregate(lambda of: (of.count, True), ("count",), "int", any_kind=True),
    "sum": Aggregate(_sum, ("sum",), "number"),
    "mean": Aggregate(lambda of: (of["sum"] / of.count, of.count > 0), ("sum",)),
    "min": Aggregate(lambda of: (of["min"], of.count > 0), ("min",), None, any_kind=True),
    "max": Aggregate(lambda of: (of["max"], of.count > 0), ("max",), None, any_kind=True),
    "first": Aggregate(lambda of: (of["first"], of.count > 0), ("first",), None, any_kind=True),
    "last": Aggregate(lambda of: (of["last"], of.count > 0), ("last",), None, any_kind=True),
    "stddev": Aggregate(lambda of: (np.sqrt(of.variance()), of.count > 1), ("moments",)),
    "variance": Aggregate(lambda of: (of.variance(), of.count > 1), ("moments",)),
    "median": Aggregate(lambda of: (of.counts.quantile(0.5), of.count > 0), keeps="buckets"),
    "quantile": Aggregate(lambda of, q: (of.counts.quantile(q), of.count > 0), keeps="buckets", parameter=True),
    "range": Aggregate(lambda of: _difference(of, "max", "min"), ("max", "min"), "number"),
    "rate": Aggregate(lambda of: (of.values.rate(), of.count > 1), keeps="ordered"),
    "delta": Aggregate(lambda of: _difference(of, "last", "first"), ("last", "first"), "number"),
    "distinct": Aggregate(lambda of: (of.counts.distinct(), True), (), "int", any_kind=True, keeps="values"),
    "mode": Aggregate(lambda of: (of.counts.mode(), of.count > 0), (), None, any_kind=True, keeps="values"),
    "time_weighted_mean": Aggregate(lambda of: (of.values.time_weighted_mean(), of.count > 0), keeps="ordered"),
}


class _Made(NamedTuple):
    """An aggregate of a node's settings; without an argument it counts readings."""

    aggregate: Aggregate
    argument: Argument | None
    parameters: tuple[float, ...]
    field: Field


class Aggregates:
    """All aggregates of a node. What is kept of each cell is a row of `columns` (name -> dtype, what a new cell holds)
    in a table that the caller has, and the values that `keeps` in a `Kept`."""

    def __init__(self, texts: Mapping[str, str], context: OperatorContext) -> None:
        self.arguments: dict[str, Argument] = {}
        self._rows = Count("")
        self._made: dict[str, _Made] = {}
        self._stores: list[tuple[str, int, Any]] = []  # how values are kept, of which argument, of what dtype
        for name, text in texts.items():
            made = self._parse(f"aggregate.{name}", text, context)
            if made is not None:
                self._made[name] = made
        self.fields = {name: made.field for name, made in self._made.items()}
        self.counts_rows = any(
            made.argument is None or self._rows in made.argument.accumulators.values() for made in self._made.values()
        )
        self._accumulators = [a for argument in self.arguments.values() for a in argument.accumulators.values()]
        self.columns = dict(self._rows.columns) if self.counts_rows else {}
        for accumulator in self._accumulators:
            self.columns |= accumulator.columns
        self.keeps = bool(self._stores)  # values are needed at a cell's end: there must be a Store

    def beyond(self) -> str:
        """What is kept of the readings themselves, in words; "": nothing."""
        ways = {
            "25 B for each reading" if how == "ordered" else "34 B for each different value" for how, *_ in self._stores
        }
        return f"{' and '.join(sorted(ways))} of an open window" if ways else ""

    # --- from text ---

    def _parse(self, setting: str, text: str, context: OperatorContext) -> _Made | None:
        try:
            call = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            call = None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.keywords:
            context.problem(setting, f'"{text}" is not an aggregate; write it as "mean(temperature)"')
            return None
        name = call.func.id
        if name not in AGGREGATES:
            way_out = did_you_mean(name, AGGREGATES) or f"; there are: {', '.join(AGGREGATES)}"
            context.problem(setting, f'there is no aggregate "{name}"{way_out}')
            return None
        if name == "count" and not call.args:
            return _Made(AGGREGATES[name], None, (), Field("int"))
        sources = [ast.get_source_segment(text.strip(), a) or ast.unparse(a) for a in call.args]
        return self._call(setting, name, call.args, sources, context)

    def _call(
        self, setting: str, name: str, nodes: Sequence[ast.expr], sources: list[str], context: OperatorContext
    ) -> _Made | None:
        aggregate = AGGREGATES[name]
        if len(nodes) != 1 + aggregate.parameter:
            takes = "a value and a share from 0 to 1" if aggregate.parameter else "one value"
            context.problem(setting, f'{name}() takes {takes}, as in "{name}(x{", 0.95" * aggregate.parameter})"')
            return None
        parameters = tuple(share for node in nodes[1:] if (share := _share(node)) is not None)
        if len(parameters) < len(nodes) - 1:
            context.problem(setting, f"the second argument of {name}() must be a number from 0 to 1, not {sources[1]}")
            return None
        before = len(context.problems)
        expression = context.expression(sources[0], setting, remembers=False)
        if len(context.problems) > before:
            return None
        if expression.kind not in NUMBERS and not aggregate.any_kind:
            what = "text" if expression.kind == "string" else "a time"
            context.problem(setting, f'{name}() takes numbers; "{sources[0]}" is {what}')
            return None
        text = ast.unparse(nodes[0])
        argument = self.arguments.setdefault(text, Argument(text, expression))
        self._need(aggregate, argument)
        return _Made(aggregate, argument, parameters, _field(name, aggregate, argument))

    def _need(self, aggregate: Aggregate, argument: Argument) -> None:
        if aggregate.keeps:
            if aggregate.keeps not in argument.stores:
                argument.stores[aggregate.keeps] = len(self._stores)
                place = list(self.arguments).index(argument.text)
                self._stores.append((aggregate.keeps, place, DTYPES[argument.kind]))
            return
        count = Count(argument.text) if argument.optional else self._rows
        count = argument.accumulators.get("count", count)  # type: ignore[assignment]
        for what in aggregate.needs:
            argument.keep_up(what, count)
            if what == "sum" and aggregate.gives == "number" and argument.kind != "float":
                argument.keep_up("whole sum", count)

    # --- readings ---

    def evaluate(self, frame: Frame) -> list[Column]:
        """The values of every argument."""
        return [_fitting(argument, argument.expression(frame)) for argument in self.arguments.values()]

    def store(self, live: Callable[[Ints], Bools]) -> Store:
        """For the values that are needed at a cell's end, by numbers of cells; `live` says which are still wanted."""
        return Store(self._stores, live)

    def add(self, columns: Columns, slots: Ints, time: Ints, values: Sequence[Column]) -> None:
        """Readings, in order of arrival, to the slots of their cells."""
        with np.errstate(all="ignore"):  # a sum that overflows is missing in the end
            for argument, column in zip(self.arguments.values(), values, strict=True):
                if argument.accumulators:
                    readings = Readings(slots, time, column)
                    for accumulator in argument.accumulators.values():
                        if accumulator is not self._rows:  # readings are counted once for all, below
                            accumulator.add(columns, readings)
        if self.counts_rows:
            self._rows.add(columns, Readings(slots, time, None))

    def merge(self, columns: Columns, into: int, other: int) -> None:
        """One cell is added to another."""
        with np.errstate(all="ignore"):
            for accumulator in self._accumulators:
                if accumulator is not self._rows:
                    accumulator.merge(columns, into, other)
            if self.counts_rows:
                self._rows.merge(columns, into, other)

    def result(self, columns: Columns, slots: Ints, ends: Ints, kept: Sequence[Held]) -> dict[str, Column]:
        """The aggregates of these cells, whose windows end at `ends`. `kept`: what a Store has of them."""
        values = [made(ends) for made in kept]
        with np.errstate(all="ignore"):  # what is not defined becomes missing
            return {name: self._finish(made, columns, slots, values) for name, made in self._made.items()}

    def of(self, cell: Ints, time: Ints, values: Sequence[Column], ends: Ints) -> dict[str, Column]:
        """The aggregates of readings that are all at hand; `cell`: the place of each one's window in `ends`."""
        columns = {name: np.full(len(ends), fill, dtype) for name, (dtype, fill) in self.columns.items()}
        self.add(columns, cell, time, values)
        kept = self.store(lambda cells: cells >= 0)
        kept.add(cell, time, values)
        slots = np.arange(len(ends))
        return self.result(columns, slots, ends, kept.select(slots))

    def _finish(self, made: _Made, columns: Columns, slots: Ints, values: Sequence[Values | Counts]) -> Column:
        argument = made.argument
        if argument is None:
            return Column(columns[self._rows.name][slots])
        keeps = made.aggregate.keeps
        of = Leaving(argument, columns, slots, values[argument.stores[keeps]] if keeps else None)
        results, defined = made.aggregate.finish(of, *made.parameters)
        return _column(results, defined, made.field)


Held = Callable[[Ints], "Values | Counts"]  # the ends of the windows -> their values


class Store:
    """The values of cells that aggregates need all at once: in order of arrival, or counted."""

    def __init__(self, kinds: Sequence[tuple[str, int, Any]], live: Callable[[Ints], Bools]) -> None:
        self._kinds = kinds
        self._parts = [
            Kept([dtype], live) if how == "ordered" else Tally(dtype, live, buckets=how == "buckets")
            for how, _, dtype in kinds
        ]

    def add(self, cells: Ints, time: Ints, values: Sequence[Column]) -> None:
        """Readings, in order of arrival within each cell, with the values of all arguments."""
        for part, (_, argument, _) in zip(self._parts, self._kinds, strict=True):
            if isinstance(part, Tally):
                part.count(cells, values[argument])
            else:
                part.add(cells, time, [values[argument]])

    def select(self, cells: Ints) -> list[Held]:
        return [_held(part, cells) for part in self._parts]

    def move(self, cell: int, to: int) -> None:
        """The values of a cell become those of another one, which had none of the same times."""
        for part in self._parts:
            part.move(cell, to)

    def leave_out(self, gone: Callable[[Ints], Bools]) -> None:
        """Drop the values of the cells of which this is true."""
        for part in self._parts:
            part.leave_out(gone)

    def snapshot(self) -> list[Any]:
        return [part.snapshot() for part in self._parts]

    def restore(self, state: Sequence[Any]) -> None:
        for part, saved in zip(self._parts, state, strict=True):
            part.restore(saved)


def _held(part: Kept, cells: Ints) -> Held:
    if isinstance(part, Tally):
        counts = part.counts(cells)
        return lambda _: counts
    which, time, (column,) = part.select(cells)
    return lambda ends: Values(which, time, column, ends)


def _share(node: ast.expr) -> float | None:
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return float(value)


def _field(name: str, aggregate: Aggregate, argument: Argument) -> Field:
    if aggregate.gives == "int":
        return Field("int")
    number = "int" if argument.kind == "bool" else argument.kind
    kind = {None: argument.kind, "number": number}.get(aggregate.gives, "float")
    # What is computed may be undefined (a sum that overflows, the variance of one value); what is picked may not.
    optional = argument.optional or aggregate.gives is not None
    return Field(kind, optional, argument.nan and kind == "float" and name != "count")


def _fitting(argument: Argument, column: Column) -> Column:
    """Without a mask where no value can be missing: its count is then that of the readings."""
    return column if argument.optional or column.present is None else Column(column.values)


def _column(results: Array, defined: Any, field: Field) -> Column:
    """Results with zeros under those that are missing."""
    values = results.astype(DTYPES[field.kind], copy=False)
    if field.kind == "float":
        defined = defined & ~(np.isinf(values) if field.nan else ~np.isfinite(values))
    if defined is True or defined.all():
        return Column(values)
    present = np.broadcast_to(defined, values.shape)
    zero = "" if field.kind == "string" else values.dtype.type(0)
    return Column(np.where(present, values, zero).astype(values.dtype, copy=False), present)
