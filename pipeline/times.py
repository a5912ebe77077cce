"""Event times as they come (numbers since 1970 in some unit, or RFC 3339 text) as int64 ns, and which of them cannot be.

A column is converted at once where all of it is alike; single values only where it is mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipeline.frame import Array, Bools, Ints

PER_UNIT = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
UNITS = (*PER_UNIT, "iso", "auto")
LIMIT = 2**63 - 2**40  # times beyond cannot be held, or would overflow with a window's size

# A number of this size and above is meant in the next finer unit: 1e11 s is the year 5138, 1e11 ms is 1973.
_AUTO = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (0.0, "s"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def nanoseconds(values: Sequence[Any] | Ints, unit: str) -> tuple[Ints, Bools | None]:
    """Times in ns, and where they are right (None: everywhere). `values` are numbers, or text for `iso` and `auto`."""
    if isinstance(values, np.ndarray):
        return _whole(values, unit)
    if unit != "iso":
        found = np.array(values) if values else np.empty(0, np.int64)
        if found.dtype == np.int64:
            return _whole(found, unit)
        if found.dtype == np.float64:
            return _real(found, unit)
    return _one_by_one(values, unit)


def _whole(values: Ints, unit: str) -> tuple[Ints, Bools | None]:
    if unit == "auto":
        sizes = np.abs(values.astype(np.float64))  # the least number of 64 bits has no opposite among them
        unit = _unit_of(float(sizes.max())) if len(values) else "s"
        if len(values) and _unit_of(float(sizes.min())) != unit:
            return _one_by_one(values.tolist(), "auto")
    per = PER_UNIT[unit]
    limit = LIMIT // per
    if len(values) and (int(values.max()) > limit or int(values.min()) < -limit):
        good = (values <= limit) & (values >= -limit)
        return np.where(good, values, 0) * per, good
    return values * per, None


def _real(values: Array, unit: str) -> tuple[Ints, Bools | None]:
    """Floats keep what they have: seconds since 1970 are good to about 0.2 µs, and are rounded to that."""
    if unit == "auto":
        return _one_by_one(values.tolist(), "auto")
    per = PER_UNIT[unit]
    good = np.isfinite(values) & (np.abs(values) < LIMIT / per)
    safe = np.where(good, values, 0.0)
    whole = np.floor(safe)
    ns = whole.astype(np.int64) * per + np.rint((safe - whole) * per).astype(np.int64)
    return ns, None if good.all() else good


def _unit_of(magnitude: float) -> str:
    return next(unit for least, unit in _AUTO if magnitude >= least)


def _one_by_one(values: Sequence[Any], unit: str) -> tuple[Ints, Bools | None]:
    good = np.ones(len(values), np.bool_)
    ns = np.zeros(len(values), np.int64)
    for i, value in enumerate(values):
        one = _parse(value, unit)
        if one is None:
            good[i] = False
        else:
            ns[i] = one
    return ns, None if good.all() else good


def _parse(value: Any, unit: str) -> int | None:
    if isinstance(value, str):
        return instant(value) if unit in ("iso", "auto") else None
    if isinstance(value, bool) or unit == "iso" or value != value:  # NaN is of no magnitude
        return None
    per = PER_UNIT[_unit_of(abs(float(value))) if unit == "auto" else unit]
    if not abs(value) <= LIMIT / per:
        return None
    if isinstance(value, int):
        return value * per
    whole = int(np.floor(value))
    ns: int = whole * per + round((value - whole) * per)
    return ns


def instant(text: str) -> int | None:
    """RFC 3339 text as ns since 1970; a text without an offset is UTC. None: it is not a time."""
    text = text.strip()
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    since = found - _EPOCH
    ns = (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000
    ns += _beyond_microseconds(text)
    return ns if abs(ns) <= LIMIT else None


def _beyond_microseconds(text: str) -> int:
    """The digits of a fraction that a datetime drops."""
    _, dot, rest = text.partition(".")
    digits = rest[: next((i for i, c in enumerate(rest) if not c.isdigit()), len(rest))] if dot else ""
    return int(digits[6:9].ljust(3, "0")) if len(digits) > 6 else 0
