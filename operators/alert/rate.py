"""`rate`: how fast a field changes, as one more field that conditions and messages may name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from operators.alert.columns import ByKey
from pipeline.frame import Array, Column, Field, Frame, Ints, Schema
from pipeline.problem import did_you_mean

if TYPE_CHECKING:
    from operators.alert import RateSettings
    from pipeline.component import OperatorContext


class Measured(NamedTuple):
    """The rate at each reading; to be kept once nothing can fail any more."""

    column: Column
    keep: Callable[[], None]


class Rate:
    """The change since the key's reading before, per time. Missing for a key's first reading, one that is dated no later
    than an earlier one, one without the field, and where it is not finite. State: 17 bytes a key."""

    def __init__(self, settings: RateSettings, context: OperatorContext) -> None:
        self.field = settings.field
        self.name = settings.name or f"{settings.field}_rate"
        self.per = int(settings.per) / 1e9
        self.state = context.per_key("rate", [("known", "?"), ("time", "int"), ("value", "float")])
        field = context.fields.get(self.field)
        if field is None:
            hint = did_you_mean(self.field, context.fields)
            context.problem("rate.field", f'"{self.field}" is not a field of the input{hint}')
        elif field.kind not in ("float", "int"):
            context.problem("rate.field", f'"{self.field}" is {field.kind}; a rate is of a number')
        if self.name in context.schema.names() or not self.name.isidentifier():
            context.problem("rate.name", f'"{self.name}" cannot be the name of the rate; choose another: name = "…"')
        if not self.per:
            context.problem("rate.per", 'a rate is per some time, such as "1 min"')
        fields = {**context.fields, self.name: Field("float", optional=True)}
        self.schema = Schema(context.schema.key, fields, context.schema.role)

    def measure(self, frame: Frame) -> Measured:
        values, present = frame.columns[self.field]
        there = np.ones(len(frame), np.bool_) if present is None else present
        if values.dtype == np.float64:
            there = there & (values == values)  # not NaN: that is no number to start from
        rows = ByKey.of(frame.key, np.flatnonzero(there))
        rows, known = self._forward(rows, frame.time)
        time, value = frame.time[rows.rows], values[rows.rows].astype(np.float64)
        before, earlier = rows.before(value, known["value"]), rows.before(time, known["time"])
        with np.errstate(all="ignore"):
            rate = (value - before) / ((time - earlier) / 1e9) * self.per
        defined = np.isfinite(rate) & (known["known"] | ~rows.first)
        made, is_there = np.zeros(len(frame)), np.zeros(len(frame), np.bool_)
        made[rows.rows] = np.where(defined, rate, 0.0)
        is_there[rows.rows] = defined
        last = rows.last()
        return Measured(Column(made, is_there), lambda: self._keep(rows.key[last], time[last], value[last]))

    def _forward(self, rows: ByKey, time: Ints) -> tuple[ByKey, Array]:
        """Only the readings that are later than all before them; and what was known of the key of each."""
        known = self.state.data[rows.key]
        time = time[rows.rows]
        late = (time <= known["time"]) & known["known"]
        late |= (time <= rows.before(rows.highest(time), known["time"])) & ~rows.first
        if not late.any():
            return rows, known
        # Those left are still in order: looked at anew, each follows the last one that counted.
        return ByKey.of_sorted(rows.rows[~late], rows.key[~late]), known[~late]

    def _keep(self, key: Array, time: Ints, value: Array) -> None:
        self.state.data["known"][key] = True
        self.state.data["time"][key] = time
        self.state.data["value"][key] = value
