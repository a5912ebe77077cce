"""`degree_days`: how much warmth, or cold, there was beyond a base temperature, since the season began."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta
from pipeline.component import Operator, OperatorContext, Settings
from pipeline.frame import Array, Bools, Column, Field, Frame, Ints, Schema
from pipeline.problem import did_you_mean
from pipeline.quantity import Duration, duration
from pipeline.turns import Turns, by_key
from pipeline.zone import Zone, ZoneError

MOST = 1_000.0  # degrees: what lies beyond is no temperature, and sums of the others fit 64 bits for centuries
LONGEST_GAP = duration("1 d")
MS = 1_000_000  # ns
# Sums are of whole numbers, as those do not depend on where they are cut: thousandths of a degree, twice (the two ends
# of a span are added, not halved), times milliseconds.
DEGREE_DAY = 1_000 * 2 * 86_400_000


class DegreeDaysSettings(Settings, frozen=True, kw_only=True):
    field: Annotated[str, Meta(description="The temperature.")] = "temperature"
    base: Annotated[float, Meta(ge=-MOST, le=MOST, description="Where counting begins, in degrees of the field.")] = (
        10.0
    )
    limit: Annotated[
        float | None, Meta(description="What lies beyond it counts no more than it does. Absent: all counts.")
    ] = None
    count: Annotated[
        Literal["above", "below"], Meta(description="above: growing, cooling. below: heating, chilling.")
    ] = "above"
    season: Annotated[
        str | None, Meta(description='The day on which the sum begins anew, as "03-01". Absent: it never does.')
    ] = None
    timezone: Annotated[str, Meta(description="Whose days.")] = "UTC"
    gap: Annotated[Duration, Meta(description="Between readings farther apart nothing is counted.")] = duration("3 h")


class DegreeDays(Operator):
    """Add up how far a temperature was above a base, and for how long: the clock of plants and insects.

        temperature       20 @ 0:00   20 @ 12:00   10 @ 24:00
        degree_days       0           5            7.5             base = 10, gap = "12 h"

        [operators.warmth]
        type = "degree_days"
        input = "greenhouse"
        base = 10
        limit = 30
        season = "03-01"
        timezone = "Europe/Berlin"

    Adds the field degree_days: the sum of the reading's key up to that reading. Between two readings the temperature is
    taken to lie halfway between theirs, each within `base` and `limit`. With `count = "below"` it is how far it was
    below the base. The sum is missing where there is no temperature: none was told, or one beyond ±1,000 degrees.
    `season`: the first reading of a key on that day or after begins again at 0.
    Late data: a reading that is dated before the newest of its key is not counted, and its degree_days are missing.
    State: the newest reading and the sum of each key. It is kept when only `gap` is changed.
    Memory: 33 bytes for each key.
    """

    adapts = ("gap",)

    def __init__(self, settings: DegreeDaysSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.name = settings.field
        self.gap = int(settings.gap) // MS
        below = settings.count == "below"
        self.sign = -1 if below else 1
        self.base = settings.base
        self.most = np.inf if settings.limit is None else abs(settings.limit - settings.base)
        _check(settings, context)
        self.season = _month_and_day(settings.season, context)
        self.zone = _zone(settings.timezone, context)
        fields = {**context.fields, "degree_days": Field("float", optional=True)}
        self.schema = Schema(context.schema.key, fields, context.schema.role)
        whole = [(name, "int") for name in ("ms", "excess", "season", "sum")]
        self.last = context.per_key("last", [("seen", "bool"), *whole])

    def on_frame(self, frame: Frame) -> Frame:
        told, present = np.zeros(len(frame)), np.zeros(len(frame), np.bool_)
        ms = frame.time // MS  # of the times and not of the spans: what each lacks would add up
        rows = self._counted(frame, ms)
        if len(rows):
            turns = _newest_yet(frame.key, rows, ms)
            row = turns.order
            told[row], present[row] = self._sums(frame, turns, ms[row]) / DEGREE_DAY, True
        return frame.with_columns({"degree_days": Column(told, present)})

    def _counted(self, frame: Frame, ms: Ints) -> Ints:
        """The rows with a temperature that are not older than what their key has said before this Frame."""
        values, known = frame[self.name].values, frame[self.name].known()
        before = self.last[frame.key]
        good: Bools = known & (np.abs(values) <= MOST) & ~(before["seen"] & (ms < before["ms"]))
        return good.nonzero()[0]

    def _sums(self, frame: Frame, turns: Turns, ms: Ints) -> Ints:
        """The sum of its key at each row, and what is remembered of them."""
        row = turns.order
        now = np.zeros(len(row), self.last.dtype)
        now["seen"], now["ms"] = True, ms
        excess = np.clip((frame[self.name].values[row] - self.base) * self.sign, 0.0, self.most)
        now["excess"] = np.rint(excess * 1_000)
        now["season"] = self._seasons(frame.time[row])
        before = np.roll(now, 1)
        before[turns.first] = self.last[turns.keys]
        span = now["ms"] - before["ms"]
        goes_on = before["seen"] & (now["season"] == before["season"])
        piece = np.where(goes_on & (span <= self.gap), (now["excess"] + before["excess"]) * span, 0)
        # Running sums of each key and season: that of all rows, less what came before its first, and what it brought.
        begins = turns.begins | ~goes_on
        first = begins.nonzero()[0]
        brought = np.where(turns.begins & goes_on, before["sum"], 0)[first]
        total = np.cumsum(piece)
        offset = brought - (total[first] - piece[first])
        now["sum"] = total + offset[np.cumsum(begins) - 1]
        self.last[turns.keys] = now[turns.last]
        sums: Ints = now["sum"]
        return sums

    def _seasons(self, time: Ints) -> Array:
        """The year in which the season of each instant began."""
        if self.season is None:
            return np.zeros(len(time), np.int64)
        month, day = self.season
        days = self.zone.local(time).view("datetime64[ns]").astype("datetime64[D]")
        years = days.astype("datetime64[Y]")
        begins = (years.astype("datetime64[M]") + (month - 1)).astype("datetime64[D]") + (day - 1)
        return years.astype(np.int64) - (days < begins)


def _newest_yet(key: Array, rows: Ints, ms: Ints) -> Turns:
    """Of these rows, key by key, those that are not older than one of their key before them."""
    turns = by_key(key, rows)
    rank = np.empty(len(turns), np.int64)
    rank[np.lexsort((ms[turns.order], np.cumsum(turns.begins)))] = np.arange(len(turns))  # by key, then time; stable
    newest = rank == np.maximum.accumulate(rank)
    return turns if newest.all() else Turns(key, turns.order[newest])


# --- settings ---------------------------------------------------------------------------------------------------------


def _check(settings: DegreeDaysSettings, context: OperatorContext) -> None:
    field = context.fields.get(settings.field)
    if field is None:
        context.problem("field", f'"{settings.field}" is not a field{did_you_mean(settings.field, context.fields)}')
    elif field.kind not in ("float", "int"):
        context.problem("field", f'"{settings.field}" is {field.kind}; a temperature is a number')
    if settings.limit is not None and (settings.limit - settings.base) * (1 if settings.count == "above" else -1) <= 0:
        context.problem("limit", f"must lie {settings.count} the base ({settings.base:g}), or nothing counts")
    if not 0 < settings.gap <= LONGEST_GAP:
        context.problem("gap", f'must be longer than nothing, and "{LONGEST_GAP}" at most')
    if settings.base > 45:
        context.warn("base", "is much for degrees Celsius; if it is Fahrenheit, so are the sums")


def _month_and_day(text: str | None, context: OperatorContext) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        day = date.fromisoformat(f"2001-{text}")  # a year without 29 February: that is no day of every year
    except ValueError:
        context.problem("season", f'"{text}" is not a day of every year; write month and day, as "03-01"')
        return None
    return day.month, day.day


def _zone(name: str, context: OperatorContext) -> Zone:
    try:
        return Zone(name)
    except ZoneError as error:
        context.problem("timezone", str(error))
        return Zone("UTC")
