"""`/api/debug` and what SIGUSR1 writes: what the process does and holds, and nothing that was told to it in confidence."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pipeline import api, inside, stacks
from tests.test_http import PIPELINE, Running

SECRET = "hush-planted"


async def hold(secret: str, over: asyncio.Event) -> None:
    await outer(secret, over)


async def outer(_: str, over: asyncio.Event) -> None:
    await over.wait()


async def test_where_tasks_stand() -> None:
    """From the outermost place to the one that waits; those of one name and place are told once, with their number."""
    over = asyncio.Event()
    named = [asyncio.create_task(hold(SECRET, over), name="source s1") for _ in range(500)]
    nameless = asyncio.create_task(outer(SECRET, over))
    await asyncio.sleep(0)
    found = {one["name"]: one for one in stacks.tasks()}

    assert found["source s1"]["count"] == 500
    places = [place.split(" ")[1] for place in found["source s1"]["stack"]]
    assert places[:3] == ["hold", "outer", "Event.wait"]
    assert found["source s1"]["stack"][0].startswith("tests/pipeline/test_inside.py:")
    assert found["outer"]["count"] == 1
    assert SECRET not in json.dumps(list(found.values()))
    over.set()
    await asyncio.gather(nameless, *named)


async def test_however_many_there_are_and_however_deep_an_answer_has_an_end() -> None:
    async def deep(levels: int, over: asyncio.Event) -> None:
        await (deep(levels - 1, over) if levels else over.wait())

    over = asyncio.Event()
    many = [asyncio.create_task(deep(60, over), name=f"{'x' * 1000} {i}"[-900:]) for i in range(300)]
    many += [asyncio.create_task(deep(0, over), name=f"t {i}") for i in range(300)]
    await asyncio.sleep(0)
    found = stacks.tasks()

    assert len(found) == stacks.MANY
    assert max(len(one["stack"]) for one in found) == stacks.DEEP
    assert max(len(one["name"]) for one in found) == stacks.LONG
    over.set()
    await asyncio.gather(*many)


def test_where_threads_stand() -> None:
    over, begun = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        over.wait()

    thread = threading.Thread(target=wait, name="writer of the test")
    thread.start()
    begun.wait()
    (found,) = (one for one in stacks.threads() if one["name"] == "writer of the test")
    over.set()
    thread.join()
    assert any(place.endswith(".wait") for place in found["stack"])


def test_the_size_of_a_state() -> None:
    state: dict[str, Any] = {"a": np.zeros(10, np.int64), "b": [b"123", "45", {"c": 1.5}], "d": None}
    assert inside.size_of(state) == 1 + 80 + 1 + 3 + 2 + 1 + 8 + 1 + 8


async def test_a_running_pipeline_tells(tmp_path: Path) -> None:
    """As /openapi.json describes it; what stands in readings and settings is not in it."""
    token = f'listen = "127.0.0.1:0"\ntoken = "{SECRET}"'
    running = Running(tmp_path, PIPELINE.replace('listen = "127.0.0.1:0"', token))
    running.http.headers["Authorization"] = f"Bearer {SECRET}"
    await running.start()
    assert (await running.post("/data", {"id": "hush-key", "value": 80}))[0] == 201
    status, found = await running.get("/api/debug")
    assert status == 200
    told = msgspec.convert(found, api.Debug, strict=True)
    written = inside.text(inside.told(running.pipeline.engine))
    _, described = await running.get("/openapi.json")
    assert (await running.get("/api/debug?all=1"))[0] == 400
    await running.stop()

    assert told.process.memory_bytes > 10_000_000
    assert told.pipeline is not None
    assert {s.name: s.taken for s in told.pipeline.sources} == {"readings": 1, "presence": 0, "dated": 0}
    assert {o.name: o.state_bytes > 0 for o in told.pipeline.operators} == {"high": True, "seconds": True}
    assert {kept.stream: kept.keys for kept in told.pipeline.latest}["readings"] == 1
    assert {"source readings", "compactor"} <= {stack.name for stack in told.tasks}
    assert "writer" in {stack.name for stack in told.threads}
    assert "/api/debug" in described["paths"]
    for line in (
        "source readings: 0 bytes in 0 payloads wait, 1 readings taken",
        "task source readings",
        "thread writer",
    ):
        # Another test's store may still have a writer, too: "thread writer (2 times)".
        assert any(told == line or told.startswith(f"{line} (") for told in written.splitlines())
    assert "hush" not in json.dumps(found) + written


async def test_it_can_be_asked_before_the_engine_is_there() -> None:
    found = inside.told(None)
    assert found["pipeline"] is None
    assert "the pipeline is starting" in inside.text(found)
