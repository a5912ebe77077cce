"""`headwater bench [FILE]`: what this device can do, and how much of that the running pipeline uses.

Measured with a pipeline of its own, in a folder beside the state folder (so on the same disk), which is removed again:
readings a second from a file through filter, window and alert to another file, of one core; the time of a commit that is durable
over a power cut; and one write of 4 kB with fsync, for comparison with another disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command.usage import add_file, add_format

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.config import Config

KEYS = 100
LINES = 100_000  # readings of the fast part
COMMITS = 100
BETWEEN_S = 2.0  # that the rate of the running pipeline is measured over

PIPELINE = """
[pipeline]
name = "bench"
state = "state"
durability = "process"

[sources.readings]
type = "file"
path = "in.ndjson"
key = "id"
time = "ts"
time_unit = "ms"
fields = { value = "float" }

[operators.valid]
type = "filter"
input = "readings"
where = "value >= -40 and value <= 150"

[operators.ten_seconds]
type = "window"
input = "valid"
size = "10 s"
aggregate = { n = "count()", mean = "mean(value)", low = "min(value)", high = "max(value)" }

[operators.hot]
type = "alert"
input = "valid"
when = "value > 75"
clear = "value < 70"

[sinks.windows]
type = "file"
inputs = ["ten_seconds", "hot"]
path = "out.ndjson"
"""


EXAMPLES = (
    "headwater bench",
    "headwater bench pipeline.toml --format json",
)
STATUS = {
    1: "the disk of the state folder cannot be written to",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    add_format(parser, "text", "json")


def main(options: argparse.Namespace) -> int:
    from pipeline.run import check

    config, _ = check(options.file)
    nearest = next(folder for folder in (config.pipeline.state, *config.pipeline.state.parents) if folder.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix="headwater-bench-", dir=nearest) as folder:
            found = measured(Path(folder), LINES, COMMITS)
    except OSError as error:
        print(f"{nearest}: {error.strerror or error}", file=sys.stderr)
        return 1
    found |= used(config, found["readings_per_second"])
    print(json.dumps(found) if options.format == "json" else "\n".join(_lines(found)))
    return 0


def measured(folder: Path, lines: int, commits: int) -> dict[str, Any]:
    """What this device can do, with a folder for it on its disk."""
    few = _run(folder / "few", KEYS)  # what a start costs
    each = (_run(folder / "many", KEYS + lines) - few) / lines
    return {
        "readings_per_second": round(1 / each),
        "cpu_us_per_reading": round(1e6 * each, 2),
        "commit_ms": _commits(folder / "commits", commits),
        "fsync_ms": _fsyncs(folder / "probe", commits),
    }


def _run(folder: Path, lines: int) -> float:
    """Seconds of CPU that a pipeline takes for so many readings."""
    from pipeline.run import Pipeline, check

    folder.mkdir()
    values = (
        f'{{"id":"k{i % KEYS}","ts":{1_700_000_000_000 + 10 * i},"value":{20 + i * 7 % 60}.5}}\n' for i in range(lines)
    )
    (folder / "in.ndjson").write_text("".join(values))
    (folder / "pipeline.toml").write_text(PIPELINE)
    pipeline = Pipeline(*check(folder / "pipeline.toml"))
    began = time.process_time()
    asyncio.run(pipeline.run())
    return time.process_time() - began


def _commits(folder: Path, count: int) -> dict[str, float]:
    """Small commits that are durable over a power cut, as the journal makes them."""
    from pipeline.journal.commit import Store

    store = Store(folder, "power")
    try:
        with asyncio.Runner() as runner:
            return _times(
                lambda: runner.run(
                    store.write(lambda db: db.execute("REPLACE INTO meta VALUES ('bench', ?)", (os.urandom(200),)))
                ),
                count,
            )
    finally:
        store.close()


def _fsyncs(file: Path, count: int) -> dict[str, float]:
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)

    def write() -> None:
        os.pwrite(handle, os.urandom(4096), 0)
        os.fsync(handle)

    try:
        return _times(write, count)
    finally:
        os.close(handle)


def _times(once: Callable[[], object], count: int) -> dict[str, float]:
    """Median and worst of so many, in ms."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        once()
        took.append(1_000 * (time.perf_counter() - began))
    return {"median": round(statistics.median(took), 3), "worst": round(max(took), 3)}


# --- the running pipeline ---


def used(config: Config, capacity: int) -> dict[str, Any]:
    """What the running pipeline takes of that; nothing where none runs."""
    from pipeline.command.local import Silent, ask

    why = "its rate is asked of the running pipeline"
    try:
        before, began = _taken(ask(config, "/api/graph", why=why)), time.monotonic()
        time.sleep(BETWEEN_S)
        rate = (_taken(ask(config, "/api/graph", why=why)) - before) / (time.monotonic() - began)
        flash = ask(config, "/health", why=why, refused=True).get("flash") or {}
    except Silent as error:
        return {"running": None, "why": str(error)}
    share = rate / capacity if capacity else 0.0
    return {"running": {"readings_per_second": round(rate, 1), "share": round(share, 4), "flash": flash}}


def _taken(graph: Any) -> int:
    return sum(node.get("rows_out") or 0 for node in graph["nodes"] if node["kind"] == "source")


def _lines(found: dict[str, Any]) -> list[str]:
    commit, fsync = found["commit_ms"], found["fsync_ms"]
    commits = 1_000 / max(commit["median"], 0.001)
    lines = [
        f"{found['readings_per_second']:,} readings a second on one core: {found['cpu_us_per_reading']} µs each",
        f"a commit takes {commit['median']} ms (at worst {commit['worst']}): {commits:,.0f} a second, each for all that wait",
        f"4 kB with fsync take {fsync['median']} ms (the worst {fsync['worst']})",
    ]
    running = found["running"]
    if not running:
        return [*lines, f"nothing to compare with: {found['why']}"]
    lines.append(
        f"the running pipeline takes {running['readings_per_second']:,} a second: {running['share']:.1%} of that"
    )
    if per_day := running["flash"].get("per_day_bytes"):
        lines.append(f"and writes {per_day / 1e6:,.0f} MB a day")
    return lines
