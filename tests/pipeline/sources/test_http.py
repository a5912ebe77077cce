"""What `http` promises to those who post readings, over real sockets; behind the inbox stands the smallest of engines."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import numpy as np
import pytest

from pipeline.component import Payload, Receipt, Refused, Services, SourceContext
from pipeline.frame import NO_PROGRESS, Frame, KeyTable, Schema, column, instants
from pipeline.quantity import Size
from pipeline.server import HttpServer
from pipeline.sources.http import LISTED, Http, HttpSettings
from tests.waiting import eventually

DATA = HttpSettings(key="id", fields={"value": "float"})
STATUS = HttpSettings(path="/status", key="device_id", fields={"status": "string"})
CLIMATE = HttpSettings(
    key="sensor", time="time", fields={"temperature": "float", "humidity": "float?", "door": "bool?", "n": "int?"}
)


class Listen:
    token = tls = None
    insecure = False
    read_token = max_rate = None
    cors = ()

    def address(self) -> tuple[str, int]:
        return "127.0.0.1", 0


class Engine:
    """Inbox and services: decodes what is offered, all that waits at once, and gives receipts in the next round."""

    def __init__(self, source: Http) -> None:
        self.source = source
        self.full = self.held = False
        self.failed: str | None = None
        self.waiting: list[Payload] = []
        self.steps: list[list[Payload]] = []
        self.rows: list[dict[str, Any]] = []
        self.answers: dict[str, Receipt] = {}

    def offer(self, payload: Payload) -> bool:
        if payload.request in self.answers:
            assert payload.done is not None
            payload.done(self.answers[payload.request]._replace(repeated=True))
            return True
        if self.full:
            return False
        self.waiting.append(payload)
        if len(self.waiting) == 1 and not self.held:
            asyncio.get_running_loop().call_soon(self.step)
        return True

    async def put(self, payload: Payload) -> None:
        raise AssertionError("a request does not wait for room")

    async def taken(self) -> None:
        raise AssertionError("nor for what was put before")

    def end(self) -> None:
        raise AssertionError("there may always be another request")

    def step(self) -> None:
        payloads, self.waiting = self.waiting, []
        self.steps.append(payloads)
        decoded = self.source.decode(payloads)
        self._keep(decoded)
        for i, (payload, taken) in enumerate(zip(payloads, decoded.counts, strict=True)):
            receipt = Receipt(int(taken), [r for r in decoded.refused if r.payload == i])
            if self.failed:
                receipt = Receipt(0, [], self.failed)
            elif payload.request is not None:
                self.answers[payload.request] = receipt
            assert payload.done is not None
            payload.done(receipt)

    def _keep(self, decoded: Any) -> None:
        names = self.source.context.keys.names
        for i in range(sum(decoded.counts)):
            row = {name: c.tolist()[i] for name, c in decoded.columns.items()}
            if len(decoded.keys):
                key = decoded.keys[i]
                row["key"] = names[key] if isinstance(key, np.integer) else str(key)
            if decoded.times is not None:
                row["time"] = instants(decoded.times[i : i + 1], "iso")[0]
            self.rows.append({name: value for name, value in row.items() if value is not None})

    def schema(self, stream: str) -> Schema:
        assert stream == "readings"
        return self.source.schema

    def latest(self, stream: str) -> Frame:
        schema = self.schema(stream)
        newest = {row.get("key", ""): row for row in self.rows}
        columns = {n: column(f.kind, [row.get(n) for row in newest.values()]) for n, f in schema.fields.items()}
        codes = self.source.context.keys.codes(list(newest))
        times = np.zeros(len(newest), np.int64)
        return Frame(times, codes, times, columns, NO_PROGRESS)


def source(settings: HttpSettings) -> Http:
    context = SourceContext("readings", KeyTable())
    made = Http(settings, context)
    assert context.problems == []
    return made


@asynccontextmanager
async def running(settings: HttpSettings = DATA) -> AsyncIterator[tuple[Engine, aiohttp.ClientSession]]:
    """The source on a server, as the engine runs it."""
    made = source(settings)
    engine = Engine(made)
    made.context.services = cast("Services", engine)
    server = HttpServer(Listen())
    made.mount(server)
    await server.start()
    reading = asyncio.create_task(made.run(engine, None))
    await asyncio.sleep(0)
    async with aiohttp.ClientSession(server.url) as http:
        yield engine, http
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await server.close()


async def post(http: aiohttp.ClientSession, path: str = "/data", **more: Any) -> tuple[int, dict[str, Any]]:
    async with http.post(path, **more) as response:
        if response.status >= 400:
            assert response.content_type == "application/problem+json"
        return response.status, await response.json()


async def get(http: aiohttp.ClientSession, path: str = "/data") -> Any:
    async with http.get(path) as response:
        assert response.status == 200
        return await response.json()


# --- the classic clients --------------------------------------------------------------------------------------------


async def test_a_sensor_posts_its_value_and_anyone_reads_the_latest() -> None:
    async with running() as (_, http):
        assert await get(http) == {}
        for value in (21.5, 80):
            answer = await post(http, json={"id": "s1", "value": value})
            assert answer == (201, {"status": "success", "message": "Data received!"})
        await post(http, json={"id": "s2", "value": 1.5})
        assert await get(http) == {"s1": 80.0, "s2": 1.5}


async def test_a_device_tells_its_status_by_a_query() -> None:
    async with running(STATUS) as (_, http):
        assert await post(http, "/status?device_id=d1&status=online") == (200, {"status": "success"})
        assert await post(http, "/status?device_id=2&status=off%20line&more=x") == (200, {"status": "success"})
        assert await get(http, "/status") == {"d1": "online", "2": "off line"}


# --- what a body may be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"id": "s1", "value": 1}', None),
        (b'{"id": "s1", "value": 1}', "application/json; charset=utf-8"),
        (b'{"id": "s1", "value": 1}', "application/x-www-form-urlencoded"),  # what curl -d says
        (b'[{"id": "s1", "value": 1}]', "application/json"),
        (b'{"id": "s1", "value": 1}\n', "application/x-ndjson"),
        (b"value,id\n1,s1\n", "text/csv"),
    ],
)
async def test_one_reading_in_every_form(body: bytes, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    skip = () if content_type else ("Content-Type",)
    async with running() as (engine, http):
        assert (await post(http, data=body, headers=headers, skip_auto_headers=skip))[0] == 201
        assert engine.rows == [{"key": "s1", "value": 1.0}]


async def test_what_another_cloud_sink_sends() -> None:
    """Lines with the stream's name, the key, RFC 3339 time and all fields, packed, under a key; an array as well."""
    lines = (
        b'{"stream":"valid","sensor":"s1","time":"2026-01-31T12:00:00.000Z","temperature":20.5,"level":"high"}\n'
        b'{"stream":"valid","sensor":"s2","time":"2026-01-31T12:00:01.500Z","temperature":21.0,"humidity":40.0}\n'
    )
    rows = [
        {"key": "s1", "time": "2026-01-31T12:00:00.000Z", "temperature": 20.5},
        {"key": "s2", "time": "2026-01-31T12:00:01.500Z", "temperature": 21.0, "humidity": 40.0},
    ]
    array = b"[" + lines.strip().replace(b"\n", b",") + b"]"
    for body, media_type in ((lines, "application/x-ndjson"), (array, "application/json")):
        headers = {"Content-Type": media_type, "Content-Encoding": "gzip", "Idempotency-Key": "b-1"}
        async with running(CLIMATE) as (engine, http):
            for _ in range(2):
                assert (await post(http, data=gzip.compress(body), headers=headers))[0] == 201
            assert engine.rows == rows


