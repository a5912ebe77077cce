"""One `[[test]]` block, run: the whole engine on virtual time, with its senders, its peers, and what happens to it."""

from __future__ import annotations

import asyncio
import logging
import random
import tempfile
from functools import partial
from itertools import count, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from pipeline.component import Sink, Source, Unanswerable
from pipeline.config import Config
from pipeline.delivery import Delivery
from pipeline.engine import Engine
from pipeline.frame import Frame, KeyTable
from pipeline.graph import Graph
from pipeline.intake import Intake
from pipeline.journal.commit import Store
from pipeline.run import Pipeline
from pipeline.services import EngineServices
from pipeline.thin import shown
from pipeline.trial import block as blocks
from pipeline.trial import stretch
from pipeline.trial.around import Peer, Sender
from pipeline.trial.block import Block
from pipeline.trial.coverage import Coverage
from pipeline.trial.loop import LoopClock, VirtualLoop
from pipeline.trial.result import Result
from pipeline.trial.store import InlineStore

log = logging.getLogger("headwater")


def run(config: Config, block: Block, coverage: Coverage | None = None) -> Result:
    """Run a block of a good pipeline file. Touches nothing but a temporary folder. `coverage` is told what conditions do."""
    result = Result(block)
    result.coverage = coverage
    listening = _Listener(result)
    log.addHandler(listening)
    propagate, log.propagate = log.propagate, False
    try:
        if stretch.fits(config, block):
            if stretch.run(config, block, result):
                return result
            result.forget()
        loop = VirtualLoop()
        with (
            tempfile.TemporaryDirectory(prefix="headwater-test-", dir=_memory()) as folder,
            asyncio.Runner(loop_factory=lambda: loop) as runner,
        ):
            runner.run(_Trial(config, block, loop, Path(folder), result).run())
    except Exception as error:  # noqa: BLE001 - a test that cannot be run has failed, and the next one is run
        result.error = f"{type(error).__name__}: {error}"
    finally:
        log.removeHandler(listening)
        log.propagate = propagate
    return result


def _memory() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


class _Listener(logging.Handler):
    def __init__(self, result: Result) -> None:
        super().__init__(logging.WARNING)
        self.result = result

    def emit(self, record: logging.LogRecord) -> None:
        self.result.said.append(record.getMessage())


class _Trial:
    """Outlives each life of the pipeline."""

    def __init__(self, config: Config, block: Block, loop: VirtualLoop, folder: Path, result: Result) -> None:
        self.config = config
        self.block = block
        self.loop = loop
        self.folder = folder
        self.result = result
        self.clock = LoopClock(loop, block.start)
        self.chance = random.Random(0)  # of the pauses between tries
        self.batches = count()
        given = [row.source for row in block.rows]
        sources = [name for name, node in config.nodes.items() if node.kind == "source"]
        self.senders = {name: Sender(given.count(name)) for name in sources}
        self.peers: dict[str, Peer] = {}
        self.pipeline: VirtualPipeline | None = None  # None: it is down
        self._task: asyncio.Task[None] | None = None

    # --- its course ---

    async def run(self) -> None:
        await self._start()
        agenda = [*((row.at, 1, row) for row in self.block.rows), *self._happenings()]
        agenda.sort(key=itemgetter(0, 1))
        for at, due in groupby(agenda, itemgetter(0)):
            if at > self.block.end:
                break
            await self.loop.until(at)
            for _, rank, what in due:
                if rank == 1:
                    self.senders[what.source].give(what.reading)
                else:
                    await self._happens(what)
        await self.loop.until(self.block.end)
        await self.loop.settled()
        await self._stop()

    def _happenings(self) -> list[tuple[int, int, Any]]:
        """What is down comes up before readings of the same moment, and a step happens after them."""
        steps = self.block.steps
        ups = [s for s in steps if isinstance(s, blocks.Restart | blocks.Crash)]
        return [*((int(s.at), 2, s) for s in steps), *((int(s.at + s.down), 0, None) for s in ups if s.down)]

    async def _happens(self, step: Any) -> None:
        if not isinstance(step, blocks.Crash):
            await self.loop.settled()
        match step:
            case None:
                await self._start()
            case blocks.Restart():
                await self._stop()
            case blocks.Crash():
                await self._kill()
            case blocks.Pause():
                self._pause(int(step.down))
            case blocks.Offline() | blocks.Online():
                for name, peer in self.peers.items():
                    if step.sink in (None, name):
                        peer.online = isinstance(step, blocks.Online)
            case blocks.ClockJump():
                self.clock.offset += step.ns
            case blocks.Forget():
                await self._forget(step.key, step.stream)
        if isinstance(step, blocks.Restart | blocks.Crash) and not step.down:
            await self._start()

    # --- lives of the pipeline ---

    async def _start(self) -> None:
        if self.pipeline is not None and not self._done():
            return
        started: asyncio.Future[None] = self.loop.create_future()
        self.pipeline = VirtualPipeline(self)
        self.pipeline.on_start = lambda _: started.set_result(None)
        self._task = self.loop.create_task(self.pipeline.run())
        await asyncio.wait([self._task, started], return_when=asyncio.FIRST_COMPLETED)
        self._done()

    def _done(self) -> bool:
        """It has ended by itself, as it does when its finite sources have. Raises what made it fail."""
        assert self._task is not None
        return self._task.done() and self._task.result() is None

    async def _stop(self) -> None:
        if self.pipeline is None or self._task is None:
            return
        self.pipeline.stop()
        await self._task
        self.pipeline = None

    async def _kill(self) -> None:
        """A step is durable in the moment in which it runs, so what is lost is what waits in the inboxes."""
        if self.pipeline is None or self._task is None:
            return
        for sender in self.senders.values():
            sender.hang_up()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.pipeline = None

    async def _forget(self, key: str, stream: str | None) -> None:
        if self.pipeline is None or self._done():
            return
        try:
            await self.pipeline.services.forget(key, stream)
        except Unanswerable as error:
            log.warning("to forget a key: %s", error)

    def _pause(self, ns: int) -> None:
        self.loop.micros += ns // 1_000
        if self.pipeline is not None:
            self.pipeline.was_paused()


