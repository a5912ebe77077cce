"""The loop: what arrived becomes a step, the step is pushed through the graph, committed, and only then acknowledged.

    inbox -> decode -> number, watermark -> graph -> one transaction -> receipts, latest values, deliverers

At most one step is being written while the next one is computed; what arrives meanwhile waits in the inboxes and shares
the step after. So a slow disk makes larger steps, not a longer queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from pipeline.clock import ArrivalClock, DroppingClock
from pipeline.component import Receipt
from pipeline.forgetting import Forgetting
from pipeline.frame import NO_PROGRESS, Frame, empty
from pipeline.graph import REFUSED
from pipeline.inbox import INBOX_BYTES, BoundedInbox, Order, Waiting
from pipeline.intake import Arrived, Intake, Tick, number, refused_frame, runs
from pipeline.journal import state
from pipeline.latest import Latest, LatestAlerts
from pipeline.letters import FAILED, NOTHING, Replay, failures, refusals
from pipeline.limits import HistoryLimits, frame_bytes
from pipeline.merge import FAR
from pipeline.outside import Outside
from pipeline.silence import Silence
from pipeline.writes import Writes

if TYPE_CHECKING:
    from pipeline.clock import Clock
    from pipeline.config import Config
    from pipeline.forgetting import Asked, Dropped
    from pipeline.graph import Forget, Graph
    from pipeline.journal.commit import Store
    from pipeline.journal.dead import Letter

log = logging.getLogger("headwater")

IN_FLIGHT = 2  # steps handed to the writer and not yet durable: one being written, one that waits
# What must wait for a second one to be begun while the first is written. Of little that comes one by one, the half of it
# would cost a step and a commit of its own, and be durable no sooner than all of it by the next.
WORTH_BYTES = 100_000
CHECKPOINT_STEPS = 2_000  # a restart replays at most about this many steps
CHECKPOINT_BYTES = 32_000_000  # or Frames of this size
CHECKPOINT_NS = 300_000_000_000  # or five minutes
HEARTBEAT_NS = 1_000_000_000  # while something waits for time to pass, time is looked at this often
_NONE_REFUSED = empty(REFUSED, NO_PROGRESS)
Told = tuple[str, Sequence[Waiting], list[Receipt]]  # what becomes of the payloads of a source in one step


class Engine:
    """A pipeline, running. `step` is the whole engine but for waiting; `run` waits, and calls it."""

    def __init__(self, config: Config, graph: Graph, store: Store, clock: Clock) -> None:
        self.config = config
        self.graph = graph
        self.store = store
        self.clock = clock
        self.settings = config.pipeline
        self.arrivals = ArrivalClock(clock)
        self.dropping = DroppingClock()
        self.files = store.files()
        self.number = 0  # of the last step
        self.next_seq = 0
        self.order = Order()
        self._awake = asyncio.Event()
        self.intakes = {
            name: Intake(name, source, BoundedInbox(self.order, self.arrivals, self._came))
            for name, source in graph.sources.items()
        }
        self.latest: dict[str, Latest] = {}
        self.alerts: dict[str, LatestAlerts] = {}
        self.not_understood: list[str] = []  # nodes whose saved state is of another version
        self.replays: deque[Replay] = deque()  # dead letters that wait for a step
        self.forgetting = Forgetting(graph, self.latest, self.alerts)
        # Called in the loop after each commit, with the arrival number below which everything is durable.
        self.published: list[Callable[[Writes, int], None]] = []
        self.blocked: Callable[[], bool] = lambda: False  # a sink that blocks has a full outbox
        self.stopping = False
        self.failed: BaseException | None = None
        self.in_flight = 0
        self.stamped = graph.reached_from(  # streams that are dated by this device's clock
            n for n, node in config.nodes.items() if node.kind == "source" and not getattr(node.settings, "time", None)
        )
        operators = [name for name, node in config.nodes.items() if node.kind == "operator"]
        self.read_by_operators = {stream for name in operators for stream in graph.inputs.get(name, ())}
        self.known_keys = len(graph.keys)  # how many are in the database, or on their way there
        self.steps_since = self.bytes_since = 0  # the last checkpoint
        self.silence = Silence(self.intakes.values(), clock, self.settings.idle, self.settings.disorder)
        self.checkpoint_at = self.committed_at = self.silence.now
        self.outside = Outside({name: edge.context for name, edge in graph.edges.items()}, self.wake)
        self.limits = HistoryLimits(graph.sinks.values(), self.silence.now)
        # The journal's Frames are the history's, but stay until the checkpoint: so they count against its size.
        smallest = self.limits.smallest
        self.checkpoint_bytes = CHECKPOINT_BYTES if smallest is None else min(CHECKPOINT_BYTES, smallest // 20)
        self.heartbeat: int | None = HEARTBEAT_NS  # None: this process is never stopped unawares

    def keep_latest(self, stream: str) -> None:
        """Keep the newest row of each key of a stream; it is part of the checkpoint."""
        schema = self.graph.streams[stream]
        self.latest.setdefault(stream, Latest(schema))
        if schema.role == "alerts":
            self.alerts.setdefault(stream, LatestAlerts(schema))

    def keys_of(self, stream: str) -> int:
        """How many keys a stream has of which the latest row is kept."""
        return self.latest[stream].keys()

    def wake(self) -> None:
        self._awake.set()

    def _came(self) -> None:
        """Something came into an inbox. What must wait for a commit anyhow is seen when that is done."""
        if self._may_step():
            self._awake.set()

    def stop(self) -> None:
        """Take nothing more, work off what has arrived, then end."""
        self.stopping = True
        for intake in self.intakes.values():
            intake.inbox.close()
        self.wake()

    async def begun(self) -> None:
        """Until the first commit of this start is done, and with it all that was found.

        What a process that was killed had written and not yet synced is in the system's cache: it is found, and a power cut
        may still take it. Before it is durable no batch may be sent and no request be answered on the strength of it.
        """
        await self._idle_writer()

    def replay_dead(self, letters: Sequence[Letter]) -> asyncio.Future[dict[int, str]]:
        """Try these dead letters once more in a step of their own. When that is durable: why those that stay could not be
        taken, by number. Nobody else may be trying one of them."""
        done: asyncio.Future[dict[int, str]] = asyncio.get_running_loop().create_future()
        self.replays.append(Replay(letters, done))
        self.wake()
        return done

    def forget(self, forget: Forget) -> asyncio.Future[Dropped]:
        """Keep nothing of a key but its history, from the next step on. When that is durable: the streams that showed it."""
        self.wake()
        return self.forgetting.ask(forget)

    # --- the loop ---

    async def run(self) -> None:
        """Until `stop`, or until every source is at its end; then all is committed and a checkpoint taken."""
        for intake in self.intakes.values():
            intake.listen(self.clock.monotonic())
        if self._checkpoint_due():  # a key was forgotten in the step that the journal ends with
            await self._checkpoint()
        while self.failed is None:
            self._awake.clear()
            self.silence.look()
            if self._may_step() and self._may_commit() and self._something_to_do():
                self.step()
                if self.limits.due(self.silence.now):
                    self._prune()
                if self._checkpoint_due():
                    await self._checkpoint()
                if self._may_step():
                    await asyncio.sleep(0)  # others get their turn between two steps
                continue
            if self.in_flight == 0 and self._finished():
                break
            await self._wait()
        await self._idle_writer()
        if self.failed is not None:
            raise self.failed
        await self._checkpoint()

    def _finished(self) -> bool:
        if any(len(i.inbox) for i in self.intakes.values()):
            return False
        return self.stopping or all(i.ended for i in self.intakes.values())

    def _something_to_do(self) -> bool:
        return self._arrived() or self._tick_due()

    def _arrived(self) -> bool:
        if self.replays or self.outside or self.forgetting:
            return True
        return any(len(i.inbox) or self._ends_now(i) for i in self.intakes.values())

    def _ends_now(self, intake: Intake) -> bool:
        """A finite source has brought all it had, and the graph has not been told."""
        return intake.inbox.ended and not intake.ended and not len(intake.inbox)

    def _may_step(self) -> bool:
        if self.in_flight == 0:
            return True
        return self.in_flight < IN_FLIGHT and self.order.bytes >= WORTH_BYTES

    def _may_commit(self) -> bool:
        """The least interval between commits is over, or there is no room to wait for it."""
        if self.stopping or self.silence.now - self.committed_at >= self.settings.commit:
            return True
        return any(i.inbox.fill() > INBOX_BYTES // 2 for i in self.intakes.values())

    async def _wait(self) -> None:
        """Until something arrives, a commit is done, or time makes something due."""
        self._take_in(not self.blocked())
        wait = self._next_look()
        self.silence.beating = wait is not None and self.heartbeat is not None
        timer = None if wait is None else asyncio.get_running_loop().call_later(wait / 1e9, self.wake)
        try:
            await self._awake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _take_in(self, open_: bool) -> None:
        for intake in self.intakes.values():
            if intake.inbox.closed is open_ and not self.stopping:
                intake.inbox.close(not open_)

    # --- time ---

    def _tick_due(self) -> bool:
        """Time alone would make rows leave, or ends a source's turn to hold others back."""
        due = self.graph.due()
        return due is not None and self.silence.reaches(due)

    def _next_look(self) -> int | None:
        """ns until time should be looked at; None: not before something arrives."""
        waits = []
        held = max(self.settings.commit - (self.silence.now - self.committed_at), 0)  # no step before that
        if self._arrived() and self._may_step():
            waits.append(held)
        if self.blocked():
            waits.append(self.heartbeat or HEARTBEAT_NS)
        if (due := self.graph.due()) is not None and self._may_step():
            untils = [w for i in self.intakes.values() if (w := self.silence.until(i, due)) is not None]
            waits += [min(max(w, held), self.heartbeat or FAR) for w in untils]
        return min(waits) if waits else None

    # --- one step ---

    def step(self) -> None:
        """Take what waits, push it through the graph, hand the result to the writer."""
        self.silence.look()
        clock = self.clock.wall()
        unsure = self.arrivals.unsure(clock)
        replay = self.replays.popleft() if self.replays else NOTHING
        self.next_seq = replay.begin(self.graph, self.next_seq)
        brought, self.next_seq = self.outside.take(self.next_seq)
        arrived = self._decode(clock, self.newest_allowed(clock), replay)
        numbers = dict(zip(arrived, number(list(arrived.values()), self.next_seq), strict=True)) if arrived else {}
        self.next_seq += sum(map(len, numbers.values()))
        self.number += 1
        asked = self.forgetting.take()
        entry = state.Entry(clock, self.next_seq, {}, self.arrivals.last, forgotten=[*asked.forgets])
        writes = Writes(self.files, self.number, entry)
        writes.unsure = self.stamped if unsure else ()
        frames: dict[str, Frame] = {}
        for name, intake in self.intakes.items():
            if name in arrived and len(arrived[name].waiting) > replay.readings(name):
                intake.listen(self.silence.now)
            idle, runs_to = self.silence.idle_for(intake), self.silence.runs_to(intake)
            ended = intake.ended or self._ends_now(intake)
            tick = Tick(clock, self.next_seq, runs_to, ended or idle is not None, ended)
            if name in arrived:
                frame = intake.frame(arrived[name], numbers[name], self.settings.disorder, tick)
            else:
                frame = intake.nothing(tick)
            frames[name] = frame
            self._journal(intake, arrived.get(name), frame, writes, whole=replay.readings(name) > 0)
            invalid = f"{name}.invalid"
            if invalid in self.graph.streams:
                frames[invalid] = self._refused(intake, arrived.get(name), frame, writes)
        self._push(frames, writes, replay, brought)
        self._commit(writes, arrived, frames, replay, asked)

    def newest_allowed(self, clock: int) -> int:
        """What is dated after this is refused. A clock that is not to be trusted cannot say what lies ahead of it."""
        return FAR if self.arrivals.unsure(clock) else clock + self.settings.max_future

    def _decode(self, clock: int, latest: int, replay: Replay) -> dict[str, Arrived]:
        arrived = {}
        for name, intake in self.intakes.items():
            if waiting := replay.waiting(name) + intake.inbox.take():
                arrived[name] = intake.decode(waiting, self.graph.keys, clock, latest)
                replay.judge(name, intake.source, arrived[name], clock)
        return arrived

    def _journal(
        self, intake: Intake, arrived: Arrived | None, frame: Frame, writes: Writes, *, whole: bool = False
    ) -> None:
        """What a restart needs to push the same Frame again. `whole`: not all of it can be read from a file again."""
        part = state.Part(watermark=intake.watermark, quiet=intake.quiet, ended=intake.ended)
        writes.entry.parts[intake.name] = part
        if arrived is None:
            return
        intake.taken += len(frame)
        position = arrived.waiting[-1].payload.position
        if position is not None:
            part.start, part.end = intake.position, position
            intake.position = writes.positions[intake.name] = position
        # What is dated by its arrival cannot be read again: it would get another time.
        if intake.source.replayable and intake.name not in self.stamped and not whole:
            part.read = True
            part.runs = runs(frame.seq)
        elif len(frame):
            writes.journal[intake.name] = frame
            self.bytes_since += frame_bytes(frame)

    def _refused(self, intake: Intake, arrived: Arrived | None, frame: Frame, writes: Writes) -> Frame:
        """The rows of `SOURCE.invalid`; they are dead letters too."""
        if arrived is None or not arrived.refused:
            return _NONE_REFUSED.with_progress(frame.progress)
        schema = self.graph.streams[f"{intake.name}.invalid"]
        intake.refused += len(arrived.refused)
        writes.letters += refusals(intake.name, intake.source, arrived, arrived.refused, frame.clock)
        seq = int(frame.seq[0]) if len(frame) else frame.progress.next_seq
        refused = refused_frame(schema, arrived, self.graph.keys, seq, frame.progress)
        if f"{intake.name}.invalid" in self.read_by_operators:
            writes.journal[f"{intake.name}.invalid"] = refused
            self.bytes_since += frame_bytes(refused)
        return refused

    def _push(self, frames: dict[str, Frame], writes: Writes, replay: Replay, brought: dict[str, Frame]) -> None:
        keys = self.graph.keys.names
        writes.injected = {**replay.injected, **brought}
        self.bytes_since += sum(map(frame_bytes, brought.values()))
        reached = self.graph.push(frames, writes.injected, writes.entry.forgotten)
        self.number_behind(reached)
        replay.deliver(self.graph, writes)
        for sink, stream, frame in reached:
            try:
                self.graph.sinks[sink].write(stream, frame, writes)
            except Exception as error:
                log.exception("sink %s failed", sink)
                reason = f"{type(error).__name__}: {error}"
                writes.letters += failures(sink, reason, frame, self.graph.streams[stream], keys, stream=stream)
        for guilty in self.graph.guilty:
            if not replay.failed_again(guilty.node, guilty.reason, guilty.rows):
                writes.letters += failures(*guilty[:4], keys, side=guilty.side)
        writes.letters += replay.new
        writes.replayed, writes.refused_again = replay.taken(), replay.failed

    def number_behind(self, reached: Iterable[tuple[str, str, Frame]]) -> None:
        """Rows that a tick made bear the next number, and it is theirs: what comes to the sinks in a later step has a higher
        one. So a single number tells how far a listener is (`since` in journal/history.py)."""
        self.next_seq = max([self.next_seq, *(int(frame.seq[-1]) + 1 for _, _, frame in reached if len(frame))])

    # --- the commit, and after it ---

    def _commit(
        self, writes: Writes, arrived: dict[str, Arrived], frames: dict[str, Frame], replay: Replay, asked: Asked
    ) -> None:
        names = self.graph.keys.names
        writes.keys = (self.known_keys, names[self.known_keys :])
        self.known_keys = len(names)
        told = [(name, came.waiting, came.receipts()) for name, came in arrived.items()]
        writes.requests = [
            (name, w.payload.request, receipt)
            for name, waiting, receipts in told
            for w, receipt in zip(waiting, receipts, strict=True)
            if w.payload.request is not None
        ]
        self.in_flight += 1
        self.count_step(writes.entry)
        self.limits.record(writes.history.values())
        end = self.next_seq
        self.committed_at = self.clock.monotonic()

        def done(_: Any, error: BaseException | None) -> None:
            self.in_flight -= 1
            if error is not None:
                self.failed = error
            else:
                self.show({**frames, **writes.history})
            asked.finish(error)
            if error is None:
                for publish in self.published:
                    publish(writes, end)
            replay.finish(error)
            self.wake()
            if self._step_goes_first():
                asyncio.get_running_loop().call_soon(self._acknowledge, told, error)
            else:
                self._acknowledge(told, error)

        self.store.submit(writes, done)

    def _step_goes_first(self) -> bool:
        """Before those are told who wait for what is durable: so the disk has work meanwhile. Little that waits is a short
        step."""
        return 0 < self.order.bytes < WORTH_BYTES and not self._checkpoint_due()

    def _acknowledge(self, told: list[Told], error: BaseException | None) -> None:
        for name, waiting, receipts in told:
            answered = self.intakes[name].inbox.requests.answered
            for w, kept in zip(waiting, receipts, strict=True):
                payload = w.payload
                receipt = kept if error is None else Receipt(0, [], FAILED)
                if payload.request is not None:
                    answered(payload.request, receipt)
                if payload.done is not None:
                    payload.done(receipt)

    def show(self, frames: dict[str, Frame]) -> None:
        for stream, frame in frames.items():
            if stream in self.latest:
                self.latest[stream].update(frame)
            if stream in self.alerts:
                self.alerts[stream].update(frame)

    async def _idle_writer(self) -> None:
        while self.in_flight:
            self._awake.clear()
            await self._awake.wait()

    # --- checkpoints ---

    def count_step(self, entry: state.Entry) -> None:
        """A step that forgets a key is the last before a checkpoint: what is read again was refused for want of room that
        this step has made, and would find it."""
        self.steps_since = CHECKPOINT_STEPS if entry.forgotten else self.steps_since + 1

    def _checkpoint_due(self) -> bool:
        age = self.silence.now - self.checkpoint_at
        return (
            self.steps_since >= CHECKPOINT_STEPS
            or self.bytes_since >= self.checkpoint_bytes
            or (age >= CHECKPOINT_NS and self.steps_since > 0)
        )

    async def _checkpoint(self) -> None:
        """Between two steps and with nothing in flight: so what is shown (`latest`) and what is computed agree."""
        await self._idle_writer()
        if self.failed is not None:
            raise self.failed
        clock = self.dropping.now(self.clock.wall(), self.clock.monotonic())
        step, states = self.number, self.snapshot()
        await self.store.write(lambda db: self._write_checkpoint(db, step, states, clock))
        self.steps_since = self.bytes_since = 0
        self.checkpoint_at = self.clock.monotonic()

    def _write_checkpoint(self, db: apsw.Connection, step: int, states: dict[str, Any], clock: int) -> None:
        state.checkpoint(db, step, states)
        self.limits.cut(db, clock)

    def _prune(self) -> None:
        """Cut the history to its limits between two steps; the next one need not wait for it."""
        self.limits.begun(self.silence.now)
        clock = self.dropping.now(self.clock.wall(), self.clock.monotonic())

        def done(_: Any, error: BaseException | None) -> None:
            self.in_flight -= 1
            self.failed = self.failed or error
            self.wake()

        self.in_flight += 1
        self.store.submit(lambda db: self.limits.cut(db, clock), done)

    # --- recovery (recovery.py says when) ---

    def restore(self, states: dict[str, Any]) -> None:
        """Back to a snapshot; what it does not hold starts anew."""
        self.not_understood = self.graph.restore(states)
        own = states.get(".engine", {"next_seq": 0, "sources": {}})
        self.next_seq = own["next_seq"]
        self.arrivals.last = own.get("stamp", self.arrivals.last)
        self.dropping.last = own.get("dropping")
        self.graph.keys.forgotten = {*own.get("forgotten", ())}
        for name, (newest, watermark, quiet) in own["sources"].items():
            if intake := self.intakes.get(name):
                intake.newest, intake.watermark, intake.quiet = newest, watermark, quiet
        for stream, latest in self.latest.items():
            if saved := states.get(f"{stream}.latest"):
                latest.restore(saved)
        for stream, alerts in self.alerts.items():
            if (kept := states.get(f"{stream}.alerts")) is not None:
                alerts.restore(kept)
            else:  # the checkpoint is of a version that kept one row of each key
                alerts.update(self.latest[stream].frame())

    def paths(self) -> list[tuple[Path, bytes]]:
        """The files that sinks write, each with its header."""
        return [file for sink in self.graph.sinks.values() for file in sink.files()]

    def snapshot(self) -> dict[str, Any]:
        """The state of everything, by node; `.engine` (no name of a node) is its own."""
        states: dict[str, Any] = dict(self.graph.snapshot())
        states[".engine"] = {
            "next_seq": self.next_seq,
            "stamp": self.arrivals.last,
            "dropping": self.dropping.last,
            "forgotten": sorted(self.graph.keys.forgotten),
            "sources": {n: [i.newest, i.watermark, i.quiet] for n, i in self.intakes.items()},
        }
        states |= {f"{stream}.latest": latest.snapshot() for stream, latest in self.latest.items()}
        states |= {f"{stream}.alerts": alerts.snapshot() for stream, alerts in self.alerts.items()}
        return states
