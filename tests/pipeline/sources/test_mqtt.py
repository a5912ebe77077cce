"""What `mqtt` makes of messages, and of a broker that does what the test says. (With a real one: tests/peers.)"""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.component import Payload, Receipt, SourceContext
from pipeline.frame import KeyTable
from pipeline.mqtt.packets import (
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    ConnAck,
    Disconnect,
    Publish,
    SubAck,
    Subscribe,
    Unsubscribe,
)
from pipeline.mqtt.stream import Messages
from pipeline.quantity import Size, duration
from pipeline.run import look
from pipeline.sources.mqtt import Mqtt, MqttSettings
from pipeline.sources.mqtt.feed import Feed
from pipeline.topics import opened, sealed
from tests.pipeline.mqtt.stub import Stub, messages, stub
from tests.waiting import eventually

TOPICAL = MqttSettings(
    url="mqtt://127.0.0.1",
    topics=("t/#",),
    key="topic[1]",
    key_name="sensor",
    from_topic={"room": "topic[2]"},
    fields={"value": "float"},
    max_message=Size(1_000),
)


def made(settings: MqttSettings = TOPICAL, limit: int = 1_000) -> Mqtt:
    context = SourceContext("sensors", KeyTable(limit=limit), pipeline="plant")
    source = Mqtt(settings, context)
    assert context.problems == []
    return source


def batch(*sent: tuple[str, bytes], cut: dict[int, int] | None = None) -> Payload:
    found = Messages()
    found.topics += [topic for topic, _ in sent]
    found.payloads += [payload for _, payload in sent]
    found.cut |= cut or {}
    return Payload(found, sum(len(p) for _, p in sent))


def rows(source: Mqtt, payloads: list[Payload]) -> list[tuple[int, Any, Any, Any]]:
    """Payload, key, room and value of each reading."""
    found = source.decode(payloads)
    of = [i for i, count in enumerate(found.counts) for _ in range(count)]
    keys = [source.context.keys.names[code] for code in source.context.keys.codes(found.keys).tolist()]
    return list(zip(of, keys, found.columns["room"].tolist(), found.columns["value"].tolist(), strict=True))


# --- messages ---

BODIES = st.one_of(
    st.integers(0, 9).map(lambda n: json.dumps({"value": n}).encode()),
    st.lists(st.one_of(st.integers(0, 9), st.just("bad")), max_size=4).map(
        lambda values: json.dumps([{"value": v} for v in values]).encode()
    ),
    st.sampled_from([b"", b"{", b"\xff", b'{"value": null}', b'{"value": 1}\n{"value": "x"}\n{"value": 2}\n']),
)
LEVELS = st.lists(st.sampled_from(["a", "b", "", "x" * 501]), min_size=1, max_size=3).map("/".join)
BATCHES = st.lists(st.lists(st.tuples(LEVELS, BODIES), max_size=6), min_size=1, max_size=4)


class Told(NamedTuple):
    payload: int
    item: int
    sealed: bytes


def plainly(batches: list[list[tuple[str, bytes]]]) -> tuple[list[tuple[int, str, str | None, float]], list[Told]]:
    """The oracle: one message after the other, with the standard library."""
    taken: list[tuple[int, str, str | None, float]] = []
    told: list[Told] = []
    for i, messages_ in enumerate(batches):
        item = 0
        for topic, body in messages_:
            levels = topic.split("/")
            key = levels[1] if len(levels) > 1 else ""
            room = (levels[2] if len(levels) > 2 else "") or None
            if not 0 < len(key) <= 500:
                told.append(Told(i, item, sealed(topic, body)))
                item += 1
                continue
            pieces = _pieces(body)
            for text, value in pieces:
                if isinstance(value, int | float):
                    taken.append((i, key, room, float(value)))
                else:
                    told.append(Told(i, item, sealed(topic, text)))
                item += 1
    return taken, told


def _pieces(body: bytes) -> list[tuple[bytes, Any]]:
    try:
        found = json.loads(body)
    except ValueError:
        lines = [line for line in body.split(b"\n") if line.strip()]
        if len(lines) > 1:
            return [(line, json.loads(line)["value"]) for line in lines]
        return [(body, None)]
    if isinstance(found, list):
        return [(json.dumps(one).encode(), one["value"]) for one in found] or [(body, None)]
    return [(body, found["value"])]


