"""What `check` says of memory holds: no operator keeps more for each key than it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import registry
from pipeline.estimate import BASE_BYTES, estimate
from pipeline.frame import Field, KeyTable, Schema
from pipeline.journal.state import pack
from pipeline.run import check
from pipeline.testing import frames, make

KEYS = 2_000
SCHEMA = Schema("key", {"value": Field("float", optional=True), "count": Field("int")})
ROOT = Path(__file__).parent.parent.parent

EXAMPLES: list[tuple[str, dict[str, Any]]] = [
    ("filter", {"where": "value > 0"}),
    ("changes", {"deadband": {"value": 0.5}}),
    ("sample", {"method": "throttle", "period": "10 s"}),
    ("sample", {"method": "debounce", "period": "10 s"}),
    ("sample", {"method": "last", "period": "10 s"}),
    ("resample", {"every": "1 s"}),
    ("window", {"size": "10 s", "aggregate": {"n": "count()", "mean": "mean(value)", "high": "max(count)"}}),
    ("window", {"window": "session", "gap": "10 s", "aggregate": {"v": "stddev(value)"}}),
    ("alert", {"when": "value > 1e9", "silent_for": "1 h"}),
    ("anomaly", {"field": "value"}),
]


@pytest.mark.parametrize(("type_", "settings"), EXAMPLES)
def test_no_operator_keeps_more_than_it_says(type_: str, settings: dict[str, Any]) -> None:
    """A reading of each of many keys; what is saved is what is kept."""
    keys = KeyTable()
    operator, problems = make(registry.find("operator", type_)[0], settings, SCHEMA, keys=keys)
    assert not problems
    rows: list[Any] = [{"key": f"k{i}", "time": 3, "value": 0.5, "count": i} for i in range(KEYS)]
    for frame in frames(rows, SCHEMA, keys, disorder=100):
        for state in operator.context.states.values():
            state.grow(len(keys))
        operator.on_frame(frame)
    said = operator.memory()
    kept = len(pack(operator.snapshot()))
    beyond = 40 * KEYS if said.beyond else 0  # of a reading that waits
    assert kept <= said.per_key * KEYS + beyond + 2_000
    assert kept >= said.per_key * KEYS / 10  # and is no idle number


def test_the_sum_and_what_dominates() -> None:
    config, graph = check(ROOT / "pipeline.toml")
    found = estimate(config, graph)
    assert found.memory == BASE_BYTES + sum(part.most for part in found.parts)
    assert {part.node for part in found.parts} >= {"keys", "ten_seconds", "too_high", "readings (inbox)"}
    lines = found.lines()
    assert lines[1].split()[0] == "ten_seconds"  # the largest comes first
    assert np.isclose(found.flash_a_day(10) * 10, found.flash_a_day(1))


def test_a_commit_interval_saves_flash() -> None:
    config, graph = check(ROOT / "pipeline.toml")
    found = estimate(config, graph)
    found.commit_ns = 60 * 10**9
    assert found.flash_a_day(1) < found.flash_a_day(61) * 1.1
