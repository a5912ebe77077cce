"""examples/greenhouse.toml: its tests pass, and with a real mosquitto it does what it says, end to end."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pipeline.run import look
from pipeline.trial.compare import differences
from pipeline.trial.life import run
from pipeline.trial.tests import checked
from tests.device import Device, free_port
from tests.peers.mosquitto import Mosquitto, needs_mosquitto
from tests.peers.paho import Paho

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "greenhouse.toml"


def test_its_tests_pass() -> None:
    config, _, blocks = checked(EXAMPLE)
    assert len(blocks) == 2
    for block in blocks:
        assert differences(run(config, block)) == []


def test_with_a_token_it_is_good_once_the_token_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(EXAMPLE.read_text().replace("# token", "token"))
    monkeypatch.delenv("HEADWATER_TOKEN", raising=False)
    config, graph = look(file)
    assert ["HEADWATER_TOKEN is not set" in problem.text for problem in config.problems + graph.problems] == [True]
    monkeypatch.setenv("HEADWATER_TOKEN", "secret")
    config, graph = look(file)
    assert config.problems + graph.problems == []


@needs_mosquitto
async def test_a_hot_sensor_fires_here_and_shows_up_in_the_house(tmp_path: Path) -> None:
    """Sensors publish to the broker; the alert is on the device and, retained, at the broker, with what announces it."""
    port = free_port()
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path))
        file = tmp_path / "pipeline.toml"
        text = EXAMPLE.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{port}")
        file.write_text(text.replace("${MQTT_URL:-mqtt://127.0.0.1:1883}", broker.url).replace('"../var', '"var'))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        device = await stack.enter_async_context(Device(file, port))
        await device.start(http)
        await broker.logs("Sending SUBACK to headwater-greenhouse-greenhouse")
        paho = await stack.enter_async_context(Paho(broker.port))
        await paho.subscribe("greenhouse/#")
        now = time.time_ns() // 1_000_000
        readings = [("s1", -2_000, 25.0), ("s2", -2_000, 21.0), ("s1", 0, 31.5)]
        await paho.publish(
            [
                (f"sensors/{name}/reading", json.dumps({"sensor_id": name, "ts": now + at, "temperature": value}))
                for name, at, value in readings
            ]
        )
        alerts: list[dict[str, Any]] = []
        while not alerts:
            async with http.get(device.url + "/api/alerts?state=firing") as answer:
                alerts = (await answer.json())["alerts"]
            await asyncio.sleep(0.02)
        assert [alert["message"] for alert in alerts] == ["s1 is at 31.5 °C"]
        assert json.loads(await paho.about("greenhouse/s1/overheat"))["state"] == "firing"
        async with Paho(broker.port) as home_assistant:
            await home_assistant.subscribe("homeassistant/#")
            payload = await home_assistant.about("homeassistant/binary_sensor/greenhouse_s1_overheat_state/config")
        assert json.loads(payload)["state_topic"] == "greenhouse/s1/overheat"
        assert await device.end() == 0
