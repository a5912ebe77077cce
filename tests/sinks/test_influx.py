"""The influx sink against a real InfluxDB 1, and what it sends to InfluxDB 2."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from pipeline.component import Batch, SinkContext
from pipeline.delivering import BatchSettings, BufferSettings
from pipeline.frame import NO_PROGRESS, SECOND, Field, Frame, KeyTable, Schema, column
from pipeline.quantity import Duration, Secret
from pipeline.thin import thin
from sinks.influx import Influx, InfluxSettings
from tests.peers import influxd
from tests.peers.influxd import DATABASE, PASSWORD, USER, Influxd
from tests.sinks.rig import rig

FIELDS = {"value": Field("float", True), "n": Field("int"), "on": Field("bool"), "mode": Field("string", True)}
SCHEMAS = {"readings": Schema("id", FIELDS)}
KEYS = ["a", 'b c,d="é"']
START = 1_700_000_000 * SECOND


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Influxd]:
    if influxd.version() is None:
        pytest.skip("InfluxDB is not there")
    made = Influxd(tmp_path)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


def sink(url: str, **more: Any) -> Influx:
    context = SinkContext("history", SCHEMAS, KeyTable(KEYS))
    given: dict[str, Any] = {"database": DATABASE, "user": USER, "password": Secret(PASSWORD)}
    given |= {"batch": BatchSettings(rows=100, wait=Duration(0)), **more}
    made = Influx(InfluxSettings(url=url, **given), context)
    assert context.problems == []
    return made


def readings(*values: float | None, mode: str | None = None) -> Frame:
    n = np.arange(len(values), dtype=np.int64)
    columns = {
        "value": column("float", values),
        "n": column("int", n.tolist()),
        "on": column("bool", [True] * len(n)),
        "mode": column("string", [mode] * len(n)),
    }
    return Frame(START + n, (n % 2).astype(np.int32), n, columns, NO_PROGRESS)


async def test_rows_become_points(tmp_path: Path, server: Influxd) -> None:
    """The key is a tag, the time is exact, each field has its kind; what is missing, or no number, is left out."""
    async with rig(tmp_path, sink(server.url, measurements={"readings": "my m,x"}, tags=("mode",))) as r:
        await r.put("readings", readings(0.1, None, float("nan"), 1e300, mode="auto"))
        await r.until(sent=4, waiting=0)
    rows = await server.ask('SELECT "id", mode, value, n, "on" FROM "my m,x"')
    assert rows == [
        [START, "a", "auto", 0.1, 0, True],
        [START + 1, KEYS[1], "auto", None, 1, True],
        [START + 2, "a", "auto", None, 2, True],
        [START + 3, KEYS[1], "auto", 1e300, 3, True],
    ]


async def test_a_row_that_comes_twice_is_there_once(server: Influxd) -> None:
    made = sink(server.url)
    for _ in range(2):
        assert (await made.deliver(Batch("k", [("readings", readings(1, 2))], 1))).delivered
    await made.close()
    assert await server.ask("SELECT count(n) FROM readings") == [[0, 2]]


async def test_readings_at_one_time_are_kept_apart_by_spread(server: Influxd) -> None:
    """And are the same points at each try; without it the last one stays."""
    frame = readings(1, 2, 3, 4)
    same = Frame(np.full(4, START), np.zeros(4, np.int32), frame.seq, frame.columns, NO_PROGRESS)
    for name, spread, kept in (("one", False, 1), ("all", True, 4)):
        made = sink(server.url, spread=spread, measurements={"readings": name})
        for _ in range(2):
            assert (await made.deliver(Batch("k", [("readings", same)], 1))).delivered
        await made.close()
        assert await server.ask(f'SELECT count(n) FROM "{name}"') == [[0, kept]]


async def test_a_row_that_is_refused_costs_only_itself(tmp_path: Path, server: Influxd) -> None:
    """A field that has another type there: the others of its batch are stored, and it is a dead letter that says so."""
    await server.ask(f"CREATE RETENTION POLICY brief ON {DATABASE} DURATION 1h REPLICATION 1")
    async with rig(tmp_path, sink(server.url)) as r:
        await r.put("readings", readings(1, None, 3, None, None))
        await r.until(sent=5)
    other = {"readings": Schema("id", {**FIELDS, "value": Field("string", True)})}
    context = SinkContext("history", other, KeyTable(KEYS))
    texts = sink(server.url)
    texts.context = context
    frame = readings(1, 2, 3, 4, 5).with_columns({"value": column("string", [None, None, "text", None, None])})
    outcome = await texts.deliver(Batch("k", [("readings", frame)], 1))
    await texts.close()
    assert outcome.delivered
    assert list(outcome.rejected) == [2]
    assert "field type conflict" in outcome.rejected[2]


async def test_what_a_person_must_mend_costs_no_row(tmp_path: Path, server: Influxd) -> None:
    """A database that is not there, a wrong password: the rows wait."""
    wrong: list[dict[str, Any]] = [{"database": "none"}, {"password": Secret("wrong-8162")}]
    for number, more in enumerate(wrong):
        async with rig(tmp_path / str(number), sink(server.url, **more)) as r:
            await r.put("readings", readings(1))
            await r.until(state="retrying", failed=0)
            told = (await r.status())["last_error"]
        assert told.startswith("HTTP 404: " if not number else "HTTP 401: ")
        assert "wrong-8162" not in told


async def test_thinned_rows_fit_where_whole_numbers_are_floats(server: Influxd) -> None:
    made = sink(server.url, integers=False, buffer=BufferSettings(when_full="thin"))
    frame = readings(1, 2, 3, 4)
    for i, part in enumerate([frame, thin(frame, SCHEMAS["readings"], 1)]):
        outcome = await made.deliver(Batch(str(i), [("readings", part)], 1))
        assert (outcome.delivered, outcome.rejected) == (True, {})
    await made.close()
    assert (await server.ask("SELECT n, thinned FROM readings WHERE thinned = 2"))[0][1:] == [1, 2]


async def test_what_influxdb_2_is_sent() -> None:
    """Another way, another word before the token; and a refusal of one row there, too."""
    requests: list[web.Request] = []
    bodies: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        requests.append(request)
        bodies.append(await request.read())
        if b"n=1i" in bodies[-1]:
            return web.Response(status=422, text='{"message": "beyond retention"}')
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/api/v2/write", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    given: dict[str, Any] = {"database": None, "user": None, "password": None}
    made = sink(url, bucket="b 1", org="o&o", token=Secret("t0ken"), gzip=False, **given)
    outcome = await made.deliver(Batch("k", [("readings", readings(1, 2, 3))], 1))
    await made.close()
    await runner.cleanup()
    assert dict(requests[0].query) == {"bucket": "b 1", "org": "o&o", "precision": "ns"}
    assert requests[0].headers["Authorization"] == "Token t0ken"
    assert bodies[0].splitlines()[0] == b"readings,id=a value=1.0,n=0i,on=true %d" % START
    assert outcome.rejected == {1: 'HTTP 422: {"message": "beyond retention"}'}


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, ["database"]),
        ({"database": "d", "bucket": "b", "org": "o"}, ["database"]),
        ({"bucket": "b"}, ["org"]),
        ({"bucket": "b", "org": "o", "user": "u"}, ["user"]),
        ({"database": "d", "token": Secret("t")}, ["token"]),
        ({"database": "d", "tags": ("mod",)}, ["tags"]),
        ({"database": "d", "measurements": {"x": "y"}}, ["measurements.x"]),
        ({"database": "d", "buffer": BufferSettings(when_full="thin")}, ["integers"]),
        ({"database": "d", "url": "influx"}, ["url"]),
    ],
)
def test_wrong_settings(given: dict[str, Any], settings: list[str]) -> None:
    context = SinkContext("history", SCHEMAS, KeyTable())
    Influx(InfluxSettings(**{"url": "http://x", **given}), context)
    assert [setting for setting, _ in context.problems] == settings
