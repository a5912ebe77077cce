"""What a window computes: `count()`, `mean(temperature)`, `quantile(x, 0.95)`.

An aggregate is made of accumulators: arrays with one element a slot (a group in an open window), to which readings are
added in order of arrival, one after the other and never as sums of partial sums. So the last bit of a sum does not depend
on how the input was cut into Frames. Accumulators that several aggregates need are kept once.

Some aggregates need all values of the window (median, quantile, mode, distinct, rate, time_weighted_mean): for these the
window keeps them, and they are computed when it closes.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.component import OperatorContext
from pipeline.expression import Expression
from pipeline.frame import DTYPES, SECOND, Array, Column, Field, Frame, Ints
from pipeline.problem import did_you_mean

ANY = ("float", "int", "bool", "string", "time")
NUMERIC = ("float", "int", "bool")


class Values(NamedTuple):
    """The readings of one argument that go to slots, in order of arrival."""

    slots: Ints
    values: Array
    time: Ints


class Accumulator:
    """One or more arrays by slot. `fills` gives each array's dtype and its value before any reading."""

    def fills(self, dtype: Any) -> list[tuple[Any, Any]]:
        raise NotImplementedError

    def add(self, arrays: Sequence[Array], new: Values) -> None:
        raise NotImplementedError


class Count(Accumulator):
    def fills(self, dtype: Any) -> list[tuple[Any, Any]]:
        return [(np.dtype(np.int64), 0)]

    def add(self, arrays: Sequence[Array], new: Values) -> None:
        np.add.at(arrays[0], new.slots, np.ones(len(new.slots), np.int64))


class Sum(Accumulator):
    def fills(self, dtype: Any) -> list[tuple[Any, Any]]:
        return [(dtype, 0)]

    def add(self, arrays: Sequence[Array], new: Values) -> None:
        np.add.at(arrays[0], new.slots, new.values)


class Lowest(Accumulator):
    def fills(self, dtype: Any) -> list[tuple[Any, Any]]:
        return [(dtype, np.inf if dtype.kind == "f" else np.iinfo(np.int64).max)]

    def add(self, arrays: Sequence[Array], new: Values) -> None:
        np.minimum.at(arrays[0], new.slots, new.values)


class Highest(Accumulator):
    def fills(self, dtype: Any) -> list[tuple[Any, Any]]:
        return [(dtype, -np.inf if dtype.kind == "f" else np.iinfo(np.int64).min)]

    def add(self, arrays: Sequence[Array], new: Values) -> None:
        np.maximum.at(arrays[0], new.slots, new.values)


class Spread(Accumulator):
    """Sums of deviations from the slot's first value: the variance without the cancellation of large means.

    Chan, Golub, LeVeque: Algorithms for computing the sample variance (1983), shifted data.
    """

    def fills(self, dtype: Any) -> list[tuple[Any, Any]]:
        return [(np.bool_, False), (np.float64, 0.0), (np.float64, 0.0), (np.float64, 0.0)]

    def add(self, arrays: Sequence[Array], new: Values) -> None:
        seen, shift, total, squares = arrays
        fresh = np.flatnonzero(~seen[new.slots])[::-1]  # backwards: of several first ones the earliest stays
        shift[new.slots[fresh]] = new.values[fresh]
        seen[new.slots[fresh]] = True
        deviation = new.values - shift[new.slots]
        np.add.at(total, new.slots, deviation)
        np.add.at(squares, new.slots, deviation * deviation)


class First(Accumulator):
    """The value of the lowest time; of equal times the one that arrived first."""

    def fills(self, dtype: Any) -> list[tuple[Any, Any]]:
        return [(np.int64, np.iinfo(np.int64).max), (dtype, "" if dtype.kind == "O" else 0)]

    def add(self, arrays: Sequence[Array], new: Values) -> None:
        times, values = arrays
        order = np.argsort(new.time, kind="stable")[::-1]
        order = order[new.time[order] < times[new.slots[order]]]
        times[new.slots[order]] = new.time[order]  # numpy keeps the last of several: here the earliest
        values[new.slots[order]] = new.values[order]


