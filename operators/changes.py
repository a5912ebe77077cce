"""`changes`: pass a reading only when it says something new."""

from __future__ import annotations

import math
import re
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta

from pipeline.component import Memory, Operator, OperatorContext, Settings, State
from pipeline.frame import Array, Bools, Column, Field, Frame, Ints, differs
from pipeline.problem import did_you_mean
from pipeline.quantity import Duration
from pipeline.turns import RowOfKey, Turns, after, beyond, from_news, linked

_PERCENT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*%\s*")
_MOST = 2**62  # of a deadband for whole numbers: sums with it are watched for overflow, a wider one would not be


class ChangesSettings(Settings, frozen=True):
    fields: Annotated[
        tuple[str, ...], Meta(description="What is compared. Absent: those of `deadband`, or else every field.")
    ] = ()
    deadband: Annotated[
        dict[str, float | str],
        Meta(description='By how much a field must differ: { temperature = 0.5, humidity = "2 %" }.'),
    ] = {}
    at_least_every: Annotated[
        Duration | None, Meta(description="A reading dated so much after the last that passed does, whatever it says.")
    ] = None


class Changes(Operator):
    """Drop each reading that repeats what its key said last.

        door                    open  open  shut  shut  open  (missing)  (missing)
        fields = ["door"]       open        shut        open  (missing)

        temperature             20.0  20.3  20.6  20.9  21.2  20.2
        deadband 0.5            20.0        20.6        21.2  20.2

        [operators.moves]
        type = "changes"
        input = "greenhouse"
        deadband = { temperature = 0.5, humidity = "2 %" }
        at_least_every = "10 min"

    A reading passes if one of the fields differs from that of the key's last reading *that passed*: so a slow drift is
    not lost. A number with a `deadband` must differ by more than it; a share ("2 %") is one of the value that passed.
    Missing equals missing, NaN equals NaN, and to become or cease to be either is a change. A key's first reading passes.
    Readings are compared in the order in which they arrive.
    `at_least_every`: a reading dated at least so long after the last that passed does so too: a sign of life, by event
    time. Nothing leaves while nothing comes.
    Late data: is compared like other data; it is never dated long after the last that passed, so only what it says counts.
    State: the key's last reading that passed, of it the fields that are compared. Memory: 9 bytes for each key, and 8 for
    each field of it, 9 if it may be missing; text counts as it is long.
    """

    def __init__(self, settings: ChangesSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        for setting, names in (("fields", settings.fields), ("deadband", settings.deadband)):
            for name in names:
                if name not in context.fields:
                    where = setting if setting == "fields" else f"deadband.{name}"
                    context.problem(where, f'"{name}" is not a field{did_you_mean(name, context.fields)}')
        bands = {name: _band(name, text, context) for name, text in settings.deadband.items()}
        named = [*settings.fields, *settings.deadband] or context.fields
        self.compared = {name: context.fields[name] for name in dict.fromkeys(named) if name in context.fields}
        self.bands = {name: band for name, band in bands.items() if band and name in self.compared}
        self.every = settings.at_least_every
        if self.every is not None and self.every <= 0:
            context.problem("at_least_every", "must be longer than nothing")
        self.chained = bool(self.bands) or self.every is not None
        self.last = RowOfKey(self.compared)

    def on_frame(self, frame: Frame) -> Frame:
        if not len(frame):
            return frame
        self.last.grow(len(self.context.keys))
        new = self._news(frame)
        if not new.any():
            return frame.none()
        if len(frame) == 1:
            self.last.put_last(frame, np.zeros(1, np.int64))
            return frame
        # A key's first row that is news passes, and begins the chain.
        turns = from_news(frame.key, new)
        keep = np.sort(turns.order[self._chain(frame, turns)])
        self.last.put_last(frame, keep)
        return frame.take(keep)

    def _news(self, frame: Frame) -> Bools:
        """The rows that would pass if none of this Frame had before them."""
        key, last = frame.key, self.last
        new: Bools = ~last.has[key]
        for name, field in self.compared.items():
            before = last.columns[name].take(key)
            now = frame.columns[name]
            changed = _differs(now, before, field)
            if band := self.bands.get(name):
                low, high = band.around(before)
                within = (now.values >= low) & (now.values <= high)
                changed &= ~(within & _is_number(now, field) & _is_number(before, field))
            new |= changed
        if self.every is not None:
            new |= frame.time >= last.time[key] + self.every
        return new

    def _chain(self, frame: Frame, turns: Turns) -> Bools:
        """Which of these rows pass, of each key the first: by place."""
        changes = turns.begins.copy()
        columns = {name: frame.columns[name].take(turns.order) for name in self.compared}
        for name, field in self.compared.items():
            now = columns[name]
            before = now.take(np.arange(-1, len(turns) - 1))
            changed = _differs(now, before, field)
            if name in self.bands:
                changed &= ~(_is_number(now, field) & _is_number(before, field))
            changes |= changed
        if not self.chained:
            return changes
        following = after(changes)
        longest = turns.longest
        for name, band in self.bands.items():
            now, field = columns[name], self.compared[name]
            low, high = band.around(now)
            values = now.values
            if field.optional or field.nan:
                # From a missing value or NaN none is beyond: what ceases to be either is a change already.
                number = _is_number(now, field)
                values = np.where(number, values, values.dtype.type(0))
                low, high = np.where(number, low, _LOWEST[field.kind]), np.where(number, high, _HIGHEST[field.kind])
            following = np.minimum(following, beyond(values, low, high, longest))
        if self.every is not None:
            time = frame.time[turns.order]
            following = np.minimum(following, beyond(time, None, time + (self.every - 1), longest))
        # No way leads from one key to the next: a key's last link goes to the first row of another, which passes anyhow.
        return linked(turns.first, following)

    def memory(self) -> Memory:
        return Memory(self.last.width)

    def forget(self, keys: Ints, frame: Frame) -> None:
        super().forget(keys, frame)
        self.last.forget(keys)

    def snapshot(self) -> State:
        return self.last.snapshot(self.context.keys)

    def restore(self, state: State) -> None:
        self.last.restore(state)


def _differs(a: Column, b: Column, field: Field) -> Bools:
    """Missing equals missing, and NaN equals NaN."""
    changed = differs(a, b)
    return changed & ~(np.isnan(a.values) & np.isnan(b.values)) if field.nan else changed


def _is_number(column: Column, field: Field) -> Bools:
    """Where there is a value that is not NaN."""
    known = column.known()
    return known & ~np.isnan(column.values) if field.nan else known


# --- deadbands ------------------------------------------------------------------------------------------------------

_WHOLE = np.iinfo(np.int64)
_LOWEST = {"float": -np.inf, "int": _WHOLE.min}
_HIGHEST = {"float": np.inf, "int": _WHOLE.max}


class _Band(NamedTuple):
    """By how much a value may differ: a number, or a share of the value."""

    size: float
    share: float

    def around(self, column: Column) -> tuple[Array, Array]:
        """The lowest and the highest that is not news after each value."""
        values = column.values
        if values.dtype == np.int64:
            return self._around_whole(values)
        step: Array | float = self.size
        if self.share:
            step = np.where(np.isfinite(values), np.abs(values) * self.share, 0.0)
        return values - step, values + step

    def _around_whole(self, values: Ints) -> tuple[Ints, Ints]:
        """In whole numbers throughout: a counter may be beyond what floats tell apart."""
        step: Ints = np.minimum(np.floor(self.size + np.abs(values.astype(np.float64)) * self.share), _MOST).astype(
            np.int64
        )
        low, high = values - step, values + step
        return np.where(low > values, _WHOLE.min, low), np.where(high < values, _WHOLE.max, high)


def _band(name: str, given: float | str, context: OperatorContext) -> _Band | None:
    where = f"deadband.{name}"
    field = context.fields.get(name)
    if field is not None and field.kind not in _LOWEST:
        context.problem(where, f'"{name}" is {field.kind}; only a number can have a deadband')
        return None
    if not isinstance(given, str):
        if not 0 <= given < math.inf:
            context.problem(where, "a deadband is 0 or more")
        return _Band(float(given), 0.0)
    if not (percent := _PERCENT.fullmatch(given)):
        context.problem(where, f'"{given}" is not a deadband; write a number, or a share such as "2 %"')
        return None
    return _Band(0.0, float(percent[1]) / 100)
