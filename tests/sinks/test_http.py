"""The http sink against a real server: each row is a request, no value changes where it goes, no command comes too late."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clock import VirtualClock
from pipeline.component import Batch, SinkContext
from pipeline.delivering import BatchSettings
from pipeline.frame import NO_PROGRESS, SECOND, Field, Frame, KeyTable, Schema, column
from pipeline.quantity import Duration, Secret, duration
from sinks.http import MAYBE, Http, HttpSettings
from tests.sinks.rig import rig
from tests.waiting import eventually

SCHEMAS = {
    "orders": Schema("id", {"value": Field("float", True), "mode": Field("string", True), "on": Field("bool", True)})
}
KEYS = ["a", "b"]


class Peer:
    """Keeps each request as (method, path and query as they were sent, headers, body); answers with the next of `answers`."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: list[web.Response | None] = []  # None: it never does
        self.queries: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.at_once = self.most_at_once = 0
        self.over = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def take(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.raw_path, dict(request.headers), await request.read()))
        self.queries.append(dict(request.query))
        self.paths.append(request.path)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await self.open.wait()
        self.at_once -= 1
        answer = self.answers.pop(0) if self.answers else web.Response()
        if answer is None:
            await self.over.wait()
        return answer or web.Response()

    def said(self) -> list[Any]:
        return [json.loads(body) for _, _, _, body in self.requests]


@asynccontextmanager
async def serving(peer: Peer) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", r"/{rest:[\s\S]*}", peer.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        peer.over.set()
        await runner.cleanup()


def made(url: str, clock: Any = None, keys: list[str] | None = None, **more: Any) -> Http:
    context = SinkContext("valves", dict(SCHEMAS), KeyTable(keys or KEYS), clock=clock)
    sink = Http(HttpSettings(url=url, **more), context)
    assert context.problems == []
    return sink


def problems(**given: Any) -> list[tuple[str, str]]:
    context = SinkContext("valves", SCHEMAS, KeyTable())
    Http(HttpSettings(**given), context)
    return context.problems


def orders(*rows: tuple[int, float | None], mode: str | None = None, start: int = 0) -> Frame:
    """(key, value); a second apart."""
    n = np.arange(len(rows), dtype=np.int64)
    columns = {
        "value": column("float", [v for _, v in rows]),
        "mode": column("string", [mode] * len(rows)),
        "on": column("bool", [True] * len(rows)),
    }
    return Frame(start + n * SECOND, np.array([k for k, _ in rows], np.int32), n, columns, NO_PROGRESS)


async def test_each_row_is_a_request(tmp_path: Path) -> None:
    peer = Peer()
    body = {"v": "{value}", "on": "{on}", "text": "{id}: {value:.2f}", "mode": "{mode}"}
    async with serving(peer) as url:
        sink = made(url + "/valve/{id}?to={value:.0f}", method="PUT", body=body, headers={"X-Key": Secret("k")})
        async with rig(tmp_path, sink) as r:
            await r.put("orders", orders((0, 1.5), (1, 7.0)))
            await r.until(sent=2, waiting=0)
    assert [(method, path) for method, path, _, _ in peer.requests] == [
        ("PUT", "/valve/a?to=2"),
        ("PUT", "/valve/b?to=7"),
    ]
    assert peer.said() == [{"v": 1.5, "on": True, "text": "a: 1.50"}, {"v": 7.0, "on": True, "text": "b: 7.00"}]
    assert {headers["X-Key"] for _, _, headers, _ in peer.requests} == {"k"}
    assert len({headers["Idempotency-Key"] for _, _, headers, _ in peer.requests}) == 2


