"""One key of an alert, reading by reading: its latches, what has been told of it, and when time alone changes that.

Only keys at which something happens come here; `Alert` finds them by columns.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, NamedTuple

from pipeline.frame import BEGUN, Progress

FAR = 2**63 - 1  # later than every time: nothing is due

OFF, PENDING, SET, ENDING = range(4)  # a latch; PENDING: `for` is not over; ENDING: `keep` is not over
HOLDS, BROKEN, CLEARS = 1, 2, 4  # what a reading says to a level: `when` is true, `when` is false, it is over
BITS = 3  # of a code for each level
REACTS = (HOLDS, HOLDS | BROKEN, CLEARS, HOLDS | CLEARS)  # by latch: what it takes notice of


class Rules(NamedTuple):
    """What the settings say of time, ns; 0: nothing. The latches are the levels, and that of silence as the last."""

    holds: tuple[int, ...]  # `for`, by level
    keeps: tuple[int, ...]
    silent_for: int = 0
    repeat: int = 0
    changes: int = 0  # rows of change at most …
    within: int = 0  # … in this time


class Row(NamedTuple):
    """A row that leaves. Levels are numbers from the lowest, -1: none."""

    seq: int
    time: int
    key: int
    before: int
    after: int
    since: int
    shows: Any  # the reading that it shows: its position in the Frame, or (its time, *its values)


class Step:
    """One Frame: how time passes in it, and the rows that come of it."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.rows: list[Row] = []

    def moved(self, until: int, began: int) -> tuple[int, int]:
        """Arrival number of the reading with which the watermark stood at `until`, but not before number `began`; and how
        far the watermark then was. After all readings it is the tick."""
        progress = self.progress
        readings = len(progress.seq)
        at = bisect_left(progress.before, until, 1) - 1 if readings else 0
        if at == readings - 1 and progress.after < until:
            at = readings
        if at < readings and progress.seq[at] < began:
            at = bisect_left(progress.seq, began)
        if at >= readings:
            return progress.next_seq, progress.watermark
        return int(progress.seq[at]), self._after(at)

    def _after(self, at: int) -> int:
        progress = self.progress
        return int(progress.before[at + 1] if at + 1 < len(progress.seq) else progress.after)

    def around(self, seq: int) -> tuple[int, int]:
        """The watermark before and after a reading, or the tick."""
        progress = self.progress
        at = bisect_left(progress.seq, seq)
        if at < len(progress.seq):
            return int(progress.before[at]), self._after(at)
        return progress.after, progress.watermark


class Latch:
    """One level of one key."""

    __slots__ = ("shows", "since", "state", "until")

    def __init__(self) -> None:
        self.state = OFF
        self.since = 0  # when the condition began to hold
        self.until = 0  # PENDING: fires then; SET, ENDING: `keep` is over
        self.shows: Any = None  # PENDING: the last reading that held; ENDING: the last for which it is over


