"""Silences of `query_server`: what is said of an alert meanwhile is recorded, and goes to no one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.sinks.test_query_server_alerts import house


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
        await h.post("/api/alerts/silence", {"alert": "hot", "for": "5 s", "by": "ann"})
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


async def test_a_dead_letter_of_a_silenced_alert_stays_silent(tmp_path: Path) -> None:
    """Replayed while the silence holds it is not sent: it ends as `silenced`, and counts as that."""
    async with house(tmp_path) as h:
        await h.reads("refused", 0, 50.0)
        await h.delivered(0)
        (letter,) = (await h.get("/api/dead"))["dead"]
        assert (letter["node"], letter["kind"]) == ("cloud", "rejected")
        await h.post("/api/alerts/silence", {"alert": "hot", "key": "refused", "for": "1 h", "by": "ann"})
        (sink,) = (await h.get("/api/delivery"))["sinks"]
        assert (sink["failed"], sink["silenced"]) == (1, 0)
        assert await h.post("/api/dead/replay", {"ids": [letter["id"]]}) == {"replayed": 1, "failed": []}
        (alert,) = await h.alerts()
        assert alert["delivery"] == {"cloud": "silenced"}
        (sink,) = (await h.get("/api/delivery"))["sinks"]
        assert (sink["waiting"], sink["sent"], sink["failed"], sink["silenced"]) == (0, 0, 1, 1)
        assert (await h.get("/api/dead"))["dead"] == []
        await h.reads("s2", 1, 50.0)
        await h.delivered(1)
        assert [row["id"] for row in h.sent] == ["s2"]
