"""Single readings over HTTP, 32 connections, `power`, beside an aiohttp handler that only reads the body and answers.

    python -m benchmarks.ingest [SECONDS [ROUNDS]]

Both are processes of their own, asked in turns by a third (`benchmarks/load.py`); `client` says how busy that one was: near
100 % it is what is measured. Both use the same event loop. `CPU µs` is what a request takes of the processor: what a busy
machine or a slow disk changes least. The goal is 80 % of the bare handler, and memory that stays.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

import aiohttp
import psutil

from tests.device import Device, free_port

CONNECTIONS = 32
GOAL = 0.8
PIPELINE = """
[pipeline]
name = "ingest"
state = "state"
durability = "power"

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
path = "/data"
key = "id"
fields = {{ value = "float" }}

[sinks.local]
type = "query_server"
inputs = ["readings"]
"""
BARE = """
import sys
from aiohttp import web

try:
    from uvloop import new_event_loop
except ImportError:
    from asyncio import new_event_loop

async def take(request):
    await request.read()
    return web.Response(body=b'{"status":"success","message":"Data received!"}', status=201, content_type="application/json")

app = web.Application()
app.router.add_post("/data", take)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, loop=new_event_loop())
"""


async def measured(port: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.load", str(port), str(seconds), str(CONNECTIONS)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    if process.returncode:
        raise SystemExit("the client failed")
    found: dict[str, float] = json.loads(told)
    return found


async def main(seconds: float, rounds: int) -> None:
    bare_port, port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.toml"
        file.write_text(PIPELINE.format(port=port))
        bare = await asyncio.create_subprocess_exec(sys.executable, "-c", BARE, str(bare_port))
        try:
            async with aiohttp.ClientSession() as http, Device(file, port) as device:
                await device.start(http)
                await measured(port, 2)  # warm, and so is its memory
                await measured(bare_port, 1)
                memory = [device.rss()]
                shares = []
                assert device.process is not None
                processes = [psutil.Process(bare.pid), psutil.Process(device.process.pid)]
                print(f"{'':10} {'1/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'client':>8} {'CPU':>6} {'CPU µs':>9}")
                for _ in range(rounds):
                    rates = []
                    for name, where, process in zip(("bare", "headwater"), (bare_port, port), processes, strict=True):
                        before = sum(process.cpu_times()[:2])
                        one = await measured(where, seconds)
                        cpu = (sum(process.cpu_times()[:2]) - before) / seconds
                        rates.append(one["rate"])
                        each = f"{name:10} {one['rate']:8,.0f} {one['p50']:8.2f} {one['p99']:8.2f}"
                        print(f"{each} {one['busy']:8.0%} {cpu:6.0%} {cpu / one['rate'] * 1e6:9.0f}")
                    shares.append(rates[1] / rates[0])
                    memory.append(device.rss())
                print(f"share of the bare handler: {median(shares):.0%} (goal {GOAL:.0%})")
                print(f"memory of the process: {memory[0]:.1f} MB at first, {memory[-1]:.1f} MB in the end")
                await device.end()
        finally:
            bare.kill()
            await bare.wait()


if __name__ == "__main__":
    given = [float(word) for word in sys.argv[1:]]
    asyncio.run(main(given[0] if given else 10.0, int(given[1]) if len(given) > 1 else 3))
