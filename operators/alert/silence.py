"""`silent_for`: since when each key has not been heard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from operators.alert.columns import ByKey
from operators.alert.watch import FAR, OFF, PENDING, SET
from pipeline.frame import BEGUN, NEVER, Array, Ints

if TYPE_CHECKING:
    from operators.alert.watch import Watch
    from pipeline.component import OperatorContext
    from pipeline.frame import Frame, Progress

SEEN, SPOKE, SILENT = 1, 2, 4  # of a key: it is watched; it has had a reading; it is silent
NOT_YET, TOLD, BEGAN = range(3)  # how far the watch over the expected keys has come


class Silence:
    """When each key was last heard, as columns: a reading that comes in time costs no Python.

    State and Memory: 9 bytes a key.
    """

    def __init__(self, silent_for: int, expect: tuple[str, ...], context: OperatorContext) -> None:
        self.silent_for = silent_for
        self.expect = expect
        self.keys = context.keys
        self.state = context.per_key("silence", [("heard", "int"), ("is", "i1")])
        self.progress = NOT_YET if expect else BEGAN
        self.first = FAR  # not later than the moment at which the first key falls silent

    # --- the readings of a Frame ---

    def odd(self, frame: Frame) -> Array:
        """The keys at which more happens than that they are heard in time."""
        key, time = frame.key, frame.time
        known = self.state.data[key]
        odd = known["is"] != SEEN | SPOKE
        latest = max(frame.watermark, int(time.max()))
        if int(known["heard"].min()) + self.silent_for > latest:
            alone: Array = key[odd]
            return alone
        rows = ByKey.of(key, np.arange(len(key)))
        heard = np.maximum(rows.highest(time[rows.rows]), known["heard"][rows.rows])
        until = rows.before(heard, known["heard"][rows.rows]) + self.silent_for
        reached = np.maximum(time, frame.watermark_before())[rows.rows]
        found: Array = np.concatenate([key[odd], rows.key[reached >= until]])
        return found

    def heard(self, key: Array, time: Ints) -> None:
        """These readings, each in time."""
        if not len(time):
            return
        newest = np.maximum(self.state.data["heard"][key], time)
        if (time[1:] < time[:-1]).any():
            order = np.argsort(newest, kind="stable")
            key, newest = key[order], newest[order]
        self.state.data["heard"][key] = newest  # where a key is there twice, numpy keeps the last: the newest

    def silent_by(self, watermark: int) -> list[int]:
        """The keys that the watermark finds silent."""
        if self.first > watermark:
            return []
        data = self.state.data
        waiting = np.flatnonzero((data["is"] & (SEEN | SILENT)) == SEEN)
        until = data["heard"][waiting] + self.silent_for
        over = until <= watermark
        self.first = int(until[~over].min(initial=FAR))
        silent: list[int] = waiting[over].tolist()
        return silent

    # --- one key ---

    def load(self, watch: Watch) -> None:
        """What is known of a key, for a closer look."""
        latch = watch.silence
        assert latch is not None
        heard, is_ = self.state.data[watch.key].item()
        watch.spoke = bool(is_ & SPOKE)
        latch.state = SET if is_ & SILENT else PENDING if is_ & SEEN else OFF
        latch.since, latch.until = heard, heard + self.silent_for

    def store(self, watch: Watch) -> None:
        latch = watch.silence
        assert latch is not None
        if latch.state == OFF:
            return
        silent = latch.state == SET
        self.state.data[watch.key] = (latch.since, SEEN | SPOKE * watch.spoke | SILENT * silent)
        if not silent:
            self.first = min(self.first, latch.until)

    # --- keys that have never been heard ---

    def begins_at(self, progress: Progress) -> int | None:
        """Arrival number of the reading behind the one with which time begins; None: not in the midst of this Frame."""
        if self.progress == BEGAN or not len(progress.seq) or progress.before[0] > BEGUN:
            return None
        at = int(np.searchsorted(progress.before, BEGUN, "right"))
        return int(progress.seq[at]) if at < len(progress.seq) else None

    def expected(self) -> Ints:
        """The expected keys without a reading. Their silence begins with time itself."""
        codes = self.keys.codes(self.expect)
        codes = np.unique(codes[codes >= 0])  # at the limit of keys there is no room for more
        self.state.grow(len(self.keys))
        unheard: Ints = codes[self.state.data["is"][codes] == 0].astype(np.int64)
        return unheard

    def begin(self, marks: list[int]) -> None:
        """Time begins with the first of these watermarks that is one."""
        start = next((mark for mark in marks if mark > BEGUN), None)
        if self.progress == BEGAN or start is None:
            return
        codes = self.expected()
        self.state.data["heard"][codes] = start
        self.state.data["is"][codes] = SEEN
        if len(codes):
            self.first = min(self.first, start + self.silent_for)
        self.progress = BEGAN

    def never(self, progress: Progress) -> list[int]:
        """The expected keys, once none of all keys has been heard for so long since the start."""
        if self.progress != NOT_YET or progress.watermark < NEVER + self.silent_for:
            return []
        self.progress = TOLD
        codes = self.expected()
        self.state.data["is"][codes] = SEEN | SILENT
        silent: list[int] = codes.tolist()
        return silent

    def due(self) -> int:
        return NEVER + self.silent_for if self.progress == NOT_YET else self.first

    def restore(self, progress: int) -> None:
        self.progress = progress
        self.first = NEVER
        self.silent_by(NEVER)