class Last(Accumulator):
    """The value of the highest time; of equal times the one that arrived last."""

    def fills(self, dtype: Any) -> list[tuple[Any, Any]]:
        return [(np.int64, np.iinfo(np.int64).min), (dtype, "" if dtype.kind == "O" else 0)]

    def add(self, arrays: Sequence[Array], new: Values) -> None:
        times, values = arrays
        order = np.argsort(new.time, kind="stable")
        order = order[new.time[order] >= times[new.slots[order]]]
        times[new.slots[order]] = new.time[order]
        values[new.slots[order]] = new.values[order]


ACCUMULATORS: dict[str, Accumulator] = {
    "count": Count(),
    "sum": Sum(),
    "lowest": Lowest(),
    "highest": Highest(),
    "spread": Spread(),
    "first": First(),
    "last": Last(),
}

Finish = Callable[
    ..., tuple[Array, Array]
]  # arrays of the accumulators at some slots -> values, where they are defined


def _mean(count: Array, total: Array) -> tuple[Array, Array]:
    return total / np.maximum(count, 1), count > 0


def _variance(count: Array, _seen: Array, _shift: Array, total: Array, squares: Array) -> tuple[Array, Array]:
    spread = squares - total * total / np.maximum(count, 1)
    return np.maximum(spread, 0) / np.maximum(count - 1, 1), count > 1


def _stddev(*arrays: Array) -> tuple[Array, Array]:
    variance, defined = _variance(*arrays)
    return np.sqrt(variance), defined


def _delta(count: Array, _t0: Array, first: Array, _t1: Array, last: Array) -> tuple[Array, Array]:
    return last - first, count > 0


@dataclass(frozen=True)
class Incremental:
    """Computed from accumulators. `kind` None: that of the argument."""

    needs: tuple[str, ...]
    finish: Finish
    takes: tuple[str, ...] = NUMERIC
    kind: str | None = None
    always: bool = False  # defined without any value


@dataclass(frozen=True)
class Whole:
    """Computed from all values of a window, when it closes."""

    finish: Callable[..., tuple[Array, Array]]
    takes: tuple[str, ...] = NUMERIC
    kind: str | None = "float"
    parameter: bool = False


class Rows(NamedTuple):
    """All values of a closed window: by group, then time, then arrival. `starts` is the first row of each group."""

    group: Ints
    time: Ints
    values: Array
    starts: Ints
    end: int  # of the window, ns

    def lengths(self) -> Ints:
        return np.diff(np.append(self.starts, len(self.group)))


def _sorted_values(rows: Rows) -> Array:
    """The values in ascending order within each group."""
    return rows.values[np.lexsort((rows.values, rows.group))]


def _quantile(rows: Rows, q: float) -> tuple[Array, Array]:
    """Linear interpolation between the two nearest (type 7 of Hyndman and Fan, 1996)."""
    values = _sorted_values(rows).astype(np.float64)
    at = q * (rows.lengths() - 1)
    below = np.floor(at).astype(np.int64)
    above = np.minimum(below + 1, rows.lengths() - 1)
    low, high = values[rows.starts + below], values[rows.starts + above]
    return low + (high - low) * (at - below), np.ones(len(at), np.bool_)


def _median(rows: Rows) -> tuple[Array, Array]:
    return _quantile(rows, 0.5)


def _runs(rows: Rows) -> tuple[Array, Ints, Ints]:
    """Runs of equal values within the groups: the value, the length, the group's index of each."""
    values = _sorted_values(rows)
    group = np.repeat(np.arange(len(rows.starts)), rows.lengths())
    begins = np.flatnonzero(np.append(True, (np.diff(group) != 0) | (values[1:] != values[:-1])))
    lengths = np.diff(np.append(begins, len(values)))
    return values[begins], lengths, group[begins]


def _distinct(rows: Rows) -> tuple[Array, Array]:
    _, _, group = _runs(rows)
    return np.bincount(group, minlength=len(rows.starts)), np.ones(len(rows.starts), np.bool_)


def _mode(rows: Rows) -> tuple[Array, Array]:
    values, lengths, group = _runs(rows)
    order = np.lexsort((values, -lengths, group))
    first = order[np.append(True, np.diff(group[order]) != 0)]
    return values[first], np.ones(len(first), np.bool_)


def _by_group(rows: Rows, amounts: Array) -> Array:
    return np.add.reduceat(amounts, rows.starts)


