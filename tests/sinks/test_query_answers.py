"""Long answers and charts of `query_server`, over real sockets, from a history of many rows."""

from __future__ import annotations

import asyncio
import csv
import gc
import gzip
import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import apsw
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.clock import VirtualClock
from pipeline.component import RowsQuery, Services, SinkContext, Table
from pipeline.frame import NO_PROGRESS, SECOND, Column, Field, Frame, KeyTable, Schema
from pipeline.journal import history, points, sql_tables
from pipeline.journal import sql as asked
from pipeline.journal.schema import TABLES
from pipeline.server import HttpServer
from sinks.query_server import QueryServer, QueryServerSettings, forms, questions
from sinks.query_server.routes import MOST_LONG
from tests.sinks.test_query_server import T0, Listen, Told
from tests.waiting import eventually

SCHEMA = Schema("id", {"value": Field("float"), "n": Field("int")})
WINDOWS = Schema("id", {"start": Field("time"), "revision": Field("int"), "n": Field("int")}, "windows")
SCHEMAS = {"valid": SCHEMA, "totals": WINDOWS}


class Held(Told):
    """Services over a history in memory."""

    def __init__(self, rows: int) -> None:
        super().__init__(KeyTable(["a", "b"]), {})
        self.db = apsw.Connection(":memory:")
        self.db.execute(TABLES)
        self.fails_after = 10**9  # questions
        for begin in range(0, rows, 1_000):
            at = np.arange(begin, min(begin + 1_000, rows))
            columns = {"value": Column(np.round(np.sin(at / 50), 3)), "n": Column(at)}
            self.put("valid", Frame(T0 + at * SECOND, (at % 2).astype(np.int32), at, columns, NO_PROGRESS))
        start = T0 + np.array([0, 60, 0, 120, 0]) * SECOND
        columns = {"start": Column(start), "revision": Column(np.array([0, 0, 1, 0, 2])), "n": Column(np.arange(5))}
        self.put("totals", Frame(start + 60 * SECOND, np.zeros(5, np.int32), np.arange(5), columns, NO_PROGRESS))

    def put(self, stream: str, frame: Frame) -> None:
        history.put(self.db, 0, stream, frame, journal=False, history=True)

    def schema(self, stream: str) -> Schema:
        return SCHEMAS[stream]

    def latest(self, stream: str) -> Frame:
        return history.rows(self.db, RowsQuery(stream, limit=1, descending=True), SCHEMAS[stream], None)

    async def rows(self, query: RowsQuery) -> Frame:
        self.asked.append(query)
        if len(self.asked) > self.fails_after:
            raise OSError("the disk is gone")
        codes = None if query.keys is None else [self.keys[key] for key in query.keys if key in self.keys]
        answer = points.rows if query.points else history.rows
        return answer(self.db, query, SCHEMAS[query.stream], codes)

    async def sql(self, streams: Sequence[str], sql: str, parameters: Any, limit: int) -> Table:
        source = sql_tables.Source(self.db, {name: SCHEMAS[name] for name in streams}, self.keys.names, self.keys.get)
        return asked.ask(source, sql, parameters, limit, T0 + 3600 * SECOND)


@asynccontextmanager
async def answering(rows: int) -> AsyncIterator[tuple[Held, aiohttp.ClientSession]]:
    held = Held(rows)
    server = HttpServer(Listen())
    context = SinkContext("local", SCHEMAS, held.keys, clock=VirtualClock(T0 + 3600 * SECOND))
    context.services = cast("Services", held)
    QueryServer(QueryServerSettings(), context).mount(server)
    await server.start()
    try:
        async with aiohttp.ClientSession(
            server.url, auto_decompress=False, headers={"Accept-Encoding": "identity"}
        ) as http:
            yield held, http
    finally:
        await server.close()


