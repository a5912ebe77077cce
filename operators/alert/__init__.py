"""`alert`: a row when a condition begins or ends to hold, by key."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from operators.alert.columns import ByKey
from operators.alert.inhibit import Event, Inhibit
from operators.alert.levels import DEFAULT_LEVEL, Level, Said, codes, levels_of
from operators.alert.rate import Rate
from operators.alert.rows import Rows
from operators.alert.silence import Silence
from operators.alert.timers import Timers
from operators.alert.watch import FAR, Latch, Reading, Rules, Step, Watch
from pipeline.component import Memory, Operator, OperatorContext, Settings, State
from pipeline.frame import BEGUN, Array, Frame, Ints, Sided, concatenate
from pipeline.perkey import PerKey
from pipeline.quantity import Duration


class LevelSettings(Settings, frozen=True, kw_only=True):
    when: Annotated[str, Meta(description="What raises it.")]
    clear: Annotated[str | None, Meta(description="What ends it. Absent: `when` is known to be false.")] = None
    for_: Annotated[Duration | None, Meta(description="As that of the alert.")] = msgspec.field(
        default=None, name="for"
    )
    keep: Annotated[Duration | None, Meta(description="As that of the alert.")] = None


class FlappingSettings(Settings, frozen=True, kw_only=True):
    changes: Annotated[int, Meta(ge=1, le=1000, description="How many changes at most are told of a key …")]
    within: Annotated[Duration, Meta(description="… in any span of this length.")]


class RateSettings(Settings, frozen=True, kw_only=True):
    field: Annotated[str, Meta(description="A number of the input.")]
    per: Annotated[Duration, Meta(description="The time that its change is given for.")] = Duration(1_000_000_000)
    name: Annotated[str | None, Meta(description="What conditions call it. Absent: FIELD_rate.")] = None


class GroupSettings(Settings, frozen=True, kw_only=True):
    by: Annotated[tuple[str, ...], Meta(description="Fields whose values make a group. Empty: all keys are one.")] = ()
    within: Annotated[Duration, Meta(description="How long changes are gathered before a row tells of them.")]


class AlertSettings(Settings, frozen=True, kw_only=True):
    when: Annotated[str | None, Meta(description="What raises it.")] = None
    clear: Annotated[str | None, Meta(description="What ends it. Absent: `when` is known to be false.")] = None
    for_: Annotated[Duration, Meta(description="How long `when` must hold before it fires.")] = msgspec.field(
        default=Duration(0), name="for"
    )
    keep: Annotated[Duration, Meta(description="How long it fires at least.")] = Duration(0)
    level: Annotated[str | None, Meta(description='What it is called. Absent: "warning".')] = None
    levels: Annotated[
        dict[str, LevelSettings] | None, Meta(description="Several of them, lowest first, instead of `when`.")
    ] = None
    repeat: Annotated[Duration | None, Meta(description="While it fires, a reminder so often.")] = None
    silent_for: Annotated[Duration | None, Meta(description="Fires when a key has had no reading for this long.")] = (
        None
    )
    expect: Annotated[tuple[str, ...], Meta(description="Keys that must be heard, though they never were yet.")] = ()
    flapping: Annotated[FlappingSettings | None, Meta(description="How many changes are told at most.")] = None
    inhibit: Annotated[
        str | tuple[str, ...], Meta(description="Other alerts: while one fires for a key, this one is not raised.")
    ] = ()
    rate: Annotated[RateSettings | None, Meta(description="How fast a field changes, for the conditions.")] = None
    group: Annotated[GroupSettings | None, Meta(description="One row for many keys.")] = None
    message: Annotated[str | None, Meta(description="Text with {field} or {field:format}.")] = None


SILENT = "silent"  # the level of silence, where there are others


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
    begun), `reading` (the time of the reading that is shown: with the key's readings from `since` to here, what made this
    row), the fields that the conditions use, `message`, `alert` (the operator's name).
    Readings are taken in the order in which they arrive. Without `clear`, it is over as soon as `when` is known to be
    false; where both hold, `when` wins. Unknown neither raises nor clears.
    `levels = { warning = { when = "…", clear = "…" }, critical = { … } }`, lowest first, instead of `when`: each has
    its own latch (and its own `for` and `keep`, where it gives one), and the state is the highest that is set.
    Time: what time does to a key it does once the key has a reading dated then or later, whatever that says, or the
    watermark gets there. The end of the input is not the passing of time.
    `for`: fires only when the condition has held this long in event time, at since + `for`, with the fields of the last
    reading that held. A reading dated before, for which `when` is known to be false, ends the wait.
    `keep`: once it fires it does so for this long at least. What is over sooner is cleared at the end of that, with the
    fields of the last reading for which it was over; a reading dated before, for which `when` holds, lets it go on.
    `repeat`: a reminder so long after the row before: `firing` with `previous` the same as `level`, and the fields of the
    newest reading. Where time jumps over several, the last of them stands for all.
    `silent_for`: fires when a key has had no reading for so long, at the time of its last one (`since`) + `silent_for`,
    without fields; the next reading ends it. A reading dated before the last one is none. Beside conditions it is the
    highest level, called "silent"; alone it is called `level`. `expect` lists keys whose silence begins with the first
    reading of any key, though they never had one; where there is none at all, with the start of the pipeline.
    `flapping = { changes = 4, within = "10 min" }`: no more rows of a key than that in any such span, but for reminders.
    What is held back is told as soon as it may be, if it is still true.
    `inhibit`: while one of these alerts fires for the same key, this one is neither raised nor reminded of; once none
    does, it is, if it still holds. That it is over is told all the same.
    `rate = { field = "temperature", per = "1 min" }` makes the field `temperature_rate` (or `name`): the change since the
    key's reading before, per minute. Conditions and the message may use it like any other.
    `group = { by = ["room"], within = "30 s" }`: one row for all keys of a room, with what changed in 30 s: `firing` (how
    many keys do), `keys` (which), the highest level, the earliest `since`, the fields of the latest change. Its key is the
    text of a single field of `by`, else the JSON of the values. Only the watermark is its time.
    `message`: text with `{field}` or `{field:format}`; the names above go before fields; a missing value
    reads "missing".
    A key that is forgotten (`headwater forget`) while it fires gets a row that it is over, without fields; a key of `expect` that
    was forgotten is watched again once it has a reading.
    At the limit: keys of `expect` beyond `max_keys` are not watched; groups beyond it share one.
    State: by key and level, whether it is set; of keys that are not at rest, since when, and the fields to show. When only
    conditions are changed (over the same fields) it is kept: what fires goes on, and the new conditions end it.
    Memory: 1 byte for each key and level, 9 for `silent_for`, 17 for `rate`, 1 for each 8 of `inhibit`, and about 1,000 for
    each key that fires or waits.
    """

    presentation = ("message",)  # settings that no state depends on
    adapts = (
        "when",
        "clear",
        "levels.*.when",
        "levels.*.clear",
    )  # what is set stays set until the new ones say otherwise
    sides: ClassVar[tuple[str, ...]] = ("inhibit",)

    def __init__(self, settings: AlertSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        _check(settings, context)
        self.rate = Rate(settings.rate, context) if settings.rate else None
        readings = self.rate.schema if self.rate else context.schema
        self.levels = levels_of(settings, context, readings)
        names = [level.name for level in self.levels]  # part of what is saved
        self.state = PerKey([(name, "i1") for name in names])
        if names:
            self.state = context.per_key("state", [(name, "i1") for name in names])
        self.silence: Silence | None = None
        if settings.silent_for:
            self.silence = Silence(int(settings.silent_for), settings.expect, context)
            names = [*names, SILENT if names else settings.level or DEFAULT_LEVEL]
        self.inhibit = Inhibit(context) if context.sides.get("inhibit") else None
        self.tick_by_tick = bool(settings.repeat or settings.inhibit or settings.group)
        self.rules = _rules(settings, self.levels)
        self.timed = bool(
            self.silence or self.rules.repeat or self.rules.changes or any(self.rules.holds + self.rules.keeps)
        )
        self.watches: dict[int, Watch] = {}
        self.timers = Timers()
        self.rows = Rows(settings, context, readings, self.levels, names)
        self.schema = self.rows.schema
        self._touched = np.zeros(0, np.bool_)

    # --- a Frame ---

    def on_frame(self, frame: Frame) -> Frame:
        measured = None
        said: list[Said] = []
        if len(frame):
            if self.rate:
                measured = self.rate.measure(frame)
                frame = Sided(frame.with_columns({self.rate.name: measured.column}), frame.sides)
            said = [level.says(frame) for level in self.levels]
        # So far nothing has changed; from here on nothing can fail.
        if measured:
            measured.keep()
        at = self.silence.begins_at(frame.progress) if self.silence else None
        if at is None:
            return self._take(frame, said)
        rows = int(np.searchsorted(frame.seq, at))
        parts = slice(0, rows), slice(rows, None)
        taken = [self._take(part, [s.take(own) for s in said]) for part, own in zip(frame.cut(at), parts, strict=True)]
        return concatenate(taken, frame.progress)

    def _take(self, frame: Frame, said: list[Said]) -> Frame:
        events = self.inhibit.events(frame.sides) if self.inhibit else {}
        step = Step(frame.progress)
        self._grow()
        if self.silence and frame.progress.before[:1].max(initial=BEGUN) > BEGUN:
            self.silence.begin(frame.progress.before[:1].tolist())
        dirty: list[Watch] = []
        if len(frame) or events:
            self._hear(frame, said, events, step, dirty)
        self._pass(frame, step, dirty)
        self.rows.resolve(frame, step, dirty)
        return self.rows.frame(frame, step)

    def _hear(
        self, frame: Frame, said: list[Said], events: dict[int, list[Event]], step: Step, dirty: list[Watch]
    ) -> None:
        """Nearly every reading says what is known of its key already; those of the other keys are taken one by one."""
        key = frame.key
        states = [self.state.data[level.name][key] for level in self.levels]
        touched = [key[level.news(state, s)] for level, state, s in zip(self.levels, states, said, strict=False)]
        if self.timed and len(frame):
            latest = max(frame.watermark, int(frame.time.max()))
            if (near := self.timers.near(key, latest)) is not None:
                touched.append(key[near])
            if self.silence:
                touched.append(self.silence.odd(frame))
        if events:
            touched.append(np.array(list(events), np.int32))
        others = None
        if any(map(len, touched)):
            for keys in touched:
                self._touched[keys] = True
            mine = self._touched[key]
            self._walk(frame, said, np.flatnonzero(mine), events, step, dirty)
            if self.timed:
                others = np.flatnonzero(~mine)
            for keys in touched:
                self._touched[keys] = False
        if self.timed and len(frame):
            self._note(frame, said, states, others, dirty)

    def _walk(
        self,
        frame: Frame,
        said: list[Said],
        rows: Ints,
        events: dict[int, list[Event]],
        step: Step,
        dirty: list[Watch],
    ) -> None:
        """Keys at which something happens, reading by reading."""
        by_key = ByKey.of(frame.key, rows)
        code = codes(said, by_key.rows)
        if not self.timed and not events:  # what a key says again changes nothing
            news = by_key.first.copy()
            news[1:] |= code[1:] != code[:-1]
            by_key, code = ByKey.of_sorted(by_key.rows[news], by_key.key[news]), code[news]
        seq = frame.seq[by_key.rows]
        columns = (by_key.rows, frame.time[by_key.rows], seq, frame.progress.before_rows(seq), code)
        readings: list[Reading] = list(zip(*(column.tolist() for column in columns), strict=True))
        events = dict(events)
        for start, end in pairwise([*by_key.starts().tolist(), len(readings)]):
            key = int(by_key.key[start])
            self._walk_key(key, readings[start:end], events.pop(key, []), step, dirty)
        for key, own in events.items():
            self._walk_key(key, [], own, step, dirty)

    def _walk_key(self, key: int, readings: list[Reading], events: list[Event], step: Step, dirty: list[Watch]) -> None:
        watch = self._watch(key)
        at = 0
        for event in events:
            assert self.inhibit is not None
            while at < len(readings) and (readings[at][2], 1) < event[:2]:
                watch.hear(step, readings[at])
                at += 1
            watch.inhibit(step, self.inhibit.take(key, event), event.time, event.seq)
        for reading in readings[at:]:
            watch.hear(step, reading)
        self._leave(watch, step, dirty)

    def _note(
        self, frame: Frame, said: list[Said], states: list[Array], others: Ints | None, dirty: list[Watch]
    ) -> None:
        """Of the keys that were not looked at: which reading is now the one to show, and that they were heard."""
        key, time = frame.key, frame.time
        for level, state, s in zip(self.levels, states, said, strict=True):
            again = level.kept(state, s)
            if again is None:
                continue
            for at, row in self._newest(key, np.flatnonzero(again), others):
                latch: Latch = self.watches[at].latches[level.number]
                latch.shows = row
                dirty.append(self.watches[at])
        if self.rules.repeat and self.watches:
            firing = self.timers.at[key] != FAR
            for at, row in self._newest(key, np.flatnonzero(firing), others):
                self.watches[at].last = row
                dirty.append(self.watches[at])
        if self.silence:
            if others is not None:
                key, time = key[others], time[others]
            self.silence.heard(key, time)

    def _newest(self, key: Array, rows: Ints, others: Ints | None) -> Iterable[tuple[int, int]]:
        """The last of these rows of each key that was not looked at."""
        if others is not None:
            rows = np.intersect1d(rows, others, assume_unique=True)
        return dict(zip(key[rows].tolist(), rows.tolist(), strict=True)).items()

    def _pass(self, frame: Frame, step: Step, dirty: list[Watch]) -> None:
        """What time alone does."""
        if not self.timed:
            return
        for key in self.timers.reached(frame.watermark):
            self._leave(self._watch(key), step, dirty)
        if self.silence:
            self.silence.begin([frame.progress.after, frame.watermark])
            for key in self.silence.silent_by(frame.watermark):
                self._leave(self._watch(key), step, dirty)
            self._never(frame, step, dirty)

    def _never(self, frame: Frame, step: Step, dirty: list[Watch]) -> None:
        """Nobody has spoken yet, so there is no event time: it is the clock's that the rows have."""
        assert self.silence is not None
        for key in self.silence.never(frame.progress):
            self._grow()
            watch = self._watch(key)
            watch.never(step, frame.clock, frame.progress.next_seq)
            self._leave(watch, step, dirty)

    def _watch(self, key: int) -> Watch:
        watch = self.watches.get(key)
        if watch is None:
            watch = Watch(key, self.rules)
        watch.seq = -1
        self._load(watch)
        return watch

    def _load(self, watch: Watch) -> None:
        """What the columns know of a key."""
        if self.inhibit:
            self.inhibit.load(watch)
        if self.silence:
            self.silence.load(watch)
            watch.plan()

    def _leave(self, watch: Watch, step: Step, dirty: list[Watch]) -> None:
        """All readings of the key are heard: time passes up to the end of the Frame."""
        key = watch.key
        watch.advance(step, step.progress.watermark)
        if self.levels:
            self.state.data[key] = tuple(latch.state for latch in watch.latches[: len(self.levels)])
        if self.silence:
            self.silence.store(watch)
        if watch.rests():
            self.watches.pop(key, None)
        else:
            self.watches[key] = watch
            dirty.append(watch)
        if self.timed:
            self.timers.put(key, watch.deadline)

    def _grow(self) -> None:
        """Room for the keys that there are: the graph sees to it only between Frames."""
        keys = len(self.context.keys)
        if keys > len(self._touched):
            self._touched = np.zeros(max(keys, 2 * len(self._touched)), np.bool_)
            self.timers.grow(keys)
            for state in self.context.states.values():
                state.grow(keys)

    # --- time and state ---

    def forget(self, keys: Ints, frame: Frame) -> Frame:
        step = Step(frame.progress)
        self._grow()
        for key in keys.tolist():
            watch = self.watches.pop(key, None)
            self.timers.put(key, FAR)
            if watch is not None:
                watch.forgotten(step, frame.clock)
        super().forget(keys, frame)
        return self.rows.frame(frame, step)

    def due(self) -> int | None:
        due = min(self.timers.due(), self.rows.due(), self.silence.due() if self.silence else FAR)
        return None if due == FAR else due

    def explain(self, key: int, readings: Frame) -> dict[str, Any]:
        from operators.alert.why import explain

        return explain(self, key, readings)

    def memory(self) -> Memory:
        return super().memory()._replace(beyond="about 1 kB for each key that fires or waits")

    def snapshot(self) -> State:
        state = super().snapshot() | {"watches": [watch.pack() for watch in self.watches.values()]}
        if self.silence:
            state["expected"] = self.silence.progress
        return state | self.rows.snapshot()

    def restore(self, state: State) -> None:
        super().restore(state)
        self.watches, self.timers = {}, Timers()
        self._touched = np.zeros(0, np.bool_)
        self._grow()
        for packed in state["watches"]:
            watch = self.watches[packed[0]] = Watch.unpack(packed, self.rules)
            self._load(watch)
            if self.timed:
                self.timers.put(watch.key, watch.deadline)
        if self.silence:
            self.silence.restore(state["expected"])
        self.rows.restore(state)


def _rules(settings: AlertSettings, levels: list[Level]) -> Rules:
    flapping = settings.flapping
    return Rules(
        tuple(level.hold for level in levels),
        tuple(level.keep for level in levels),
        int(settings.silent_for or 0),
        0 if settings.group else int(settings.repeat or 0),  # of a group, its rows are repeated
        flapping.changes if flapping else 0,
        int(flapping.within) if flapping else 0,
    )


def _check(settings: AlertSettings, context: OperatorContext) -> None:
    """What is wrong beside the conditions."""
    spans = {
        "repeat": settings.repeat,
        "silent_for": settings.silent_for,
        "flapping.within": settings.flapping and settings.flapping.within,
        "group.within": settings.group and settings.group.within,
    }
    for setting, span in spans.items():
        if span is not None and not span:
            context.problem(setting, "this must be longer than nothing")
    if settings.expect and settings.silent_for is None:
        context.problem("expect", 'the keys of "expect" are watched for silence: add "silent_for"')
    if settings.expect and context.schema.key is None:
        context.problem("expect", "the input has no key")
    if settings.levels and SILENT in settings.levels and settings.silent_for is not None:
        context.problem(
            f"levels.{SILENT}", f'"{SILENT}" is what the level of "silent_for" is called; choose another name'
        )