def _rate(rows: Rows) -> tuple[Array, Array]:
    """Increase per second from the first reading to the last; after a fall the counter had begun again at zero."""
    values = rows.values.astype(np.float64)
    step = np.diff(values, prepend=values[:1])
    increase = np.where(step < 0, values, step)
    increase[rows.starts] = 0
    last = np.append(rows.starts[1:], len(values)) - 1
    seconds = (rows.time[last] - rows.time[rows.starts]) / SECOND
    defined = seconds > 0
    return _by_group(rows, increase) / np.where(defined, seconds, 1), defined


def _time_weighted_mean(rows: Rows) -> tuple[Array, Array]:
    """Each value holds until the next reading of its group, the last one until the window's end."""
    until = np.append(rows.time[1:], rows.end)
    last = np.append(rows.starts[1:], len(rows.time)) - 1
    until[last] = rows.end
    held = (until - rows.time).astype(np.float64)
    total = _by_group(rows, held)
    return _by_group(rows, rows.values.astype(np.float64) * held) / total, total > 0


AGGREGATES: dict[str, Incremental | Whole] = {
    "count": Incremental(("count",), lambda n: (n, n >= 0), ANY, "int", always=True),
    "sum": Incremental(("count", "sum"), lambda n, s: (s, n > 0)),
    "mean": Incremental(("count", "sum"), _mean, kind="float"),
    "min": Incremental(("count", "lowest"), lambda n, v: (v, n > 0)),
    "max": Incremental(("count", "highest"), lambda n, v: (v, n > 0)),
    "range": Incremental(
        ("count", "lowest", "highest"), lambda n, a, b: (np.where(n > 0, b, 0) - np.where(n > 0, a, 0), n > 0)
    ),
    "first": Incremental(("count", "first"), lambda n, _, v: (v, n > 0), ANY),
    "last": Incremental(("count", "last"), lambda n, _, v: (v, n > 0), ANY),
    "delta": Incremental(("count", "first", "last"), _delta),
    "variance": Incremental(("count", "spread"), _variance, kind="float"),
    "stddev": Incremental(("count", "spread"), _stddev, kind="float"),
    "median": Whole(_median),
    "quantile": Whole(_quantile, parameter=True),
    "distinct": Whole(_distinct, ANY, "int"),
    "mode": Whole(_mode, ANY, None),
    "rate": Whole(_rate),
    "time_weighted_mean": Whole(_time_weighted_mean),
}


class Aggregate(NamedTuple):
    """An aggregate of a window's settings."""

    name: str  # of the field that it gives
    how: Incremental | Whole
    argument: str  # text of the expression; "" counts readings
    parameter: float | None
    field: Field


