"""Frame: a batch of readings as columns. What every node of the graph is handed, and hands on.

A Frame is never changed once it is made: operators build new ones that share the columns they did not touch.

Missing values: a `Column` is an array of values and an array `present` (None: every value is there). Under an absent
value lies the zero of its type, so that equal Frames are equal bytes. NaN is a value; missing is not in the values.

Time: `time` is the readings' own (event time, int64 ns since 1970). `seq` is the order of arrival over all sources.
How the watermark moved while the readings came is in `progress`, which filters pass on untouched: so an operator
behind a filter sees the same watermark before each reading, however the input was cut into Frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.keys import KeyTable as KeyTable  # for whoever imports what a Frame is made of

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Array = NDArray[Any]

NEVER = -(2**63) + 1  # the watermark before the first reading
# Above this a watermark is a time. Below it there has been no reading, and how far it is above NEVER says for how long.
BEGUN = NEVER // 2
SECOND = 1_000_000_000

DTYPES: dict[str, Any] = {
    "float": np.dtype(np.float64),
    "int": np.dtype(np.int64),
    "bool": np.dtype(np.bool_),
    "string": np.dtype(object),
    "time": np.dtype(np.int64),  # ns since 1970, shown as an instant
}


class Field(NamedTuple):
    """What is known of a column before any reading: its kind (a key of `DTYPES`), may it be missing, may it be NaN."""

    kind: str
    optional: bool = False
    nan: bool = False

    def __str__(self) -> str:
        return self.kind + (" nan" if self.nan else "") + ("?" if self.optional else "")


class Schema(NamedTuple):
    """The fields of a stream; `key` is the name under which a row shows its key (None: it does not)."""

    key: str | None
    fields: dict[str, Field]
    role: str = "readings"  # readings | windows | alerts | refused: what the stream is, for sinks that care

    def names(self) -> list[str]:
        """All that an expression may name."""
        return [*([self.key] if self.key else []), "time", *self.fields]


class Column(NamedTuple):
    values: Array
    present: Bools | None = None  # None: all are present

    def known(self) -> Bools:
        """True where there is a value."""
        return np.ones(len(self.values), np.bool_) if self.present is None else self.present

    def take(self, rows: Array | slice) -> Column:
        return Column(self.values[rows], None if self.present is None else self.present[rows])

    def tolist(self) -> list[Any]:
        """Python values, None for a missing one."""
        values: list[Any] = self.values.tolist()
        if self.present is None:
            return values
        return [v if p else None for v, p in zip(values, self.present.tolist(), strict=True)]


def column(kind: str, values: Sequence[Any]) -> Column:
    """A Column of Python values; None is missing."""
    dtype = DTYPES[kind]
    if None not in values:
        return Column(_array(values, dtype))
    present = np.fromiter((v is not None for v in values), np.bool_, len(values))
    zero = "" if kind == "string" else dtype.type(0)
    return Column(_array([zero if v is None else v for v in values], dtype), present)


def _array(values: Sequence[Any], dtype: Any) -> Array:
    array: Array = np.empty(len(values), dtype)
    array[:] = values
    return array


class Progress(NamedTuple):
    """How the watermark moved in one step: by each reading of the source, then by the tick that ends the step."""

    seq: Ints  # arrival number of each reading of the source in this step
    before: Ints  # the watermark just before each of them; never falls
    after: int  # the watermark after the last of them
    watermark: int  # the watermark at the end of the step
    clock: int  # wall clock of the step, ns since 1970
    next_seq: int  # the arrival number that the next reading will have
    quiet_before: bool = False  # idle or ended when the step began
    quiet: bool = False  # idle or ended when the step ended
    ended: bool = False  # a finite source is at its end: windows close, but time does not pass

    def reached(self, times: Array) -> Ints:
        """The arrival number of the reading that moved the watermark to each of `times`; `next_seq` where the tick did."""
        if not len(self.seq):
            return np.full(len(times), self.next_seq)
        by_reading = self.seq[self.before[1:].searchsorted(times)]
        return np.where(times > self.after, self.next_seq, by_reading)

    def passed(self, times: Array) -> Ints:
        """The arrival number after which the watermark stands at or beyond each of `times`; -1: it did from the start."""
        start = int(self.before[0]) if len(self.seq) else self.after
        return np.where(times <= start, -1, self.reached(times))

    def cut(self, seq: int) -> tuple[Progress, Progress]:
        """As if the step had been two: the readings before arrival number `seq`, then the others and the tick."""
        at = int(np.searchsorted(self.seq, seq))
        mark = int(self.before[at]) if at < len(self.seq) else self.after
        first = self._replace(
            seq=self.seq[:at],
            before=self.before[:at],
            after=mark,
            watermark=mark,
            next_seq=seq,
            quiet=False,
            ended=False,
        )
        spoke = at > 0
        second = self._replace(seq=self.seq[at:], before=self.before[at:], quiet_before=self.quiet_before and not spoke)
        return first, second

    def before_rows(self, seq: Ints) -> Ints:
        """The watermark just before each reading."""
        if seq is self.seq:
            return self.before
        return np.append(self.before, self.after)[np.searchsorted(self.seq, seq)]


NO_PROGRESS = Progress(np.empty(0, np.int64), np.empty(0, np.int64), NEVER, NEVER, 0, 0)  # of rows out of store


class Frame:
    """Readings as columns. `len(frame)` is the number of rows; a tick is a Frame without rows.

    time      int64[n]   event time, ns since 1970
    key       int32[n]   code of the row's key in the pipeline's KeyTable
    seq       int64[n]   order of arrival; rises, and repeats where one reading caused several rows
    columns   name -> Column of n values
    progress  Progress   the clock and the way of the watermark, the same object for all Frames of a step and source
    """

    __slots__ = ("columns", "key", "progress", "seq", "time")

    def __init__(self, time: Ints, key: Array, seq: Ints, columns: Mapping[str, Column], progress: Progress) -> None:
        self.time = time
        self.key = key
        self.seq = seq
        self.columns = columns
        self.progress = progress

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def __repr__(self) -> str:
        return f"<Frame {len(self)} x {list(self.columns)} watermark {self.progress.watermark}>"

    @property
    def watermark(self) -> int:
        """The watermark after this Frame and its tick."""
        return self.progress.watermark

    @property
    def clock(self) -> int:
        return self.progress.clock

    @property
    def ended(self) -> bool:
        return self.progress.ended

    @property
    def sides(self) -> Mapping[str, Frame]:
        """The rows of further streams that an operator's settings name; see `Sided`."""
        return _NO_SIDES

    def watermark_before(self) -> Ints:
        """The watermark just before each row arrived: what decides whether it is late."""
        return self.progress.before_rows(self.seq)

    def take(self, rows: Array | slice) -> Frame:
        """The rows at these positions, in this order."""
        columns = {name: c.take(rows) for name, c in self.columns.items()}
        return Frame(self.time[rows], self.key[rows], self.seq[rows], columns, self.progress)

    def where(self, keep: Bools) -> Frame:
        """The rows where `keep` is true."""
        if keep.all():
            return self
        return self.take(keep.nonzero()[0])

    def none(self) -> Frame:
        """This Frame without its rows: it still carries the time."""
        return self.take(slice(0, 0))

    def with_columns(self, columns: Mapping[str, Column]) -> Frame:
        """These columns added, or put in the place of those of the same name."""
        return Frame(self.time, self.key, self.seq, {**self.columns, **columns}, self.progress)

    def halves(self) -> tuple[Frame, Frame] | None:
        """The same rows as if they had come in two Frames; None if all came with one reading."""
        at = _middle(self._arrivals())
        return None if at is None else self.cut(at)

    def _arrivals(self) -> Ints:
        """The arrival numbers of all rows, in order."""
        return self.seq

    def cut(self, seq: int) -> tuple[Frame, Frame]:
        """As if it had come in two Frames: the rows before arrival number `seq`, then the others and the tick."""
        return self._cut(seq, *self.progress.cut(seq))

    def _cut(self, seq: int, first: Progress, second: Progress) -> tuple[Frame, Frame]:
        at = int(np.searchsorted(self.seq, seq))
        return self.take(slice(0, at)).with_progress(first), self.take(slice(at, None)).with_progress(second)

    def with_progress(self, progress: Progress) -> Frame:
        return Frame(self.time, self.key, self.seq, self.columns, progress)


