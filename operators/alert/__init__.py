"""`alert`: a row when a condition begins or ends to hold, by key."""

from __future__ import annotations

from itertools import groupby, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from operators.alert.latches import OFF, PENDING, SET, Flip, Found, Latch, Wait, Waits
from pipeline.component import Operator, OperatorContext, Settings, State
from pipeline.frame import NO_PROGRESS, Array, Bools, Field, Frame, Ints, Schema, column, empty
from pipeline.quantity import Duration
from pipeline.template import Template

if TYPE_CHECKING:
    from pipeline.expression import Expression


class LevelSettings(Settings, frozen=True, kw_only=True):
    when: str
    clear: str | None = None
    for_: Duration | None = msgspec.field(default=None, name="for")


class AlertSettings(Settings, frozen=True, kw_only=True):
    when: str | None = None
    clear: str | None = None
    for_: Duration = msgspec.field(default=Duration(0), name="for")
    level: str | None = None
    levels: dict[str, LevelSettings] | None = None
    message: str | None = None


DEFAULT_LEVEL = "warning"
HOLDS, BROKEN, CLEARS = 1, 2, 4  # what a reading says to it: `when` is true, `when` is false, it is over

# What a row has of its own. A field of the input with such a name is not shown, and a message that names it means ours.
OWN = {
    "state": Field("string"),
    "level": Field("string", optional=True),
    "previous": Field("string", optional=True),
    "since": Field("time"),
    "message": Field("string"),
    "alert": Field("string"),
}


