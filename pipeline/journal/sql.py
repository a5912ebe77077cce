"""Read-only SQL over the history: a table of each stream, with its key, `time` and its fields, and of each of its rollups.

The question runs on a database of its own, in memory, that holds nothing but virtual tables (SQLite's "Virtual Table
Mechanism"); what these read, it cannot name. What is asked of key and time decides which chunks are opened.

`time`, and every field that is a time, is RFC 3339 text, as in all answers. Times are compared as times, however they are
written: '2026-01-31', '2026-01-31T13:00:00+01:00' and, where key and time are asked for, numbers since 1970.
"""

from __future__ import annotations

import json
import time as clocks
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apsw
import numpy as np
from numpy.typing import NDArray

from pipeline.component import RowsQuery, Table, Unanswerable
from pipeline.frame import Frame, Ints, Schema, instant_text, instants
from pipeline.journal import history, rolled, rollup
from pipeline.journal.rollup import Level
from pipeline.quantity import duration
from pipeline.times import instant, nanoseconds
from pipeline.walk import Walk

LONGEST = 64_000  # characters of a question
SECONDS = 5.0
MOST_ROWS = 10_000  # of an answer
MOST_BYTES = 16_000_000  # of an answer's texts
MEMORY = 64_000_000  # bytes beyond what SQLite held before: sorting and grouping
FIRST_PAGE, MOST_PAGE = 500, 20_000  # rows that are read at once where an order is asked for

_WORDS = (
    "abs acos asin atan atan2 avg ceil ceiling char coalesce concat concat_ws cos count cume_dist date datetime degrees"
    " dense_rank exp first_value floor format glob group_concat hex if ifnull iif instr julianday lag last_value lead length"
    " like ln log log10 log2 lower ltrim max min mod nth_value ntile nullif percent_rank pi pow power printf quote radians"
    " rank replace round row_number rtrim sign sin sqrt strftime string_agg substr substring sum tan time timediff total"
    " trim trunc typeof unicode unixepoch upper time_bucket now ago"
)
FUNCTIONS = frozenset(_WORDS.split())
_LIMITS = {
    apsw.SQLITE_LIMIT_LENGTH: 1_000_000,  # bytes of one value
    apsw.SQLITE_LIMIT_SQL_LENGTH: LONGEST * 4,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_COLUMN: 500,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 100,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    apsw.SQLITE_LIMIT_VARIABLE_NUMBER: 1_000,
    apsw.SQLITE_LIMIT_VDBE_OP: 100_000,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
}
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


def ask(source: Source, sql: str, parameters: Sequence[Any] | Mapping[str, Any], limit: int, now: int) -> Table:
    """The answer. Unanswerable: it is not a question, not one that is allowed, or one that takes too much."""
    if len(sql) > LONGEST:
        raise Unanswerable(f"a question may have at most {LONGEST:,} characters")
    db = apsw.Connection(":memory:")
    guard = _Guard()
    try:
        _prepare(db, source, guard, now)
        return _answer(db, sql, parameters, min(limit, MOST_ROWS), guard)
    except Unanswerable:
        raise
    except apsw.AuthError as error:
        raise Unanswerable(f"only questions (SELECT) to the streams are answered: {error}") from None
    except (apsw.InterruptError, apsw.NoMemError):
        raise Unanswerable(guard.why or "the question takes too much") from None
    except apsw.Error as error:
        raise Unanswerable(guard.why or str(error).removeprefix("SQLError: ")) from None
    except (ValueError, OverflowError, RecursionError, TypeError) as error:  # of what is given to SQLite
        raise Unanswerable(str(error)) from None
    finally:
        db.close(True)


class _Guard:
    """Ends what takes too long or too much."""

    def __init__(self) -> None:
        self.until = clocks.monotonic() + SECONDS
        self.most = apsw.memory_used() + MEMORY
        self.why = ""

    def __call__(self) -> bool:
        if clocks.monotonic() > self.until:
            self.why = f"the question takes longer than {SECONDS:g} s: ask for a shorter time, or fewer keys"
        elif apsw.memory_used() > self.most:
            self.why = "the question takes too much memory to sort or group: ask for a shorter time, or fewer groups"
        return bool(self.why)

    def look(self) -> None:
        """Between what SQLite does: while rows are read it does not ask."""
        if self():
            raise Unanswerable(self.why)