class Sided(Frame):
    """The rows of an operator's input and, in `sides`, those of the further streams that its settings name.

    All have the same progress: the watermark is the lowest of theirs. Arrival numbers tell how they came among each other;
    at an equal one, which a single reading of a source has caused, a side's row comes before the input's.
    """

    __slots__ = ("_sides",)

    def __init__(self, rows: Frame, sides: Mapping[str, Frame]) -> None:
        super().__init__(rows.time, rows.key, rows.seq, rows.columns, rows.progress)
        self._sides = sides

    @property
    def sides(self) -> Mapping[str, Frame]:
        return self._sides

    def _arrivals(self) -> Ints:
        return np.sort(np.concatenate([self.seq, *(side.seq for side in self.sides.values())]))

    def cut(self, seq: int) -> tuple[Frame, Frame]:
        progress = self.progress.cut(seq)
        rows = self._cut(seq, *progress)
        sides = {name: side._cut(seq, *progress) for name, side in self.sides.items()}
        return (
            Sided(rows[0], {name: parts[0] for name, parts in sides.items()}),
            Sided(rows[1], {name: parts[1] for name, parts in sides.items()}),
        )


_NO_SIDES: Mapping[str, Frame] = {}


def _middle(seq: Ints) -> int | None:
    """The arrival number at which rows are best cut in two; None if all came with one reading."""
    if len(seq) < 2 or seq[0] == seq[-1]:
        return None
    middle = seq[len(seq) // 2]
    return int(middle if middle != seq[0] else seq[np.searchsorted(seq, seq[0], "right")])


def outside_frame(columns: Mapping[str, Column], seq: int) -> Frame:
    """Rows that came from outside as one, not from a stream: they have neither keys nor times."""
    n = len(next(iter(columns.values())).values)
    return Frame(np.zeros(n, np.int64), np.zeros(n, np.int32), np.full(n, seq, np.int64), columns, NO_PROGRESS)


_NO_INTS: Ints = np.empty(0, np.int64)
_NO_CODES = np.empty(0, np.int32)


def empty(schema: Schema, progress: Progress) -> Frame:
    """A Frame without rows."""
    columns = {name: Column(np.empty(0, DTYPES[f.kind])) for name, f in schema.fields.items()}
    return Frame(_NO_INTS, _NO_CODES, _NO_INTS, columns, progress)


def concatenate(frames: Sequence[Frame], progress: Progress | None = None) -> Frame:
    """The rows of all Frames, one after the other; all have the same fields. At least one Frame."""
    with_rows = [f for f in frames if len(f)] or list(frames[:1])
    progress = progress or frames[-1].progress
    if len(with_rows) == 1:
        return with_rows[0].with_progress(progress)
    columns = {name: _join([f.columns[name] for f in with_rows]) for name in with_rows[0].columns}
    return Frame(
        np.concatenate([f.time for f in with_rows]),
        np.concatenate([f.key for f in with_rows]),
        np.concatenate([f.seq for f in with_rows]),
        columns,
        progress,
    )


def _join(parts: Sequence[Column]) -> Column:
    values = np.concatenate([c.values for c in parts])
    if all(c.present is None for c in parts):
        return Column(values)
    return Column(values, np.concatenate([c.known() for c in parts]))


_MANY = 512  # rows from which more calls that sort faster pay


def by_code(codes: Array) -> Ints:
    """The rows in the order of these whole numbers (keys, groups; from 0 to below 2**32), equal ones as they stand.

    numpy sorts 16 bits by radix, and anything wider by comparison, which takes three to eight times as long.
    """
    if len(codes) < _MANY:
        return np.argsort(codes, kind="stable")
    order = np.argsort(codes.astype(np.uint16), kind="stable")
    if codes.max() > 0xFFFF:
        order = order[np.argsort((codes >> 16).astype(np.uint16)[order], kind="stable")]
    return order


def in_order(frame: Frame) -> Frame:
    """The rows by arrival; rows of one reading stay in the order they have."""
    if len(frame) < 2 or bool((np.diff(frame.seq) >= 0).all()):
        return frame
    return frame.take(np.argsort(frame.seq, kind="stable"))


def alike(a: Frame, b: Frame) -> bool:
    """Whether both have the same fields, of the same kinds: then they can be joined."""
    return {n: c.values.dtype for n, c in a.columns.items()} == {n: c.values.dtype for n, c in b.columns.items()}


def differs(a: Column, b: Column) -> Bools:
    """True where two columns of one kind differ; missing equals missing."""
    known_a, known_b = a.known(), b.known()
    result: Bools = np.not_equal(a.values, b.values).astype(np.bool_) & known_a & known_b
    return result | (known_a ^ known_b)


# --- a Frame as rows, for people and programs outside --------------------------------------------------------------

_PER_UNIT = {"s": SECOND, "ms": 1_000_000, "us": 1_000, "ns": 1}


def instants(times: Ints, unit: str) -> list[Any]:
    """Times as RFC 3339 UTC text (`iso`), or as numbers since 1970 in `s`, `ms`, `us` or `ns`.

    Text has milliseconds, or as many more digits as the time needs; a number is whole where it can be.
    """
    if unit != "iso":
        per = _PER_UNIT[unit]
        whole, rest = np.divmod(times, per)
        if not rest.any():
            return whole.tolist()  # type: ignore[no-any-return]
        return [w if not r else w + r / per for w, r in zip(whole.tolist(), rest.tolist(), strict=True)]
    stamps = times.view("datetime64[ns]")
    text: list[Any] = np.datetime_as_string(stamps, unit="ms").tolist()
    for i in np.flatnonzero(times % 1_000_000):
        text[i] = str(np.datetime_as_string(stamps[i], unit="us" if times[i] % 1_000 == 0 else "ns"))
    return [t + "Z" for t in text]


def instant_text(time: int) -> str:
    """One time, ns since 1970, as RFC 3339 UTC text."""
    return str(instants(np.array([time], np.int64), "iso")[0])


def rows(frame: Frame, schema: Schema, keys: Sequence[str], unit: str = "iso") -> list[dict[str, Any]]:
    """Each row as a dict: the key under its name, `time`, the fields; a missing value is None."""
    named: dict[str, list[Any]] = {}
    if schema.key:
        named[schema.key] = [keys[code] for code in frame.key.tolist()]
    named["time"] = instants(frame.time, unit)
    for name, field in schema.fields.items():
        col = frame.columns[name]
        named[name] = _instants_or_none(col, unit) if field.kind == "time" else col.tolist()
    names = tuple(named)
    return [dict(zip(names, values, strict=True)) for values in zip(*named.values(), strict=True)]


def _instants_or_none(col: Column, unit: str) -> list[Any]:
    shown = instants(col.values, unit)
    return (
        shown if col.present is None else [t if p else None for t, p in zip(shown, col.present.tolist(), strict=True)]
    )
