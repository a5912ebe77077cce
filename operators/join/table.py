"""The row of a table file that belongs to each reading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from operators.join.given import Given
from operators.join.match import On, kind_of, pairs
from pipeline.component import Context, OperatorContext, OutsideFile, ReadingSettings, State
from pipeline.frame import Column, Field, Frame, Ints, KeyTable
from pipeline.parts import zeros
from pipeline.problem import did_you_mean
from pipeline.reading import parse_fields
from pipeline.registry import codec_for

NAME = ".table"  # of its rows among the sides of a Frame: no stream can be called so
FORMATS = {".csv": "csv", ".json": "json", ".ndjson": "json", ".jsonl": "json"}


class Table:
    """The newest content of the file, and where in it each key stands."""

    def __init__(
        self,
        file: Path,
        format_: str | dict[str, Any] | None,
        on: On,
        fields: Mapping[str, Field],
        context: OperatorContext,
    ) -> None:
        self.context = context
        self.fields = fields
        self.pairs = self._checked(pairs(on, context.schema.key))
        self.columns: dict[str, Column] | None = None
        self._rows: dict[tuple[Any, ...], int] = {}  # `on` -> row
        self._by_code: Ints = np.empty(0, np.int64)  # the row of each key; -1: none
        self.file = file
        self.codec = self._codec(format_)
        context.files[NAME] = OutsideFile(context.folder / file, self.read, lambda: self.columns is None)

    def _checked(self, named: dict[str, str]) -> dict[str, str]:
        context = self.context
        if not named:
            context.problem("on", "name the field that the table's rows are found by")
        for name, other in named.items():
            if kind_of(name, context.schema) is None:
                known = context.schema.names()
                context.problem("on", f'"{name}" is not a field of the input{did_you_mean(name, known)}')
            if other in self.fields:
                context.problem(f"fields.{other}", 'is in "on" already; leave it out of fields')
        return {name: other for name, other in named.items() if kind_of(name, context.schema) is not None}

    def _codec(self, format_: str | dict[str, Any] | None) -> Any:
        if format_ is None:
            format_ = FORMATS.get(self.file.suffix.lower())
            if format_ is None:
                self.context.problem(
                    "format", f'the ending of "{self.file}" does not tell its format: format = "csv" or "json"'
                )
                return None
        on = {other: kind_of(name, self.context.schema) or "string" for name, other in self.pairs.items()}
        fields = {**on, **{name: str(field) for name, field in self.fields.items()}}
        # Away from the pipeline's keys: it decodes in another thread, and what is in a table need never come.
        apart = Context(self.context.name, KeyTable(), folder=self.context.folder)
        codec = codec_for(ReadingSettings(format=format_, fields=fields), apart)
        for setting, text in apart.problems:
            self.context.problem(setting, text)
        return codec

    def read(self, data: bytes) -> dict[str, Column]:
        """The rows of the file; ValueError if it is not a table."""
        decoded = self.codec.decode([data])
        if decoded.refused:
            first = decoded.refused[0]
            raise ValueError(f"row {first.item + 1}: {first.reason} ({first.raw})")
        columns = {name: decoded.columns[name] for name in (*self.pairs.values(), *self.fields)}
        rows = self._values([columns[name] for name in self.pairs.values()])
        if not rows:
            raise ValueError("it has no rows")
        seen: dict[tuple[Any, ...], int] = {}
        for i, row in enumerate(rows):
            if seen.setdefault(row, i) != i:
                raise ValueError(
                    f"rows {seen[row] + 1} and {i + 1} have the same {', '.join(self.pairs.values())}: {row}"
                )
        return columns

    @staticmethod
    def _values(columns: list[Column]) -> list[tuple[Any, ...]]:
        return list(zip(*(c.tolist() for c in columns), strict=True))

    # --- running ---

    def push(self, frame: Frame) -> Given:
        """What each row is given. A new content comes before all rows of its Frame."""
        new = frame.sides.get(NAME)
        if new is not None and len(new):
            self._take(dict(new.columns))
        at = self._at(frame)
        found = at >= 0
        columns = {}
        for name, field in self.fields.items():
            values, present = zeros(field.kind, len(frame)), np.zeros(len(frame), np.bool_)
            if self.columns is not None:
                column = self.columns[name].take(at[found])
                values[found], present[found] = column.values, column.known()
            columns[name] = Column(values, present)
        return Given(found, columns)

    def _take(self, columns: dict[str, Column]) -> None:
        self.columns = columns
        keys = self._values([columns[name] for name in self.pairs.values()])
        self._rows = {key: row for row, key in enumerate(keys)}
        self._by_code = self._by_code[:0]

    def _at(self, frame: Frame) -> Ints:
        """The row of the table for each row; -1 where there is none."""
        names, key = self.context.keys.names, self.context.schema.key
        if [*self.pairs] == [key]:
            known = len(self._by_code)
            if known < len(names):
                more = [self._rows.get((name,), -1) for name in names[known:]]
                self._by_code = np.concatenate([self._by_code, np.array(more, np.int64)])
            return self._by_code[frame.key]
        parts = [
            [names[code] for code in frame.key.tolist()] if name == key else frame[name].tolist() for name in self.pairs
        ]
        return np.fromiter((self._rows.get(row, -1) for row in zip(*parts, strict=True)), np.int64, len(frame))

    def due(self) -> None:
        return None

    def snapshot(self) -> State:
        if self.columns is None:
            return {"table": None}
        return {"table": {n: [c.values.copy(), c.known().copy()] for n, c in self.columns.items()}}

    def restore(self, state: State) -> None:
        if state["table"] is None:
            self.columns, self._rows, self._by_code = None, {}, self._by_code[:0]
        else:
            self._take({name: Column(*parts) for name, parts in state["table"].items()})


def fields_of(written: tuple[str, ...] | dict[str, str], context: OperatorContext) -> dict[str, Field]:
    """What is taken of a table."""
    if isinstance(written, dict) and written:
        return parse_fields(written, context)
    context.problem("fields", 'say what is taken of the table, with types: fields = { limit = "float" }')
    return {}
