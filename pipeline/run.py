"""A pipeline from its Config to its end: puts the parts together, starts them, and takes them down in order."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from pipeline.clock import RealClock
from pipeline.compactor import Compactor
from pipeline.component import Sink, Source
from pipeline.engine import Engine
from pipeline.frame import KeyTable
from pipeline.graph import Graph
from pipeline.journal.commit import DAMAGED, RETRY_S, StateDamaged, Store, passes
from pipeline.journal.schema import DATABASE
from pipeline.problem import ConfigError
from pipeline.recovery import begin, recover
from pipeline.services import EngineServices, Reloads

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.config import Config
    from pipeline.delivery import Delivery
    from pipeline.intake import Intake

log = logging.getLogger("headwater")

DRAIN_S = 30.0  # how long a pipeline whose input has ended goes on delivering, as long as that succeeds
GRACE_S = 5.0  # how long a stop waits for deliveries under way


class Pipeline:
    """All that runs for one pipeline file, from a graph that `check` found good; nothing is touched before `run`."""

    def __init__(self, config: Config, graph: Graph) -> None:
        self.config = config
        self.graph = graph
        self.clock = graph.clock
        self.engine: Engine | None = None
        self.server: Any = None
        self.on_start: Callable[[Pipeline], None] = lambda _: None
        self.on_plan: Callable[[list[str]], None] = lambda _: None  # what a changed file makes of each node's state
        self.reloads: Reloads | None = None  # None: nobody can exchange its file
        self._stopping = False

    def stop(self) -> None:
        """Drain, commit, checkpoint, end."""
        self._stopping = True
        if self.engine is not None:
            self.engine.stop()

    async def run(self) -> None:
        """Until stopped, or until the finite sources end. StateInUse before anything has started; else what failed."""
        store = await self._when_there_is_room()
        if store is None:
            return
        self.store = store
        try:
            await self._run(store)
        except DAMAGED as error:
            raise StateDamaged(f"{store.folder / DATABASE} is damaged: {error}") from error
        finally:
            store.close()

    async def _when_there_is_room(self) -> Store | None:
        """The store; on a full disk, once it can be opened. None: stopped before."""
        told = False
        while not self._stopping:
            try:
                return self.open_store()
            except (apsw.Error, OSError) as error:
                if not passes(error):
                    raise
                if not told:
                    log.error("the disk refuses to open the state folder, trying again until it does not: %s", error)
                told = True
            await asyncio.sleep(RETRY_S)
        return None

    def open_store(self) -> Store:
        return Store(self.config.pipeline.state, self.config.pipeline.durability)

    def open_server(self) -> Any:
        from pipeline.server import HttpServer

        return HttpServer(self.config.server)

    async def _run(self, store: Store) -> None:
        engine = self.engine = Engine(self.config, self.graph, store, self.clock)
        for name, source in self.graph.sources.items():
            if source.needs_server:
                engine.keep_latest(name)
        for sink in self.graph.sinks.values():
            if sink.needs_server:
                for stream in sink.context.inputs:
                    engine.keep_latest(stream)
        recovered = recover(engine, self._earlier)
        self.on_plan(recovered.plan)
        engine.outside.begin()
        delivery = self._delivery(store)
        services = self.services = EngineServices(engine, delivery, self.reloads)
        await self._mount(services)
        tasks: list[asyncio.Task[None]] = []
        try:
            # What can fail has not: from here on the state folder is this file's.
            begin(engine, recovered.moved)
            await engine.begun()
            if self.server is not None:
                await self.server.start()
            tasks += [asyncio.create_task(self._feed(i), name=f"source {i.name}") for i in engine.intakes.values()]
            tasks.append(asyncio.create_task(self._watch_files(engine), name="files beside the streams"))
            tasks.append(asyncio.create_task(self._compact(engine), name="compactor"))
            if delivery is not None:
                await delivery.start()
                engine.published.append(lambda writes, _: delivery.wake() if writes.outbox else None)
                engine.blocked = delivery.blocked
                delivery.freed = engine.wake  # or a second would pass before it looks
            services.ready = True
            self.on_start(self)
            if self._stopping:
                engine.stop()
            await engine.run()
            if delivery is not None and not self._stopping:
                await delivery.drain(DRAIN_S)
        finally:
            services.ready = False
            await self._take_down(tasks, delivery)

    async def _take_down(self, tasks: list[asyncio.Task[None]], delivery: Delivery | None) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.server is not None:
            await self.server.close()
        if delivery is not None:
            await delivery.close(GRACE_S)

    def _delivery(self, store: Store) -> Delivery | None:
        sinks = {name: sink for name, sink in self.graph.sinks.items() if sink.buffer is not None}
        if not sinks:
            return None
        from pipeline.delivery import Delivery

        return Delivery(sinks, store, self.clock, self.graph.keys, self.graph.streams)

    async def _mount(self, services: EngineServices) -> None:
        """Mount what needs the server, and take its address; nothing is opened for a pipeline that needs none."""
        parts: list[Source | Sink] = [*self.graph.sources.values(), *self.graph.sinks.values()]
        for part in parts:
            part.context.services = services
        needing = self.graph.served()
        if not needing:
            return
        from pipeline import openapi

        self.server = self.open_server()
        self.server.pipeline = self.config
        for part in needing:
            part.context.server = self.server
            part.mount(self.server)
        openapi.mount(self.server, self.config.pipeline.name)
        await self.server.take_address()

    async def _watch_files(self, engine: Engine) -> None:
        await engine.outside.watch()

    async def _compact(self, engine: Engine) -> None:
        await Compactor(engine.store, engine.latest, engine.keys_of, engine.limits.rollups).run()

    async def _feed(self, intake: Intake) -> None:
        try:
            await intake.source.run(intake.inbox, intake.position)
        except (OSError, ValueError) as error:
            # A source that cannot go on fails the run if it is finite; a live one is reported, the others go on.
            intake.failure = str(error)
            log.error("source %s: %s", intake.name, error)
            if not intake.source.live and self.engine is not None:
                self.engine.failed = error
                self.engine.wake()

    def _earlier(self, text: str) -> Engine | None:
        """An engine of the pipeline file as it was; None if that cannot be loaded any more."""
        from pipeline.config import loads

        try:
            config = loads(text, self.config.path)
            graph = Graph(config, self.graph.keys, self.clock)
        except ConfigError:
            return None
        if config.problems or graph.problems or self.engine is None:
            return None
        old = Engine(config, graph, self.engine.store, self.clock)
        for stream in self.engine.latest:
            if stream in graph.streams:
                old.keep_latest(stream)
        return old


def look(path: Path) -> tuple[Config, Graph]:
    """Load and build, without starting or writing anything; there may be problems. ConfigError if it is not TOML."""
    from pipeline.config import load

    return _built(load(path))


def once_more(config: Config) -> tuple[Config, Graph]:
    """A file that was run before, as its text was then: its parts hold what they were used for."""
    from pipeline.config import loads

    return _built(loads(config.text, config.path))


def _built(config: Config) -> tuple[Config, Graph]:
    return config, Graph(config, KeyTable(limit=config.pipeline.max_keys), RealClock())


def check(path: Path) -> tuple[Config, Graph]:
    """The same for one that is to be run. ConfigError with every problem."""
    config, graph = look(path)
    if problems := sorted([*config.problems, *graph.problems]):
        raise ConfigError(config.path, problems)
    return config, graph
