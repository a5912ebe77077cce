"""From the outbox to the sinks that deliver: at least once, each batch the same on every try, never holding up the rest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.component import Batch, Buffer, Outcome, Sink
from pipeline.frame import KeyTable, Schema, instant_text
from pipeline.journal import alerts, outbox
from pipeline.reconnect import pause

if TYPE_CHECKING:
    from pipeline.clock import Clock
    from pipeline.journal.commit import Store

log = logging.getLogger("headwater")

LONGEST_ASKED_S = 3_600.0  # a peer that asks for more with Retry-After is tried again all the same


class Courier:
    """One sink's task: takes the next batch, tries until it is delivered or refused for good, takes the next."""

    def __init__(self, name: str, sink: Sink, delivery: Delivery) -> None:
        assert sink.buffer is not None
        self.name = name
        self.sink = sink
        self.buffer = sink.buffer
        self.delivery = delivery
        self.store = delivery.store
        self.more = asyncio.Event()
        self.failures = 0  # in a row
        self.last_error = ""
        self.retry_at: float | None = None  # loop time
        self.sending = False
        self.failing = False  # the peer could not be reached, perhaps in an earlier life
        self.turns = ("live", "backlog")  # whose turn it is while there is a backlog
        self.backlog_at = 0.0  # loop time from which on the next of the backlog may go
        self.room = Room(name, self.buffer, delivery)

    async def run(self) -> None:
        self.failing = await self.store.read(lambda db: outbox.failing(db, self.name))
        resumed = await self.store.read(lambda db: outbox.unfinished(db, self.name))
        while True:
            self.more.clear()
            bounds, wait = await self._next()
            if bounds is None:
                await self._something_new(wait)
                continue
            batch = await self._load(bounds)
            batch.resumed = resumed is not None and bounds.key == resumed.key
            await self._until_done(bounds, batch)

    async def _load(self, bounds: outbox.Bounds) -> Batch:
        return await self.store.read(lambda db: outbox.load(db, self.name, bounds))

    async def _next(self) -> tuple[outbox.Bounds | None, float | None]:
        """The batch to send, or how long to wait for one (None: until something comes)."""

        def look(db: Any) -> tuple[outbox.Bounds | None, int, int | None]:
            behind = outbox.backlog(db, self.name)
            return outbox.unfinished(db, self.name), behind, outbox.oldest(db, self.name, behind)

        bounds, behind, oldest = await self.store.read(look)
        if bounds is not None or (not behind and oldest is None):
            return bounds, None
        now = self.delivery.clock.wall()
        key, rows, wait = self.delivery.new_key(), self.buffer.rows, self.buffer.wait
        until = self.backlog_at - asyncio.get_running_loop().time()
        turns = self.turns if until <= 0 else ("live",)
        bounds = await self.store.write(lambda db: outbox.begin(db, self.name, key, rows, now - wait, now, turns))
        due = [until] if behind else []
        if oldest is not None:
            due.append(min(oldest + wait - now, wait) / 1e9)
        return bounds, max(0.01, min(due))

    async def _until_done(self, bounds: outbox.Bounds, batch: Batch) -> None:
        while True:
            outcome = await self._try(bounds, batch)
            if outcome.delivered or outcome.refused:
                await self._finish(bounds, batch, outcome)
                return
            self.failures += 1
            self.last_error = outcome.reason
            if not self.failing:
                self.failing = True
                await self.store.write(lambda db: outbox.fail(db, self.name))
            if self.failures == 1:
                log.warning("%s: delivery fails, the rows are kept and tried again: %s", self.name, outcome.reason)
            delay = self._delay(outcome)
            self.retry_at = asyncio.get_running_loop().time() + delay
            await asyncio.sleep(delay)
            self.retry_at = None

    async def _something_new(self, seconds: float | None) -> None:
        """Until something has come to the outbox, or that time has passed."""
        # Not asyncio.wait_for: up to Python 3.11 it loses a cancellation that comes together with the event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.more.wait()

    async def _try(self, bounds: outbox.Bounds, batch: Batch) -> Outcome:
        batch.attempt += 1
        self.sending = True
        try:
            return await self.sink.deliver(batch)
        except (OSError, TimeoutError) as error:
            return Outcome(reason=str(error) or type(error).__name__)
        except Exception as error:
            log.exception("%s: delivery failed", self.name)
            return Outcome(reason=f"{type(error).__name__}: {error}")
        finally:
            self.sending = False

    def _delay(self, outcome: Outcome) -> float:
        """Exponential back-off with full jitter, or what the peer asked for."""
        if outcome.retry_after is not None:
            return min(max(outcome.retry_after, 0.0), LONGEST_ASKED_S)
        return pause(self.failures, self.delivery.random)

    async def _finish(self, bounds: outbox.Bounds, batch: Batch, outcome: Outcome) -> None:
        clock, keys = self.delivery.clock.wall(), self.delivery.keys.names
        refused = outcome.rejected if outcome.delivered else dict.fromkeys(range(len(batch)), outcome.reason)

        def work(db: Any) -> int:
            outbox.refuse(db, self.name, batch, self.delivery.schemas, keys, clock, refused)
            before = 0
            for stream, frame in batch.parts:
                if (schema := self.delivery.schemas.get(stream)) and schema.role == "alerts":
                    self._note(db, alerts.rows_of(stream, frame), before, refused)
                before += len(frame)
            freed = outbox.finish(db, self.name, bounds, len(batch), refused=len(refused))
            if self.failing:
                outbox.recover(db, self.name, in_order=self.buffer.in_order)
            return freed

        await self.room.freed_by(work)
        self.room.changed.set()
        self.failing = False
        self._take_turns(bounds, len(batch))
        if refused:
            self.last_error = next(iter(refused.values()))
            log.warning("%s: %d rows were refused for good: %s", self.name, len(refused), self.last_error)
        elif self.failures:
            log.warning("%s: delivers again", self.name)
            self.last_error = ""
        self.failures = 0

    def _note(self, db: Any, rows: Sequence[alerts.Row], first: int, refused: Mapping[int, str]) -> None:
        """What became of rows of an alert; `first` is the place of the first one in its batch."""
        for fate, refusal in (("sent", False), ("refused", True)):
            alerts.note(db, self.name, [r for i, r in enumerate(rows, first) if (i in refused) is refusal], fate)

    def _take_turns(self, bounds: outbox.Bounds, rows: int) -> None:
        """What came since an outage and what it left behind go in turns, the latter no faster than `rate`."""
        if bounds.lane != "rows":
            return
        self.turns = ("live", "backlog") if bounds.recovered else ("backlog", "live")
        if bounds.recovered:
            now = asyncio.get_running_loop().time()
            self.backlog_at = max(now, self.backlog_at) + rows / self.buffer.rate

    async def status(self) -> dict[str, Any]:
        held, silenced = await self.store.read(
            lambda db: (outbox.status(db, self.name), alerts.silenced(db, self.name))
        )
        retry = None
        if self.retry_at is not None:
            retry = round(max(0.0, self.retry_at - asyncio.get_running_loop().time()), 3)
        return {
            "sink": self.name,
            "state": self._state(held),
            "waiting": held.rows,
            "backlog": held.backlog,
            "bytes": held.bytes,
            "oldest": None if held.oldest is None else instant_text(held.oldest),
            "sent": held.sent,
            "failed": held.refused,
            "dropped": held.dropped,
            "thinned": held.thinned,
            "silenced": silenced,
            "attempts": self.failures,
            "retry_in": retry,
            "last_error": self.last_error or None,
            "warning": self.room.warning or None,
        }

    def _state(self, held: outbox.Waiting) -> str:
        if self.failures:
            return "retrying"
        if held.backlog and not self.failing:
            return "catching up"
        return "sending" if self.sending else "waiting" if held.rows else "idle"


