"""What sources share that are posted to: a request waits until its readings are durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.component import Inbox, Payload, Receipt
from pipeline.web import HttpProblem

RETRY_AFTER_S = "1"

_STOPPED = Receipt(0, [], "the pipeline is stopping")


class Posted:
    """Between the handlers of a source's requests and its inbox."""

    def __init__(self) -> None:
        self._inbox: Inbox | None = None  # only while the engine runs
        self._waiting: dict[int, Callable[[Receipt], None]] = {}  # in order
        self._last = 0  # number of one that waits

    async def run(self, inbox: Inbox) -> None:
        """For as long as the source runs."""
        self._inbox = inbox
        try:
            await asyncio.Event().wait()  # requests bring what there is
        finally:
            # Nobody will work off what still waits: its senders are told, and send it again.
            self._inbox = None
            waiting, self._waiting = self._waiting, {}
            for told in waiting.values():
                told(_STOPPED)

    def hand(self, payload: Payload, told: Callable[[Receipt], None]) -> None:
        """Calls back with its receipt, once it is durable or never will be. HttpProblem: 429 if there is no room, 503 if
        nothing runs."""
        inbox = self._inbox
        if inbox is None:
            raise _unavailable("the pipeline is starting or stopping")
        self._last = number = self._last + 1

        def done(receipt: Receipt) -> None:
            if self._waiting.pop(number, None) is not None:  # it may have been told that all stops
                told(receipt)

        payload.done = done
        self._waiting[number] = told
        if not inbox.offer(payload):
            del self._waiting[number]
            raise HttpProblem(429, "too much is waiting; come back later", {"Retry-After": RETRY_AFTER_S})

    async def take(self, payload: Payload) -> Receipt:
        """Its receipt, once it is durable. HttpProblem: 429 if there is no room, 503 if nothing was kept."""
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()

        def told(receipt: Receipt) -> None:
            if not future.done():  # the server may have given up the request
                future.set_result(receipt)

        self.hand(payload, told)
        receipt = await future
        if receipt.failed is not None:
            raise lost(receipt)
        return receipt


def lost(receipt: Receipt) -> HttpProblem:
    """What to say where nothing was kept."""
    return _unavailable(f"nothing was kept: {receipt.failed}")


def _unavailable(detail: str) -> HttpProblem:
    return HttpProblem(503, detail, {"Retry-After": RETRY_AFTER_S})
