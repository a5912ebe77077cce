"""Readings as text or dicts, and the Frames that they are: of one source, or of all that comes to an operator."""

from __future__ import annotations

import itertools
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.frame import NEVER, SECOND, Array, Field, Frame, Ints, KeyTable, Progress, Schema, column, outside_frame

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from pipeline.component import Operator

READINGS = Schema("key", {"value": Field("float", optional=True)})  # of a stream that is written as text
FIRST_NS = 10**10  # a time as large as this is in ns: in seconds it would be the year 2286

_READING = re.compile(r"(?:(\w+):)?([A-Za-z_]+)(-?[0-9.]+(?:e-?[0-9]+)?|nan|-)(?:@(-?[0-9.]+))?")


class Mark(NamedTuple):
    """Stands among readings where a step of the engine ends; or, with a `content`, where one begins."""

    watermark: int | None = None  # ns; what a tick moves it to
    ended: bool = False
    content: str | None = None  # what a file that the operator reads (`OperatorContext.files`) has from here on
    key: str | None = None  # what the operator is told to forget


Reading = dict[str, Any]
Stream = list[Reading | Mark]


def tick(seconds: float) -> Mark:
    """Time passes without a reading: the watermark moves up to here."""
    return Mark(ns(seconds))


def end() -> Mark:
    """A finite input is at its end."""
    return Mark(ended=True)


def file(content: str) -> Mark:
    """A file that the operator reads has changed."""
    return Mark(content=content)


def forget(key: str) -> Mark:
    """The key is gone for good (`Operator.forget`)."""
    return Mark(key=key)


def ns(time: float) -> int:
    """A time as readings give it."""
    if isinstance(time, int) and abs(time) >= FIRST_NS:
        return time
    return round(time * SECOND)


# --- as Frames -----------------------------------------------------------------------------------------------------


def parse(text: str) -> Stream:
    """`"a31 b-4@2.5 a- tick@20 end"` as readings of the schema `READINGS`."""
    stream: Stream = []
    for second, word in enumerate(text.split()):
        if word == "end":
            stream.append(end())
        elif word.startswith("tick@"):
            stream.append(tick(float(word[5:])))
        elif word.startswith("forget@"):
            stream.append(forget(word[7:]))
        elif match := _READING.fullmatch(word):
            side, key, value, at = match.groups()
            time = float(at) if at else second
            reading = {"key": key, "time": time, "value": None if value == "-" else float(value)}
            stream.append({"input": side, **reading} if side else reading)
        else:
            raise ValueError(f'"{word}" is no reading; write "a1", "a1.5@20", "a-", "tick@30" or "end"')
    return stream


def compact(rows: Iterable[Mapping[str, Any]], field: str = "value", key: str = "key") -> str:
    """Rows as `parse` reads them, without their times."""
    return " ".join(f"{row[key]}{'-' if row[field] is None else format(row[field], 'g')}" for row in rows)


def frames(
    rows: str | Sequence[Reading | Mark],
    schema: Schema,
    keys: KeyTable,
    *,
    disorder: float = 0,
    cuts: Iterable[int] = (),
    clock: int = 0,
) -> list[Frame]:
    """The Frames of a source with these readings: one ends after each mark, and before each of `cuts` (positions).

    `disorder` in seconds: the watermark before a reading is the newest time before it, less this.
    """
    feed = Feed(parse(rows) if isinstance(rows, str) else rows, schema, ns(disorder), clock)
    return [feed.frame(a, b, keys) for a, b in feed.steps(cuts)]


