"""The postgres sink against a real PostgreSQL: each row once, and a row that is refused costs only itself."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest
import pytest_asyncio

from pipeline.component import Batch, SinkContext
from pipeline.frame import NO_PROGRESS, SECOND, Field, Frame, KeyTable, Schema, column
from pipeline.quantity import Secret, duration
from pipeline.thin import thin
from sinks.postgres import Postgres, PostgresSettings
from tests.peers import postgres
from tests.sinks.rig import rig
from tests.waiting import eventually

pytestmark = [
    pytest.mark.skipif(postgres.version() is None, reason="PostgreSQL is not there"),
    pytest.mark.asyncio(loop_scope="module"),
]

FIELDS = {
    "value": Field("float", True),
    "n": Field("int", True),
    "on": Field("bool", True),
    'na"me': Field("string", True),
    "since": Field("time", True),
}
SCHEMAS = {
    "readings": Schema("id", FIELDS),
    "windows": Schema(
        "id", {"start": Field("time"), "revision": Field("int"), "mean": Field("float", True)}, "windows"
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[postgres.Postgres]:
    made = postgres.Postgres()
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def db(server: postgres.Postgres) -> AsyncIterator[Any]:
    """A connection of the test's own to an empty database."""
    connection = await asyncpg.connect(server.url, password=postgres.PASSWORD)
    await connection.execute(
        "DROP SCHEMA IF EXISTS public CASCADE; DROP SCHEMA IF EXISTS plant CASCADE; CREATE SCHEMA public"
    )
    yield connection
    await connection.close()


def sink(server: postgres.Postgres, schemas: dict[str, Schema] | None = None, **more: Any) -> Postgres:
    context = SinkContext("warehouse", schemas or SCHEMAS, KeyTable(["a", 'b"; DROP TABLE x; --']))
    given: dict[str, Any] = {"url": server.url, "password": Secret(postgres.PASSWORD), **more}
    made = Postgres(PostgresSettings(**given), context)
    assert context.problems == []
    return made


def readings(*names: str | None, value: float = 1.5, start: int = 0) -> Frame:
    n = np.arange(len(names), dtype=np.int64)
    columns = {
        "value": column("float", [value] * len(names)),
        "n": column("int", n.tolist()),
        "on": column("bool", [True] * len(names)),
        'na"me': column("string", names),
        "since": column("time", [None] * len(names)),
    }
    return Frame(start + n * SECOND, (n % 2).astype(np.int32), n, columns, NO_PROGRESS)


def window(mean: float, revision: int = 0, start: int = 0) -> Frame:
    n = np.zeros(1, np.int64)
    columns = {
        "start": column("time", [start]),
        "revision": column("int", [revision]),
        "mean": column("float", [mean]),
    }
    return Frame(n, n.astype(np.int32), n, columns, NO_PROGRESS)


@asynccontextmanager
async def delivering(made: Postgres) -> AsyncIterator[Any]:
    """Hands it batches; closes it."""

    async def deliver(*parts: tuple[str, Frame], key: str | None = None) -> Any:
        return await made.deliver(Batch(key or str(uuid.uuid4()), list(parts), 1))

    try:
        yield deliver
    finally:
        await made.close()


async def test_rows_become_rows(tmp_path: Path, server: postgres.Postgres, db: Any) -> None:
    """A table for each stream, a column for each field with the type that fits; no name is more than a name."""
    async with rig(tmp_path, sink(server)) as r:
        await r.put("readings", readings("x", None, start=1_700_000_000_123_456_789))
        await r.put("windows", window(2.5, start=SECOND))
        await r.until(sent=3, waiting=0)
    rows = [dict(row) for row in await db.fetch("SELECT * FROM readings ORDER BY time")]
    at = datetime(2023, 11, 14, 22, 13, 20, 123456, UTC)
    assert rows[0] == {"id": "a", "time": at, "value": 1.5, "n": 0, "on": True, 'na"me': "x", "since": None}
    assert (rows[1]["id"], rows[1]['na"me']) == ('b"; DROP TABLE x; --', None)
    assert dict(await db.fetchrow("SELECT * FROM windows"))["start"] == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    types = await db.fetch(
        "SELECT attname, format_type(atttypid, NULL) AS t FROM pg_attribute "
        "WHERE attrelid = 'readings'::regclass AND attnum > 0"
    )
    assert {row["attname"]: row["t"] for row in types} == {
        "id": "text",
        "time": "timestamp with time zone",
        "value": "double precision",
        "n": "bigint",
        "on": "boolean",
        'na"me': "text",
        "since": "timestamp with time zone",
    }


