"""The HTTP interface of a running pipeline, over real sockets: what is taken, what is refused, what is answered."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from pipeline.clock import RealClock
from pipeline.config import load
from pipeline.frame import KeyTable
from pipeline.graph import Graph
from pipeline.run import Pipeline

PIPELINE = """
[pipeline]
name = "p"
state = "state"
durability = "process"
disorder = "0 s"
idle = "1 h"

[server]
listen = "127.0.0.1:0"

[sources.readings]
type = "http"
path = "/data"
key = "id"
fields = { value = "float" }

[sources.presence]
type = "http"
path = "/status"
key = "device_id"
fields = { status = "string" }

[sources.dated]
type = "http"
path = "/dated"
max_body = "1 kB"
key = "id"
time = "ts"
time_unit = "ms"
fields = { a = "float", b = "int?" }

[operators.high]
type = "alert"
input = "readings"
when = "value > 75"

[operators.seconds]
type = "window"
input = "dated"
size = "1 s"
aggregate = { n = "count()" }

[sinks.local]
type = "query_server"
inputs = ["readings", "dated", "high", "seconds"]
"""


class Running:
    """A pipeline in this process, listening on a port of its own."""

    def __init__(self, folder: Path, text: str = PIPELINE) -> None:
        (folder / "pipeline.toml").write_text(text)
        config = load(folder / "pipeline.toml")
        self.pipeline = Pipeline(config, Graph(config, KeyTable(limit=50), RealClock()))
        self.ready = asyncio.Event()
        self.pipeline.on_start = lambda _: self.ready.set()
        self.task: asyncio.Task[None] | None = None
        self.http = aiohttp.ClientSession()

    async def start(self) -> None:
        self.task = asyncio.create_task(self.pipeline.run())
        waiting = asyncio.create_task(self.ready.wait())
        await asyncio.wait((self.task, waiting), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)

    async def stop(self) -> None:
        self.pipeline.stop()
        assert self.task is not None
        await self.task
        await self.http.close()

    async def post(self, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | more.pop("headers", {})
        async with self.http.post(self.pipeline.server.url + path, data=data, headers=headers, **more) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.http.get(self.pipeline.server.url + path) as answer:
            text = await answer.text()
            return answer.status, json.loads(
                text
            ) if "json" in answer.content_type and "ndjson" not in answer.content_type else text


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(tmp_path)
    await made.start()
    yield made
    await made.stop()


async def test_the_classic_clients(running: Running) -> None:
    """As a Flask script would answer them."""
    assert await running.post("/data", {"id": "s1", "value": 21.5}) == (
        201,
        {"status": "success", "message": "Data received!"},
    )
    assert await running.get("/data") == (200, {"s1": 21.5})
    assert await running.post("/status?device_id=d1&status=online") == (200, {"status": "success"})
    assert await running.get("/status") == (200, {"d1": "online"})


async def test_arrays_lines_and_csv(running: Running) -> None:
    rows = [{"id": "a", "ts": 1, "a": 1}, {"id": "b", "ts": 2, "a": 2, "b": 5}]
    assert (await running.post("/dated", rows))[0] == 201
    lines = "\n".join(json.dumps(r | {"ts": 3}) for r in rows).encode()
    assert (await running.post("/dated", lines, headers={"Content-Type": "application/x-ndjson"}))[0] == 201
    text = b"id,ts,a,b\nc,4,9,\n"
    assert (await running.post("/dated", text, headers={"Content-Type": "text/csv; charset=utf-8"}))[0] == 201
    assert await running.get("/dated") == (
        200,
        {"a": {"a": 1, "b": None}, "b": {"a": 2, "b": 5}, "c": {"a": 9, "b": None}},
    )


async def test_the_good_ones_beside_the_bad_are_kept(running: Running) -> None:
    """And each bad one is named by its place, whatever was wrong with it."""
    body = [
        {"id": "a", "ts": 1, "a": "x"},
        {"id": "a", "ts": 1, "a": 1},
        5,
        {"id": "", "ts": 1, "a": 1},
        {"id": "a", "ts": 1e16, "a": 1},
    ]
    status, answer = await running.post("/dated", body)
    assert (status, answer["taken"], answer["refused"]) == (400, 1, 4)
    assert [e["index"] for e in answer["errors"]] == [0, 2, 3, 4]
    assert answer["errors"][0]["reason"] == "a: expected a number, got text"
    assert await running.get("/dated") == (200, {"a": {"a": 1, "b": None}})
    assert [letter["node"] for letter in (await running.get("/api/dead"))[1]["dead"]] == ["dated"] * 4


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"nonsense", {}, 400),
        (b"", {}, 400),
        (b"[]", {}, 400),
        (b"x" * 2000, {}, 413),
        (b"x", {"Content-Type": "image/png"}, 415),
        (b'{"id": "a", "ts": 1, "a": 1}', {"Idempotency-Key": "x" * 1000}, 400),
    ],
)
async def test_what_is_refused(body: bytes, headers: dict[str, str], status: int, running: Running) -> None:
    got, answer = await running.post("/dated", body, headers=headers)
    assert (got, answer["status"]) == (status, status)
    assert (await running.get("/dated")) == (200, {})


async def test_a_full_inbox_is_429(running: Running) -> None:
    assert running.pipeline.engine is not None
    running.pipeline.engine.intakes["readings"].inbox.close()
    running.pipeline.engine.blocked = lambda: True  # as a sink that blocks would say
    async with running.http.post(running.pipeline.server.url + "/data", json={"id": "a", "value": 1}) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")


async def test_a_repeated_request_counts_once_also_after_a_restart(tmp_path: Path) -> None:
    running = Running(tmp_path)
    await running.start()
    headers = {"Idempotency-Key": "k1"}
    body = [{"id": "a", "ts": 1, "a": 1}, {"id": "a"}]
    first = await running.post("/dated", body, headers=headers)
    again = await asyncio.gather(*[running.post("/dated", body, headers=headers) for _ in range(5)])
    assert again == [first] * 5
    await running.stop()
    other = Running(tmp_path)
    await other.start()
    assert await other.post("/dated", body, headers=headers) == first
    assert len((await other.get("/api/streams/dated/rows"))[1]["rows"]) == 1
    assert await other.get("/dated") == (200, {"a": {"a": 1, "b": None}})
    await other.stop()


async def test_streams_and_their_rows(running: Running) -> None:
    rows = [{"id": "ab"[i % 2], "ts": 1_700_000_000_000 + i * 500, "a": i} for i in range(6)]
    assert (await running.post("/dated", rows))[0] == 201
    streams = {s["name"]: s for s in (await running.get("/api/streams"))[1]["streams"]}
    assert streams["dated"]["keys"] == ["a", "b"]
    assert (streams["dated"]["rows"], streams["dated"]["fields"]) == (6, {"a": "float", "b": "int?"})
    assert streams["dated"]["oldest"] == "2023-11-14T22:13:20.000Z"

    async def values(query: str) -> list[float]:
        status, answer = await running.get(f"/api/streams/dated/rows?{query}")
        assert status == 200, answer
        return [row["a"] for row in answer["rows"]]

    assert await values("") == [0, 1, 2, 3, 4, 5]
    assert await values("key=b") == [1, 3, 5]
    assert await values("order=desc&limit=2") == [5, 4]
    assert await values("from=2023-11-14T22:13:21Z&to=1700000002") == [2, 3]
    assert await values("from=-1h") == []
    assert (await running.get("/api/streams/dated/rows?fields=b&limit=1"))[1]["rows"] == [
        {"id": "a", "time": "2023-11-14T22:13:20.000Z", "b": None}
    ]
    text = (await running.get("/api/streams/dated/rows?format=csv"))[1]
    assert [row["a"] for row in csv.DictReader(io.StringIO(text))] == ["0.0", "1.0", "2.0", "3.0", "4.0", "5.0"]
    lines = (await running.get("/api/streams/dated/rows?format=ndjson"))[1].splitlines()
    assert [json.loads(line)["a"] for line in lines] == [0, 1, 2, 3, 4, 5]
    latest = (await running.get("/api/streams/dated/latest?key=a"))[1]["rows"]
    assert [(row["id"], row["a"]) for row in latest] == [("a", 4)]
    windows = (await running.get("/api/streams/seconds/rows"))[1]["rows"]
    assert [(row["id"], row["n"]) for row in windows] == [("a", 1), ("b", 1), ("a", 1), ("b", 1)]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/streams/datde/rows", 404, 'did you mean "dated"'),
        ("/api/streams/dated/rows?from=soon", 400, "from"),
        ("/api/streams/dated/rows?limit=0", 400, "limit"),
        ("/api/streams/dated/rows?fields=x", 400, "x"),
        ("/api/streams/dated/rows?format=xml", 400, "format"),
        ("/api/alerts?state=what", 400, "state"),
        ("/nowhere", 404, ""),
    ],
)
async def test_a_question_that_cannot_be_answered(path: str, status: int, said: str, running: Running) -> None:
    got, answer = await running.get(path)
    assert (got, answer["status"]) == (status, status)
    assert said in answer["detail"]


async def test_alerts(running: Running) -> None:
    await running.post("/data", [{"id": "a", "value": 80}, {"id": "b", "value": 90}, {"id": "b", "value": 10}])
    firing = (await running.get("/api/alerts?state=firing"))[1]["alerts"]
    assert [(row["key"], row["value"], row["level"]) for row in firing] == [("a", 80, "warning")]
    everything = (await running.get("/api/alerts"))[1]["alerts"]
    assert {row["key"]: row["state"] for row in everything} == {"a": "firing", "b": "cleared"}


async def test_the_pipeline_itself(running: Running) -> None:
    await running.post("/data", {"id": "a", "value": 80})
    assert (await running.get("/health"))[1]["status"] == "ok"
    assert await running.get("/ready") == (200, {"ready": True})
    assert await running.get("/api/delivery") == (200, {"sinks": []})
    nodes = {node["name"]: node for node in (await running.get("/api/graph"))[1]["nodes"]}
    assert (nodes["readings"]["rows_out"], nodes["high"]["rows_out"], nodes["local"]["kind"]) == (1, 1, "sink")
    metrics = (await running.get("/metrics"))[1]
    assert 'headwater_readings_total{source="readings"} 1\n' in metrics
    assert "# TYPE headwater_commits_total counter\n" in metrics
    for line in metrics.splitlines():
        assert line.startswith("#") or float(line.rpartition(" ")[2]) >= 0, line
