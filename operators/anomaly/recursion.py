"""The mathematics of `anomaly`: what one key's readings do, one after the other, to its numbers and to its surprise.

Plain Python on floats, reading by reading: each number depends on the one before, so with few keys in a Frame there is
nothing for numpy to do at once. A detector costs some 0.15 µs a reading, and logarithms are taken only of the few readings
that stand out. `together.py` does the same for many keys at once, to the last bit: whoever changes one changes both.
"""

from __future__ import annotations

from math import exp, inf, log, log1p, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.frame import Array

DETECTORS = ("recent", "slow", "level", "shift", "day", "week", "stuck")
MEMORY = 2000  # readings that the long-run level and spreads remember: a week of five minutes
RECENT, SLOW, SHORT, SMOOTH = 0.1, 0.02, 0.04, 0.15  # the share that a reading has in each moving mean
STUCK = 24  # repeats of one value that are no news yet
LONGEST = 33 * STUCK  # run that is told from a longer one: its ratio is just below the ceiling

BLOCK = 20  # readings whose highest ratio is one candidate for the peaks: an event is one candidate, not twenty
PEAKS = 5
FADE = 1 - 1 / 5000  # of a peak in each block: it halves in 70,000 readings, the better part of a year of five minutes
MOST_BLOCKS = 1000  # a surprise is no rarer than the peaks of so many blocks can tell
FLOORS = (4.0,) * 6 + (1.0,)  # squared: below two spreads nothing is a surprise, however quiet it was before
PRIOR_PEAKS, PRIOR_EXCESS = (
    3.0,
    0.2,
)  # what is thought of the tail before it is known: so many peaks with this mean excess
CEILING = 1e30  # of a ratio: above, only rounding speaks (a spread of 1e-15)

HOLD = 1 - 1 / 100  # what is left after each reading of the last alarm's surprise
THRESHOLD, STEP, LOWEST = 0.6, 0.1, 0.2  # surprise that alarms at first; an alarm adds a step; never below

DAY_SHARE, WEEK_SHARE = 0.3, 0.5  # the share that an hour has in its place of the profile
DAY, WEEK = 24, 168  # hours; the profile holds a day's, then a week's
MOST_VISITS = 255

MIXED = 1.5  # the power of the mean over detectors: between their mean (1) and the loudest alone

# One row of numbers for each key, in this order. The names are part of what is saved.
NUMBERS = (
    "count",
    "recent",
    "slow",
    "level",
    "short",
    "day_error",
    "week_error",
    *(f"{name}_spread" for name in DETECTORS[:6]),
    *(f"{name}_best" for name in DETECTORS),
    *(f"{name}_bar" for name in DETECTORS),
    "last",
    "repeats",
    "hour",
    "hour_sum",
    "hour_count",
    "by_day",
    "by_week",
    *("told", "told_at", "threshold", "relaxed"),  # Telling
)


class Hit(NamedTuple):
    """A reading that stands out of what its key did before."""

    at: int  # position among the readings
    score: float
    detector: int
    alarm: bool
    expected: float  # by that detector


class Profile(NamedTuple):
    """What a key does in each hour of the day, then of the week. Written to in place; memoryviews, since an item of
    theirs is a plain number at a third of numpy's price."""

    means: Any  # memoryview of float64
    visits: memoryview  # of uint8, no further than 255

    def add(self, hour: int, mean: float) -> None:
        """One hour is over."""
        means, visits = self
        for place, share in ((hour % DAY, DAY_SHARE), (DAY + hour % WEEK, WEEK_SHARE)):
            seen = visits[place] + 1
            if seen == 1:
                means[place] = mean
            else:
                means[place] += max(share, 1 / seen) * (mean - means[place])
            if seen <= MOST_VISITS:
                visits[place] = seen

    def at(self, hour: int, level: float) -> tuple[float, float]:
        """What is expected in this hour by the day and by the week; where it was never seen, the next best."""
        means, visits = self
        day, week = hour % DAY, DAY + hour % WEEK
        by_day = means[day] if visits[day] else level
        return by_day, means[week] if visits[week] else by_day


