"""`host`: this machine's own load, temperatures, memory, disk and network."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta

from pipeline.component import Decoded, Inbox, Payload, Settings, Source, SourceContext
from pipeline.frame import Field, Schema, column
from pipeline.quantity import Duration, duration

FIELDS = {
    "cpu": Field("float"),  # percent of all cores, since the last sample
    "load": Field("float"),  # runnable processes, mean of a minute
    "memory": Field("float"),  # percent used
    "disk": Field("float"),  # percent used, of the file system of the pipeline's folder
    "temperature": Field("float", True),  # degrees Celsius, the hottest sensor; missing where there is none
    "received": Field("float"),  # bytes a second, all interfaces but loopback
    "sent": Field("float"),
    "uptime": Field("float"),  # seconds
}
SAMPLE_BYTES = 200  # what a sample counts for in the inbox


class HostSettings(Settings, frozen=True):
    every: Annotated[Duration, Meta(description="From one sample to the next.")] = duration("1 s")
    name: Annotated[str, Meta(description="What the machine is called. Absent: its own name.")] = ""


class Host(Source):
    """A reading of this machine every so often: real sensor input wherever Headwater runs.

        [sources.machine]
        type = "host"
        every = "1 s"

    The key is `host`: the machine's name, or `name`. Fields: cpu, memory and disk in percent, load, temperature in
    degrees Celsius (missing where there is no sensor), received and sent in bytes a second, uptime in seconds.
    In a test, fields that a row does not name are 0, the temperature is missing.
    """

    def __init__(self, settings: HostSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.schema = Schema("host", dict(FIELDS))
        self.every = settings.every.seconds
        self.name = settings.name or socket.gethostname()
        if settings.every < 10_000_000:
            context.problem("every", 'must be at least "10 ms"')

    async def run(self, inbox: Inbox, position: Any) -> None:
        sampler = Sampler(str(self.context.folder.absolute()))
        loop = asyncio.get_running_loop()
        due = loop.time() + self.every
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            now = loop.time()
            due = max(due + self.every, now)  # after a pause: no rush to make up for what was missed
            await inbox.put(Payload(sampler.sample(now), SAMPLE_BYTES))

    def given(self, reading: Mapping[str, Any]) -> Payload | None:
        sample = {name: None if field.optional else 0.0 for name, field in FIELDS.items()}
        return Payload({**sample, **reading}, SAMPLE_BYTES)

    def decode(self, payloads: Sequence[Payload]) -> Decoded:
        samples: list[dict[str, Any]] = [p.data for p in payloads]
        columns = {name: column(field.kind, [s[name] for s in samples]) for name, field in FIELDS.items()}
        keys = [s.get("host", self.name) for s in samples]  # a test may speak of other machines
        return Decoded(keys, None, columns, [1] * len(samples), [])


class Sampler:
    """Asks the operating system, through psutil."""

    def __init__(self, folder: str) -> None:
        import psutil

        self.psutil = psutil
        self.folder = folder
        self.psutil.cpu_percent()  # the first call begins the span that the next one measures
        self.before = self._traffic()
        self.at: float | None = None

    def sample(self, now: float) -> dict[str, Any]:
        """One reading; `now` in seconds of the loop's clock."""
        traffic = self._traffic()
        seconds = max(now - self.at, 1e-3) if self.at is not None else 1.0
        rates = [max(0.0, (new - old) / seconds) for new, old in zip(traffic, self.before, strict=True)]
        self.before, self.at = traffic, now
        return {
            "cpu": float(self.psutil.cpu_percent()),
            "load": float(self.psutil.getloadavg()[0]),
            "memory": float(self.psutil.virtual_memory().percent),
            "disk": float(self.psutil.disk_usage(self.folder).percent),
            "temperature": self._temperature(),
            "received": rates[0],
            "sent": rates[1],
            "uptime": self._uptime(),
        }

    def _traffic(self) -> tuple[int, int]:
        found = [c for name, c in self.psutil.net_io_counters(pernic=True).items() if name != "lo"]
        return sum(c.bytes_recv for c in found), sum(c.bytes_sent for c in found)

    def _temperature(self) -> float | None:
        if not hasattr(self.psutil, "sensors_temperatures"):
            return None  # not every operating system has it
        found = [s.current for sensors in self.psutil.sensors_temperatures().values() for s in sensors]
        return float(max(found)) if found else None

    def _uptime(self) -> float:
        import time

        return max(0.0, time.time() - float(self.psutil.boot_time()))
