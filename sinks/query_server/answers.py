"""Rows as answers: in the form that was asked for, at once or piece by piece.

A long answer is read page by page and sent as it is read: it takes the memory of one page, holds no transaction open, and
waits for its reader without a thread. When the reader has gone, so has the reading.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import TYPE_CHECKING

import orjson
from aiohttp import ClientConnectionError, web

from pipeline.component import Codec, Context, ReadingSettings, RowsQuery, Table
from pipeline.frame import Frame, KeyTable, Schema, rows
from pipeline.registry import codec_for
from sinks.query_server import questions

if TYPE_CHECKING:
    from pipeline.walk import Walk

log = logging.getLogger("headwater")

MEDIA = {"json": "application/json", "ndjson": "application/x-ndjson", "csv": "text/csv"}
LARGE = 2_000  # rows from which on an answer is made beside the loop, and of a piece of a long one: 2 ms of work
WORTH_PACKING = 1_000  # bytes


class Answers:
    """To one request, about one stream."""

    def __init__(
        self,
        request: web.Request,
        stream: str,
        schema: Schema,
        keys: KeyTable,
        *,
        paged: bool = True,
    ) -> None:
        self.request = request
        self.stream = stream
        self.schema = schema
        self.keys = keys
        self.paged = paged
        self.form = questions.form(request, MEDIA if paged else {"json": MEDIA["json"]})
        self.gzip = questions.takes_gzip(request)
        self.codec = _codec(self.form)

    # --- at once ---

    async def short(self, frame: Frame, link: str | None = None) -> web.StreamResponse:
        """With an ETag of what it says: who has it already is told only that."""

        def encode() -> tuple[bytes, str, bool]:
            # In pieces: a row as a dict takes ten times what it does as text, and the memory of all of them would stay.
            starts = range(0, max(len(frame), 1), LARGE)
            pieces = [self._piece(frame.take(slice(at, at + LARGE)), first=not at) for at in starts]
            body = b"".join((self._begin(), *pieces, self._end(link)))
            tag = f'W/"{blake2b(body, digest_size=12).hexdigest()}"'
            packed = self.gzip and len(body) >= WORTH_PACKING
            return (gzip.compress(body, 1, mtime=0) if packed else body), tag, packed

        body, tag, packed = encode() if len(frame) < LARGE else await asyncio.to_thread(encode)
        headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Accept, Accept-Encoding"}
        if link is not None:
            headers["Link"] = f'<{link}>; rel="next"'
        if _has(self.request.headers.get("If-None-Match", ""), tag):
            return web.Response(status=304, headers=headers)
        if packed:
            headers["Content-Encoding"] = "gzip"
        kind, charset = self._kind()
        return web.Response(body=body, headers=headers, content_type=kind, charset=charset)

    # --- piece by piece ---

    async def long(self, walk: Walk, ask: Callable[[RowsQuery], Awaitable[Frame]]) -> web.StreamResponse:
        found = walk.take(await ask(walk.next()))  # what goes wrong by now is told; later the answer can only break off
        response = web.StreamResponse(headers={"Vary": "Accept, Accept-Encoding"})
        response.content_type, response.charset = self._kind()
        head = self.request.method == "HEAD"
        if self.gzip and not head:  # aiohttp would send the end of a packed body after the head
            response.enable_compression(web.ContentCoding.gzip)
        await response.prepare(self.request)
        if head:
            return response
        try:
            await self._send(response, found, walk, ask)
        except (ConnectionError, ClientConnectionError) as error:
            raise ConnectionResetError("the reader of a long answer is gone") from error
        except Exception as error:
            log.exception("%s broke off", self.request.path)
            if self.request.transport is not None:
                self.request.transport.abort()  # or what came would look like all there is
            raise ConnectionResetError("a long answer broke off") from error
        return response

    async def _send(
        self, response: web.StreamResponse, found: Frame, walk: Walk, ask: Callable[[RowsQuery], Awaitable[Frame]]
    ) -> None:
        await response.write(self._begin())
        first = True
        while True:
            for at in range(0, len(found), LARGE):
                piece = found.take(slice(at, at + LARGE))
                await response.write(await asyncio.to_thread(self._piece, piece, first=first))
                first = False
            if walk.done:
                break
            found = walk.take(await ask(walk.next()))
        await response.write(self._end(None))
        await response.write_eof()

    # --- what both are made of ---

    def _kind(self) -> tuple[str, str | None]:
        return MEDIA[self.form], None if self.form == "json" else "utf-8"

    def _begin(self) -> bytes:
        if self.form == "json":
            return b'{"stream":' + orjson.dumps(self.stream) + b',"rows":['
        return self.codec.header([*([self.schema.key] if self.schema.key else []), "time", *self.schema.fields])

    def _piece(self, frame: Frame, *, first: bool) -> bytes:
        shown = rows(frame, self.schema, self.keys.names)
        if self.form != "json":
            return self.codec.encode(shown)
        listed = orjson.dumps(shown)[1:-1]
        return listed if first else b"," + listed

    def _end(self, link: str | None) -> bytes:
        if self.form != "json":
            return b""
        return b'],"next":' + orjson.dumps(link) + b"}" if self.paged else b"]}"


async def as_table(request: web.Request, table: Table, form: str) -> web.StreamResponse:
    """Of a question in SQL. Lines have no room to say that there would be more: a header does, in each form."""

    def encode() -> bytes:
        shown = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        if form == "json":
            body = orjson.dumps({"columns": table.columns, "rows": shown, "truncated": table.truncated})
        else:
            codec = _codec(form)
            body = codec.header(table.columns) + codec.encode(shown)
        return gzip.compress(body, 1, mtime=0) if packed else body

    packed = questions.takes_gzip(request) and len(table.rows) >= LARGE
    headers = {"Vary": "Accept, Accept-Encoding", "Headwater-Truncated": str(table.truncated).lower()}
    if packed:
        headers["Content-Encoding"] = "gzip"
    body = await asyncio.to_thread(encode)
    return web.Response(body=body, headers=headers, content_type=MEDIA[form])


def _codec(form: str) -> Codec:
    codec = codec_for(ReadingSettings(format="csv" if form == "csv" else "json"), Context("query_server", KeyTable()))
    assert codec is not None  # these two are built in
    return codec


def _has(header: str, tag: str) -> bool:
    """True if `If-None-Match` names what would be sent."""
    known = {name.strip().removeprefix("W/") for name in header.split(",")}
    return "*" in known or tag.removeprefix("W/") in known
