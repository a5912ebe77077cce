"""What a pipeline will take of memory and flash at most, as far as its file tells: for `headwater check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.inbox import INBOX_BYTES
from pipeline.turns import width_of

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.graph import Graph

BASE_BYTES = 55_000_000  # a process with its libraries and no rows: measured with `/proc/PID/status`
KEY_BYTES = 150  # of the key table: the text, its entry, its place among all
COMMIT_BYTES = 17_000  # that a commit of a few rows writes, whatever it holds (benchmarks/durability.py)
DAY_S = 86_400


@dataclass
class Part:
    """Of one node: bytes for each key, at `max_keys`, and in words what is held beyond."""

    node: str
    per_key: int
    per: str
    most: int
    beyond: str = ""


@dataclass
class Estimate:
    parts: list[Part]
    max_keys: int
    commit_ns: int
    endurance: int

    @property
    def memory(self) -> int:
        """Bytes at `max_keys` keys, with one open window each; what has no bound by the keys is not in it."""
        return BASE_BYTES + sum(part.most for part in self.parts)

    def flash_a_day(self, interval_s: float) -> float:
        """Bytes that commits write in a day at one so often; rows come on top."""
        return COMMIT_BYTES * DAY_S / max(interval_s, self.commit_ns / 1e9)

    def as_dict(self) -> dict[str, Any]:
        return {
            "memory": {
                "bytes": self.memory,
                "base": BASE_BYTES,
                "max_keys": self.max_keys,
                "nodes": [vars(part) for part in self.parts],
            },
            "flash": {
                "commit_bytes": COMMIT_BYTES,
                "bytes_a_day_at_1_s": round(self.flash_a_day(1.0)),
                "endurance_bytes": self.endurance,
                "days_at_1_s": round(self.endurance / self.flash_a_day(1.0)),
            },
        }

    def lines(self) -> list[str]:
        """For a person: what is largest comes first."""
        told = [
            f"memory: at most about {_size(self.memory)} at {self.max_keys:,} keys, {_size(BASE_BYTES)} of it without any"
        ]
        width = max(len(part.node) for part in self.parts)
        for part in sorted(self.parts, key=lambda p: -p.most):
            each = f"{part.per_key:,} B for each {part.per}: {_size(part.most)}" if part.per_key else ""
            fixed = _size(part.most) if part.most and not part.per_key else ""
            beyond = f"{'; and ' if each else ''}{part.beyond}" if part.beyond else ""
            told.append(f"  {part.node:{width}}  {each or fixed}{beyond}")
        often = max(1.0, self.commit_ns / 1e9)
        told.append(
            f"flash: about {COMMIT_BYTES / 1000:.0f} kB a commit: {_size(round(self.flash_a_day(1.0)))} a day at one each "
            f"{often:g} s, and the rows; {_size(self.endurance)} last {self.endurance / self.flash_a_day(1.0) / 365:.0f} years"
            " so ([pipeline] endurance); [pipeline] commit sets the least time between two"
        )
        return told


def _size(number: int) -> str:
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number} B"


def estimate(config: Config, graph: Graph) -> Estimate:
    """Of a graph without problems."""
    keys = config.pipeline.max_keys
    parts = [Part("keys", KEY_BYTES, "key", KEY_BYTES * keys)]
    parts += [Part(f"{name} (inbox)", 0, "", INBOX_BYTES) for name in graph.sources]
    shown = {stream for sink in graph.sinks.values() if sink.needs_server for stream in sink.context.inputs}
    shown |= {name for name, source in graph.sources.items() if source.needs_server}
    for stream in sorted(shown):
        width = 16 + 2 * width_of(graph.streams[stream].fields)  # an array has room for twice the keys that came
        parts.append(Part(f"{stream} (latest)", width, "key", width * keys))
    for name, edge in graph.edges.items():
        held = edge.operator.memory()
        if held.per_key or held.beyond:
            parts.append(Part(name, held.per_key, held.per, held.per_key * keys, held.beyond))
    return Estimate(parts, keys, int(config.pipeline.commit), int(config.pipeline.endurance))
