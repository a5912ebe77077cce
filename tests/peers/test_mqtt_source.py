"""The `mqtt` source as its users run it: a real process, a real mosquitto, and paho in the place of the devices."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.device import Device, free_port
from tests.peers.mosquitto import Mosquitto, certificate, needs_mosquitto, proxy
from tests.peers.paho import Paho
from tests.waiting import eventually

pytestmark = needs_mosquitto

PIPELINE = """
[pipeline]
name = "greenhouse"
state = "state"
durability = "process"
disorder = "1 h"
commit = "{commit}"

[server]
listen = "127.0.0.1:{port}"

[sources.sensors]
type = "mqtt"
url = "{url}"
topics = ["sensors/+/reading"]
key = "topic[1]"
fields = {{ n = "int" }}
{more}

[sinks.local]
type = "query_server"
inputs = ["sensors"]
"""


class World:
    """A device that listens to a broker, and what one asks it."""

    def __init__(
        self, folder: Path, http: aiohttp.ClientSession, url: str, more: str = "", commit: str = "0 s"
    ) -> None:
        port = free_port()
        self.file = folder / "pipeline.toml"
        self.http = http
        self.device = Device(self.file, port)
        self.port = port
        self.commit = commit
        self.write(url, more)

    def write(self, url: str, more: str = "") -> None:
        self.file.write_text(PIPELINE.format(port=self.port, url=url, more=more, commit=self.commit))

    async def start(self) -> None:
        await self.device.start(self.http)

    async def numbers(self, count: int) -> list[int]:
        """What has come, in the order in which it came, once it is so much."""
        found: list[int] = []

        async def so_many() -> bool:
            found[:] = [row["n"] for row in await self.device.rows(self.http, "sensors")]
            return len(found) >= count

        await eventually(so_many, lambda: f"{len(found)} of {count} came: {found[-20:]}")
        return found

    async def health(self) -> list[str]:
        async with self.http.get(self.device.url + "/health") as answer:
            return (await answer.json())["reasons"]

    async def trouble(self, right: Callable[[str], bool]) -> str:
        """What /health says of the source, once it is right."""
        said = ""

        async def is_right() -> bool:
            nonlocal said
            said = "; ".join(reason for reason in await self.health() if reason.startswith("sensors: "))
            return right(said)

        await eventually(is_right, lambda: f"/health says {said!r}")
        return said

    async def connected(self) -> None:
        await self.trouble(lambda said: not said)

    async def dead(self) -> list[dict[str, Any]]:
        async with self.http.get(self.device.url + "/api/dead") as answer:
            found = await answer.json()
        return found["dead"]


@asynccontextmanager
async def world(folder: Path, url: str, more: str = "", commit: str = "0 s") -> AsyncIterator[World]:
    async with aiohttp.ClientSession() as http:
        made = World(folder, http, url, more, commit)
        async with made.device:
            yield made


def numbered(count: int, start: int = 0) -> list[tuple[str, str]]:
    return [(f"sensors/s{i % 5}/reading", json.dumps({"n": i})) for i in range(start, start + count)]


async def subscribed(broker: Mosquitto, times: int = 1) -> None:
    await broker.logs("Sending SUBACK to headwater-greenhouse-sensors", times)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_after_a_kill_exactly_the_rest_comes(tmp_path: Path, version: str) -> None:
    """A hundred wait at the broker, as large as steps of twenty; killed after fifty acknowledgements, it goes on where it was.
    What was acknowledged is there and does not come again. (Where the kill came too late, behind the last one: once more.)"""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path))
        more = f'version = "{version}"'
        there = await stack.enter_async_context(world(tmp_path, broker.url, more, commit="100 ms"))
        paho = await stack.enter_async_context(Paho(broker.port))
        await there.start()
        await subscribed(broker)
        await there.device.end(signal.SIGKILL)
        total = acknowledged = 0
        while acknowledged == total:
            await paho.publish(
                [(topic, text.replace("}", f', "padding": "{"x" * 50_000}"}}')) for topic, text in numbered(100, total)]
            )
            await there.device.spawn()
            await broker.logs("Received PUBACK from headwater", total + 50)
            await there.device.end(signal.SIGKILL)
            total += 100
            await broker.logs("Client headwater-greenhouse-sensors closed its connection", 1 + total // 100)
            acknowledged = broker.log().count("Received PUBACK from headwater")
        await there.start()
        await broker.logs("Received PUBACK from headwater", total)
        found = await there.numbers(total)
        assert sorted(set(found)) == list(range(total))
        assert found[:acknowledged] == list(range(acknowledged))
        assert all(found.count(n) == 1 for n in range(acknowledged))
        assert await there.device.end() == 0


@pytest.mark.parametrize("qos", [1, 2])
async def test_killed_again_and_again_it_loses_nothing(tmp_path: Path, qos: int) -> None:
    """With QoS 2 nothing comes twice either, at whatever moment the process is killed."""
    chance = random.Random(qos)
    total = 800
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path, "max_inflight_messages 30"))
        there = await stack.enter_async_context(world(tmp_path, broker.url, f"qos = {qos}"))
        paho = await stack.enter_async_context(Paho(broker.port))
        await there.start()
        await subscribed(broker)
        await paho.publish(numbered(total), qos)
        for kill in range(3):
            await asyncio.sleep(chance.uniform(0, 0.15))
            await there.device.end(signal.SIGKILL)
            if kill < 2:
                await there.device.spawn()
                await subscribed(broker, kill + 2)
        await there.start()
        counts = Counter(await there.numbers(total))
        await asyncio.sleep(0.2)
        counts = Counter(await there.numbers(total))
        assert set(counts) == set(range(total))
        if qos == 2:
            assert set(counts.values()) == {1}
        else:
            assert sum(counts.values()) <= total + 3 * 30  # those under way at each kill


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_broker_that_restarts_is_found_again(tmp_path: Path, qos: int) -> None:
    """It is told meanwhile; what the broker held for us comes, and nothing twice."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path))
        there = await stack.enter_async_context(world(tmp_path, broker.url, f"qos = {qos}"))
        await there.start()
        await subscribed(broker)
        async with Paho(broker.port) as paho:
            await paho.publish(numbered(50), qos)
            assert await there.numbers(50) == list(range(50))
        await broker.settled("headwater-greenhouse-sensors")
        await broker.stop()
        said = await there.trouble(bool)
        assert said.startswith(f"sensors: {broker.url}: ")
        await broker.start()
        async with Paho(broker.port) as paho:
            await paho.publish(numbered(50, 50), qos)
        assert await there.numbers(100) == list(range(100))
        await there.connected()


