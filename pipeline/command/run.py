"""`headwater run [FILE]`"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import logging
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.command import watched
from pipeline.command.log import say, set_up
from pipeline.command.usage import add_file

log = logging.getLogger("headwater")

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.config import Config
    from pipeline.graph import Graph
    from pipeline.run import Pipeline


_M_ARENA_MAX = -8  # of <malloc.h>

EXAMPLES = (
    "headwater run",
    "headwater run greenhouse/pipeline.toml --log json",
)
STATUS = {
    0: "it was stopped (SIGTERM, Ctrl-C), or its finite sources have ended",
    1: "it failed while it ran",
    3: "the state folder is in use, or its database is damaged or of a later version",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    parser.add_argument("--log", choices=("text", "json"), default="text", help="form of the log, on standard error")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is normal, too")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar for finite input")


def main(options: argparse.Namespace) -> int:
    from pipeline.run import check

    set_up(options.log, verbose=options.verbose)
    _share_one_heap()
    config, graph = check(options.file)
    gc.freeze()  # what start-up made is never garbage
    with asyncio.Runner(loop_factory=_loop_factory(graph)) as runner:
        run = _Run(options.file, config, graph, show_progress=sys.stderr.isatty() and not options.no_progress)
        return runner.run(run.until_it_ends())


def _share_one_heap() -> None:
    """glibc gives each thread a heap of its own, which keeps what the thread once used: 9 MB after a quarter of an hour. Few
    of ours run at a time. Other systems' C libraries have no such call."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _loop_factory(graph: Graph) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, where it is installed and there are requests to serve: a file gains nothing, and it costs 12 MB."""
    if not graph.served():
        return None
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
    return factory


TRIAL_S = 30.0  # a pipeline that fails so soon after it took over gives way to the one before
ANSWER_S = 0.05  # until an asked-for reload begins: so that the answer gets out


