"""All that the author of a component reads: what a source, codec, operator and sink is, and what each is given.

A component is one file: its settings, its class, its docstring. It is constructed from its settings and a `Context`;
construction touches no network and no disk, and reports what is wrong by `context.problem`. It never imports the engine.

    context.py              what every component has and is given
    operator.py             Frames in, Frames out, state
    source.py, codec.py     what arrives, and how readings are made of it
    sink.py                 what goes out, in the transaction of a step or after it
    services.py             for those that answer over HTTP: the server, and what can be asked

Names are imported from here.
"""

from pipeline.component.codec import Codec, Decoded, ReadingSettings, Refused, item_of, joined
from pipeline.component.context import Context, Settings, State
from pipeline.component.operator import Memory, Operator, OperatorContext, OutsideFile
from pipeline.component.services import (
    Acknowledged,
    AlertNotes,
    RowsQuery,
    Server,
    Services,
    Silence,
    StreamInfo,
    Table,
    TakesBody,
    Unanswerable,
)
from pipeline.component.sink import Batch, Buffer, Kept, Outcome, Sink, SinkContext, StepWrites
from pipeline.component.source import Inbox, Payload, Receipt, Source, SourceContext

__all__ = [
    "Acknowledged",
    "AlertNotes",
    "Batch",
    "Buffer",
    "Codec",
    "Context",
    "Decoded",
    "Inbox",
    "Kept",
    "Memory",
    "Operator",
    "OperatorContext",
    "Outcome",
    "OutsideFile",
    "Payload",
    "ReadingSettings",
    "Receipt",
    "Refused",
    "RowsQuery",
    "Server",
    "Services",
    "Settings",
    "Silence",
    "Sink",
    "SinkContext",
    "Source",
    "SourceContext",
    "State",
    "StepWrites",
    "StreamInfo",
    "Table",
    "TakesBody",
    "Unanswerable",
    "item_of",
    "joined",
]
