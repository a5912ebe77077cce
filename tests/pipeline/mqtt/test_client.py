"""What the client promises, packet by packet, against a broker that does what the test says. (Real ones: tests/peers.)"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from pipeline.mqtt.client import Batch, Client, connect
from pipeline.mqtt.packets import (
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    ConnAck,
    Disconnect,
    PingResp,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
    Version,
    Will,
)
from pipeline.mqtt.session import BrokerRefused, MqttError, Options, UnderWay
from tests.pipeline.mqtt.stub import Stub, messages, stub
from tests.waiting import eventually

BOTH: Any = pytest.mark.parametrize("version", [4, 5])


class Heard:
    """The batches, in order."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.more = asyncio.Event()

    def __call__(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.more.set()

    async def next(self) -> Batch:
        while not self.batches:
            self.more.clear()
            await asyncio.wait_for(self.more.wait(), 30)
        return self.batches.pop(0)

    async def ids(self, count: int) -> tuple[list[str], list[Batch]]:
        """The payloads of so many messages, and the batches that they came in."""
        found: list[str] = []
        batches = []
        while len(found) < count:
            batches.append(await self.next())
            found += [p.decode() for p in batches[-1].messages.payloads]
        return found, batches


async def joined(stack: AsyncExitStack, broker: Stub, heard: Heard, **more: Any) -> Client:
    options = Options("127.0.0.1", broker.port, "me", broker.version, **more)
    client = await connect(options, heard)
    stack.callback(client.abort)
    return client


@BOTH
async def test_acknowledgements_go_in_the_order_of_arrival_whatever_order_they_are_told_in(version: Version) -> None:
    async with AsyncExitStack() as stack:
        broker, heard = await stack.enter_async_context(stub(version)), Heard()
        await joined(stack, broker, heard)
        batches = []
        for ids in ((1, 2), (3,), (4,)):
            broker.send(*messages(*ids))
            _, found = await heard.ids(len(ids))
            batches += found
        assert batches[0].size > 0
        batches[2].acknowledge()
        batches[1].acknowledge()
        await broker.nothing()
        batches[0].acknowledge()
        assert [(await broker.took(Ack)).id for _ in range(4)] == [1, 2, 3, 4]


@BOTH
async def test_nothing_is_acknowledged_over_another_connection(version: Version) -> None:
    """There the same packet id may be another message's."""
    async with AsyncExitStack() as stack:
        broker, heard = await stack.enter_async_context(stub(version)), Heard()
        client = await joined(stack, broker, heard)
        broker.send(*messages(1, 2))
        _, before = await heard.ids(2)
        broker.hang_up()
        assert "closed" in str(await client.ended) or "reset" in str(await client.ended).lower()
        await joined(stack, broker, heard)
        broker.send(*messages(1))
        _, after = await heard.ids(1)
        for batch in before:
            batch.acknowledge()
        await broker.nothing()
        after[0].acknowledge()
        assert await broker.took(Ack) == Ack(PUBACK, 1)


async def test_messages_of_the_session_that_come_with_the_connack_are_handed_over() -> None:
    async with AsyncExitStack() as stack:
        broker, heard = await stack.enter_async_context(stub()), Heard()
        broker.welcome, broker.after = ConnAck(True, 0), messages(7, 8)
        client = await joined(stack, broker, heard, expiry=60)
        assert client.session_present
        assert (await heard.ids(2))[0] == ["7", "8"]


@BOTH
async def test_with_qos_2_what_comes_again_is_handed_over_once(version: Version) -> None:
    """Also over a new connection, before and after PUBREC; once it is released its packet id is another message's."""
    under_way = UnderWay()
    async with AsyncExitStack() as stack:
        broker, heard = await stack.enter_async_context(stub(version)), Heard()
        await joined(stack, broker, heard, expiry=60, under_way=under_way)
        broker.send(*messages(1, 2, qos=2))
        found, batches = await heard.ids(2)
        assert found == ["1", "2"]
        assert batches[-1].unreleased == [1, 2]
        broker.hang_up()
        broker.welcome = ConnAck(True, 0)
        await joined(stack, broker, heard, expiry=60, under_way=under_way)
        broker.send(*messages(1, 2, qos=2, duplicate=True), *messages(3, qos=2))
        found, batches = await heard.ids(1)
        assert found == ["3"]
        await broker.nothing()
        for batch in batches:
            batch.acknowledge()
        assert [await broker.took(Ack) for _ in range(3)] == [Ack(PUBREC, 1), Ack(PUBREC, 2), Ack(PUBREC, 3)]

        broker.send(Ack(PUBREL, 1), Ack(PUBREL, 2))
        batch = await heard.next()
        assert (len(batch.messages), batch.unreleased) == (0, [3])
        await broker.nothing()  # PUBCOMP waits until that is safe, too
        batch.acknowledge()
        assert [await broker.took(Ack) for _ in range(2)] == [Ack(PUBCOMP, 1), Ack(PUBCOMP, 2)]
        broker.send(*messages(1, qos=2))
        assert (await heard.ids(1))[0] == ["1"]
        broker.send(*messages(3, qos=2))  # not marked as repeated: of a broker that has lost what it knew
        assert (await heard.ids(1))[0] == ["3"]


@BOTH
async def test_with_qos_1_what_comes_again_before_it_is_acknowledged_is_handed_over_once(version: Version) -> None:
    """A connection that breaks doubles nothing that we still hold, nor what has become safe since. Once the PUBACK was sent
    none can say whether it arrived: then it counts as new, as it does if it is not marked as repeated."""
    under_way = UnderWay()
    async with AsyncExitStack() as stack:
        broker, heard = await stack.enter_async_context(stub(version)), Heard()
        await joined(stack, broker, heard, expiry=60, under_way=under_way)
        before = []
        for id_ in (1, 2, 3, 4):
            broker.send(*messages(id_))
            _, batches = await heard.ids(1)
            before += batches
        before[0].acknowledge()
        await broker.took(Ack)
        broker.hang_up()
        broker.welcome = ConnAck(True, 0)
        client = await joined(stack, broker, heard, expiry=60, under_way=under_way)
        for batch in (before[1], before[3]):
            batch.acknowledge()  # safe, and nobody to tell
        broker.send(*messages(1, 2, duplicate=True), *messages(3), *messages(4, duplicate=True), *messages(5))
        found, batches = await heard.ids(3)
        assert found == ["1", "3", "5"]
        for batch in batches:
            batch.acknowledge()
        assert [(await broker.took(Ack)).id for _ in range(5)] == [1, 2, 3, 4, 5]
        assert under_way == UnderWay()
        assert not client.ended.done()


async def test_a_new_session_knows_nothing_of_an_earlier_one() -> None:
    under_way = UnderWay({b"\0\1"}, {1, 2})
    async with AsyncExitStack() as stack:
        broker, heard = await stack.enter_async_context(stub()), Heard()
        await joined(stack, broker, heard, expiry=60, under_way=under_way)
        broker.send(*messages(1, qos=2, duplicate=True))
        assert (await heard.ids(1))[0] == ["1"]
        assert under_way == UnderWay(set(), {1})


@BOTH
async def test_what_is_too_large_is_acknowledged_with_the_others(version: Version) -> None:
    async with AsyncExitStack() as stack:
        broker, heard = await stack.enter_async_context(stub(version)), Heard()
        await joined(stack, broker, heard, longest=1_000)
        large = [Publish("t", bytes(5_000), qos, id=qos) for qos in (1, 2)]
        broker.send(*messages(7, 8, qos=2))
        _, first = await heard.ids(2)
        broker.send(*messages(8, qos=2, duplicate=True), *large, *messages(9, qos=2))
        batches: list[Batch] = []
        while sum(len(b.messages) for b in batches) < 3:
            batches.append(await heard.next())
        cut = [b.messages.payloads[i][:1] for b in batches for i in b.messages.cut]
        assert cut == [b"\0", b"\0"]  # the repeated one before them is gone, and they are still those
        for batch in first + batches:
            batch.acknowledge()
        assert sorted([(await broker.took(Ack)).id for _ in range(6)]) == [1, 2, 7, 8, 8, 9]


# --- silence ---


async def test_a_broker_that_is_silent_is_given_up() -> None:
    """A connection on which nothing comes any more, and that nobody has closed."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        broker.welcome = ConnAck(False, 0, {"server_keep_alive": 1})
        client = await joined(stack, broker, Heard(), keepalive=600)
        await eventually(lambda: broker.pings >= 2)
        assert not client.ended.done()  # it answers
        broker.answers_pings = False
        assert str(await asyncio.wait_for(client.ended, 60)) == "the broker has been silent for 1 s"


@pytest.mark.parametrize("asked", [0, 600])
async def test_a_broker_that_asks_for_fewer_signs_of_life_gets_as_many_as_are_wanted_here(asked: int) -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        broker.welcome = ConnAck(False, 0, {"server_keep_alive": asked})
        await joined(stack, broker, Heard(), keepalive=1)
        await eventually(lambda: broker.pings >= 1)


async def test_who_is_held_back_is_not_taken_for_silent() -> None:
    """What the broker says is not read then; it gets signs of life all the same, and messages once they are wanted."""
    async with AsyncExitStack() as stack:
        broker, heard = await stack.enter_async_context(stub()), Heard()
        client = await joined(stack, broker, heard, keepalive=1)
        client.pause()
        broker.send(*messages(1, 2))
        await eventually(lambda: broker.pings >= 2)
        assert heard.batches == []
        client.resume()
        assert (await heard.ids(2))[0] == ["1", "2"]
        await asyncio.sleep(0.7)
        assert not client.ended.done()


async def test_no_answer_to_connect_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.mqtt.client.CONNECT_S", 0.1)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        broker.welcome = None
        with pytest.raises(MqttError, match="no answer within"):
            await joined(stack, broker, Heard())


# --- refusals ---


@pytest.mark.parametrize(
    ("version", "code", "said"),
    [
        (4, 5, "refused: not authorized"),
        (4, 4, "refused: wrong user name or password"),
        (5, 0x86, "refused: wrong user name or password"),
        (5, 0x87, "refused: not authorized (ask the owner)"),
        (5, 0x84, 'it does not speak MQTT 5; set version = "3.1.1"'),
        (5, 0x85, "refused: the client id is not valid"),
    ],
)
async def test_why_a_broker_does_not_let_us_in(version: Version, code: int, said: str) -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub(version))
        told = {"reason_string": "ask the owner"} if code == 0x87 else {}
        broker.welcome = ConnAck(False, code, told)
        with pytest.raises(BrokerRefused) as error:
            await joined(stack, broker, Heard())
        assert (str(error.value), error.value.code) == (said, code)


async def test_a_broker_of_an_older_version_answers_as_such() -> None:
    """Two bytes, and the old number for it."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        broker.welcome = None
        connecting = asyncio.create_task(joined(stack, broker, Heard()))
        while not broker.connects:
            await asyncio.sleep(0.01)
        broker.send_bytes(b"\x20\2\0\1")
        with pytest.raises(BrokerRefused, match="does not speak MQTT 5"):
            await connecting


async def test_why_a_broker_ends_the_connection() -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        client = await joined(stack, broker, Heard())
        broker.send(Disconnect(0x8E))
        why = await client.over()
        assert str(why) == "the broker ended the connection: another client has connected under the same client id"
        with pytest.raises(MqttError):
            await client.subscribe([Subscription("a")])
        with pytest.raises(MqttError):
            await client.publish([Publish("a", b"")])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x36\4\0\1a\0", "PUBLISH: QoS 3"),
        (b"\xc0\0", "PINGREQ, which a broker does not send"),
        (b"\x20\3\0\0\0", "a second CONNACK"),
        (b"\x32\6\0\1a\0\0\0", "PUBLISH: a packet id of 0"),
    ],
)
async def test_what_cannot_be_understood_ends_the_connection(data: bytes, said: str) -> None:
    """The broker is told, and nothing that came with it is handed over."""
    async with AsyncExitStack() as stack:
        broker, heard = await stack.enter_async_context(stub()), Heard()
        client = await joined(stack, broker, heard)
        broker.send_bytes(data)
        assert str(await client.ended) == f"what the broker sends cannot be understood: {said}"
        assert (await broker.took(Disconnect)).code == 0x81
        assert heard.batches == []


