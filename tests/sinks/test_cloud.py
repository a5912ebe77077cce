"""The cloud sink against a real server that refuses, is slow, takes and does not say so, and comes back."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pipeline.component import SinkContext
from pipeline.delivering import BatchSettings, BufferSettings
from pipeline.frame import KeyTable
from pipeline.http_auth import SignSettings
from pipeline.journal import dead, outbox
from pipeline.quantity import Duration, Secret, Size, duration
from sinks.cloud import Cloud, CloudSettings, TemplateSettings
from tests.sinks.rig import SCHEMAS, Enqueued, alert, rig, windows
from tests.waiting import eventually

Answer = Callable[[web.Request], Awaitable[web.Response]]


class Peer:
    """Keeps every request; answers with the next of `answers`, then 200."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[web.Response | float] = []

    async def take(self, request: web.Request) -> web.Response:
        self.requests.append((dict(request.headers), await request.content.read()))
        answer = self.answers.pop(0) if self.answers else web.Response()
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return web.Response()
        return answer

    def rows(self, request: int = -1) -> list[dict[str, Any]]:
        headers, body = self.requests[request]
        text = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
        return [json.loads(line) for line in text.splitlines()]


@asynccontextmanager
async def serving(peer: Peer) -> AsyncIterator[str]:
    app = web.Application(handler_args={"auto_decompress": False})
    app.router.add_post("/api/sync", peer.take)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/api/sync"
    finally:
        await runner.cleanup()


def cloud(url: str, **settings: Any) -> Cloud:
    settings = {"batch": BatchSettings(rows=3, wait=Duration(0)), **settings}
    context = SinkContext("cloud", SCHEMAS, KeyTable(["s1"]))
    made = Cloud(CloudSettings(url=url, **settings), context)
    assert context.problems == []
    return made


async def test_the_wire_form(tmp_path: Path) -> None:
    """One row a line with its stream, key, time and fields; missing values are left out."""
    peer = Peer()
    async with serving(peer) as url, rig(tmp_path, cloud(url, token=Secret("abc"))) as r:
        await r.put("ten_seconds", windows(51.5, None))
        await r.put("hot", alert())
        await r.until(sent=3, waiting=0)
    headers, _ = peer.requests[0]
    assert headers["Content-Type"] == "application/x-ndjson"
    assert headers["Authorization"] == "Bearer abc"
    assert peer.rows() == [
        {"stream": "ten_seconds", "id": "s1", "time": "1970-01-01T00:00:00.000Z", "average": 51.5},
        {"stream": "ten_seconds", "id": "s1", "time": "1970-01-01T00:00:01.000Z"},
        {"stream": "hot", "id": "s1", "time": "1970-01-01T00:00:00.000Z", "state": "firing"},
    ]


@pytest.mark.parametrize("trouble", [500, 503, 429, 408, 0.3, 302])
async def test_what_passes_is_tried_again_the_same(tmp_path: Path, trouble: float) -> None:
    """The same bytes under the same key, also where the peer had taken it and did not say so in time."""
    peer = Peer()
    peer.answers = [trouble if isinstance(trouble, float) else web.Response(status=trouble) for _ in range(2)]
    slow = isinstance(trouble, float)
    async with serving(peer) as url, rig(tmp_path, cloud(url, timeout=duration("100 ms" if slow else "30 s"))) as r:
        await r.put("ten_seconds", windows(1, 2, 3))
        await r.until(sent=3, waiting=0, last_error=None)
    assert len(peer.requests) >= 3
    if not slow:  # an answer that nothing keeps may be late, too
        assert len(peer.requests) == 3
    assert len({(h["Idempotency-Key"], body) for h, body in peer.requests}) == 1


async def test_a_refusal_for_good_blocks_nothing(tmp_path: Path) -> None:
    """The rows are dead letters with the peer's words; the next batch goes on under another key."""
    peer = Peer()
    peer.answers = [web.Response(status=422, text="no such stream")]
    async with serving(peer) as url, rig(tmp_path, cloud(url)) as r:
        await r.put("ten_seconds", windows(1, 2, 3, 4))
        await r.until(sent=1, failed=3, waiting=0)
        letters = await r.store.read(lambda db: dead.letters(db, 10))
    assert [(letter.node, letter.reason) for letter in letters] == [("cloud", "HTTP 422: no such stream")] * 3
    assert peer.requests[0][0]["Idempotency-Key"] != peer.requests[1][0]["Idempotency-Key"]


async def test_retry_after_is_honoured(tmp_path: Path) -> None:
    peer = Peer()
    peer.answers = [web.Response(status=429, headers={"Retry-After": "3600"})]
    async with serving(peer) as url, rig(tmp_path, cloud(url)) as r:
        await r.put("ten_seconds", windows(1))
        await r.until(state="retrying", last_error="HTTP 429")
        assert (await r.status())["retry_in"] > 3_000


