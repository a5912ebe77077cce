"""`file`: rows appended to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from pipeline.component import ReadingSettings, Settings, Sink, SinkContext, StepWrites
from pipeline.frame import Frame, Schema, rows
from pipeline.registry import codec_for


class FileSettings(Settings, frozen=True):
    path: Annotated[str, Meta(description="The file; relative to the pipeline file.")]
    format: Annotated[
        str | dict[str, Any], Meta(description='How rows are written: "json", "csv" …; a table gives options.')
    ] = "json"
    time_unit: Annotated[Literal["iso", "s", "ms", "us", "ns"], Meta(description="How times are written.")] = "iso"


class File(Sink):
    """Append each row to a file, as a line.

        [sinks.archive]
        type = "file"
        inputs = ["ten_seconds"]
        path = "archive/ten_seconds.ndjson"

    Delivery: each row once. After a crash, what was written and not committed is cut off at the start and written again.
    With several inputs each row has a field `stream`. The file is not rotated: have it moved away, and a new one is begun.
    """

    def __init__(self, settings: FileSettings, context: SinkContext) -> None:
        super().__init__(context=context, settings=settings)
        self.path = Path(context.folder / settings.path)
        self.unit = settings.time_unit
        # A format with a place of its own for the key and the time is told which they are.
        keys = {schema.key for schema in context.inputs.values()}
        reading = ReadingSettings(
            format=settings.format,
            key=keys.pop() if len(keys) == 1 else None,
            time="time",
            time_unit=settings.time_unit,
        )
        self.codec = codec_for(reading, context, writing=True)
        self.labelled = len(context.inputs) > 1
        names = [list(self._row_names(schema)) for schema in context.inputs.values()]
        if any(n != names[0] for n in names):
            names = [list(dict.fromkeys(name for n in names for name in n))]
        columns = (["stream"] if self.labelled else []) + names[0]
        self.header = self.codec.header(columns) if self.codec else b""

    def _row_names(self, schema: Schema) -> list[str]:
        return [*([schema.key] if schema.key else []), "time", *schema.fields]

    def files(self) -> list[tuple[Path, bytes]]:
        return [(self.path, self.header)]

    def write(self, stream: str, frame: Frame, writes: StepWrites) -> None:
        assert self.codec is not None  # no codec is a problem, and the sink is not run
        shown = rows(frame, self.context.inputs[stream], self.context.keys.names, self.unit)
        if self.labelled:
            shown = [{"stream": stream, **row} for row in shown]
        writes.append(self.path, self.codec.encode(shown), self.header)
