"""What a start costs: `python -m benchmarks.startup [RUNS]`.

ready     from the start of the process until /ready (of the bare one: /data) answers 200, and resident memory then and after
          10,000 readings, beside a bare aiohttp application in the same run: each in turn, RUNS times, the least of each
imports   of `headwater run`: milliseconds of each package, its own modules only (`-X importtime`, which costs some itself)
commands  wall time and memory of short commands
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RUNS = 5
READINGS, AT_ONCE = 10_000, 100
PACKAGES = 10  # that are shown
COMMANDS = (["--version"], ["components"], ["check"], ["test"], ["graph"], ["health"])

BARE = """
import sys
from aiohttp import web

latest = {}

async def take(request):
    for reading in await request.json():
        latest[reading["id"]] = reading["value"]
    return web.json_response({"status": "success"}, status=201)

async def show(_):
    return web.json_response(latest)

app = web.Application()
app.add_routes([web.post("/data", take), web.get("/data", show)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
"""
MINIMAL = """
[pipeline]
name = "minimal"

[server]
listen = "127.0.0.1:8080"

[sources.readings]
type = "http"
path = "/data"
key = "id"
fields = { value = "float" }

[operators.ten_seconds]
type = "window"
input = "readings"
size = "10 s"
aggregate = { n = "count()", average = "mean(value)" }

[operators.too_high]
type = "alert"
input = "readings"
when = "value > 75"
clear = "value < 70"

[sinks.local]
type = "query_server"
inputs = ["readings", "ten_seconds", "too_high"]
retention = "30 d"
"""


class Start(NamedTuple):
    seconds: float
    cpu: float  # seconds of the processor until then
    ready: float  # MB
    loaded: float  # MB


def python(*words: str) -> list[str]:
    return [sys.executable, *words]


def bare(folder: Path, port: int) -> list[str]:
    file = folder / "bare.py"
    file.write_text(BARE)
    return python(str(file), str(port))


def pipeline(text: str) -> Callable[[Path, int], list[str]]:
    def command(folder: Path, port: int) -> list[str]:
        file = folder / "pipeline.toml"
        file.write_text(text.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
        return python("-m", "pipeline.command", "run", str(file))

    return command


STARTED = {
    "bare aiohttp": bare,
    "minimal pipeline": pipeline(MINIMAL),
    "pipeline.toml": pipeline((ROOT / "pipeline.toml").read_text()),
}


CACHE = tempfile.TemporaryDirectory()  # of what is compiled, as pip leaves it beside what it installs


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": CACHE.name}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


# --- ready ----------------------------------------------------------------------------------------------------------


def start(command: Callable[[Path, int], list[str]]) -> Start:
    """Of one process, in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        words = command(Path(name), port)
        path = "/data" if command is bare else "/ready"
        began = time.perf_counter()
        process = subprocess.Popen(words, env=environment())
        try:
            while not answers(port, path):
                if process.poll() is not None:
                    raise SystemExit(f"{words} ended with {process.returncode}")
                time.sleep(0.002)
            seconds, cpu, ready = time.perf_counter() - began, cpu_of(process.pid), rss(process.pid)
            load(port)
            return Start(seconds, cpu, ready, rss(process.pid))
        finally:
            process.terminate()
            process.wait()


def answers(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def load(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    for first in range(0, READINGS, AT_ONCE):
        body = json.dumps([{"id": f"s{i % 100}", "value": i % 60} for i in range(first, first + AT_ONCE)])
        connection.request("POST", "/data", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 201:
            raise SystemExit(f"answered {response.status}: {response.read()!r}")
        response.read()
    connection.close()


def rss(pid: int) -> float:
    """MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_of(pid: int) -> float:
    """Seconds of the processor so far."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def starts(runs: int) -> None:
    print(
        f"ready: s (and of the processor), MB when ready, MB after {READINGS:,} readings; least of {runs}, x the bare one"
    )
    taken: dict[str, list[Start]] = {name: [] for name in STARTED}
    for run in range(runs + 1):
        for name, command in STARTED.items():
            found = start(command)
            if run:  # the first one fills the caches
                taken[name].append(found)
    least = {name: Start(*map(min, zip(*found, strict=True))) for name, found in taken.items()}
    base = least["bare aiohttp"]
    for name, best in least.items():
        ratios = " / ".join(f"{mine / its:.1f}" for mine, its in zip(best, base, strict=True))
        print(
            f"  {name:18} {best.seconds:5.2f} s ({best.cpu:4.2f}) {best.ready:6.1f} MB {best.loaded:6.1f} MB   x {ratios}"
        )


# --- imports --------------------------------------------------------------------------------------------------------


def imports(text: str) -> Counter[str]:
    """Microseconds of each top-level package, until the pipeline answers."""
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        words = pipeline(text)(Path(name), port)
        with open(Path(name) / "said", "w+", encoding="utf-8") as said:
            process = subprocess.Popen([words[0], "-X", "importtime", *words[1:]], env=environment(), stderr=said)
            while not answers(port, "/ready"):
                time.sleep(0.01)
            process.terminate()
            process.wait()
            said.seek(0)
            took: Counter[str] = Counter()
            for own, module in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", said.read(), re.MULTILINE):
                took[package(module)] += int(own)
            return took


def package(module: str) -> str:
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return "standard library"
    return "headwater" if top in {"pipeline", "operators", "sinks"} else top


def packages() -> None:
    for name, text in (("minimal pipeline", MINIMAL), ("pipeline.toml", (ROOT / "pipeline.toml").read_text())):
        took = imports(text)
        shown = ", ".join(f"{of} {us / 1000:.0f}" for of, us in took.most_common(PACKAGES))
        print(f"imports: {name}: {sum(took.values()) / 1000:.0f} ms: {shown}")


# --- commands -------------------------------------------------------------------------------------------------------


def commands(runs: int) -> None:
    print(f"commands: s, MB at most; of pipeline.toml, least of {runs} (health: of one that does not run)")
    for words in COMMANDS:
        found = [command(words) for _ in range(runs + 1)][1:]
        seconds, memory = map(min, zip(*found, strict=True))
        print(f"  {'headwater ' + ' '.join(words):24} {seconds:5.2f} s {memory:6.1f} MB")


def command(words: list[str]) -> tuple[float, float]:
    began = time.perf_counter()
    process = subprocess.Popen(
        python("-m", "pipeline.command", *words),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0  # it has been waited for
    return time.perf_counter() - began, used.ru_maxrss / 1000


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    starts(runs)
    packages()
    commands(runs)


if __name__ == "__main__":
    main()