async def test_nothing_may_come_before_the_connack() -> None:
    for sent in (messages(1), [PingResp()]):
        async with AsyncExitStack() as stack:
            broker, heard = await stack.enter_async_context(stub()), Heard()
            broker.welcome = None
            connecting = asyncio.create_task(joined(stack, broker, heard))
            while not broker.connects:
                await asyncio.sleep(0.01)
            broker.send(*sent)
            with pytest.raises(MqttError, match="before CONNACK"):
                await connecting
            assert heard.batches == []


# --- asking ---


async def test_what_is_asked_for_at_the_start() -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        will = Will("gone", b"offline", 1, True)
        await joined(stack, broker, Heard(), username="u", password="p", will=will, keepalive=30, expiry=3600)
        (asked,) = broker.connects
        assert asked[:6] == ("me", False, 30, "u", b"p", will)
        assert asked.properties == {"session_expiry": 3600, "receive_maximum": 10_000, "topic_alias_maximum": 32}


async def test_subscriptions_are_answered_one_by_one() -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        client = await joined(stack, broker, Heard())
        assert await client.subscribe([Subscription("a", 1), Subscription("b/#", 2)]) == [1, 2]
        await broker.took(Subscribe)
        await client.unsubscribe(["a"])
        assert (await broker.took(Unsubscribe)).topics == ("a",)
        broker.grants = False
        asking = asyncio.create_task(client.subscribe([Subscription("a"), Subscription("b")]))
        asked = await broker.took(Subscribe)
        broker.send(SubAck(asked.id, (0,)))
        with pytest.raises(MqttError, match="1 answers to 2 subscriptions"):
            await asking
        asking = asyncio.create_task(client.subscribe([Subscription("a")]))
        await broker.took(Subscribe)
        broker.hang_up()
        with pytest.raises(MqttError):
            await asking