async def test_a_restart_goes_on_with_the_batch_that_was_begun(tmp_path: Path) -> None:
    peer = Peer()
    peer.answers = [web.Response(status=500) for _ in range(1000)]
    async with serving(peer) as url:
        async with rig(tmp_path, cloud(url)) as r:
            await r.put("ten_seconds", windows(1, 2))
            await r.until(state="retrying")
            await r.put("ten_seconds", windows(3, 4))
        peer.answers.clear()
        async with rig(tmp_path, cloud(url)) as r:
            await r.until(sent=4, waiting=0)
    assert [[row["average"] for row in peer.rows(i)] for i in (0, -2, -1)] == [[1, 2], [1, 2], [3, 4]]


async def test_a_full_buffer_drops_the_oldest_but_no_alert(tmp_path: Path) -> None:
    peer = Peer()
    peer.answers = [web.Response(status=500) for _ in range(1000)]
    buffer = BufferSettings(size=Size(300))
    async with serving(peer) as url, rig(tmp_path, cloud(url, buffer=buffer)) as r:
        await r.put("hot", alert())
        await r.until(state="retrying")
        for i in range(30):
            await r.put("ten_seconds", windows(i))
            await r.put("hot", alert())
            await asyncio.sleep(0.005)

        async def all_dropped() -> bool:
            r.delivery.wake()
            return (await r.status())["dropped"] == 30

        await eventually(all_dropped)
        peer.answers.clear()
        await r.until(waiting=0, sent=31, dropped=30)


async def test_an_outage_on_the_wire(tmp_path: Path) -> None:
    """What waited through it says so; a thinned row says what it stands for; refused, it is a dead letter that does."""
    peer = Peer()
    peer.answers = [web.Response(status=500) for _ in range(1000)]
    many = windows(*range(60))
    async with serving(peer) as url, rig(tmp_path, cloud(url, buffer=BufferSettings(rate=10**6))) as r:
        await r.put("ten_seconds", windows(7))
        await r.until(state="retrying")
        await r.put("ten_seconds", many)
        assert await r.store.write(lambda db: outbox.make_thinner(db, "cloud", SCHEMAS))
        peer.answers = [web.Response(), web.Response(status=500), web.Response(status=422)]
        await r.until(waiting=0, failed=3)
        letters = await r.store.read(lambda db: dead.letters(db, 10))
    alone, failed, refused, _ = range(len(peer.requests) - 4, len(peer.requests))
    assert peer.rows(alone) == [{"stream": "ten_seconds", "id": "s1", "time": "1970-01-01T00:00:00.000Z", "average": 7}]
    assert peer.requests[failed][1] == peer.requests[refused][1]
    first = peer.rows(refused)[0]
    assert first == {
        "stream": "ten_seconds",
        "recovered": True,
        "thinned": 10,
        "until": "1970-01-01T00:00:09.000Z",
        "id": "s1",
        "time": "1970-01-01T00:00:00.000Z",
        "average": 4.5,
        "average_first": 0,
        "average_last": 9,
        "average_min": 0,
        "average_max": 9,
        "average_count": 10,
    }
    del first["recovered"]
    assert first in [json.loads(letter.row) for letter in letters]


async def test_rows_of_an_earlier_pipeline_file_go_up(tmp_path: Path) -> None:
    """A stream may be gone, or have other fields; what waited is shown as it was."""
    peer = Peer()
    async with serving(peer) as url, rig(tmp_path, cloud(url, batch=BatchSettings(rows=4))) as r:
        other = windows(1).with_columns({"level": windows(1)["average"]})
        await r.store.write(lambda db: outbox.put(db, "cloud", "gone", windows(51.5), keep=False, clock=1))
        await r.store.write(lambda db: outbox.put(db, "cloud", "hot", other, keep=True, clock=1))
        await r.put("hot", alert())
        await r.put("ten_seconds", windows(2))
        await r.until(sent=4, waiting=0)
    gone, before, now, _ = (row for i in range(len(peer.requests)) for row in peer.rows(i))
    assert gone == {"stream": "gone", "key": "s1", "time": "1970-01-01T00:00:00.000Z", "average": 51.5}
    assert (before["average"], before["level"], before["id"]) == (1, 1, "s1")
    assert now["state"] == "firing"


async def test_a_full_buffer_that_blocks_says_so(tmp_path: Path) -> None:
    peer = Peer()
    peer.answers = [web.Response(status=500) for _ in range(1000)]
    async with (
        serving(peer) as url,
        rig(tmp_path, cloud(url, buffer=BufferSettings(size=Size(60), when_full="block"))) as r,
    ):
        await r.put("ten_seconds", windows(1))
        await r.put("ten_seconds", windows(2))
        told: list[bool] = []
        r.delivery.freed = lambda: told.append(r.delivery.blocked())
        await eventually(r.delivery.blocked)
        peer.answers.clear()
        await r.until(waiting=0, sent=2, dropped=0)
        r.delivery.wake()
        await eventually(lambda: not r.delivery.blocked())
        assert told == [False]  # the engine is woken, once there is room