async def test_without_a_body_the_row_itself_is_sent(tmp_path: Path) -> None:
    """With GET nothing is; a text is sent as it is."""
    forms: list[dict[str, Any]] = [{}, {"method": "GET"}, {"body": "{id}={value} {mode}"}]
    peer = Peer()
    async with serving(peer) as url:
        for number, more in enumerate(forms):
            async with rig(tmp_path / str(number), made(url + "/", **more)) as r:
                await r.put("orders", orders((0, 1.5)))
                await r.until(sent=1, waiting=0)
    bodies = [body for _, _, _, body in peer.requests]
    assert json.loads(bodies[0]) == {
        "stream": "orders",
        "id": "a",
        "time": "1970-01-01T00:00:00.000Z",
        "value": 1.5,
        "on": True,
    }
    assert bodies[1:] == [b"", b"a=1.5 missing"]
    assert peer.requests[2][2]["Content-Type"] == "text/plain; charset=utf-8"


async def test_what_fails_is_tried_again_and_what_was_taken_is_not(tmp_path: Path) -> None:
    """The row that failed under the same key, and those behind it of its key in order."""
    peer = Peer()
    peer.answers = [web.Response(), web.Response(status=500), web.Response()]
    async with serving(peer) as url, rig(tmp_path, made(url)) as r:
        await r.put("orders", orders((0, 1), (0, 2), (1, 3), (0, 4)))
        await r.until(sent=4, waiting=0)
    assert [row["value"] for row in peer.said()] == [1, 2, 3, 2, 4]
    keys = [headers["Idempotency-Key"] for _, _, headers, _ in peer.requests]
    assert keys[1] == keys[3]
    assert len(set(keys)) == 4


async def test_a_row_that_is_refused_costs_only_itself(tmp_path: Path) -> None:
    peer = Peer()
    peer.answers = [web.Response(), web.Response(status=422, text="no such valve")]
    async with serving(peer) as url, rig(tmp_path, made(url)) as r:
        await r.put("orders", orders((0, 1), (0, 2), (0, 3)))
        await r.until(sent=2, failed=1, waiting=0)
        assert [(reason, row["value"]) for reason, row in await r.letters()] == [("HTTP 422: no such valve", 2)]


async def test_keys_may_go_side_by_side(tmp_path: Path) -> None:
    """As many as `parallel` says, and the rows of one key never."""
    peer = Peer()
    peer.open.clear()
    async with serving(peer) as url, rig(tmp_path, made(url, parallel=2)) as r:
        await r.put("orders", orders((0, 1), (0, 2), (1, 3), (1, 4)))
        await eventually(lambda: peer.at_once == 2)
        peer.open.set()
        await r.until(sent=4, waiting=0)
    assert peer.most_at_once == 2
    said = [(row["id"], row["value"]) for row in peer.said()]
    assert [v for k, v in said if k == "a"] == [1, 2]
    assert [v for k, v in said if k == "b"] == [3, 4]


async def test_an_old_row_is_not_sent(tmp_path: Path) -> None:
    """No command of before an outage comes after it, also not the one that was being tried."""
    peer = Peer()
    peer.answers = [web.Response(status=500) for _ in range(1000)]
    clock = VirtualClock(1000 * SECOND)
    async with serving(peer) as url, rig(tmp_path, made(url, clock, expires=duration("10 s"))) as r:
        await r.put("orders", orders((0, 1), (0, 2), start=995 * SECOND))
        await r.until(state="retrying")
        clock.advance(6 * SECOND)
        await eventually(lambda: peer.said()[-1]["value"] == 2)
        peer.answers.clear()
        await r.until(sent=1, failed=1, waiting=0)
        ((reason, row),) = await r.letters()
    assert reason == "expired: it is 11 s old, and 10 s at most is sent"
    assert row["value"] == 1
    assert peer.said()[-1]["value"] == 2


@pytest.mark.parametrize("answer", [500, 404, None])
async def test_once_is_once(tmp_path: Path, answer: int | None) -> None:
    """Whatever becomes of it; it is noted, and the next row goes its way."""
    peer = Peer()
    async with serving(peer) as url:
        peer.answers = [web.Response(status=answer) if answer else None]
        async with rig(tmp_path, made(url, once=True, timeout=duration("30 s" if answer else "3 s"))) as r:
            await r.put("orders", orders((0, 1), (0, 2)))
            await r.until(sent=1, failed=1, waiting=0)
            ((reason, row),) = await r.letters()
    assert (f"HTTP {answer}" if answer else "did not answer") in reason
    assert row["value"] == 1
    assert [row["value"] for row in peer.said()] == [1, 2]


