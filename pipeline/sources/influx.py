"""`influx`: what Telegraf, InfluxDB and their like write, by the HTTP interface of InfluxDB 1 and 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from pipeline.api import Operation, Parameter, described
from pipeline.component import Codec, Inbox, Payload, ReadingSettings, Receipt, Server, SourceContext
from pipeline.posted import Posted
from pipeline.quantity import Size
from pipeline.reading import CodecSource
from pipeline.registry import codec_for
from pipeline.web import HttpProblem, answer, read_body

if TYPE_CHECKING:
    from aiohttp import web

MEDIA_TYPE = "application/x-influx-line-protocol"
# What a sender may call the unit of its timestamps, of both versions; absent, they are ns.
PRECISIONS = {"": "ns", "ns": "ns", "n": "ns", "us": "us", "u": "us", "µ": "us", "ms": "ms", "s": "s"}
VERSION = "1.8.10"  # of the interface; clients look whether it is 1 or 2
_CODES = {400: "invalid", 413: "request too large", 429: "too many requests", 503: "unavailable"}


def _writes(version: int) -> Operation:
    return Operation(
        f"Write lines as to InfluxDB {version}; answered once they are durable",
        parameters=(Parameter("precision", "Unit of the timestamps: ns, us, ms or s."),),
        body=str,
        taken=("text/plain",),
        statuses=(204,),
    )


class InfluxSettings(ReadingSettings, frozen=True, kw_only=True):
    path: Annotated[str, Meta(description="Stands before /write and /api/v2/write.")] = ""
    measurement: Annotated[
        str | list[str] | None, Meta(description="Lines of other measurements are left out. Absent: all are taken.")
    ] = None
    max_body: Annotated[Size, Meta(description="Largest body of a request, unpacked.")] = Size(5_000_000)
    format: Annotated[str, Meta(description="Always influx.")] = "influx"
    time: Annotated[str | None, Meta(description="Always time, the timestamps of the lines.")] = "time"


class Influx(CodecSource):
    """Take what is written to an InfluxDB: by `POST /write` (version 1) and `POST /api/v2/write` (version 2).

        [sources.telegraf]
        type = "influx"
        measurement = "cpu"
        key = "host"
        fields = { usage_user = "float", usage_system = "float" }

        # telegraf.conf
        [[outputs.influxdb]]
          urls = ["http://127.0.0.1:8080"]
          skip_database_creation = true

    `key` and `fields` are those of the codec `influx`: tags, fields, or "measurement". `db`, `org` and `bucket` are taken and
    mean nothing here. Where [server] has a token, version 2 sends it (`Authorization: Token …`); for version 1 set
    `http_headers = { Authorization = "Bearer …" }`.
    204 comes once the lines are durable. 400 says what was wrong with the first line that was refused, and how many were
    dropped; the good ones beside it are kept, and the others are among the dead letters. A body may be packed (gzip).
    Delivery: at least once. A client that did not hear the answer sends again, under no key, and its lines count twice.
    At the limit: 413 for a body beyond `max_body`, 429 with Retry-After while the inbox is full. 503 while it stops.
    """

    needs_server = True

    def __init__(self, settings: InfluxSettings, context: SourceContext) -> None:
        if settings.format != "influx":
            context.problem("format", 'is always "influx"; leave it out, or take the source http')
        super().__init__(_with(settings), context)
        self.settings = settings
        self.path = settings.path.rstrip("/")
        self.paths = (f"{self.path}/write", f"{self.path}/api/v2/write")
        self.max_body = int(settings.max_body)
        if self.path and (
            not self.path.startswith("/") or not self.path.isprintable() or set(self.path) & set("{}?#% ")
        ):
            context.problem("path", f'"{settings.path}" is not a path; write it as "/telegraf"')
        if self.max_body < 1:
            context.problem("max_body", "must be at least 1 B")
        self._posted = Posted()
        self._codecs: dict[str, Codec | None] = {"ns": self.codec}  # by the unit of timestamps

    def mount(self, server: Server) -> None:
        for path, handler in zip(self.paths, (self._write, self._write_2), strict=True):
            if not server.route("POST", path, handler):
                raise ValueError(f"source {self.context.name}: another source has the path {path}")
        server.route("GET", f"{self.path}/ping", self._ping, public=True)

    async def run(self, inbox: Inbox, position: Any) -> None:
        await self._posted.run(inbox)

    # --- taking ---

    @described(_writes(1))
    async def _write(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, 1)

    @described(_writes(2))
    async def _write_2(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, 2)

    @described(Operation("Is somebody there? As clients of InfluxDB ask", statuses=(204,)))
    async def _ping(self, request: web.Request) -> web.StreamResponse:
        from aiohttp.web import Response

        return Response(status=204, headers={"X-Influxdb-Version": VERSION})

    async def _answer(self, request: web.Request, version: int) -> web.StreamResponse:
        from aiohttp.web import Response

        try:
            receipt = await self._take(request)
        except HttpProblem as problem:
            response = answer(_told(version, problem.status, problem.detail), problem.status)
            response.headers.update(problem.headers or {})
            return response
        if not receipt.refused:
            return Response(status=204)
        first = min(receipt.refused, key=lambda refused: refused.item)
        text = f"partial write: {first.reason}: '{first.raw}' dropped={len(receipt.refused)}"
        return answer(_told(version, 400, text), 400)

    async def _take(self, request: web.Request) -> Receipt:
        unit = PRECISIONS.get(request.query.get("precision", ""))
        if unit is None:
            raise HttpProblem(400, f'precision "{request.query["precision"][:20]}" is none of ns, us, ms, s')
        body = await read_body(request, self.max_body)
        if not body.strip():
            return Receipt(0, [])  # clients write nothing to see whether they may
        return await self._posted.take(Payload(body, len(body), codec=self._codec(unit)))

    def _codec(self, unit: str) -> Codec | None:
        if unit not in self._codecs:
            codec = codec_for(_with(self.settings, unit), self.context)
            # A dead letter remembers the media type: a line that is tried again has the unit that it came with.
            codec.media_types = (f"{MEDIA_TYPE}; precision={unit}",)  # type: ignore[union-attr, misc]
            self._codecs[unit] = codec
        return self._codecs[unit]

    def again(self, reading: bytes, media_type: str) -> Payload | None:
        wanted, _, unit = media_type.partition("; precision=")
        if wanted == MEDIA_TYPE and unit in PRECISIONS:
            return Payload(reading, len(reading), codec=self._codec(unit))
        return super().again(reading, media_type)


def _told(version: int, status: int, text: str) -> dict[str, str]:
    """An error as the clients of that version read it."""
    return {"error": text} if version == 1 else {"code": _CODES.get(status, "internal error"), "message": text}


def _with(settings: InfluxSettings, unit: str | None = None) -> InfluxSettings:
    """The same with the options of the codec."""
    options: dict[str, Any] = {"type": "influx"}
    if settings.measurement is not None:
        options["measurement"] = settings.measurement
    if unit is not None:
        options["precision"] = unit
    return msgspec.structs.replace(settings, format=options)
