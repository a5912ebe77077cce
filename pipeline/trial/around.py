"""What is around a pipeline in a trial: the senders of its readings, and the other ends of its delivering sinks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.component import Batch, Inbox, Outcome, Payload, Receipt, Source
from pipeline.frame import Frame

if TYPE_CHECKING:
    from pipeline.intake import Intake

Reading = Mapping[str, Any] | bytes


class Sender:
    """Gives one source its readings, in order. What was not acknowledged when the pipeline was killed is given again, as by
    a client that has had no answer, or a broker."""

    def __init__(self, expected: int) -> None:
        self.left = expected  # readings that are still to come
        self.waiting: deque[Reading] = deque()
        self.unanswered: dict[int, Reading] = {}
        self._number = 0
        self._source: Source | None = None
        self._inbox: Inbox | None = None  # None: nobody listens
        self._pushing = False  # the inbox was full: the next one waits for room
        self._more = asyncio.Event()

    def give(self, reading: Reading) -> None:
        self.left -= 1
        self.waiting.append(reading)
        self._send()
        self._more.set()

    def hang_up(self) -> None:
        self._inbox, self._pushing = None, False

    async def run(self, intake: Intake) -> None:
        """In the place of the source's own `run`."""
        self._source, self._inbox = intake.source, intake.inbox
        self.waiting.extendleft(reversed(self.unanswered.values()))
        self.unanswered.clear()
        try:
            while True:
                self._more.clear()
                self._send()
                if self.waiting:
                    await self._push(intake.inbox)
                    continue
                if not self.left and not intake.source.live:
                    intake.inbox.end()
                await self._more.wait()
        finally:
            self.hang_up()

    def _send(self) -> None:
        while self.waiting and self._inbox is not None and not self._pushing:
            if not self._inbox.offer(self._payload(self.waiting[0])):
                del self.unanswered[self._number]
                break
            self.waiting.popleft()

    async def _push(self, inbox: Inbox) -> None:
        self._pushing = True
        payload = self._payload(self.waiting.popleft())  # counts as unanswered while it waits
        await inbox.put(payload)
        self._pushing = False

    def _payload(self, reading: Reading) -> Payload:
        assert self._source is not None
        made = self._source.again(reading, "") if isinstance(reading, bytes) else self._source.given(reading)
        assert made is not None  # read() has asked
        self._number += 1
        self.unanswered[self._number] = reading
        made.done = partial(self._answered, self._number)
        return made

    def _answered(self, number: int, receipt: Receipt) -> None:
        if receipt.failed is None:
            self.unanswered.pop(number, None)


class Peer:
    """The other end of a delivering sink. It takes a batch in no time, so no kill comes between that and the sink's note
    of it; and it can be out of reach."""

    def __init__(self, tell: Callable[[str, Frame, bool], None]) -> None:
        self.tell = tell  # the stream, the rows, did they wait while it was out of reach
        self.online = True

    async def deliver(self, batch: Batch) -> Outcome:
        """In the place of the sink's own."""
        if not self.online:
            return Outcome(reason="out of reach")
        for stream, frame in batch.parts:
            self.tell(stream, frame, batch.recovered)
        return Outcome(delivered=True)