async def test_a_half_open_connection_is_found_and_what_was_lost_with_it_comes_again(tmp_path: Path) -> None:
    """The proxy swallows all from a moment on; nobody closes the connection."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path))
        between = await stack.enter_async_context(proxy(broker.port))
        there = await stack.enter_async_context(
            world(tmp_path, f"mqtt://127.0.0.1:{between.port}", 'keepalive = "1 s"')
        )
        paho = await stack.enter_async_context(Paho(broker.port))
        await there.start()
        await subscribed(broker)
        await paho.publish(numbered(10))
        assert await there.numbers(10) == list(range(10))
        between.open.clear()
        await paho.publish(numbered(10, 10))
        await there.trouble(lambda said: "the broker has been silent for 1 s" in said)
        between.open.set()
        assert sorted(await there.numbers(20)) == list(range(20))


async def test_a_wrong_password_is_told_and_tried_again_until_it_is_right(tmp_path: Path) -> None:
    """And is shown nowhere."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path, password=("device", "right")))
        url = broker.url.replace("//", "//device:wrong-one@")
        there = await stack.enter_async_context(world(tmp_path, url))
        await there.start()
        said = await there.trouble(bool)
        assert said == f"sensors: {broker.url}: refused: not authorized"
        assert "wrong-one" not in said
        assert await there.device.end() == 0

        there.write(broker.url, 'username = "device"\npassword = "right"')
        await there.start()
        await there.connected()


async def test_garbage_costs_only_itself(tmp_path: Path) -> None:
    """Each bad message becomes a dead letter with its topic, and can be tried once more."""
    bad: Sequence[tuple[str, bytes]] = [
        ("sensors/s1/reading", b"\xff\xfe"),
        ("sensors/s1/reading", b""),
        ("sensors/s1/reading", b'{"n": "three"}'),
        ("sensors/s1/reading", b'[{"n": 10}, {"n": null}, {"n": 11}]'),
        ("sensors/s1/reading", b"x" * 5_000),
        (f"sensors/{'k' * 501}/reading", b'{"n": 1}'),
    ]
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path))
        there = await stack.enter_async_context(world(tmp_path, broker.url, 'max_message = "1 kB"'))
        paho = await stack.enter_async_context(Paho(broker.port))
        await there.start()
        await subscribed(broker)
        for message in bad:
            await paho.publish([*numbered(1), message])
        assert sorted(await there.numbers(8)) == [0, 0, 0, 0, 0, 0, 10, 11]
        letters = list(reversed(await there.dead()))
        assert [json.loads(letter["row"])["topic"] for letter in letters] == [topic for topic, _ in bad]
        reasons = [letter["reason"] for letter in letters]
        assert reasons[2] == "n: expected a whole number, got text"
        assert json.loads(letters[3]["row"])["payload"] == '{"n": null}'
        assert reasons[4] == "too large: 5,023 bytes, where max_message is 1 kB"
        assert reasons[5] == "the key is empty or longer than 500 characters"
        assert [letter["replayable"] for letter in letters] == [True, True, True, True, False, True]

        assert await there.device.end() == 0
        there.file.write_text(there.file.read_text().replace('n = "int"', 'n = "string?"'))
        await there.start()
        async with there.http.post(there.device.url + "/api/dead/replay", json={"all": True}) as answer:
            told = await answer.json()
        assert told["replayed"] == 2, told  # "three" and null; what is no JSON is none now either