async def _nothing() -> None:
    """What a sink does beside its deliveries, where there is no peer."""


class VirtualPipeline(Pipeline):
    """The pipeline as it always is, but for what is outside: no network, its files elsewhere, a writer without a thread."""

    def __init__(self, trial: _Trial) -> None:
        self.trial = trial
        config = trial.config
        super().__init__(config, Graph(config, KeyTable(limit=config.pipeline.max_keys), trial.clock))
        if trial.result.coverage is not None:
            trial.result.coverage.watch(self.graph)
        for source in self.graph.sources.values():
            source.replayable = False  # there is no file to read again: the journal keeps the Frames
        wanted = trial.block.expect
        for name, sink in self.graph.sinks.items():
            if sink.buffer is not None:
                peer = trial.peers.setdefault(name, Peer(lambda *_: None))
                peer.tell = partial(self._delivered, name) if name in wanted else lambda *_: None
                sink.deliver = peer.deliver  # type: ignore[method-assign]
                sink.run = sink.close = _nothing  # type: ignore[method-assign]
            elif name in wanted:
                sink.write = partial(self._written, name, sink.write)  # type: ignore[method-assign]

    def was_paused(self) -> None:
        if self.engine is not None:
            self.engine.silence.was_stopped()

    # --- what is outside ---

    def open_store(self) -> Store:
        return InlineStore(self.trial.folder, self.config.pipeline.durability)

    def _delivery(self, store: Store) -> Delivery | None:
        sinks = {name: sink for name, sink in self.graph.sinks.items() if sink.buffer is not None}
        if not sinks:
            return None
        chance, batches = self.trial.chance, self.trial.batches
        return Delivery(
            sinks, store, self.clock, self.graph.keys, self.graph.streams,
            random_=chance, new_key=lambda: f"{next(batches)}",
        )  # fmt: skip

    async def _mount(self, services: EngineServices) -> None:
        assert self.engine is not None
        self.engine.heartbeat = None
        parts: list[Source | Sink] = [*self.graph.sources.values(), *self.graph.sinks.values()]
        for part in parts:
            part.context.services = services
        self._watch()

    async def _watch_files(self, engine: Engine) -> None:
        """They were read at the start, and no test changes one."""

    async def _compact(self, engine: Engine) -> None:
        """Nobody asks for the history of a trial, and packing it would take as long as all the rest."""

    async def _feed(self, intake: Intake) -> None:
        await self.trial.senders[intake.name].run(intake)

    # --- what comes out ---

    def _watch(self) -> None:
        """From now on: what recovery pushed through the graph had come out before."""
        assert self.engine is not None
        for name in self.trial.block.expect:
            if name in self.graph.streams:
                self.graph.watch(name, partial(self._emitted, name))
        for name in self.graph.sources:
            self.graph.watch(f"{name}.invalid", partial(self._refused, name))

    def _emitted(self, stream: str, frame: Frame) -> None:
        if len(frame):
            self.trial.result.add(stream, None, frame, self.graph.streams[stream], self.graph.keys)

    def _refused(self, source: str, frame: Frame) -> None:
        if len(frame):
            self.trial.result.refused += [(source, reason) for reason in frame["reason"].tolist()]

    def _written(self, sink: str, write: Any, stream: str, frame: Frame, writes: Any) -> None:
        write(stream, frame, writes)
        self.trial.result.add(sink, stream, frame, self.graph.streams[stream], self.graph.keys)

    def _delivered(self, sink: str, stream: str, frame: Frame, recovered: bool) -> None:
        told, schema = shown(frame, self.graph.streams.get(stream))
        more = {"recovered": True} if recovered else {}
        self.trial.result.add(sink, stream, told, schema, self.graph.keys, **more)