class Memory(NamedTuple):
    """What is seldom needed of the keys: arrays by key, written to in place."""

    peaks: Array  # by detector, highest first
    means: Array
    visits: Array

    def profile(self, key: int) -> Profile:
        return Profile(self.means[key].data, self.visits[key].data)


def stuck(repeats: float) -> float:
    """The ratio of a run of one value: as chance would have it, each length is rarer than the one before by a factor."""
    return exp(2 * (min(repeats, LONGEST) / STUCK - 1))


def digits(ratio: float, peaks: Sequence[float], blocks: int) -> float:
    """How rare a ratio above the lowest of its detector's peaks is: 3 is once in 1,000 blocks.

    The peaks-over-threshold estimate: the peaks' logarithms exceed the lowest by exponential amounts, and the mean of
    these is known only as well as a few peaks tell it, which makes the tail heavier (a gamma prior gives a Lomax law).
    """
    bar = peaks[-1]
    known = PEAKS - 1 + PRIOR_PEAKS
    total = PRIOR_PEAKS * PRIOR_EXCESS
    for peak in peaks[:-1]:
        total += 0.5 * log(peak / bar)
    excess = 0.5 * log(min(ratio, CEILING) / bar)
    return (log(max(1.0, blocks / PEAKS)) + known * log1p(excess / total)) / log(10)


def close_block(best: Sequence[float], peaks: Array, count: float) -> list[float]:
    """Take the highest ratios of a block into the peaks (a row a detector); gives what a ratio must exceed from now on."""
    peaks *= FADE
    for row, value in zip(peaks, best, strict=True):
        if value > row[-1]:
            at = PEAKS - 1
            while at and row[at - 1] < value:
                row[at] = row[at - 1]
                at -= 1
            row[at] = min(value, CEILING)
    if count < PEAKS * BLOCK:
        return [inf] * len(DETECTORS)
    return [max(lowest, floor) for lowest, floor in zip(peaks[:, -1].tolist(), FLOORS, strict=True)]


class Telling(NamedTuple):
    """When a surprise is worth an alarm."""

    told: float  # the surprise of the last alarm, after so many readings
    told_at: float
    threshold: float
    relaxed: float  # the time, in s, to which it was lowered


class Found(NamedTuple):
    score: float
    detector: int
    alarm: bool


