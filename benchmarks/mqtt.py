"""MQTT, QoS 1: messages a second into Frames on one core, and from a real mosquitto through the whole durable pipeline.

    python -m benchmarks.mqtt [--messages 300000] [--waiting 100000]

1 reference     `orjson.loads` on each payload in a bare loop
2 into Frames   the bytes of a socket, read by read, through the client, the codec and the intake to Frames, each batch then
                acknowledged; from memory, in one process, CPU time
3 null client   what mosquitto gives to a client that acknowledges at once and looks at nothing: more no one can get
4 pipeline      `headwater run` with a history: messages that waited at mosquitto, until all are committed and acknowledged;
                durability "process" and "power". The CPU is that of the whole process.
All messages waited in a persistent session, with max_inflight_messages and max_queued_messages 0 (no limit). 3 and 4 share this
machine's cores with mosquitto.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import aiohttp
import orjson

from pipeline.clock import ArrivalClock, RealClock
from pipeline.component import Payload, SourceContext
from pipeline.frame import KeyTable
from pipeline.inbox import BoundedInbox, Order
from pipeline.intake import Intake, Tick, number
from pipeline.mqtt.client import Batch, Client, connect
from pipeline.mqtt.packets import ConnAck, Publish, Subscription, encode
from pipeline.mqtt.session import Options
from pipeline.sources.mqtt import Mqtt, MqttSettings
from tests.connectors.world import Told
from tests.device import free_port
from tests.peers.mosquitto import Mosquitto

SENSORS = 100
READ = 262_144  # bytes that asyncio reads from a socket at once

SOURCE: dict[str, Any] = {
    "topics": ("sensors/+/reading",),
    "key": "topic[1]",
    "time": "ts",
    "time_unit": "ms",
    "fields": {"temperature": "float", "humidity": "float"},
}
PIPELINE = """
[pipeline]
name = "bench"
state = "state-{durability}"
durability = "{durability}"
disorder = "1 h"

[server]
listen = "127.0.0.1:{port}"

[sources.sensors]
type = "mqtt"
url = "{url}"
topics = ["sensors/+/reading"]
key = "topic[1]"
time = "ts"
time_unit = "ms"
fields = {{ temperature = "float", humidity = "float" }}
client_id = "bench-{durability}"

[sinks.local]
type = "query_server"
inputs = ["sensors"]
"""


def messages(count: int) -> list[Publish]:
    chance = random.Random(1)
    start = time.time_ns() // 1_000_000 - count
    made = []
    for i in range(count):
        sensor = chance.randrange(SENSORS)
        reading = {
            "sensor_id": f"s{sensor}",
            "ts": start + i,
            "temperature": round(chance.gauss(21, 5), 2),
            "humidity": round(chance.uniform(20, 80), 1),
        }
        made.append(Publish(f"sensors/s{sensor}/reading", json.dumps(reading).encode(), 1, id=i % 65_535 + 1))
    return made


def reference(sent: list[Publish]) -> float:
    """Seconds of CPU."""
    payloads = [p.payload for p in sent]
    start = time.process_time()
    for payload in payloads:
        orjson.loads(payload)
    return time.process_time() - start


class Memory:
    """Stands for the transport; counts what is written."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        return None


async def into_frames(sent: list[Publish]) -> float:
    """Seconds of CPU."""
    data = b"".join(encode(p, 5) for p in sent)
    reads = [data[at : at + READ] for at in range(0, len(data), READ)]
    keys = KeyTable()
    source = Mqtt(MqttSettings(url="mqtt://h", **SOURCE), SourceContext("sensors", keys))
    inbox = BoundedInbox(Order(), ArrivalClock(RealClock()), lambda: None)
    intake = Intake("sensors", source, inbox)
    transport = Memory()

    def heard(batch: Batch) -> None:
        done = lambda _: batch.acknowledge()  # noqa: E731 - as the source's own
        assert inbox.offer(Payload(source.wanted(batch), batch.size, done=done))

    client = Client(Options("h", 0, "bench"), heard)
    client._transport = cast("asyncio.Transport", transport)
    client.data_received(encode(ConnAck(False, 0), 5))
    taken = 0
    start = time.process_time()
    for read in reads:
        client.data_received(read)
        waiting = inbox.take()
        arrived = intake.decode(waiting, keys, 0, 2**62)
        frame = intake.frame(arrived, number([arrived], taken)[0], 0, Tick(0, taken + len(arrived.time)))
        taken += len(frame)
        for one, receipt in zip(waiting, arrived.receipts(), strict=True):
            assert one.payload.done is not None
            one.payload.done(receipt)
    took = time.process_time() - start
    assert taken == len(sent), taken
    assert transport.written == 4 * len(sent)
    client.connection_lost(None)  # ends its timer
    return took


