"""The mqtt sink: what it publishes where, against a broker that does what the test says and, for the rest, a real mosquitto."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.broker import WillSettings
from pipeline.component import Batch, SinkContext
from pipeline.frame import NO_PROGRESS, SECOND, Field, Frame, KeyTable, Schema, column
from pipeline.mqtt.packets import Ack, Publish
from pipeline.mqtt.session import MqttError
from pipeline.quantity import Secret, duration
from pipeline.run import look
from pipeline.thin import thin
from sinks.mqtt import Mqtt, MqttSettings
from sinks.mqtt.discovery import HomeAssistantSettings
from tests.peers.mosquitto import Mosquitto, needs_mosquitto
from tests.peers.paho import Paho
from tests.pipeline.mqtt.stub import Stub, stub
from tests.waiting import eventually

START = 1_700_000_000 * SECOND
SCHEMAS = {
    "climate": Schema(
        "sensor", {"value": Field("float", True), "door": Field("bool", True), "mode": Field("string", True)}
    )
}
ALERTS = {"hot": Schema("sensor", {"state": Field("string"), "level": Field("string")}, "alerts")}


def made(url: str = "mqtt://h", schemas: dict[str, Schema] = SCHEMAS, **more: Any) -> Mqtt:
    context = SinkContext("house", schemas, KeyTable(["a", "b/c", "+"]), pipeline="plant")
    sink = Mqtt(MqttSettings(url=url, **more), context)
    assert context.problems == []
    return sink


def climate(*given: tuple[int, int, float | None], mode: str | None = None) -> Batch:
    """Rows of (key, second, value)."""
    n = len(given)
    columns = {
        "value": column("float", [value for _, _, value in given]),
        "door": column("bool", [True] * n),
        "mode": column("string", [mode] * n),
    }
    keys = np.array([key for key, _, _ in given], np.int32)
    times = np.array([START + second * SECOND for _, second, _ in given], np.int64)
    return Batch("key", [("climate", Frame(times, keys, np.arange(n, dtype=np.int64), columns, NO_PROGRESS))])


@asynccontextmanager
async def answering(stack: AsyncExitStack, broker: Stub, *codes: int) -> AsyncIterator[list[Publish]]:
    """What is published, while the block runs; answered with these codes in turn, then with 0."""
    import asyncio

    took: list[Publish] = []
    left = list(codes)

    async def answer() -> None:
        while True:
            packet = await broker.queue.get()
            if isinstance(packet, Publish):
                took.append(packet)
                if packet.qos:
                    broker.send(Ack(4, packet.id, left.pop(0) if left else 0))

    task = asyncio.create_task(answer())
    try:
        yield took
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def published(
    sink_: dict[str, Any], *batches: Batch, codes: tuple[int, ...] = ()
) -> tuple[list[Publish], list[Any]]:
    """What the sink publishes of these, and how each delivery ended."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        took = await stack.enter_async_context(answering(stack, broker, *codes))
        sink = made(f"mqtt://127.0.0.1:{broker.port}", **sink_)
        outcomes = [await sink.deliver(batch) for batch in batches]
        await sink.close()
        assert len(broker.connects) == 1
    return took, outcomes


async def test_a_row_is_a_message_as_json() -> None:
    """Without what is missing; its topic is filled from it."""
    batch = climate((0, 0, 21.5), (1, 1, None))
    took, (outcome,) = await published({"topic": "plant/{sensor}/{stream}/{door}"}, batch)
    assert outcome.delivered
    assert not outcome.rejected
    assert [(p.topic, p.qos, p.retain) for p in took] == [
        ("plant/a/climate/true", 1, False),
        ("plant/b/c/climate/true", 1, False),  # a key may have levels of its own
    ]
    assert [json.loads(p.payload) for p in took] == [
        {"stream": "climate", "sensor": "a", "time": "2023-11-14T22:13:20.000Z", "value": 21.5, "door": True},
        {"stream": "climate", "sensor": "b/c", "time": "2023-11-14T22:13:21.000Z", "door": True},
    ]


async def test_a_bare_value_is_sent_where_there_is_one() -> None:
    batch = climate((0, 0, 21.5), (0, 1, None), mode="low é")
    took, _ = await published({"value": "value", "topic": "{key}/v"}, batch)
    assert [(p.topic, p.payload) for p in took] == [("a/v", b"21.5")]
    took, _ = await published({"value": "mode", "topic": "{key}"}, batch)
    assert [p.payload for p in took] == ["low é".encode()] * 2
    took, _ = await published({"value": "door", "topic": "{key}"}, batch)
    assert [p.payload for p in took] == [b"true"] * 2


async def test_an_older_row_does_not_take_the_place_of_what_is_retained() -> None:
    """After an outage what comes now goes before what was left behind."""
    took, _ = await published(
        {"retain": True}, climate((0, 5, 1.0), (0, 4, 2.0)), climate((0, 3, 3.0), (1, 3, 4.0), (0, 5, 5.0))
    )
    assert [(json.loads(p.payload)["value"], p.retain) for p in took] == [
        (1.0, True),
        (2.0, False),
        (3.0, False),
        (4.0, True),
        (5.0, True),
    ]


