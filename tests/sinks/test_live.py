"""What `/api/live` and `/api/socket` tell, over real sockets, of steps that the test commits."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from pipeline.clock import VirtualClock
from pipeline.component import Services
from pipeline.frame import NO_PROGRESS, SECOND, Column, Field, Frame, KeyTable, Schema, concatenate, empty, instant_text
from pipeline.frame import rows as rows_of
from pipeline.server import HttpServer
from sinks.query_server import feed, live
from sinks.query_server.routes import mount
from tests.waiting import eventually

# Clients here go away in the middle of an answer, and the loop of the test may end before asyncio has closed its side.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")

SCHEMAS = {
    "valid": Schema("id", {"value": Field("float")}),
    "hot": Schema("id", {"value": Field("float"), "state": Field("string")}, "alerts"),
    "totals": Schema(None, {"n": Field("int")}, "windows"),
}


class Committed:
    """The engine, seen from here: steps are committed, and what was committed can be read again."""

    def __init__(self, keys: KeyTable) -> None:
        self.keys = keys
        self.steps: list[tuple[dict[str, Frame], int]] = []
        self.heard: list[Callable[[Mapping[str, Frame], int], None]] = []
        self.seq = 0

    def commit(self, **streams: str | int) -> None:
        """`valid="a1 b2"`: these rows in a step; a number: so many of the key a."""
        history = {}
        for stream, text in streams.items():
            rows = text.split() if isinstance(text, str) else [f"a{i}" for i in range(text)]
            values = np.array([float(row[1:]) for row in rows])
            seq = np.arange(self.seq, self.seq + len(rows))
            columns = {
                "value": Column(values),
                "n": Column(values.astype(np.int64)),
                "state": Column(np.full(len(rows), "firing", object)),
            }
            columns = {name: columns[name] for name in SCHEMAS[stream].fields}
            key = self.keys.codes([row[0] for row in rows])
            history[stream] = Frame(seq * SECOND, key, seq, columns, NO_PROGRESS)
        self.seq += max(map(len, history.values()), default=0)
        self.steps.append((history, self.seq))
        for heard in self.heard:
            heard(history, self.seq)

    # --- Services ---

    def listen(self, heard: Callable[[Mapping[str, Frame], int], None]) -> int:
        self.heard.append(heard)
        return self.seq

    async def since(
        self, stream: str, first: int, end: int, keys: Sequence[str] | None, limit: int
    ) -> tuple[Frame, int]:
        frame = concatenate([empty(SCHEMAS[stream], NO_PROGRESS), *(h[stream] for h, _ in self.steps if stream in h)])
        keep = (frame.seq >= first) & (frame.seq < end)
        if keys is not None:
            keep &= np.isin(frame.key, [self.keys.get(key, -1) for key in keys])
        frame = frame.where(keep)
        await asyncio.sleep(0)
        return frame.take(slice(max(len(frame) - limit, 0), None)), max(len(frame) - limit, 0)


class Listen:
    token = tls = None
    insecure = False
    read_token = max_rate = None
    cors = ()

    def address(self) -> tuple[str, int]:
        return "127.0.0.1", 0


@asynccontextmanager
async def device() -> AsyncIterator[tuple[Committed, str]]:
    keys = KeyTable([""])
    committed = Committed(keys)
    server = HttpServer(Listen())
    mount(server, cast("Services", committed), dict(SCHEMAS), keys, VirtualClock(0))
    await server.start()
    try:
        yield committed, server.url
    finally:
        await server.close()
        await asyncio.sleep(0.02)  # for transports whose client went away in the middle
        gc.collect()  # those that have not noticed by now are forgotten here, not in somebody else's test


class Events:
    """A reader of Server-Sent Events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.id = ""

    async def next(self) -> tuple[str, Any]:
        """The next event that a browser would hand to the page: its name and its data."""
        name, data = "message", []
        while True:
            line = (await asyncio.wait_for(self.response.content.readline(), 30)).decode()
            if not line:
                raise EOFError
            word, _, text = line.rstrip("\n").partition(": ")
            if word == "event":
                name = text
            elif word == "data":
                data.append(text)
            elif word == "id":
                self.id = text
            elif not word and data:
                return name, json.loads("\n".join(data))
            elif not word:
                name = "message"

    async def begun(self) -> None:
        """Until it is certain that what is committed now will be told."""
        while not self.id:
            line = await self.response.content.readline()
            if line.startswith(b"id: "):
                self.id = line[4:].decode().strip()

    async def rows(self, count: int) -> list[str]:
        """So many rows, as `commit` takes them."""
        found: list[str] = []
        while len(found) < count:
            name, data = await self.next()
            assert name == "message", data
            found += [f"{row.get('id', '')}{row.get('value', row.get('n')):g}" for row in data["rows"]]
        return found