async def test_a_query_gives_each_field_its_type() -> None:
    query = "sensor=1&time=1769860800&temperature=20&humidity=4e1&door=yes&n=3"
    async with running(CLIMATE) as (engine, http):
        assert await post(http, f"/data?{query}") == (200, {"status": "success"})
    time = "2026-01-31T12:00:00.000Z"
    assert engine.rows == [
        {"key": "1", "time": time, "temperature": 20.0, "humidity": 40.0, "door": True, "n": 3},
    ]


@pytest.mark.parametrize(
    "query", ["value=2", "id=s1", "id=s1&value=warm", "id=s1&value=[1]", "id=s1&value=", "id=%ff&x=1"]
)
async def test_a_query_that_is_no_reading(query: str) -> None:
    async with running() as (engine, http):
        status, body = await post(http, f"/data?{query}")
        assert (status, body["taken"], len(body["errors"])) == (400, 0, 1)
        assert engine.rows == []


async def test_a_body_comes_before_the_query() -> None:
    async with running() as (engine, http):
        assert (await post(http, "/data?id=q&value=2", json={"id": "b", "value": 1}))[0] == 201
        assert engine.rows == [{"key": "b", "value": 1.0}]


async def test_an_empty_request() -> None:
    async with running() as (_, http):
        status, body = await post(http)
        assert (status, body["refused"]) == (400, 1)
        assert "empty" in body["errors"][0]["reason"]


# --- what is refused ------------------------------------------------------------------------------------------------


async def test_nothing_good_in_it() -> None:
    async with running() as (engine, http):
        status, body = await post(http, data=b'{"id": "s1", "value": "warm"}')
        assert status == 400
        assert (body["taken"], body["refused"]) == (0, 1)
        assert body["errors"] == [{"index": 0, "reason": "value: expected a number, got text"}]
        assert engine.rows == []