async def test_what_is_refused_for_good_is_a_dead_letter_and_the_others_are_delivered() -> None:
    batch = climate((0, 0, 1.0), (2, 1, 2.0), (0, 2, 3.0), (1, 3, 4.0))
    took, (outcome,) = await published({}, batch, codes=(0, 0x87, 0x95))
    assert outcome.delivered
    assert dict(outcome.rejected) == {
        1: 'the topic "headwater/climate/+" has a wildcard or a NUL in it',
        2: "not authorized",
        3: "the packet is too large",
    }
    assert len(took) == 3


async def test_what_may_pass_is_tried_again() -> None:
    _, (outcome,) = await published({}, climate((0, 0, 1.0)), codes=(0x97,))
    assert not outcome.delivered
    assert not outcome.refused
    assert outcome.reason.endswith(": a quota is exceeded")


async def test_a_silent_broker_is_given_up() -> None:
    """And its connection with it."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        sink = made(f"mqtt://127.0.0.1:{broker.port}", timeout=duration("1 s"))
        outcome = await sink.deliver(climate((0, 0, 1.0)))
        assert outcome.reason == f"mqtt://127.0.0.1:{broker.port} did not answer within 1 s"
        assert not outcome.delivered

        async def delivered() -> bool:
            """On a loaded machine an answer may be late here, too."""
            return (await sink.deliver(climate((0, 0, 1.0)))).delivered

        async with answering(stack, broker) as took:
            await eventually(delivered)
            assert len(took) >= 1
        assert len(broker.connects) >= 2
        await sink.close()


async def test_whether_we_are_there_is_told() -> None:
    will = WillSettings(topic="us", online="yes", offline="no")
    took, _ = await published({"will": will}, climate((0, 0, 1.0)))
    assert [(p.topic, p.payload, p.retain) for p in (took[0], took[-1])] == [("us", b"yes", True), ("us", b"no", True)]


async def test_a_broker_that_is_away_is_an_error_of_the_network() -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        sink = made(f"mqtt://127.0.0.1:{broker.port}")
        async with answering(stack, broker):
            await sink.deliver(climate((0, 0, 1.0)))
        broker.hang_up()
        assert sink._client is not None
        await sink._client.over()
        async with answering(stack, broker):
            assert (await sink.deliver(climate((0, 0, 1.0)))).delivered
        await sink.close()
    with pytest.raises(OSError):
        await sink.deliver(climate((0, 0, 1.0)))
    assert issubclass(MqttError, OSError)


async def test_rows_that_were_thinned_are_sent_as_they_are() -> None:
    ((stream, frame),) = climate(*((0, i, float(i)) for i in range(8))).parts
    thinned = thin(frame, SCHEMAS["climate"], 1)
    took, (outcome,) = await published({}, Batch("key", [(stream, thinned)]))
    assert outcome.delivered
    assert json.loads(took[0].payload)["thinned"] == 8


# --- Home Assistant ---


async def test_home_assistant_is_told_of_every_key_and_field_once_a_connection() -> None:
    ha = HomeAssistantSettings(units={"value": "°C"}, classes={"value": "temperature"})
    took, _ = await published({"home_assistant": ha}, climate((0, 0, 1.0), (1, 0, 2.0)), climate((0, 1, 3.0)))
    configs = {p.topic: json.loads(p.payload) for p in took if p.topic.startswith("homeassistant/")}
    assert [p.retain for p in took] == [True] * len(took)
    of_a = [topic for topic, config in configs.items() if config["device"]["name"] == "a"]
    assert of_a == [
        "homeassistant/sensor/plant_a_climate_value/config",
        "homeassistant/binary_sensor/plant_a_climate_door/config",
        "homeassistant/sensor/plant_a_climate_mode/config",
    ]
    assert len(configs) == 6
    assert sum(p.topic in configs for p in took) == 6  # once each
    value = configs[of_a[0]]
    assert value == {
        "name": "climate value",
        "unique_id": "headwater_plant_a_climate_value",
        "object_id": "plant_a_climate_value",
        "device_class": "temperature",
        "state_class": "measurement",
        "unit_of_measurement": "°C",
        "value_template": '{{ value_json["value"] | default(this.state) }}',
        "state_topic": "headwater/climate/a",
        "availability_topic": "headwater/plant/house",
        "payload_available": "online",
        "payload_not_available": "offline",
        "device": {"identifiers": ["headwater_plant_a"], "name": "a", "manufacturer": "Headwater"},
    }
    assert "state_class" not in configs[of_a[2]]
    assert {config["state_topic"] for config in configs.values()} <= {p.topic for p in took}
    assert len({config["unique_id"] for config in configs.values()}) == 6
    assert all(set(topic.split("/")[2]) <= set("abcdefghijklmnopqrstuvwxyz0123456789_") for topic in configs)


async def test_over_a_new_connection_all_is_announced_anew() -> None:
    """The broker may have lost what it kept."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        took = await stack.enter_async_context(answering(stack, broker))
        sink = made(f"mqtt://127.0.0.1:{broker.port}", home_assistant=HomeAssistantSettings())
        for _ in range(2):
            await sink.deliver(climate((0, 0, 1.0)))
            broker.hang_up()
            assert sink._client is not None
            await sink._client.over()
    announced = [p.topic for p in took if p.topic.startswith("homeassistant/")]
    assert len(announced) == 6
    assert len(set(announced)) == 3