async def test_numbers_stay_what_they_are(server: postgres.Postgres, db: Any) -> None:
    """To the last bit; NaN and infinity are values."""
    async with delivering(sink(server)) as deliver:
        for value in (0.1, float("inf"), float("nan"), -0.0, 5e-324):
            await deliver(("readings", readings("x", value=value)))
    found = [row["value"] for row in await db.fetch("SELECT value FROM readings")]
    assert list(map(repr, found)) == ["0.1", "inf", "nan", "-0.0", "5e-324"]


async def test_a_batch_that_was_stored_is_not_stored_again(server: postgres.Postgres, db: Any) -> None:
    """The answer was lost: the retry has the same key. Equal rows of another batch are others."""
    async with delivering(sink(server)) as deliver:
        for key in ("one", "one", "two"):
            assert (await deliver(("readings", readings("x", "y")), key=key)).delivered
    assert await db.fetchval("SELECT count(*) FROM readings") == 4


async def test_a_row_that_is_refused_costs_only_itself(tmp_path: Path, server: postgres.Postgres, db: Any) -> None:
    """By a constraint, a trigger, or because text cannot hold it; with PostgreSQL's words."""
    await db.execute(
        "CREATE TABLE readings (id text, time timestamptz, value float, n int CHECK (n <> 3), "
        '"on" bool, "na""me" varchar(5), since timestamptz)'
    )
    async with rig(tmp_path, sink(server)) as r:
        await r.put("readings", readings("1", "2\0", "3", "4", "5 is too long", "6"))
        await r.until(sent=3, failed=3, waiting=0)
        letters = {row["n"]: reason for reason, row in await r.letters()}
    async with delivering(sink(server)) as deliver:
        outcome = await deliver(("windows", window(1.0)), ("readings", readings("x", "too long", "y")))
    assert list(outcome.rejected) == [2]  # by its place in the batch
    assert [row["n"] for row in await db.fetch("SELECT n FROM readings ORDER BY n")] == [0, 0, 2, 2, 5]
    assert "invalid byte sequence" in letters[1]
    assert "readings_n_check" in letters[3]
    assert "too long" in letters[4]


async def test_a_changed_pipeline_adds_its_columns(server: postgres.Postgres, db: Any) -> None:
    """Also where another process made the table meanwhile; the rows of before have none."""
    async with delivering(sink(server)) as deliver:
        await deliver(("readings", readings("x")))
    more = {"readings": Schema("id", {**FIELDS, "new": Field("string")})}
    async with delivering(sink(server, more)) as deliver:
        frame = readings("y").with_columns({"new": column("string", ["z"])})
        assert (await deliver(("readings", frame))).rejected == {}
    rows = await db.fetch('SELECT "na""me" AS name, new FROM readings ORDER BY 1')
    assert [tuple(row) for row in rows] == [("x", None), ("y", "z")]


async def test_thinned_rows_are_stored_with_what_they_stand_for(server: postgres.Postgres, db: Any) -> None:
    """A whole number that has become a mean gets a column that can hold it."""
    async with delivering(sink(server)) as deliver:
        await deliver(("readings", readings("x")))
        one_key = readings("a", "b", "c", "d")
        one_key = Frame(one_key.time, np.zeros(4, np.int32), one_key.seq, one_key.columns, NO_PROGRESS)
        thinned = thin(one_key, SCHEMAS["readings"], 1)
        outcome = await deliver(("readings", thinned))
        assert (outcome.delivered, outcome.rejected) == (True, {})
    rows = [
        tuple(row)
        for row in await db.fetch("SELECT n, thinned, n_max FROM readings WHERE thinned IS NOT NULL ORDER BY n")
    ]
    assert rows == [(1.5, 4, 3)]


async def test_a_correction_takes_the_place_of_the_window(server: postgres.Postgres, db: Any) -> None:
    """Within a batch and over batches; streams without these columns are as ever."""
    async with delivering(sink(server, replace=("id", "start"))) as deliver:
        await deliver(
            ("windows", window(1.0)), ("windows", window(9.0, start=SECOND)), ("readings", readings("x", "x"))
        )
        twice = np.array([0, 0])
        first = window(2.0, 1)
        both = first.take(twice).with_columns({"revision": column("int", [1, 2]), "mean": column("float", [2.0, 3.0])})
        assert (await deliver(("windows", both))).rejected == {}
    rows = await db.fetch("SELECT mean, revision FROM windows ORDER BY start")
    assert [tuple(row) for row in rows] == [(3.0, 2), (9.0, 0)]
    assert await db.fetchval("SELECT count(*) FROM readings") == 2


