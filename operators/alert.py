"""`alert`: rows where a condition begins and ends to hold, by key."""

from __future__ import annotations

import string
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pipeline.component import Operator, OperatorContext, Settings, State
from pipeline.expression import Expression
from pipeline.frame import Array, Field, Frame, Ints, Schema, column, empty, instants
from pipeline.problem import did_you_mean
from pipeline.quantity import Duration

OFF, PENDING, SET = 0, 1, 2  # a level's latch
HOLDS, BROKEN, CLEARS = 1, 2, 4  # what a reading says to it


class LevelSettings(Settings):
    when: str
    clear: str | None = None


class AlertSettings(Settings):
    when: str | None = None
    clear: str | None = None
    for_: Duration = msgspec.field(default=Duration(0), name="for")
    level: str = "warning"
    levels: dict[str, LevelSettings] | None = None
    message: str | None = None


class Level(NamedTuple):
    name: str
    when: Expression
    clear: Expression | None  # None: as soon as `when` is known to be false

    def says(self, frame: Frame) -> Array:
        """What each reading says: HOLDS, BROKEN, CLEARS or nothing. Where both hold, `when` wins over `clear`."""
        values, present = self.when(frame)
        if self.clear is None and present is None:
            return np.where(values, np.int8(HOLDS), np.int8(BROKEN | CLEARS))
        holds = values if present is None else values & present
        broken = ~values if present is None else ~values & present
        clears = broken if self.clear is None else self.clear.holds(frame) & ~holds
        said: Array = holds.astype(np.int8) + BROKEN * broken.astype(np.int8) + CLEARS * clears.astype(np.int8)
        return said


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

    A row: the key, `time`, `state`, `level` (missing when cleared), `previous` (the level before), `since` (when the
    condition began to hold), the fields that the conditions use, `message`, `alert` (the operator's name).
    `for`: the condition must hold this long in event time. It fires at since + for: at the key's first reading dated then
    or later, or when the watermark gets there. Its fields are those of the last reading that held.
    `levels`: each level has its own latch, lowest first; the state is the highest that is set.
    Unknown neither raises nor clears. Readings are taken in the order in which they arrive.
    State: the latch of each level for each key. Memory: 9 bytes a level for each key. A reading of a key whose `for` is
    not over costs about a microsecond, others some nanoseconds.
    """

    presentation = ("message",)  # settings that no state depends on

    def __init__(self, settings: AlertSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.levels = self._levels(settings, context)
        self.hold = int(settings.for_)
        self.latch = context.per_key("latch", [(f"{what}{i}", t) for i in range(len(self.levels)) for what, t in _LATCH])
        self.pending: dict[tuple[int, int], list[Any]] = {}  # (key, level) -> [since, values of the last that held]
        self.touched = np.zeros(0, np.bool_)
        own = {"state", "level", "previous", "since", "message", "alert", "time", context.schema.key}
        named = {n for lv in self.levels for e in (lv.when, lv.clear) if e for n in e.names}
        self.shown = [n for n in context.fields if n in named and n not in own]
        self.message = _Template(settings.message, context)
        self.read = list(dict.fromkeys([*self.shown, *(n for n in context.fields if n in self.message.names)]))
        self.schema = self._schema(context.schema)

    def _levels(self, settings: AlertSettings, context: OperatorContext) -> list[Level]:
        if (settings.when is None) == (settings.levels is None):
            context.problem("when", 'give either "when" or "levels"')
        if settings.levels is None:
            declared = {settings.level: LevelSettings(when=settings.when or "false", clear=settings.clear)}
            prefix = ""
        else:
            declared, prefix = settings.levels, "levels.{}."
            if settings.clear is not None:
                context.problem("clear", 'with "levels" each level has its own "clear"')
        levels = []
        for name, level in declared.items():
            at = prefix.format(name)
            when = context.expression(level.when, at + "when", "bool")
            clear = None if level.clear is None else context.expression(level.clear, at + "clear", "bool")
            levels.append(Level(name, when, clear))
        return levels

    def _schema(self, schema: Schema) -> Schema:
        text = Field("string")
        fields = {"state": text, "level": Field("string", True), "previous": Field("string", True), "since": Field("time")}
        fields |= {n: schema.fields[n]._replace(optional=True) for n in self.shown}
        return Schema(schema.key, fields | {"message": text, "alert": text}, "alerts")

    # --- a Frame ---

    def on_frame(self, frame: Frame) -> Frame:
        said = [level.says(frame) for level in self.levels]
        changes = _Changes(self, frame)
        if self.hold:
            self._with_for(frame, said, changes)
        elif len(frame):
            self._without_for(frame, said, changes)
        return changes.frame()

    def _without_for(self, frame: Frame, said: list[Array], changes: _Changes) -> None:
        flips: dict[int, list[tuple[int, int]]] = {}
        for i, says in enumerate(said):
            for row, to in zip(*self._flips(frame.key, says, i), strict=True):
                flips.setdefault(row, []).append((i, to))
        for row in sorted(flips):
            key, time = int(frame.key[row]), int(frame.time[row])
            before = self._state(key)
            for level, to in flips[row]:
                self._set(key, level, to, time)
            changes.note(key, before, time, int(frame.seq[row]), row)

    def _flips(self, key: Array, says: Array, level: int) -> tuple[list[int], list[int]]:
        """The rows at which a level's latch changes, and to what.

        Only rows that differ from what their key's latch is now can begin a change, so only their keys are looked at.
        """
        to = np.where(says & HOLDS, np.int8(SET), np.where(says & CLEARS, np.int8(OFF), np.int8(-1)))
        now = self.latch[f"state{level}"][key]
        differs = (to != now) & (to >= 0)
        if not differs.any():
            return [], []
        rows = self._of_keys(key, key[differs])
        rows = rows[to[rows] >= 0]
        order = rows[np.argsort(key[rows], kind="stable")]
        said, of = to[order], key[order]
        before = np.empty_like(said)
        before[1:] = said[:-1]
        begins = np.append(True, of[1:] != of[:-1])
        before[begins] = now[order[begins]]
        changed = said != before
        return order[changed].tolist(), said[changed].tolist()

    def _of_keys(self, key: Array, wanted: Array) -> Ints:
        """The rows of some keys. A table by key, cleared after use, so that the cost does not grow with the keys."""
        if len(self.touched) < len(self.latch.data):
            self.touched = np.zeros(len(self.latch.data), np.bool_)
        self.touched[wanted] = True
        rows = np.flatnonzero(self.touched[key])
        self.touched[wanted] = False
        return rows

    # --- with `for` ---

    def _with_for(self, frame: Frame, said: list[Array], changes: _Changes) -> None:
        rows = self._rows_that_matter(frame, said) if len(frame) else []
        for row in rows:
            key, time, seq = int(frame.key[row]), int(frame.time[row]), int(frame.seq[row])
            self._reached_before(frame, seq, changes)
            self._take(frame, [int(s[row]) for s in said], row, changes, (key, time, seq))
        self._reached_before(frame, None, changes)

    def _rows_that_matter(self, frame: Frame, said: list[Array]) -> list[int]:
        """Rows of keys that are pending, or that have a row which would change their latch."""
        matter = np.zeros(len(frame), np.bool_)
        for i, says in enumerate(said):
            now = self.latch[f"state{i}"][frame.key]
            matter |= (now == PENDING) | ((now == OFF) & (says & HOLDS != 0)) | ((now == SET) & (says & CLEARS != 0))
        if not matter.any():
            return []
        return self._of_keys(frame.key, frame.key[matter]).tolist()

    def _take(self, frame: Frame, said: list[int], row: int, changes: _Changes, at: tuple[int, int, int]) -> None:
        """One reading: first what it is late enough to fire, then what it says itself."""
        key, time, seq = at
        for level in range(len(said)):
            waiting = self.pending.get((key, level))
            if waiting and time >= waiting[0] + self.hold:
                self._fire(key, level, seq, changes)
        before = self._state(key)
        for level, says in enumerate(said):
            state = int(self.latch[f"state{level}"][key])
            if state == PENDING and says & BROKEN:
                self._set(key, level, OFF, time)
                del self.pending[key, level]
            elif state == PENDING and says & HOLDS:
                self.pending[key, level][1] = self._values(frame, row)
            elif state == OFF and says & HOLDS:
                self._set(key, level, PENDING, time)
                self.pending[key, level] = [time, self._values(frame, row)]
            elif state == SET and says & CLEARS:
                self._set(key, level, OFF, time)
        changes.note(key, before, time, seq, row)

    def _reached_before(self, frame: Frame, seq: int | None, changes: _Changes) -> None:
        """Fire what the watermark has reached before the reading `seq` arrived (None: by the end of the Frame)."""
        if not self.pending:
            return
        due = [(p[0] + self.hold, k) for k, p in self.pending.items() if p[0] + self.hold <= frame.watermark]
        if not due:
            return
        ranks = self.context.keys.ranks()
        due.sort(key=lambda d: (d[0], ranks[d[1][0]], d[1][1]))
        reached = frame.progress.reached(np.array([d for d, _ in due])).tolist()
        for (_, (key, level)), at in zip(due, reached, strict=True):
            if seq is None or at < seq:
                self._fire(key, level, at, changes)

    def _fire(self, key: int, level: int, seq: int, changes: _Changes) -> None:
        since, values = self.pending.pop((key, level))
        before = self._state(key)
        self._set(key, level, SET, since)
        changes.note(key, before, since + self.hold, seq, None, values)

    # --- the latches ---

    def _state(self, key: int) -> int:
        """The highest level that is set; -1: none."""
        return max((i for i in range(len(self.levels)) if self.latch[f"state{i}"][key] == SET), default=-1)

    def _set(self, key: int, level: int, to: int, time: int) -> None:
        self.latch[f"state{level}"][key] = to
        if to != OFF:
            self.latch[f"since{level}"][key] = time

    def _values(self, frame: Frame, row: int) -> list[Any]:
        return [_value(frame, name, row) for name in self.read]

    # --- time and state ---

    def due(self) -> int | None:
        return min(p[0] for p in self.pending.values()) + self.hold if self.pending else None

    def snapshot(self) -> State:
        pending = [[key, level, *waiting] for (key, level), waiting in self.pending.items()]
        return super().snapshot() | {"pending": pending}

    def restore(self, state: State) -> None:
        super().restore(state)
        self.pending = {(key, level): [since, values] for key, level, since, values in state["pending"]}


_LATCH = (("state", "i1"), ("since", "int"))


def _value(frame: Frame, name: str, row: int) -> Any:
    values, present = frame.columns[name]
    if present is not None and not present[row]:
        return None
    value = values[row]
    return value.item() if isinstance(value, np.generic) else value


class _Changes:
    """The rows that leave, as they are found."""

    def __init__(self, alert: Alert, frame: Frame) -> None:
        self.alert = alert
        self.came = frame
        self.rows: list[tuple[int, int, int, int, dict[str, Any]]] = []  # seq, time, key's rank, key, fields

    def note(self, key: int, before: int, time: int, seq: int, row: int | None, values: list[Any] | None = None) -> None:
        """A row, if the highest level is not what it was."""
        alert = self.alert
        after = alert._state(key)
        if after == before:
            return
        values = alert._values(self.came, row) if row is not None else values
        shown: dict[str, Any] = dict(zip(alert.read, values or (), strict=True))
        since = int(alert.latch[f"since{after if after >= 0 else before}"][key])
        fields = {
            "state": "firing" if after >= 0 else "cleared",
            "level": alert.levels[after].name if after >= 0 else None,
            "previous": alert.levels[before].name if before >= 0 else None,
            "since": since,
            "alert": alert.context.name,
        }
        text = alert.message.fill(alert.context.keys.names[key], time, shown, fields)
        rank = int(alert.context.keys.ranks()[key])
        self.rows.append((seq, time, rank, key, shown | fields | {"message": text}))

    def frame(self) -> Frame:
        schema, progress = self.alert.schema, self.came.progress
        if not self.rows:
            return empty(schema, progress)
        self.rows.sort(key=lambda r: r[:3])
        columns = {n: column(f.kind, [r[4][n] for r in self.rows]) for n, f in schema.fields.items()}
        seq, time, _, key = (np.array(part, np.int64) for part in zip(*(r[:4] for r in self.rows), strict=True))
        return Frame(time, key.astype(np.int32), seq, columns, progress)


class _Template:
    """A message: plain text with {field} and {field:format}; checked when the pipeline is built."""

    def __init__(self, text: str | None, context: OperatorContext) -> None:
        self.parts: list[tuple[str, str | None, str]] = []  # text before, name, format
        self.key = context.schema.key
        if text is None:
            key = f"{{{self.key}}} " if self.key else ""
            text = f"{context.name}: {key}is {{state}}"
        known = [*([self.key] if self.key else []), *context.fields, "time", "state", "level", "previous", "since", "alert"]
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            context.problem("message", f"{error}; write a brace as {{{{ or }}}}")
            parsed = []
        for before, name, form, conversion in parsed:
            if name is not None and (name not in known or conversion or "{" in (form or "")):
                context.problem("message", f'"{name}" is not a field of the input{did_you_mean(name, known)}')
                continue
            if name is not None and form and (error := _bad_format(form, context.fields.get(name))):
                context.problem("message", f'"{{{name}:{form}}}": {error}')
            self.parts.append((before, name, form or ""))
        self.names = {name for _, name, _ in self.parts if name}

    def fill(self, key: str, time: int, values: dict[str, Any], own: dict[str, Any]) -> str:
        """The text for one row; a missing value is shown as "missing"."""
        known = values | own | {"time": time} | ({self.key: key} if self.key else {})
        filled = []
        for before, name, form in self.parts:
            filled.append(before)
            if name is not None:
                value = known.get(name)
                if name in ("time", "since") and value is not None:
                    value = instants(np.array([value], np.int64), "iso")[0]
                filled.append("missing" if value is None else format(value, form))
        return "".join(filled)


def _bad_format(form: str, field: Field | None) -> str:
    """What is wrong with a format; nothing if it is right. Widths are bounded: a message is a line."""
    digits = "".join(c if c.isdigit() else " " for c in form).split()
    if any(int(d) > 100 for d in digits):
        return "a width may be at most 100"
    example: Any = {"float": 1.5, "int": 1, "bool": True}.get(field.kind if field else "string", "text")
    try:
        format(example, form)
    except ValueError as error:
        return str(error)
    return ""