async def body(http: aiohttp.ClientSession, question: str, **headers: str) -> bytes:
    async with http.get(f"/api/streams/{question}", headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.read()


async def rows(http: aiohttp.ClientSession, question: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(await body(http, question))["rows"]
    return found


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "WALK_ROWS", 1_500)
    for form in (forms.Json, forms.Lines, forms.Arrow):
        monkeypatch.setattr(form, "large", 400)


# --- long answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_all_rows_in_one_answer(form: str, order: str) -> None:
    """Every row once, in order, in each form; no more than a page of them is read at once."""
    async with answering(7_001) as (held, http):
        got = await body(http, f"valid/rows?limit=all&format={form}&order={order}")
        if form == "json":
            told = json.loads(got)
            assert (told["stream"], told["next"]) == ("valid", None)
            found = [row["n"] for row in told["rows"]]
        elif form == "ndjson":
            found = [json.loads(line)["n"] for line in got.splitlines()]
        else:
            found = [int(row["n"]) for row in csv.DictReader(io.StringIO(got.decode()))]
        assert found == list(range(7_001))[:: 1 if order == "asc" else -1]
        assert max(query.limit for query in held.asked) <= 1_501


async def test_all_rows_of_some_keys_and_times_and_of_none() -> None:
    async with answering(3_000) as (_, http):
        assert len(await rows(http, "valid/rows?limit=all&key=a")) == 1_500
        got = await rows(http, "valid/rows?limit=all&key=b&from=2026-01-31T12:00:10Z&to=2026-01-31T12:00:20Z")
        assert [row["n"] for row in got] == [11, 13, 15, 17, 19]
        assert await rows(http, "valid/rows?limit=all&key=nobody") == []
        assert await body(http, "valid/rows?limit=all&key=nobody&format=csv") == b"id,time,value,n\n"


async def test_all_rows_after_a_cursor() -> None:
    async with answering(2_000) as (_, http):
        link = json.loads(await body(http, "valid/rows?limit=3"))["next"].removeprefix("/api/streams/")
        got = await rows(http, link.replace("limit=3", "limit=all"))
        assert [row["n"] for row in got] == list(range(3, 2_000))


async def test_an_answer_of_a_stream_that_grows_has_an_end() -> None:
    """What comes while it is read belongs to the next answer."""
    async with answering(2_000) as (held, http):
        asked = held.rows

        async def growing(query: RowsQuery) -> Frame:
            found = await asked(query)
            at = np.arange(1_500)
            time = T0 + (100_000 + 1_500 * len(held.asked) + at) * SECOND
            columns = {"value": Column(at * 1.0), "n": Column(at)}
            held.put("valid", Frame(time, np.zeros(1_500, np.int32), at, columns, NO_PROGRESS))
            return found

        held.rows = growing  # type: ignore[method-assign]
        assert len(await rows(http, "valid/rows?limit=all")) == 2_000


async def test_when_the_reader_is_gone_the_reading_stops() -> None:
    async with answering(200_000) as (held, http):
        response = await http.get("/api/streams/valid/rows?limit=all")
        await response.content.readexactly(100)
        response.close()
        asked = -1
        while len(held.asked) != asked:
            asked = len(held.asked)
            await asyncio.sleep(0.2)
        assert asked < 60  # of 134


async def test_a_reader_that_stops_is_waited_for_without_reading_on() -> None:
    """And everyone else is answered meanwhile."""
    async with answering(200_000) as (held, http):
        response = await http.get("/api/streams/valid/rows?limit=all")
        asked = -1
        while len(held.asked) != asked:
            asked = len(held.asked)
            await asyncio.sleep(0.2)
        assert asked < 100
        assert len(await rows(http, "valid/rows?limit=5")) == 5
        assert len(json.loads(await response.read())["rows"]) == 200_000


async def test_so_many_long_answers_at_a_time() -> None:
    async with answering(200_000) as (_, http):
        waiting = [await http.get("/api/streams/valid/rows?limit=all") for _ in range(MOST_LONG)]
        async with http.get("/api/streams/valid/rows?limit=all") as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "10"
        for response in waiting:
            response.close()

        async def there_is_room() -> bool:
            async with http.head("/api/streams/valid/rows?limit=all") as response:
                return response.status == 200

        await eventually(there_is_room)


async def test_an_answer_that_breaks_off_cannot_be_taken_for_whole(caplog: pytest.LogCaptureFixture) -> None:
    async with answering(9_000) as (held, http):
        held.fails_after = 2
        with pytest.raises(aiohttp.ClientError):
            await body(http, "valid/rows?limit=all&format=ndjson")
        assert "broke off" in caplog.text
        async with http.get("/api/streams/valid/rows?limit=all") as response:
            assert response.status == 500  # before it began it is told as everything is
    gc.collect()


# --- forms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("text/*", "text/csv"),
        ("application/x-ndjson, application/json;q=0.5", "application/x-ndjson"),
        ("application/json;q=0.5, TEXT/CSV", "text/csv"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("application/json;q=0, */*", "application/x-ndjson"),
        ("text/csv;q=high, application/json", "application/json"),
    ],
)
async def test_what_the_client_likes_best(accept: str, kind: str) -> None:
    async with answering(3) as (_, http):
        for limit in ("3", "all"):
            question = f"/api/streams/valid/rows?limit={limit}"
            async with http.get(question, headers={"Accept": accept}) as response:
                assert response.content_type == kind
            async with http.get(f"{question}&format=json", headers={"Accept": accept}) as response:
                assert response.content_type == "application/json"  # what is asked for in words


