"""`pattern`: one thing, then another, with or without a third between: a row for each time that it happened, by key."""

from __future__ import annotations

import heapq
from typing import Annotated, Any, NamedTuple

import numpy as np
from msgspec import Meta, field

from pipeline.component import Memory, Operator, OperatorContext, Settings, State
from pipeline.expression import Expression
from pipeline.frame import (
    NO_PROGRESS,
    Column,
    Field,
    Frame,
    Ints,
    Progress,
    Schema,
    column,
    empty,
)
from pipeline.problem import did_you_mean
from pipeline.quantity import Duration
from pipeline.waiting import FAR, Waiting

BITS = ".bits"  # of a reading that waits, among its columns: no field can be called so
MOST_STEPS = 16  # each has two conditions, and there is a bit for each of them
OWN_FIELDS = {"start": Field("time"), "end": Field("time")}


class StepSettings(Settings, frozen=True):
    when: Annotated[str | None, Meta(description="What must be true of the reading. Absent: none is waited for.")] = (
        None
    )
    as_: Annotated[str | None, Meta(description="The name of the reading, for `fields`.")] = field(
        default=None, name="as"
    )
    within: Annotated[Duration | None, Meta(description="How long after the step before, at most.")] = None
    without: Annotated[str | None, Meta(description="What must be true of no reading since the step before.")] = None


class PatternSettings(Settings, frozen=True):
    sequence: Annotated[tuple[StepSettings, ...], Meta(description="What must come one after the other.")]
    within: Annotated[Duration | None, Meta(description="How long the whole may take.")] = None
    fields: Annotated[
        dict[str, str] | None, Meta(description="Name of a field = NAME.FIELD of a step. Absent: all, as NAME_FIELD.")
    ] = None
    overlap: Annotated[bool, Meta(description="Whether a reading may belong to several matches.")] = False
    max_open: Annotated[int, Meta(ge=1, description="Most unfinished matches of one key.")] = 16
    max_waiting: Annotated[int, Meta(ge=1, description="Most readings that wait for the watermark.")] = 100_000


class Step(NamedTuple):
    """A step as it is asked of a reading: bits of its conditions (0: has none)."""

    when: int
    without: int
    within: int
    takes: list[int]  # places of the values that are kept of its reading


class Open:
    """An unfinished match."""

    __slots__ = ("deadline", "end", "start", "step", "values")

    def __init__(self, start: int, end: int, step: int, values: list[Any]) -> None:
        self.start = start
        self.end = end  # of what has been found
        self.step = step  # that comes next
        self.values = values  # of all fields that are shown, as far as they are known
        self.deadline = FAR  # of the next step


class Reading(NamedTuple):
    key: int
    time: int
    seq: int  # with which it is taken
    bits: int
    values: list[Any]


class Match(NamedTuple):
    seq: int
    end: int
    key: int
    start: int
    values: list[Any]