def judge(
    ratios: Sequence[float], bars: Sequence[float], peaks: Array, count: float, time: float, now: Telling, rate: float
) -> tuple[Found, Telling]:
    """A reading of which a ratio exceeds its bar."""
    blocks = min(int(count - 1) // BLOCK, MOST_BLOCKS)
    mixed, loudest, which = 0.0, 0.0, 0
    for detector, (ratio, bar) in enumerate(zip(ratios, bars, strict=True)):
        if ratio > bar:
            found = digits(ratio, [max(peak, bar) for peak in peaks[detector].tolist()], blocks)
            mixed += found * sqrt(found)  # to the power MIXED
            if found > loudest:
                loudest, which = found, detector
    mixed = (mixed / len(DETECTORS)) ** (1 / MIXED)
    told, told_at, threshold, relaxed = now
    if time > relaxed:
        threshold = max(LOWEST, threshold - STEP * rate * (time - relaxed))
        relaxed = time
    news = max(0.0, mixed - told * HOLD ** (count - told_at))
    score = news / (news + threshold)
    alarm = score > 0.5
    if alarm:
        threshold += STEP
        told, told_at = mixed, count
    return Found(score, which, alarm), Telling(told, told_at, threshold, relaxed)


def walk(
    row: Sequence[float],
    readings: Iterable[tuple[float, int, float]],
    memory: Memory,
    key: int,
    rate: float,
) -> tuple[list[float], list[float], list[Hit]]:
    """The readings (value, hour since 1970, time in s) of one key, in order of arrival.

    `rate`: alarms a second. Gives the key's numbers afterwards, what was expected of each reading, and those that stand out.
    """
    # fmt: off
    (count, recent, slow, level, short, day_error, week_error,
     v1, v2, v3, v4, v5, v6, b1, b2, b3, b4, b5, b6, b7, u1, u2, u3, u4, u5, u6, u7,
     last, repeats, hour_now, hour_sum, hour_count, by_day, by_week, told, told_at, threshold, relaxed) = row
    # fmt: on
    share, recent_share, slow_share, short_share = 1 / MEMORY, RECENT, SLOW, SHORT
    expected: list[float] = []
    hits: list[Hit] = []
    at = -1
    for value, hour, time in readings:
        at += 1
        if count < MEMORY:
            if not count:
                recent = slow = level = short = last = value
                u1 = u2 = u3 = u4 = u5 = u6 = u7 = inf
                threshold, relaxed, hour_now, repeats = THRESHOLD, time, hour, -1.0
                by_day = by_week = value
            share = 1 / (count + 1)
            recent_share = max(RECENT, share)
            slow_share = max(SLOW, share)
            short_share = max(SHORT, share)
        count += 1
        if hour != hour_now:
            profile = memory.profile(key)
            profile.add(int(hour_now), hour_sum / hour_count)
            by_day, by_week = profile.at(hour, level)
            hour_now, hour_sum, hour_count = hour, 0.0, 0.0
        hour_sum += value
        hour_count += 1
        expected.append(recent)

        # Each detector has an error, whose square is put in relation to its own long-run mean: the ratio.
        e1 = value - recent
        s1 = e1 * e1
        r1 = s1 / v1 if v1 else min(count, MEMORY) if s1 else 0.0
        v1 += share * (s1 - v1)
        e2 = value - slow
        s2 = e2 * e2
        r2 = s2 / v2 if v2 else min(count, MEMORY) if s2 else 0.0
        v2 += share * (s2 - v2)
        e3 = value - level
        s3 = e3 * e3
        r3 = s3 / v3 if v3 else min(count, MEMORY) if s3 else 0.0
        v3 += share * (s3 - v3)
        short += short_share * (value - short)
        e4 = short - level
        s4 = e4 * e4
        r4 = s4 / v4 if v4 else min(count, MEMORY) if s4 else 0.0
        v4 += share * (s4 - v4)
        day_error += SMOOTH * (value - by_day - day_error)
        s5 = day_error * day_error
        r5 = s5 / v5 if v5 else min(count, MEMORY) if s5 else 0.0
        v5 += share * (s5 - v5)
        week_error += SMOOTH * (value - by_week - week_error)
        s6 = week_error * week_error
        r6 = s6 / v6 if v6 else min(count, MEMORY) if s6 else 0.0
        v6 += share * (s6 - v6)
        if value == last:
            repeats += 1
            r7 = stuck(repeats) if repeats > STUCK else 0.0
        else:
            repeats = r7 = 0.0
            last = value

        if r1 > u1 or r2 > u2 or r3 > u3 or r4 > u4 or r5 > u5 or r6 > u6 or r7 > u7:
            ratios, bars = (r1, r2, r3, r4, r5, r6, r7), (u1, u2, u3, u4, u5, u6, u7)
            before = Telling(told, told_at, threshold, relaxed)
            found, telling = judge(ratios, bars, memory.peaks[key], count, time, before, rate)
            told, told_at, threshold, relaxed = telling
            looked_for = (recent, slow, level, level, by_day, by_week, last)[found.detector]
            hits.append(Hit(at, *found, looked_for))

        recent += recent_share * e1
        slow += slow_share * e2
        level += share * e3
        if r1 > b1:
            b1 = r1
        if r2 > b2:
            b2 = r2
        if r3 > b3:
            b3 = r3
        if r4 > b4:
            b4 = r4
        if r5 > b5:
            b5 = r5
        if r6 > b6:
            b6 = r6
        if r7 > b7:
            b7 = r7
        if not count % BLOCK:
            u1, u2, u3, u4, u5, u6, u7 = close_block((b1, b2, b3, b4, b5, b6, b7), memory.peaks[key], count)
            b1 = b2 = b3 = b4 = b5 = b6 = b7 = 0.0

    # fmt: off
    after = [count, recent, slow, level, short, day_error, week_error,
             v1, v2, v3, v4, v5, v6, b1, b2, b3, b4, b5, b6, b7, u1, u2, u3, u4, u5, u6, u7,
             last, repeats, hour_now, hour_sum, hour_count, by_day, by_week, told, told_at, threshold, relaxed]
    # fmt: on
    return after, expected, hits