class Feed:
    """A stream as columns, from which any step can be cut: its readings that come by one input."""

    def __init__(
        self,
        stream: Sequence[Reading | Mark],
        schema: Schema,
        disorder: int,
        clock: int,
        name: str = "",
        sides: Collection[str] = (),
    ) -> None:
        self.stream = stream
        self.schema = schema
        self.clock = clock
        self.own = [isinstance(r, dict) and _input_of(r, sides) == name for r in stream]
        readings: list[Any] = list(itertools.compress(stream, self.own))
        self.files = [i for i, r in enumerate(stream) if isinstance(r, Mark) and r.content is not None]
        self.marked = [i for i, r in enumerate(stream) if isinstance(r, Mark) and r.content is None]
        self.number_at = np.cumsum(
            [0, *(not isinstance(r, Mark) or r.content is not None for r in stream)]
        )  # arrivals before each
        self.reading_at = np.cumsum([0, *self.own])  # those of this input
        self.at = np.flatnonzero(self.own)
        self.time = np.array([ns(r["time"]) for r in readings], np.int64)
        table = KeyTable()
        self.key = table.codes([r["key"] for r in readings]) if schema.key else np.zeros(len(readings), np.int32)
        self.names = table.names
        self.columns = {n: column(f.kind, [r.get(n) for r in readings]) for n, f in schema.fields.items()}
        self.watermarks = self._watermarks(disorder)
        for array in (self.time, *(a for c in self.columns.values() for a in c if a is not None)):
            array.flags.writeable = False

    def _watermarks(self, disorder: int) -> Ints:
        """The watermark before each position of the stream, and after the last."""
        marks = [NEVER]
        for item, own in zip(self.stream, self.own, strict=True):
            if isinstance(item, Mark):
                to = NEVER if item.watermark is None else item.watermark
            else:
                to = ns(item["time"]) - disorder if own else NEVER
            marks.append(max(marks[-1], to))
        return np.array(marks, np.int64)

    def steps(self, cuts: Iterable[int]) -> list[tuple[int, int]]:
        """Start and end of each Frame, as positions in the stream."""
        bounds = sorted(
            {
                0,
                len(self.stream),
                *self.files,
                *(i + 1 for i in self.marked),
                *(c for c in cuts if c < len(self.stream)),
            }
        )
        return list(itertools.pairwise(bounds))

    def _codes(self, key: Array, keys: KeyTable) -> Array:
        """Their codes in a table, in which there may be more by now than the keys of the stream."""
        if self.schema.key is None:
            return np.full(len(key), keys.whole(), np.int32)
        return keys.codes(self.names[: int(key.max(initial=-1)) + 1])[key]

    def frame(self, start: int, end: int, keys: KeyTable) -> Frame:
        """The readings between two positions; only the last may be a mark."""
        first, last = int(self.reading_at[start]), int(self.reading_at[end])
        seq = self.number_at[self.at[first:last]]
        before = self.watermarks[self.at[first:last]]
        key = self._codes(self.key[first:last], keys)
        for array in (seq, before, key):
            array.flags.writeable = False
        mark = self.stream[end - 1] if end > start else None
        ended = isinstance(mark, Mark) and mark.ended
        progress = Progress(
            seq,
            before,
            after=int(self.watermarks[end - 1 if isinstance(mark, Mark) else end]),
            watermark=int(self.watermarks[end]),
            clock=self.clock,
            next_seq=int(self.number_at[end]),
            quiet=ended,
            ended=ended,
        )
        columns = MappingProxyType({name: c.take(slice(first, last)) for name, c in self.columns.items()})
        return Frame(self.time[first:last], key, seq, columns, progress)


def _input_of(reading: Reading, sides: Collection[str]) -> str:
    """The stream by which a reading comes; "": the input."""
    name = reading.get("input", "")
    return name if name in sides else ""


class Feeds:
    """All that comes to an operator: by its input, and by the further streams that its settings name."""

    def __init__(
        self, stream: Sequence[Reading | Mark], schema: Schema, sides: Mapping[str, Schema], disorder: int, clock: int
    ) -> None:
        self.stream = stream
        self.schema = schema
        self.sides = sides
        named = {"": schema, **sides}
        self.feeds = [Feed(stream, s, disorder, clock, name, sides) for name, s in named.items()]
        self.steps = self.feeds[0].steps

    def frames(self, start: int, end: int, keys: KeyTable) -> list[Frame]:
        """The Frame of each between two positions; only the last may be a mark, and the first a file."""
        return [feed.frame(start, end, keys) for feed in self.feeds]

    def file(self, start: int, operator: Operator) -> dict[str, Frame]:
        """The rows of a file that has changed at this position, as a side."""
        item = self.stream[start]
        if not isinstance(item, Mark) or item.content is None:
            return {}
        ((name, outside),) = operator.context.files.items()
        return {name: outside_frame(outside.read(item.content.encode()), int(self.feeds[0].number_at[start]))}

    def forgets(self, stop: int) -> str | None:
        """The key that is forgotten with the step that ends at this position."""
        item = self.stream[stop - 1] if stop else None
        return item.key if isinstance(item, Mark) else None

    def nothing(self, at: int, keys: KeyTable) -> list[Frame]:
        """Without rows, and without time."""
        found = []
        for feed in self.feeds:
            frame, mark = feed.frame(at, at, keys), int(feed.watermarks[at])
            found.append(frame.with_progress(frame.progress._replace(after=mark, watermark=mark)))
        return found
