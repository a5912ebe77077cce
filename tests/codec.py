"""What the tests of codecs share: one made as a source makes it, its readings as rows, and a whole pipeline around it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.component import Context, Decoded, ReadingSettings
from pipeline.frame import KeyTable
from pipeline.registry import codec_for
from pipeline.run import Pipeline, check


def make(
    type_: str,
    fields: dict[str, str],
    key: str | None = "id",
    time: str | None = None,
    time_unit: str = "auto",
    clock: Any = None,
    **options: Any,
) -> Any:
    """A codec without a problem."""
    codec, problems = tried(type_, fields, key, time, time_unit, clock, **options)
    assert problems == []
    return codec


def tried(
    type_: str,
    fields: dict[str, str],
    key: str | None = "id",
    time: str | None = None,
    time_unit: str = "auto",
    clock: Any = None,
    **options: Any,
) -> tuple[Any, list[tuple[str, str]]]:
    """A codec, and what is wrong with its settings."""
    context = Context("in", KeyTable(), clock=clock)
    format_ = {"type": type_, **options}
    settings = ReadingSettings(format=format_, key=key, time=time, time_unit=time_unit, fields=fields)
    return codec_for(settings, context), context.problems


def rows(codec: Any, decoded: Decoded) -> list[dict[str, Any]]:
    """The readings as dicts: the key as "key", the time in ns as "time", the fields."""
    columns: dict[str, list[Any]] = {}
    if codec.settings.key is not None:
        keys = decoded.keys
        columns["key"] = (
            [codec.keys.names[code] for code in keys.tolist()]
            if hasattr(keys, "tolist")
            else list(keys)  # codes, or text
        )
    if decoded.times is not None:
        columns["time"] = decoded.times.tolist()
    columns |= {name: column.tolist() for name, column in decoded.columns.items()}
    assert {len(values) for values in columns.values()} == {sum(decoded.counts)}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def taken(codec: Any, payloads: Sequence[bytes]) -> list[dict[str, Any]]:
    """The readings of payloads of which none is refused."""
    decoded = codec.decode(payloads)
    assert decoded.refused == []
    return rows(codec, decoded)


def refusals(codec: Any, payload: bytes) -> list[tuple[int, str]]:
    """Item and reason of each reading that is refused."""
    return sorted((refused.item, refused.reason) for refused in codec.decode([payload]).refused)


def piped(folder: Path, source: str, data: bytes, sink: str = "", name: str = "in.data") -> bytes:
    """What a pipeline from a file, with these settings, writes to a file."""
    (folder / name).write_bytes(data)
    (folder / "pipeline.toml").write_text(
        f"""[pipeline]
name = "codec"
state = "state"
durability = "none"

[sources.readings]
type = "file"
path = "{name}"
{source}

[sinks.out]
type = "file"
inputs = ["readings"]
path = "out.data"
{sink}
"""
    )
    asyncio.run(Pipeline(*check(folder / "pipeline.toml")).run())
    return (folder / "out.data").read_bytes()


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]
