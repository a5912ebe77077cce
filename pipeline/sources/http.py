"""`http`: readings that clients post."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from msgspec import Meta

from pipeline.api import Operation, Parameter, Taken, described
from pipeline.component import Codec, Inbox, Payload, ReadingSettings, Receipt, Server, SourceContext, TakesBody
from pipeline.posted import Posted, lost
from pipeline.quantity import Size
from pipeline.reading import CodecSource
from pipeline.registry import codec_for
from pipeline.web import HttpProblem, answer, encoded, latest_values, read_body

if TYPE_CHECKING:
    from aiohttp import web

LONGEST_KEY = 255  # characters of an Idempotency-Key
LISTED = 1_000  # refused readings that an answer names one by one; the others it counts
MEDIA_TYPES = 64  # different Content-Types whose codec is remembered

_TAKEN = orjson.dumps({"status": "success", "message": "Data received!"})
_TAKEN_FROM_QUERY = orjson.dumps({"status": "success"})
_TRUTH = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)
_JSON_TYPES = {"float": "number", "int": "integer", "bool": "boolean"} | dict.fromkeys(("string", "time"), "string")
# Where the query server answers; a source there would take its place.
_OTHERS = {"/", "/health", "/ready", "/metrics", "/docs", "/openapi.json"}
_OTHERS |= {f"/api/{name}" for name in ("streams", "alerts", "query", "live", "socket", "dead", "delivery", "graph")}


class HttpSettings(ReadingSettings, frozen=True, kw_only=True):
    path: Annotated[str, Meta(description="Where readings are posted.")] = "/data"
    max_body: Annotated[Size, Meta(description="Largest body of a request, unpacked.")] = Size(1_000_000)


class Http(CodecSource):
    """Readings as POST requests: one, an array, or one a line; any codec, by Content-Type.

        [sources.readings]
        type = "http"
        path = "/data"
        key = "id"
        fields = { value = "float" }

        curl -d '{"id": "s1", "value": 21.5}' http://127.0.0.1:8080/data

    201 comes once the readings are durable. 400 names each reading that was refused, by its index; the good ones beside
    it are kept, and `taken` counts them. A body may be packed (Content-Encoding: gzip or deflate).
    Without a body the reading is taken from the query: `POST /status?device_id=d1&status=online`.
    `Idempotency-Key`: a request that is repeated under its key is answered as before and counted once, also after a
    restart; so the cloud sink of another Headwater can feed it, with `key`, `time = "time"` and the fields of interest.
    GET on the same path gives the latest value of every key (an object of values, where there are several fields).
    At the limit: 413 for a body beyond `max_body`, 429 with Retry-After while the inbox is full. 503 while it stops.
    """

    needs_server = True

    def __init__(self, settings: HttpSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.path = settings.path
        self.paths = (settings.path,)
        self.max_body = int(settings.max_body)
        self.settings = settings
        if not self.path.startswith("/") or not self.path.isprintable() or any(c in "{}?#% " for c in self.path):
            context.problem("path", f'"{self.path}" is not a path; write it as "/data"')
        elif self.path.rstrip("/") in _OTHERS or self.path == "/":
            context.problem("path", f'"{self.path}" is where the query server answers; take another one, as "/data"')
        if self.max_body < 1:
            context.problem("max_body", "must be at least 1 B")
        self._posted = Posted()
        self._codecs: dict[str, Codec | None] = {}

    def mount(self, server: Server) -> None:
        for method, handler in (("POST", self._post), ("GET", self._get)):
            if not server.route(method, self.path, handler):
                raise ValueError(f"source {self.context.name}: another source has the path {self.path}")
        server.quick(self.path, self._takes, _TAKEN, status=201, max_body=self.max_body)

    async def run(self, inbox: Inbox, position: Any) -> None:
        await self._posted.run(inbox)

    # --- taking ---

    @described(
        Operation(
            "Send readings; answered once they are durable",
            Taken,
            lambda source: source.parameters(),
            body=lambda source: source.body_schema(),
            taken=("application/json", "application/x-ndjson", "text/csv"),
            statuses=(200, 201),
        )
    )
    async def _post(self, request: web.Request) -> web.StreamResponse:
        headers = request.headers
        body = await read_body(request, self.max_body)
        by_query = not body and bool(request.query_string)
        if by_query:
            body = self._of_query(request)
            codec = self._codec("application/json")
        else:
            codec = self._codec(headers.get("Content-Type", ""))
        key = headers.get("Idempotency-Key")
        if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
            raise HttpProblem(400, f"an Idempotency-Key has 1 to {LONGEST_KEY} characters, all of them printable ASCII")
        receipt = await self._posted.take(Payload(body, len(body), request=key, codec=codec))
        if receipt.refused:
            raise _refused(receipt)
        return encoded(_TAKEN_FROM_QUERY) if by_query else encoded(_TAKEN, 201)

    def _takes(self, content_type: str) -> TakesBody | None:
        try:
            codec = self._codec(content_type)
        except HttpProblem:
            return None

        def take(body: bytes, answer: Callable[[HttpProblem | None], None]) -> None:
            def told(receipt: Receipt) -> None:
                if receipt.failed is not None:
                    answer(lost(receipt))
                else:
                    answer(_refused(receipt) if receipt.refused else None)

            self._posted.hand(Payload(body, len(body), codec=codec), told)

        return take

    def _codec(self, content_type: str) -> Codec | None:
        """The codec of a Content-Type; HttpProblem if there is none."""
        try:
            codec = self._codecs[content_type]
        except KeyError:
            if len(self._codecs) >= MEDIA_TYPES:  # a client that invents them
                self._codecs.clear()
            codec = self._codecs[content_type] = self._make(content_type)
        if codec is None:
            raise HttpProblem(415, f'nothing here reads "{content_type[:100]}"')
        return codec

    def _make(self, content_type: str) -> Codec | None:
        """One of each kind: so requests are decoded together, whatever they call the same format."""
        codec = codec_for(self.settings, self.context, content_type)
        known = (self.codec, *self._codecs.values())
        return next((other for other in known if type(other) is type(codec)), codec)

    def _of_query(self, request: web.Request) -> bytes:
        """The reading of a query as JSON: a number or a truth value where the field is one.

        What does not look like one stays text, and the codec says what is wrong with it.
        """
        schema = self.schema
        reading: dict[str, Any] = {}
        for name, text in request.query.items():
            field = schema.fields.get(name)
            if field is None:
                reading[name] = _number(text) if name == self.settings.time else text
            elif field.kind == "bool":
                reading[name] = _TRUTH.get(text.strip().lower(), text)
            else:
                reading[name] = text if field.kind == "string" else _number(text)
        return orjson.dumps(reading)

    # --- telling ---

    def body_schema(self) -> dict[str, Any]:
        """One reading or several, as JSON Schema."""
        names = {self.settings.key: {"type": ["string", "integer"]}, self.settings.time: {"type": ["string", "number"]}}
        fields = self.schema.fields
        one = {
            "type": "object",
            "properties": {name: told for name, told in names.items() if name}
            | {name: {"type": [_JSON_TYPES[f.kind], *(["null"] if f.optional else [])]} for name, f in fields.items()},
            "required": [*filter(None, names), *(name for name, f in fields.items() if not f.optional)],
        }
        return {"anyOf": [one, {"type": "array", "items": one}]}

    def parameters(self) -> list[Parameter]:
        """A reading without a body."""
        names = [*filter(None, (self.settings.key, self.settings.time)), *self.schema.fields]
        return [Parameter(name, "Of a reading that has no body.") for name in names]

    @described(Operation("The latest value of every key", dict[str, Any]))
    async def _get(self, _: web.Request) -> web.StreamResponse:
        assert self.context.services is not None
        services, stream = self.context.services, self.context.name
        return answer(latest_values(services.latest(stream), services.schema(stream), self.context.keys.names))


def _number(text: str) -> Any:
    try:
        return orjson.loads(text.strip())
    except orjson.JSONDecodeError:
        return text


def _refused(receipt: Receipt) -> HttpProblem:
    count = len(receipt.refused)
    detail = f"{count} reading{'' if count == 1 else 's'} refused, {receipt.taken} kept"
    in_order = sorted((refused.item, refused.reason) for refused in receipt.refused)
    errors = [{"index": item, "reason": reason} for item, reason in in_order[:LISTED]]
    return HttpProblem(400, detail, taken=receipt.taken, refused=count, errors=errors)
