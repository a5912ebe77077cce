"""The routes of the query server. All answers show only what is durable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from aiohttp import web

from pipeline.api import described
from pipeline.component import Server, Services, StreamInfo, Unanswerable
from pipeline.frame import KeyTable, Schema, instant_text
from pipeline.problem import ConfigError, did_you_mean
from pipeline.web import HttpProblem, answer, latest_values, read_body
from sinks.query_server import descriptions, page, questions
from sinks.query_server.alerts import Alerts
from sinks.query_server.answers import Answers, as_table
from sinks.query_server.live import Live
from sinks.query_server.questions import LATEST, MOST, Page

if TYPE_CHECKING:
    from pipeline.clock import Clock

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MOST_BYTES = 1_000_000  # of the body of a request
LETTERS = 100  # dead letters in an answer, unless asked otherwise
MANY = 20_000  # rows from which on an answer is a large one, or if it has no limit
MOST_LONG = 8  # of these at a time: each has its turn in the readers' threads, and some MB
MOST_ASKING = 8  # questions in SQL: they are answered one after the other
_ASKED = ("key", "from", "to", "fields", "limit", "points", "order", "revisions", "cursor", "format")

# A second query_server (with a retention of its own) adds its streams to the answers of the first.
_mounted: WeakKeyDictionary[Server, Routes] = WeakKeyDictionary()


def mount(server: Server, services: Services, inputs: dict[str, Schema], keys: KeyTable, clock: Clock) -> None:
    """Answer for these streams, too."""
    if (routes := _mounted.get(server)) is not None:
        routes.inputs.update(inputs)
        return
    _mounted[server] = routes = Routes(services, dict(inputs), keys, clock)
    for path, handler in routes.table().items():
        server.route("GET", path, handler)  # where a source has /data or /status, its answer is the one meant
    server.route("POST", "/api/dead/replay", routes.replay_dead)
    server.route("POST", "/api/query", routes.query)
    server.route("POST", "/api/reload", routes.reload)
    server.route("POST", "/api/keys/forget", routes.forget)
    Alerts(services, routes.inputs, keys, clock).mount(server)
    Live(services, routes.inputs, keys).mount(server)
    page.mount(server)


class Routes:
    """A handler for each question; HttpProblem for one that cannot be answered."""

    def __init__(self, services: Services, inputs: dict[str, Schema], keys: KeyTable, clock: Clock) -> None:
        self.services = services
        self.inputs = inputs
        self.keys = keys
        self.clock = clock
        self.asking = 0  # questions in SQL that wait or are being answered
        self.long = 0  # large answers that are on their way

    def table(self) -> dict[str, Handler]:
        return {
            "/api/streams": self.streams,
            "/api/streams/{name}/latest": self.latest,
            "/api/streams/{name}/rows": self.rows,
            "/api/delivery": self.delivery,
            "/api/dead": self.dead,
            "/api/graph": self.graph,
            "/api/debug": self.debug,
            "/health": self.health,
            "/ready": self.ready,
            "/metrics": self.metrics,
            "/data": self.values,
            "/status": self.values,
        }

    # --- streams ---

    @described(descriptions.STREAMS)
    async def streams(self, request: web.Request) -> web.StreamResponse:
        questions.only(request, ())
        return answer({"streams": [_shown(info) for info in await self.services.streams() if info.name in self.inputs]})

    @described(descriptions.LATEST_ROWS)
    async def latest(self, request: web.Request) -> web.StreamResponse:
        questions.only(request, ("key", "fields", "format"))
        name, schema = self._stream(request)
        frame = self.services.latest(name)
        if (wanted := questions.keys(request, schema)) is not None:
            frame = frame.where(np.isin(frame.key, [self.keys.get(key, -1) for key in wanted]))
        schema = questions.fields(request, schema)
        return await Answers(request, name, schema, self.keys, paged=False).short(frame)

    @described(descriptions.ROWS)
    async def rows(self, request: web.Request) -> web.StreamResponse:
        questions.only(request, _ASKED)
        name, schema = self._stream(request)
        answers = Answers(request, name, questions.fields(request, schema), self.keys)
        if "points" in request.query:
            try:
                frame = await self.services.rows(questions.shape(request, name, schema, self.clock))
            except Unanswerable as error:
                raise HttpProblem(400, str(error), parameter="points") from None
            return await answers.short(frame)
        page = Page(request, name, schema, self.clock)
        if page.long:
            newest = max(self.clock.wall(), int(self.services.latest(name).time.max(initial=0)))
            with self._one_of_few():
                return await answers.long(page.walk(min(newest, LATEST)), self.services.rows)
        with self._one_of_few() if page.limit > MANY else nullcontext():
            frame, link = page.cut(await self.services.rows(page.query))
            return await answers.short(frame, link)

    @contextmanager
    def _one_of_few(self) -> Iterator[None]:
        """Large answers are few at a time: each takes memory, or a reader for long."""
        if self.long >= MOST_LONG:
            text = f"{MOST_LONG} large answers are on their way already"
            raise HttpProblem(503, text, {"Retry-After": "10"})
        self.long += 1
        try:
            yield
        finally:
            self.long -= 1

    def _stream(self, request: web.Request) -> tuple[str, Schema]:
        name = request.match_info["name"]
        if name not in self.inputs:
            hint = did_you_mean(name, self.inputs)
            raise HttpProblem(404, f'there is no stream "{name[:100]}"{hint}')
        return name, self.inputs[name]

    @described(descriptions.QUERY)
    async def query(self, request: web.Request) -> web.StreamResponse:
        questions.only(request, ("format",))
        form = questions.form(request)
        asked = questions.sql(await read_body(request, MOST_BYTES))
        if self.asking >= MOST_ASKING:
            text = f"{MOST_ASKING} questions in SQL wait already"
            raise HttpProblem(503, text, {"Retry-After": "5"})
        self.asking += 1
        try:
            table = await self.services.sql(list(self.inputs), asked.sql, asked.parameters, asked.limit)
        except Unanswerable as error:
            raise HttpProblem(400, f"sql: {error}", parameter="sql") from None
        finally:
            self.asking -= 1
        return await as_table(request, table, form)

    @described(descriptions.VALUES)
    async def values(self, _: web.Request) -> web.StreamResponse:
        """The latest values of the first input, for clients that know nothing of streams."""
        stream = next(iter(self.inputs))
        return answer(latest_values(self.services.latest(stream), self.services.schema(stream), self.keys.names))

    # --- the pipeline itself ---

    @described(descriptions.DELIVERY)
    async def delivery(self, request: web.Request) -> web.StreamResponse:
        questions.only(request, ())
        return answer({"sinks": await self.services.delivery()})

    @described(descriptions.DEAD)
    async def dead(self, request: web.Request) -> web.StreamResponse:
        """Dead letters, the newest first; `before` is the number of the last one seen."""
        questions.only(request, ("limit", "node", "before"))
        limit = questions.number(request, "limit", LETTERS, MOST)
        before = questions.number(request, "before", LATEST, LATEST)
        return answer({"dead": await self.services.dead(limit, request.query.get("node"), before)})

    @described(descriptions.REPLAY_DEAD)
    async def replay_dead(self, request: web.Request) -> web.StreamResponse:
        """What has become of them; those that could not be taken stay."""
        questions.only(request, ())
        ids, node = questions.letters(await read_body(request, MOST_BYTES))
        if not self.services.health()["ready"]:
            raise HttpProblem(503, "the pipeline is starting or stopping", {"Retry-After": "1"})
        return answer(await self.services.replay_dead(ids, node))

    @described(descriptions.RELOAD)
    async def reload(self, request: web.Request) -> web.StreamResponse:
        """What it changes; it begins when this is answered, and /health tells when it is done, or why it has failed."""
        questions.only(request, ())
        asked = questions.reload(await read_body(request, MOST_BYTES))
        count = self.services.health()["reloads"]
        try:
            plan = self.services.reload(only_plan=asked.only_plan)
        except ConfigError as error:
            problems = [problem.as_dict() for problem in error.problems]
            raise HttpProblem(409, f"the file has mistakes and changes nothing:\n{error}", problems=problems) from None
        except Unanswerable as error:
            raise HttpProblem(409, str(error)) from None
        return answer({"plan": plan, "reloads": count})

    @described(descriptions.FORGET)
    async def forget(self, request: web.Request) -> web.StreamResponse:
        """{"key": "s1", "stream": "greenhouse"}; answered when it is durable."""
        questions.only(request, ())
        asked = questions.forget(await read_body(request, MOST_BYTES))
        if not self.services.health()["ready"]:
            raise HttpProblem(503, "the pipeline is starting or stopping", {"Retry-After": "1"})
        try:
            streams = await self.services.forget(asked.key, asked.stream)
        except Unanswerable as error:
            raise HttpProblem(404, str(error)) from None
        if streams is None:
            raise HttpProblem(503, "the pipeline has failed", {"Retry-After": "1"})
        return answer({"key": asked.key, "streams": streams})

    @described(descriptions.GRAPH)
    async def graph(self, request: web.Request) -> web.StreamResponse:
        questions.only(request, ())
        return answer({"nodes": self.services.graph()})

    @described(descriptions.DEBUG)
    async def debug(self, request: web.Request) -> web.StreamResponse:
        questions.only(request, ())
        return answer(self.services.debug())

    @described(descriptions.HEALTH)
    async def health(self, _: web.Request) -> web.StreamResponse:
        health = self.services.health()
        return answer(health, 200 if health["status"] == "ok" else 503)

    @described(descriptions.READY)
    async def ready(self, _: web.Request) -> web.StreamResponse:
        ready = bool(self.services.health()["ready"])
        return answer({"ready": ready}, 200 if ready else 503)

    @described(descriptions.METRICS)
    async def metrics(self, _: web.Request) -> web.StreamResponse:
        """Prometheus' text format 0.0.4."""
        lines = []
        for name, kind, text, samples in await self.services.metrics():
            lines.append(f"# HELP {name} {_escaped(text)}\n# TYPE {name} {kind}\n")
            lines += [f"{name}{_labels(labels)} {value}\n" for labels, value in samples]
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body="".join(lines).encode(), headers=headers)


# --- how things are shown -------------------------------------------------------------------------------------------


def _shown(info: StreamInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "role": info.schema.role,
        "key": info.schema.key,
        "fields": {name: str(field) for name, field in info.schema.fields.items()},
        "keys": info.keys,
        "rows": info.rows,
        "oldest": None if info.oldest is None else instant_text(info.oldest),
        "newest": None if info.newest is None else instant_text(info.newest),
        "clock": "unsure" if info.unsure else "sure",
        "unsure": info.unsure,
    }


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    shown = [(name, _escaped(value).replace('"', '\\"')) for name, value in labels.items()]
    return "{" + ",".join(f'{name}="{value}"' for name, value in shown) + "}"
