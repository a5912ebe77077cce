"""What rows are written in: json, lines of ndjson or csv, Arrow. Each form makes an answer of a begin, pieces and an end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import orjson

from pipeline import arrow
from pipeline.component import Codec, Context, ReadingSettings, Table
from pipeline.frame import Frame, KeyTable, Schema, rows
from pipeline.registry import codec_for

if TYPE_CHECKING:
    from collections.abc import Mapping

MEDIA = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "arrow": arrow.MEDIA_TYPE,
}
LARGE = 2_000  # rows of a piece: 2 ms of work. A row as a dict takes ten times what it does as text
LARGE_BATCH = 30_000  # of one of Arrow, whose readers want few


def available() -> Mapping[str, str]:
    """What this device can write: name and media type, the best liked first."""
    return {name: media for name, media in MEDIA.items() if name != "arrow" or arrow.is_there()}


class Form(Protocol):
    """How one answer is written."""

    @property
    def large(self) -> int:
        """Rows of a piece."""
        ...

    def begin(self) -> bytes: ...
    def piece(self, frame: Frame, *, first: bool) -> bytes: ...
    def end(self, link: str | None) -> bytes: ...


def form(name: str, stream: str, schema: Schema, names: Sequence[str], *, paged: bool) -> Form:
    if name == "json":
        return Json(stream, schema, names, paged=paged)
    return Arrow(schema, names) if name == "arrow" else Lines(name, schema, names)


class Json:
    """One object; `next` is there where the answer has pages."""

    large = LARGE

    def __init__(self, stream: str, schema: Schema, names: Sequence[str], *, paged: bool) -> None:
        self.stream = stream
        self.schema = schema
        self.names = names
        self.paged = paged

    def begin(self) -> bytes:
        return b'{"stream":' + orjson.dumps(self.stream) + b',"rows":['

    def piece(self, frame: Frame, *, first: bool) -> bytes:
        listed = orjson.dumps(rows(frame, self.schema, self.names))[1:-1]
        return listed if first else b"," + listed

    def end(self, link: str | None) -> bytes:
        return b'],"next":' + orjson.dumps(link) + b"}" if self.paged else b"]}"


class Lines:
    """As a codec writes them."""

    large = LARGE

    def __init__(self, name: str, schema: Schema, names: Sequence[str]) -> None:
        self.schema = schema
        self.names = names
        self.codec = _codec(name)

    def begin(self) -> bytes:
        return self.codec.header([*([self.schema.key] if self.schema.key else []), "time", *self.schema.fields])

    def piece(self, frame: Frame, *, first: bool) -> bytes:
        return self.codec.encode(rows(frame, self.schema, self.names))

    def end(self, link: str | None) -> bytes:
        return b""


class Arrow:
    """A record batch a piece."""

    large = LARGE_BATCH

    def __init__(self, schema: Schema, names: Sequence[str]) -> None:
        self.stream = arrow.Stream(schema, names)

    def begin(self) -> bytes:
        return self.stream.header()

    def piece(self, frame: Frame, *, first: bool) -> bytes:
        return self.stream.piece(frame)

    def end(self, link: str | None) -> bytes:
        return arrow.END


def table_bytes(table: Table, name: str) -> bytes:
    """The answer to a question in SQL. Only JSON has room to say that there would be more."""
    if name == "arrow":
        return arrow.of_table(table)
    shown = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    if name == "json":
        return orjson.dumps({"columns": table.columns, "rows": shown, "truncated": table.truncated})
    codec = _codec(name)
    return codec.header(table.columns) + codec.encode(shown)


def _codec(name: str) -> Codec:
    codec = codec_for(ReadingSettings(format="csv" if name == "csv" else "json"), Context("query_server", KeyTable()))
    assert codec is not None  # these two are built in
    return codec
