"""The recursion of `anomaly` for many keys at once: what `walk` does to one key's numbers, as columns.

Only additions, multiplications, divisions and comparisons, in the order of `walk`, so that the bits are the same; what
happens to few keys (an hour is over, a block is full, a ratio stands out) is done by the same functions, key by key.
"""

from __future__ import annotations

import numpy as np

from operators.anomaly.recursion import (
    BLOCK,
    MEMORY,
    NUMBERS,
    RECENT,
    SHORT,
    SLOW,
    SMOOTH,
    STUCK,
    THRESHOLD,
    Hit,
    Memory,
    Telling,
    close_block,
    judge,
    stuck,
)
from pipeline.frame import Array

_AT = {name: at for at, name in enumerate(NUMBERS)}
_SPREAD = slice(_AT["recent_spread"], _AT["week_spread"] + 1)
_BEST = slice(_AT["recent_best"], _AT["stuck_best"] + 1)
_BAR = slice(_AT["recent_bar"], _AT["stuck_bar"] + 1)
_TELLING = slice(_AT["told"], _AT["relaxed"] + 1)


def step(
    numbers: Array, values: Array, hours: Array, times: Array, memory: Memory, keys: Array, rate: float
) -> tuple[Array, list[Hit]]:
    """One reading of each key; `numbers` has a row a name and a column a key, and is written to.

    Gives what was expected of each reading, and those that stand out.
    """
    count, recent, slow, level, short, day_error, week_error = numbers[: _SPREAD.start]
    spread, best, bar = numbers[_SPREAD], numbers[_BEST], numbers[_BAR]
    last, repeats, hour_now, hour_sum, hour_count, by_day, by_week = numbers[_BAR.stop : _TELLING.start]

    fresh = count == 0
    if fresh.any():
        for row in (recent, slow, level, short, last, by_day, by_week):
            row[fresh] = values[fresh]
        bar[:, fresh] = np.inf
        numbers[_AT["threshold"], fresh] = THRESHOLD
        numbers[_AT["relaxed"], fresh] = times[fresh]
        hour_now[fresh] = hours[fresh]
        repeats[fresh] = -1
    share = 1 / np.minimum(count + 1, MEMORY)
    count += 1
    for at in np.flatnonzero(hours != hour_now).tolist():
        profile = memory.profile(keys[at])
        profile.add(int(hour_now[at]), float(hour_sum[at] / hour_count[at]))
        by_day[at], by_week[at] = profile.at(int(hours[at]), float(level[at]))
        hour_now[at], hour_sum[at], hour_count[at] = hours[at], 0, 0
    hour_sum += values
    hour_count += 1
    expected = recent.copy()

    errors = np.empty_like(spread)
    errors[:3] = values - numbers[_AT["recent"] : _AT["level"] + 1]
    short += np.maximum(SHORT, share) * (values - short)
    errors[3] = short - level
    day_error += SMOOTH * (values - by_day - day_error)
    week_error += SMOOTH * (values - by_week - week_error)
    errors[4], errors[5] = day_error, week_error
    squares = errors * errors
    ratios = np.zeros_like(best)
    ratios[:6] = np.where(squares != 0, np.minimum(count, MEMORY), 0)  # where there was no spread so far
    with np.errstate(over="ignore"):
        np.divide(squares, spread, out=ratios[:6], where=spread != 0)
    spread += share * (squares - spread)
    same = values == last
    repeats[:] = np.where(same, repeats + 1, 0)
    last[:] = np.where(same, last, values)
    for at in np.flatnonzero(repeats > STUCK).tolist():
        ratios[6, at] = stuck(float(repeats[at]))

    hits = []
    for at in np.flatnonzero((ratios > bar).any(0)).tolist():
        before = Telling(*numbers[_TELLING, at].tolist())
        peaks = memory.peaks[keys[at]]
        found, after = judge(
            ratios[:, at].tolist(), bar[:, at].tolist(), peaks, float(count[at]), float(times[at]), before, rate
        )
        numbers[_TELLING, at] = after
        looked_for = (recent, slow, level, level, by_day, by_week, last)[found.detector][at]
        hits.append(Hit(at, *found, float(looked_for)))

    recent += np.maximum(RECENT, share) * errors[0]
    slow += np.maximum(SLOW, share) * errors[1]
    level += share * errors[2]
    np.maximum(best, ratios, out=best)
    for at in np.flatnonzero(count % BLOCK == 0).tolist():
        bar[:, at] = close_block(best[:, at].tolist(), memory.peaks[keys[at]], float(count[at]))
        best[:, at] = 0
    return expected, hits
