"""`calibrate`: from what a sensor says to what is so, by gain and offset, points, a polynomial, or units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from pipeline.component import Operator, OperatorContext, Settings
from pipeline.frame import Array, Bools, Column, Field, Frame, Ints, KeyTable
from pipeline.problem import did_you_mean


class Correction(Settings, frozen=True):
    gain: Annotated[float | None, Meta(description="What the value is multiplied by.")] = None
    offset: Annotated[float | None, Meta(description="What is added then.")] = None
    points: Annotated[
        tuple[tuple[float, float], ...], Meta(description="[[raw, true], …]: straight lines from point to point.")
    ] = ()
    outside: Annotated[
        Literal["extend", "clamp", "missing"],
        Meta(description="Beyond the first and the last point: their line goes on, their value stays, or no value."),
    ] = "extend"
    polynomial: Annotated[
        tuple[float, ...], Meta(description="Coefficients, the constant first: [c0, c1, c2] is c0 + c1 x + c2 x².")
    ] = ()
    from_: Annotated[str | None, Meta(description='Unit of the value, corrected so far: "degF".')] = msgspec.field(
        default=None, name="from"
    )
    to: Annotated[str | None, Meta(description='Unit that is wanted: "degC".')] = None


class CalibrateSettings(Settings, frozen=True):
    fields: Annotated[dict[str, Correction], Meta(description="Name of a field = how it is corrected.")] = {}
    by_key: Annotated[
        dict[str, dict[str, Correction]],
        Meta(description="Key = its own corrections, each in the place of that in `fields`."),
    ] = {}


class Calibrate(Operator):
    """Correct the readings of sensors, in place.

        temperature                           0      10     (missing)
        { gain = 1.02, offset = -0.5 }        -0.5   9.7    (missing)

        [operators.true]
        type = "calibrate"
        input = "greenhouse"
        fields.temperature = { gain = 1.02, offset = -0.5 }
        fields.humidity = { points = [[0, 2.5], [50, 50], [100, 96]], outside = "clamp" }
        by_key.s7.temperature = { offset = -1.2 }

    A field has one of: `gain` and/or `offset` (value * gain + offset), `points`, `polynomial`. `from` and `to` convert
    the unit, after that or alone: `{ from = "degF", to = "degC" }`, any units of one dimension that pint knows
    (pip install "headwater[units]"); temperatures are points on their scales, differences of them are "delta_degC".
    `by_key` gives a key its own correction of a field, the whole of it; others have that of `fields`, or none.
    What comes out is a number with a fraction. It is missing where the value is, where it lies beyond the points and
    `outside = "missing"`, and where a polynomial leaves what a number can be. State: none.
    """

    def __init__(self, settings: CalibrateSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.fields: dict[str, _Corrections] = {}
        own = [
            (f"by_key.{key}.{name}", key, name, one) for key, of in settings.by_key.items() for name, one in of.items()
        ]
        every = [(f"fields.{name}", None, name, one) for name, one in settings.fields.items()]
        if not every and not own:
            context.problem("fields", "name at least one field: fields.temperature = { offset = -0.5 }")
        for where, key, name, correction in [*every, *own]:
            if self._is_number(where, name, context):
                corrections = self.fields.setdefault(name, _Corrections(context.keys))
                corrections.add(key, _curve(correction, where, context))
        changed = {name: found.field(context.fields[name]) for name, found in self.fields.items()}
        self.schema = context.schema._replace(fields=context.fields | changed)

    @staticmethod
    def _is_number(where: str, name: str, context: OperatorContext) -> bool:
        field = context.fields.get(name)
        if field is None:
            context.problem(where, f'"{name}" is not a field{did_you_mean(name, context.fields)}')
        elif field.kind not in ("float", "int"):
            context.problem(where, f'"{name}" is {field.kind}; only a number can be corrected')
        return field is not None and field.kind in ("float", "int")

    def on_frame(self, frame: Frame) -> Frame:
        columns = {name: of(frame.columns[name], frame.key) for name, of in self.fields.items()}
        return frame.with_columns(columns)


# --- the curve of one correction ------------------------------------------------------------------------------------


class _Curve(NamedTuple):
    """A polynomial, or lines between points; what the unit asks for is in its numbers already."""

    polynomial: tuple[float, ...] = (0.0, 1.0)
    points: tuple[tuple[float, float], ...] = ()
    outside: str = "extend"


UNCHANGED = _Curve()


def _curve(given: Correction, where: str, context: OperatorContext) -> _Curve:
    linear = given.gain is not None or given.offset is not None
    kinds = [
        name
        for name, is_there in (("gain", linear), ("points", given.points), ("polynomial", given.polynomial))
        if is_there
    ]
    if len(kinds) > 1:
        context.problem(where, f"give {kinds[0]} or {kinds[1]}, not both")
    elif not kinds and given.from_ is None and given.to is None:
        context.problem(where, "nothing is corrected: give gain, offset, points, polynomial, or from and to")
    numbers = [given.gain or 0, given.offset or 0, *given.polynomial, *(v for point in given.points for v in point)]
    if not all(map(math.isfinite, numbers)):
        context.problem(where, "every number of a correction must be finite")
    if given.gain == 0:
        context.problem(f"{where}.gain", "0 would make every reading the same")
    if given.polynomial and not any(given.polynomial[1:]):
        context.problem(f"{where}.polynomial", "without a coefficient of x it would make every reading the same")
    if given.points and not _rises(given.points):
        context.problem(f"{where}.points", "give at least two points, each with a higher raw value than the one before")
    gain, offset = _of_units(given, where, context)
    if given.points:
        # A stand-in after a mistake need not make sense, but must not fail either.
        points = given.points if _rises(given.points) else ((0.0, 0.0), (1.0, 1.0))
        return _Curve(points=tuple((x, y * gain + offset) for x, y in points), outside=given.outside)
    plain = (0.0 if given.offset is None else given.offset, 1.0 if given.gain is None else given.gain)
    first, *others = given.polynomial or plain
    return _Curve((first * gain + offset, *(c * gain for c in others)))


def _rises(points: Sequence[tuple[float, float]]) -> bool:
    return len(points) > 1 and all(a[0] < b[0] for a, b in pairwise(points))


def _of_units(given: Correction, where: str, context: OperatorContext) -> tuple[float, float]:
    """Gain and offset from one unit to the other."""
    if given.from_ is None and given.to is None:
        return 1.0, 0.0
    if given.from_ is None or given.to is None:
        context.problem(where, '"from" and "to" are given together')
        return 1.0, 0.0
    try:
        return _converted(given.from_, given.to)
    except ImportError:
        context.problem(where, 'units need pint: pip install "headwater[units]"')
    except ValueError as error:
        context.problem(where, str(error))
    return 1.0, 0.0


@cache
def _units() -> Any:
    """pint's table of units, read when first needed: it takes a second. In decimals, since by way of kelvin in floats
    0 degC would be 31.999999999999936 degF. (Fractions it cannot show in its messages.)"""
    from decimal import Decimal

    import pint

    return pint.UnitRegistry(non_int_type=Decimal)


def _converted(unit: str, wanted: str) -> tuple[float, float]:
    """What converts a value from one unit to another: gain, offset. ValueError if that is not all."""
    from decimal import Decimal

    registry = _units()
    try:
        at = [registry.convert(Decimal(value), unit, wanted) for value in (0, 1, 1000)]
    except Exception as error:  # noqa: BLE001 - pint raises its own, and what its parser of texts does not catch
        raise ValueError(f'"{unit}" cannot be converted to "{wanted}": {error}') from None
    if not math.isclose(at[2] - at[0], 1000 * (at[1] - at[0]), rel_tol=1e-9):
        raise ValueError(
            f'"{unit}" to "{wanted}" is more than a gain and an offset; write it as an expression of a derive'
        )
    return float(at[1] - at[0]), float(at[0])


# --- all corrections of one field -----------------------------------------------------------------------------------


class _Corrections:
    """How one field is corrected, key by key: arrays, so that a Frame costs the same however many keys have their own."""

    def __init__(self, keys: KeyTable) -> None:
        self._keys = keys
        self._curves = [UNCHANGED]
        self._every = 0  # which curve a key has that has none of its own
        self._own: dict[str, int] = {}
        self._of_code = np.empty(0, np.int64)  # which curve each key has, as far as keys are known
        self._lines: _Lines | None = None
        self._coefficients: Array = np.empty(0)

    def add(self, key: str | None, curve: _Curve) -> None:
        """The correction of a key; None: of every key that has none of its own."""
        if key is None:
            self._every = len(self._curves)
        else:
            self._own[key] = len(self._curves)
        self._curves.append(curve)
        degree = max(len(curve.polynomial) for curve in self._curves)
        padded = [curve.polynomial + (0.0,) * (degree - len(curve.polynomial)) for curve in self._curves]
        self._coefficients = np.array(padded).T
        self._lines = _Lines(self._curves) if any(curve.points for curve in self._curves) else None

    def field(self, field: Field) -> Field:
        """What comes out."""
        may_fail = any(len(c.polynomial) > 2 or (c.points and c.outside == "missing") for c in self._curves)
        return Field("float", field.optional or may_fail, field.nan)

    def __call__(self, column: Column, key: Array) -> Column:
        values = column.values.astype(np.float64, copy=False)
        which: Any = self._which(key) if self._own else self._every
        with np.errstate(over="ignore", invalid="ignore"):
            corrected = self._polynomial(values, which)
            absent = np.isfinite(values) & ~np.isfinite(corrected) if len(self._coefficients) > 2 else None
            if self._lines is not None:
                corrected, absent = self._lines(values, which, corrected, absent)
        return _without(corrected, column.present, absent)

    def _which(self, key: Array) -> Ints:
        """The curve of each row. Keys that are new since the last Frame are looked up by their text."""
        names = self._keys.names
        if len(self._of_code) < len(names):
            more = [self._own.get(name, self._every) for name in names[len(self._of_code) :]]
            self._of_code = np.append(self._of_code, np.array(more, np.int64))
        return self._of_code[key]

    def _polynomial(self, values: Array, which: Any) -> Array:
        """Horner's way, all curves padded to the highest degree: 0 * x is added where one has less."""
        *lower, highest = self._coefficients
        result: Array = values * highest[which] + lower[-1][which]
        for coefficients in reversed(lower[:-1]):
            result = result * values + coefficients[which]
        return result


