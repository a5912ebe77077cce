"""What sources share that are posted to: a request waits until its readings are durable."""

from __future__ import annotations

import asyncio

from pipeline.component import Inbox, Payload, Receipt
from pipeline.web import HttpProblem

RETRY_AFTER_S = "1"

_STOPPED = Receipt(0, [], "the pipeline is stopping")


class Posted:
    """Between the handlers of a source's requests and its inbox."""

    def __init__(self) -> None:
        self._inbox: Inbox | None = None  # only while the engine runs
        self._waiting: dict[asyncio.Future[Receipt], None] = {}  # in order

    async def run(self, inbox: Inbox) -> None:
        """For as long as the source runs."""
        self._inbox = inbox
        try:
            await asyncio.Event().wait()  # requests bring what there is
        finally:
            # Nobody will work off what still waits: its senders are told, and send it again.
            self._inbox = None
            for future in self._waiting:
                if not future.done():
                    future.set_result(_STOPPED)

    async def take(self, payload: Payload) -> Receipt:
        """Its receipt, once it is durable. HttpProblem: 429 if there is no room, 503 if nothing was kept."""
        inbox = self._inbox
        if inbox is None:
            raise _unavailable("the pipeline is starting or stopping")
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()

        def done(receipt: Receipt) -> None:
            if not future.done():  # the server may have given up the request
                future.set_result(receipt)

        payload.done = done
        if not inbox.offer(payload):
            raise HttpProblem(429, "too much is waiting; come back later", {"Retry-After": RETRY_AFTER_S})
        self._waiting[future] = None
        try:
            receipt = await future
        finally:
            self._waiting.pop(future, None)
        if receipt.failed is not None:
            raise _unavailable(f"nothing was kept: {receipt.failed}")
        return receipt


def _unavailable(detail: str) -> HttpProblem:
    return HttpProblem(503, detail, {"Retry-After": RETRY_AFTER_S})