async def test_nothing_is_made_that_nobody_asked_for(server: postgres.Postgres, db: Any) -> None:
    """Without `create` the rows wait until the table is there, and its columns."""
    await db.execute("CREATE TABLE headwater_batches (key text PRIMARY KEY, at timestamptz DEFAULT now())")
    async with delivering(sink(server, create=False)) as deliver:
        outcome = await deliver(("readings", readings("x")), key="k")
        assert (outcome.delivered, outcome.refused) == (False, False)
        assert 'relation "public.readings" does not exist' in outcome.reason
        await db.execute('CREATE TABLE readings (id text, time timestamp, value float, n int, "on" bool)')
        assert 'column "na"me" does not exist' in (await deliver(("readings", readings("x")), key="k")).reason
        await db.execute('ALTER TABLE readings ADD COLUMN "na""me" text, ADD COLUMN since timestamptz')
        assert (await deliver(("readings", readings("x")), key="k")).delivered
    assert await db.fetchval("SELECT time FROM readings") == datetime(1970, 1, 1)  # noqa: DTZ001 - the column has no zone


async def test_schema_and_tables_may_be_named(server: postgres.Postgres, db: Any) -> None:
    settings: dict[str, Any] = {"schema": "plant", "tables": {"readings": 'a"; DROP TABLE t; --'}}
    async with delivering(sink(server, **settings)) as deliver:
        assert (await deliver(("readings", readings("x")))).delivered
    assert await db.fetchval('SELECT count(*) FROM plant."a""; DROP TABLE t; --"') == 1


async def test_with_timescale_a_new_table_is_a_hypertable(server: postgres.Postgres, db: Any) -> None:
    """A function of Timescale's name and parameters stands for it here."""
    await db.execute(
        """CREATE TABLE made (name text, at text);
        CREATE FUNCTION create_hypertable(relation regclass, time_column_name name, if_not_exists boolean DEFAULT false)
        RETURNS void LANGUAGE sql AS 'INSERT INTO made VALUES (relation::text, time_column_name)'"""
    )
    async with delivering(sink(server)) as deliver:
        for _ in range(2):
            assert (await deliver(("readings", readings("x")))).delivered
    assert [tuple(row) for row in await db.fetch("SELECT * FROM made")] == [("readings", "time")]


async def test_it_comes_back(tmp_path: Path, server: postgres.Postgres) -> None:
    """PostgreSQL is gone in the middle and there again; each row is there once."""
    async with rig(tmp_path, sink(server, tables={"readings": "kept"})) as r:
        await r.put("readings", readings("x", "y"))
        await r.until(sent=2)
        await server.stop()
        await r.put("readings", readings("z"))
        await r.until(state="retrying")
        assert "127.0.0.1" in (await r.status())["last_error"]
        await server.start()
        await r.until(sent=3, waiting=0)
    connection = await asyncpg.connect(server.url, password=postgres.PASSWORD)
    assert await connection.fetchval("SELECT count(*) FROM kept") == 3
    await connection.close()


async def test_a_wrong_password_is_told_and_not_shown(tmp_path: Path, server: postgres.Postgres) -> None:
    async with rig(tmp_path, sink(server, password=Secret("wrong-7261"))) as r:
        await r.put("readings", readings("x"))
        await r.until(state="retrying")
        told = (await r.status())["last_error"]
    assert "password authentication failed" in told
    assert "wrong-7261" not in told


async def test_a_transaction_that_was_left_open_holds_nothing_up_for_long(server: postgres.Postgres, db: Any) -> None:
    """A connection that was lost half-way has the key of the batch: its end is not waited for by hours."""
    made = sink(server, timeout=duration("3 s"))
    lost = sink(server, timeout=duration("3 s"))
    async with delivering(made) as deliver, delivering(lost) as other:

        async def had() -> bool:
            return (await other(("readings", readings("x")), key="before")).delivered and lost._connection is not None

        async def taken() -> bool:
            return (await deliver(("readings", readings("y")), key="k")).delivered

        await eventually(had)
        assert lost._connection is not None
        await lost._connection.execute("BEGIN; INSERT INTO headwater_batches VALUES ('k')")
        await eventually(taken)
    assert await db.fetchval("SELECT count(*) FROM readings") == 2


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({"url": "mysql://x"}, "url"),
        ({"url": "postgresql://x:port/"}, "url"),
        ({"tables": {"other": "x"}}, "tables.other"),
        ({"tables": {"readings": "x" * 51}}, "tables.readings"),
        ({"tables": {"readings": "headwater_batches"}}, "tables.readings"),
        ({"tables": {"readings": "windows"}}, "tables"),
        ({"replace": ("id", "strat")}, "replace"),
        ({"schema": ""}, "schema"),
    ],
)
async def test_wrong_settings(given: dict[str, Any], setting: str) -> None:
    context = SinkContext("warehouse", SCHEMAS, KeyTable())
    Postgres(PostgresSettings(**{"url": "postgresql://db/x", **given}), context)
    assert [where for where, _ in context.problems] == [setting]
