"""What an alert says: its rows, their fields and their message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from operators.alert.group import Groups, Told, listed, names_of
from operators.alert.watch import FAR, Row, Step, Watch
from pipeline.component import State
from pipeline.frame import NO_PROGRESS, Field, Frame, Schema, column, empty
from pipeline.problem import did_you_mean
from pipeline.template import Template

if TYPE_CHECKING:
    from operators.alert import AlertSettings
    from operators.alert.levels import Level
    from pipeline.component import OperatorContext

# What a row has of its own. A field of the input with such a name is not shown, and a message that names it means ours.
OWN = {
    "state": Field("string"),
    "level": Field("string", optional=True),
    "previous": Field("string", optional=True),
    "since": Field("time"),
    "reading": Field("time", optional=True),
}
OF_GROUP = {"firing": Field("int"), "keys": Field("string")}
LAST = {"message": Field("string"), "alert": Field("string")}


class Rows:
    """From what has changed to a Frame."""

    def __init__(
        self, settings: AlertSettings, context: OperatorContext, readings: Schema, levels: list[Level], names: list[str]
    ) -> None:
        self.context = context
        self.names = names  # of all levels, from the lowest
        conditions = [e for level in levels for e in (level.when, level.clear) if e]
        used = {name for condition in conditions for name in condition.names}
        own = OWN | (OF_GROUP if settings.group else {})
        shown = {
            n: f._replace(optional=True)
            for n, f in readings.fields.items()
            if n in used and n not in own and n not in LAST
        }
        by = self._by(settings, context, own | LAST)
        shown = {n: f for n, f in shown.items() if n not in by}
        key = context.schema.key
        if settings.group:
            key = None if not by else settings.group.by[0] if self._plain(by) else "group"
            shown = {n: f for n, f in shown.items() if n != key}
        if key in own | LAST or key in shown:
            key = "key"
        of_group = {} if self._plain(by) else by
        self.schema = Schema(key, own | of_group | shown | LAST, "alerts")
        self.message = self._template(settings, readings)
        told = [name for name in readings.fields if name in self.message.names]
        self.read = list(dict.fromkeys([*by, *shown, *told]))  # what a row needs of a reading
        self.groups: Groups | None = None
        if settings.group:
            repeat = int(settings.repeat or 0)
            places = [self.read.index(name) for name in by]
            self.groups = Groups(int(settings.group.within), repeat, places, self._group)
        self._nothing = empty(self.schema, NO_PROGRESS)

    def _by(self, settings: AlertSettings, context: OperatorContext, taken: dict[str, Field]) -> dict[str, Field]:
        """The fields that make a group."""
        by = {}
        for i, name in enumerate(settings.group.by if settings.group else ()):
            field = context.fields.get(name)
            if field is None:
                hint = did_you_mean(name, context.fields)
                context.problem(f"group.by.{i}", f'"{name}" is not a field of the input{hint}')
            elif name in taken:
                context.problem(f"group.by.{i}", f'"{name}" is a field of the alert\'s own; rename it with a derive')
            else:
                by[name] = field._replace(optional=True)
        return by

    @staticmethod
    def _plain(by: dict[str, Field]) -> bool:
        """The text of one field is the key of its group."""
        return [field.kind for field in by.values()] == ["string"]

    def _template(self, settings: AlertSettings, readings: Schema) -> Template:
        text, key = settings.message, self.schema.key
        if text is None and settings.group:
            text = (f"{{alert}} of {{{key}}}" if key else "{alert}") + " is {state}: {firing} firing {keys}"
        elif text is None:
            text = f"{{alert}}: {{{key}}} is {{state}}" if key else "{alert} is {state}"
        own = OWN | (OF_GROUP if settings.group else {}) | {"alert": LAST["alert"]}
        named = {n: f.kind for n, f in (dict(readings.fields) | own).items()} | {"time": "time"}
        named.pop("message", None)
        if key:
            named[key] = "string"
        template = Template(text, named)
        for problem in template.problems:
            self.context.problem("message", problem)
        return template

    # --- readings that are shown ---

    def resolve(self, frame: Frame, step: Step, watches: list[Watch]) -> None:
        """Positions in the Frame become what the rows need of those readings."""
        at = {row.shows for row in step.rows if isinstance(row.shows, int)}
        for watch in watches:
            at.update(s for s in (watch.shows, watch.last, *(t.shows for t in watch.latches)) if isinstance(s, int))
        if not at:
            return
        rows = np.array(sorted(at), np.int64)
        taken = [frame.time[rows].tolist(), *(frame.columns[name].take(rows).tolist() for name in self.read)]
        shown: dict[Any, Any] = dict(zip(rows.tolist(), zip(*taken, strict=True), strict=True))
        step.rows[:] = [row._replace(shows=shown.get(row.shows, row.shows)) for row in step.rows]
        for watch in watches:
            watch.shows, watch.last = shown.get(watch.shows, watch.shows), shown.get(watch.last, watch.last)
            for latch in watch.latches:
                latch.shows = shown.get(latch.shows, latch.shows)

    # --- rows ---

    def frame(self, frame: Frame, step: Step) -> Frame:
        """By arrival; of what left with one reading, by time, then key. A key's own rows keep their order."""
        rows: list[Any] = self._in_order([(row, row.key) for row in step.rows])
        if self.groups and (rows or self.groups.first <= frame.watermark):
            told = self.groups.take(step, rows)
            rows = self._in_order([(row, row.group) for row in told])
        if not rows:
            return self._nothing.with_progress(frame.progress)
        values = [self._of_group(row) if self.groups else self._of_key(row) for row in rows]
        columns = {n: column(f.kind, [value[n] for value in values]) for n, f in self.schema.fields.items()}
        time, seq = np.array([row.time for row in rows], np.int64), np.array([row.seq for row in rows], np.int64)
        key = np.array([row.group if self.groups else row.key for row in rows], np.int32)
        return Frame(time, key, seq, columns, frame.progress)

    def _in_order(self, rows: list[tuple[Any, int]]) -> list[Any]:
        if len(rows) < 2:
            return [row for row, _ in rows]
        ranks = self.context.keys.ranks()
        latest: dict[tuple[int, int], int] = {}
        order = []
        for i, (row, key) in enumerate(rows):
            own = row.seq, key
            at = latest[own] = max(row.time, latest.get(own, row.time))
            order.append((row.seq, at, int(ranks[key]), i))
        return [rows[i][0] for *_, i in sorted(order)]

    def _of_key(self, row: Row) -> dict[Any, Any]:
        values = self._values(row)
        values[self.schema.key] = self.context.keys.names[row.key]
        values["message"] = self.message.fill(values)
        return values

    def _of_group(self, told: Told) -> dict[Any, Any]:
        values = self._values(told)
        names = self.context.keys.names
        values["firing"] = len(told.members)
        values["keys"] = listed([names[key] for key in told.members])
        values[self.schema.key] = names[told.group]
        values["message"] = self.message.fill(values)
        return values

    def _values(self, row: Row | Told) -> dict[Any, Any]:
        reading, *shown = row.shows
        values: dict[Any, Any] = dict.fromkeys(self.read)  # of silence nothing is shown
        values.update(zip(self.read, shown, strict=False))
        values["state"] = "firing" if row.after >= 0 else "cleared"
        values["level"] = self.names[row.after] if row.after >= 0 else None
        values["previous"] = self.names[row.before] if row.before >= 0 else None
        values["since"] = row.since
        values["reading"] = reading
        values["alert"] = self.context.name
        values["time"] = row.time
        return values

    # --- groups ---

    def _group(self, values: tuple[Any, ...]) -> int:
        """The key of a group, as a code."""
        keys = self.context.keys
        code = keys[names_of(values)] if values else -1
        return code if code >= 0 else keys.whole()

    def due(self) -> int:
        return self.groups.due() if self.groups else FAR

    def snapshot(self) -> State:
        return {"groups": self.groups.pack()} if self.groups else {}

    def restore(self, state: State) -> None:
        if self.groups:
            self.groups.unpack(state["groups"])
