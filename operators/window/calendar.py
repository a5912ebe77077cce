"""Days, weeks and months of a time zone as a grid of windows."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from pipeline.frame import Ints

_TEXT = re.compile(r"\s*([0-9]{1,5})\s*(d|days?|weeks?|months?|quarters?|years?)\s*")
_UNITS = {"d": ("day", 1), "day": ("day", 1), "week": ("week", 1)}
_UNITS |= {"month": ("month", 1), "quarter": ("month", 3), "year": ("month", 12)}
_EPOCH = date(1970, 1, 1)
_MONDAY = date(1969, 12, 29)  # the weeks of 1970 begin
_DAY_NS = 86_400 * 10**9
_DAYS = {"day": 1.0, "week": 7.0, "month": 30.436875}
# Times of 64 bits reach from 1677 to 2262; what lies beyond these is of the first or the last window.
_FIRST, _LAST = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 10**9 for year in (1678, 2262))


_MOST = {"day": 36_525, "week": 5_218, "month": 1_200}  # a hundred years


class Length(NamedTuple):
    """`times` days, weeks (from Monday on) or months."""

    unit: str
    times: int


def length(text: Any, *, zoned: bool) -> Length | None:
    """What is said by "1 day", "2 weeks", "1 month", "1 quarter" or "1 year"; "1 d" is a day only in a time zone."""
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if match is None or (match[2] == "d" and not zoned) or int(match[1]) == 0:
        return None
    unit, per = _UNITS[match[2] if match[2] == "d" else match[2].removesuffix("s")]
    times = int(match[1]) * per
    return Length(unit, times) if times <= _MOST[unit] else None


class Calendar:
    """Window w begins `times` * w units after that of 1970-01-01 (weeks: its Monday), at local midnight plus `offset`, as
    clocks there show.

    A local time that a change of the clocks leaves out is the moment of the change; of one that comes twice the first is
    meant. The bounds are computed once each, in one stretch from the first window that was asked for to the last.
    """

    single = True

    def __init__(self, size: Length, zone: ZoneInfo, offset: int) -> None:
        self.size = size
        self.zone = zone
        self.offset = timedelta(microseconds=offset // 1000)
        self._low = 0  # the number of the first window of `_bounds`
        self._bounds: Ints = np.empty(0, np.int64)  # starts, and the end of the last one
        self._asked: list[tuple[int, int, int]] = []  # windows that single times were in last: number, start, end

    def _bound(self, window: int) -> int:
        """When a window begins."""
        steps = window * self.size.times
        if self.size.unit == "month":
            year, month = divmod(steps, 12)
            day = date(1970 + year, month + 1, 1)
        elif self.size.unit == "week":
            day = _MONDAY + timedelta(weeks=steps)
        else:
            day = _EPOCH + timedelta(days=steps)
        local = datetime(day.year, day.month, day.day) + self.offset  # noqa: DTZ001 - the zone is added next
        since = local.replace(tzinfo=self.zone).astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        return min((since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000, 2**63 - 1)

    def _reach(self, low: int, high: int) -> None:
        """Know the bounds around these times, and of two windows more on either side."""
        per = _DAYS[self.size.unit] * self.size.times * _DAY_NS
        if not len(self._bounds):
            self._low = int(low // per) - 1
            self._bounds = np.array([self._bound(self._low)])
        while self._bounds[0] > low:
            more = int((self._bounds[0] - low) // per) + 2
            before = [self._bound(w) for w in range(self._low - more, self._low)]
            self._bounds = np.append(np.array(before), self._bounds)
            self._low -= more
        while self._bounds[-1] <= high:
            more = int((high - self._bounds[-1]) // per) + 2
            next_ = self._low + len(self._bounds)
            after = [self._bound(w) for w in range(next_, next_ + more)]
            self._bounds = np.append(self._bounds, np.array(after))

    def last(self, time: Any) -> Any:
        if isinstance(time, int):
            return self._window(min(max(time, _FIRST), _LAST))
        time = np.clip(time, _FIRST, _LAST)
        self._reach(int(np.min(time)), int(np.max(time)))
        return np.searchsorted(self._bounds, time, "right") + (self._low - 1)

    first = last

    def _window(self, time: int) -> int:
        """Most times are of the window that was asked for last, or of the one before the watermark."""
        for window, start, end in self._asked:
            if start <= time < end:
                return window
        self._reach(time, time)
        window = int(np.searchsorted(self._bounds, time, "right")) + self._low - 1
        start, end = self._bounds[window - self._low : window - self._low + 2].tolist()
        self._asked = [(window, start, end), *self._asked[:1]]
        return window

    def start(self, window: Any) -> Any:
        if isinstance(window, int) and 0 <= (place := window - self._low) < len(self._bounds):
            return int(self._bounds[place])
        self._know(window)
        found = self._bounds[window - self._low]
        return found if np.ndim(window) else int(found)

    def end(self, window: Any) -> Any:
        return self.start(window + 1)

    def _know(self, window: Any) -> None:
        low, high = int(np.min(window)), int(np.max(window))
        if not len(self._bounds):
            self._low = low
        if low < self._low:
            self._bounds = np.append(np.array([self._bound(w) for w in range(low, self._low)]), self._bounds)
            self._low = low
        next_ = self._low + len(self._bounds)
        if high >= next_:
            self._bounds = np.append(self._bounds, np.array([self._bound(w) for w in range(next_, high + 1)]))
