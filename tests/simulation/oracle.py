"""What must come out, computed reading by reading in the plainest way, from the readings that were kept, in their order."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

DISORDER_MS = 5_000
SIZE_MS = 10_000
NEVER = -(10**18)


class Reading(NamedTuple):
    source: str
    id: str
    ts: int  # ms
    value: float
    n: int
    seq: int = 0  # its arrival number


class Forgotten(NamedTuple):
    seq: int  # those with a lower arrival number came before
    id: str


FORGOTTEN = -1  # in the place of its time: of the row by which an alert is over because its key was forgotten


class Outputs(NamedTuple):
    windows: Counter[tuple[str, int, int, float]]  # id, start, count, sum
    late: Counter[tuple[str, int, float]]  # id, ts, value
    alerts: Counter[tuple[str, int, str]]  # id, ts, state


def outputs(
    kept: list[Reading],
    sources: list[str],
    forgotten: list[Forgotten],
    *,
    least: float = -math.inf,
    ended: bool = False,
) -> Outputs:
    """Of the readings of these sources with at least this value. `ended`: nothing will come after them."""
    forgets = sorted(forgotten, reverse=True)
    newest = dict.fromkeys(sources, NEVER)
    open_: dict[tuple[str, int], list[float]] = {}
    made = Outputs(Counter(), Counter(), Counter())
    firing: set[str] = set()
    for reading in kept:
        while forgets and forgets[-1].seq <= reading.seq:
            _forget(forgets.pop().id, open_, firing, made)
        reached = min(newest.values()) - DISORDER_MS
        newest[reading.source] = max(newest[reading.source], reading.ts)
        if reading.value >= least:
            start = reading.ts // SIZE_MS * SIZE_MS
            if start + SIZE_MS <= reached:
                made.late[reading.id, reading.ts, reading.value] += 1
            else:
                open_.setdefault((reading.id, start), []).append(reading.value)
            if reading.id not in firing and reading.value > 80:
                firing.add(reading.id)
                made.alerts[reading.id, reading.ts, "firing"] += 1
            elif reading.id in firing and reading.value < 20:
                firing.discard(reading.id)
                made.alerts[reading.id, reading.ts, "cleared"] += 1
        reached = min(newest.values()) - DISORDER_MS
        _close(open_, reached, made)
    for one in reversed(forgets):
        _forget(one.id, open_, firing, made)
    if ended:
        _close(open_, math.inf, made)
    return made


def _forget(name: str, open_: dict[tuple[str, int], list[float]], firing: set[str], made: Outputs) -> None:
    for key in [key for key in open_ if key[0] == name]:
        del open_[key]
    if name in firing:
        firing.discard(name)
        made.alerts[name, FORGOTTEN, "cleared"] += 1


def _close(open_: dict[tuple[str, int], list[float]], reached: float, made: Outputs) -> None:
    for name, start in [w for w in open_ if w[1] + SIZE_MS <= reached]:
        values = open_.pop((name, start))
        made.windows[name, start, len(values), sum(values)] += 1
