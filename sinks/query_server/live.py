"""`/api/live` and `/api/socket`: rows as they become durable, as Server-Sent Events and over a WebSocket.

An `id` is an arrival number: all that a listener asked for and that has a lower one has been sent. It means the same after a
restart, and whatever the history did to its Frames meanwhile: so who comes back with its last one is given what it has missed
out of the history, then what comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import orjson
from aiohttp import WSMsgType, web

from pipeline.api import described
from pipeline.expression import Expression, ExpressionError, compile_expression
from pipeline.frame import KeyTable, Schema
from pipeline.problem import did_you_mean
from pipeline.web import HttpProblem
from sinks.query_server import descriptions, questions
from sinks.query_server.feed import Feed, Filter, Listener, Told

if TYPE_CHECKING:
    from pipeline.component import Server, Services

HEARTBEAT_S = 15.0
MOST_TEXT = 1_000  # characters of `where`
MOST_KEYS = 1_000
_ID = "last_event_id"  # the header Last-Event-ID, for clients that cannot set it
_PARAMETERS = ("streams", "key", "where", _ID)
_EVENTS = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}


class Live:
    """The handlers."""

    def __init__(self, services: Services, inputs: Mapping[str, Schema], keys: KeyTable) -> None:
        self.inputs = inputs  # of all query servers, those mounted later too
        self.keys = keys
        self.feed = Feed(services, keys)

    def mount(self, server: Server) -> None:
        server.route("GET", "/api/live", self.events)
        server.route("GET", "/api/socket", self.socket)
        server.on_close(self.feed.close)

    @described(descriptions.EVENTS)
    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-Sent Events: the rows of a stream as an event without a name, `missed` for what there was no time for."""
        filters, first = self._asked(request)
        listener = self.feed.add(filters)
        try:
            response = web.StreamResponse(headers=_EVENTS)
            await response.prepare(request)
            await response.write(b"retry: 2000\n\n")

            async def send(told: Told) -> None:
                await response.write(b"".join(b"data: %b\n\n" % p for p in told.parts[:-1]) + _last(told))

            async def missed(count: int | None) -> None:
                await response.write(b'event: missed\ndata: {"rows":%b}\n\n' % orjson.dumps(count))

            async def beat(id_: int) -> None:
                await response.write(b": here\nid: %d\n\n" % id_)  # without data only the id counts

            await self._speak(listener, first, send, missed, beat)
        finally:
            self.feed.remove(listener)
        return response

    @described(descriptions.SOCKET)
    async def socket(self, request: web.Request) -> web.StreamResponse:
        """The same, each event a text message: {"stream", "rows", "id"}, {"missed"} or {"id"}. What the client sends is ignored."""
        if not web.WebSocketResponse().can_prepare(request).ok:
            raise HttpProblem(426, "this is a WebSocket", {"Upgrade": "websocket"})
        filters, first = self._asked(request)
        listener = self.feed.add(filters)
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=4_096)
        reading: asyncio.Task[None] | None = None
        try:
            await socket.prepare(request)
            reading = asyncio.create_task(_until_closed(socket, listener))

            async def send(told: Told) -> None:
                for part in told.parts[:-1]:
                    await socket.send_str(part.decode())
                await socket.send_str(f'{told.parts[-1][:-1].decode()},"id":{told.end}}}')

            async def missed(count: int | None) -> None:
                await socket.send_str(orjson.dumps({"missed": count}).decode())

            async def beat(id_: int) -> None:
                await socket.send_str(f'{{"id":{id_}}}')

            await self._speak(listener, first, send, missed, beat)
            await socket.close()
        finally:
            if reading is not None:
                reading.cancel()
            self.feed.remove(listener)
        return socket

    async def _speak(
        self,
        listener: Listener,
        first: int | None,
        send: Callable[[Told], Awaitable[None]],
        missed: Callable[[int | None], Awaitable[None]],
        beat: Callable[[int], Awaitable[None]],
    ) -> None:
        """What was missed since `first`, then what comes, until the listener is closed."""

        async def tell(told: Told | None) -> None:
            if listener.missed:
                count, listener.missed = listener.missed, 0
                await missed(count)
            if told is not None:
                await send(told)

        now = listener.begins
        if first is not None and first < now:
            for earlier in await self.feed.again(listener, first, now):
                await tell(earlier)
        elif first is not None and first > now:
            await missed(None)  # of a history that is not there any more: nobody knows how many
        await beat(now)
        while not listener.closed:
            told = listener.take()
            await tell(told)
            if told is None and not await listener.news(HEARTBEAT_S):
                await beat(self.feed.end)

    # --- what is asked ---

    def _asked(self, request: web.Request) -> tuple[dict[Filter, tuple[Schema, Expression | None]], int | None]:
        questions.only(request, _PARAMETERS)
        names = [n.strip() for text in request.query.getall("streams", []) for n in text.split(",") if n.strip()]
        keys = tuple(sorted(set(request.query.getall("key", ())))) or None
        inputs = {n: s for n, s in self.inputs.items() if names or keys is None or s.key}
        if keys is not None and len(keys) > MOST_KEYS:
            raise HttpProblem(400, f"key: at most {MOST_KEYS}", parameter="key")
        where = request.query.get("where")
        if where is not None and len(where) > MOST_TEXT:
            raise HttpProblem(400, f"where: at most {MOST_TEXT} characters", parameter="where")
        filters = {}
        for name in dict.fromkeys(names or inputs):
            if name not in self.inputs:
                hint = did_you_mean(name, self.inputs)
                raise HttpProblem(404, f'there is no stream "{name[:100]}"{hint}', parameter="streams")
            schema = self.inputs[name]
            if keys is not None and schema.key is None:
                raise HttpProblem(400, f'key: the stream "{name}" has no key', parameter="key")
            filters[Filter(name, keys, where)] = schema, self._where(where, name, schema)
        return filters, _id(request)

    def _where(self, text: str | None, stream: str, schema: Schema) -> Expression | None:
        if text is None:
            return None
        try:
            return compile_expression(text, schema, "bool", self.keys)
        except ExpressionError as error:
            raise HttpProblem(400, f'where: {error} (stream "{stream}")', parameter="where") from None


def _id(request: web.Request) -> int | None:
    """The last `id` that the client has seen; None: it begins now."""
    text = request.headers.get("Last-Event-ID") or request.query.get(_ID)
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise questions.bad(_ID, "the id of an event", text)
    return int(text)


def _last(told: Told) -> bytes:
    return b"data: %b\nid: %d\n\n" % (told.parts[-1], told.end)


async def _until_closed(socket: web.WebSocketResponse, listener: Listener) -> None:
    async for message in socket:
        if message.type in (WSMsgType.CLOSE, WSMsgType.ERROR):
            break
    listener.close()