@given(BATCHES)
def test_messages_become_readings_as_one_by_one(batches: list[list[tuple[str, bytes]]]) -> None:
    """Keys and fields from the topic; what is bad costs itself, and is told at its place, with its topic."""
    source = made()
    payloads = [batch(*one) for one in batches]
    taken, told = plainly(batches)
    assert rows(source, payloads) == taken
    refused = source.decode(payloads).refused
    assert sorted((r.payload, r.item) for r in refused) == [(t.payload, t.item) for t in told]
    pieces = [source.readings(payload) for payload in payloads]
    for t in told:
        found = pieces[t.payload]
        assert found is not None
        assert found[t.item] == t.sealed


@given(BATCHES)
def test_what_was_refused_can_be_tried_once_more(batches: list[list[tuple[str, bytes]]]) -> None:
    """The same comes of it, alone."""
    source = made()
    payloads = [batch(*one) for one in batches]
    for r in source.decode(payloads).refused:
        found = source.readings(payloads[r.payload])
        assert found is not None
        again = source.again(found[r.item], "")
        assert again is not None
        alone = source.decode([again])
        assert (list(alone.counts), [one.reason for one in alone.refused]) == ([0], [r.reason])


def test_a_message_that_is_too_large_is_told_and_is_not_whole() -> None:
    source = made()
    payload = batch(("t/a", b'{"value": 1}'), ("t/a", b"xxx"), ("t/b", b'{"value": 2}'), cut={1: 5_000})
    assert [row[1:2] + row[3:] for row in rows(source, [payload])] == [("a", 1.0), ("b", 2.0)]
    (refused,) = source.decode([payload]).refused
    assert refused[:3] == (0, 1, "too large: 5,000 bytes, where max_message is 1 kB")
    found = source.readings(payload)
    assert found is not None
    assert source.again(found[1], "") is None


def test_too_many_keys_are_refused_by_message() -> None:
    source = made(limit=2)
    payload = batch(*((f"t/{name}", b'{"value": 1}') for name in "abcab"))
    for _ in range(2):
        found = source.decode([payload])
        assert list(found.counts) == [4]
        assert [r.reason for r in found.refused] == ["too many keys (limit 2)"]


@pytest.mark.parametrize(
    ("key", "topic", "expected"),
    [
        ("topic", "a/b/c", "a/b/c"),
        ("topic[0]", "a/b/c", "a"),
        ("topic[-1]", "a/b/c", "c"),
        ("topic[1]/topic[2]", "a/b/c", "b/c"),
        ("id", "a/b/c", "own"),
    ],
)
def test_what_may_name_the_series(key: str, topic: str, expected: str) -> None:
    source = made(MqttSettings(url="mqtt://h", topics=("#",), key=key, fields={"value": "float"}))
    found = source.decode([batch((topic, b'{"value": 1, "id": "own"}'))])
    assert [source.context.keys.names[c] for c in source.context.keys.codes(found.keys)] == [expected]


def test_a_bare_value_needs_no_more_than_its_topic() -> None:
    source = made(MqttSettings(url="mqtt://h", topics=("#",), key="topic", format="value", fields={"value": "float"}))
    found = source.decode([batch(("a", b"21.5"), ("b", b"x"), ("a", b"22"))])
    assert found.columns["value"].tolist() == [21.5, 22.0]
    assert [(r.item, r.raw) for r in found.refused] == [(1, "b x")]


