"""Readings of declared fields from cells of text: what csv, regex and value share. Those of typed values are in typed.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipeline.component import Context, Decoded, ReadingSettings, Refused
from pipeline.frame import Array, Column, Field, Ints, column
from pipeline.reading import parse_fields
from pipeline.times import nanoseconds
from pipeline.typed import RAW

_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
_WANTED = {"float": "a number", "int": "a whole number", "bool": "true or false"}
_ZEROS: dict[str, Any] = {"float": 0.0, "int": 0, "bool": False, "string": ""}


class Texts:
    """The declared part of a codec whose values are all text. An empty cell is missing."""

    def __init__(self, settings: ReadingSettings, context: Context) -> None:
        self.settings = settings
        quiet = Context(context.name, context.keys)  # the source reports wrong fields itself
        reserved = (settings.key, settings.time, "time")
        self.fields = {n: f for n, f in parse_fields(settings.fields, quiet).items() if n not in reserved}

    def wanted(self) -> list[str]:
        """The names of the cells that `records` takes, in their order."""
        own = [name for name in (self.settings.key, self.settings.time) if name is not None]
        return [*own, *self.fields]

    def records(
        self,
        records: Sequence[Sequence[str]],
        places: Sequence[tuple[int, int]],
        refused: list[Refused],
        payloads: int,
        raw: Callable[[int], str],
    ) -> Decoded:
        """Readings as their wanted cells; `places` has the payload and the item of each, `raw` shows one by its number."""
        cells = list(zip(*records, strict=True)) if records else [()] * len(self.wanted())
        columns = dict(zip(self.wanted(), cells, strict=True))
        bad: dict[int, str] = {}
        keys: list[str] = list(columns.pop(self.settings.key)) if self.settings.key is not None else []
        for row, key in enumerate(keys):
            if not key:
                bad[row] = f"{self.settings.key}: missing"
        times: Ints | None = None
        if self.settings.time is not None:
            times = self._times(list(columns.pop(self.settings.time)), bad)
        made = {name: self._column(name, field, list(columns[name]), bad) for name, field in self.fields.items()}
        refused += [Refused(*places[row], why, raw(row)[:RAW]) for row, why in sorted(bad.items())]
        keep = np.ones(len(records), np.bool_)
        keep[list(bad)] = False
        of = np.array([payload for payload, _ in places], np.int64)
        return Decoded(
            [key for key, k in zip(keys, keep.tolist(), strict=True) if k] if keys else keys,
            None if times is None else times[keep],
            {name: c.take(keep) for name, c in made.items()},
            np.bincount(of[keep], minlength=payloads).tolist(),
            refused,
        )

    def _times(self, texts: list[str], bad: dict[int, str]) -> Ints:
        unit = self.settings.time_unit
        values: list[Any]
        try:  # whole numbers, mostly
            values = list(texts if unit == "iso" or "_" in "".join(texts) else map(int, texts))
        except ValueError:
            values = list(texts)
        if unit != "iso":
            values = [_number(value) if isinstance(value, str) else value for value in values]
        if unit not in ("auto", "iso") and any(isinstance(v, str) for v in values):
            for row, value in enumerate(values):
                if isinstance(value, str):
                    bad.setdefault(row, f"{self.settings.time}: not a time")
                    values[row] = 0
        times, good = nanoseconds(values, unit)
        if good is not None:
            for row in np.flatnonzero(~good).tolist():
                bad.setdefault(row, f"{self.settings.time}: not a time in range")
        return times

    def _column(self, name: str, field: Field, texts: list[str], bad: dict[int, str]) -> Column:
        if field.kind == "float":
            present = [text != "" for text in texts] if field.optional and "" in texts else None
            filled = texts if present is None else [text or "0" for text in texts]
            try:  # numpy reads a column of numbers many times faster than float() each cell
                array: Array = np.array(filled, object).astype(np.float64)
            except ValueError:
                pass
            else:
                if np.isfinite(array).all() and "_" not in "".join(texts):
                    return Column(array, None if present is None else np.array(present, np.bool_))
        values = [self._cell(name, field, text, row, bad) for row, text in enumerate(texts)]
        return column(field.kind, values)

    def _cell(self, name: str, field: Field, text: str, row: int, bad: dict[int, str]) -> Any:
        """The value of one cell; what stands in for a wrong one does not matter, its reading is refused."""
        if text == "":
            if field.optional:
                return None
            bad.setdefault(row, f"{name}: missing")
            return _ZEROS[field.kind]
        if field.kind == "string":
            return text
        value = _parse(field, text.strip())
        if value is None:
            bad.setdefault(row, f"{name}: expected {_WANTED[field.kind]}")
            return _ZEROS[field.kind]
        return value


def _number(text: str) -> Any:
    """A number if it is one, else the text."""
    if "_" in text:
        return text  # 1_000 is a number to Python, and to nobody who writes data
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _parse(field: Field, text: str) -> Any:
    """The value that a text says; None: it says none of this kind."""
    if field.kind == "bool":
        low = text.lower()
        return True if low in _TRUE else False if low in _FALSE else None
    if "_" in text:
        return None
    try:
        if field.kind == "int":
            value = int(text)
            return value if -(2**63) <= value < 2**63 else None
        number = float(text)
    except ValueError:
        return None
    fits = math.isfinite(number) or (field.nan and math.isnan(number))
    return number if fits else None