class Watch:
    """A key that is not at rest."""

    __slots__ = (
        "actual",
        "changed_at",
        "changes",
        "deadline",
        "inhibited",
        "key",
        "last",
        "latches",
        "next",
        "reacts",
        "rules",
        "seq",
        "shows",
        "silence",
        "spoke",
        "told",
        "told_at",
        "told_since",
    )

    def __init__(self, key: int, rules: Rules) -> None:
        self.key = key
        self.rules = rules
        self.latches = [Latch() for _ in rules.holds]
        self.silence: Latch | None = None
        self.spoke = False
        if rules.silent_for:
            self.silence = Latch()
            self.latches.append(self.silence)
        self.inhibited = False
        self.actual = -1  # the highest level that is set …
        self.changed_at = 0  # … since when …
        self.shows: Any = None  # … and by which reading
        self.told = -1  # what the last row said
        self.told_since = 0
        self.told_at = 0
        self.last: Any = None  # the newest reading while it fires; kept for reminders alone
        self.changes: list[int] = []  # times of the last rows of change, as many as `flapping` counts
        self.deadline = FAR  # when time alone may change something …
        self.next = FAR  # … and silence may
        self.reacts = 0  # bits of a reading's code that matter
        self.seq = -1  # of the last thing that happened in this Frame
        self.plan()

    # --- what happens ---

    def hear(self, step: Step, reading: Reading) -> None:
        """A reading, in order of arrival. Time has first passed up to it, and up to the watermark before it."""
        row, time, seq, mark, code = reading
        if self.next <= time or self.next <= mark:
            self.advance(step, mark, time, seq)
        self.seq = seq
        silence = self.silence
        changed = silence is not None and self._speak(silence, time, mark)
        if code & self.reacts:
            for level, (hold, keep) in enumerate(zip(self.rules.holds, self.rules.keeps, strict=True)):
                if said := code >> BITS * level & 7:
                    changed |= self._say(self.latches[level], said, time, row, hold, keep)
        if changed:
            self._look(step, time, seq, row)
            self.plan()
        self.last = row

    def _say(self, latch: Latch, said: int, time: int, row: int, hold: int, keep: int) -> bool:
        """What a reading does to the latch of a level: does it turn?"""
        before = latch.state
        if before == OFF:
            if said & HOLDS:
                latch.since, latch.until, latch.shows = time, time + (hold or keep), row
                latch.state = PENDING if hold else SET
        elif before == PENDING:
            if said & HOLDS:
                latch.shows = row
            elif said & BROKEN:
                latch.state = OFF
        elif said & CLEARS:
            over = before == SET and (not keep or time >= latch.until)
            latch.state = OFF if over else ENDING
            latch.shows = row
        elif said & HOLDS:
            latch.state = SET
        return latch.state != before

    def _speak(self, silence: Latch, time: int, mark: int) -> bool:
        """The key is heard. What is dated before its newest reading says nothing about silence, nor what is so old that the
        key is silent all the same. Does it matter?"""
        until = time + self.rules.silent_for
        if (self.spoke and time <= silence.since) or (silence.state == SET and until <= mark):
            return False
        waits = self.spoke and silence.state == PENDING
        self.spoke, silence.state, silence.since, silence.until = True, PENDING, time, until
        if waits:
            self.next = min(self.deadline, until)
        return not waits

    def never(self, step: Step, clock: int, seq: int) -> None:
        """It was expected, and no key at all has been heard since the start: of that only the clock knows."""
        silence = self.silence
        assert silence is not None
        silence.state, silence.since = SET, clock - self.rules.silent_for
        self._look(step, clock, seq, (None,))
        self.plan()

    def inhibit(self, step: Step, inhibited: bool, time: int, seq: int) -> None:
        """Another alert begins or ends to fire for this key. What time does with the same reading comes after that it begins,
        and before that it ends."""
        before, after = step.around(seq)
        self.advance(step, before if inhibited else after)
        self.seq = seq
        self.inhibited = inhibited
        if self.actual != self.told:
            self._tell(step, max(time, self.changed_at), seq)
        self.plan()

    def forgotten(self, step: Step, clock: int) -> None:
        """The key is gone for good: what fires is over, held back or not. Where time has not begun, the clock's is shown."""
        if self.told < 0:
            return
        mark = step.progress.watermark
        time = max(mark if mark > BEGUN else clock, self.told_at)
        step.rows.append(Row(step.progress.next_seq, time, self.key, self.told, -1, self.told_since, (None,)))

    def advance(self, step: Step, mark: int, time: int | None = None, seq: int = -1) -> None:
        """Time passes, up to the watermark and up to the time of a reading that is to be heard."""
        while True:
            now = self.next
            if now <= mark:
                self.seq, reach = step.moved(now, self.seq)
            elif time is not None and now <= time:
                self.seq, reach = seq, time
            else:
                return
            self._pass(step, now, reach)
            self.plan()

    def _pass(self, step: Step, now: int, reach: int) -> None:
        """What is due now. `reach`: how far time got with the same reading."""
        shows, happened = None, False
        for level, latch in enumerate(self.latches):
            if latch.state == PENDING and latch.until <= now:
                latch.state = SET
                keep = self.rules.keeps[level] if level < len(self.rules.keeps) else 0
                latch.until = now + keep
            elif latch.state == ENDING and latch.until <= now:
                latch.state = OFF
            else:
                continue
            shows, happened = latch.shows, True
            if latch is self.silence:
                shows = (latch.since if self.spoke else None,)
        if happened:
            self._look(step, now, self.seq, shows)
        if self.actual != self.told:
            self._tell(step, now, self.seq)
        if self.rules.repeat and self.told >= 0 and self.told_at + self.rules.repeat <= now:
            self._remind(step, reach)

    # --- what is told ---

    def _look(self, step: Step, time: int, seq: int, shows: Any) -> None:
        """Something happened: is another level the highest now?"""
        actual = -1
        for level in range(len(self.latches) - 1, -1, -1):
            if self.latches[level].state >= SET:
                actual = level
                break
        if actual != self.actual:
            self.actual, self.changed_at, self.shows = actual, time, shows
            if actual != self.told:
                self._tell(step, time, seq)

    def _tell(self, step: Step, time: int, seq: int) -> None:
        """A row of what has changed, unless it is held back."""
        if self.inhibited and self.actual > self.told:
            return
        most = self.rules.changes
        if most and len(self.changes) == most and time < self.changes[0] + self.rules.within:
            return
        since = self.latches[self.actual].since if self.actual >= 0 else self.told_since
        step.rows.append(Row(seq, time, self.key, self.told, self.actual, since, self.shows))
        self.told, self.told_since, self.told_at, self.last = self.actual, since, time, self.shows
        if most:
            self.changes = [*self.changes, time][-most:]

    def _remind(self, step: Step, reach: int) -> None:
        """It still fires. Where time jumped over several reminders the last of them stands for all."""
        last = min(reach, self._others() - 1)
        times = max((last - self.told_at) // self.rules.repeat, 1)
        self.told_at += times * self.rules.repeat
        if self.actual == self.told and not self.inhibited:
            row = Row(self.seq, self.told_at, self.key, self.told, self.told, self.told_since, self.last)
            step.rows.append(row)

    # --- when ---

    def plan(self) -> None:
        """See what is due next, and what a reading may say that matters."""
        self.reacts = 0
        for level in range(len(self.rules.holds)):
            self.reacts |= REACTS[self.latches[level].state] << BITS * level
        self.deadline = self._waits()
        self.next = self._others()
        if self.rules.repeat and self.told >= 0:
            reminder = self.told_at + self.rules.repeat
            self.deadline = min(self.deadline, reminder)
            self.next = min(self.next, reminder)

    def _others(self) -> int:
        """What is due before the next reminder, or after it."""
        silence = self.silence
        waits = self._waits()
        return min(waits, silence.until) if silence is not None and silence.state == PENDING else waits

    def _waits(self) -> int:
        """The first that is due of the levels and of what is held back."""
        first = FAR
        for latch in self.latches:
            if latch.until < first and latch.state in (PENDING, ENDING) and latch is not self.silence:
                first = latch.until
        if self.actual != self.told and self.changes and not (self.inhibited and self.actual > self.told):
            first = min(first, self.changes[0] + self.rules.within)
        return first

    def rests(self) -> bool:
        """Nothing to remember."""
        return (
            self.told < 0
            and not self.changes
            and all(latch.state == OFF or (latch is self.silence and latch.state == PENDING) for latch in self.latches)
        )

    # --- as plain values ---

    def pack(self) -> list[Any]:
        latches = [[t.state, t.since, t.until, t.shows] for t in self.latches if t is not self.silence]
        told = [self.told, self.told_since, self.told_at]
        return [self.key, latches, told, self.actual, self.changed_at, self.shows, self.last, self.changes]

    @classmethod
    def unpack(cls, packed: list[Any], rules: Rules) -> Watch:
        key, latches, told, actual, changed_at, shows, last, changes = packed
        watch = cls(key, rules)
        for latch, (state, since, until, latch_shows) in zip(watch.latches, latches, strict=False):
            latch.state, latch.since, latch.until, latch.shows = state, since, until, _tuple(latch_shows)
        watch.told, watch.told_since, watch.told_at = told
        watch.actual, watch.changed_at, watch.shows, watch.last = actual, changed_at, _tuple(shows), _tuple(last)
        watch.changes = list(changes)
        watch.plan()
        return watch


def _tuple(shows: Any) -> Any:
    return None if shows is None else tuple(shows)


Reading = tuple[int, int, int, int, int]  # position in the Frame, time, seq, the watermark before it, its code