def test_the_topic_of_sparkplug_names_its_gateway_and_device() -> None:
    """A payload in protocol buffers, and one that is none: kept whole, though it is no text."""
    metric = b"\x0a\x01t" + b"\x20\x0a" + b"\x69" + struct.pack("<d", 21.5)
    good = b"\x12" + bytes([len(metric)]) + metric
    key = "topic[1]/topic[3]/topic[4]"
    source = made(MqttSettings(url="mqtt://h", topics=("#",), key=key, format="sparkplug", fields={"t": "float?"}))
    topic = "spBv1.0/plant/DDATA/gateway/press"
    payload = batch((topic, good), (topic, b"\xff\xff"), (topic, good))
    found = source.decode([payload])
    assert found.columns["t"].tolist() == [21.5, 21.5]
    assert [source.context.keys.names[code] for code in source.context.keys.codes(found.keys)] == [
        "plant/gateway/press"
    ] * 2
    (refused,) = found.refused
    pieces = source.readings(payload)
    assert pieces is not None
    assert opened(pieces[refused.item]) == (topic, b"\xff\xff")


class Broken:
    """A codec with a fault."""

    media_types = ()

    def __init__(self, codec: Any) -> None:
        self.codec = codec

    def decode(self, payloads: list[bytes]) -> Any:
        if b"crash" in payloads:
            raise RuntimeError("a fault")
        return self.codec.decode(payloads)


def test_a_fault_in_a_codec_costs_the_message_that_it_chokes_on() -> None:
    source = made()
    source.codec = Broken(source.codec)  # type: ignore[assignment]
    payload = batch(("t/a", b'{"value": 1}'), ("t/a", b"crash"), ("t/b", b'{"value": 2}'))
    found = source.decode([payload])
    assert found.columns["value"].tolist() == [1.0, 2.0]
    assert [(r.item, r.reason) for r in found.refused] == [(1, "could not be decoded: RuntimeError: a fault")]


# --- in tests ---


def test_a_row_of_a_test_names_what_comes_from_the_topic_or_the_topic_itself() -> None:
    source = made()
    for row in ({"sensor": "a", "room": "hall", "value": 1.5}, {"topic": "t/a/hall", "value": 1.5}):
        payload = source.given(row)
        assert payload is not None
        assert rows(source, [payload]) == [(0, "a", "hall", 1.5)]
    raw = source.again(sealed("t/a/hall", b'{"value": 1.5}'), "")
    assert raw is not None
    assert rows(source, [raw]) == [(0, "a", "hall", 1.5)]
    bare = source.again(b'{"value": 1.5}', "")
    assert bare is not None
    assert source.decode([bare]).refused[0].reason == 'the topic "" has no topic[1]'


# --- settings ---


@pytest.mark.parametrize(
    ("more", "setting", "said"),
    [
        ({"url": "http://h"}, "url", "must begin with mqtt:// or mqtts:// and a host"),
        ({"url": "tcp://h"}, "url", 'must begin with mqtt:// or mqtts:// and a host (did you mean "mqtt://"?)'),
        ({"url": "mqtt://h:x"}, "url", "is not an address"),
        ({"url": "mqtt://h/a"}, "url", "ends with the port"),
        ({"url": "mqtt://u:p@h", "username": "u"}, "username", "stands in the url, too"),
        ({"topics": ()}, "topics", "name them"),
        ({"topics": ("a", "a/*/c")}, "topics.1", '"a/*/c" has a "*" in it'),
        ({"topics": ("a", "a")}, "topics.1", '"a" stands there already'),
        ({"key": "topic[x]"}, "key", '"topic[x]" is no part of a topic'),
        ({"key": "id"}, "key_name", "is for a key that comes from the topic"),
        ({"key_name": "value"}, "key_name", '"value" is the name of a field'),
        ({"from_topic": {"value": "topic[0]"}}, "from_topic.value", "there is a field, or a key, of that name"),
        ({"from_topic": {"room": "topik"}}, "from_topic.room", '"topik" is no part of a topic'),
        ({"keepalive": duration("100 ms")}, "keepalive", 'must be at least "1 s"'),
        ({"session": duration("100 ms")}, "session", "must be whole seconds"),
        ({"max_message": Size(0)}, "max_message", "must be at least 1 B"),
        ({"version": "3.1.1", "password": "x"}, "password", "goes with a username"),
        ({"client_id": "a\0b"}, "client_id", "has a NUL in it"),
        ({"username": "u" * 65_536}, "username", "has a NUL in it, or more than 65,535 bytes"),
        ({"will": {"topic": "a/#"}}, "will.topic", '"a/#" is not a topic'),
        ({"tls": {}}, "tls", "is for mqtts://"),
        ({"url": "mqtts://h", "tls": {"key": "k.pem"}}, "tls.key", "has no certificate"),
        ({"fields": {}}, "fields", "name the fields"),
    ],
)
def test_wrong_settings_are_told(more: dict[str, Any], setting: str, said: str) -> None:
    from pipeline.quantity import convert

    settings = msgspec.convert(msgspec.structs.asdict(TOPICAL) | more, MqttSettings, dec_hook=convert_or_keep(convert))
    context = SourceContext("sensors", KeyTable())
    Mqtt(settings, context)
    assert [(place, text[: len(said)]) for place, text in context.problems] == [(setting, said)]


