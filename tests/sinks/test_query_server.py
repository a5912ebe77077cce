"""What `query_server` answers, over real sockets, from services that hold a few rows in memory."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import numpy as np
import pytest

from pipeline.clock import VirtualClock
from pipeline.component import AlertNotes, Kept, RowsQuery, Services, SinkContext, StreamInfo
from pipeline.frame import NO_PROGRESS, SECOND, Field, Frame, KeyTable, Schema, column
from pipeline.quantity import Duration, Size
from pipeline.server import HttpServer
from sinks.query_server import QueryServer, QueryServerSettings, Rollup
from sinks.query_server.forms import LARGE
from sinks.query_server.questions import LATEST, MOST

T0 = 1_769_860_800 * SECOND  # 2026-01-31T12:00:00Z
READINGS = Schema("id", {"value": Field("float"), "note": Field("string", optional=True)})
TOTALS = Schema(None, {"n": Field("int")}, "windows")
ALERTS = Schema(
    "id",
    {"state": Field("string"), "level": Field("string"), "since": Field("time"), "message": Field("string")},
    "alerts",
)
SCHEMAS = {"valid": READINGS, "totals": TOTALS, "hot": ALERTS, "cold": ALERTS}

Row = tuple[str, float, dict[str, Any]]  # key, seconds after T0, fields
ROWS: dict[str, list[Row]] = {
    "valid": [
        ("a", 0, {"value": 1.5, "note": "first"}),
        ("b", 0, {"value": 2.0}),
        ("a", 10, {"value": 3.0, "note": 'comma, "quote"'}),
        ("b", 20.25, {"value": 4.0}),
        ("a", 3600, {"value": float("nan")}),
    ],
    "totals": [("", 10, {"n": 3}), ("", 20, {"n": 1})],
    "hot": [
        ("a", 5, {"state": "firing", "level": "warning", "since": T0, "message": "hot"}),
        ("b", 5, {"state": "firing", "level": "warning", "since": T0, "message": "hot"}),
        ("b", 9, {"state": "cleared", "level": "warning", "since": T0, "message": "well"}),
    ],
    "cold": [("a", 7, {"state": "firing", "level": "critical", "since": T0 + SECOND, "message": "cold"})],
}


def made(schema: Schema, rows: list[Row], keys: KeyTable) -> Frame:
    time = np.array([T0 + round(at * SECOND) for _, at, _ in rows], np.int64)
    columns = {
        n: column("int" if f.kind == "time" else f.kind, [r.get(n) for *_, r in rows]) for n, f in schema.fields.items()
    }
    return Frame(time, keys.codes([key for key, *_ in rows]), np.arange(len(rows)), columns, NO_PROGRESS)


class Told:
    """Services over `ROWS`; `rows` as a plain sort and filter of single rows."""

    def __init__(self, keys: KeyTable, rows: dict[str, list[Row]]) -> None:
        self.keys = keys
        self.held = rows
        self.asked: list[RowsQuery] = []
        self.letters: dict[str, Any] = {}
        self.state: dict[str, Any] = {"status": "ok", "reasons": [], "ready": True}

    def schema(self, stream: str) -> Schema:
        return SCHEMAS[stream]

    def latest(self, stream: str) -> Frame:
        newest: dict[str, Row] = {}
        for row in self.held[stream]:
            if row[0] not in newest or row[1] >= newest[row[0]][1]:
                newest[row[0]] = row
        return made(SCHEMAS[stream], list(newest.values()), self.keys)

    def alerts(self, stream: str) -> Frame:
        return self.latest(stream)

    async def alert_notes(self, ids: Sequence[str], rows: Sequence[tuple[str, int, int]]) -> AlertNotes:
        return AlertNotes({}, [{} for _ in rows], [])

    async def rows(self, query: RowsQuery) -> Frame:
        self.asked.append(query)
        found = [
            (T0 + round(row[1] * SECOND), seq, row)
            for seq, row in enumerate(self.held[query.stream])
            if query.keys is None or row[0] in query.keys
        ]
        found = [f for f in found if query.start is None or f[0] >= query.start]
        found = [f for f in found if query.end is None or f[0] < query.end]
        found.sort(key=lambda f: f[:2], reverse=query.descending)
        return made(SCHEMAS[query.stream], [row for *_, row in found[: query.limit]], self.keys)

    def listen(self, heard: Callable[[Mapping[str, Frame], int], None]) -> int:
        return 0

    async def streams(self) -> list[StreamInfo]:
        told = [StreamInfo(n, SCHEMAS[n], len(r), T0, T0 + 20 * SECOND, ["a", "b"]) for n, r in self.held.items()]
        return [*told, StreamInfo("unrecorded", READINGS)]

    async def delivery(self) -> list[dict[str, Any]]:
        return [{"sink": "cloud", "waiting": 7}]

    async def dead(self, limit: int, node: str | None = None, before: int | None = None) -> list[dict[str, Any]]:
        self.letters = {"limit": limit, "node": node, "before": before}
        return [{"id": 1, "node": "valid", "reason": "bad", "row": "{}"}]

    async def replay_dead(self, ids: Sequence[int] | None, node: str | None = None) -> dict[str, Any]:
        return {"replayed": 0, "failed": [], "asked": [ids, node]}

    def health(self) -> dict[str, Any]:
        return self.state

    def graph(self) -> list[dict[str, Any]]:
        return [{"name": "valid", "inputs": []}]

    async def metrics(self) -> list[tuple[str, str, str, list[tuple[dict[str, str], float]]]]:
        labels = {"node": 'a "b"\\c\nd', "x": "y"}
        return [
            ("headwater_rows_total", "counter", "Rows \\ all\nof them.", [(labels, 12), ({"node": "e"}, 0.5)]),
            ("headwater_keys", "gauge", "Keys.", [({}, 3)]),
        ]


class Listen:
    token = tls = None
    insecure = False
    read_token = max_rate = None
    cors = ()

    def address(self) -> tuple[str, int]:
        return "127.0.0.1", 0


Asked = tuple[Told, aiohttp.ClientSession]


@asynccontextmanager
async def answering(*sinks: tuple[str, ...], rows: dict[str, list[Row]] = ROWS) -> AsyncIterator[Asked]:
    """Query servers with these inputs, on one server."""
    keys = KeyTable([""])
    told = Told(keys, rows)
    server = HttpServer(Listen())
    for inputs in sinks or (tuple(rows),):
        context = SinkContext("local", {n: SCHEMAS[n] for n in inputs}, keys, clock=VirtualClock(T0 + 3600 * SECOND))
        context.services = cast("Services", told)
        QueryServer(QueryServerSettings(), context).mount(server)
        assert context.problems == []
    await server.start()
    try:
        async with aiohttp.ClientSession(server.url) as http:
            yield told, http
    finally:
        await server.close()


async def get(http: aiohttp.ClientSession, path: str) -> Any:
    async with http.get(path) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "application/json"
        return await response.json()


async def wrong(http: aiohttp.ClientSession, path: str, status: int = 400) -> dict[str, Any]:
    async with http.get(path) as response:
        assert response.status == status, await response.text()
        assert response.content_type == "application/problem+json"
        return await response.json()


async def values(http: aiohttp.ClientSession, question: str) -> list[Any]:
    """The values of the rows of `valid` that answer a question; all but the one that is NaN are told apart by it."""
    return [row["value"] for row in (await get(http, f"/api/streams/valid/rows{question}"))["rows"]]


# --- streams --------------------------------------------------------------------------------------------------------


async def test_the_streams_that_are_kept() -> None:
    async with answering(("valid", "hot")) as (_, http):
        streams = (await get(http, "/api/streams"))["streams"]
        assert [s["name"] for s in streams] == ["valid", "hot"]
        assert streams[0] == {
            "name": "valid",
            "role": "readings",
            "key": "id",
            "fields": {"value": "float", "note": "string?"},
            "keys": ["a", "b"],
            "rows": 5,
            "oldest": "2026-01-31T12:00:00.000Z",
            "newest": "2026-01-31T12:00:20.000Z",
            "clock": "sure",
            "unsure": 0,
        }


async def test_several_query_servers_answer_as_one() -> None:
    async with answering(("valid",), ("totals",)) as (_, http):
        assert [s["name"] for s in (await get(http, "/api/streams"))["streams"]] == ["valid", "totals"]
        assert (await get(http, "/api/streams/totals/latest"))["rows"] == [{"time": "2026-01-31T12:00:20.000Z", "n": 1}]


async def test_the_newest_row_of_each_key() -> None:
    async with answering() as (_, http):
        b = {"id": "b", "time": "2026-01-31T12:00:20.250Z", "value": 4.0, "note": None}
        latest = await get(http, "/api/streams/valid/latest")
        assert latest["stream"] == "valid"
        assert [row["id"] for row in latest["rows"]] == ["a", "b"]
        assert latest["rows"][1] == b
        assert (await get(http, "/api/streams/valid/latest?key=b"))["rows"] == [b]
        assert (await get(http, "/api/streams/valid/latest?key=c"))["rows"] == []
        del b["note"]
        assert (await get(http, "/api/streams/valid/latest?key=b&fields=value"))["rows"] == [b]


async def test_the_latest_values_for_those_who_know_no_streams() -> None:
    async with answering(("totals",)) as (_, http):
        assert await get(http, "/data") == {"n": 1}
        assert await get(http, "/status") == {"n": 1}


async def test_a_stream_that_is_not_there() -> None:
    async with answering() as (_, http):
        for path in ("/api/streams/vaild/rows", "/api/streams/vaild/latest"):
            assert 'did you mean "valid"' in (await wrong(http, path, 404))["detail"]
        await wrong(http, "/api/streams/unrecorded/rows", 404)


# --- rows -----------------------------------------------------------------------------------------------------------


async def test_rows_by_time() -> None:
    async with answering() as (told, http):
        found = await get(http, "/api/streams/valid/rows")
        assert found["stream"] == "valid"
        assert found["next"] is None
        assert found["rows"][0] == {"id": "a", "time": "2026-01-31T12:00:00.000Z", "value": 1.5, "note": "first"}
        assert [r["value"] for r in found["rows"]] == [1.5, 2.0, 3.0, 4.0, None]  # JSON has no NaN
        assert told.asked == [RowsQuery("valid", limit=1001)]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("?key=a&to=2026-01-31T13:00:00Z", [1.5, 3.0]),
        ("?key=a&key=b&to=1769864400", [1.5, 2.0, 3.0, 4.0]),
        ("?key=nobody", []),
        ("?order=desc&limit=2", [None, 4.0]),
        ("?from=2026-01-31T12:00:10Z&to=2026-01-31T12:00:20.250Z", [3.0]),  # inclusive, exclusive
        ("?from=2026-01-31T12:00:10Z&to=2026-01-31T12:00:20.251Z", [3.0, 4.0]),
        ("?from=2026-01-31T13:00:10%2B01:00&to=-1min", [3.0, 4.0]),
        ("?from=2026-01-31T13:00:10+01:00&to=-1min", [3.0, 4.0]),  # the plus is a space by now
        ("?from=2026-01-31%2012:00:10&to=-1min", [3.0, 4.0]),
        ("?from=1769860810&to=1769860811", [3.0]),
        ("?from=1769860810000&to=1769860811000", [3.0]),
        ("?from=1769860810000000&to=1769860810000001", [3.0]),
        ("?from=1769860810000000000&to=1769860810000000001", [3.0]),
        ("?from=1769860820.25&to=1769860820.26", [4.0]),
        ("?from=-1h&to=now", [1.5, 2.0, 3.0, 4.0]),
        ("?from=-60%20min&to=-59.5%20min", [1.5, 2.0, 3.0, 4.0]),
        ("?from=-59.9min&to=now", [3.0, 4.0]),
        ("?from=2026-01-31T13:00:00Z&to=2026-01-31T12:00:00Z", []),
    ],
)
async def test_what_can_be_asked(question: str, expected: list[float | None]) -> None:
    async with answering() as (_, http):
        assert await values(http, question) == expected


async def test_some_fields() -> None:
    async with answering() as (_, http):
        for question in ("fields=note,value", "fields=note&fields=value", "fields=id,note,time,value"):
            row = (await get(http, f"/api/streams/valid/rows?limit=1&{question}"))["rows"][0]
            assert list(row) == ["id", "time", "note", "value"]
        row = (await get(http, "/api/streams/valid/rows?limit=1&fields=time"))["rows"][0]
        assert list(row) == ["id", "time"]


@pytest.mark.parametrize(
    ("question", "parameter"),
    [
        ("from=yesterday", "from"),
        ("to=-1 fortnight", "to"),
        ("to=1e400", "to"),
        ("from=nan", "from"),
        ("from=99999999999999999999999999", "from"),
        ("from=", "from"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=\u0663", "limit"),
        (f"limit={MOST + 1}", "limit"),
        ("order=up", "order"),
        ("format=xml", "format"),
        ("fields=vale", "fields"),
        ("cursor=x", "cursor"),
        ("cursor=9223372036854775807.0", "cursor"),
        ("cursor=1.999999", "cursor"),
        ("form=csv", "form"),
        ("points=0", "points"),
        ("points=10001", "points"),
        ("points=500&limit=5", "limit"),
        ("points=500&cursor=5.1", "cursor"),
        ("revisions=old", "revisions"),
    ],
)
async def test_a_question_that_cannot_be_understood_names_the_parameter(question: str, parameter: str) -> None:
    """And is not answered as if it had been another one."""
    async with answering() as (told, http):
        body = await wrong(http, f"/api/streams/valid/rows?{question}")
        assert body["parameter"] == parameter
        assert parameter in body["detail"]
        assert told.asked == []


async def test_hints_for_what_was_meant() -> None:
    async with answering() as (_, http):
        assert 'mean "value"' in (await wrong(http, "/api/streams/valid/rows?fields=valu"))["detail"]
        assert 'mean "format"' in (await wrong(http, "/api/streams/valid/rows?fromat=csv"))["detail"]
        assert "no key" in (await wrong(http, "/api/streams/totals/rows?key=a"))["detail"]


async def test_rows_as_lines() -> None:
    async with answering() as (_, http):
        async with http.get("/api/streams/valid/rows?format=ndjson&limit=3") as response:
            assert response.content_type == "application/x-ndjson"
            lines = (await response.text()).splitlines()
        as_json = (await get(http, "/api/streams/valid/rows?limit=3"))["rows"]
        assert [json.loads(line) for line in lines] == as_json


async def test_rows_as_csv() -> None:
    """Missing is empty, NaN is nan, and text keeps its commas and quotes."""
    async with answering() as (_, http):
        async with http.get("/api/streams/valid/rows?format=csv&key=a") as response:
            assert response.content_type == "text/csv"
            table = list(csv.reader(io.StringIO(await response.text())))
        assert table == [
            ["id", "time", "value", "note"],
            ["a", "2026-01-31T12:00:00.000Z", "1.5", "first"],
            ["a", "2026-01-31T12:00:10.000Z", "3.0", 'comma, "quote"'],
            ["a", "2026-01-31T13:00:00.000Z", "nan", ""],
        ]
        async with http.get("/api/streams/valid/rows?format=csv&key=nobody&fields=note") as response:
            assert await response.text() == "id,time,note\n"


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 20])
async def test_page_by_page_gives_every_row_once(order: str, limit: int) -> None:
    """Also where more rows have one time than a page holds; and `-1h` means the same time on every page."""
    times = [0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 3, 4]
    held: dict[str, list[Row]] = {"valid": [("a", at, {"value": float(i)}) for i, at in enumerate(times)]}
    expected = [float(i) for i in range(len(times))][:: 1 if order == "asc" else -1]
    async with answering(rows=held) as (_, http):
        got, pages = [], 0
        link = f"/api/streams/valid/rows?limit={limit}&order={order}&from=-1h&to=now&fields=value"
        while link:
            async with http.get(link) as response:
                page = await response.json()
                assert response.headers.get("Link") == (f'<{page["next"]}>; rel="next"' if page["next"] else None)
            got += [row["value"] for row in page["rows"]]
            link, pages = page["next"], pages + 1
            assert not link or "-1h" not in link
        assert got == expected
        assert pages == -(-len(times) // limit)


async def test_an_answer_too_large_for_the_loop() -> None:
    held: dict[str, list[Row]] = {"valid": [("a", i, {"value": float(i)}) for i in range(LARGE + 1)]}
    async with answering(rows=held) as (_, http):
        assert await values(http, f"?limit={MOST}") == [float(i) for i in range(LARGE + 1)]


# --- alerts ---------------------------------------------------------------------------------------------------------


async def test_which_alerts_fire_for_which_key() -> None:
    async with answering() as (_, http):
        firing = (await get(http, "/api/alerts?state=firing"))["alerts"]
        assert [(a["stream"], a["key"], a["level"], a["time"]) for a in firing] == [
            ("cold", "a", "critical", "2026-01-31T12:00:07.000Z"),
            ("hot", "a", "warning", "2026-01-31T12:00:05.000Z"),
        ]
        assert firing[1]["since"] == "2026-01-31T12:00:00.000Z"
        assert firing[1]["id"] != firing[0]["id"]  # of the alert, though this stream calls its key "id"
        cleared = (await get(http, "/api/alerts?state=cleared"))["alerts"]
        assert [(a["stream"], a["key"]) for a in cleared] == [("hot", "b")]
        every = (await get(http, "/api/alerts"))["alerts"]
        assert [a["time"] for a in every] == sorted((a["time"] for a in every), reverse=True)
        assert len(every) == 3
        assert (await get(http, "/api/alerts?key=b"))["alerts"] == cleared


async def test_an_alert_keeps_its_id_until_it_is_over() -> None:
    """After a restart as well; the next one of the same key has another."""
    held: dict[str, list[Row]] = {"hot": ROWS["hot"][:1]}
    ids = []
    fields = ROWS["hot"][0][2]
    for more in ({}, {"state": "cleared"}, {"since": T0 + SECOND}):
        held["hot"] = [*held["hot"], ("a", 10, {**fields, **more})] if more else held["hot"]
        async with answering(rows=held) as (_, http):
            ids.append((await get(http, "/api/alerts"))["alerts"][0]["id"])
    assert ids[0] == ids[1] != ids[2]


async def test_a_state_that_no_alert_has() -> None:
    async with answering() as (_, http):
        assert (await wrong(http, "/api/alerts?state=fired"))["parameter"] == "state"


# --- the pipeline itself --------------------------------------------------------------------------------------------


async def test_what_the_pipeline_tells_of_itself() -> None:
    async with answering() as (_, http):
        assert await get(http, "/api/delivery") == {"sinks": [{"sink": "cloud", "waiting": 7}]}
        assert await get(http, "/api/graph") == {"nodes": [{"name": "valid", "inputs": []}]}


async def test_dead_letters() -> None:
    async with answering() as (told, http):
        letter = {"id": 1, "node": "valid", "reason": "bad", "row": "{}"}
        assert await get(http, "/api/dead") == {"dead": [letter]}
        assert told.letters == {"limit": 100, "node": None, "before": LATEST}
        await get(http, "/api/dead?limit=1&node=valid&before=7")
        assert told.letters == {"limit": 1, "node": "valid", "before": 7}
        assert (await wrong(http, "/api/dead?limit=x"))["parameter"] == "limit"
        for before in ("0", "993396784627794646555904", str(2**63), "1" * 5000):
            assert (await wrong(http, f"/api/dead?before={before}"))["parameter"] == "before"


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ('{"ids": [3, 4]}', [[3, 4], None]),
        ('{"node": "valid"}', [None, "valid"]),
        ('{"all": true}', [None, None]),
        ("", None),
        ("{}", None),
        ("[3]", None),
        ('{"ids": [3], "node": "valid"}', None),
        ('{"ids": ["3"]}', None),
        ('{"ids": [true]}', None),
        ('{"ids": [9223372036854775808]}', None),
        ('{"ids": 3}', None),
        ('{"node": 3}', None),
        ('{"all": false}', None),
        ('{"id": [3]}', None),
    ],
)
async def test_which_letters_to_replay(body: str, asked: Any) -> None:
    """Anything else than one clear question does nothing: {} does not mean all of them."""
    async with answering() as (_, http), http.post("/api/dead/replay", data=body) as response:
        assert response.status == (400 if asked is None else 200)
        assert asked is None or (await response.json())["asked"] == asked


async def test_no_letter_is_replayed_while_it_starts_or_stops() -> None:
    async with answering() as (told, http):
        told.state["ready"] = False
        async with http.post("/api/dead/replay", json={"all": True}) as response:
            assert response.status == 503


async def test_health_and_readiness_are_for_programs_that_look_at_the_status() -> None:
    async with answering() as (told, http):
        assert (await get(http, "/health"))["status"] == "ok"
        assert await get(http, "/ready") == {"ready": True}
        told.state = {"status": "degraded", "reasons": ["disk: full"], "ready": False}
        for path in ("/health", "/ready"):
            async with http.get(path) as response:
                assert response.status == 503
        async with http.get("/health") as response:
            assert (await response.json())["reasons"] == ["disk: full"]


async def test_metrics_in_the_format_of_prometheus() -> None:
    async with answering() as (_, http), http.get("/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert await response.text() == (
            "# HELP headwater_rows_total Rows \\\\ all\\nof them.\n"
            "# TYPE headwater_rows_total counter\n"
            'headwater_rows_total{node="a \\"b\\"\\\\c\\nd",x="y"} 12\n'
            'headwater_rows_total{node="e"} 0.5\n'
            "# HELP headwater_keys Keys.\n"
            "# TYPE headwater_keys gauge\n"
            "headwater_keys 3\n"
        )


async def test_what_is_not_there_yet_is_not_there() -> None:
    async with answering() as (_, http):
        for path in ("/api/alerts/1/why", "/openapi.json"):
            await wrong(http, path, 404)
        async with http.post("/api/streams") as response:
            assert response.status == 405


# --- the sink -------------------------------------------------------------------------------------------------------


def test_each_input_is_recorded_whole() -> None:
    recorded: list[tuple[str, Frame]] = []

    class Writes:
        def record(self, stream: str, frame: Frame) -> None:
            recorded.append((stream, frame))

    keys = KeyTable()
    sink = QueryServer(QueryServerSettings(), SinkContext("local", {"valid": READINGS}, keys))
    frame = made(READINGS, ROWS["valid"], keys)
    sink.write("valid", frame, cast("Any", Writes()))
    assert recorded == [("valid", frame)]


def test_settings_of_the_history() -> None:
    settings = QueryServerSettings(retention=Duration(SECOND), max_size=Size(0))
    context = SinkContext("local", {"valid": READINGS}, KeyTable())
    sink = QueryServer(settings, context)
    assert sink.kept == [Kept(("valid",), SECOND, 0)]
    assert [setting for setting, _ in context.problems] == ["max_size"]


def made_of(**settings: Any) -> tuple[QueryServer, list[tuple[str, str]]]:
    context = SinkContext("local", {"valid": READINGS, "seconds": READINGS, "hot": READINGS}, KeyTable())
    return QueryServer(QueryServerSettings(**settings), context), context.problems


def test_limits_of_each_input() -> None:
    """A text is for all inputs together, a table for each; `default` for those that it does not name."""
    sink, problems = made_of(retention={"valid": Duration(5), "default": Duration(9)}, max_size={"valid": Size(70)})
    assert problems == []
    assert [*sink.kept] == [Kept(("valid",), 5, 70), Kept(("seconds",), 9, None), Kept(("hot",), 9, None)]
    sink, _ = made_of(retention=Duration(5), max_size={"hot": Size(70)})
    assert [*sink.kept] == [Kept(("valid", "seconds", "hot"), 5, None), Kept(("hot",), None, 70)]
    _, problems = made_of(retention={"vaild": Duration(5), "hot": Duration(0)})
    assert sorted(problems) == [
        ("retention.hot", "must be more than nothing"),
        ("retention.vaild", '"vaild" is no input of this sink (did you mean "valid"?)'),
    ]


def test_rollups_of_each_input() -> None:
    minute, hour = 60 * SECOND, 3_600 * SECOND
    sink, problems = made_of(rollup=(Duration(minute), Rollup(Duration(hour), Duration(9))))
    assert problems == []
    assert sink.rollups == {name: {minute: None, hour: 9} for name in ("valid", "seconds", "hot")}
    sink, _ = made_of(rollup={"valid": (Duration(hour),)})
    assert sink.rollups == {"valid": {hour: None}}
    _, problems = made_of(rollup={"secnds": (Duration(hour),), "hot": (Duration(5),)})
    assert sorted(problems) == [
        ("rollup", "an interval is at least 1 s, a retention more than nothing"),
        ("rollup.secnds", '"secnds" is no input of this sink (did you mean "seconds"?)'),
    ]
    _, problems = made_of(rollup=tuple(Duration(SECOND * n) for n in range(1, 10)))
    assert {text for _, text in problems} == {"at most 8 for an input"}