class Pattern(Operator):
    """A row when readings of one key have come in a sequence.

        door          open @1 s   (badge @3 s)   shut @5 s   open @9 s   shut @30 s
        the pattern               start 1, end 5             (more than 10 s)

        [operators.passage]
        type = "pattern"
        input = "greenhouse"
        sequence = [
            { as = "opened", when = "door" },
            { as = "shut", when = "not door", within = "10 s", without = "humidity > 90" },
        ]
        fields = { warm = "opened.temperature", cold = "shut.temperature" }

    A row: the key, `start` and `end` (times of the first and the last reading), `time` = `end`, and `fields`. Each step takes
    the first reading after the step before for which `when` is true. Other readings are passed over; but one for which the
    step's `without` is true, and its `when` is not, ends the attempt. Limits are inclusive: `within = "10 s"` takes a reading
    10 s after the step before. Unknown is not true. A step without `when` is an absence: nothing for which `without` is true
    comes until `within` is over:

        [operators.left_open]
        type = "pattern"
        input = "greenhouse"
        sequence = [{ when = "door" }, { without = "not door", within = "10 s" }]

    Every reading that fits the first step begins an attempt. The attempt that was begun first and comes to its end is a
    match; then the others of its key are given up, and the next match begins after it. `overlap = true` keeps them all, as
    for "each A that was followed by a B".
    Readings are taken in the order of their times (of equal ones, of their arrival), each when the watermark has reached it; an
    absence is known when the watermark has passed its end. The end of a finite input is not the passing of time.
    Late data: a reading older than the watermark goes to the output `late`. `previous` and the like go by arrival.
    At the limit: of more than `max_open` attempts of one key the oldest is given up; a reading that would wait when `max_waiting`
    do fails, and is set aside.
    State: the attempts, and the readings that wait for the watermark and fit some step. Memory: about 40 bytes and 9 for each
    field shown, for each attempt; 29 and 9 for each field shown for each reading that waits; texts besides.
    """

    def __init__(self, settings: PatternSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.overlap = settings.overlap
        self.max_open = settings.max_open
        self.max_waiting = settings.max_waiting
        self.whole = FAR if settings.within is None else int(settings.within)
        self.conditions: list[Expression] = []  # bit n of a reading tells of condition n
        self.shown = _shown(settings, context)
        self.steps = [self._step(i, step, settings) for i, step in enumerate(settings.sequence[:MOST_STEPS])]
        if not 1 < len(settings.sequence) <= MOST_STEPS:
            context.problem("sequence", f"a sequence has 2 to {MOST_STEPS} steps")
        self.absences = any(not step.when for step in self.steps)
        self.kinds = {name: _kind(place[1], context) for name, place in self.shown.items()}
        self.schema = Schema(context.schema.key, {**OWN_FIELDS, **self.kinds})
        self.late = context.output("late", context.schema)
        # Readings that fit some step; `seq` is when they came.
        self.kept = {of: context.fields[of] for _, of in self.shown.values() if of in context.fields}
        kept = empty(context.schema._replace(fields=self.kept), NO_PROGRESS)
        self.waiting = Waiting(kept.with_columns({BITS: Column(np.empty(0, np.int64))}))
        self.nothing = empty(self.schema, NO_PROGRESS)
        self.open: dict[int, list[Open]] = {}  # by key, in the order in which they began
        self.busy = np.zeros(0, np.bool_)  # by key: whether it has begun anything
        self.fires: list[tuple[int, int]] = []  # heap: end of an absence, key; what was given up stays until then
        self.expires: list[tuple[int, int]] = []  # heap: deadline, key

    def _step(self, i: int, step: StepSettings, settings: PatternSettings) -> Step:
        where = f"sequence.{i}"
        problem = self.context.problem
        if i == 0 and step.when is None:
            problem(f"{where}.when", "the first step needs a reading to begin with")
        if i == 0 and (step.within is not None or step.without is not None):
            problem(where, '"within" and "without" say what comes after the step before; the first has none')
        if i and step.when is None and (step.within is None or step.without is None):
            problem(where, 'a step has "when"; or it is an absence, with "without" and "within"')
        if step.when is None and step.as_ is not None:
            problem(f"{where}.as", "an absence has no reading that could be named")
        return Step(
            self._condition(step.when, f"{where}.when"),
            self._condition(step.without, f"{where}.without"),
            FAR if step.within is None else int(step.within),
            [at for at, (of, _) in enumerate(self.shown.values()) if of == i],
        )

    def _condition(self, text: str | None, where: str) -> int:
        if text is None:
            return 0
        self.conditions.append(self.context.expression(text, where, "bool"))
        return 1 << (len(self.conditions) - 1)

    # --- a Frame ---

    def on_frame(self, frame: Frame) -> Frame:
        # What can raise comes before any state changes.
        bits = np.zeros(len(frame), np.int64)
        for n, condition in enumerate(self.conditions):
            bits |= condition.holds(frame).astype(np.int64) << n
        late = frame.time < frame.watermark_before()
        fits = ((bits != 0) & ~late).nonzero()[0]
        if len(self.waiting) + len(fits) > self.max_waiting:
            raise ValueError(f"too many readings wait for the watermark (max_waiting = {self.max_waiting:,})")
        if late.any():
            self.late(frame.where(late))
        if len(fits):
            columns = {BITS: Column(bits), **{n: frame[n] for n in self.kept}}
            self.waiting.add(Frame(frame.time, frame.key, frame.seq, columns, frame.progress).take(fits))
        found: list[Match] = []
        taken = self.waiting.take(FAR if frame.ended else frame.watermark + 1)
        if len(taken):
            self._take(taken, frame.progress, found)
        self._pass(frame.progress, found)
        return self._rows(found, frame.progress) if found else self.nothing.with_progress(frame.progress)

    def _take(self, taken: Frame, progress: Progress, found: list[Match]) -> None:
        """The readings that the watermark has reached, in the order of their times."""
        # Of a key that has begun nothing, only what begins something matters.
        if len(self.busy) < len(self.context.keys):
            more = max(len(self.context.keys) - len(self.busy), len(self.busy), 16)
            self.busy = np.concatenate([self.busy, np.zeros(more, np.bool_)])
        begins = (taken[BITS].values & self.steps[0].when) != 0
        self.busy[taken.key[begins]] = True
        taken = taken.where(self.busy[taken.key])
        seq = np.maximum(progress.reached(taken.time), taken.seq)
        values = [self._values(place, taken) for _, place in self.shown.values()]
        numbers = zip(taken.key.tolist(), taken.time.tolist(), seq.tolist(), taken[BITS].tolist(), strict=True)
        for i, (key, time, at, bits) in enumerate(numbers):
            if key in self.open or bits & self.steps[0].when:
                if self.absences:
                    self._fire(key, time, progress, found)
                self._reading(Reading(key, time, at, bits, [of[i] for of in values]), found)

    def _values(self, name: str, rows: Frame) -> list[Any]:
        if name == self.schema.key:
            names = self.context.keys.names
            return [names[code] for code in rows.key.tolist()]
        return rows.time.tolist() if name == "time" else rows[name].tolist()

    # --- the attempts of a key ---

    def _reading(self, reading: Reading, found: list[Match]) -> None:
        key, time, bits = reading.key, reading.time, reading.bits
        matched = False
        for one in [*self.open.get(key, ())]:
            step = self.steps[one.step]
            if step.when and time > one.deadline:
                self._give_up(key, one)
            elif step.when & bits:
                for at in step.takes:
                    one.values[at] = reading.values[at]
                if self._goes_on(key, one, time, reading.seq, found) and not self.overlap:
                    matched = True
                    break
            elif step.without & bits:
                self._give_up(key, one)
        if self.steps[0].when & bits and not matched:
            taken = [reading.values[at] if at in self.steps[0].takes else None for at in range(len(self.shown))]
            one = Open(time, time, 1, taken)
            self._begin(key, one)
            if self._expect(key, one) and len(self.open[key]) > self.max_open:
                del self.open[key][0]

    def _fire(self, key: int, before: int, progress: Progress, found: list[Match]) -> None:
        """Absences of a key that have ended before this time."""
        while True:
            over = [o for o in self.open.get(key, ()) if not self.steps[o.step].when and o.deadline < before]
            if not over:
                return
            one = min(over, key=lambda o: o.deadline)
            seq = int(progress.reached(np.array([one.deadline + 1]))[0])
            self._goes_on(key, one, one.deadline, seq, found)

    def _goes_on(self, key: int, one: Open, time: int, seq: int, found: list[Match]) -> bool:
        """The next step has been found. True if it was the last."""
        one.end = time
        one.step += 1
        if one.step < len(self.steps):
            self._expect(key, one)
            return False
        found.append(Match(seq, time, key, one.start, one.values))
        if self.overlap:
            self._give_up(key, one)
        else:
            self._give_up(key, *self.open[key])
        return True

    def _begin(self, key: int, one: Open) -> None:
        self.open.setdefault(key, []).append(one)
        self.busy[key] = True

    def _expect(self, key: int, one: Open) -> bool:
        """Until when the next step may come. False: it is given up, since it cannot come in time."""
        step = self.steps[one.step]
        last = one.start + self.whole
        one.deadline = min(one.end + step.within, last, FAR) if step.when else one.end + step.within
        if one.deadline > last:
            self._give_up(key, one)
            return False
        if one.deadline < FAR:
            heapq.heappush(self.expires if step.when else self.fires, (one.deadline, key))
        return True

    def _give_up(self, key: int, *attempts: Open) -> None:
        for one in attempts:
            self.open[key].remove(one)
        if attempts and not self.open[key]:
            del self.open[key]
            self.busy[key] = False

    def _pass(self, progress: Progress, found: list[Match]) -> None:
        """Time has passed: absences end, and what has not come in time is given up."""
        now = progress.watermark
        while self.fires and self.fires[0][0] < now:
            self._fire(heapq.heappop(self.fires)[1], now, progress, found)
        while self.expires and self.expires[0][0] < now:
            key = heapq.heappop(self.expires)[1]
            for one in [*self.open.get(key, ())]:
                if one.deadline < now:
                    self._give_up(key, one)

    def _rows(self, found: list[Match], progress: Progress) -> Frame:
        ranks = self.context.keys.ranks()
        found.sort(key=lambda m: (m.seq, m.end, int(ranks[m.key]), m.start))
        end = np.array([m.end for m in found], np.int64)
        columns = {"start": Column(np.array([m.start for m in found], np.int64)), "end": Column(end)}
        for at, (name, of) in enumerate(self.kinds.items()):
            columns[name] = column(of.kind, [m.values[at] for m in found])
        key, seq = np.array([m.key for m in found], np.int32), np.array([m.seq for m in found], np.int64)
        return Frame(end, key, seq, columns, progress)

    # --- state ---

    def forget(self, keys: Ints, frame: Frame) -> None:
        super().forget(keys, frame)
        self.waiting.forget(keys)
        for key in keys.tolist():
            self._give_up(key, *self.open.get(key, ()))

    def due(self) -> int | None:
        fires = self.fires[0][0] + 1 if self.fires else FAR
        due = min(self.waiting.first, fires)
        return None if due == FAR else due

    def memory(self) -> Memory:
        shown = 9 * len(self.shown)
        waiting = (29 + shown) * self.max_waiting
        beyond = f"readings that wait for the watermark, at most {waiting / 1e6:,.1f} MB"
        return Memory((40 + shown) * self.max_open, beyond=beyond)

    def snapshot(self) -> State:
        rows = self.waiting.rows()
        columns = {
            n: [c.values.copy(), None if c.present is None else c.present.copy()]
            for n, c in rows.columns.items()
            if n != BITS
        }
        return super().snapshot() | {
            "waiting": [rows.time.copy(), rows.key.copy(), rows.seq.copy(), rows[BITS].values.copy(), columns],
            "open": [[key, o.start, o.end, o.step, [*o.values]] for key, of in self.open.items() for o in of],
        }

    def restore(self, state: State) -> None:
        super().restore(state)
        time, key, seq, bits, columns = state["waiting"]
        kept = {BITS: Column(bits), **{n: Column(*parts) for n, parts in columns.items()}}
        self.waiting.put_back(Frame(time, key, seq, kept, NO_PROGRESS))
        self.open, self.fires, self.expires = {}, [], []
        self.busy = np.zeros(len(self.context.keys), np.bool_)
        for code, start, end, step, values in state["open"]:
            one = Open(start, end, step, values)
            self._begin(code, one)
            self._expect(code, one)


def _shown(settings: PatternSettings, context: OperatorContext) -> dict[str, tuple[int, str]]:
    """Name of a field of the rows = the step and the field that it is of."""
    known = context.schema.names()
    steps: dict[str, int] = {}
    for i, step in enumerate(settings.sequence):
        if step.as_ is not None and steps.setdefault(step.as_, i) != i:
            context.problem(f"sequence.{i}.as", f'"{step.as_}" is the name of an earlier step')
    if settings.fields is None:
        wanted = {f"{name}_{of}": (name, of) for name in steps for of in context.fields}
    else:
        parted = {name: text.partition(".") for name, text in settings.fields.items()}
        wanted = {name: (step, of) for name, (step, _, of) in parted.items()}
    shown = {}
    for name, (of_step, of) in wanted.items():
        where = "sequence" if settings.fields is None else f"fields.{name}"
        if name in (*OWN_FIELDS, "time", context.schema.key) or not name.isidentifier():
            context.problem(where, f'"{name}" cannot be the name of a field; choose another')
        elif of_step not in steps:
            hint = did_you_mean(of_step, steps) or '; name a step by "as"'
            context.problem(where, f'there is no step "{of_step}"{hint}')
        elif of not in known:
            context.problem(where, f'"{of}" is not a field of the input{did_you_mean(of, known)}')
        else:
            shown[name] = (steps[of_step], of)
    return shown


def _kind(name: str, context: OperatorContext) -> Field:
    """What a field of the input is; the key and the time are fields, too."""
    return context.fields.get(name) or Field("time" if name == "time" else "string")
