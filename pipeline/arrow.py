"""Rows as an Arrow IPC stream: columns as they are kept, for readers that compute with them.

pyarrow is imported when rows are first wanted so; the extra `headwater[arrow]` brings it. What is missing is null, and NaN
stays NaN; a time is a `timestamp[ns, UTC]`, the key is text.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.frame import Array, Bools, column

if TYPE_CHECKING:
    from pipeline.component import Table
    from pipeline.frame import Frame, Schema

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
MISSING = 'needs pyarrow: pip install "headwater[arrow]"'
END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # of a stream, as the format has it

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


@functools.cache
def is_there() -> bool:
    """Can rows be had so? Nothing is imported to find out."""
    return importlib.util.find_spec("pyarrow") is not None


class Stream:
    """A stream's rows: what comes first, then any number of pieces, then `END`. Each is whole in itself."""

    def __init__(self, schema: Schema, names: Sequence[str]) -> None:
        import pyarrow as pa

        time = pa.timestamp("ns", tz="UTC")
        self._kinds = {
            "float": pa.float64(),
            "int": pa.int64(),
            "bool": pa.bool_(),
            "string": pa.string(),
            "time": time,
        }
        self._schema = schema
        self._names = names
        own = [pa.field(schema.key, pa.string(), nullable=False)] if schema.key else []
        # Rows that were recorded before a field was added lack it, whatever the pipeline says now.
        fields = [pa.field(name, self._kinds[field.kind]) for name, field in schema.fields.items()]
        self._told = pa.schema([*own, pa.field("time", time, nullable=False), *fields])

    def header(self) -> bytes:
        return bytes(self._told.serialize())

    def piece(self, frame: Frame) -> bytes:
        import pyarrow as pa

        columns = [self._keys(frame)] if self._schema.key else []
        columns.append(_array(self._kinds["time"], "time", frame.time))
        for name, field in self._schema.fields.items():
            found = frame.columns[name]
            columns.append(_array(self._kinds[field.kind], field.kind, found.values, found.present))
        return bytes(pa.record_batch(columns, schema=self._told).serialize())

    def _keys(self, frame: Frame) -> Any:
        import pyarrow as pa

        codes, places = np.unique(frame.key, return_inverse=True)
        names = np.array([self._names[code] for code in codes.tolist()], object)
        return _array(pa.string(), "string", names[places])


def _array(type_: Any, kind: str, values: Array, present: Bools | None = None) -> Any:
    """A column of Arrow. Made of its buffers: `pyarrow.array` would import pandas where there is one (50 MB), and
    `take`, of codes, what pyarrow computes with (17 MB)."""
    import pyarrow as pa

    buffers = [None if present is None else _bits(present)]
    if kind == "string":
        texts = [text.encode(errors="replace") for text in values.tolist()]
        ends = np.zeros(len(texts) + 1, np.int32)
        np.cumsum([len(text) for text in texts], out=ends[1:])
        buffers += [pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
    else:
        buffers.append(_bits(values) if kind == "bool" else pa.py_buffer(np.ascontiguousarray(values)))
    return pa.Array.from_buffers(type_, len(values), buffers)


def _bits(truths: Array) -> Any:
    import pyarrow as pa

    return pa.py_buffer(np.packbits(truths, bitorder="little"))


def of_frame(frame: Frame, schema: Schema, names: Sequence[str]) -> bytes:
    """A whole answer."""
    stream = Stream(schema, names)
    return stream.header() + stream.piece(frame) + END


def of_table(table: Table) -> bytes:
    """The answer to a question in SQL. Nobody has said what its columns are: numbers alike are numbers, a column in which
    each text is a time as the device writes it is one of times, and what is mixed is text."""
    import pyarrow as pa

    columns = [_guessed(list(values)) for values in zip(*table.rows, strict=True)]
    columns = columns or [pa.nulls(0) for _ in table.columns]
    batch = pa.record_batch(columns, names=table.columns)
    return bytes(batch.schema.serialize()) + bytes(batch.serialize()) + END


def _guessed(values: list[Any]) -> Any:
    import pyarrow as pa

    types = {bool: ("bool", pa.bool_()), int: ("int", pa.int64()), float: ("float", pa.float64())}
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {int, float}:
        kinds = {float}
    if kinds == {str} and are_instants(values):
        times = np.array([value and value[:-1] for value in values], "M8[ns]")
        return _array(pa.timestamp("ns", tz="UTC"), "time", times.astype(np.int64), ~np.isnat(times))
    kind, type_ = types.get(kinds.pop(), ("string", pa.string())) if len(kinds) == 1 else ("string", pa.string())
    if kind == "string":
        values = [value if value is None else str(value) for value in values]
    made = column(kind, values)
    return _array(type_, kind, made.values, made.present)


def are_instants(values: Sequence[Any]) -> bool:
    """Is each text a time as the device writes it? None is no text."""
    return all(value is None or _INSTANT.fullmatch(value) for value in values)
