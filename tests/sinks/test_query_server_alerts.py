"""The routes of alerts, of a real process over real sockets: what is told of them, and what people do survives a kill."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.device import Device, free_port
from tests.peer import serving, unpacked

PIPELINE = """
[pipeline]
name = "greenhouse"
state = "state"
durability = "process"
disorder = "0 s"

[server]
listen = "127.0.0.1:{port}"

[sources.house]
type = "http"
path = "/data"
key = "id"
time = "ts"
fields = {{ temperature = "float", humidity = "float?" }}

[operators.hot]
type = "alert"
input = "house"
when = "temperature > 30"
clear = "temperature < 28"

[operators.damp]
type = "alert"
input = "house"
when = "humidity > 80"

[operators.both]
type = "filter"
inputs = ["hot", "damp"]
where = "state != ''"

[sinks.local]
type = "query_server"
inputs = ["house", "both", "hot"]

[sinks.cloud]
type = "cloud"
inputs = ["both"]
url = "http://127.0.0.1:{cloud}/api/sync"
batch = {{ rows = 20, wait = "10 ms" }}
"""


class House:
    """The device, its cloud, and somebody who asks."""

    def __init__(self, device: Device, http: aiohttp.ClientSession, sent: list[dict[str, Any]]) -> None:
        self.device = device
        self.http = http
        self.sent = sent  # rows that the cloud has taken

    async def reads(self, key: str, second: int, temperature: float, humidity: float | None = None) -> None:
        reading = {"id": key, "ts": 1_769_860_800 + second, "temperature": temperature, "humidity": humidity}
        async with self.http.post(self.device.url + "/data", json=reading) as answer:
            assert answer.status == 201, await answer.text()

    async def get(self, path: str, status: int = 200) -> Any:
        async with self.http.get(self.device.url + path) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json(content_type=None)

    async def post(self, path: str, body: Any, status: int = 200) -> Any:
        async with self.http.post(self.device.url + path, data=json.dumps(body)) as answer:
            assert answer.status == status, await answer.text()
            wanted = "application/json" if status == 200 else "application/problem+json"
            assert answer.content_type == wanted
            return await answer.json(content_type=None)

    async def alerts(self, question: str = "") -> list[Any]:
        found: list[Any] = (await self.get(f"/api/alerts{question}"))["alerts"]
        return found

    async def kill(self) -> None:
        await self.device.end(signal.SIGKILL)
        await self.device.start(self.http)

    async def delivered(self, rows: int) -> None:
        """Wait until the cloud has so many, and the device knows."""
        while len(self.sent) < rows or any(sink["waiting"] for sink in (await self.get("/api/delivery"))["sinks"]):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def house(folder: Path, text: str = PIPELINE) -> AsyncIterator[House]:
    sent: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        rows = [json.loads(line) for line in (await unpacked(request)).splitlines()]
        if any(row.get("id") == "refused" for row in rows):
            return web.Response(status=422, text="not that one")
        sent.extend(rows)
        return web.Response()

    async with serving(take) as cloud, aiohttp.ClientSession() as http:
        port = free_port()
        file = folder / "pipeline.toml"
        file.write_text(text.format(port=port, cloud=cloud))
        async with Device(file, port) as device:
            await device.start(http)
            yield House(device, http, sent)


async def test_alerts_in_one_stream_do_not_hide_each_other(tmp_path: Path) -> None:
    """Nor does a stream beside it tell the same alert twice; a kill changes nothing."""
    async with house(tmp_path) as h:
        await h.reads("s1", 0, 31.0, 90.0)
        await h.reads("s1", 1, 27.0, 90.0)  # `hot` is over, `damp` goes on
        await h.reads("s2", 2, 35.0)
        before = await h.alerts()
        assert [(a["alert"], a["key"], a["state"], a["stream"]) for a in before] == [
            ("hot", "s2", "firing", "both"),
            ("hot", "s1", "cleared", "both"),
            ("damp", "s1", "firing", "both"),
        ]
        assert len({a["id"] for a in before}) == 3
        assert [a["alert"] for a in await h.alerts("?state=firing&key=s1")] == ["damp"]
        assert [a["key"] for a in await h.alerts("?alert=hot&state=cleared")] == ["s1"]
        await h.delivered(4)
        await h.kill()
        after = await h.alerts()
        assert [a | {"delivery": 0} for a in after] == [a | {"delivery": 0} for a in before]
        assert await h.device.end() == 0  # with a checkpoint
        await h.device.start(h.http)
        assert await h.alerts() == after


async def test_the_rows_of_one_alert_and_what_became_of_each(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        await h.reads("s1", 0, 31.0)
        await h.reads("s1", 1, 20.0)
        await h.delivered(2)
        (over,) = await h.alerts()
        await h.reads("s1", 2, 40.0)
        await h.delivered(3)
        await h.reads("refused", 3, 50.0)
        await h.delivered(3)
        refused, again = await h.alerts()
        assert refused["delivery"] == {"cloud": "refused"}
        assert again["since"] == again["time"] == "2026-01-31T12:00:02.000Z"
        told = await h.get(f"/api/alerts/{over['id']}")
        assert [(row["state"], row["time"][17:19], row["delivery"]) for row in told["rows"]] == [
            ("firing", "00", {"cloud": "sent"}),
            ("cleared", "01", {"cloud": "sent"}),
        ]
        assert told["alert"] == told["rows"][-1] == over
        for unknown in ("1", "W10", "bnVsbA", over["id"] + "x", over["id"][:-3]):
            assert "no such alert" in (await h.get(f"/api/alerts/{unknown}", 404))["detail"]
        await h.get(f"/api/alerts/{over['id']}?limit=1", 400)


async def test_an_acknowledgement_survives_a_kill(tmp_path: Path) -> None:
    """It is of this alert: the next one of the key has none."""
    async with house(tmp_path) as h:
        await h.reads("s1", 0, 31.0)
        (alert,) = await h.alerts()
        assert alert["acknowledged"] is None
        path = f"/api/alerts/{alert['id']}/acknowledge"
        await h.post(path, {"by": "ann", "note": "on my way"})
        told = await h.post(path, {"by": "bob"})  # the last one to say so
        await h.kill()
        (alert,) = await h.alerts()
        assert alert["acknowledged"] == told["alert"]["acknowledged"]
        assert (alert["acknowledged"]["by"], alert["acknowledged"]["note"]) == ("bob", "")
        await h.reads("s1", 1, 20.0)
        await h.reads("s1", 2, 35.0)
        (new,) = await h.alerts()
        assert (new["acknowledged"], new["id"] != alert["id"]) == (None, True)
        for body, parameter in (
            ({}, "by"),
            ({"by": ""}, "by"),
            ({"by": 7}, "by"),
            ({"by": "x" * 1001}, "by"),
            ({"by": "ann", "note": ["x"]}, "note"),
            ({"by": "ann", "notes": "x"}, "notes"),
        ):
            assert (await h.post(path, body, 400))["parameter"] == parameter
        assert "the body is an object" in (await h.post(path, ["ann"], 400))["detail"]
        await h.post("/api/alerts/W10/acknowledge", {"by": "ann"}, 404)


async def test_a_silenced_alert_is_recorded_and_not_delivered(tmp_path: Path) -> None:
    """From the answer on, over a kill, until it is ended; other keys and other alerts are heard."""
    async with house(tmp_path) as h:
        said = {"alert": "hot", "key": "s1", "for": "1 h", "by": "ann", "note": "being mended"}
        (silence,) = (await h.post("/api/alerts/silence", said))["silences"]
        assert (silence["alert"], silence["key"], silence["by"]) == ("hot", "s1", "ann")
        await h.kill()
        await h.reads("s1", 0, 31.0, 90.0)
        await h.reads("s2", 1, 32.0)
        await h.delivered(2)
        assert {(row["alert"], row["id"]) for row in h.sent} == {("damp", "s1"), ("hot", "s2")}
        s2, damp, hot = sorted(await h.alerts(), key=lambda a: (a["key"] == "s1", a["alert"]))
        assert hot["silenced"] == silence == (await h.get("/api/alerts"))["silences"][0]
        assert (s2["silenced"], damp["silenced"]) == (None, None)
        assert [a["delivery"]["cloud"] for a in (hot, damp, s2)] == ["silenced", "sent", "sent"]
        assert len(await h.device.rows(h.http, "hot")) == 2  # both are recorded
        assert (await h.post("/api/alerts/silence", said | {"for": "0 s"}))["silences"] == []
        await h.reads("s1", 2, 20.0)
        await h.delivered(3)
        assert (h.sent[-1]["alert"], h.sent[-1]["state"], h.sent[-1]["id"]) == ("hot", "cleared", "s1")


async def test_a_silence_of_every_key_ends_by_itself(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        await h.post("/api/alerts/silence", {"alert": "hot", "for": "1500 ms", "by": "ann"})
        await h.reads("s1", 0, 31.0)
        while (await h.get("/api/alerts"))["silences"]:
            await asyncio.sleep(0.05)
        await h.reads("s2", 1, 31.0)
        await h.delivered(1)
        assert [row["id"] for row in h.sent] == ["s2"]
        for body, status, parameter in (
            ({"for": "1 h", "by": "ann"}, 400, "alert"),
            ({"alert": "hott", "for": "1 h", "by": "ann"}, 404, "alert"),
            ({"alert": "house", "for": "1 h", "by": "ann"}, 404, "alert"),
            ({"alert": "hot", "by": "ann"}, 400, "for"),
            ({"alert": "hot", "for": "an hour", "by": "ann"}, 400, "for"),
            ({"alert": "hot", "for": 60, "by": "ann"}, 400, "for"),
            ({"alert": "hot", "for": "11 y", "by": "ann"}, 400, "for"),
            ({"alert": "hot", "for": "-1 h", "by": "ann"}, 400, "for"),
            ({"alert": "hot", "for": "1 h"}, 400, "by"),
            ({"alert": "hot", "key": 1, "for": "1 h", "by": "ann"}, 400, "key"),
            ({"alert": "hot", "keys": "s1", "for": "1 h", "by": "ann"}, 400, "keys"),
        ):
            problem = await h.post("/api/alerts/silence", body, status)
            assert problem["parameter"] == parameter, problem
        assert (
            'did you mean "hot"'
            in (await h.post("/api/alerts/silence", {"alert": "hott", "for": "1 h", "by": "a"}, 404))["detail"]
        )


async def test_what_is_not_json(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        for body in (b"", b"{", b"\xff", b'{"by": "ann"'):
            async with h.http.post(h.device.url + "/api/alerts/silence", data=body) as answer:
                assert answer.status == 400
                assert "not JSON" in (await answer.json(content_type=None))["detail"]