def convert_or_keep(convert: Any) -> Any:
    return lambda kind, value: value if isinstance(value, kind) else convert(kind, value)


def test_the_client_id_is_made_of_names_and_stays_the_same() -> None:
    assert made().broker.client_id == "headwater-plant-sensors"
    own = msgspec.structs.replace(TOPICAL, client_id="mine", url="mqtts://u%40x:p%3A@[::1]")
    source = made(own)
    assert source.broker.client_id == "mine"
    assert source.broker.shown == "mqtts://[::1]:8883"
    assert (source.broker.username, source.broker.password) == ("u@x", "p:")


EXAMPLE = """
[pipeline]
name = "example"

{}

[sinks.local]
type = "file"
input = "greenhouse"
path = "out.ndjson"
"""


def test_the_example_of_the_docstring_is_a_good_one(tmp_path: Path) -> None:
    doc = Mqtt.__doc__ or ""
    block = doc[doc.index("[sources.") : doc.index("The key is")]
    file = tmp_path / "pipeline.toml"
    file.write_text(EXAMPLE.format("\n".join(line.strip() for line in block.splitlines())))
    config, graph = look(file)
    assert config.problems + graph.problems == []


# --- the broker ---


class Taken:
    """An inbox, and the engine behind it: what is offered becomes durable when the test says so."""

    def __init__(self) -> None:
        self.payloads: list[Payload] = []
        self.room = 1_000_000
        self.changed = asyncio.Event()

    def offer(self, payload: Payload) -> bool:
        if self.room <= 0:
            return False
        self.room -= 1
        self.payloads.append(payload)
        self.changed.set()
        return True

    async def put(self, payload: Payload) -> None:
        while not self.offer(payload):
            self.changed.clear()
            await self.changed.wait()

    async def taken(self) -> None:
        raise AssertionError("it waits for no step")

    def end(self) -> None:
        raise AssertionError("there may always be another message")

    def make_room(self, room: int) -> None:
        self.room = room
        self.changed.set()

    def commit(self, failed: str | None = None) -> Any:
        """All of it; the last position."""
        payloads, self.payloads = self.payloads, []
        for payload in payloads:
            if payload.done is not None:
                payload.done(Receipt(1, [], failed))
        return next((p.position for p in reversed(payloads) if p.position is not None), None)

    async def until(self, count: int) -> list[bytes]:
        """So many messages."""

        def come() -> list[bytes]:
            return [data for p in self.payloads for data in p.data.payloads]

        await eventually(lambda: len(come()) >= count, lambda: f"{len(come())} messages came")
        return come()


SIMPLE = MqttSettings(url="mqtt://h", topics=("t/#",), fields={"value": "float"})


class Running:
    def __init__(self, stack: AsyncExitStack, broker: Stub, position: Any = None, **more: Any) -> None:
        version: Any = "5" if broker.version == 5 else "3.1.1"
        url = f"mqtt://127.0.0.1:{broker.port}"
        self.source = made(msgspec.structs.replace(SIMPLE, url=url, version=version, **more))
        self.inbox = Taken()
        self.task = asyncio.create_task(self.source.run(self.inbox, position))
        stack.push_async_callback(self.stop)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def remembered(self) -> Any:
        """The first thing that is made durable: the topics of the session."""
        while not self.inbox.payloads:
            await asyncio.sleep(0.005)
        return self.inbox.commit()


