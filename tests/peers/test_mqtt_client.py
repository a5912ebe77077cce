"""The MQTT client against a real mosquitto, with paho on the other side."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.mqtt.client import Client, connect
from pipeline.mqtt.packets import Publish, Subscription, Version, Will
from pipeline.mqtt.session import BrokerRefused, MqttError, Options, UnderWay
from tests.peers.mosquitto import Mosquitto, needs_mosquitto, proxy
from tests.peers.paho import Paho
from tests.pipeline.mqtt.test_client import Heard

pytestmark = needs_mosquitto
BOTH: Any = pytest.mark.parametrize("version", [4, 5])


async def joined(stack: AsyncExitStack, port: int, heard: Heard, *, host: str = "127.0.0.1", **more: Any) -> Client:
    client = await connect(Options(host, port, more.pop("name", "me"), **more), heard)
    stack.callback(client.abort)
    return client


def numbered(count: int, start: int = 0) -> Sequence[tuple[str, str]]:
    return [(f"t/{i % 7}", str(i)) for i in range(start, start + count)]


def texts(start: int, end: int) -> list[str]:
    return [str(i) for i in range(start, end)]


@BOTH
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_is_not_acknowledged_comes_again_and_nothing_else(
    tmp_path: Path, version: Version, qos: int
) -> None:
    """A hundred wait; after fifty the connection breaks; the other fifty come over the next one, in order."""
    under_way = UnderWay()
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path))
        paho = await stack.enter_async_context(Paho(broker.port))
        heard = Heard()
        more: dict[str, Any] = {"version": version, "expiry": 3600, "under_way": under_way}
        client = await joined(stack, broker.port, heard, **more)
        assert await client.subscribe([Subscription("t/#", qos)]) == [qos]
        client.abort()
        await client.ended
        await paho.publish(numbered(50), qos)

        client = await joined(stack, broker.port, heard, **more)
        assert client.session_present
        found, batches = await heard.ids(50)
        assert found == texts(0, 50)
        for batch in batches:
            batch.acknowledge()
        if qos == 2:  # PUBREL of all, and our PUBCOMP
            while under_way.unreleased:
                (await heard.next()).acknowledge()
        await paho.publish(numbered(50, 50), qos)
        found, batches = await heard.ids(50)
        assert found == texts(50, 100)
        client.abort()
        await client.ended

        under_way.unreleased.clear()  # as if these had not been kept: they are to come once more
        under_way.unanswered.clear()
        client = await joined(stack, broker.port, heard, **more)
        for batch in batches:
            batch.acknowledge()  # of before: it must do nothing
        found, batches = await heard.ids(50)
        assert sorted(found, key=int) == texts(50, 100)
        for batch in batches:
            batch.acknowledge()
        while under_way.unreleased:
            (await heard.next()).acknowledge()
        await client.disconnect()
        await broker.logs("Received DISCONNECT from me")  # a new connection would take over before it has read that
        await joined(stack, broker.port, heard, **more)
        await paho.publish([("t/1", "last")], qos)
        assert (await heard.ids(1))[0] == ["last"]


@BOTH
async def test_a_broker_holds_what_we_do_not_read(tmp_path: Path, version: Version) -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path))
        paho = await stack.enter_async_context(Paho(broker.port))
        heard = Heard()
        client = await joined(stack, broker.port, heard, version=version)
        await client.subscribe([Subscription("t/#", 1)])
        client.pause()
        await paho.publish([("t/1", bytes(20_000))] * 500)
        assert sum(len(b.messages) for b in heard.batches) == 0
        client.resume()
        payloads, _ = await heard.ids(500)
        assert {len(p) for p in payloads} == {20_000}


@BOTH
async def test_paho_hears_what_we_publish(tmp_path: Path, version: Version) -> None:
    """All QoS, more than may be under way at once; retained; the will when we are gone without a word."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path, "max_inflight_messages 20"))
        paho = await stack.enter_async_context(Paho(broker.port))
        await paho.subscribe("from/#", 2)
        will = Will("from/will", b"gone", 1)
        client = await joined(stack, broker.port, Heard(), version=version, will=will)
        sent = [Publish(f"from/{i}", str(i).encode(), i % 3) for i in range(2_500)]
        assert set(await client.publish(sent)) == {0}
        got = await paho.until(2_500)
        assert sorted(got) == sorted((p.topic, p.payload) for p in sent)
        assert await client.publish([Publish("kept", b"latest", 1, True)]) in ([0], [0x10])
        client.abort()
        assert (await paho.until(2_501))[-1] == ("from/will", b"gone")
        await paho.subscribe("kept")
        assert (await paho.until(2_502))[-1] == ("kept", b"latest")
        assert paho.heard[-1].retain


@BOTH
async def test_a_wrong_password_is_told(tmp_path: Path, version: Version) -> None:
    account = ("me", "right")
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path, password=account))
        with pytest.raises(BrokerRefused, match=r"not authorized|wrong user name or password"):
            await joined(stack, broker.port, Heard(), version=version, username="me", password="wrong")
        await joined(stack, broker.port, Heard(), version=version, username="me", password="right")


async def test_over_tls_only_with_a_certificate_that_is_trusted(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path, tls=True))
        with pytest.raises(OSError, match="certificate verify failed"):
            await joined(stack, broker.port, Heard(), tls=ssl.create_default_context())
        trusted = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        heard = Heard()
        client = await joined(stack, broker.port, heard, tls=trusted, host="localhost")
        await client.subscribe([Subscription("a")])
        await client.publish([Publish("a", b"x" * 100_000, 1)])
        assert len((await heard.ids(1))[0][0]) == 100_000
        with pytest.raises(MqttError):  # without TLS
            await joined(stack, broker.port, Heard())


async def test_a_connection_that_has_died_is_found(tmp_path: Path) -> None:
    """Half open: nobody closed it, and nothing comes any more."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path))
        between = await stack.enter_async_context(proxy(broker.port))
        client = await joined(stack, between.port, Heard(), keepalive=1)
        between.open.clear()
        assert str(await client.ended) == "the broker has been silent for 1 s"


async def test_shared_subscriptions_divide_the_messages(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Mosquitto(tmp_path))
        paho = await stack.enter_async_context(Paho(broker.port))
        heard = [Heard(), Heard()]
        for i, one in enumerate(heard):
            client = await joined(stack, broker.port, one, name=f"member-{i}")
            await client.subscribe([Subscription("$share/group/t/#", 1)])
        await paho.publish(numbered(100))
        halves = [await one.ids(50) for one in heard]
        assert sorted((text for found, _ in halves for text in found), key=int) == texts(0, 100)