async def test_the_good_readings_of_a_batch_are_kept() -> None:
    """Every bad one is named by its place, in order, whatever is wrong with it."""
    lines = [b'{"id": "a", "value": 1}', b"{", b'{"id": "b", "value": 2}', b'{"value": 3}', b'{"id": "c", "value": 4}']
    async with running() as (engine, http):
        status, body = await post(http, data=b"\n".join(lines))
        assert status == 400
        assert (body["taken"], body["refused"], body["detail"]) == (3, 2, "2 readings refused, 3 kept")
        assert [(e["index"], e["reason"].partition(":")[0]) for e in body["errors"]] == [(1, "not JSON"), (3, "id")]
        assert [row["key"] for row in engine.rows] == ["a", "b", "c"]


async def test_bad_readings_are_named_in_their_order() -> None:
    """What is JSON and yet no reading is found out later than what is not."""
    lines = b'{"sensor": "a", "time": "soon", "temperature": 1}\n{\n{"sensor": "b", "time": "later", "temperature": 1}'
    async with running(CLIMATE) as (_, http):
        _, body = await post(http, data=lines)
        assert [e["reason"].partition(":")[0] for e in body["errors"]] == ["time", "not JSON", "time"]


async def test_a_flood_of_bad_readings_is_counted() -> None:
    async with running() as (_, http):
        status, body = await post(http, data=b"x\n" * (LISTED + 5))
        assert status == 400
        assert body["refused"] == LISTED + 5
        assert [e["index"] for e in body["errors"]] == list(range(LISTED))


async def test_a_body_beyond_max_body() -> None:
    settings = HttpSettings(key="id", fields={"value": "float"}, max_body=Size(100))
    async with running(settings) as (engine, http):
        assert (await post(http, data=b'{"id": "s1", "value": 1}'.ljust(100)))[0] == 201
        status, body = await post(http, data=b'{"id": "s1", "value": 1}'.ljust(101))
        assert status == 413
        assert "100 bytes" in body["detail"]
        assert len(engine.rows) == 1


async def test_a_media_type_that_nobody_reads() -> None:
    async with running() as (engine, http):
        for media_type in ("application/pdf", "multipart/form-data; boundary=x", "nonsense"):
            status, body = await post(http, data=b"{}", headers={"Content-Type": media_type})
            assert status == 415
            assert media_type in body["detail"]
        assert engine.steps == []


async def test_other_methods() -> None:
    async with running() as (_, http), http.delete("/data") as response:
        assert response.status == 405
        assert set(response.headers["Allow"].split(",")) == {"GET", "HEAD", "POST"}


# --- durable, or not ------------------------------------------------------------------------------------------------


async def test_the_answer_waits_for_the_commit() -> None:
    async with running() as (engine, http):
        engine.held = True
        asking = asyncio.create_task(post(http, json={"id": "s1", "value": 1}))
        await eventually(lambda: len(engine.waiting) == 1)
        assert not asking.done()
        engine.step()
        assert (await asking)[0] == 201


async def test_a_full_inbox() -> None:
    async with running() as (engine, http):
        engine.full = True
        async with http.post("/data", json={"id": "s1", "value": 1}) as response:
            assert response.status == 429
            assert int(response.headers["Retry-After"]) >= 1
            assert response.content_type == "application/problem+json"
        engine.full = False
        assert (await post(http, json={"id": "s1", "value": 1}))[0] == 201


async def test_a_commit_that_failed() -> None:
    async with running() as (engine, http):
        engine.failed = "disk full"
        async with http.post("/data", json={"id": "s1", "value": 1}) as response:
            assert response.status == 503
            assert "Retry-After" in response.headers
            assert "disk full" in (await response.json())["detail"]


async def test_when_the_engine_stops_who_waits_is_told() -> None:
    """And so is who comes before it runs, or after: nothing may look as if it had been kept."""
    made = source(DATA)
    engine = Engine(made)
    engine.held = True
    server = HttpServer(Listen())
    made.mount(server)
    await server.start()
    async with aiohttp.ClientSession(server.url) as http:
        assert (await post(http, json={"id": "s1", "value": 1}))[0] == 503
        reading = asyncio.create_task(made.run(engine, None))
        await asyncio.sleep(0)
        asking = asyncio.create_task(post(http, json={"id": "s1", "value": 1}))
        await eventually(lambda: engine.waiting)
        reading.cancel()
        assert (await asking)[0] == 503
        assert (await post(http, json={"id": "s1", "value": 1}))[0] == 503
        engine.step()  # a receipt that nobody waits for any more
    await server.close()


# --- Idempotency-Key ------------------------------------------------------------------------------------------------


