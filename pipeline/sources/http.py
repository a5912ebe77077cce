"""`http`: readings that clients post."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson

from pipeline.component import (
    Codec,
    Inbox,
    Payload,
    ReadingSettings,
    Receipt,
    Server,
    SourceContext,
)
from pipeline.frame import rows
from pipeline.quantity import Size
from pipeline.reading import CodecSource

if TYPE_CHECKING:
    from aiohttp import web

MAX_REQUEST_KEY = 200  # characters of an Idempotency-Key
LISTED = 100  # refused readings that an answer names, one by one
RETRY_AFTER_S = 1

_TAKEN = orjson.dumps({"status": "success", "message": "Data received!"})
_STATUS = orjson.dumps({"status": "success"})


class HttpSettings(ReadingSettings, frozen=True, kw_only=True):
    path: str = "/data"
    max_body: Size = Size(1_000_000)


class Http(CodecSource):
    """Readings as POST requests: one, an array, or one a line; any codec, by Content-Type.

        [sources.readings]
        type = "http"
        path = "/data"
        key = "id"
        fields = { value = "float" }

        curl -d '{"id": "s1", "value": 21.5}' http://127.0.0.1:8080/data

    201 comes once the readings are durable. 400 names each reading that was refused; the good ones beside it are kept.
    Without a body the reading is taken from the query: `POST /status?device_id=d1&status=online`.
    `Idempotency-Key`: a request that is repeated under its key is answered as before and counted once, also after a restart.
    GET on the same path gives the latest value of every key (an object of values, where there are several fields).
    At the limit: 413 for a body beyond `max_body`, 429 with Retry-After while the inbox is full.
    """

    needs_server = True

    def __init__(self, settings: HttpSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        if not settings.path.startswith("/"):
            context.problem("path", 'must begin with "/"')
        self.paths = (settings.path,)
        self.inbox: Inbox | None = None
        self.codecs: dict[str, Codec | None] = {}

    def mount(self, server: Server) -> None:
        for method, handler in (("POST", self._post), ("GET", self._get)):
            server.route(method, self.settings.path, handler)

    async def run(self, inbox: Inbox, position: Any) -> None:
        self.inbox = inbox
        await asyncio.Event().wait()  # requests bring what there is

    # --- taking ---

    async def _post(self, request: web.Request) -> web.StreamResponse:
        from pipeline.server import problem

        too_long = problem(413, f"a body may have at most {self.settings.max_body:,} bytes")
        if (request.content_length or 0) > self.settings.max_body:
            return too_long
        body = await request.read()
        if len(body) > self.settings.max_body:
            return too_long
        codec: Codec | None = None
        if body:
            codec = self._codec(request.headers.get("Content-Type", ""))
            if codec is None:
                return problem(415, f"there is no codec for {request.content_type[:100]!r}")
        elif request.query_string:
            body, codec = self._of_query(request), self._codec("application/json")
        key = request.headers.get("Idempotency-Key")
        if key is not None and not 0 < len(key) <= MAX_REQUEST_KEY:
            return problem(400, f"an Idempotency-Key has 1 to {MAX_REQUEST_KEY} characters")
        receipt = await self._taken(Payload(body, len(body), request=key, codec=codec))
        if receipt is None:
            return problem(429, "too much is waiting; come back later", {"Retry-After": str(RETRY_AFTER_S)})
        return self._answer(receipt, by_query=bool(request.query_string) and request.content_length in (None, 0))

    def _codec(self, content_type: str) -> Codec | None:
        if content_type not in self.codecs:
            if len(self.codecs) > 50:  # a client that invents media types
                self.codecs.clear()
            self.codecs[content_type] = self.context.codec(self.settings, media_type=content_type)
        return self.codecs[content_type]

    def _of_query(self, request: web.Request) -> bytes:
        """The reading of a query as JSON: numbers and true/false where the field is one."""
        reading: dict[str, Any] = {}
        for name, text in request.query.items():
            field = self.schema.fields.get(name)
            reading[name] = text
            if (field is not None and field.kind != "string") or name == self.settings.time:
                try:
                    reading[name] = orjson.loads(text)
                except orjson.JSONDecodeError:
                    pass  # the codec says what is wrong with it
        return orjson.dumps(reading)

    async def _taken(self, payload: Payload) -> Receipt | None:
        """The receipt once it is durable; None: there is no room."""
        if self.inbox is None:
            return None
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()

        def done(receipt: Receipt) -> None:
            if not future.done():
                future.set_result(receipt)

        payload.done = done
        if not self.inbox.offer(payload):
            return None
        return await future

    def _answer(self, receipt: Receipt, *, by_query: bool) -> web.StreamResponse:
        from aiohttp import web

        from pipeline.server import problem

        if receipt.failed is not None:
            return problem(503, receipt.failed, {"Retry-After": str(RETRY_AFTER_S)})
        if not receipt.refused:
            if by_query:
                return web.Response(body=_STATUS, content_type="application/json")
            return web.Response(status=201, body=_TAKEN, content_type="application/json")
        refused = len(receipt.refused)
        detail = f"{refused} reading{'s' if refused != 1 else ''} refused"
        if receipt.taken:
            detail += f"; {receipt.taken} kept"
        errors = [{"index": r.item, "reason": r.reason} for r in receipt.refused[:LISTED]]
        return problem(400, detail, taken=receipt.taken, refused=refused, errors=errors)

    # --- telling ---

    async def _get(self, request: web.Request) -> web.StreamResponse:
        from pipeline.server import answer

        assert self.context.services is not None
        return answer(latest_values(self.context.services, self.context.name, self.context.keys.names))


def latest_values(services: Any, stream: str, names: list[str]) -> Any:
    """`{"s1": 21.5}`: the newest value of every key; several fields as an object, without a key the row itself."""
    schema = services.schema(stream)
    found: dict[str, Any] = {}
    for row in rows(services.latest(stream), schema, names):
        key = row.pop(schema.key) if schema.key else ""
        del row["time"]
        found[key] = next(iter(row.values())) if len(schema.fields) == 1 else row
    return found if schema.key else found.get("", {})
