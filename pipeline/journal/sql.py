"""Read-only SQL over the history: a table of each stream, with its key, `time` and its fields, and of each of its rollups.

The question runs on a database of its own, in memory, that holds nothing but virtual tables (`sql_tables.py`); what these
read, it cannot name.

`time`, and every field that is a time, is RFC 3339 text, as in all answers. Times are compared as times, however they are
written: '2026-01-31', '2026-01-31T13:00:00+01:00' and, where key and time are asked for, numbers since 1970.
"""

from __future__ import annotations

import time as clocks
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apsw

from pipeline.component import Table, Unanswerable
from pipeline.frame import instant_text
from pipeline.journal import rolled, rollup
from pipeline.journal.sql_tables import Source, Tables, distinct, moment, quoted
from pipeline.quantity import duration
from pipeline.times import instant

LONGEST = 64_000  # characters of a question
SECONDS = 5.0
MOST_ROWS = 10_000  # of an answer
MOST_BYTES = 16_000_000  # of an answer's texts
MEMORY = 64_000_000  # bytes beyond what SQLite held before: sorting and grouping

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
    module: Any = Tables(source, guard.look)  # apsw's protocols ask for more than it calls
    db.create_module("history", module, use_bestindex_object=True)
    known = rollup.known(source.db)
    module.rollups = {level.name: level for stream in source.streams for level in known.of(stream)}
    called = {stream: stream for stream in source.streams} | {
        n: rolled.called(level) for n, level in module.rollups.items()
    }
    names = distinct(list(called.values()))
    for stream, name in zip(called, names, strict=True):
        db.execute(f"CREATE VIRTUAL TABLE {quoted(name)} USING history({quoted(stream)})")
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
            columns = distinct([name for name, _ in cursor.get_description()])
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
    return distinct(found)


# --- functions of time ----------------------------------------------------------------------------------------------


def _compare(a: str, b: str) -> int:
    """Times by when they are, however they are written; what is none, as text."""
    if len(a) != len(b) or a[-1:] != "Z" or b[-1:] != "Z":
        first, second = instant(a), instant(b)
        if first is not None and second is not None:
            return (first > second) - (first < second)
    return (a > b) - (a < b)


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
        at = moment("time_bucket", time)
        start = at - at % widths[width]
        if start not in texts:
            if len(texts) > 10_000:
                texts.clear()
            texts[start] = instant_text(start)
        return texts[start]

    return time_bucket
