"""`alert`: a row when a condition begins or ends to hold, by key."""

from __future__ import annotations

import heapq
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

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
OFF, PENDING, SET = 0, 1, 2  # a level's latch; PENDING: `when` holds, but `for` is not over
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
        self.waits = _Waits()
        self._touched = np.zeros(0, np.bool_)
        conditions = [e for level in self.levels for e in (level.when, level.clear) if e]
        used = {name for condition in conditions for name in condition.names}
        self.shown = {n: f._replace(optional=True) for n, f in context.fields.items() if n in used and n not in OWN}
        own = dict(OWN)
        last = {name: own.pop(name) for name in ("message", "alert")}
        key = "key" if context.schema.key in OWN else context.schema.key
        self.schema = Schema(key, own | self.shown | last, "alerts")
        self.message = self._template(settings.message, context)
        self.read = list(
            dict.fromkeys([*self.shown, *(n for n in context.fields if n in self.message.names)])
        )  # what a row needs of a reading
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
        found = _Found(frame)
        if len(frame):
            for level, said in [(level, level.says(frame)) for level in self.levels]:
                self._compare(level, said, found)
        if self.waits:
            self._reach(found)
        flips = found.in_order()
        return self._apply(frame, flips) if flips else self._nothing.with_progress(frame.progress)

    def _compare(self, level: _Level, said: _Said, found: _Found) -> None:
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

    def _alternate(self, level: _Level, said: _Said, rows: Ints, found: _Found) -> None:
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
            found.flips.append(_Flip(row, 1, time, of, level.number, SET if on else OFF, time, seq, row))

    def _walk(self, level: _Level, said: _Said, rows: Ints, found: _Found) -> None:
        """With `for`: reading by reading, of the keys that wait or have news."""
        frame = found.frame
        seq, key = frame.seq[rows], frame.key[rows]
        parts = (rows, frame.time[rows], seq, frame.progress.before_rows(seq), said.codes(rows))
        readings: list[_Reading] = list(zip(*(part.tolist() for part in parts), strict=True))
        starts = np.flatnonzero(np.diff(key, prepend=-1)).tolist()
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            self._walk_key(level, int(key[start]), readings[start:end], found)

    def _walk_key(self, level: _Level, key: int, readings: list[_Reading], found: _Found) -> None:
        on = bool(self.state.data[level.name][key] == SET)
        waited = wait = self.waits.by_key.get((key, level.number))
        for row, time, seq, mark, code in readings:
            if wait and wait.until <= max(time, mark):  # it fires first, whatever the reading says
                found.fire(row, level, key, wait, None if wait.until <= mark else seq)
                on, wait = True, None
            if on:
                if code & CLEARS:
                    found.flips.append(_Flip(row, 1, time, key, level.number, OFF, time, seq, row))
                    on = False
            elif code & HOLDS:
                since, began = (wait.since, wait.began) if wait else (time, seq)
                wait = _Wait(since, since + level.hold, began, row)
            elif code & BROKEN:
                wait = None
        if wait and wait.until <= found.frame.watermark:
            found.fire(len(found.frame), level, key, wait, None)
        elif wait is not waited and not on:
            found.leave(level, key, wait)
        found.walked.add((key, level.number))

    def _reach(self, found: _Found) -> None:
        """What the watermark has reached, of the keys that had no reading."""
        for key, index in self.waits.reached(found.frame.watermark):
            if (key, index) not in found.walked:
                wait = self.waits.by_key[key, index]
                found.fire(len(found.frame), self.levels[index], key, wait, None)

    # --- what changes ---

    def _apply(self, frame: Frame, flips: list[_Flip]) -> Frame:
        """Set the latches, one flip after the other; a row where that changes which is the highest that is set."""
        values = self._values(frame, flips)
        rows: list[_Row] = []
        for (*_, key), at_once in groupby(flips, key=itemgetter(0, 1, 2, 3)):
            before = self._highest(key)
            for flip in at_once:
                shows = values.get(flip.shows, flip.shows)
                self._set(flip, shows)
            after = self._highest(key)
            if after != before:
                rows.append(self._row(flip, before, after, shows))
        return self._frame(frame, rows)

    def _values(self, frame: Frame, flips: list[_Flip]) -> dict[Any, tuple[Any, ...]]:
        """What the rows need of the readings: by position in the Frame."""
        at = list({flip.shows for flip in flips if isinstance(flip.shows, int)})
        taken = [frame.columns[name].take(np.array(at, np.int64)).tolist() for name in self.read]
        return dict(zip(at, zip(*taken, strict=True) if taken else [()] * len(at), strict=True))

    def _highest(self, key: int) -> int:
        """The highest level that is set; -1: none."""
        return max((i for i, state in enumerate(self.state.data[key].item()) if state == SET), default=-1)

    def _set(self, flip: _Flip, shows: tuple[Any, ...]) -> None:
        level = self.levels[flip.level]
        self.state.data[level.name][flip.key] = flip.to
        if flip.to != OFF:
            self.since.data[level.name][flip.key] = flip.since
        if level.hold:
            wait = _Wait(flip.since, flip.since + level.hold, -1, shows) if flip.to == PENDING else None
            self.waits.put(flip.key, flip.level, wait)

    def _row(self, flip: _Flip, before: int, after: int, shows: tuple[Any, ...]) -> _Row:
        values = dict(zip(self.read, shows, strict=True))
        values |= {
            "state": "firing" if after >= 0 else "cleared",
            "level": self.levels[after].name if after >= 0 else None,
            "previous": self.levels[before].name if before >= 0 else None,
            "since": int(self.since.data[flip.key][after if after >= 0 else before]),
            "alert": self.context.name,
        }
        named = {"time": flip.time, self.schema.key: self.context.keys.names[flip.key]}
        values["message"] = self.message.fill(values | named)
        return _Row(flip.seq, flip.time, flip.key, values)

    def _frame(self, frame: Frame, rows: list[_Row]) -> Frame:
        """By arrival; of what left with one reading, by time, then key. A key's own rows keep their order."""
        if not rows:
            return self._nothing.with_progress(frame.progress)
        ranks = self.context.keys.ranks()
        latest: dict[tuple[int, int], int] = {}
        placed = []
        for row in rows:
            at = latest[row.seq, row.key] = max(row.time, latest.get((row.seq, row.key), row.time))
            placed.append((row.seq, at, int(ranks[row.key]), row))
        rows = [row for *_, row in sorted(placed, key=itemgetter(0, 1, 2))]
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
        self.waits = _Waits()
        for key, index, values in state["waits"]:
            level = self.levels[index]
            since = int(self.since.data[level.name][key])
            self.waits.put(key, index, _Wait(since, since + level.hold, -1, tuple(values)))


