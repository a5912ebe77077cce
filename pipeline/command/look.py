"""What the process is doing, for whoever looks for what is wrong: `kill -USR1 PID` writes it to the log."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.run import Pipeline


def report(pipeline: Pipeline) -> str:
    """Sizes, then where each task and each thread stands."""
    out = io.StringIO()
    print("what this process is doing", file=out)
    _sizes(pipeline, out)
    for task in asyncio.all_tasks():
        print(f"\ntask {task.get_name()}", file=out)
        task.print_stack(limit=8, file=out)
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.ident in frames:
            print(f"\nthread {thread.name}", file=out)
            traceback.print_stack(frames[thread.ident], limit=8, file=out)
    return out.getvalue()


def _sizes(pipeline: Pipeline, out: io.StringIO) -> None:
    import psutil

    print(f"memory {psutil.Process().memory_info().rss / 1e6:,.1f} MB", file=out)
    engine = pipeline.engine
    if engine is None:
        print("the pipeline is starting", file=out)
        return
    print(f"step {engine.number}, {engine.in_flight} in flight, {len(engine.graph.keys)} keys", file=out)
    for intake in engine.intakes.values():
        told = f"{intake.inbox.fill()} bytes in {len(intake.inbox)} payloads wait, {intake.taken} readings taken"
        print(f"source {intake.name}: {told}", file=out)
