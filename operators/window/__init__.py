"""`window`: aggregates over spans of event time, by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from operators.window import calendar, parts
from operators.window.aligned import Aligned
from operators.window.calendar import Calendar
from operators.window.count import Counting
from operators.window.grid import Even
from operators.window.groups import OWN_FIELDS, Groups
from operators.window.parts import Readings, Rows, Windows
from operators.window.session import Sessions
from operators.window.sliding import Sliding
from pipeline.aggregate import Aggregates
from pipeline.component import Memory, Operator, OperatorContext, Settings, State
from pipeline.frame import NEVER, NO_PROGRESS, Column, Frame, Ints, Progress, Schema, concatenate, empty, in_order
from pipeline.quantity import Duration
from pipeline.zone import ZoneError, zone_info

if TYPE_CHECKING:
    from operators.window.grid import Grid


CELL_BYTES = 150  # of the table of open windows, beside the numbers that are aggregated


class Every(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    every: Annotated[Duration, Meta(description="Time between early rows, by the watermark, aligned to 1970.")]


class WindowSettings(Settings, kw_only=True, frozen=True):
    window: Annotated[
        Literal["tumbling", "hopping", "sliding", "session", "count"], Meta(description="The kind of windows.")
    ] = "tumbling"
    size: Annotated[
        str | int | None,
        Meta(description='How long, as in "10 s"; "1 day", "2 weeks", "1 month"; of count windows, how many readings.'),
    ] = None
    every: Annotated[Duration | None, Meta(description="Hopping windows: from one start to the next.")] = None
    gap: Annotated[Duration | None, Meta(description="Sessions: silence this long ends one.")] = None
    offset: Annotated[Duration, Meta(description="Windows begin this much later than at multiples since 1970.")] = (
        Duration(0)
    )
    timezone: Annotated[
        str | None, Meta(description='Days, weeks and months are those of this time zone, as in "Asia/Shanghai".')
    ] = None
    lateness: Annotated[
        Duration, Meta(description="How long after closing a late reading still gives a corrected row.")
    ] = Duration(0)
    emit: Annotated[
        Literal["close", "changes"] | Every,
        Meta(description='"close", with each reading that "changes" a window, or { every = "1 s" } while it is open.'),
    ] = "close"
    by: Annotated[tuple[str, ...] | None, Meta(description="Fields that make a group; absent: the key.")] = None
    aggregate: Annotated[dict[str, str], Meta(description='Field of the row -> what it is, as in "mean(temperature)".')]


# Settings that not every kind has.
_TAKES = {
    "tumbling": {"size", "offset", "timezone", "lateness", "emit"},
    "hopping": {"size", "every", "offset", "lateness", "emit"},
    "sliding": {"size", "lateness"},
    "session": {"gap", "lateness", "emit"},
    "count": {"size"},
}
_WHY_NOT = {
    ("tumbling", "every"): 'windows that begin every so often are window = "hopping"',
    ("tumbling", "gap"): 'windows that end by a gap are window = "session"',
    ("hopping", "timezone"): 'days of a time zone go with window = "tumbling"',
    ("sliding", "every"): 'windows that begin every so often are window = "hopping"',
    ("sliding", "emit"): "a sliding window gives a row for each reading anyway",
    ("session", "size"): 'a session is as long as its readings go on; say gap = "10 s"',
    ("session", "every"): "a session begins with its first reading",
    ("session", "offset"): "a session begins with its first reading",
    ("count", "lateness"): "a count window takes readings as they come: none is late",
    ("count", "emit"): "a count window gives a row when it is full",
}
_MOST_WINDOWS = 1000  # that a reading may be in: each costs as much as a reading


class Window(Operator):
    """Aggregates over windows of event time, by key.

        temperature of s1     21 @3 s   23 @8 s   25 @12 s
        size = "10 s"                             start 0, end 10, n 2, average 22
                                                  (leaves when the watermark reaches 10 s)

        [operators.ten_seconds]
        type = "window"
        input = "greenhouse"
        window = "tumbling"
        size = "10 s"
        aggregate = { n = "count()", average = "mean(temperature)" }

    A row: the key, `start`, `end`, `time` = `end`, `revision`, and the aggregates. Rows that leave together leave by
    `end`, then key.
    `tumbling`: windows of `size` side by side, half-open, aligned to 1970 plus `offset`. `hopping`: one begins `every`
    so often, and a reading is in each that holds its time.
    With `size = "1 day"`, `"2 weeks"`, `"1 month"`, `"1 quarter"` or `"1 year"` tumbling windows go by the calendar of
    `timezone` (UTC if absent): from midnight (plus `offset` on the clock there), weeks from Monday. A day with a change
    of the clocks has 23 or 25 hours. `"1 d"` is 24 hours, but a day where there is a `timezone`.
    `sliding`: a row for each reading at time t, over (t - `size`, t], when the watermark reaches t.
    `session`: readings less than `gap` from another one; ends `gap` after the last; a reading between two makes one of
    them. `count`: a row for every `size` readings of a group in order of arrival, `start` and `end` their lowest and
    highest time; one that is not full at the end of the input gives none.
    `by` names the fields that make a group: the key if absent, one group for all if empty. A group of one text field
    that is never missing has that text as its key; other groups show their fields as columns, and their key is the
    values as a JSON array.
    `emit = "changes"`: each reading gives a row of its windows at once, as they are then; none comes at the close.
    `emit = { every = "1 s" }`: each time the watermark passes a whole second (or several at once), a row of each open
    window that has had readings since its last row; one comes at the close only if there were more. Early rows have
    the window's `start` and `end`, and `revision` counts a window's rows: the highest is the one that holds.
    Late data: a reading is late when the watermark had reached the end of its window before it came (sliding: had
    passed its time; session: that of a session of its own, and it reaches none that is open; count: never). Within
    `lateness` it gives a corrected row of each window that has left at once (`revision` + 1; a session that grew or
    merged may have another `start` or `end`); if no window takes it, it goes to the output `late`.
    The end of a finite input closes every window.
    At the limit: a reading of a new group when there are `max_keys` keys fails, and is set aside with that reason.
    State: the windows that can still change. Memory: about 150 bytes for each group and window with readings, and 16
    for each number kept of it (mean: a sum and a count; variance: four); twice that while the table grows.
    rate and time_weighted_mean keep all readings of a window as well: 25 bytes each, for each expression that they are
    given. median and quantile, and distinct and mode, keep each different value with how often it came, 34 bytes:
    beyond 4,096 values in a window quantiles are within 0.5 % (DDSketch), and at most 4,096 different values are told
    apart: distinct says no more, mode is one of the first 4,096. Sliding windows keep the readings of the last `size`
    and `lateness`:
    40 bytes each, and 9 for each expression; a row costs as much as the readings in it. A hopping window's reading
    costs and is kept once for each window that it is in.
    """

    def __init__(self, settings: WindowSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.groups = Groups(settings.by, context)
        self.aggregates = Aggregates(settings.aggregate, context)
        shown = {**self.groups.fields, **OWN_FIELDS}
        for name in settings.aggregate:
            if name in {*shown, "time", self.groups.key} or not name.isidentifier():
                context.problem(f"aggregate.{name}", f'"{name}" cannot be the name of an aggregate; choose another')
        self.schema = Schema(self.groups.key, {**shown, **self.aggregates.fields}, "windows")
        self.nothing = empty(self.schema, NO_PROGRESS)
        _check_settings(settings, context)
        if settings.window != "count":
            self.late = context.output("late", context.schema)
        self.windows = _windows(settings, self.aggregates, self.groups, context)
        self.push = self.windows.push
        self.every = 0
        self.watermark = NEVER  # of early rows
        if isinstance(settings.emit, Every):
            self.push = self._with_early_rows
            self.every = int(parts.length(settings.emit.every, "emit.every", context))

    def on_frame(self, frame: Frame) -> Frame:
        # Both may raise: so they come before any state changes.
        readings = Readings(frame.time, frame.seq, self.groups.codes(frame), self.aggregates.evaluate(frame))
        rows, late = self.push(readings, frame.progress)
        if late is not None:
            self.late(frame.take(late))
        if not rows:
            return self.nothing.with_progress(frame.progress)
        return in_order(concatenate([self._frame(r, frame.progress) for r in rows]))

    def _frame(self, rows: Rows, progress: Progress) -> Frame:
        own = {"start": Column(rows.start), "end": Column(rows.end), "revision": Column(rows.revision)}
        columns = {**self.groups.columns(rows.group), **own, **rows.aggregates}
        return Frame(rows.end, rows.group.astype(np.int32), rows.seq, columns, progress)

    # --- early rows ---

    def _with_early_rows(self, readings: Readings, progress: Progress) -> tuple[list[Rows], Ints | None]:
        """The Frame in parts, each up to where the watermark passes a multiple of `every`; there early rows leave."""
        rows: list[Rows] = []
        late: list[Ints] = []
        done = 0
        left: Progress | None = progress
        for i, seq in enumerate(self._passes(progress)):
            upto = int(np.searchsorted(readings.seq, seq, "right"))
            if left is None or (i and upto == done):
                continue  # all that has come has been shown
            part, left = left.cut(seq + 1) if seq < progress.next_seq else (left, None)
            rows += self._push_part(readings, done, upto, part, late)
            early = self.windows.early(seq)
            if early is not None:
                rows.append(early)
            done = upto
        if left is not None:
            rows += self._push_part(readings, done, len(readings.time), left, late)
        self.watermark = max(self.watermark, progress.watermark)
        return rows, np.concatenate(late) if late else None

    def _passes(self, progress: Progress) -> list[int]:
        """The arrival numbers of the readings, or of the tick, that move the watermark past a multiple."""
        marks = np.concatenate([progress.before, [progress.after, progress.watermark]])
        passed = np.flatnonzero((np.diff(marks // self.every) > 0) & (marks[:-1] != NEVER))
        found: list[int] = np.append(progress.seq, progress.next_seq)[passed].tolist()
        return found

    def _push_part(self, readings: Readings, start: int, stop: int, progress: Progress, late: list[Ints]) -> list[Rows]:
        rows, refused = self.windows.push(readings.take(np.arange(start, stop)), progress)
        if refused is not None:
            late.append(refused + start)
        return rows

    # --- time and state ---

    def due(self) -> int | None:
        due = self.windows.due()
        if due is None or not self.every or self.watermark == NEVER:
            return due
        return min(due, (self.watermark // self.every + 1) * self.every)

    def forget(self, keys: Ints, frame: Frame) -> None:
        super().forget(keys, frame)
        self.windows.forget(keys)

    def memory(self) -> Memory:
        if isinstance(self.windows, Sliding):
            each = 40 + 9 * len(self.aggregates.arguments)
            return Memory(beyond=f"{each} B for each reading of the last `size` and `lateness`")
        numbers = sum(np.dtype(dtype).itemsize for dtype, _ in self.aggregates.columns.values())
        # A table has room for twice the cells that it holds, and there are two while it grows.
        return Memory(2 * (CELL_BYTES + 2 * numbers), "group and open window", self.aggregates.beyond())

    def snapshot(self) -> State:
        return {**self.windows.snapshot(), "watermark": self.watermark}

    def restore(self, state: State) -> None:
        self.windows.restore(state)
        self.watermark = state["watermark"]


def _check_settings(settings: WindowSettings, context: OperatorContext) -> None:
    """Those that this kind of windows does not have."""
    kind = settings.window
    for field in msgspec.structs.fields(WindowSettings):
        name = field.encode_name
        if name in ("window", "by", "aggregate") or name in _TAKES[kind]:
            continue
        if getattr(settings, name) != field.default:
            why = _WHY_NOT.get((kind, name), "")
            context.problem(name, f"a {kind} window has no {name}{': ' if why else ''}{why}")


def _windows(settings: WindowSettings, aggregates: Aggregates, groups: Groups, context: OperatorContext) -> Windows:
    kind, lateness = settings.window, int(settings.lateness)
    at_once = settings.emit == "changes"
    if kind == "count":
        return Counting(_readings(settings.size, context), aggregates)
    if kind == "session":
        gap = parts.length(settings.gap, "gap", context)
        return Sessions(int(gap), lateness, aggregates, groups, at_once=at_once)
    if kind == "sliding":
        return Sliding(int(_size(settings, context)), lateness, aggregates, groups)
    return Aligned(_grid(settings, context), lateness, aggregates, groups, at_once=at_once)


def _readings(size: Any, context: OperatorContext) -> int:
    if isinstance(size, int) and size > 0:
        return size
    context.problem("size", "a count window needs a whole number of readings above 0, as in size = 100")
    return 1


def _grid(settings: WindowSettings, context: OperatorContext) -> Grid:
    days = calendar.length(settings.size, zoned=settings.timezone is not None)
    if settings.window == "tumbling" and (days or settings.timezone is not None):
        if days is None:
            text = 'a time zone makes a difference to days, weeks and months only, as in size = "1 day"'
            context.problem("timezone", text)
        try:
            zone = zone_info(settings.timezone or "UTC")
        except ZoneError as error:
            context.problem("timezone", str(error))
            return Even(1, 1, 0)
        return Calendar(days or calendar.Length("day", 1), zone, int(settings.offset))
    size = _size(settings, context)
    every = size
    if settings.window == "hopping":
        every = parts.length(settings.every, "every", context)
        if size > every * _MOST_WINDOWS:
            text = f"a reading would be in more than {_MOST_WINDOWS:,} windows of {size}; begin them less often"
            context.problem("every", text)
    return Even(int(size), int(every), int(settings.offset))


def _size(settings: WindowSettings, context: OperatorContext) -> Duration:
    if calendar.length(settings.size, zoned=False):
        context.problem("size", f'"{settings.size}" goes by the calendar, as only tumbling windows do; say "24 h"')
        return Duration(10**9)
    return parts.length(settings.size, "size", context)