async def test_a_repeated_request_is_counted_once_and_answered_as_before() -> None:
    good, mixed = b'{"id": "s1", "value": 1}', b'{"id": "s1", "value": 2}\n{'
    async with running() as (engine, http):
        for body, key in ((good, "k1"), (mixed, "k2")):
            first = await post(http, data=body, headers={"Idempotency-Key": key})
            again = await post(http, data=body, headers={"Idempotency-Key": key})
            assert first == again
            assert first[0] == (201 if body is good else 400)
        assert [row["value"] for row in engine.rows] == [1.0, 2.0]
        query = "/data?id=s1&value=3"
        for _ in range(2):
            assert await post(http, query, headers={"Idempotency-Key": "k3"}) == (200, {"status": "success"})
        assert [row["value"] for row in engine.rows] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("key", "status"), [("", 400), ("x" * 255, 201), ("x" * 256, 400), ("\u00fc", 400), ("a b", 201)]
)
async def test_how_long_a_request_s_key_may_be(key: str, status: int) -> None:
    async with running() as (engine, http):
        answer = await post(http, json={"id": "s1", "value": 1}, headers={"Idempotency-Key": key})
        assert answer[0] == status
        assert len(engine.rows) == (status == 201)


async def test_a_receipt_from_before_a_restart() -> None:
    """The engine saved it, and answers with it before the new source has decoded anything."""
    async with running() as (engine, http):
        engine.answers["k"] = Receipt(3, [Refused(0, 1, "too many keys", "s9")], None)
        status, body = await post(http, data=b"[]", headers={"Idempotency-Key": "k"})
        assert (status, body["taken"]) == (400, 3)
        assert body["errors"] == [{"index": 1, "reason": "too many keys"}]
        assert engine.steps == []


# --- many at once ---------------------------------------------------------------------------------------------------


async def test_requests_that_come_together_are_decoded_together() -> None:
    """Also where they call the same format by different names, or leave it out; and each gets its own answer."""
    names = ["application/json", "application/x-ndjson", "application/json; charset=utf-8", "text/plain", "text/csv"]
    async with running() as (engine, http):
        engine.held = True
        asking = []
        for i in range(50):
            name = names[i % 5]
            body = f"id,value\ns{i},{i}" if name == "text/csv" else f'{{"id": "s{i}", "value": {i}}}'
            body = "?" if i == 7 else body
            asking.append(asyncio.create_task(post(http, data=body.encode(), headers={"Content-Type": name})))
        while len(engine.waiting) < 50:
            await asyncio.sleep(0.01)
        assert len({id(payload.codec) for payload in engine.waiting}) == 2
        engine.step()
        statuses = [status for status, _ in await asyncio.gather(*asking)]
        assert statuses == [400 if i == 7 else 201 for i in range(50)]
        assert await get(http) == {f"s{i}": float(i) for i in range(50) if i != 7}


async def test_a_client_that_goes_away_does_no_harm() -> None:
    async with running() as (engine, http):
        engine.held = True
        async with http.get("/data") as response:
            url = response.url
        async with aiohttp.ClientSession() as leaving:
            asking = asyncio.create_task(leaving.post(url, json={"id": "s1", "value": 1}))
            while not engine.waiting:
                await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        engine.step()
        engine.held = False
        assert (await post(http, json={"id": "s2", "value": 1}))[0] == 201
        assert await get(http) == {"s1": 1.0, "s2": 1.0}


# --- reading back ---------------------------------------------------------------------------------------------------


async def test_the_latest_values_of_several_fields() -> None:
    async with running(CLIMATE) as (_, http):
        time = "2026-01-31T12:00:00Z"
        await post(http, json={"sensor": "s1", "time": time, "temperature": 20.5, "door": False})
        assert await get(http) == {"s1": {"temperature": 20.5, "humidity": None, "door": False, "n": None}}


async def test_the_latest_row_of_a_stream_without_a_key() -> None:
    async with running(HttpSettings(fields={"value": "float"})) as (_, http):
        assert await get(http) == {}
        await post(http, json={"value": 20.5})
        await post(http, json={"value": 21.5})
        assert await get(http) == {"value": 21.5}


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["data", "/d{x}", "/a b", "/a?b", "", "/", "/health", "/api/streams"])
def test_a_path_that_cannot_be(path: str) -> None:
    context = SourceContext("readings", KeyTable())
    Http(HttpSettings(path=path, key="id", fields={"value": "float"}), context)
    assert [setting for setting, _ in context.problems] == ["path"]


@pytest.mark.parametrize("path", ["/data", "/api/sync", "/v1/sensors/data.json"])
def test_a_path_that_can(path: str) -> None:
    source(HttpSettings(path=path, key="id", fields={"value": "float"}))


def test_two_sources_of_one_path() -> None:
    server = HttpServer(Listen())
    source(DATA).mount(server)
    with pytest.raises(ValueError, match="another source has the path /data"):
        source(DATA).mount(server)
