"""The flash budget: the present rate, and when the flash will be used up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pipeline.clock import VirtualClock
from pipeline.flash import DAY, Budget

SECOND = 10**9


def budget(endurance: int = 10**12, written: int = 0) -> tuple[Budget, Any, VirtualClock]:
    log: Any = SimpleNamespace(written=written, since=0)
    clock = VirtualClock(wall=1_790_000_000 * SECOND)
    return Budget(log, clock, endurance), log, clock


def test_nothing_is_said_of_the_first_minute() -> None:
    found, log, clock = budget()
    log.written += 10**6
    clock.advance(59 * SECOND)
    assert found.told()["per_day_bytes"] is None
    assert found.told()["used_up"] is None
    clock.advance(SECOND)
    assert found.told()["per_day_bytes"] == 10**6 * 1_440


def test_the_rate_is_that_of_the_last_hour() -> None:
    """A busy hour, then two quiet ones; and commits that are far apart."""
    found, log, clock = budget()
    for rate, seconds, each in ((50_000, 3_600, 1), (10, 7_200, 1), (10, 7_200, 700)):
        for _ in range(0, seconds, each):
            clock.advance(each * SECOND)
            log.written += rate * each
            found.look()
        assert abs(found.told()["per_day_bytes"] - rate * 86_400) < 0.03 * rate * 86_400


def test_when_it_will_be_used_up() -> None:
    found, log, clock = budget(endurance=4 * 86_400_000, written=86_400_000)
    clock.advance(100 * SECOND)
    log.written += 100_000
    told = found.told()
    assert told["per_day_bytes"] == 86_400_000
    assert told["used_up"] == "2026-09-24T14:13:20Z"  # three days from 2026-09-21T14:13:20
    log.written = 10**12
    assert found.told()["used_up"] == "2026-09-21T14:15:00Z"  # now


def test_a_device_that_writes_nothing_lasts() -> None:
    found, _, clock = budget()
    clock.advance(DAY)
    assert found.told() | {"since": ""} == {
        "written_bytes": 0,
        "since": "",
        "per_day_bytes": 0,
        "endurance_bytes": 10**12,
        "used_up": None,
    }