class Room:
    """Keeps one sink's outbox within its size, also while a request is on its way or the peer is silent for hours."""

    def __init__(self, name: str, buffer: Buffer, delivery: Delivery) -> None:
        self.name = name
        self.size = buffer.size
        self.when_full = buffer.when_full
        self.delivery = delivery
        self.store = delivery.store
        self.changed = asyncio.Event()
        self.held = 0  # bytes of the entries up to `counted`: to sum them anew at each wake would cost more with each
        self.counted = 0
        self.short = False  # the limit was reached, and half of it has not been free since
        self.warning = ""
        self._counting = asyncio.Lock()

    @property
    def full(self) -> bool:
        return self.held > self.size

    async def keep(self) -> None:
        while True:
            self.changed.clear()
            await self._count()
            if self.full and self.when_full != "block":
                await self._make()
            elif 2 * self.held < self.size:
                self.short = False
            await self._tell()
            await self.changed.wait()

    async def _count(self) -> None:
        async with self._counting:
            more, self.counted = await self.store.read(lambda db: outbox.grown(db, self.name, self.counted))
            self.held += more

    async def freed_by(self, work: Callable[[Any], int | None]) -> int | None:
        """`work` in a transaction; it says how many bytes it freed."""

        def counting(db: Any) -> tuple[tuple[int, int], int | None]:
            return outbox.grown(db, self.name, self.counted), work(db)

        was_full = self.full
        async with self._counting:
            (more, self.counted), freed = await self.store.write(counting)
            self.held += more - (freed or 0)
        if was_full and not self.full:
            self.delivery.freed()
        return freed

    async def _make(self) -> None:
        """Thin the oldest rows, a chunk at a time, down to a little below the size; drop them where that is not enough."""
        if not self.short:
            done = "thinned" if self.when_full == "thin" else "dropped"
            log.warning("%s: the buffer is full, from now on its oldest rows are %s", self.name, done)
            self.short = True
        enough = int(self.size * outbox.SPARE)
        if self.when_full == "thin":
            schemas = self.delivery.schemas
            while self.held > enough:
                if await self.freed_by(lambda db: outbox.make_thinner(db, self.name, schemas)) is None:
                    break
        if self.full:
            over = self.held - enough
            await self.freed_by(lambda db: outbox.make_room(db, self.name, over))

    async def _tell(self) -> None:
        """Rows that must be kept are, even if they alone are more than the size: that is told."""
        kept = 0
        if self.full and self.when_full != "block":
            kept = await self.store.read(lambda db: outbox.kept(db, self.name))
        before, self.warning = self.warning, ""
        if kept > self.size:
            self.warning = f"alerts alone take {kept:,} bytes of a buffer of {self.size:,}; they are kept"
            if not before:
                log.warning("%s: %s", self.name, self.warning)


