"""Where what arrives waits for the next step. Bounded: at the limit the source slows down."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

from msgspec import Struct

from pipeline.clock import ArrivalClock
from pipeline.component import Payload, Receipt

# Two chunks of a file: one being worked on, one read ahead. 10,000 HTTP requests of the usual size are less.
INBOX_BYTES = 4_000_000
INBOX_PAYLOADS = 10_000
# What one step takes from a source at most: larger Frames are no cheaper a reading, only later and bigger in memory.
STEP_BYTES = 1_000_000
REQUESTS_KEPT = 10_000  # answers to requests with an Idempotency-Key that are remembered, a source

_ENTRY_BYTES = 200  # what a payload costs beside its data


class Waiting(Struct):
    order: int  # of arrival, over all sources
    payload: Payload


class Order:
    """Numbers what arrives, over all sources, and tells how much of it waits."""

    def __init__(self) -> None:
        self.next = 0
        self.bytes = 0  # that wait, in all inboxes

    def take(self, size: int) -> int:
        self.next += 1
        self.bytes += size
        return self.next


class Requests:
    """What was answered to requests with an Idempotency-Key: a repeated one is answered alike and counted once."""

    def __init__(self) -> None:
        self.answers: OrderedDict[str, Receipt] = OrderedDict()
        self.under_way: dict[str, list[Callable[[Receipt], None]]] = {}

    def repeated(self, request: str, done: Callable[[Receipt], None] | None) -> bool:
        """True if it has come before: its answer is given now, or along with the first one's."""
        answer = self.answers.get(request)
        if answer is not None:
            if done:
                done(answer._replace(repeated=True))
            return True
        if request in self.under_way:
            if done:
                self.under_way[request].append(done)
            return True
        return False

    def begin(self, request: str) -> None:
        self.under_way[request] = []

    def answered(self, request: str, receipt: Receipt) -> None:
        """The request's readings are durable (or failed: then it may come again)."""
        if receipt.failed is None:
            self.remember(request, receipt)
        for done in self.under_way.pop(request, ()):
            done(receipt._replace(repeated=True))

    def remember(self, request: str, receipt: Receipt) -> None:
        self.answers[request] = receipt
        if len(self.answers) > REQUESTS_KEPT:
            self.answers.popitem(last=False)


class BoundedInbox:
    """The inbox of one source. Limits: `INBOX_BYTES` and `INBOX_PAYLOADS`; one payload always fits into an empty one."""

    def __init__(self, order: Order, clock: ArrivalClock, wake: Callable[[], None]) -> None:
        self.order = order
        self.clock = clock
        self.wake = wake
        self.requests = Requests()
        self.ended = False
        self.closed = False  # the engine is stopping, or a sink that blocks is full: nothing more is taken
        self.refused = 0  # payloads turned away because it was full
        self._waiting: deque[Waiting] = deque()
        self._bytes = 0
        self._room = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def fill(self) -> int:
        """Bytes that wait."""
        return self._bytes

    def _has_room(self) -> bool:
        full = self._bytes >= INBOX_BYTES or len(self._waiting) >= INBOX_PAYLOADS
        return not self.closed and not full

    def offer(self, payload: Payload) -> bool:
        """Take it if there is room."""
        if payload.request is not None and self.requests.repeated(payload.request, payload.done):
            return True
        if not self._has_room():
            self.refused += 1
            return False
        if payload.request is not None:
            self.requests.begin(payload.request)
        if not payload.arrival:
            payload.arrival = self.clock.stamp()
        size = payload.size + _ENTRY_BYTES
        self._waiting.append(Waiting(self.order.take(size), payload))
        self._bytes += size
        self.wake()
        return True

    async def put(self, payload: Payload) -> None:
        """Take it, waiting for room."""
        while not self._has_room():
            self._room.clear()
            await self._room.wait()
        self.offer(payload)

    async def taken(self) -> None:
        """Wait until nothing waits."""
        while self._waiting:
            self._room.clear()
            await self._room.wait()

    def end(self) -> None:
        """Nothing more will come."""
        self.ended = True
        self.wake()

    def take(self) -> list[Waiting]:
        """What the next step works on: up to `STEP_BYTES`, at least one payload if any waits."""
        before = self._bytes
        if before <= STEP_BYTES:
            taken = list(self._waiting)
            self._waiting.clear()
            self._bytes = 0
        else:
            taken = self._take_some()
        if taken:
            self.order.bytes -= before - self._bytes
            self._room.set()
        return taken

    def _take_some(self) -> list[Waiting]:
        taken: list[Waiting] = []
        size = 0
        while self._waiting and (not taken or size + self._waiting[0].payload.size <= STEP_BYTES):
            waiting = self._waiting.popleft()
            size += waiting.payload.size
            self._bytes -= waiting.payload.size + _ENTRY_BYTES
            taken.append(waiting)
        return taken

    def close(self, closed: bool = True) -> None:
        """Take nothing more, or take again."""
        self.closed = closed
        if not closed:
            self._room.set()
