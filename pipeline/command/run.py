"""`headwater run [FILE]`"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.graph import Graph
    from pipeline.run import Pipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="pipeline.toml", type=Path, metavar="FILE")
    parser.add_argument("--log", choices=("text", "json"), default="text", help="form of the log, on standard error")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is normal, too")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar for finite input")


def main(options: argparse.Namespace) -> int:
    from pipeline.command.log import set_up
    from pipeline.problem import ConfigError
    from pipeline.run import Pipeline, check

    set_up(options.log, verbose=options.verbose)
    try:
        config, graph = check(options.file)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    pipeline = Pipeline(config, graph)
    # Frames and rows are freed by reference counts; what start-up made is never garbage.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    with asyncio.Runner(loop_factory=_loop_factory(graph)) as runner:
        return runner.run(_run(pipeline, show_progress=sys.stderr.isatty() and not options.no_progress))


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


async def _run(pipeline: Pipeline, *, show_progress: bool) -> int:
    from pipeline.journal.commit import StateInUse

    log = logging.getLogger("headwater")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, pipeline.stop)
    pipeline.on_start = _announce
    bar = asyncio.create_task(_progress(pipeline)) if show_progress else None
    try:
        await pipeline.run()
    except StateInUse as error:
        print(error, file=sys.stderr)
        return 3
    except (OSError, ValueError) as error:
        print(f"headwater: {error}", file=sys.stderr)
        return 1
    except Exception:
        log.exception("%s failed", pipeline.config.pipeline.name)
        return 1
    finally:
        if bar is not None:
            bar.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await bar
    return 0


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