def test_where_holds_for_the_streams_that_have_its_fields() -> None:
    """Alerts go up whole, and are never dropped."""
    sink, writes = cloud("http://127.0.0.1:1/", where="average > 50"), Enqueued()
    sink.write("ten_seconds", windows(10, 51, None), writes)
    sink.write("ten_seconds", windows(10), writes)
    sink.write("hot", alert(), writes)
    assert writes.rows == [("ten_seconds", 1, False), ("hot", 1, True)]


def test_wrong_settings() -> None:
    context = SinkContext("cloud", SCHEMAS, KeyTable())
    Cloud(CloudSettings(url="ftp://x", where="averag > 50"), context)
    assert sorted(setting for setting, _ in context.problems) == ["url", "where"]
    assert 'did you mean "average"' in dict(context.problems)["where"]


async def test_no_secret_is_shown(tmp_path: Path) -> None:
    """Not the password of the address, not its query."""
    sink = cloud("http://user:secret@127.0.0.1:1/api/sync?token=secret")
    async with rig(tmp_path, sink) as r:
        await r.put("ten_seconds", windows(1))
        await r.until(state="retrying")
        assert "secret" not in str(await r.status())
        assert "127.0.0.1:1" in (await r.status())["last_error"]


async def test_another_form(tmp_path: Path) -> None:
    """Rows as the receiver wants them, and what stands around them; a retry is the same bytes."""
    peer = Peer()
    peer.answers = [web.Response(status=500)]
    template = TemplateSettings(
        row={"sensor": "{id}", "v": "{average}", "note": "{stream}: {average:.1f}"},
        body={"site": "greenhouse", "batch": "{batch}", "count": "{count}", "readings": "{rows}"},
    )
    async with serving(peer) as url, rig(tmp_path, cloud(url, template=template)) as r:
        await r.put("ten_seconds", windows(51.5, None))
        await r.until(sent=2, waiting=0)
    (headers, body), again = peer.requests
    assert again[1] == body
    assert headers["Content-Type"] == "application/json"
    assert peer.rows() == [
        {
            "site": "greenhouse",
            "batch": headers["Idempotency-Key"],
            "count": 2,
            "readings": [{"sensor": "s1", "v": 51.5, "note": "ten_seconds: 51.5"}, {"sensor": "s1"}],
        }
    ]


async def test_a_second_try_is_signed_anew_and_is_the_same(tmp_path: Path) -> None:
    peer = Peer()
    peer.answers = [web.Response(status=500)]
    sign = SignSettings(key="d7", secret=Secret("shared"))
    async with serving(peer) as url, rig(tmp_path, cloud(url, sign=sign)) as r:
        await r.put("ten_seconds", windows(1))
        await r.until(sent=1, waiting=0)
    assert len({(h["Idempotency-Key"], body) for h, body in peer.requests}) == 1
    assert all(h["Headwater-Signature"].startswith("v1=") for h, _ in peer.requests)


async def test_where_the_first_address_takes_nothing_the_next_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same try, under the same key; what took the last batch is asked first, until it is time to go back."""
    first, second = Peer(), Peer()
    first.answers = [web.Response(status=503)]
    async with serving(first) as url, serving(second) as other, rig(tmp_path, cloud(url, fallback=(other,))) as r:
        await r.put("ten_seconds", windows(1))
        await r.until(sent=1, attempts=0, last_error=None)
        await r.put("ten_seconds", windows(2))
        await r.until(sent=2)
        monkeypatch.setattr("sinks.cloud.RETURN_S", 0.0)
        await r.put("ten_seconds", windows(3))
        await r.until(sent=3)
    assert first.requests[0][0]["Idempotency-Key"] == second.requests[0][0]["Idempotency-Key"]
    assert [row["average"] for i in range(2) for row in first.rows(i)] == [1, 3]
    assert [row["average"] for i in range(2) for row in second.rows(i)] == [1, 2]


async def test_a_refusal_of_the_first_address_holds_for_all(tmp_path: Path) -> None:
    """What one will never take is not offered to the next."""
    first, second = Peer(), Peer()
    first.answers = [web.Response(status=422)]
    async with serving(first) as url, serving(second) as other, rig(tmp_path, cloud(url, fallback=(other,))) as r:
        await r.put("ten_seconds", windows(1))
        await r.until(failed=1, waiting=0)
    assert second.requests == []


async def test_where_all_fail_each_is_told(tmp_path: Path) -> None:
    sink = cloud("http://127.0.0.1:1/a", fallback=("http://127.0.0.1:2/b?token=hidden",))
    async with rig(tmp_path, sink) as r:
        await r.put("ten_seconds", windows(1))
        await r.until(state="retrying")
        told = (await r.status())["last_error"]
    assert "127.0.0.1:1/a" in told
    assert "127.0.0.1:2/b" in told
    assert "hidden" not in told


def test_a_wrong_template_is_told() -> None:
    context = SinkContext("cloud", SCHEMAS, KeyTable())
    template = TemplateSettings(row={"a": {"v": "{averag}"}}, body={"rows": "none"})
    Cloud(CloudSettings(url="http://x/", fallback=("x",), template=template), context)
    assert [setting for setting, _ in context.problems] == ["fallback.0", "template.row.a.v", "template.body"]