# --- levels ---------------------------------------------------------------------------------------------------------


class _Said(NamedTuple):
    """What each reading says to a level."""

    holds: Bools
    broken: Bools
    clears: Bools

    def codes(self, rows: Ints) -> Array:
        codes: Array = self.holds[rows] * HOLDS + self.broken[rows] * BROKEN + self.clears[rows] * CLEARS
        return codes


class _Level(NamedTuple):
    number: int  # from the lowest
    name: str
    when: Expression
    clear: Expression | None  # None: as soon as `when` is known to be false
    hold: int  # ns

    def says(self, frame: Frame) -> _Said:
        holds, known = self.when(frame)
        broken = ~holds if known is None else known & ~holds
        return _Said(holds, broken, broken if self.clear is None else self.clear.holds(frame) & ~holds)


def _levels(settings: AlertSettings, context: OperatorContext) -> list[_Level]:
    if (settings.when is None) == (not settings.levels):
        context.problem("levels" if settings.levels else "when", 'an alert needs either "when" or "levels"')
    if settings.levels:
        for name in ("clear", "level"):
            if getattr(settings, name) is not None:
                context.problem(name, f'with "levels", each level has its own {"name" if name == "level" else name}')
        declared = {f"levels.{name}.": (name, level) for name, level in settings.levels.items()}
    else:
        level = LevelSettings(when=settings.when or "false", clear=settings.clear)
        declared = {"": (settings.level or DEFAULT_LEVEL, level)}
    levels = []
    for index, (at, (name, level)) in enumerate(declared.items()):
        when = context.expression(level.when, at + "when", "bool")
        clear = None if level.clear is None else context.expression(level.clear, at + "clear", "bool")
        levels.append(_Level(index, name, when, clear, int(settings.for_ if level.for_ is None else level.for_)))
    return levels


