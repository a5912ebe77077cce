"""The way of messages from the socket to the inbox."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.component import Inbox, Payload, Receipt
from pipeline.mqtt.stream import Messages

if TYPE_CHECKING:
    from pipeline.mqtt.client import Batch, Client
    from pipeline.sources.mqtt import Mqtt

MESSAGE_BYTES = 100  # what a message takes beside its own bytes: three places in lists, three objects


class Feed:
    """From the socket to the inbox: in order, and when that is full, slowly."""

    def __init__(self, source: Mqtt, inbox: Inbox) -> None:
        self.source = source
        self.inbox = inbox
        self._held: deque[tuple[Payload, Client | None]] = deque()
        self._more = asyncio.Event()

    def heard(self, batch: Batch) -> None:
        messages = self.source.wanted(batch)
        if not messages and batch.unreleased is None:
            batch.acknowledge()
            return
        position = None if batch.unreleased is None else self.source.position(batch.unreleased)

        def done(receipt: Receipt) -> None:
            if receipt.failed is None:
                batch.acknowledge()

        self._put(Payload(messages, batch.size + MESSAGE_BYTES * len(messages), position, done=done), batch.client)

    async def remember(self) -> None:
        """Make durable what is known of the session."""
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(receipt: Receipt) -> None:
            if receipt.failed is None and not durable.done():
                durable.set_result(None)

        self._put(self._knowledge(done), None)
        await durable

    def remember_soon(self) -> None:
        self._put(self._knowledge(None), None)

    def _knowledge(self, done: Callable[[Receipt], None] | None) -> Payload:
        unreleased = sorted(self.source.under_way.unreleased)
        return Payload(Messages(), 0, self.source.position(unreleased), done=done)

    def _put(self, payload: Payload, client: Client | None) -> None:
        if not self._held and self.inbox.offer(payload):
            return
        # What is held stays so over a new connection: its packet ids are known, and would not be taken again.
        if client is not None:
            client.pause()
        self._held.append((payload, client))
        self._more.set()

    async def work(self) -> None:
        """Bring what is held into the inbox as there is room."""
        while True:
            while self._held:
                payload, client = self._held[0]
                await self.inbox.put(payload)
                self._held.popleft()
                if client is not None and all(other is not client for _, other in self._held):
                    client.resume()
            self._more.clear()
            await self._more.wait()