@asynccontextmanager
async def listening(url: str, question: str = "", last: str = "") -> AsyncIterator[Events]:
    headers = {"Last-Event-ID": last} if last else {}
    async with aiohttp.ClientSession() as http, http.get(f"{url}/api/live{question}", headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        events = Events(response)
        if not last:
            await events.begun()
        try:
            yield events
        finally:
            response.close()
            await asyncio.sleep(0)  # for the transport to notice


# --- rows as they come ----------------------------------------------------------------------------------------------


async def test_rows_of_the_streams_asked_for_as_they_are_committed() -> None:
    async with device() as (committed, url), listening(url, "?streams=valid,totals") as events:
        committed.commit(valid="a1 b2", hot="a9")
        committed.commit(totals="-3")
        row = {"id": "a", "time": "1970-01-01T00:00:00.000Z", "value": 1.0}
        name, data = await events.next()
        assert (name, data["stream"], data["rows"][0]) == ("message", "valid", row)
        assert (await events.next())[1]["stream"] == "totals"


async def test_only_the_keys_and_only_where() -> None:
    async with device() as (committed, url), listening(url, "?streams=valid&key=a&key=c&where=value%3E1") as events:
        committed.commit(valid="a1 a2 b3")
        committed.commit(valid="b4")
        committed.commit(valid="c5 c0")
        assert await events.rows(2) == ["a2", "c5"]


@pytest.mark.parametrize(
    ("question", "status", "said"),
    [
        ("?streams=vaild", 404, 'did you mean "valid"'),
        ("?stream=valid", 400, 'did you mean "streams"'),
        ("?streams=valid&where=valeu%3E1", 400, "where: "),
        ("?streams=valid&where=value", 400, "where: "),
        ("?streams=totals&key=a", 400, "has no key"),
        ("?last_event_id=x", 400, "last_event_id: "),
        ("?streams=valid&where=" + "1" * 2000, 400, "characters"),
    ],
)
async def test_what_cannot_be_asked(question: str, status: int, said: str) -> None:
    async with device() as (_, url), aiohttp.ClientSession() as http:
        for path in ("/api/live", "/api/socket"):
            upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
            headers = upgrade | {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} if path.endswith("socket") else {}
            async with http.get(url + path + question, headers=headers) as response:
                assert response.status == status
                assert said in (await response.json())["detail"]


async def test_fifty_listeners_cost_one_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those with a filter one for each filter."""
    encoded: list[Any] = []
    monkeypatch.setattr(feed, "rows", lambda *of: encoded.append(of) or rows_of(*of))  # type: ignore[func-returns-value]
    async with device() as (committed, url), aiohttp.ClientSession() as http:
        readers = []
        for i in range(50):
            question = "?streams=valid&key=a" if i % 5 == 0 else "?streams=valid"
            readers.append(Events(await http.get(f"{url}/api/live{question}")))
            await readers[-1].begun()
        encoded.clear()
        committed.commit(valid="a1 b2", hot="a7")
        for i, events in enumerate(readers):
            assert await events.rows(1) == (["a1"] if i % 5 == 0 else ["a1", "b2"])
        assert len(encoded) == 2


async def test_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "LISTENERS", 1)
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.05)
    async with device() as (_, url), aiohttp.ClientSession() as http:
        async with listening(url), http.get(f"{url}/api/live") as response:
            assert response.status == 503
            assert "Retry-After" in response.headers

        async def let_in() -> bool:
            """Who has gone is noticed with the next heartbeat."""
            async with http.get(f"{url}/api/live") as response:
                return response.status == 200

        await eventually(let_in, lambda: "the place of one who has gone is not given to another")


async def test_a_heartbeat_brings_the_id_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has seen nothing for a day need not be brought a day of rows when it comes back."""
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.05)
    async with device() as (committed, url), listening(url, "?streams=valid&key=z") as events:
        committed.commit(valid="a1 b2")
        while events.id != "2":
            line = await asyncio.wait_for(events.response.content.readline(), 30)
            if line.startswith(b"id: "):
                events.id = line[4:].decode().strip()


# --- those who come back --------------------------------------------------------------------------------------------


async def test_who_comes_back_misses_nothing_and_sees_nothing_twice() -> None:
    async with device() as (committed, url):
        async with listening(url, "?streams=valid,totals") as events:
            committed.commit(valid="a1 b2")
            assert await events.rows(2) == ["a1", "b2"]
            last = events.id
        committed.commit(valid="a3", totals="-4", hot="a5")
        committed.commit(valid="b6")
        async with listening(url, "?streams=valid,totals", last) as events:
            assert sorted(await events.rows(3)) == ["4", "a3", "b6"]
            committed.commit(valid="a7")
            assert await events.rows(1) == ["a7"]
        async with listening(url, "?streams=valid", "0") as events:
            committed.commit(valid="a8")
            assert await events.rows(6) == ["a1", "b2", "a3", "b6", "a7", "a8"]


