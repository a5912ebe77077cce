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

from aiohttp import ClientConnectionError, web

from pipeline.component import RowsQuery, Table
from pipeline.frame import Frame, KeyTable, Schema
from sinks.query_server import questions
from sinks.query_server.forms import LARGE, MEDIA, form, table_bytes

if TYPE_CHECKING:
    from pipeline.walk import Walk

log = logging.getLogger("headwater")

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
        self.name = questions.form(request)
        self.gzip = questions.takes_gzip(request)
        self.form = form(self.name, stream, schema, keys.names, paged=paged)

    # --- at once ---

    async def short(self, frame: Frame, link: str | None = None) -> web.StreamResponse:
        """With an ETag of what it says: who has it already is told only that."""

        def encode() -> tuple[bytes, str, bool]:
            # In pieces: the memory of all rows at once, as they are told, would stay.
            form = self.form
            starts = range(0, max(len(frame), 1), form.large)
            pieces = [form.piece(frame.take(slice(at, at + form.large)), first=not at) for at in starts]
            body = b"".join((form.begin(), *pieces, form.end(link)))
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
        large = self.form.large
        await response.write(self.form.begin())
        first = True
        while True:
            for at in range(0, len(found), large):
                piece = found.take(slice(at, at + large))
                await response.write(await asyncio.to_thread(self.form.piece, piece, first=first))
                first = False
            if walk.done:
                break
            found = walk.take(await ask(walk.next()))
        await response.write(self.form.end(None))
        await response.write_eof()

    def _kind(self) -> tuple[str, str | None]:
        return MEDIA[self.name], "utf-8" if self.name in ("ndjson", "csv") else None


async def as_table(request: web.Request, table: Table, name: str) -> web.StreamResponse:
    """Of a question in SQL. Lines have no room to say that there would be more: a header does, in each form."""

    def encode() -> bytes:
        body = table_bytes(table, name)
        return gzip.compress(body, 1, mtime=0) if packed else body

    packed = questions.takes_gzip(request) and len(table.rows) >= LARGE
    headers = {"Vary": "Accept, Accept-Encoding", "Headwater-Truncated": str(table.truncated).lower()}
    if packed:
        headers["Content-Encoding"] = "gzip"
    body = await asyncio.to_thread(encode)
    return web.Response(body=body, headers=headers, content_type=MEDIA[name])


def _has(header: str, tag: str) -> bool:
    """True if `If-None-Match` names what would be sent."""
    known = {name.strip().removeprefix("W/") for name in header.split(",")}
    return "*" in known or tag.removeprefix("W/") in known
