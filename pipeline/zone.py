"""Local time: what a time zone's clocks are ahead of UTC, for whole columns of instants.

The changes of a zone (daylight saving, new laws) are looked up once for each year that readings come from, to the second.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta

import numpy as np

from pipeline.frame import SECOND, Ints
from pipeline.problem import did_you_mean

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_YEAR_NS = 31_556_952 * SECOND  # mean length: near enough to find the year of an instant, give or take one
_FIRST, _LAST = 1678, 2262  # the years that int64 ns can tell in whole


class ZoneError(ValueError):
    """A text that is not the name of a time zone."""


def zone_info(name: str) -> zoneinfo.ZoneInfo:
    """The rules of a time zone. ZoneError if there is none of that name."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not there; not a name; a folder of the database
        known = zoneinfo.available_timezones()
        hint = did_you_mean(name, known) or '; write it as "Europe/Berlin"'
        if not known:
            hint = "; this system has no time zones: pip install tzdata"
        raise ZoneError(f'"{name[:60]}" is not a time zone{hint}') from None


class Zone:
    """A time zone by its name in the IANA database, such as "Europe/Berlin"."""

    def __init__(self, name: str) -> None:
        self._info = zone_info(name)
        self._first = self._last = 0  # years that `_starts` covers: from the one until before the other
        self._starts = np.empty(0, np.int64)  # instants from which each of `_offsets` holds
        self._offsets = np.empty(0, np.int64)

    def local(self, time: Ints) -> Ints:
        """What the clocks of the zone show at these instants, in ns since their 1970 began."""
        if not len(time):
            return time
        self._cover(int(time.min()), int(time.max()))
        return time + self._offsets[np.searchsorted(self._starts, time, "right") - 1]

    def _cover(self, low: int, high: int) -> None:
        """Know the changes of all years between two instants, and of those known already."""
        first, last = max(1969 + low // _YEAR_NS, _FIRST), min(1972 + high // _YEAR_NS, _LAST)
        if self._last:
            if self._first <= first and last <= self._last:
                return
            first, last = min(first, self._first), max(last, self._last)
        self._first, self._last = first, last
        day = datetime(first, 1, 1, tzinfo=UTC)
        changes = [(day, self._offset(day))]
        while day.year < last:
            after = day + _DAY
            if self._offset(after) != changes[-1][1]:
                change = self._change(day, after)
                changes.append((change, self._offset(change)))
            day = after
        self._starts = np.array([(at - _EPOCH) // timedelta(seconds=1) * SECOND for at, _ in changes], np.int64)
        self._starts[0] = np.iinfo(np.int64).min  # whatever lies before has the first offset
        self._offsets = np.array([offset // timedelta(seconds=1) * SECOND for _, offset in changes], np.int64)

    def _offset(self, instant: datetime) -> timedelta:
        found = instant.astimezone(self._info).utcoffset()
        assert found is not None
        return found

    def _change(self, before: datetime, after: datetime) -> datetime:
        """The second at which the offset changes between two instants."""
        old = self._offset(before)
        seconds = (after - before) // timedelta(seconds=1)
        same = 0
        while seconds - same > 1:
            middle = (same + seconds) // 2
            if self._offset(before + timedelta(seconds=middle)) == old:
                same = middle
            else:
                seconds = middle
        return before + timedelta(seconds=seconds)