# --- publishing ---


async def test_publishing_waits_for_what_the_broker_says_of_each() -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        client = await joined(stack, broker, Heard())
        sending = asyncio.create_task(
            client.publish([Publish("a", b"1", 1), Publish("b", b"2", 0), Publish("c", b"3", 2)])
        )
        one, two, three = [await broker.took(Publish) for _ in range(3)]
        assert (one.topic, two.topic, three.topic) == ("a", "b", "c")
        broker.send(Ack(PUBREC, three.id))
        assert (await broker.took(Ack)) == Ack(PUBREL, three.id)
        broker.send(Ack(PUBCOMP, three.id), Ack(PUBCOMP, 999))
        await broker.nothing()
        assert not sending.done()
        broker.send(Ack(PUBACK, one.id, 0x87))
        assert await sending == [0x87, 0, 0]
        sending = asyncio.create_task(client.publish([Publish("c", b"3", 2)]))
        broker.send(Ack(PUBREC, (await broker.took(Publish)).id, 0x97))
        assert await sending == [0x97]
        assert await client.publish([]) == []


async def test_publishing_keeps_to_what_the_broker_takes() -> None:
    """As many at once as it says, no larger ones, no higher QoS, none retained where it does not do that."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        limits = {"receive_maximum": 2, "maximum_packet_size": 100, "maximum_qos": 1, "retain_available": 0}
        broker.welcome = ConnAck(False, 0, limits)
        client = await joined(stack, broker, Heard())
        sent = [Publish("a", b"x" * (200 if i == 1 else 1), 2, True) for i in range(5)]
        sending = asyncio.create_task(client.publish(sent))
        first = [await broker.took(Publish) for _ in range(2)]
        await broker.nothing()
        assert {(p.qos, p.retain) for p in first} == {(1, False)}
        broker.send(*(Ack(PUBACK, p.id) for p in first))
        broker.send(*[Ack(PUBACK, (await broker.took(Publish)).id) for _ in range(2)])
        assert await sending == [0, 0x95, 0, 0, 0]


async def test_a_connection_that_is_lost_fails_what_is_on_its_way() -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        broker.welcome = ConnAck(False, 0, {"receive_maximum": 1})
        client = await joined(stack, broker, Heard())
        sending = [asyncio.create_task(client.publish([Publish("a", b"", 1)])) for _ in range(2)]
        await broker.took(Publish)
        broker.hang_up()
        for one in sending:
            with pytest.raises(MqttError):
                await one


async def test_a_good_bye_is_said() -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        client = await joined(stack, broker, Heard())
        await client.disconnect()
        await broker.took(Disconnect)
