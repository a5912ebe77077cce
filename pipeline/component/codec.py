"""What a format is: bytes to columns and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

import msgspec
import numpy as np
from msgspec import Meta

from pipeline.component.context import Settings
from pipeline.frame import Array, Column, Ints, KeyTable


class Refused(NamedTuple):
    """A reading that was not taken, and why."""

    payload: int  # index of the payload
    item: int  # index of the reading within it, from 0
    reason: str
    raw: str  # the reading as it came, cut to a sensible length


def item_of(taken: int, payload: int, refused: Sequence[Refused]) -> int:
    """Which reading of a payload the `taken`-th good one is, counting those refused before."""
    item = taken
    for bad in sorted(r.item for r in refused if r.payload == payload):
        item += bad <= item
    return item


class Decoded(NamedTuple):
    """Readings as columns, in order of arrival, and those refused."""

    keys: Sequence[str | int] | Array  # one for each reading, or its code; empty where the stream has no key
    times: Ints | None  # ns; None: the time of arrival
    columns: dict[str, Column]
    counts: Sequence[int]  # readings taken from each payload
    refused: list[Refused]


def joined(parts: Sequence[tuple[int, Decoded]], keys: KeyTable) -> Decoded:
    """What was decoded in several goes, as one; each with the index of its first payload."""
    decoded = [d for _, d in parts]
    columns = {}
    for name in decoded[0].columns:
        made = [d.columns[name] for d in decoded]
        present = None if all(c.present is None for c in made) else np.concatenate([c.known() for c in made])
        columns[name] = Column(np.concatenate([c.values for c in made]), present)
    # A part without a reading may say either: what could not be decoded at all does not know whether there are times.
    timed = [d.times for d in decoded if d.times is not None and len(d.times)]
    untimed = any(d.times is None and sum(d.counts) for d in decoded)
    return Decoded(
        np.concatenate([keys.codes(d.keys) for d in decoded]),
        np.concatenate(timed) if timed else None if untimed else decoded[0].times,
        columns,
        [n for d in decoded for n in d.counts],
        [Refused(start + r.payload, *r[1:]) for start, d in parts for r in d.refused],
    )


class Codec(Protocol):
    """Bytes to columns and back. Decoding many payloads at once is the usual case."""

    media_types: ClassVar[tuple[str, ...]]
    # A codec that only reads also has `writes = False`; one with options names their Struct, as `Options`.

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        """The readings of all payloads; a bad one costs only itself."""
        ...

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """Rows (plain values, times already as shown) as bytes."""
        ...

    def header(self, names: Sequence[str]) -> bytes:
        """What stands once atop a file of rows with these columns, mostly nothing; `encode` keeps to their order then."""
        ...


class ReadingSettings(Settings, kw_only=True, frozen=True):
    """Settings of every source that decodes bytes."""

    format: Annotated[
        str | dict[str, Any], Meta(description='How readings are written: "json", "csv" …; a table gives options.')
    ] = "json"
    key: Annotated[str | None, Meta(description="The field that names the series. Absent: all is one.")] = None
    time: Annotated[str | None, Meta(description="The field with the event time. Absent: the time of arrival.")] = None
    time_unit: Annotated[
        str, Meta(description='How it is written: "s", "ms", "us", "ns", "iso", or "auto" by its size.')
    ] = "auto"
    fields: Annotated[
        dict[str, str],
        Meta(description="Field = float, int, bool or string; with ? it may be absent, with nan it may be NaN."),
    ] = msgspec.field(default_factory=dict)
