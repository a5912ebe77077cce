"""Readings of a file in the place of a source's: what it would have brought, if each had come at its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.clock import RealClock
from pipeline.component import SourceContext
from pipeline.config import Node
from pipeline.frame import NO_PROGRESS, Frame, KeyTable, Schema, concatenate, empty
from pipeline.sources.file import File, FileSettings

EXTENSIONS = {
    ".csv": "csv",
    ".json": "json",
    ".ndjson": "json",
    ".jsonl": "json",
    ".influx": "influx",
    ".lp": "influx",
}


class Unreadable(Exception):
    """A file that is not what was meant; the text is for the person who named it."""


def rows(node: Node, schema: Schema, path: Path, keys: KeyTable) -> tuple[Frame, list[str]]:
    """The readings of a file as those of a source, numbered as they stand there; and the reasons of those it refuses.

    The names of key, time and fields are the source's; a source whose readings are dated by their arrival has `time`, as
    `headwater query --format csv` writes it. The format is the source's own, or the one that the file's ending says.
    """
    if not path.is_file():
        raise Unreadable(f'there is no file "{path}"')
    source = _source(node, schema, path, keys)
    frames, refused = [], []
    for payload in source._payloads(str(path), 0, None):
        decoded = source.decode([payload])
        refused += [bad.reason for bad in decoded.refused]
        assert decoded.times is not None  # its `time` is set
        code = keys.codes(decoded.keys) if schema.key else np.full(len(decoded.times), keys.whole(), np.int32)
        seq = np.arange(len(decoded.times))
        frame = Frame(decoded.times, code, seq, decoded.columns, NO_PROGRESS)
        crowded = code < 0
        refused += [keys.why(c) for c in code[crowded].tolist()]
        frames.append(frame.where(~crowded))
    found = concatenate(frames) if frames else empty(schema, NO_PROGRESS)
    return Frame(found.time, found.key, np.arange(len(found)), found.columns, NO_PROGRESS), refused


def _source(node: Node, schema: Schema, path: Path, keys: KeyTable) -> File:
    own: Any = node.settings
    fields = getattr(own, "fields", None) or {name: str(field) for name, field in schema.fields.items()}
    format_: Any = getattr(own, "format", "json")
    named = format_.get("type") if isinstance(format_, dict) else format_
    by_ending: Any = EXTENSIONS.get(path.suffix.lower(), named)
    time = getattr(own, "time", None)
    settings = FileSettings(
        path=str(path),
        format=format_ if by_ending == named else by_ending,
        key=schema.key,
        time=time or "time",
        time_unit=own.time_unit if time else "auto",
        fields=dict(fields),
    )
    context = SourceContext(node.name, keys, folder=path.parent, clock=RealClock())
    made = File(settings, context)
    if context.problems:
        raise Unreadable(f"{path}: {'; '.join(text for _, text in context.problems)}")
    return made