async def session(port: int, client_id: str) -> None:
    """A session that keeps what comes."""
    client = await connect(Options("127.0.0.1", port, client_id, expiry=3600), lambda _: None)
    await client.subscribe([Subscription("sensors/+/reading", 1)])
    await client.disconnect()


async def fill(port: int, sent: list[Publish]) -> float:
    """Publish all; seconds."""
    client = await connect(Options("127.0.0.1", port, "publisher"), lambda _: None)
    start = time.monotonic()
    assert {0} >= {code & 0x80 for code in await client.publish(sent)}
    took = time.monotonic() - start
    await client.disconnect()
    return took


async def null_client(port: int, count: int) -> float:
    """Seconds until all that wait have come."""
    got, every = 0, asyncio.Event()

    def heard(batch: Batch) -> None:
        nonlocal got
        got += len(batch.messages)
        batch.acknowledge()
        if got >= count:
            every.set()

    start = time.monotonic()
    client = await connect(Options("127.0.0.1", port, "null", expiry=3600), heard)
    await every.wait()
    took = time.monotonic() - start
    await client.disconnect()
    return took


async def pipeline(folder: Path, broker: Mosquitto, durability: str, count: int) -> tuple[float, float]:
    """Seconds from the first readings that are there to all of them, and of CPU for each."""
    port = free_port()
    file = folder / f"{durability}.toml"
    file.write_text(PIPELINE.format(port=port, url=broker.url, durability=durability))
    async with aiohttp.ClientSession() as http, Told(file, port) as device:

        async def taken() -> int:
            async with http.get(device.url + "/api/graph") as answer:
                return int((await answer.json())["nodes"][0]["rows_out"])

        await device.start(http)
        cpu = device.cpu_s()
        first, start = await taken(), time.monotonic()
        while (now := await taken()) < count:
            await asyncio.sleep(0.01)
        took = time.monotonic() - start
        used = device.cpu_s() - cpu
        assert now == count
        assert await device.end() == 0
    return took / (count - first) * count, used / (count - first)


async def main() -> None:
    parser = argparse.ArgumentParser(description="MQTT: messages a second, from memory and from a real mosquitto.")
    parser.add_argument("--messages", type=int, default=300_000, help="from memory")
    parser.add_argument("--waiting", type=int, default=100_000, help="at mosquitto")
    given = parser.parse_args()
    sent = messages(max(given.messages, given.waiting))
    some = sent[: given.messages]
    alone = min(reference(some) for _ in range(3)) / len(some)
    framed = min([await into_frames(some) for _ in range(3)]) / len(some)
    print(f"{len(some):,} messages of {len(some[0].payload)} bytes, QoS 1; of 3 runs the best")
    print(f"orjson.loads on each  {alone * 1e6:6.2f} us CPU  {1 / alone:10,.0f} messages/s  1.0")
    print(f"into Frames           {framed * 1e6:6.2f} us CPU  {1 / framed:10,.0f} messages/s  {framed / alone:.1f}")
    waiting = sent[: given.waiting]
    with tempfile.TemporaryDirectory() as folder:
        async with Mosquitto(Path(folder), log="error", persistence=False) as broker:
            for name in ("null", "bench-process", "bench-power"):
                await session(broker.port, name)
            took = await fill(broker.port, waiting)
            print(f"\n{len(waiting):,} messages that wait at mosquitto (published at {len(waiting) / took:,.0f}/s)")
            took = await null_client(broker.port, len(waiting))
            best = len(waiting) / took
            print(f"null client           {took:6.2f} s       {best:10,.0f} messages/s")
            for durability in ("process", "power"):
                took, cpu = await pipeline(Path(folder), broker, durability, len(waiting))
                rate = len(waiting) / took
                print(
                    f'pipeline, "{durability}"'.ljust(22) + f"{took:6.2f} s       {rate:10,.0f} messages/s"
                    f"  {rate / best:.2f} of the null client, {cpu * 1e6:.1f} us CPU each, {cpu / alone:.1f} x orjson.loads"
                )


if __name__ == "__main__":
    asyncio.run(main())
