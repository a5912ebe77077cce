"""The routes of the query server. All answers show only what is durable."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from aiohttp import web

from pipeline.component import Context, ReadingSettings, RowsQuery, Server, Services
from pipeline.frame import Frame, KeyTable, Schema, instants, rows
from pipeline.problem import did_you_mean
from pipeline.quantity import duration
from pipeline.registry import codec_for
from pipeline.server import answer, problem
from pipeline.times import nanoseconds

LIMIT = 1_000  # rows of an answer, unless asked otherwise
MOST = 100_000
LARGE = 2_000  # from here on rows are made into bytes beside the loop
MEDIA = {"json": "application/json", "ndjson": "application/x-ndjson", "csv": "text/csv"}
_RELATIVE = re.compile(r"-\s*([0-9.]+\s*[A-Za-z]+)")


class Question(ValueError):
    """A parameter that cannot be understood."""


class Routes:
    def __init__(self, services: Services, inputs: dict[str, Schema], keys: KeyTable) -> None:
        self.services = services
        self.inputs = inputs
        self.keys = keys

    def mount(self, server: Server) -> None:
        routes: dict[str, Callable[[web.Request], Any]] = {
            "/api/streams": self.streams,
            "/api/streams/{name}/latest": self.latest,
            "/api/streams/{name}/rows": self.rows,
            "/api/alerts": self.alerts,
            "/api/delivery": self.delivery,
            "/api/dead": self.dead,
            "/api/graph": self.graph,
            "/health": self.health,
            "/ready": self.ready,
            "/metrics": self.metrics,
            "/data": self.values,
            "/status": self.values,
        }
        for path, handler in routes.items():
            server.route("GET", path, _understood(handler))

    # --- streams ---

    async def streams(self, request: web.Request) -> web.Response:
        return answer({"streams": [_shown(info) for info in await self.services.streams()]})

    async def latest(self, request: web.Request) -> web.Response:
        name = self._stream(request)
        frame = self.services.latest(name)
        if wanted := request.query.getall("key", []):
            frame = frame.where(np.isin(frame.key, [self.keys.get(k, -1) for k in wanted]))
        return answer({"stream": name, "rows": self._rows(name, frame)})

    async def rows(self, request: web.Request) -> web.Response:
        name = self._stream(request)
        schema = self.services.schema(name)
        form = request.query.get("format", "json")
        if form not in MEDIA:
            raise Question(f"format is json, ndjson or csv, not {form[:50]!r}")
        fields = _fields(request.query.get("fields"), schema)
        query = RowsQuery(
            name,
            request.query.getall("key", None),
            _time(request, "from"),
            _time(request, "to"),
            _number(request, "limit", LIMIT, MOST),
            _order(request),
        )
        frame = await self.services.rows(query)

        def encode() -> bytes:
            return _encoded(name, self._rows(name, frame, fields), form, self._names(schema, fields))

        body = encode() if len(frame) < LARGE else await asyncio.to_thread(encode)
        return web.Response(body=body, content_type=MEDIA[form], charset="utf-8")

    def _rows(self, name: str, frame: Frame, fields: list[str] | None = None) -> list[dict[str, Any]]:
        schema = self.services.schema(name)
        if fields is not None:
            schema = schema._replace(fields={f: schema.fields[f] for f in fields})
        return rows(frame, schema, self.keys.names)

    def _names(self, schema: Schema, fields: list[str] | None) -> list[str]:
        return [*([schema.key] if schema.key else []), "time", *(schema.fields if fields is None else fields)]

    def _stream(self, request: web.Request) -> str:
        name = request.match_info["name"]
        if name not in self.inputs:
            hint = did_you_mean(name, self.inputs)
            raise web.HTTPNotFound(text=f'there is no stream "{name[:100]}"{hint}')
        return name

    async def values(self, request: web.Request) -> web.Response:
        """The latest value of every key of the first input, for clients that know nothing of streams."""
        from pipeline.sources.http import latest_values

        return answer(latest_values(self.services, next(iter(self.inputs)), self.keys.names))

    # --- alerts ---

    async def alerts(self, request: web.Request) -> web.Response:
        """The newest row of each alert and key."""
        wanted = request.query.get("state", "all")
        if wanted not in ("firing", "cleared", "all"):
            raise Question(f"state is firing, cleared or all, not {wanted[:50]!r}")
        found = []
        for name, schema in self.inputs.items():
            if schema.role != "alerts":
                continue
            frame = self.services.latest(name)
            keys = [self.keys.names[code] for code in frame.key.tolist()]
            for key, row in zip(keys, self._rows(name, frame), strict=True):
                if wanted in ("all", row["state"]):
                    found.append({"id": f"{name}:{key}", "key": key, **row})
        found.sort(key=lambda row: row["time"], reverse=True)
        return answer({"alerts": found})

    # --- the pipeline itself ---

    async def delivery(self, request: web.Request) -> web.Response:
        return answer({"sinks": await self.services.delivery()})

    async def dead(self, request: web.Request) -> web.Response:
        letters = await self.services.dead(_number(request, "limit", LIMIT, MOST))
        for letter in letters:
            letter["time"] = instants(np.array([letter.pop("clock")], np.int64), "iso")[0]
        return answer({"dead": letters})

    async def graph(self, request: web.Request) -> web.Response:
        return answer({"nodes": self.services.graph()})

    async def health(self, request: web.Request) -> web.Response:
        health = self.services.health()
        return answer(health, 200 if health["status"] == "ok" else 503)

    async def ready(self, request: web.Request) -> web.Response:
        ready = bool(self.services.health()["ready"])
        return answer({"ready": ready}, 200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        lines = []
        for name, kind, text, samples in self.services.metrics():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{_labels(labels)} {value}" for labels, value in samples]
        body = "\n".join(lines) + "\n"
        return web.Response(body=body.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _understood(handler: Callable[[web.Request], Any]) -> Callable[[web.Request], Any]:
    """A question that cannot be understood is answered 400 with the parameter's name; no such stream, 404."""

    async def understood(request: web.Request) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except Question as error:
            return problem(400, str(error))
        except web.HTTPNotFound as error:
            return problem(404, error.text or "there is nothing here")
        return response

    return understood


