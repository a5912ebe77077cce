"""`csv`: one reading a line, columns named by a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta

from pipeline.component import Context, Decoded, ReadingSettings, Refused, Settings
from pipeline.reading import options_of
from pipeline.texts import Texts
from pipeline.typed import EMPTY, RAW


class CsvOptions(Settings, frozen=True):
    delimiter: Annotated[str, Meta(description="What stands between two cells: one character.")] = ","
    header: Annotated[
        list[str] | None, Meta(description="The names of the columns, of data that has no line with them.")
    ] = None


class Csv(Texts):
    """Readings as comma-separated values. The first line names the columns; those that are not declared are ignored.

        id,ts,value
        s1,1700000000000,21.5

        format = "csv"
        format = { type = "csv", delimiter = ";", header = ["id", "ts", "value"] }

    An empty cell is missing. `header` names the columns of data without such a line. A record stands on one line.
    A bad line costs only itself.
    """

    Options = CsvOptions
    media_types = ("text/csv",)

    def __init__(self, settings: ReadingSettings, options: dict[str, Any], context: Context) -> None:
        super().__init__(settings, context)
        made = options_of(CsvOptions, options, context)
        self.delimiter = made.delimiter
        self.columns = made.header
        self.has_header = self.columns is None
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            context.problem("format.delimiter", "must be one character")
            self.delimiter = ","

    # --- bytes to readings ---

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        refused: list[Refused] = []
        records: list[tuple[Any, ...]] = []  # the cells wanted, of each reading that may do
        places: list[tuple[int, int]] = []  # payload and item of each
        for i, payload in enumerate(payloads):
            self._payload(i, payload, records, places, refused)
        return self.records(records, places, refused, len(payloads), lambda row: self.delimiter.join(records[row]))

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
            refused.append(Refused(index, 0, EMPTY, ""))
            return
        at = [header.index(name) if name in header else -1 for name in self.wanted()]
        for name, place in zip(self.wanted(), at, strict=True):
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
        if '"' not in line:
            return line.split(self.delimiter)
        try:
            return next(csv.reader([line], delimiter=self.delimiter, strict=True))
        except csv.Error:
            return None

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


def _shown(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else value