async def test_what_cannot_be_had() -> None:
    question = "/api/streams/valid/rows"
    async with answering(3) as (_, http), http.get(question, headers={"Accept": "image/png"}) as response:
        assert response.status == 406
        assert "text/csv" in (await response.json())["detail"]


@pytest.mark.parametrize("limit", ["1000", "all"])
async def test_a_head_has_no_body(limit: str) -> None:
    """aiohttp would let the end of a packed one follow, which the client takes for the next answer."""
    async with answering(1_000) as (_, http):
        for _ in range(2):
            async with http.head(f"/api/streams/valid/rows?limit={limit}", headers={"Accept-Encoding": "gzip"}) as head:
                assert head.status == 200


@pytest.mark.parametrize("limit", ["1000", "all"])
async def test_packed_when_asked(limit: str) -> None:
    async with answering(1_000) as (_, http):
        question = f"valid/rows?limit={limit}&format=csv"
        plain = await body(http, question, **{"Accept-Encoding": "identity"})
        packed = await body(http, question, **{"Accept-Encoding": "gzip"})
        assert gzip.decompress(packed) == plain
        assert len(packed) < len(plain) / 2
        assert await body(http, question, **{"Accept-Encoding": "gzip;q=0"}) == plain
        few = await body(http, "valid/rows?limit=1&format=csv", **{"Accept-Encoding": "gzip"})
        assert few == plain[: len(few)]  # not worth it


async def test_who_has_the_answer_already_is_told_so() -> None:
    """The same for as long as the rows are, packed or not."""
    async with answering(500) as (held, http):
        question = "/api/streams/valid/rows?to=2026-01-31T13:00:00Z"
        async with http.get(question) as response:
            tag = response.headers["ETag"]
        for encoding in ("gzip", "identity"):
            headers = {"If-None-Match": f'"other", {tag}', "Accept-Encoding": encoding}
            async with http.get(question, headers=headers) as response:
                assert (response.status, await response.read()) == (304, b"")
        late = Frame(
            np.array([T0]),
            np.zeros(1, np.int32),
            np.array([500]),
            {"value": Column(np.ones(1)), "n": Column(np.ones(1, np.int64))},
            NO_PROGRESS,
        )
        held.put("valid", late)
        async with http.get(question, headers={"If-None-Match": tag}) as response:
            assert response.status == 200


# --- charts and corrections -----------------------------------------------------------------------------------------


async def test_a_chart_of_one_key_and_of_several() -> None:
    async with answering(3_600) as (held, http):
        got = await rows(http, "valid/rows?key=a&points=100&fields=value")
        assert 50 < len(got) <= 100
        assert max(row["value"] for row in got) == 1.0
        assert min(row["value"] for row in got) == -1.0
        assert list(got[0]) == ["id", "time", "value"]
        assert held.asked[-1].fields == ("value",)
        both = await rows(http, "valid/rows?points=100&fields=value")
        assert [row for row in both if row["id"] == "a"] == got
        assert await rows(http, "valid/rows?key=a&points=100&fields=value&order=desc") == got[::-1]