def _shown(info: Any) -> dict[str, Any]:
    ends = [None if t is None else instants(np.array([t], np.int64), "iso")[0] for t in (info.oldest, info.newest)]
    return {
        "name": info.name,
        "role": info.schema.role,
        "key": info.schema.key,
        "fields": {name: str(field) for name, field in info.schema.fields.items()},
        "keys": info.keys,
        "rows": info.rows,
        "oldest": ends[0],
        "newest": ends[1],
    }


def _encoded(name: str, shown: list[dict[str, Any]], form: str, names: list[str]) -> bytes:
    if form == "json":
        return orjson.dumps({"stream": name, "rows": shown})
    context = Context(name, KeyTable())
    codec = codec_for(ReadingSettings(format="json" if form == "ndjson" else form), context)
    assert codec is not None
    return codec.header(names) + codec.encode(shown)


def _fields(text: str | None, schema: Schema) -> list[str] | None:
    if text is None:
        return None
    fields = [f for f in text.split(",") if f and f not in (schema.key, "time")]
    for field in fields:
        if field not in schema.fields:
            raise Question(f'fields: there is no field "{field[:100]}"{did_you_mean(field, schema.fields)}')
    return fields


def _time(request: web.Request, name: str) -> int | None:
    """RFC 3339, a number since 1970 (its size tells the unit), or `-1h` from now."""
    text = request.query.get(name)
    if text is None:
        return None
    if relative := _RELATIVE.fullmatch(text.strip()):
        try:
            from pipeline.clock import RealClock

            return RealClock().wall() - duration(relative[1])
        except ValueError as error:
            raise Question(f"{name}: {error}") from None
    value: Any = text.replace(" ", "+")  # a plus sign that was not quoted
    try:
        value = float(text) if "." in text else int(text)
    except ValueError:
        pass
    times, good = nanoseconds([value], "auto")
    if good is not None and not good.all():
        raise Question(f"{name}: {text[:100]!r} is not a time; write 2026-01-31T12:00:00Z, 1769860800 or -1h")
    return int(times[0])


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isdecimal() or not 1 <= int(text[:12]) <= most:
        raise Question(f"{name} is a number from 1 to {most}, not {text[:50]!r}")
    return int(text)


def _order(request: web.Request) -> bool:
    order = request.query.get("order", "asc")
    if order not in ("asc", "desc"):
        raise Question(f"order is asc or desc, not {order[:50]!r}")
    return order == "desc"


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""

    def quoted(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{quoted(value)}"' for name, value in labels.items()) + "}"