class _Lines:
    """The points of all curves that have some, one after the other."""

    def __init__(self, curves: Sequence[_Curve]) -> None:
        self._has = np.array([bool(c.points) for c in curves])
        counts = [len(c.points) for c in curves]
        self._first = np.cumsum([0, *counts[:-1]])
        self._last = self._first + counts - 1
        self._raw = np.array([x for c in curves for x, _ in c.points])
        self._true = np.array([y for c in curves for _, y in c.points])
        with np.errstate(
            divide="ignore", over="ignore"
        ):  # from a curve's last point to the next one's first: never used
            self._slope = np.append(np.diff(self._true) / np.diff(self._raw), 0.0)
        self._clamps = np.array([c.outside == "clamp" for c in curves])
        self._drops = np.array([c.outside == "missing" for c in curves])
        # Complex numbers are in order by their real part, then by the imaginary one: one search finds the curve and the place.
        self._places = np.repeat(np.arange(len(curves)), counts) + 1j * self._raw

    def __call__(self, values: Array, which: Any, other: Array, absent: Bools | None) -> tuple[Array, Bools | None]:
        """What the other curves gave, and what they could not, with what these give and cannot.

        `which`: the curve of each row; one number where all have the same, which then is of points.
        """
        for_all = isinstance(which, int)
        rows: Any = slice(None) if for_all else np.flatnonzero(self._has[which])
        x, of = values[rows], which if for_all else which[rows]
        first, last = self._first[of], self._last[of]
        lowest, highest = self._raw[first], self._raw[last]
        if self._drops.any():
            absent = np.zeros(len(values), np.bool_) if absent is None else absent
            absent[rows] = ((x < lowest) | (x > highest)) & self._drops[of]
        if self._clamps.any():
            x = np.where(self._clamps[of], np.minimum(np.maximum(x, lowest), highest), x)
        found = np.searchsorted(self._raw, x, "right") if for_all else self._search(x, of)
        right = np.minimum(np.maximum(found, first + 1), last)
        left = right - 1
        # From the nearer end, so that each point is met exactly.
        near = np.where(x - self._raw[left] <= self._raw[right] - x, left, right)
        result = other.copy()
        result[rows] = self._true[near] + (x - self._raw[near]) * self._slope[left]
        return result, absent

    def _search(self, x: Array, of: Ints) -> Ints:
        place = np.empty(len(x), np.complex128)
        place.real, place.imag = of, x
        return np.searchsorted(self._places, place, "right")


def _without(values: Array, present: Bools | None, absent: Bools | None) -> Column:
    """The values, but for those that are missing or became so."""
    if absent is not None and absent.any():
        present = ~absent if present is None else present & ~absent
    if present is None or present.all():
        return Column(values)
    return Column(np.where(present, values, 0.0), present)