async def test_an_alert_is_a_binary_sensor() -> None:
    columns = {"state": column("string", ["firing"]), "level": column("string", ["warning"])}
    one = np.zeros(1, np.int64)
    frame = Frame(one + START, one.astype(np.int32), one, columns, NO_PROGRESS)
    batch = Batch("key", [("hot", frame)])
    took, _ = await published({"home_assistant": HomeAssistantSettings(), "schemas": ALERTS}, batch)
    (config,) = [json.loads(p.payload) for p in took if p.topic.startswith("homeassistant/")]
    assert config["device_class"] == "problem"
    assert config["value_template"] == "{{ 'ON' if value_json.state == 'firing' else 'OFF' }}"


# --- settings ---


@pytest.mark.parametrize(
    ("more", "setting", "said"),
    [
        ({"topic": "a/{valeu}"}, "topic", '"valeu" is not a field of the input (did you mean "value"?)'),
        ({"topic": "a/+"}, "topic", '"a/+" is not a topic'),
        ({"topic": ""}, "topic", '"" is not a topic'),
        ({"value": "nothing"}, "value", '"nothing" is not a field of any input'),
        ({"timeout": duration("0 s")}, "timeout", "must be more than"),
        ({"home_assistant": HomeAssistantSettings(), "value": "value"}, "value", "cannot be set with home_assistant"),
        (
            {"home_assistant": HomeAssistantSettings(), "topic": "{key}/{mode}"},
            "topic",
            "must be the same for all rows",
        ),
        (
            {"home_assistant": HomeAssistantSettings(units={"vale": "K"})},
            "home_assistant.units.vale",
            'is not a field of any input (did you mean "value"?)',
        ),
        ({"url": "x"}, "url", "must begin with mqtt://"),
        ({"where": "value > "}, "where", ""),
    ],
)
def test_wrong_settings_are_told(more: dict[str, Any], setting: str, said: str) -> None:
    context = SinkContext("house", SCHEMAS, KeyTable())
    Mqtt(MqttSettings(**{"url": "mqtt://h", **more}), context)
    assert [(place, text[: len(said)]) for place, text in context.problems] == [(setting, said)]


def test_the_example_of_the_docstring_is_a_good_one(tmp_path: Path) -> None:
    doc = Mqtt.__doc__ or ""
    lines = doc[doc.index("[sinks.") : doc.index("A message is")].splitlines()
    file = tmp_path / "pipeline.toml"
    text = "\n".join(line.strip() for line in lines).replace('["ten_seconds", "overheat"]', '["machine"]')
    file.write_text(f'[pipeline]\nname = "example"\n[sources.machine]\ntype = "host"\n{text}\n')
    config, graph = look(file)
    assert config.problems + graph.problems == []


# --- a real broker ---


@needs_mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_paho_hears_the_rows_and_who_comes_later_the_retained_ones(tmp_path: Path, version: str) -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path, password=("house", "secret")))
        account = ("house", "secret")
        paho = await stack.enter_async_context(Paho(broker.port, account=account))
        await paho.subscribe("headwater/#")
        more: dict[str, Any] = {"username": "house", "password": Secret("secret"), "version": version}
        sink = made(broker.url, home_assistant=HomeAssistantSettings(), **more)
        assert (await sink.deliver(climate(*((i % 2, i, float(i)) for i in range(100))))).delivered
        got = await paho.until(101)
        rows = [(t, json.loads(p)) for t, p in got if t.startswith("headwater/climate/")]
        assert [row["value"] for _, row in rows] == [float(i) for i in range(100)]
        assert {t for t, _ in rows} == {"headwater/climate/a", "headwater/climate/b/c"}
        assert got[0] == ("headwater/plant/house", b"online")
        async with Paho(broker.port, account=account) as later:
            await later.subscribe("#")
            kept = dict(await later.until(9))
        assert json.loads(kept["headwater/climate/a"])["value"] == 98.0
        assert len([t for t in kept if t.startswith("homeassistant/")]) == 6
        await sink.close()
        assert (await paho.until(102))[-1] == ("headwater/plant/house", b"offline")


@needs_mosquitto
async def test_with_the_wrong_password_nothing_is_lost_and_the_reason_is_told(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path, password=("house", "secret")))
        sink = made(broker.url, username="house", password=Secret("wrong"))
        with pytest.raises(MqttError, match="refused: not authorized"):
            await sink.deliver(climate((0, 0, 1.0)))
