"""`csv`: one reading a line, columns named by a header."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.component import Context, Decoded, ReadingSettings, Refused
from pipeline.frame import Array, Column, Field, Ints, column
from pipeline.reading import parse_fields
from pipeline.times import nanoseconds

RAW = 200  # characters of a refused reading that are kept
_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
_WANTED = {"float": "a number", "int": "a whole number", "bool": "true or false"}


class Csv:
    """Readings as comma-separated values. The first line names the columns; those that are not declared are ignored.

        id,ts,value
        s1,1700000000000,21.5

        format = "csv"
        format = { type = "csv", delimiter = ";", header = ["id", "ts", "value"] }

    An empty cell is missing. `header` names the columns of data without such a line. A record stands on one line.
    A bad line costs only itself.
    """

    media_types = ("text/csv",)

    def __init__(self, settings: ReadingSettings, options: dict[str, Any], context: Context) -> None:
        self.settings = settings
        self.delimiter = options.pop("delimiter", ",")
        self.columns: list[str] | None = options.pop("header", None)
        self.has_header = self.columns is None
        if options:
            context.problem("format", f"csv has the options delimiter and header, not {', '.join(options)}")
        if not isinstance(self.delimiter, str) or len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            context.problem("format", "delimiter must be one character")
            self.delimiter = ","
        quiet = Context(context.name, context.keys)  # the source reports wrong fields itself
        reserved = (settings.key, settings.time, "time")
        self.fields = {n: f for n, f in parse_fields(settings.fields, quiet).items() if n not in reserved}

    # --- bytes to readings ---

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        refused: list[Refused] = []
        records: list[tuple[Any, ...]] = []  # the cells wanted, of each reading that may do
        places: list[tuple[int, int]] = []  # payload and item of each
        for i, payload in enumerate(payloads):
            self._payload(i, payload, records, places, refused)
        return self._columns(records, places, refused, len(payloads))

    def _wanted(self) -> list[str]:
        own = [name for name in (self.settings.key, self.settings.time) if name is not None]
        return [*own, *self.fields]

    def _payload(
        self,
        index: int,
        payload: bytes,
        records: list[tuple[Any, ...]],
        places: list[tuple[int, int]],
        refused: list[Refused],
    ) -> None:
        lines = self._lines(payload)
        header = self.columns or (next(csv.reader(lines[:1], delimiter=self.delimiter)) if lines else [])
        body = lines if self.columns else lines[1:]
        if not body:
            refused.append(Refused(index, 0, "empty: there is no reading in it", ""))
            return
        at = [header.index(name) if name in header else -1 for name in self._wanted()]
        for name, place in zip(self._wanted(), at, strict=True):
            if place < 0 and not (name in self.fields and self.fields[name].optional):
                why = f"{name}: there is no such column; there are {', '.join(header)}"[:RAW]
                refused += [Refused(index, item, why, line[:RAW]) for item, line in enumerate(body)]
                return
        for item, line in enumerate(body):
            cells = self._cells(line)
            if cells is None or len(cells) != len(header):
                why = "not CSV" if cells is None else f"{len(cells)} cells for {len(header)} columns"
                refused.append(Refused(index, item, why, line[:RAW]))
                continue
            records.append(tuple(cells[place] if place >= 0 else "" for place in at))
            places.append((index, item))

    def _lines(self, payload: bytes) -> list[str]:
        lines = [line for line in payload.decode(errors="replace").splitlines() if line.strip()]
        if lines:
            lines[0] = lines[0].removeprefix("\ufeff")
        return lines

    def readings(self, payload: bytes) -> list[bytes]:
        """Each reading of a payload as one of its own: below the header, where there is one."""
        lines = self._lines(payload)
        if not self.has_header:
            return [line.encode() for line in lines]
        return [f"{lines[0]}\n{line}".encode() for line in lines[1:]]

    def _cells(self, line: str) -> list[str] | None:
        try:
            return next(csv.reader([line], delimiter=self.delimiter, strict=True))
        except csv.Error:
            return None

    # --- readings to columns ---

    def _columns(
        self, records: list[tuple[Any, ...]], places: list[tuple[int, int]], refused: list[Refused], payloads: int
    ) -> Decoded:
        bad: dict[int, str] = {}
        cells = list(zip(*records, strict=True)) if records else [()] * len(self._wanted())
        columns = dict(zip(self._wanted(), cells, strict=True))
        keys: list[str] = list(columns.pop(self.settings.key)) if self.settings.key is not None else []
        for row, key in enumerate(keys):
            if not key:
                bad[row] = f"{self.settings.key}: missing"
        times: Ints | None = None
        if self.settings.time is not None:
            times = self._times(list(columns.pop(self.settings.time)), bad)
        made = {name: self._column(name, field, list(columns[name]), bad) for name, field in self.fields.items()}
        for row, why in sorted(bad.items()):
            refused.append(Refused(*places[row], why, self.delimiter.join(records[row])[:RAW]))
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
        values: list[Any] = [_number(text) if self.settings.time_unit != "iso" else text for text in texts]
        unit = self.settings.time_unit
        if unit != "auto" and any(isinstance(v, str) for v in values):
            values = [0 if isinstance(v, str) and unit != "iso" else v for v in values]
            for row, text in enumerate(texts):
                if unit != "iso" and isinstance(_number(text), str):
                    bad[row] = f"{self.settings.time}: not a time"
        times, good = nanoseconds(values, unit)
        if good is not None:
            bad |= dict.fromkeys(np.flatnonzero(~good).tolist(), f"{self.settings.time}: not a time in range")
        return times

    def _column(self, name: str, field: Field, texts: list[str], bad: dict[int, str]) -> Column:
        if field.kind == "float" and not field.optional:
            try:  # numpy reads a column of numbers many times faster than float() each cell
                array: Array = np.array(texts, object).astype(np.float64)
            except ValueError:
                pass
            else:
                if np.isfinite(array).all():
                    return Column(array)
        values = [self._cell(name, field, text, row, bad) for row, text in enumerate(texts)]
        return column(field.kind, values)

    def _cell(self, name: str, field: Field, text: str, row: int, bad: dict[int, str]) -> Any:
        """The value of one cell; what stands in for a wrong one does not matter, its reading is refused."""
        zero: Any = {"float": 0.0, "int": 0, "bool": False, "string": ""}[field.kind]
        if text == "":
            if field.optional:
                return None
            bad[row] = f"{name}: missing"
            return zero
        if field.kind == "string":
            return text
        value = _parse(field, text.strip())
        if value is None:
            bad[row] = f"{name}: expected {_WANTED[field.kind]}"
            return zero
        return value

    # --- rows to bytes ---

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """A line for each row, in the order of `header`'s names as the rows have them."""
        out = io.StringIO()
        writer = csv.writer(out, delimiter=self.delimiter, lineterminator="\n")
        names = self.columns or (list(rows[0]) if rows else [])
        writer.writerows([[_shown(row.get(name)) for name in names] for row in rows])
        return out.getvalue().encode()

    def header(self, names: Sequence[str]) -> bytes:
        out = io.StringIO()
        csv.writer(out, delimiter=self.delimiter, lineterminator="\n").writerow(names)
        self.columns = list(names)
        return out.getvalue().encode()


def _number(text: str) -> Any:
    """A number if it is one, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _parse(field: Field, text: str) -> Any:
    if field.kind == "bool":
        low = text.lower()
        return True if low in _TRUE else False if low in _FALSE else None
    if "_" in text:
        return None  # 1_000 is a number to Python, and to nobody who writes CSV
    try:
        if field.kind == "int":
            value = int(text)
            return value if -(2**63) <= value < 2**63 else None
        number = float(text)
    except ValueError:
        return None
    fits = math.isfinite(number) or (field.nan and math.isnan(number))
    return number if fits else None


def _shown(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else value
