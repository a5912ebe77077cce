"""The flash budget: what the state folder's database has written, how much a day, and when the flash will be used up."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.frame import SECOND

if TYPE_CHECKING:
    from pipeline.clock import Clock
    from pipeline.journal.flash import Log

DAY = 86_400 * SECOND
SPAN = 3_600 * SECOND  # over which the present rate is taken
EACH = 60 * SECOND  # so often it is looked at
FAR = 100 * 365 * DAY  # a day further ahead than this is none


class Budget:
    """Of a log, at the rate of the last hour, by a clock."""

    def __init__(self, log: Log, clock: Clock, endurance: int) -> None:
        self.log = log
        self.clock = clock
        self.endurance = endurance
        self._looked: deque[tuple[int, int]] = deque([(clock.monotonic(), log.written)])  # time, bytes

    def look(self) -> None:
        """Now and then; the more often, the smoother is what it tells."""
        now = self.clock.monotonic()
        if now - self._looked[-1][0] >= EACH:
            self._looked.append((now, self.log.written))
        while len(self._looked) > 1 and now - self._looked[1][0] >= SPAN:
            self._looked.popleft()

    def per_day(self) -> float | None:
        """At the rate of the last hour; None in the first minute, which has nothing to go by."""
        self.look()
        began, written = self._looked[0]
        span = self.clock.monotonic() - began
        return None if span < EACH else (self.log.written - written) * DAY / span

    def told(self) -> dict[str, Any]:
        per_day = self.per_day()
        left = max(0, self.endurance - self.log.written)
        ahead = left * DAY / per_day if per_day else FAR
        return {
            "written_bytes": self.log.written,
            "since": _instant(self.log.since),
            "per_day_bytes": None if per_day is None else round(per_day),
            "endurance_bytes": int(self.endurance),
            "used_up": _instant(self.clock.wall() + round(ahead)) if ahead < FAR else None,
        }


def _instant(time: int) -> str:
    return f"{np.datetime_as_string(np.datetime64(time, 'ns'), unit='s')}Z"