async def test_what_was_on_its_way_at_the_end_is_not_sent_again(tmp_path: Path) -> None:
    peer = Peer()
    peer.open.clear()
    async with serving(peer) as url:
        async with rig(tmp_path, made(url, once=True)) as r:
            await r.put("orders", orders((0, 1), (0, 2)))
            await eventually(lambda: peer.at_once == 1)
        peer.open.set()
        async with rig(tmp_path, made(url, once=True)) as r:
            await r.until(sent=1, failed=1, waiting=0)
            assert [(reason, row["value"]) for reason, row in await r.letters()] == [(MAYBE, 1)]
    assert [row["value"] for row in peer.said()] == [1, 2]


async def test_nothing_overtakes_what_an_outage_left_behind(tmp_path: Path) -> None:
    """Alerts neither, which elsewhere go first and the newest before the older."""
    peer = Peer()
    peer.answers = [web.Response(status=500) for _ in range(1000)]
    async with serving(peer) as url:
        sink = made(url, batch=BatchSettings(rows=1, wait=Duration(0)))
        sink.context.inputs["orders"] = SCHEMAS["orders"]._replace(role="alerts")
        async with rig(tmp_path, sink) as r:
            for i in range(4):
                await r.put("orders", orders((0, i)))
            await r.until(state="retrying")
            peer.answers.clear()
            await r.until(sent=4, waiting=0)
    assert [row["value"] for row in peer.said()][-4:] == [0, 1, 2, 3]


async def test_a_row_that_cannot_be_addressed_is_refused(tmp_path: Path) -> None:
    """Its field is missing, or it would climb out of its folder."""
    peer = Peer()
    async with serving(peer) as url, rig(tmp_path, made(url + "/v/{mode}/x?v={value}")) as r:
        await r.put("orders", orders((0, None), mode="m"))
        await r.put("orders", orders((0, 1), mode=".."))
        await r.put("orders", orders((0, 2), mode="ok"))
        await r.until(sent=1, failed=2, waiting=0)
        reasons = [reason for reason, _ in await r.letters()]
    assert reasons == ['the address names "value", which is missing', "a value would change the path of the address"]
    assert peer.paths == ["/v/ok/x"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=20).filter(lambda t: t not in (".", "..")), min_size=1, max_size=3))
def test_no_value_changes_where_it_goes(texts: list[str]) -> None:
    """The server gets the path and the query that were meant, with the value in its place, whatever that is."""

    async def sent() -> Peer:
        peer = Peer()
        async with serving(peer) as url:
            sink = made(url + "/v/{mode}/x?q={mode}&z=1", method="GET")
            try:
                for i, text in enumerate(texts):
                    outcome = await sink.deliver(Batch(str(i), [("orders", orders((0, 1), mode=text))], 1))
                    assert (outcome.delivered, outcome.rejected) == (True, {})
            finally:
                await sink.close()
        return peer

    peer = asyncio.run(sent())
    assert peer.queries == [{"q": text, "z": "1"} for text in texts]
    assert [path.partition("?")[0].count("/") for _, path, _, _ in peer.requests] == [3] * len(texts)
    assert peer.paths == [f"/v/{text}/x" for text in texts]


def test_wrong_settings() -> None:
    assert [s for s, _ in problems(url="http://{id}.local/", body={"a": {"b": "{valu}"}})] == ["url", "body.a.b"]
    assert "choose whom to ask" in problems(url="http://{id}.local/")[0][1]
    assert 'did you mean "value"' in problems(url="http://x/{valu}")[0][1]
    assert [s for s, _ in problems(url="x", body="{valu}")] == ["url", "body"]
