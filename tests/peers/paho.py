"""The other side, with paho: what other people's devices and programs are made with."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, Self

import pytest

from tests.waiting import PATIENCE_S, eventually

mqtt = pytest.importorskip("paho.mqtt.client")


class Paho:
    """A client with a thread of its own; its methods wait without holding up the loop."""

    def __init__(self, port: int, client_id: str = "", *, account: tuple[str, str] | None = None, **more: Any) -> None:
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5, **more)
        self.client.max_inflight_messages_set(20)
        self.client.on_message = self._heard
        if account is not None:
            self.client.username_pw_set(*account)
        self.port = port
        self.heard: list[Any] = []
        self._subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: self._subscribed.set()

    def _heard(self, _: Any, __: Any, message: Any) -> None:
        self.heard.append(message)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.client.connect, "127.0.0.1", self.port)
        self.client.loop_start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)

    async def publish(self, messages: Sequence[tuple[str, bytes | str]], qos: int = 1, retain: bool = False) -> None:
        """Returns once the broker has them."""
        sent = [self.client.publish(topic, payload, qos, retain) for topic, payload in messages]
        while not all(one.is_published() for one in sent):
            await asyncio.sleep(0.01)

    async def subscribe(self, topic: str, qos: int = 1) -> None:
        self._subscribed.clear()
        self.client.subscribe(topic, qos)
        assert await asyncio.to_thread(self._subscribed.wait, PATIENCE_S)

    async def until(self, count: int) -> list[tuple[str, bytes]]:
        """Topics and payloads, once so many have come."""

        def heard() -> list[tuple[str, bytes]]:
            return [(m.topic, m.payload) for m in self.heard]

        await eventually(lambda: len(self.heard) >= count, heard)
        return heard()

    async def about(self, topic: str) -> bytes:
        """The payload of the first message of a topic, once it has come; others may come before it."""

        first = await eventually(
            lambda: next((m for m in self.heard if m.topic == topic), None),
            lambda: f"nothing about {topic}, but {sorted({m.topic for m in self.heard})}",
        )
        return bytes(first.payload)