async def test_topics_are_remembered_before_they_are_asked_for() -> None:
    """So whatever happens then, one that is taken out of the file can be given up."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        first = Running(stack, broker)
        await asyncio.sleep(0.05)
        await broker.nothing()
        position = await first.remembered()
        assert position["topics"] == ["t/#"]
        assert [s.topic for s in (await broker.took(Subscribe)).subscriptions] == ["t/#"]
        await first.stop()
        await broker.took(Disconnect)

        broker.welcome = ConnAck(True, 0)
        second = Running(stack, broker, position, topics=("u/#",))
        position = await second.remembered()
        assert position["topics"] == ["u/#", "t/#"]
        await broker.took(Subscribe)
        assert (await broker.took(Unsubscribe)).topics == ("t/#",)
        assert (await second.remembered())["topics"] == ["u/#"]


async def test_what_fails_is_not_acknowledged() -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        running = Running(stack, broker)
        await running.remembered()
        await broker.took(Subscribe)
        broker.send(*messages(1, 2))
        await running.inbox.until(2)
        await broker.nothing()
        running.inbox.commit(failed="stopping")
        await broker.nothing()


async def test_qos_2_is_exactly_once_over_a_crash() -> None:
    """At each moment: before and after the commit, before and after PUBREC, PUBREL and PUBCOMP. The position is what was
    committed last; whatever the broker sends again is new if, and only if, it was not."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        first = Running(stack, broker, qos=2)
        position = await first.remembered()
        await broker.took(Subscribe)
        broker.send(*messages(1, qos=2))
        await first.inbox.until(1)
        await first.stop()  # killed before the commit: `position` is still the old one
        await broker.took(Disconnect)
        broker.welcome = ConnAck(True, 0)

        second = Running(stack, broker, position, qos=2)
        await broker.took(Subscribe)
        broker.send(*messages(1, qos=2, duplicate=True))
        assert await second.inbox.until(1) == [b"1"]
        position = second.inbox.commit()
        assert position["unreleased"] == [1]
        assert await broker.took(Ack) == Ack(PUBREC, 1)
        await second.stop()  # killed after it; the broker may have got the PUBREC, or not
        await broker.took(Disconnect)

        third = Running(stack, broker, position, qos=2)
        await broker.took(Subscribe)
        broker.send(*messages(1, qos=2, duplicate=True), *messages(2, qos=2))
        assert await third.inbox.until(1) == [b"2"]
        third.inbox.commit()
        assert [(await broker.took(Ack)) for _ in range(2)] == [Ack(PUBREC, 1), Ack(PUBREC, 2)]
        broker.send(Ack(PUBREL, 1))
        while not third.inbox.payloads:
            await asyncio.sleep(0.005)
        await broker.nothing()  # the id may be used anew once PUBCOMP is sent: first it must be durable that it is free
        position = third.inbox.commit()
        assert position["unreleased"] == [2]
        assert await broker.took(Ack) == Ack(PUBCOMP, 1)


async def test_what_is_known_of_a_session_holds_for_no_other() -> None:
    """Of another broker or client id nothing; and if the broker has lost the session, that is durable before it goes on."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        url = f"mqtt://127.0.0.1:{broker.port}"
        position = {"session": f"{url}/headwater-plant-sensors", "topics": ["t/#"], "unreleased": [1]}
        lost = Running(stack, broker, position, qos=2)
        assert (await lost.remembered())["unreleased"] == []
        await lost.remembered()
        await broker.took(Subscribe)
        broker.send(*messages(1, qos=2))
        assert await lost.inbox.until(1) == [b"1"]
        await lost.stop()
        await broker.took(Disconnect)

        broker.welcome = ConnAck(True, 0)
        other = Running(stack, broker, position | {"session": "mqtt://elsewhere/x"}, qos=2)
        await other.remembered()
        await broker.took(Subscribe)
        broker.send(*messages(1, qos=2, duplicate=True))
        assert await other.inbox.until(1) == [b"1"]


async def test_a_full_inbox_stops_reading_and_loses_nothing() -> None:
    """Not even if the connection breaks meanwhile: what is held goes in first, and what the broker repeats is known."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        running = Running(stack, broker, keepalive=duration("1 s"))  # who does not read finds out by pinging
        await running.remembered()
        await broker.took(Subscribe)
        running.inbox.room = 1
        broker.send(*messages(1))
        assert await running.inbox.until(1) == [b"1"]
        for i in (2, 3, 4):
            broker.send(*messages(i))
            await asyncio.sleep(0.03)
        assert await running.inbox.until(1) == [b"1"]
        broker.hang_up()
        broker.welcome = ConnAck(True, 0)
        while len(broker.connects) < 2:
            await asyncio.sleep(0.01)
        await broker.took(Subscribe)
        broker.send(*messages(1, 2, 3, 4, duplicate=True))
        await asyncio.sleep(0.05)
        running.inbox.make_room(100)
        assert await running.inbox.until(4) == [b"1", b"2", b"3", b"4"]
        await asyncio.sleep(0.05)
        running.inbox.commit()
        assert [(await broker.took(Ack)).id for _ in range(4)] == [1, 2, 3, 4]
        broker.send(*messages(5))
        assert await running.inbox.until(1) == [b"5"]