# --- what a Frame brings --------------------------------------------------------------------------------------------

_Reading = tuple[int, int, int, int, int]  # row, time, seq, the watermark before it, what it says


class _Wait(NamedTuple):
    """`when` holds, `for` is not over."""

    since: int
    until: int  # ns: when it fires
    began: int  # arrival number of the reading with which it began; -1: in an earlier step
    shows: Any  # of the last reading that held: its position in the Frame, or its values


class _Flip(NamedTuple):
    """A level's latch changes. In the order of these fields."""

    row: int  # position in the Frame of the reading that does it, or before which time does it; its length: after all
    phase: int  # 0 fires before the reading itself is taken, 1 by what it says, 2 as the Frame leaves it
    time: int
    key: int
    level: int
    to: int
    since: int
    seq: int
    shows: Any  # as in a _Wait


class _Row(NamedTuple):
    seq: int
    time: int
    key: int
    values: dict[str, Any]


class _Found:
    """The flips of one Frame, gathered level by level and key by key."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.flips: list[_Flip] = []
        self.walked: set[tuple[int, int]] = set()  # (key, level) of which all has been said
        self._by_time: list[tuple[int, int, int, _Wait]] = []  # row, key, level: fires because the watermark got there

    def fire(self, row: int, level: _Level, key: int, wait: _Wait, seq: int | None) -> None:
        """A wait is over before `row`. `seq`: of the reading that shows it; None: the watermark does."""
        if seq is None:
            self._by_time.append((row, key, level.number, wait))
        else:
            self.flips.append(_Flip(row, 0, wait.until, key, level.number, SET, wait.since, seq, wait.shows))

    def leave(self, level: _Level, key: int, wait: _Wait | None) -> None:
        """The Frame leaves a latch waiting, or no longer so."""
        to, since, shows = (OFF, 0, ()) if wait is None else (PENDING, wait.since, wait.shows)
        self.flips.append(_Flip(len(self.frame), 2, 0, key, level.number, to, since, -1, shows))

    def in_order(self) -> list[_Flip]:
        """All flips, each key's as they happened."""
        if self._by_time:
            reached = self.frame.progress.reached(np.array([wait.until for *_, wait in self._by_time]))
            for (row, key, level, wait), seq in zip(self._by_time, reached.tolist(), strict=True):
                # A wait that began behind the watermark ends with the reading that began it.
                at = max(seq, wait.began)
                self.flips.append(_Flip(row, 0, wait.until, key, level, SET, wait.since, at, wait.shows))
        self.flips.sort(key=itemgetter(0, 1, 2, 3, 4))
        return self.flips


class _Waits:
    """What waits for its `for`, by (key, level), and what of it is due first: a heap, so that no step asks all keys."""

    def __init__(self) -> None:
        self.by_key: dict[tuple[int, int], _Wait] = {}
        self._heap: list[tuple[int, int, int]] = []  # until, key, level; those that have ended are dropped when met

    def __bool__(self) -> bool:
        return bool(self.by_key)

    def put(self, key: int, level: int, wait: _Wait | None) -> None:
        """It waits so; None: no longer."""
        before = self.by_key.pop((key, level), None)
        if wait is None:
            return
        self.by_key[key, level] = wait
        if before is None or before.until != wait.until:
            heapq.heappush(self._heap, (wait.until, key, level))
        if len(self._heap) > 2 * len(self.by_key) + 64:
            self._heap = sorted((w.until, *at) for at, w in self.by_key.items())

    def due(self) -> int | None:
        """When the first is."""
        while self._heap and not self._waits(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def reached(self, watermark: int) -> list[tuple[int, int]]:
        """Those that the watermark has reached; they are met only once."""
        met = {}
        while (until := self.due()) is not None and until <= watermark:
            _, key, level = heapq.heappop(self._heap)
            met[key, level] = until
        return list(met)

    def _waits(self, until: int, key: int, level: int) -> bool:
        wait = self.by_key.get((key, level))
        return wait is not None and wait.until == until

    def snapshot(self) -> list[list[Any]]:
        return [[key, level, list(wait.shows)] for (key, level), wait in sorted(self.by_key.items())]