class Delivery:
    """The couriers of all delivering sinks."""

    def __init__(
        self,
        sinks: Mapping[str, Sink],
        store: Store,
        clock: Clock,
        keys: KeyTable,
        schemas: dict[str, Schema],
        *,
        random_: random.Random | None = None,
        new_key: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.store = store
        self.clock = clock
        self.keys = keys
        self.schemas = schemas
        self.random = random_ or random.Random()
        self.new_key = new_key
        self.couriers = {name: Courier(name, sink, self) for name, sink in sinks.items()}
        self.freed: Callable[[], None] = lambda: None  # called when a buffer that was full has room
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        couriers = self.couriers.values()
        self._tasks = [asyncio.create_task(c.run(), name=f"delivery {c.name}") for c in couriers]
        self._tasks += [asyncio.create_task(c.room.keep(), name=f"buffer {c.name}") for c in couriers]
        self._tasks += [asyncio.create_task(self._beside(c), name=f"sink {c.name}") for c in couriers]

    async def _beside(self, courier: Courier) -> None:
        try:
            await courier.sink.run()
        except Exception as error:
            log.exception("%s: it has failed beside its deliveries", courier.name)
            courier.sink.trouble = f"failed: {type(error).__name__}: {error}"

    def wake(self) -> None:
        """Something new is in the outbox."""
        for courier in self.couriers.values():
            courier.more.set()
            courier.room.changed.set()

    def blocked(self) -> bool:
        """A sink that blocks when its buffer is full is full: no more input may be taken."""
        return any(c.room.full for c in self.couriers.values() if c.buffer.when_full == "block")

    async def status(self) -> list[dict[str, Any]]:
        return [await courier.status() for courier in self.couriers.values()]

    async def drain(self, grace: float) -> None:
        """Let deliveries that succeed go on, for at most `grace` seconds: a finite pipeline hands over what it made."""
        until = asyncio.get_running_loop().time() + grace
        while asyncio.get_running_loop().time() < until:
            states = await self.status()
            if all(s["waiting"] == 0 or s["attempts"] for s in states):
                return
            await asyncio.sleep(0.05)

    async def close(self, grace: float) -> None:
        """Stop; a try under way is given `grace` seconds to end well."""
        until = asyncio.get_running_loop().time() + grace
        while any(c.sending for c in self.couriers.values()) and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.02)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        closing: list[Awaitable[None]] = [courier.sink.close() for courier in self.couriers.values()]
        await asyncio.gather(*closing, return_exceptions=True)
