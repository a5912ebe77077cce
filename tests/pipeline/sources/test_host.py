"""This machine's own readings are what the operating system says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil

from pipeline.component import Payload, SourceContext
from pipeline.frame import KeyTable
from pipeline.quantity import duration
from pipeline.sources.host import FIELDS, Host, HostSettings, Sampler


def test_a_sample_has_every_field(tmp_path: Path) -> None:
    sample = Sampler(str(tmp_path)).sample(1.0)
    assert sample.keys() == FIELDS.keys()
    assert abs(sample["memory"] - psutil.virtual_memory().percent) < 20
    assert 0 <= sample["disk"] <= 100


async def test_samples_become_readings(tmp_path: Path) -> None:
    """One for each tick, under the machine's name, dated by their arrival."""
    context = SourceContext("machine", KeyTable(), folder=tmp_path)
    host = Host(HostSettings(every=duration("10 ms"), name="pi"), context)
    payloads: list[Payload] = []

    class Taken:
        async def put(self, payload: Payload) -> None:
            payloads.append(payload)

        def offer(self, payload: Payload) -> bool:
            return True

        async def taken(self) -> None: ...

        def end(self) -> None: ...

    task = asyncio.create_task(host.run(Taken(), None))
    while len(payloads) < 3:
        await asyncio.sleep(0.01)
    task.cancel()
    decoded = host.decode(payloads[:3])
    assert (list(decoded.keys), decoded.times, list(decoded.counts)) == (["pi"] * 3, None, [1] * 3)
    assert decoded.columns.keys() == FIELDS.keys()


def test_too_often_is_a_problem() -> None:
    context = SourceContext("machine", KeyTable())
    Host(HostSettings(every=duration("1 ms")), context)
    assert context.problems == [("every", 'must be at least "10 ms"')]
