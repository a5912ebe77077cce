"""The worlds of examples/, each as a user would start it, with real peers: a film, a broker, field devices, who is told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tests.device import Device, free_port
from tests.peers.mosquitto import Mosquitto, needs_mosquitto
from tests.waiting import eventually

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
WORLDS = ("surveillance", "health", "traffic")


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Phone:
    """Whoever is told: keeps the messages of apprise's json://."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @asynccontextmanager
    async def rings(self) -> AsyncIterator[str]:
        async def take(request: web.Request) -> web.Response:
            self.heard += (await request.json())["message"].splitlines()
            return web.Response()

        app = web.Application()
        app.router.add_post("/", take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"json://127.0.0.1:{runner.addresses[0][1]}/"
        finally:
            await runner.cleanup()


class World(Device):
    """An example, run with its state elsewhere and peers of the test."""

    def __init__(self, name: str, folder: Path, **environment: str) -> None:
        port = free_port()
        super().__init__(EXAMPLES / name / "pipeline.toml", port)
        self.environment = {"STATE": str(folder / "state"), "LISTEN": f"127.0.0.1:{port}", **environment}

    async def spawn(self) -> None:
        command = [sys.executable, "-m", "pipeline.command", "run", str(self.file)]
        self.process = await asyncio.create_subprocess_exec(*command, env=os.environ | self.environment)

    async def until(self, http: aiohttp.ClientSession, path: str, holds: Callable[[Any], bool]) -> Any:
        told: Any = None

        async def look() -> bool:
            nonlocal told
            async with http.get(self.url + path) as answer:
                told = await answer.json()
            return holds(told)

        await eventually(look, lambda: told)
        return told


def passed(name: str) -> None:
    command = [sys.executable, "-m", "pipeline.command", "test", str(EXAMPLES / name / "pipeline.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "all passed" in done.stdout


@pytest.mark.parametrize("name", WORLDS)
def test_their_own_tests_pass(name: str) -> None:
    if name == "surveillance":
        pytest.importorskip("cv2")
    if name != "traffic":
        pytest.importorskip("apprise")
    passed(name)


async def test_surveillance(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """Somebody crosses the yard: one alert, its picture, one message; then a hand before the lens."""
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("apprise")
    import numpy as np

    phone = Phone()
    async with phone.rings() as number, World("surveillance", tmp_path, NOTIFY=number) as device:
        await device.start(http)
        told = await device.until(http, "/api/alerts?state=all", lambda told: len(told["alerts"]) == 2)
        assert {(alert["alert"], alert["key"]) for alert in told["alerts"]} == {
            ("intruder", "yard"),
            ("covered", "yard"),
        }
        rows = await device.rows(http, "intruder")
        fired, over = (datetime.fromisoformat(row["time"]) for row in rows)
        assert [row["state"] for row in rows] == ["firing", "cleared"]
        (covered,) = await device.rows(http, "covered")
        # In the film: after 7 s, 14 s and 20 s.
        assert [over - fired, datetime.fromisoformat(covered["since"]) - fired] == [
            timedelta(seconds=7),
            timedelta(seconds=13),
        ]
        shown = await device.until(http, "/api/snapshots?alert=intruder", lambda told: told["snapshots"])
        async with http.get(device.url + shown["snapshots"][0]["url"]) as answer:
            picture = cv2.imdecode(np.frombuffer(await answer.read(), np.uint8), cv2.IMREAD_COLOR)
        # After 7 s whoever walks is at pixel 50: dark clothes before the wall.
        assert picture[150:190, 44:57].mean() < 55 < picture[150:190, 120:160].mean()
        await eventually(lambda: len(phone.heard) >= 3, lambda: phone.heard)
        assert phone.heard[0].startswith("yard: something moves")
        assert any("yard sees nothing" in line for line in phone.heard)
        assert await device.end() == 0


@needs_mosquitto
async def test_health(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """A heart that races, a kill -9 in between, a strap that fell off; who is told, and what the phone page gets."""
    pytest.importorskip("apprise")
    from tests.peers.paho import Paho

    phone = Phone()
    folder = tmp_path / "broker"
    folder.mkdir()
    environment = {"HOLD": "600 ms", "SILENT": "3 s"}
    async with Mosquitto(folder) as broker, phone.rings() as number, Paho(broker.port) as strap:
        world = World("health", tmp_path, BROKER=broker.url, NOTIFY=number, **environment)
        async with world as device:

            async def says(person: str, **values: float) -> None:
                done = strap.client.publish(f"ward/{person}/vitals", json.dumps(values), qos=1)
                await asyncio.to_thread(done.wait_for_publish, 10)

            await device.start(http)
            await broker.logs("Sending SUBACK")
            await says("p1", heart_rate=160, spo2=97)
            await device.until(http, "/data", lambda told: told)
            await device.end(signal.SIGKILL)
            await says("p1", heart_rate=161, spo2=97)  # while it is off the broker keeps what comes
            await says("p2", heart_rate=0)
            await says("p2", heart_rate=72, spo2=98)
            await device.start(http)
            await says("p1", heart_rate=162, spo2=97)
            told = await device.until(http, "/api/alerts?state=firing&alert=heart", lambda told: told["alerts"])
            (alert,) = told["alerts"]
            assert (alert["key"], alert["level"]) == ("p1", "critical")
            async with http.get(f"{device.url}/api/alerts/{alert['id']}/why") as answer:
                why = await answer.json()
            assert why["readings"][0]["heart_rate"] == 160
            async with http.get(device.url + "/") as answer:
                assert "text/html" in answer.headers["Content-Type"]
            await device.until(
                http,
                "/api/alerts?state=firing&alert=lost",
                lambda told: {alert["key"] for alert in told["alerts"]} == {"p1", "p2"},
            )
            await says("p1", heart_rate=80, spo2=97)
            await device.until(http, "/api/alerts?state=firing&alert=heart", lambda told: not told["alerts"])
            await eventually(
                lambda: (
                    any("p1: 16" in line for line in phone.heard) and any("reading of p2" in x for x in phone.heard)
                ),
                lambda: phone.heard,
            )
            values = [row["heart_rate"] for row in await device.rows(http, "valid") if row["person"] == "p1"]
            assert values == [160, 161, 162, 80]
            assert await device.end() == 0


async def test_traffic(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """Counters give a plan, the controller obeys; a loop that breaks, and a stop, bring back the fixed plan."""
    pytest.importorskip("pymodbus")
    from tests.modbus_peer import Plant

    loops, controller = Plant(1, 2), Plant(1, 2)
    counted = [0.0, 0.0]

    async def drive() -> None:
        while True:
            for unit, a_second in ((0, 0.6), (1, 0.1)):
                counted[unit] += a_second / 10
                loops.put(unit + 1, 0, struct.pack(">IH", 1_000 + round(counted[unit]), 120))
            await asyncio.sleep(0.1)

    def green() -> list[int]:
        return [controller.registers(unit, 100)[0] for unit in (1, 2)]

    async with loops.over_tcp() as bus, controller.over_tcp() as plan:
        driving = asyncio.create_task(drive())
        settings = {"BUS": bus, "CONTROLLER": plan, "EVERY": "100 ms", "CYCLE": "5 s", "SILENT": "8 s"}
        async with World("traffic", tmp_path, **settings) as device:
            await device.start(http)
            await eventually(lambda: green() == [30, 30], green)  # until there is a plan
            await device.until(http, "/api/streams/plan/rows", lambda told: len(told["rows"]) >= 4)
            await eventually(lambda: 60 >= green()[0] > 30 and green()[1] < 30, green)
            beats = controller.registers(1, 90)
            loops.silent.add(2)  # the loop of the east breaks
            await device.until(http, "/api/alerts?state=firing&alert=broken", lambda told: told["alerts"])
            await eventually(lambda: green()[1] == 30 and green()[0] > 30, green)
            assert controller.registers(1, 90) != beats
            assert await device.end() == 0
            assert green() == [30, 30]
        driving.cancel()