class _Run:
    """One life of the command: a pipeline, and after a reload or a damaged database the next one."""

    def __init__(self, file: Path, config: Config, graph: Graph, *, show_progress: bool) -> None:
        from pipeline.run import Pipeline
        from pipeline.services import Reloads

        self.file = file
        self.reloads = Reloads(self._asked)
        self.pipeline = Pipeline(config, graph)
        self.pipeline.reloads = self.reloads
        self.show_progress = show_progress
        self.next: Pipeline | None = None  # takes over once this one has stopped
        self.before: Config | None = None  # of the pipeline that this one took over from
        self.began = time.monotonic()
        self.failure = ""  # why the pipeline ended
        self.looking: asyncio.Task[None] | None = None  # at what is installed
        self.stopped = False

    async def until_it_ends(self) -> int:
        """The exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGUSR1, self._look)
        alive = asyncio.create_task(watched.live(), name="watchdog")
        try:
            return await self._lives()
        finally:
            alive.cancel()

    async def _lives(self) -> int:
        while True:
            status = await self._one(self.pipeline)
            if self.next is None and status == 1 and not self.stopped:
                self._go_back()
            if self.next is None:
                return status
            self.pipeline, self.next = self.next, None

    def _stop(self) -> None:
        watched.tell("STOPPING=1")
        self.next, self.stopped = None, True
        self.pipeline.stop()

    def _look(self) -> None:
        from pipeline.inside import text, told

        log.warning("%s", text(told(self.pipeline.engine)))

    # --- another file ---

    def _reload(self) -> None:
        """The file as it is now takes over between two steps; one with problems changes nothing."""
        from pipeline.problem import ConfigError

        try:
            self._take_over(self._made_again())
        except ConfigError as error:
            log.error("not reloaded, the pipeline goes on as it was:\n%s", error)

    def _asked(self, only_plan: bool) -> list[str]:
        """The same by a request: what it changes is the answer, and so goes first."""
        from pipeline.recovery import changes

        made = self._made_again()
        if not only_plan:
            asyncio.get_running_loop().call_later(ANSWER_S, self._take_over, made)
        return [str(change) for change in changes(self.pipeline.graph, made.graph)]

    def _take_over(self, made: Pipeline) -> None:
        if self.stopped:
            return
        self.before, self.next = self.pipeline.config, made
        self.reloads.failure = ""
        self.began = time.monotonic()
        self.pipeline.stop()

    def _made_again(self) -> Pipeline:
        from pipeline.run import check

        return self._made(*check(self.file))

    def _made(self, config: Config, graph: Graph) -> Pipeline:
        from pipeline.run import Pipeline

        made = Pipeline(config, graph)
        made.reloads = self.reloads
        return made

    def _go_back(self) -> None:
        """The one before takes over again, if this one has failed within its trial."""
        from pipeline.run import once_more

        if self.before is None or time.monotonic() - self.began > TRIAL_S:
            return
        self.reloads.failure = self.failure
        log.error("the changed file fails and the one before takes over again: %s", self.failure)
        self.next, self.before = self._made(*once_more(self.before)), None

    async def _one(self, pipeline: Pipeline) -> int:
        from pipeline.journal.commit import StateDamaged, StateInUse

        pipeline.on_start = self._started
        pipeline.on_plan = _show_plan
        bar = asyncio.create_task(_progress(pipeline)) if self.show_progress else None
        try:
            await pipeline.run()
        except StateDamaged as error:
            return self._damaged(error)
        except StateInUse as error:
            say(str(error))
            return 3
        except (OSError, ValueError) as error:
            self.failure = str(error)
            say(f"headwater: {error}")
            return 1
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"
            log.exception("%s failed", pipeline.config.pipeline.name)
            return 1
        finally:
            if bar is not None:
                bar.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await bar
        return 0

    def _started(self, pipeline: Pipeline) -> None:
        if self.before is not None:
            self.reloads.count += 1
            self.reloads.failure = ""
        self.looking = asyncio.create_task(_look_at_plug_ins(pipeline.config), name="plug-ins")
        watched.tell("READY=1")
        _announce(pipeline)

    def _damaged(self, error: Exception) -> int:
        from pipeline.journal.commit import set_aside

        settings = self.pipeline.config.pipeline
        if settings.on_damage == "stop":
            say(f'{error} (on_damage = "set_aside" would start with a new one)')
            return 3
        log.error("%s; it is set aside as %s, and a new one is begun", error, set_aside(settings.state))
        self.next = self._made_again()
        return 3


async def _look_at_plug_ins(config: Config) -> None:
    """Once all runs, and in a thread: to ask what is installed takes a tenth of a second."""
    from pipeline.advice import plug_ins

    for where, text in await asyncio.to_thread(lambda: [*plug_ins(config)]):
        log.warning("%s", config.problem(where, text).show(config.path))


def _show_plan(plan: list[str]) -> None:
    for line in plan:
        say(line, logging.INFO)


def _announce(pipeline: Pipeline) -> None:
    """One line for the person at the terminal, who wants to know where to look."""
    if pipeline.server is not None and sys.stderr.isatty():
        print(f"{pipeline.config.pipeline.name} listens on {pipeline.server.url} (stop: Ctrl-C)", file=sys.stderr)


async def _progress(pipeline: Pipeline) -> None:
    """A bar for finite input: share done, bytes a second."""
    started = time.monotonic()
    while True:
        await asyncio.sleep(0.2)
        found = [p for source in pipeline.graph.sources.values() if (p := source.progress()) is not None]
        total = sum(t for _, t in found)
        if not total:
            continue
        done = sum(d for d, _ in found)
        filled = 30 * done // total
        rate = done / 1e6 / (time.monotonic() - started)
        bar = "#" * filled + "." * (30 - filled)
        print(f"\r[{bar}] {100 * done // total:3d} % {rate:.0f} MB/s", end="", file=sys.stderr, flush=True)
        if done == total:
            print(file=sys.stderr)
            return