async def test_a_chart_larger_than_an_answer_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "MOST_ROWS", 100)
    async with answering(3_600) as (_, http), http.get("/api/streams/valid/rows?points=1000") as response:
        assert response.status == 400
        assert "fewer points" in (await response.json())["detail"]


async def test_a_corrected_window_is_shown_once_and_its_past_when_asked_for() -> None:
    async with answering(1) as (_, http):
        for question in ("totals/rows", "totals/rows?limit=all", "totals/rows?points=1000"):
            assert [row["n"] for row in await rows(http, question)] == [4, 1, 3]
        got = await rows(http, "totals/rows?revisions=all")
        assert [(row["n"], row["revision"]) for row in got] == [(0, 0), (2, 1), (4, 2), (1, 0), (3, 0)]


# --- SQL ------------------------------------------------------------------------------------------------------------


async def ask(http: aiohttp.ClientSession, body: Any, **headers: str) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with http.post("/api/query", data=data, headers=headers) as response:
        told = response.content_type in ("application/json", "application/problem+json")
        return response.status, await response.json() if told else await response.text()


async def test_a_question_in_sql() -> None:
    """Rows as objects, in each form; parameters need no quoting; an answer that was cut says so."""
    async with answering(100) as (_, http):
        question = {
            "sql": "SELECT id, n AS number FROM valid WHERE id = ? ORDER BY time",
            "parameters": ["b"],
            "limit": 2,
        }
        rows = [{"id": "b", "number": 1}, {"id": "b", "number": 3}]
        assert await ask(http, question) == (200, {"columns": ["id", "number"], "rows": rows, "truncated": True})
        assert await ask(http, question, Accept="text/csv") == (200, "id,number\nb,1\nb,3\n")
        async with http.post("/api/query?format=ndjson", json=question) as response:
            assert [json.loads(line) for line in (await response.text()).splitlines()] == rows
            assert response.headers["Headwater-Truncated"] == "true"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"select 1", "the body is"),
        ([1], "the body is"),
        ({}, "the body is"),
        ({"sql": 5}, "the body is"),
        ({"sql": "SELECT 1", "limit": 0}, "the body is"),
        ({"sql": "SELECT 1", "limits": 5}, 'no member "limits"'),
        ({"sql": "SELECT ?"}, "sql: "),
        ({"sql": "SELECT ?", "parameters": [[1]]}, "the body is"),
        ({"sql": "SELECT ?", "parameters": [2**70]}, ""),
        ({"sql": "SELECT vale FROM valid"}, "no such column: vale"),
        ({"sql": "DELETE FROM valid"}, "only questions"),
        ({"sql": "SELECT '\ud800'"}, ""),
    ],
)
async def test_what_is_no_question_is_refused_in_words(body: Any, said: str) -> None:
    async with answering(3) as (_, http):
        status, told = await ask(http, body)
        assert status == 400
        assert said in told["detail"]


# --- anything -------------------------------------------------------------------------------------------------------

WORDS = st.text(max_size=12) | st.sampled_from(
    [
        "0",
        "-1",
        "1",
        "all",
        "now",
        "-1h",
        "a",
        "value",
        "n,value",
        "5.1",
        "-9223372036854775807.0",
        "1e300",
        "csv",
        "9223372036854775806",
        "-9223372036854775808",
        "desc",
        "newest",
        "2026-01-31T12:00:00Z",
        "9999-12-31T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "-99999d",
        "-1e9h",
    ]
)
NAMES = ["key", "from", "to", "fields", "limit", "points", "order", "revisions", "cursor", "format"]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=30
)
@given(st.lists(st.lists(st.tuples(st.sampled_from(NAMES), WORDS), max_size=5), min_size=20, max_size=20))
def test_whatever_is_asked_is_answered_or_refused(questions: list[list[tuple[str, str]]]) -> None:
    """Nothing that a URL can say is an error of the server."""

    async def ask() -> None:
        async with answering(50) as (_, http):
            for question in questions:
                for stream in ("valid", "totals"):
                    async with http.get(f"/api/streams/{stream}/rows", params=question) as response:
                        await response.read()
                        assert response.status in (200, 400), (question, await response.text())

    asyncio.run(ask())
