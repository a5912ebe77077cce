"""SQL over the history answers as SQLite does over the same rows in a plain table, and nothing but questions."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.component import Unanswerable
from pipeline.frame import NO_PROGRESS, Column, Field, Frame, KeyTable, Schema, column, instant_text
from pipeline.journal import history, sql, sql_tables
from pipeline.journal.schema import TABLES
from tests.pipeline.journal.test_history import compact

S = 1_000_000_000
T0 = 1_769_860_800 * S  # 2026-01-31T12:00:00Z
NOW = T0 + 3600 * S
SCHEMA = Schema(
    "id", {"value": Field("float", optional=True), "seen": Field("time", optional=True), "ok": Field("bool")}
)
WINDOWS = Schema("id", {"start": Field("time"), "revision": Field("int"), "n": Field("int")}, "windows")
STREAMS = {"s": SCHEMA, "in.invalid": Schema(None, {"Raw": Field("string"), "raw": Field("string")}), "w": WINDOWS}
Row = tuple[int, int, float | None]  # seconds after T0, key, value

rows_of_frames = st.lists(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 2), st.none() | st.integers(-3, 3).map(float)),
        min_size=1,
        max_size=8,
    ),
    max_size=5,
)


def source(frames: list[list[Row]]) -> sql_tables.Source:
    db = apsw.Connection(":memory:")
    db.execute(TABLES)
    seq = 0
    for step, rows in enumerate(frames):
        time, key, value = zip(*rows, strict=True)
        seen = column("time", [None if v is None else T0 + int(v) for v in value])
        columns = {"value": column("float", value), "seen": seen, "ok": column("bool", [bool(v) for v in value])}
        frame = Frame(
            T0 + np.array(time, np.int64) * S,
            np.array(key, np.int32),
            np.arange(seq, seq + len(rows)),
            columns,
            NO_PROGRESS,
        )
        seq += len(rows)
        history.put(db, step, "s", frame, journal=False, history=True)
    keys = KeyTable(["a", "b", "c"])
    return sql_tables.Source(db, STREAMS, keys.names, keys.get)


def ask(where: sql_tables.Source, text: str, parameters: Any = (), limit: int = 1000) -> list[tuple[Any, ...]]:
    return sql.ask(where, text, parameters, limit, NOW).rows


def at(seconds: int) -> str:
    return instant_text(T0 + seconds * S)


# --- as SQLite answers ----------------------------------------------------------------------------------------------

EITHER = "SELECT value FROM s WHERE time BETWEEN :a AND :b OR id = :key"
QUESTIONS = [
    "SELECT id, time, value, seen, ok FROM s",
    "SELECT count(*), sum(value), min(time), max(time) FROM s WHERE id = :key",
    "SELECT time, value FROM s WHERE time >= :a AND time < :b AND id = :key",
    "SELECT time, value FROM s WHERE time > :a AND time <= :b",
    "SELECT value FROM s WHERE time = :a",
    EITHER,
    "SELECT id, value FROM s WHERE id IN ('a', :key, 'nobody') AND time >= :a",
    "SELECT id, count(value) FROM s GROUP BY id HAVING count(*) > 1",
    "SELECT x.time, y.value FROM s x JOIN s y ON x.id = y.id AND x.time = y.time WHERE x.time < :a",
    "SELECT time FROM s WHERE id = :key AND id = 'a'",
    "SELECT time FROM s WHERE time IN (:a, :b)",
    "SELECT value FROM s WHERE time > (SELECT min(time) FROM s WHERE id = :key)",
    "SELECT value FROM s WHERE time >= NULL OR id = NULL",
    "SELECT time FROM s WHERE id = :key COLLATE NOCASE",
    "SELECT seen FROM s WHERE seen >= :a AND NOT ok",
]


@given(
    rows_of_frames,
    st.sampled_from(QUESTIONS),
    st.integers(-2, 22),
    st.integers(-2, 22),
    st.sampled_from(["a", "b", "C", "nobody"]),
    st.booleans(),
)
@example([[(0, 0, None)]], EITHER, 0, 0, "a", False)
@example([[(t, t % 3, None) for t in range(20)], [(t, 0, 1) for t in range(20)]], EITHER, 3, 9, "a", True)
def test_the_same_as_over_a_plain_table(
    frames: list[list[Row]], question: str, a: int, b: int, key: str, compacted: bool
) -> None:
    where = source(frames)
    if compacted:
        compact(where.db)
    plain = sqlite3.connect(":memory:")
    plain.execute("CREATE TABLE s (id TEXT, time TEXT, value REAL, seen TEXT, ok INTEGER)")
    for time, code, value in (row for rows in frames for row in rows):
        seen = None if value is None else instant_text(T0 + int(value))
        plain.execute("INSERT INTO s VALUES (?, ?, ?, ?, ?)", ("abc"[code], at(time), value, seen, bool(value)))
    values = {n: v for n, v in {"a": at(a), "b": at(b), "key": key}.items() if f":{n}" in question}
    wanted = plain.execute(question, values).fetchall()
    plain.close()
    assert sorted(map(repr, ask(where, question, values))) == sorted(map(repr, wanted))


@given(rows_of_frames, st.booleans(), st.integers(1, 30))
def test_in_the_order_of_time(frames: list[list[Row]], descending: bool, limit: int) -> None:
    """Read in that order, a little at a time: the last ten rows do not cost the whole history."""
    where = source(frames)
    order = "DESC" if descending else "ASC"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sql_tables, "FIRST_PAGE", 2)
        got = ask(where, f"SELECT time, value FROM s ORDER BY time {order} LIMIT {limit}")
    numbered = sorted(((t, i, v) for i, (t, _, v) in enumerate(r for rows in frames for r in rows)), reverse=descending)
    assert got == [(at(t), v) for t, _, v in numbered[:limit]]


def test_the_last_rows_do_not_cost_all() -> None:
    where = source([[(t, 0, 1.0)] for t in range(200)])
    read: list[history.Part] = []
    with pytest.MonkeyPatch.context() as patch:
        before = history.read

        def counted(db: apsw.Connection, part: history.Part, *more: Any) -> Frame:
            read.append(part)
            return before(db, part, *more)

        patch.setattr(history, "read", counted)
        patch.setattr(sql_tables, "FIRST_PAGE", 10)
        assert ask(where, "SELECT time FROM s WHERE id = 'a' ORDER BY time DESC LIMIT 3") == [
            (at(199),),
            (at(198),),
            (at(197),),
        ]
        assert len(read) < 20
        read.clear()
        assert ask(where, "SELECT count(*) FROM s WHERE time >= ? AND time < ?", (at(50), at(60))) == [(10,)]
        assert len(read) == 10


# --- times ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "time",
    [
        "'2026-01-31T12:00:05Z'",
        "'2026-01-31T12:00:05.000Z'",
        "'2026-01-31T12:00:05.000000000Z'",
        "'2026-01-31T13:00:05+01:00'",
        "'2026-01-31 12:00:05'",
        "1769860805",
        "1769860805000",
        "1769860805.0",
    ],
)
def test_a_time_may_be_written_in_any_way(time: str) -> None:
    """Also where SQLite compares, not we."""
    where = source([[(t, 0, float(t)) for t in range(10)]])
    assert ask(where, f"SELECT value FROM s WHERE time = {time}") == [(5.0,)]
    assert len(ask(where, f"SELECT value FROM s WHERE time >= {time}")) == 5
    assert len(ask(where, f"SELECT value FROM s WHERE time > {time}")) == 4
    assert len(ask(where, f"SELECT value FROM s WHERE time <= {time}")) == 6
    assert len(ask(where, f"SELECT value FROM s WHERE time < {time}")) == 5
    if time.startswith("'"):
        assert len(ask(where, f"SELECT value FROM s WHERE NOT (time < {time})")) == 5


def test_functions_of_time() -> None:
    where = source([[(t, 0, float(t)) for t in range(0, 20, 5)]])
    assert ask(where, "SELECT now(), ago('1h'), ago('90 s'), ago(NULL)") == [(at(3600), at(0), at(3510), None)]
    buckets = "SELECT time_bucket('10 s', time) AS t, sum(value) FROM s GROUP BY t ORDER BY t"
    assert ask(where, buckets) == [(at(0), 5.0), (at(10), 25.0)]
    assert ask(where, "SELECT time_bucket('1 d', '2026-01-31T23:00:00-02:00'), time_bucket('1 h', NULL)") == [
        ("2026-02-01T00:00:00.000Z", None)
    ]
    assert ask(where, "SELECT time_bucket('1 min', -1)") == [("1969-12-31T23:59:00.000Z",)]
    assert ask(where, "SELECT count(*) FROM s WHERE time >= ago('3590 s')") == [(2,)]
    assert ask(where, "SELECT strftime('%H:%M', max(time)) FROM s") == [("12:00",)]


def test_a_corrected_window_is_one_row() -> None:
    where = source([])
    start = np.array([0, 60, 0]) * S + T0
    columns = {"start": Column(start), "revision": Column(np.array([0, 0, 1])), "n": Column(np.array([1, 2, 3]))}
    frame = Frame(start + 60 * S, np.zeros(3, np.int32), np.arange(3), columns, NO_PROGRESS)
    history.put(where.db, 0, "w", frame, journal=False, history=True)
    assert sorted(ask(where, "SELECT n FROM w")) == [(2,), (3,)]


def test_names_that_sql_takes_for_one() -> None:
    """A stream or a field that differs from another only by case gets a number; a dot needs quotes."""
    assert sql.ask(source([]), 'SELECT * FROM "in.invalid"', (), 10, NOW).columns == ["time", "Raw", "raw_2"]
    assert sql.ask(source([]), "SELECT 1, 1 WHERE 0", (), 10, NOW) == (["1", "1_2"], [], False)


# --- what is refused ------------------------------------------------------------------------------------------------

HOSTILE = [
    "DELETE FROM s",
    "INSERT INTO s (id) VALUES ('x')",
    "INSERT INTO s (s) VALUES ('rebuild')",
    "UPDATE s SET value = 1",
    "DROP TABLE s",
    "CREATE TABLE x (a)",
    "CREATE TEMP TABLE x (a)",
    "CREATE TEMP VIEW x AS SELECT 1",
    "CREATE TEMP TRIGGER x INSTEAD OF INSERT ON s BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE x USING history('frames')",
    "CREATE VIRTUAL TABLE x USING fts5(a)",
    "ATTACH 'x' AS y",
    "ATTACH ':memory:' AS y",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO '/tmp/x'",
    "PRAGMA table_info(s)",
    "PRAGMA writable_schema = 1",
    "PRAGMA temp_store_directory = '/'",
    "PRAGMA hard_heap_limit = 1",
    "BEGIN",
    "COMMIT",
    "SAVEPOINT a",
    "ANALYZE",
    "REINDEX",
    "SELECT load_extension('x')",
    "SELECT writefile('x', 'y')",
    "SELECT readfile('/etc/passwd')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT randomblob(1000000000)",
    "SELECT zeroblob(1000000000)",
    "SELECT printf('%.*c', 1000000000, 'x')",
    "SELECT replace(printf('%.*c', 900000, 'x'), 'x', 'xxxxxxxxxx')",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM sqlite_schema",
    "SELECT * FROM sqlite_temp_schema",
    "SELECT * FROM main.sqlite_master",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM pragma_function_list",
    "SELECT * FROM json_each('[1]')",
    "SELECT * FROM dbstat",
    "SELECT * FROM bytecode('SELECT 1')",
    "SELECT * FROM frames",
    "SELECT * FROM chunks",
    "SELECT * FROM dead",
    "SELECT 1; DROP TABLE s",
    "SELECT 1; SELECT 2",
    "SELECT 1;;; SELECT 2",
    "",
    ";",
    "-- nothing",
    "/*",
    "SELECT 'a",
    "SELECT char(55296)",
    "SELECT sqlite_version()",
    "SELECT a.b.c.d FROM s",
    "(" * 5_000,
    "SELECT " + "-" * 200 + "1",
    "SELECT " + "1," * 2_000 + "1",
    "SELECT 1 " + "UNION SELECT 1 " * 200,
    "SELECT '" + "x" * 70_000 + "'",
    "SELECT time_bucket('0 s', time) FROM s",
    "SELECT time_bucket('a while', time) FROM s",
    "SELECT time_bucket('99999999 d', time) FROM s",
    "SELECT ago('-1h')",
    "SELECT ago(5)",
    "SELECT ago()",
    "SELECT * FROM s WHERE time > 'yesterday'",
    "SELECT * FROM s WHERE time > 1e300",
    "SELECT ?",
    "SELECT \x00 1",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda t: t[:40])
def test_what_is_not_a_question_is_refused_in_words(text: str) -> None:
    with pytest.raises(Unanswerable) as told:
        ask(source([[(1, 0, 1.0)]]), text)
    assert 0 < len(str(told.value)) < 1_000


ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r)"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{ENDLESS} SELECT count(*) FROM r", "takes longer"),
        ("SELECT count(*) FROM s a, s b, s c, s d, s e, s f, s g", "takes longer"),
        (f"{ENDLESS} SELECT printf('%.*c', 10000, 'x') AS t FROM r ORDER BY t DESC", "memory"),
    ],
)
def test_what_takes_too_much_is_ended(text: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "SECONDS", 0.3 if why == "takes longer" else 30.0)
    monkeypatch.setattr(sql, "MEMORY", 10_000_000)
    with pytest.raises(Unanswerable, match=why):
        ask(source([[(t, 0, 1.0) for t in range(50)]]), text)


def test_reading_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time that passes within one step of SQLite is looked at between the pieces of the history."""
    monkeypatch.setattr(sql, "SECONDS", -1.0)
    with pytest.raises(Unanswerable, match="takes longer"):
        ask(source([[(1, 0, 1.0)]]), "SELECT value FROM s")


def test_an_answer_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    where = source([[(t, 0, 1.0) for t in range(50)]])
    cut = sql.ask(where, "SELECT value FROM s", (), 10, NOW)
    assert (len(cut.rows), cut.truncated) == (10, True)
    assert sql.ask(where, "SELECT value FROM s", (), 50, NOW).truncated is False
    monkeypatch.setattr(sql, "MOST_BYTES", 5_000)
    cut = sql.ask(where, "SELECT printf('%.*c', 1000, 'x') FROM s", (), 50, NOW)
    assert (len(cut.rows), cut.truncated) == (4, True)


@given(st.text(max_size=60) | st.text("SELECT FROMs*();'\"valueidtm,0123456789<>=-", max_size=60))
def test_any_text_is_answered_or_refused(text: str) -> None:
    with contextlib.suppress(Unanswerable):
        ask(source([]), text)


@given(st.lists(st.none() | st.integers() | st.floats() | st.text(max_size=5), max_size=3))
def test_any_parameters_are_taken_or_refused(values: list[Any]) -> None:
    with contextlib.suppress(Unanswerable):
        ask(source([]), "SELECT ?, ?", values)