async def test_what_is_held_goes_in_before_what_comes_after_it() -> None:
    """Also if there is room again before anybody has looked."""
    inbox = Taken()
    feed = Feed(made(), inbox)
    inbox.room = 0
    sent = [Payload(Messages(), i) for i in range(3)]
    feed._put(sent[0], None)
    inbox.make_room(10)
    feed._put(sent[1], None)
    working = asyncio.create_task(feed.work())
    await asyncio.sleep(0)
    feed._put(sent[2], None)
    await asyncio.sleep(0.01)
    working.cancel()
    assert [payload.size for payload in inbox.payloads] == [0, 1, 2]


async def test_a_refused_topic_is_told_and_asked_for_again_while_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.reconnect.FIRST_S", 0.05)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        broker.grants = False
        running = Running(stack, broker, topics=("t/#", "secret"))
        await running.remembered()
        broker.send(SubAck((await broker.took(Subscribe)).id, (1, 0x87)))
        broker.send(*messages(1))
        assert await running.inbox.until(1) == [b"1"]
        assert running.source.trouble == f'{running.source.broker.shown}: no "secret": not authorized'
        asked = await broker.took(Subscribe)
        assert [s.topic for s in asked.subscriptions] == ["secret"]
        broker.send(SubAck(asked.id, (1,)))
        while running.source.trouble:
            await asyncio.sleep(0.005)


async def test_if_every_topic_is_refused_it_connects_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reconnect.FIRST_S", 0.05)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        broker.grants = False
        running = Running(stack, broker)
        await running.remembered()
        broker.send(SubAck((await broker.took(Subscribe)).id, (0x87,)))
        await broker.took(Disconnect)
        assert running.source.trouble == f'{running.source.broker.shown}: no "t/#": not authorized'
        await running.remembered()
        asked = await broker.took(Subscribe)
        broker.send(SubAck(asked.id, (1,)))
        while running.source.trouble:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("retained", "present", "expected"),
    [("new", True, [b"2", b"3"]), ("new", False, [b"1", b"2", b"3"]), ("never", False, [b"2", b"3"])],
)
async def test_of_an_older_broker_retained_messages_that_are_not_wanted_are_left_out(
    retained: str, present: bool, expected: list[bytes]
) -> None:
    """It cannot be asked not to send them. A repeated one was wanted once, and is taken; all are acknowledged."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub(4))
        broker.welcome = ConnAck(present, 0)
        running = Running(stack, broker, retained=retained)
        await running.remembered()
        await broker.took(Subscribe)
        kept = [Publish("t/x", str(i).encode(), 1, True, i == 2, i) for i in (1, 2)]
        broker.send(*kept, *messages(3))
        assert await running.inbox.until(len(expected)) == expected
        running.inbox.commit()
        assert [await broker.took(Ack) for _ in range(3)] == [Ack(PUBACK, i) for i in (1, 2, 3)]


async def test_without_a_session_nothing_is_remembered() -> None:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(stub())
        running = Running(stack, broker, session=duration("0 s"))
        await broker.took(Subscribe)
        assert broker.connects[0].clean
        assert running.inbox.payloads == []