def _prepare(db: apsw.Connection, source: Source, guard: _Guard, now: int) -> None:
    db.pragma("temp_store", "memory")  # a sort must not write to the flash; the guard sees how large it grows
    for limit, value in _LIMITS.items():
        db.limit(limit, value)
    db.create_collation("instant", _compare)
    functions: list[tuple[str, Callable[..., Any], int]] = [
        ("time_bucket", _buckets(), 2),
        ("now", lambda: instant_text(now), 0),
        ("ago", lambda text: None if text is None else instant_text(now - _length("ago", text)), 1),
    ]
    for name, function, arguments in functions:
        db.create_scalar_function(name, function, arguments, deterministic=True)
    module: Any = _Module(source, guard)  # apsw's protocols ask for more than it calls
    db.create_module("history", module, use_bestindex_object=True)
    known = rollup.known(source.db)
    module.rollups = {level.name: level for stream in source.streams for level in known.of(stream)}
    called = {stream: stream for stream in source.streams} | {
        n: rolled.called(level) for n, level in module.rollups.items()
    }
    names = _distinct(list(called.values()))
    for stream, name in zip(called, names, strict=True):
        db.execute(f"CREATE VIRTUAL TABLE {_quoted(name)} USING history({_quoted(stream)})")
    db.authorizer = _authorizer({name.lower() for name in names})
    db.set_progress_handler(guard, 1_000)


def _authorizer(tables: set[str]) -> Callable[..., int]:
    def allow(action: int, a: str | None, b: str | None, schema: str | None, _: str | None) -> int:
        if action in (apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE):
            return apsw.SQLITE_OK
        if action == apsw.SQLITE_READ:
            # What a WITH names belongs to no database.
            return apsw.SQLITE_OK if schema is None or (a or "").lower() in tables else apsw.SQLITE_DENY
        if action == apsw.SQLITE_FUNCTION and (b or "").lower() in FUNCTIONS:
            return apsw.SQLITE_OK
        return apsw.SQLITE_DENY

    return allow


def _answer(
    db: apsw.Connection, sql: str, parameters: Sequence[Any] | Mapping[str, Any], limit: int, guard: _Guard
) -> Table:
    cursor = db.cursor()
    statements = 0

    def once(cursor: apsw.Cursor, text: str, bindings: Any) -> bool:
        nonlocal statements
        statements += 1
        if statements > 1:
            raise Unanswerable("one question at a time: there is something after the ;")
        return True

    cursor.exec_trace = once
    columns: list[str] = []
    rows: list[tuple[Any, ...]] = []
    size, truncated = 0, False
    for row in cursor.execute(sql, parameters or None):
        if not columns:
            columns = _distinct([name for name, _ in cursor.get_description()])
        size += sum(len(value) for value in row if isinstance(value, (str, bytes))) + 16 * len(row)
        if len(rows) == limit or size > MOST_BYTES:
            truncated = True
            break
        rows.append(tuple(value.hex() if isinstance(value, bytes) else value for value in row))
    if not columns:
        columns = _names_of(db, sql, parameters)
    if not columns:
        raise Unanswerable("this asks for nothing")
    return Table(columns, rows, truncated)