async def test_a_flood_waits_at_the_broker(tmp_path: Path) -> None:
    """The process is stopped while 20 MB come: nothing is lost, and its memory stays what it was."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path))
        there = await stack.enter_async_context(world(tmp_path, broker.url))
        paho = await stack.enter_async_context(Paho(broker.port))
        await there.start()
        await subscribed(broker)
        before = there.device.rss()
        there.device.send(signal.SIGSTOP)
        padding = "x" * 4_000
        messages = [("sensors/s1/reading", json.dumps({"n": i, "padding": padding})) for i in range(5_000)]
        await paho.publish(messages)
        there.device.send(signal.SIGCONT)
        most, found = before, 0
        while found < 5_000:
            async with there.http.get(there.device.url + "/api/graph") as answer:
                nodes = (await answer.json())["nodes"]
            found = next(n for n in nodes if n["name"] == "sensors")["rows_out"]
            most = max(most, there.device.rss())
            await asyncio.sleep(0.02)
        assert sorted(await there.numbers(5_000)) == list(range(5_000))
        assert most - before < 30


async def test_over_tls_with_a_client_certificate(tmp_path: Path) -> None:
    certificate(tmp_path)
    more = [f"cafile {tmp_path / 'ca.pem'}", "require_certificate true", "use_identity_as_username true"]
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path, *more, tls=True))
        url = broker.url.replace("mqtt:", "mqtts:")
        own = 'tls = { ca = "ca.pem", certificate = "server.pem", key = "server.key" }'
        there = await stack.enter_async_context(world(tmp_path, url, own))
        await there.start()
        await subscribed(broker)
        await there.connected()
        assert await there.device.end() == 0
        there.write(url)  # trusts what this system trusts: not this one
        await there.start()
        await there.trouble(lambda said: "certificate verify failed" in said)


async def test_a_topic_that_was_taken_out_is_unsubscribed(tmp_path: Path) -> None:
    """The session outlives the change of the file; so would the subscription."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path))
        there = await stack.enter_async_context(world(tmp_path, broker.url))
        paho = await stack.enter_async_context(Paho(broker.port))
        await there.start()
        await subscribed(broker)
        assert await there.device.end() == 0
        there.file.write_text(there.file.read_text().replace("sensors/+/reading", "sensors/s1/reading"))
        await there.start()
        await broker.logs("Sending UNSUBACK to headwater-greenhouse-sensors")
        await paho.publish(numbered(20))
        assert await there.numbers(4) == [1, 6, 11, 16]


@pytest.mark.parametrize(
    ("version", "retained", "expected"), [("5", "new", [7]), ("3.1.1", "always", [7, 7]), ("5", "never", [])]
)
async def test_retained_messages(tmp_path: Path, version: str, retained: str, expected: list[int]) -> None:
    """With a new subscription, with each connection, or never."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path))
        more = f'retained = "{retained}"\nversion = "{version}"'
        there = await stack.enter_async_context(world(tmp_path, broker.url, more))
        paho = await stack.enter_async_context(Paho(broker.port))
        await paho.publish([("sensors/s1/reading", '{"n": 7}')], retain=True)
        for times in (1, 2):
            await there.start()
            await subscribed(broker, times)
            await paho.publish([("sensors/s1/reading", f'{{"n": {times}}}')])
            while times not in (found := await there.numbers(1)):
                await asyncio.sleep(0.02)
            assert await there.device.end() == 0
        assert [n for n in found if n == 7] == expected


async def test_two_devices_share_a_subscription(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path))
        paho = await stack.enter_async_context(Paho(broker.port))
        both = []
        for name in ("a", "b"):
            there = await stack.enter_async_context(world(tmp_path / name, broker.url, f'client_id = "{name}"'))
            there.file.write_text(there.file.read_text().replace('"sensors/+', '"$share/all/sensors/+'))
            await there.start()
            await broker.logs(f"Sending SUBACK to {name}")
            both.append(there)
        await paho.publish(numbered(40))
        halves = [await there.numbers(20) for there in both]
        assert sorted(halves[0] + halves[1]) == list(range(40))
        assert [len(half) for half in halves] == [20, 20]


async def test_whether_we_are_there_is_told(tmp_path: Path) -> None:
    """When we come, when we leave, and by the broker when we are killed."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path))
        there = await stack.enter_async_context(world(tmp_path, broker.url, 'will = { topic = "devices/greenhouse" }'))
        paho = await stack.enter_async_context(Paho(broker.port))
        await paho.subscribe("devices/#")
        await there.start()
        await paho.until(1)
        assert await there.device.end() == 0
        await there.start()
        await paho.until(3)
        await there.device.end(signal.SIGKILL)
        assert [payload for _, payload in await paho.until(4)] == [b"online", b"offline", b"online", b"offline"]
