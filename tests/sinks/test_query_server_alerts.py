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


async def test_page_by_page(tmp_path: Path) -> None:
    """Each alert once, the newest first; those of one time, too."""
    async with house(tmp_path) as h:
        for i in range(5):
            await h.reads(f"s{i}", i // 2, 31.0, 90.0)
        whole = await h.get("/api/alerts?state=firing")
        assert (whole["total"], whole["next"], len(whole["alerts"])) == (10, None, 10)
        found, path = [], "/api/alerts?limit=3&state=firing"
        while path is not None:
            page = await h.get(path)
            assert page["total"] == 10
            assert len(page["alerts"]) <= 3
            found += page["alerts"]
            path = page["next"]
        assert [a["id"] for a in found] == [a["id"] for a in whole["alerts"]]
        assert [a["time"] for a in found] == sorted((a["time"] for a in found), reverse=True)
        id_ = found[0]["id"]
        for cursor in (
            "",
            "1",
            id_,
            f"x.{id_}",
            f"1.{id_}x",
            f"99999999999999999999.{id_}",
            f"9223372036854775807.{id_}",
        ):
            assert (await h.get(f"/api/alerts?cursor={cursor}", 400))["parameter"] == "cursor"
        for limit in ("0", "x", "-1", "100001"):
            assert (await h.get(f"/api/alerts?limit={limit}", 400))["parameter"] == "limit"


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


async def test_what_is_not_json(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        for body in (b"", b"{", b"\xff", b'{"by": "ann"'):
            async with h.http.post(h.device.url + "/api/alerts/silence", data=body) as answer:
                assert answer.status == 400
                assert "not JSON" in (await answer.json(content_type=None))["detail"]


# --- why, and why not ----------------------------------------------------------------------------------------------

WHY = """
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
when = "temperature > 30 and not humidity < 20"
clear = "temperature < 28"
for = "10 s"

[operators.jump]
type = "alert"
input = "house"
when = "temperature - previous(temperature) > 5"

[operators.rising]
type = "alert"
input = "house"
when = "temperature_rate >= 2"
rate = {{ field = "temperature" }}
inhibit = "jump"

[operators.quiet]
type = "alert"
input = "hidden"
when = "temperature > 30"

[operators.hidden]
type = "filter"
input = "house"
where = "temperature > 0"

[operators.many]
type = "alert"
input = "house"
when = "temperature > 90"
group = {{ within = "1 s" }}

[sources.mast]
type = "http"
path = "/mast"
time = "ts"
fields = {{ wind = "float" }}

[operators.gale]
type = "alert"
input = "mast"
when = "wind > 20"

[sinks.local]
type = "query_server"
inputs = ["house", "mast", "hot", "jump", "rising", "quiet", "many", "gale"]
"""


async def test_why_an_alert_was_raised(tmp_path: Path) -> None:
    """The readings from `since` to the one that its row shows, and what the last of them made of the condition; the same
    when much has happened since, and after a kill."""
    async with house(tmp_path, WHY) as h:
        for second, temperature in enumerate((20.0, 31.0, 32.0)):
            await h.reads("s1", second * 6, temperature, 50.0)
        await h.reads("s1", 16, 33.5, 55.0)
        await h.reads("s2", 16, 99.0)
        (alert,) = await h.alerts("?alert=hot&key=s1")
        before = await h.get(f"/api/alerts/{alert['id']}/why")
        await h.reads("s1", 30, 10.0, 5.0)
        await h.kill()
        told = await h.get(f"/api/alerts/{alert['id']}/why")
        assert told == before
        assert told["alert"] == alert
        shown = [(row["stream"], row["temperature"]) for row in told["readings"]]
        assert shown == [("house", 31.0), ("house", 32.0)]  # at 16 s `for` was over: that reading is behind it
        (level,) = told["operator"]["levels"]
        assert (level["level"], level["for"], level["keep"]) == ("warning", "10 s", "0 s")
        assert level["when"] == {
            "text": "temperature > 30 and not humidity < 20",
            "is": True,
            "parts": [
                {"text": "temperature > 30", "is": True, "wanted": True, "left": 32.0, "right": 30, "distance": 2.0},
                {"text": "humidity < 20", "is": False, "wanted": False, "left": 50.0, "right": 20, "distance": 30.0},
            ],
        }
        assert (level["clear"]["is"], told["hint"]) == (False, None)
        (jump,) = await h.alerts("?alert=jump&key=s1")
        why = await h.get(f"/api/alerts/{jump['id']}/why")
        part = why["operator"]["levels"][0]["when"]["parts"][0]
        assert (part["left"], part["right"], part["is"]) == (11.0, 5, True)  # from the reading before `since`
        (quiet,) = await h.alerts("?alert=quiet&key=s2")
        why = await h.get(f"/api/alerts/{quiet['id']}/why")
        assert why["readings"] == []
        assert '"hidden": not recorded; add it to the `inputs` of a query_server' in why["hint"]
        await h.get("/api/alerts/W10/why", 404)


async def test_why_an_alert_does_not_fire(tmp_path: Path) -> None:
    async with house(tmp_path, WHY) as h:

        async def why_not(alert: str, key: str = "s1") -> Any:
            return await h.get(f"/api/alerts/why-not?alert={alert}&key={key}")

        await h.reads("s1", 0, 28.5, 50.0)
        told = await why_not("hot")
        assert (told["firing"], told["reading"]["temperature"], told["levels"][0]["state"]) == (False, 28.5, "off")
        assert told["levels"][0]["when"]["parts"][0]["distance"] == 1.5
        assert told["because"] == (
            "`temperature > 30 and not humidity < 20` is false: `temperature > 30` is 1.5 away (28.5 and 30)"
        )
        await h.reads("s1", 1, 31.0)
        told = await why_not("hot")
        assert told["levels"][0]["when"]["is"] is None
        assert told["because"].endswith("`humidity < 20` has no answer, since a value is missing")
        await h.reads("s1", 2, 31.5, 50.0)
        told = await why_not("hot")
        assert (told["levels"][0]["state"], told["levels"][0]["until"]) == ("waits", "2026-01-31T12:00:12.000Z")
        assert told["because"].startswith(
            "its condition holds since 2026-01-31T12:00:02.000Z; if it goes on, it fires at"
        )
        await h.kill()
        assert await why_not("hot") == told
        await h.reads("s1", 3, 40.0, 50.0)
        told = await why_not("rising")
        assert told["inhibit"] == {"jump": True}
        assert told["because"] == "its condition holds, but it is not raised while jump fires for this key"
        await h.post("/api/alerts/silence", {"alert": "jump", "for": "1 h", "by": "ann"})
        told = await why_not("jump")
        assert (told["firing"], told["silenced"]["by"]) == (True, "ann")
        assert told["because"] == "it fires, since 2026-01-31T12:00:03.000Z"
        told = await why_not("quiet")
        assert (told["reading"], "not recorded" in told["hint"]) == (None, True)
        for question, status, parameter in (
            ("", 400, "alert"),
            ("?alert=hot", 400, "key"),
            ("?alert=hot&key=s7", 404, "key"),
            ("?alert=hidden&key=s1", 404, "alert"),
            ("?alert=hot&key=s1&at=now", 400, "at"),
        ):
            assert (await h.get(f"/api/alerts/why-not{question}", status))["parameter"] == parameter


async def test_of_a_group_and_without_a_key(tmp_path: Path) -> None:
    async with house(tmp_path, WHY) as h:
        await h.reads("s1", 0, 99.0)
        await h.reads("s1", 9, 99.0)
        (many,) = await h.alerts("?alert=many")
        why = await h.get(f"/api/alerts/{many['id']}/why")
        assert (why["alert"]["keys"], why["operator"], why["readings"]) == ("s1", None, [])
        assert "why-not" in why["hint"]
        told = await h.get("/api/alerts/why-not?alert=many&key=s1")
        assert (told["group"], told["firing"]) == (True, True)
        for second, wind in enumerate((12.0, 24.0)):
            reading = {"ts": 1_769_860_800 + second, "wind": wind}
            async with h.http.post(h.device.url + "/mast", json=reading) as answer:
                assert answer.status == 201, await answer.text()
        (gale,) = await h.alerts("?alert=gale")
        why = await h.get(f"/api/alerts/{gale['id']}/why")
        assert [row["wind"] for row in why["readings"]] == [24.0]
        told = await h.get("/api/alerts/why-not?alert=gale")
        assert (told["firing"], told["key"], told["reading"]["wind"]) == (True, None, 24.0)