def _names_of(db: apsw.Connection, sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> list[str]:
    """Of an answer without rows: these tell nothing of themselves once they are through."""
    cursor = db.cursor()
    found: list[str] = []

    def look(cursor: apsw.Cursor, text: str, bindings: Any) -> bool:
        found.extend(name for name, _ in cursor.get_description())
        return False

    cursor.exec_trace = look
    try:
        cursor.execute(sql, parameters or None)
    except apsw.ExecTraceAbort:
        pass
    return _distinct(found)


# --- functions of time ----------------------------------------------------------------------------------------------


def _compare(a: str, b: str) -> int:
    """Times by when they are, however they are written; what is none, as text."""
    if len(a) != len(b) or a[-1:] != "Z" or b[-1:] != "Z":
        first, second = instant(a), instant(b)
        if first is not None and second is not None:
            return (first > second) - (first < second)
    return (a > b) - (a < b)


def _instant(what: str, value: Any) -> int:
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


def _length(what: str, text: Any) -> int:
    try:
        length = int(duration(text))
    except (ValueError, TypeError, OverflowError):
        length = 0
    if not 0 < length < 2**61:
        raise Unanswerable(f"{what}: a time such as '5 min' or '1h', not {text!r:.100}")
    return length


def _buckets() -> Callable[[Any, Any], str | None]:
    widths: dict[Any, int] = {}
    texts: dict[int, str] = {}  # rows come by time: few are new

    def time_bucket(width: Any, time: Any) -> str | None:
        """The begin of the span of this width, counted from 1970, that holds the time."""
        if width is None or time is None:
            return None
        if width not in widths:
            widths[width] = _length("time_bucket", width)
        at = _instant("time_bucket", time)
        start = at - at % widths[width]
        if start not in texts:
            if len(texts) > 10_000:
                texts.clear()
            texts[start] = instant_text(start)
        return texts[start]

    return time_bucket


# --- tables ---------------------------------------------------------------------------------------------------------


def _distinct(names: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """As they are, with a number behind those that were there already: for SQL `Value` and `value` are one."""
    found: dict[str, str] = {}
    for name in names:
        own, n = name, 1
        while own.lower() in found:
            n += 1
            own = f"{name}_{n}"
        found[own.lower()] = own
    return list(found.values())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _Module:
    """Of apsw: makes a table of each stream."""

    def __init__(self, source: Source, guard: _Guard) -> None:
        self.source = source
        self.guard = guard
        self.rollups: Mapping[str, Level] = {}

    def Create(  # noqa: N802 - apsw's name
        self, connection: apsw.Connection, modulename: str, databasename: str, tablename: str, *args: Any
    ) -> tuple[str, _Table]:
        stream = args[0][1:-1].replace('""', '"')
        level = self.rollups.get(stream)
        stream = stream if level is None else level.stream
        table = _Table(self.source, self.guard, stream, self.source.streams[stream], level)
        return table.declaration(), table

    Connect = Create


class _Table:
    def __init__(self, source: Source, guard: _Guard, stream: str, schema: Schema, level: Level | None) -> None:
        self.source = source
        self.guard = guard
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
        names = _distinct([name for name, _, _ in self.columns])
        kinds = [_KINDS.get(kind, "TEXT") for _, kind, _ in self.columns]
        return f"CREATE TABLE t ({', '.join(f'{_quoted(n)} {k}' for n, k in zip(names, kinds, strict=True))})"

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
        start, end = -_LAST, _LAST
        codes: list[int] | None = None
        for bound, value in zip(bounds, values, strict=True):
            if value is None:
                return  # nothing is equal to NULL, or before it
            if bound == "key":
                code = self.source.code(value if isinstance(value, str) else str(value))
                codes = [code] if code is not None and (codes is None or code in codes) else []
                continue
            at = _instant("time", value)
            if bound in ("ge", "gt", "eq"):
                start = max(start, at + (bound == "gt"))
            if bound in ("le", "lt", "eq"):
                end = min(end, at + (bound != "lt"))
        if codes == [] or start >= end:
            return
        query = RowsQuery(self.stream, None, start, end, 2**62, order == "desc", self.corrected)
        db = self.source.db
        if self.level is not None:
            intervals = rolled.summaries(db, self.level, self.recorded, codes, start, end, descending=order == "desc")
            for said in intervals:
                self.guard.look()
                yield rolled.frame_of(said, descending=order == "desc")
            return
        if not order and not self.corrected:
            for part in history.listed(db, query, codes):
                self.guard.look()
                yield history.read(db, part, query, self.schema, codes)
            return
        walk = Walk(query, FIRST_PAGE)
        while not walk.done:
            self.guard.look()
            yield walk.take(history.rows(db, walk.next(), self.schema, codes))
            walk.size = min(2 * walk.size, MOST_PAGE)

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