async def test_what_is_committed_while_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the history by then, and it is told live: once is enough."""

    async def prepare(self: web.StreamResponse, request: web.BaseRequest) -> Any:
        committed.commit(valid="a2")
        await asyncio.sleep(0.01)
        return await prepared(self, request)

    prepared = web.StreamResponse.prepare
    async with device() as (committed, url):
        committed.commit(valid="a1")
        monkeypatch.setattr(web.StreamResponse, "prepare", prepare)
        async with listening(url, "?streams=valid", "0") as events:
            committed.commit(valid="a3")
            assert await events.rows(3) == ["a1", "a2", "a3"]


async def test_filters_hold_for_what_was_missed() -> None:
    async with device() as (committed, url):
        committed.commit(valid="a1 a2 b3 c4")
        async with listening(url, "?key=a&key=b&streams=valid&where=value%3E1", "0") as events:
            assert await events.rows(2) == ["a2", "b3"]


async def test_wherever_it_stops_it_goes_on_there() -> None:
    """Much to catch up comes in parts, each with its own id; one who goes away after any of them gets the rest."""
    async with device() as (committed, url):
        for _ in range(7):
            committed.commit(valid=700)
        seen, last = 0, "0"
        while seen < 4_900:
            async with listening(url, "?streams=valid", last) as events:
                name, data = await events.next()
                assert name == "message"
                numbers = [row["time"] for row in data["rows"]]
                assert numbers[0] == instant_text(seen * SECOND)
                seen += len(numbers)
                while events.id == "":
                    await events.response.content.readline()
                last = events.id or last
        assert seen == 4_900


async def test_too_much_to_catch_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "CATCH_UP", 3)
    async with device() as (committed, url):
        committed.commit(valid="a1 a2 a3 a4 a5")
        async with listening(url, "?streams=valid", "0") as events:
            assert await events.next() == ("missed", {"rows": 2})
            assert await events.rows(3) == ["a3", "a4", "a5"]


async def test_an_id_of_another_history() -> None:
    """The state folder was emptied: nobody can say what was missed, only that it was."""
    async with device() as (committed, url), listening(url, "?streams=valid", "77") as events:
        assert await events.next() == ("missed", {"rows": None})
        committed.commit(valid="a1")
        assert await events.rows(1) == ["a1"]


# --- those who are slow ---------------------------------------------------------------------------------------------


async def test_a_slow_listener_is_told_what_it_missed_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for it is bounded, others are not held up, and no row is unaccounted for."""
    monkeypatch.setattr(feed, "QUEUE_BYTES", 100_000)
    async with device() as (committed, url), listening(url, "?streams=valid&key=b") as quick:
        host, port = url.removeprefix("http://").split(":")
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
        reader, writer = await asyncio.open_connection(sock=raw, limit=2_000)
        writer.write(b"GET /api/live?streams=valid HTTP/1.0\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"id: 0\n")
        steps = 200
        for _ in range(steps):
            committed.commit(valid=900)
            await asyncio.sleep(0)
        committed.commit(valid="b1")
        assert await quick.rows(1) == ["b1"]
        seen = missed = 0
        rest = b""
        while b'"id":"b"' not in rest:
            rest += await asyncio.wait_for(reader.read(65_536), 30)
            *whole, rest = rest.split(b"\n\n")
            for event in whole:
                seen += event.count(b'"time"')
                if event.startswith(b"event: missed"):
                    missed += json.loads(event.split(b"data: ")[1])["rows"]
            if whole and b'"id":"b"' in whole[-1]:
                break
        assert missed > 0
        assert seen + missed == steps * 900 + 1
        writer.close()
        await writer.wait_closed()


# --- WebSocket ------------------------------------------------------------------------------------------------------


async def test_the_same_over_a_websocket() -> None:
    async with device() as (committed, url), aiohttp.ClientSession() as http:
        committed.commit(valid="a1")
        async with http.ws_connect(f"{url}/api/socket?streams=valid&last_event_id=0") as ws:
            first = await ws.receive_json(timeout=30)
            assert (first["stream"], len(first["rows"]), first["id"]) == ("valid", 1, 1)
            assert await ws.receive_json(timeout=30) == {"id": 1}
            await ws.send_str("who asks?")
            committed.commit(valid="a2")
            assert (await ws.receive_json(timeout=30))["id"] == 2
        async with http.ws_connect(f"{url}/api/socket?last_event_id=9") as ws:
            assert await ws.receive_json(timeout=30) == {"missed": None}
        async with http.get(f"{url}/api/socket") as response:
            assert response.status == 426


async def test_a_page_of_another_site_may_not_open_a_websocket() -> None:
    """Browsers let any page do so, and read the answer."""
    async with device() as (_, url), aiohttp.ClientSession() as http:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await http.ws_connect(f"{url}/api/socket", headers=headers)
            assert error.value.status == 403
        async with http.ws_connect(f"{url}/api/socket", headers={"Origin": url}):
            pass


async def test_a_server_that_closes_ends_its_streams() -> None:
    """It would wait for them until it loses patience."""
    async with aiohttp.ClientSession() as http:
        async with device() as (_, url):
            response = await http.get(f"{url}/api/live")
            ws = await http.ws_connect(f"{url}/api/socket")
            assert await ws.receive_json(timeout=30) == {"id": 0}
            await Events(response).begun()
            ending = asyncio.create_task(response.content.read())
            closed = asyncio.create_task(ws.receive())
            await asyncio.sleep(0)
        assert await ending == b"\n"
        assert (await closed).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
