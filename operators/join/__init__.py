"""`join`: fields of another stream, or of a table, beside those of each reading."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, field

from operators.join.given import Given
from operators.join.match import Match
from operators.join.streams import AsOf
from operators.join.table import Table, fields_of
from pipeline.component import Memory, Operator, OperatorContext, Settings, State
from pipeline.frame import Field, Frame, Ints, Schema, concatenate
from pipeline.problem import did_you_mean
from pipeline.quantity import Duration
from pipeline.waiting import FAR


class JoinSettings(Settings, frozen=True):
    with_: Annotated[str | None, Meta(description="The stream whose newest reading is taken.")] = field(
        default=None, name="with"
    )
    table: Annotated[Path | None, Meta(description="Or the file whose row is taken: CSV or JSON.")] = None
    format: Annotated[str | dict[str, Any] | None, Meta(description="Of the table. Absent: by its file's ending.")] = (
        None
    )
    on: Annotated[
        str | tuple[str, ...] | dict[str, str] | None,
        Meta(
            description="What must be equal in both. Absent: the key; []: nothing; a table: field here = field there."
        ),
    ] = None
    tolerance: Annotated[Duration | None, Meta(description="How old at most. Absent: any age.")] = None
    fields: Annotated[
        tuple[str, ...] | dict[str, str],
        Meta(description="What is taken of the stream (absent: every field); of a table, name = type."),
    ] = ()
    prefix: Annotated[str, Meta(description="Goes before the names of what is taken.")] = ""
    missing: Annotated[Literal["keep", "drop"], Meta(description="What becomes of a reading that finds nothing.")] = (
        "keep"
    )
    max_waiting: Annotated[int, Meta(ge=1, description="Most readings of each stream that wait.")] = 100_000


class Join(Operator):
    """Put beside each reading the newest of another stream, as of the reading's time.

        temperature of s1      21 @1 s    22 @5 s    23 @9 s
        door of s1             shut @0 s  open @5 s
        tolerance = "3 s"      21, shut   22, open   23, (missing)

        [operators.with_door]
        type = "join"
        input = "greenhouse"
        with = "doors"
        fields = ["door"]
        prefix = "its_"
        tolerance = "3 s"

    Taken is the newest reading of `with` that is dated at or before the reading, within `tolerance`, and equal in `on`: in the
    key, unless it names other fields (of text, whole numbers or truths). Of two with one time the later arrival is the newer.
    A reading that finds none goes on without (`missing = "keep"`), or not at all ("drop"). A missing `on` equals nothing.
    A row leaves when the watermark, the lowest of both streams, has passed its time: then all that could be the newest has
    come. So rows leave in the order of their times.
    Late data: a reading of the input that is older than the watermark goes to the output `late`. A late one of `with` is given
    to the rows that leave after it.

    With a table, each reading is given the row whose `on` it has, as the table was when the reading came:

        [operators.known]
        type = "join"
        input = "greenhouse"
        table = "sensors.csv"
        on = "sensor_id"
        fields = { limit = "float", room = "string?" }

    The file is looked at every 2 s. If it has changed it takes effect between two readings, and is written to the
    journal, so that a replay sees the same. While it cannot be read, has a bad or repeated row, or none, the table before it
    stays in force, and /health says why; at the very first start there must be a good one.

    At the limit: of more than `max_waiting` readings that wait for the watermark, the oldest leave with what there is; of more
    than that of `with`, the oldest is forgotten. A table larger than 10 MB is refused.
    State: readings that wait; of `with` the newest of each key, and those that are newer than the watermark; the table.
    Memory: of `with` 17 bytes and 9 for each field taken, for each key, and 24 and 9 for each reading that is newer; 28 and 9
    for each field of a reading that waits; texts besides. Of a table its columns, and 8 bytes for each key.
    """

    sides: ClassVar[tuple[str, ...]] = ("with",)

    def __init__(self, settings: JoinSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.drop = settings.missing == "drop"
        self.prefix = settings.prefix
        self.asof: AsOf | None = None
        self.table: Table | None = None
        taken: dict[str, Field] = {}
        if (settings.with_ is None) == (settings.table is None):
            context.problem("with", 'a join has either "with" (a stream) or "table" (a file)')
        elif settings.table is not None:
            taken = self._with_table(settings, settings.table)
        elif context.sides["with"]:
            taken = self._with_stream(settings, *next(iter(context.sides["with"].items())))
        else:
            context.problem("with", f'"{settings.with_}" is disabled: disable the join as well')
        shown = {self.prefix + name: self._shown(f) for name, f in taken.items()}
        for name in shown:
            if name in context.schema.names():
                context.problem("prefix", f'the input has a "{name}", too: set a prefix, or choose other fields')
        self.schema = context.schema._replace(fields={**context.fields, **shown})

    def _shown(self, of: Field) -> Field:
        return of if self.drop else of._replace(optional=True)

    def _with_stream(self, settings: JoinSettings, stream: str, schema: Schema) -> dict[str, Field]:
        context = self.context
        match = Match(settings.on, context, schema, stream)
        known = {**schema.fields, "time": Field("time")}
        names = settings.fields or [name for name in schema.fields if name not in match.there]
        if isinstance(names, dict):
            context.problem("fields", 'of a stream write a list of names: fields = ["door"]')
            names = [*names]
        for name in names:
            if name not in known:
                context.problem("fields", f'"{name}" is not a field of "{stream}"{did_you_mean(name, known)}')
        taken = {name: known[name] for name in names if name in known}
        self.asof = AsOf(
            context,
            stream,
            taken,
            (match.here_groups, match.there_groups),
            tolerance=FAR if settings.tolerance is None else int(settings.tolerance),
            max_waiting=settings.max_waiting,
        )
        return taken

    def _with_table(self, settings: JoinSettings, file: Path) -> dict[str, Field]:
        if settings.tolerance is not None:
            self.context.problem("tolerance", "the rows of a table have no times: leave it out")
        fields = fields_of(settings.fields, self.context)
        self.table = Table(file, settings.format, settings.on, fields, self.context)
        return fields

    # --- running ---

    def on_frame(self, frame: Frame) -> Frame:
        if self.asof is not None:
            parts = self.asof.push(frame)
            return concatenate([self._row(rows, given) for rows, given in parts], frame.progress)
        assert self.table is not None  # what has neither is a problem, and is not run
        return self._row(frame, self.table.push(frame))

    def _row(self, rows: Frame, given: Given) -> Frame:
        added = {self.prefix + name: c for name, c in given.columns.items()}
        joined = Frame(rows.time, rows.key, rows.seq, {**rows.columns, **added}, rows.progress)
        return joined.where(given.found) if self.drop else joined

    def forget(self, keys: Ints, frame: Frame) -> None:
        super().forget(keys, frame)
        if self.asof is not None:
            self.asof.forget(keys)

    def due(self) -> int | None:
        return None if self.asof is None else self.asof.due()

    def memory(self) -> Memory:
        if self.asof is None:
            return Memory(8, beyond="the columns of the table")
        taken = 9 * len(self.schema.fields)
        return Memory(17 + taken, beyond=f"about {28 + taken} B for each reading that waits")

    def snapshot(self) -> State:
        part = self.asof or self.table
        assert part is not None
        return part.snapshot()

    def restore(self, state: State) -> None:
        part = self.asof or self.table
        assert part is not None
        part.restore(state)
