"""The virtual tables that SQL asks: one of each stream's history and of each of its rollups (SQLite's "Virtual Table Mechanism").

SQLite says what is asked of key and time, and which columns it wants; that decides which chunks are opened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apsw
import numpy as np
from numpy.typing import NDArray

from pipeline.component import RowsQuery, Unanswerable
from pipeline.frame import Frame, Ints, Schema, instants
from pipeline.journal import history, rolled
from pipeline.journal.rollup import Level
from pipeline.times import instant, nanoseconds
from pipeline.walk import Walk

FIRST_PAGE, MOST_PAGE = 500, 20_000  # rows that are read at once where an order is asked for
_KINDS = {"float": "REAL", "int": "INTEGER", "bool": "INTEGER", "string": "TEXT", "time": "TEXT COLLATE instant"}
_BOUNDS = {
    apsw.SQLITE_INDEX_CONSTRAINT_GE: "ge",
    apsw.SQLITE_INDEX_CONSTRAINT_GT: "gt",
    apsw.SQLITE_INDEX_CONSTRAINT_LE: "le",
    apsw.SQLITE_INDEX_CONSTRAINT_LT: "lt",
    apsw.SQLITE_INDEX_CONSTRAINT_EQ: "eq",
}
_LAST = 2**63 - 2  # ns


class Source(NamedTuple):
    """What the tables are of."""

    db: apsw.Connection
    streams: Mapping[str, Schema]
    names: Sequence[str]  # of the keys, by code
    code: Callable[[str], int | None]


class Tables:
    """Of apsw: makes a table of each stream. `look` is called between what is read: it ends what takes too long."""

    def __init__(self, source: Source, look: Callable[[], None]) -> None:
        self.source = source
        self.look = look
        self.rollups: Mapping[str, Level] = {}

    def Create(  # noqa: N802 - apsw's name
        self, connection: apsw.Connection, modulename: str, databasename: str, tablename: str, *args: Any
    ) -> tuple[str, _Table]:
        stream = args[0][1:-1].replace('""', '"')
        level = self.rollups.get(stream)
        stream = stream if level is None else level.stream
        table = _Table(self.source, self.look, stream, self.source.streams[stream], level)
        return table.declaration(), table

    Connect = Create


class _Table:
    def __init__(
        self, source: Source, look: Callable[[], None], stream: str, schema: Schema, level: Level | None
    ) -> None:
        self.source = source
        self.look = look
        self.stream = stream
        self.level = level  # of a rollup
        self.recorded = schema
        self.schema = schema = schema if level is None else rolled.schema_of(schema)
        # Name, kind, and the field it is of; None: the key, or the row's time.
        self.columns: list[tuple[str, str, str | None]] = [(schema.key, "key", None)] if schema.key else []
        self.columns.append(("time", "time", None))
        self.columns += [(name, field.kind, name) for name, field in schema.fields.items()]
        self.key = 0 if schema.key else None
        self.time = len(self.columns) - len(schema.fields) - 1
        self.corrected = history.corrects(schema)

    def declaration(self) -> str:
        names = distinct([name for name, _, _ in self.columns])
        kinds = [_KINDS.get(kind, "TEXT") for _, kind, _ in self.columns]
        return f"CREATE TABLE t ({', '.join(f'{quoted(n)} {k}' for n, k in zip(names, kinds, strict=True))})"

    def BestIndexObject(self, info: apsw.IndexInfo) -> bool:  # noqa: N802
        """Which of the conditions are met here, told to `Filter` as JSON."""
        bounds = []
        for i in range(info.nConstraint):
            bound = _BOUNDS.get(info.get_aConstraint_op(i))
            column = info.get_aConstraint_iColumn(i)
            if not info.get_aConstraint_usable(i) or bound is None:
                continue
            collation = info.get_aConstraint_collation(i).lower()
            if column == self.key and bound == "eq" and collation == "binary":
                bounds.append("key")
            elif column == self.time and collation == "instant":
                bounds.append(bound)
            else:
                continue
            info.set_aConstraintUsage_argvIndex(i, len(bounds))
            info.set_aConstraintUsage_omit(i, True)
        order = ""
        if info.nOrderBy == 1 and info.get_aOrderBy_iColumn(0) == self.time:
            order = "desc" if info.get_aOrderBy_desc(0) else "asc"
            info.orderByConsumed = True
        used = sorted(c for c in range(len(self.columns)) if min(c, 63) in info.colUsed)
        info.idxStr = json.dumps([bounds, order, used])
        cost = 1e7 / (100 if "key" in bounds else 1) / 10 ** len({*bounds} - {"key"})
        info.estimatedCost = cost
        info.estimatedRows = int(cost)
        return True

    def Open(self) -> _Rows:  # noqa: N802
        return _Rows(self)

    def Disconnect(self) -> None:  # noqa: N802
        pass

    Destroy = Disconnect

    # --- what is read ---

    def frames(self, bounds: list[str], order: str, values: Sequence[Any]) -> Iterator[Frame]:
        asked = self._asked(bounds, values)
        if asked is None:
            return
        start, end, codes = asked
        db, descending = self.source.db, order == "desc"
        if self.level is not None:
            for said in rolled.summaries(db, self.level, self.recorded, codes, start, end, descending=descending):
                self.look()
                yield rolled.frame_of(said, descending=descending)
            return
        query = RowsQuery(self.stream, None, start, end, 2**62, descending, self.corrected)
        if not order and not self.corrected:
            for part in history.listed(db, query, codes):
                self.look()
                yield history.read(db, part, query, self.schema, codes)
            return
        walk = Walk(query, FIRST_PAGE)
        while not walk.done:
            self.look()
            yield walk.take(history.rows(db, walk.next(), self.schema, codes))
            walk.size = min(2 * walk.size, MOST_PAGE)

    def _asked(self, bounds: list[str], values: Sequence[Any]) -> tuple[int, int, list[int] | None] | None:
        """From when to before when, and the codes of the keys (None: of all). None: no row can be meant."""
        start, end = -_LAST, _LAST
        codes: list[int] | None = None
        for bound, value in zip(bounds, values, strict=True):
            if value is None:
                return None  # nothing is equal to NULL, or before it
            if bound == "key":
                code = self.source.code(value if isinstance(value, str) else str(value))
                codes = [code] if code is not None and (codes is None or code in codes) else []
                continue
            at = moment("time", value)
            if bound in ("ge", "gt", "eq"):
                start = max(start, at + (bound == "gt"))
            if bound in ("le", "lt", "eq"):
                end = min(end, at + (bound != "lt"))
        return None if codes == [] or start >= end else (start, end, codes)

    def values(self, frame: Frame, column: int) -> list[Any]:
        _, kind, field = self.columns[column]
        if kind == "key":
            names = self.source.names
            return [names[code] for code in frame.key.tolist()]
        if field is None:
            return instants(frame.time, "iso")
        if kind != "time":
            return frame[field].tolist()
        times: Ints = frame[field].values
        known = frame[field].known().tolist()
        return [text if there else None for text, there in zip(instants(times, "iso"), known, strict=True)]


class _Rows:
    """Of apsw: a cursor."""

    def __init__(self, table: _Table) -> None:
        self.table = table

    def Filter(self, _: int, plan: str, values: Sequence[Any]) -> None:  # noqa: N802
        bounds, order, self.used = json.loads(plan)
        self.frames = self.table.frames(bounds, order, values)
        self.columns: list[list[Any]] = [[] for _ in self.table.columns]
        self._load()

    def _load(self) -> None:
        """The next rows. Only of the columns that are asked for, and as values of Python: SQLite takes them one by one."""
        self.at = self.size = 0
        self.ids: list[int] | None = None
        for frame in self.frames:
            if len(frame):
                self.frame, self.size = frame, len(frame)
                for column in self.used:
                    self.columns[column] = self.table.values(frame, column)
                return

    def Eof(self) -> bool:  # noqa: N802
        return self.at >= self.size

    def Next(self) -> None:  # noqa: N802
        self.at += 1
        if self.at >= self.size:
            self._load()

    def Column(self, column: int) -> Any:  # noqa: N802
        return self.Rowid() if column < 0 else self.columns[column][self.at]

    def Rowid(self) -> int:  # noqa: N802
        """By it SQLite knows a row that both sides of an OR have found, each with a `Filter` of its own."""
        if self.ids is None:
            self.ids = _ids(self.frame)
        return self.ids[self.at]

    def Close(self) -> None:  # noqa: N802
        pass


def _ids(frame: Frame) -> list[int]:
    """A number of 63 bits for each row, whatever was asked for beside it. Conditions met here are of key and time alone:
    rows that have these and the arrival in common are found together and in one order, so they are told apart by it.
    """
    mixed = _mix(frame.time.astype(np.uint64))
    for part in (frame.key, frame.seq):
        mixed = _mix(mixed ^ part.astype(np.uint64))
    order = np.argsort(mixed, kind="stable")
    begins = np.append(True, mixed[order][1:] != mixed[order][:-1])
    place = np.arange(len(frame))
    among = np.empty(len(frame), np.uint64)
    among[order] = place - np.maximum.accumulate(np.where(begins, place, 0))
    found: list[int] = (_mix(mixed + among) >> np.uint64(1)).tolist()
    return found


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


# --- values and names in SQL ------------------------------------------------------------------------------------------


def moment(what: str, value: Any) -> int:
    """A time as it is written in a question, as ns. Unanswerable: it is none."""
    found = instant(value) if isinstance(value, str) else None
    if found is None and isinstance(value, (int, float)):
        times, good = nanoseconds([value], "auto")
        found = int(times[0]) if good is None or good.all() else None
    if found is None:
        raise Unanswerable(
            f"{what}: a time such as '2026-01-31T12:00:00Z', ago('1h') or 1769860800, not {value!r:.100}"
        )
    return found


def distinct(names: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """As they are, with a number behind those that were there already: for SQL `Value` and `value` are one."""
    found: dict[str, str] = {}
    for name in names:
        own, n = name, 1
        while own.lower() in found:
            n += 1
            own = f"{name}_{n}"
        found[own.lower()] = own
    return list(found.values())


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