class Aggregates:
    """All aggregates of a window: what accumulators they need, and what comes out."""

    def __init__(self, settings: dict[str, str], context: OperatorContext) -> None:
        self.arguments: dict[str, Expression | None] = {"": None}
        self.made = [made for name, text in settings.items() if (made := self._make(name, text, context))]
        self.fields = {a.name: a.field for a in self.made}
        # (accumulator, argument), each once; readings are always counted: that is how a group is known to be there.
        needed = {("count", "")}
        for a in self.made:
            if isinstance(a.how, Incremental):
                needed |= {(n, self._counted(a.argument) if n == "count" else a.argument) for n in a.how.needs}
        self.accumulators = sorted(needed)
        self.kept = sorted({a.argument for a in self.made if isinstance(a.how, Whole)})

    def _counted(self, argument: str) -> str:
        """An argument that is never missing has as many values as there are readings."""
        expression = self.arguments[argument]
        return argument if expression is not None and expression.optional else ""

    def dtype(self, argument: str) -> Any:
        """Of the values of an argument; true and false count as 1 and 0."""
        expression = self.arguments[argument]
        kind = "int" if expression is None else expression.kind
        return DTYPES[kind] if kind != "bool" else DTYPES["int"]

    def _make(self, name: str, text: str, context: OperatorContext) -> Aggregate | None:
        setting = f"aggregate.{name}"
        try:
            node = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError):
            node = None
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.keywords:
            context.problem(setting, f'"{text}" is not an aggregate; write it as "mean(temperature)"')
            return None
        how = AGGREGATES.get(node.func.id)
        if how is None:
            hint = did_you_mean(node.func.id, AGGREGATES) or f"; there are: {', '.join(AGGREGATES)}"
            context.problem(setting, f'there is no aggregate "{node.func.id}"{hint}')
            return None
        return self._fill_in(name, node, how, context)

    def _fill_in(
        self, name: str, node: ast.Call, how: Incremental | Whole, context: OperatorContext
    ) -> Aggregate | None:
        setting = f"aggregate.{name}"
        assert isinstance(node.func, ast.Name)
        function, wanted = node.func.id, 1 + (isinstance(how, Whole) and how.parameter)
        if not node.args and function == "count":
            return Aggregate(name, how, "", None, Field("int"))
        if len(node.args) != wanted:
            what = "a field and a share from 0 to 1" if wanted == 2 else "one field"
            context.problem(setting, f"{function}() takes {what}")
            return None
        parameter = _share(node.args[1]) if wanted == 2 else None
        if wanted == 2 and parameter is None:
            context.problem(setting, f"the second argument of {function}() must be a number from 0 to 1")
            return None
        argument = ast.unparse(node.args[0])
        expression = context.expression(argument, setting)
        if expression.kind not in how.takes:
            context.problem(setting, f'"{argument}" is {expression.kind}; {function}() takes a number')
            return None
        self.arguments[argument] = expression
        kind = how.kind or ("int" if expression.kind == "bool" and how.takes is NUMERIC else expression.kind)
        always = isinstance(how, Incremental) and how.always
        optional = not always and (expression.optional or function in _MORE_THAN_ONE)
        return Aggregate(name, how, argument, parameter, Field(kind, optional, expression.nan))

    # --- readings ---

    def values(self, frame: Frame, slots: Ints) -> dict[str, Values]:
        """Of each argument the values that are there, with their slots."""
        found = {"": Values(slots, slots, frame.time)}
        for argument, expression in self.arguments.items():
            if expression is None:
                continue
            values, present = expression(frame)
            if values.dtype == np.bool_:
                values = values.astype(np.int64)
            if present is None:
                found[argument] = Values(slots, values, frame.time)
            else:
                rows = np.flatnonzero(present)
                found[argument] = Values(slots[rows], values[rows], frame.time[rows])
        return found

    def column(self, aggregate: Aggregate, arrays: dict[tuple[str, str], list[Array]], slots: Ints) -> Column:
        """What an incremental aggregate comes to at some slots."""
        assert isinstance(aggregate.how, Incremental)
        parts: list[Array] = []
        for need in aggregate.how.needs:
            argument = self._counted(aggregate.argument) if need == "count" else aggregate.argument
            parts += [array[slots] for array in arrays[need, argument]]
        return _as_column(aggregate, *aggregate.how.finish(*parts))

    def whole(self, aggregate: Aggregate, groups: Ints, rows: tuple[Ints, Ints, Array], end: int) -> Column:
        """What an aggregate over all values comes to for each of `groups`; rows: (group, time, value) in order of arrival."""
        assert isinstance(aggregate.how, Whole)
        group, time, values = rows
        words: Array | None = None
        if values.dtype.kind == "O":
            words, values = np.unique(values.astype(str), return_inverse=True)
        order = np.lexsort((time, group))
        group, time, values = group[order], time[order], values[order]
        found = np.full(len(groups), False)
        result = np.zeros(
            len(groups), np.int64 if aggregate.field.kind == "int" else np.float64 if words is None else object
        )
        if len(group):
            starts = np.flatnonzero(np.append(True, np.diff(group) != 0))
            sorted_rows = Rows(group, time, values, starts, end)
            parameters = () if aggregate.parameter is None else (aggregate.parameter,)
            got, defined = aggregate.how.finish(sorted_rows, *parameters)
            where = np.searchsorted(group[starts], groups)
            where = np.minimum(where, len(starts) - 1)
            there = group[starts][where] == groups
            found = there & defined[where]
            shown = words.astype(object)[got] if words is not None and aggregate.how.kind is None else got
            result = shown[where]
        return _as_column(aggregate, result, found)


_MORE_THAN_ONE = ("variance", "stddev", "rate")  # missing for a single value


def _as_column(aggregate: Aggregate, values: Array, defined: Array) -> Column:
    dtype = DTYPES[aggregate.field.kind]
    if defined.all():
        return Column(values.astype(dtype, copy=False))
    zero = "" if dtype.kind == "O" else 0
    return Column(np.where(defined, values, zero).astype(dtype, copy=False), defined)


def _share(node: ast.AST) -> float | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and 0 <= node.value <= 1:
        return float(node.value)
    return None
