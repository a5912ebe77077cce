"""What a running pipeline is doing and what it holds, for whoever looks for what is wrong: `/api/debug`, and `kill -USR1`.

Names of nodes, counts and places in the code: nothing of a reading, and no setting.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pipeline import stacks

if TYPE_CHECKING:
    from pipeline.engine import Engine


def told(engine: Engine | None) -> dict[str, Any]:
    """All of it. In the loop; it takes as long as the copying of a checkpoint."""
    return {"process": _process(), "pipeline": _pipeline(engine), "tasks": stacks.tasks(), "threads": stacks.threads()}


def _process() -> dict[str, Any]:
    import psutil

    this = psutil.Process()
    return {
        "pid": this.pid,
        "memory_bytes": this.memory_info().rss,
        "open_files": this.num_fds(),
        "threads": this.num_threads(),
        "tasks": len(asyncio.all_tasks()),
    }


def _pipeline(engine: Engine | None) -> dict[str, Any] | None:
    if engine is None:
        return None
    edges = engine.graph.edges.items()
    return {
        "step": engine.number,
        "in_flight": engine.in_flight,
        "journal_steps": engine.steps_since,
        "journal_bytes": engine.bytes_since,
        "keys": len(engine.graph.keys),
        "sources": [
            {"name": i.name, "waiting": len(i.inbox), "waiting_bytes": i.inbox.fill(), "taken": i.taken}
            for i in engine.intakes.values()
        ],
        "operators": [{"name": name, "state_bytes": size_of(edge.operator.snapshot())} for name, edge in edges],
        "latest": [{"stream": stream, "keys": latest.keys()} for stream, latest in engine.latest.items()],
    }


def size_of(state: Any) -> int:
    """Bytes of what a snapshot holds, its containers not counted."""
    if isinstance(state, dict):
        return sum(map(size_of, state.keys())) + sum(map(size_of, state.values()))
    if isinstance(state, list | tuple | set):
        return sum(map(size_of, state))
    if isinstance(state, str | bytes):
        return len(state)
    size = getattr(state, "nbytes", None)
    return 8 if size is None else int(size)


# --- for the log ------------------------------------------------------------------------------------------------------


def text(found: dict[str, Any]) -> str:
    """The same in lines."""
    process, pipeline = found["process"], found["pipeline"]
    memory = f"memory {process['memory_bytes'] / 1e6:,.1f} MB"
    counts = f"{process['open_files']} open files, {process['threads']} threads, {process['tasks']} tasks"
    lines = ["what this process is doing", f"{memory}, {counts}"]
    lines += ["the pipeline is starting"] if pipeline is None else _sizes(pipeline)
    for kind in ("task", "thread"):
        for one in found[f"{kind}s"]:
            times = f" ({one['count']} times)" if one["count"] > 1 else ""
            lines += ["", f"{kind} {one['name']}{times}", *(f"  {place}" for place in one["stack"])]
    return "\n".join(lines)


def _sizes(pipeline: dict[str, Any]) -> list[str]:
    journal = f"journal: {pipeline['journal_steps']} steps, {pipeline['journal_bytes']} bytes"
    lines = [f"step {pipeline['step']}, {pipeline['in_flight']} in flight, {pipeline['keys']} keys; {journal}"]
    for s in pipeline["sources"]:
        waits = f"{s['waiting_bytes']} bytes in {s['waiting']} payloads wait"
        lines.append(f"source {s['name']}: {waits}, {s['taken']} readings taken")
    lines += [f"operator {o['name']}: state of {o['state_bytes']} bytes" for o in pipeline["operators"]]
    return lines + [f"latest of {kept['stream']}: {kept['keys']} keys" for kept in pipeline["latest"]]