class Alert(Operator):
    """A row when a condition begins to hold (`firing`), changes its level, or is over (`cleared`).

        temperature                31        29        32        27
        when > 30, clear < 28      firing                        cleared

        [operators.overheat]
        type = "alert"
        input = "greenhouse"
        when = "temperature > 30"
        clear = "temperature < 28"
        message = "{sensor_id} is at {temperature:.1f} °C"

    A row: the key, `time`, `state`, `level` (missing once cleared: `previous` says what is over), `previous` (the level
    before; missing if there was none), `since` (when the condition began to hold; once cleared: when what ended had
    begun), the fields that the conditions use, `message`, `alert` (the operator's name).
    Readings are taken in the order in which they arrive. Without `clear`, it is over as soon as `when` is known to be
    false; where both hold, `when` wins. Unknown neither raises nor clears.
    `levels = { warning = { when = "…", clear = "…" }, critical = { … } }`, lowest first, instead of `when`: each has
    its own latch (and its own `for`, where it gives one), and the state is the highest that is set.
    `for`: fires only when the condition has held this long in event time, at since + `for`, with the fields of the last
    reading that held: once the key has a reading dated then or later, or the watermark gets there. A reading dated
    before, for which `when` is known to be false, ends the wait. The end of the input neither fires nor clears.
    `message`: text with `{field}` or `{field:format}`; the names above go before fields; a missing value
    reads "missing".
    State: by key and level, whether it is set and since when; while it waits, the fields of the last reading that held.
    Memory: 9 bytes for each key and level, and about 500 for each that waits.
    """

    presentation = ("message",)  # settings that no state depends on

    def __init__(self, settings: AlertSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.levels = _levels(settings, context)
        names = [level.name for level in self.levels]  # part of what is saved
        self.state = context.per_key("state", [(name, "i1") for name in names])
        self.since = context.per_key("since", [(name, "int") for name in names])
        self.waits = Waits()
        self._touched = np.zeros(0, np.bool_)
        conditions = [e for level in self.levels for e in (level.when, level.clear) if e]
        used = {name for condition in conditions for name in condition.names}
        self.shown = {n: f._replace(optional=True) for n, f in context.fields.items() if n in used and n not in OWN}
        own = dict(OWN)
        last = {name: own.pop(name) for name in ("message", "alert")}
        key = "key" if context.schema.key in OWN else context.schema.key
        self.schema = Schema(key, own | self.shown | last, "alerts")
        self.message = self._template(settings.message, context)
        told = [name for name in context.fields if name in self.message.names]
        self.read = list(dict.fromkeys([*self.shown, *told]))  # what a row needs of a reading
        self._nothing = empty(self.schema, NO_PROGRESS)

    def _template(self, text: str | None, context: OperatorContext) -> Template:
        if text is None:
            text = f"{{alert}}: {{{self.schema.key}}} is {{state}}" if self.schema.key else "{alert} is {state}"
        named = {n: f.kind for n, f in (dict(context.fields) | OWN).items() if n != "message"} | {"time": "time"}
        if self.schema.key:
            named[self.schema.key] = "string"
        template = Template(text, named)
        for problem in template.problems:
            context.problem("message", problem)
        return template

    # --- a Frame ---

    def on_frame(self, frame: Frame) -> Frame:
        found = Found(frame)
        if len(frame):
            for level, said in [(level, level.says(frame)) for level in self.levels]:
                self._compare(level, said, found)
        if self.waits:
            self._reach(found)
        flips = found.in_order()
        return self._apply(frame, flips) if flips else self._nothing.with_progress(frame.progress)

    def _compare(self, level: Level, said: Said, found: Found) -> None:
        """The path of nearly every reading: it says what its key's latch is already."""
        key = found.frame.key
        state = self.state.data[level.name][key]
        news = np.where(state == SET, said.clears, said.holds)
        if level.hold:
            news |= state == PENDING
        if not news.any():
            return
        rows = self._rows_of(key[news], key)
        if level.hold:
            self._walk(level, said, rows, found)
        else:
            self._alternate(level, said, rows, found)

    def _rows_of(self, wanted: Array, key: Array) -> Ints:
        """The rows of some keys, each key's together. The table is cleared after use: no cost grows with the keys."""
        if len(self._touched) < len(self.state.data):
            self._touched = np.zeros(len(self.state.data), np.bool_)
        self._touched[wanted] = True
        rows = np.flatnonzero(self._touched[key])
        self._touched[wanted] = False
        return rows[np.argsort(key[rows], kind="stable")]

    def _alternate(self, level: Level, said: Said, rows: Ints, found: Found) -> None:
        """Without `for`: of the readings that say something, those that say other than the one of their key before."""
        frame = found.frame
        rows = rows[(said.holds | said.clears)[rows]]
        key, sets = frame.key[rows], said.holds[rows]
        before = np.empty_like(sets)
        before[1:] = sets[:-1]
        first = np.flatnonzero(np.diff(key, prepend=-1))
        before[first] = self.state.data[level.name][key[first]] == SET
        flips = rows[sets != before]
        parts = (flips, frame.time[flips], frame.key[flips], frame.seq[flips], said.holds[flips])
        for row, time, of, seq, on in zip(*(part.tolist() for part in parts), strict=True):
            found.flips.append(Flip(row, 1, time, of, level.number, SET if on else OFF, time, seq, row))

    def _walk(self, level: Level, said: Said, rows: Ints, found: Found) -> None:
        """With `for`: reading by reading, but for the keys that only go on waiting."""
        frame = found.frame
        key = frame.key[rows]
        starts = np.flatnonzero(np.diff(key, prepend=-1))
        stays = self._stay(level, said, rows, starts, found)
        if stays.any():
            rows = rows[np.repeat(~stays, np.diff(starts, append=len(rows)))]
            key = frame.key[rows]
            starts = np.flatnonzero(np.diff(key, prepend=-1))
        seq = frame.seq[rows]
        parts = (rows, frame.time[rows], seq, frame.progress.before_rows(seq), said.codes(rows))
        readings: list[Reading] = list(zip(*(part.tolist() for part in parts), strict=True))
        for start, end in pairwise([*starts.tolist(), len(rows)]):
            self._walk_key(level, int(key[start]), readings[start:end], found)

    def _stay(self, level: Level, said: Said, rows: Ints, starts: Ints, found: Found) -> Bools:
        """Where a key waits before and after this Frame, and never not: only its last reading that holds is looked at."""
        key = found.frame.key[rows[starts]]
        until = self.since.data[level.name][key] + level.hold
        latest = np.maximum(np.maximum.reduceat(found.frame.time[rows], starts), found.frame.watermark)
        waits = (self.state.data[level.name][key] == PENDING) & (until > latest)
        stays: Bools = waits & ~np.logical_or.reduceat(said.broken()[rows], starts)
        if stays.any():
            last = np.maximum.reduceat(np.where(said.holds[rows], rows, -1), starts)
            for of, ends, row in zip(key[stays].tolist(), until[stays].tolist(), last[stays].tolist(), strict=True):
                if row >= 0:
                    found.leave(level.number, of, Wait(ends - level.hold, ends, -1, row))
        return stays

    def _walk_key(self, level: Level, key: int, readings: list[Reading], found: Found) -> None:
        on = bool(self.state.data[level.name][key] == SET)
        waited = wait = self.waits.by_key.get((key, level.number))
        for row, time, seq, mark, code in readings:
            if wait and wait.until <= max(time, mark):  # it fires first, whatever the reading says
                found.fire(row, level.number, key, wait, None if wait.until <= mark else seq)
                on, wait = True, None
            if on:
                if code & CLEARS:
                    found.flips.append(Flip(row, 1, time, key, level.number, OFF, time, seq, row))
                    on = False
            elif code & HOLDS:
                since, began = (wait.since, wait.began) if wait else (time, seq)
                wait = Wait(since, since + level.hold, began, row)
            elif code & BROKEN:
                wait = None
        if wait and wait.until <= found.frame.watermark:
            found.fire(len(found.frame), level.number, key, wait, None)
        elif wait is not waited and not on:
            found.leave(level.number, key, wait)
        found.walked.add((key, level.number))

    def _reach(self, found: Found) -> None:
        """What the watermark has reached, of the keys that had no reading."""
        for key, index in self.waits.reached(found.frame.watermark):
            if (key, index) not in found.walked:
                wait = self.waits.by_key[key, index]
                found.fire(len(found.frame), index, key, wait, None)

    # --- what changes ---

    def _apply(self, frame: Frame, flips: list[Flip]) -> Frame:
        """Set the latches, one flip after the other; a row where that changes which is the highest that is set."""
        values = self._values(frame, flips)
        latches: dict[int, Latch] = {}
        rows: list[Row] = []
        for (*_, key), at_once in groupby(flips, key=itemgetter(0, 1, 2, 3)):
            latch = latches.get(key)
            if latch is None:
                latch = latches[key] = Latch(list(self.state.data[key].item()), list(self.since.data[key].item()))
            before = latch.highest()
            for flip in at_once:
                shows = values.get(flip.shows, flip.shows)
                self._set(latch, flip, shows)
            after = latch.highest()
            if after != before:
                since = latch.since[after if after >= 0 else before]
                rows.append(Row(flip.seq, flip.time, key, self._row(flip, before, after, since, shows)))
        for key, latch in latches.items():
            self.state.data[key], self.since.data[key] = tuple(latch.state), tuple(latch.since)
        return self._frame(frame, rows)

    def _values(self, frame: Frame, flips: list[Flip]) -> dict[Any, tuple[Any, ...]]:
        """What the rows need of the readings: by position in the Frame."""
        at = list({flip.shows for flip in flips if isinstance(flip.shows, int)})
        taken = [frame.columns[name].take(np.array(at, np.int64)).tolist() for name in self.read]
        return dict(zip(at, zip(*taken, strict=True) if taken else [()] * len(at), strict=True))

    def _set(self, latch: Latch, flip: Flip, shows: tuple[Any, ...]) -> None:
        latch.state[flip.level] = flip.to
        if flip.to != OFF:
            latch.since[flip.level] = flip.since
        if hold := self.levels[flip.level].hold:
            wait = Wait(flip.since, flip.since + hold, -1, shows) if flip.to == PENDING else None
            self.waits.put(flip.key, flip.level, wait)

    def _row(self, flip: Flip, before: int, after: int, since: int, shows: tuple[Any, ...]) -> dict[Any, Any]:
        row: dict[Any, Any] = dict(zip(self.read, shows, strict=True))
        row["state"] = "firing" if after >= 0 else "cleared"
        row["level"] = self.levels[after].name if after >= 0 else None
        row["previous"] = self.levels[before].name if before >= 0 else None
        row["since"] = since
        row["alert"] = self.context.name
        row["time"] = flip.time
        row[self.schema.key] = self.context.keys.names[flip.key]
        row["message"] = self.message.fill(row)
        return row

    def _frame(self, frame: Frame, rows: list[Row]) -> Frame:
        """By arrival; of what left with one reading, by time, then key. A key's own rows keep their order."""
        if not rows:
            return self._nothing.with_progress(frame.progress)
        ranks = self.context.keys.ranks()[[row.key for row in rows]].tolist()
        latest: dict[tuple[int, int], int] = {}
        order = []
        for i, (row, rank) in enumerate(zip(rows, ranks, strict=True)):
            own = row.seq, row.key
            at = latest[own] = max(row.time, latest.get(own, row.time))
            order.append((row.seq, at, rank, i))
        rows = [rows[i] for *_, i in sorted(order)]
        columns = {n: column(f.kind, [row.values[n] for row in rows]) for n, f in self.schema.fields.items()}
        time, seq = np.array([row.time for row in rows]), np.array([row.seq for row in rows])
        return Frame(time, np.array([row.key for row in rows], np.int32), seq, columns, frame.progress)

    # --- time and state ---

    def due(self) -> int | None:
        return self.waits.due()

    def snapshot(self) -> State:
        return super().snapshot() | {"waits": self.waits.snapshot()}

    def restore(self, state: State) -> None:
        super().restore(state)
        self.waits = Waits()
        for key, index, values in state["waits"]:
            level = self.levels[index]
            since = int(self.since.data[level.name][key])
            self.waits.put(key, index, Wait(since, since + level.hold, -1, tuple(values)))


Reading = tuple[int, int, int, int, int]  # position in the Frame, time, seq, the watermark before it, what it says


class Row(NamedTuple):
    seq: int
    time: int
    key: int
    values: dict[Any, Any]


# --- levels ---------------------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """What each reading says to a level."""

    holds: Bools
    known: Bools | None  # is there an answer to `when`; None: to all
    clears: Bools

    def broken(self) -> Bools:
        """`when` is known to be false."""
        return _false(self.holds, self.known)

    def codes(self, rows: Ints) -> Array:
        codes: Array = self.holds[rows] * HOLDS + self.broken()[rows] * BROKEN + self.clears[rows] * CLEARS
        return codes


def _false(holds: Bools, known: Bools | None) -> Bools:
    result: Bools = ~holds if known is None else known > holds
    return result


class Level(NamedTuple):
    number: int  # from the lowest
    name: str
    when: Expression
    clear: Expression | None  # None: as soon as `when` is known to be false
    hold: int  # ns

    def says(self, frame: Frame) -> Said:
        holds, known = self.when(frame)
        # Of truth values, a > b is `a and not b`, in one step: a Frame of one reading pays by the step.
        clears = _false(holds, known) if self.clear is None else self.clear.holds(frame) > holds
        return Said(holds, known, clears)


def _levels(settings: AlertSettings, context: OperatorContext) -> list[Level]:
    if (settings.when is None) == (not settings.levels):
        context.problem("levels" if settings.levels else "when", 'an alert needs either "when" or "levels"')
    if settings.levels:
        for setting, own in (("clear", '"clear"'), ("level", "name")):
            if getattr(settings, setting) is not None:
                context.problem(setting, f'with "levels", each level has its own {own}')
        declared = {f"levels.{name}.": (name, level) for name, level in settings.levels.items()}
    else:
        level = LevelSettings(when=settings.when or "false", clear=settings.clear)
        declared = {"": (settings.level or DEFAULT_LEVEL, level)}
    levels = []
    for index, (at, (name, level)) in enumerate(declared.items()):
        when = context.expression(level.when, at + "when", "bool")
        clear = None if level.clear is None else context.expression(level.clear, at + "clear", "bool")
        levels.append(Level(index, name, when, clear, int(settings.for_ if level.for_ is None else level.for_)))
    return levels
