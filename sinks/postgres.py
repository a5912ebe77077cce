"""`postgres`: rows into the tables of a PostgreSQL, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg
from msgspec import Meta

from pipeline import tls as tls_settings
from pipeline.component import Batch, Outcome, SinkContext
from pipeline.delivering import BatchSettings, DeliveringSettings, DeliveringSink, guilty
from pipeline.frame import Column, Frame, Ints
from pipeline.http_peer import shown as shown_url
from pipeline.quantity import Duration, Secret, duration
from pipeline.thin import shown
from pipeline.tls import TlsSettings, client_context

TYPES = {
    "float": "double precision",
    "int": "bigint",
    "bool": "boolean",
    "string": "text",
    "time": "timestamp with time zone",
}
LONGEST_NAME = 50  # bytes of a table's name: PostgreSQL cuts names at 63, and those of indexes begin with it
LONGEST_COLUMN = 63
LEDGER = "headwater_batches"  # the keys of the batches that were stored; kept for longer than a batch is ever tried
ROW_FAULTS = {"22", "23", "44", "P0"}  # classes of SQLSTATE: data, constraints, WITH CHECK OPTION, a trigger's own


class PostgresSettings(DeliveringSettings, frozen=True, kw_only=True):
    url: Annotated[str, Meta(description="postgresql://USER@HOST:PORT/DATABASE.")]
    password: Annotated[Secret | None, Meta(description="The user's password.")] = None
    tls: Annotated[
        TlsSettings | None, Meta(description="Whom to trust. Absent: encrypted if the server can, and not checked.")
    ] = None
    schema: Annotated[str, Meta(description="The schema of the tables.")] = "public"
    tables: Annotated[dict[str, str], Meta(description="The table of an input. Absent: as the input is called.")] = {}
    create: Annotated[bool, Meta(description="Make tables and columns that are not there.")] = True
    replace: Annotated[
        tuple[str, ...],
        Meta(description="Columns by which a row takes the place of an earlier one, such as key and start."),
    ] = ()
    timeout: Annotated[Duration, Meta(description="How long a batch may take.")] = duration("30 s")
    batch: Annotated[BatchSettings, Meta(description="How rows are put together.")] = BatchSettings(rows=1_000)


class _Rows(NamedTuple):
    """Rows of one stream as a table has them."""

    table: str
    columns: dict[str, str]  # name -> type
    key: str | None
    replace: tuple[str, ...]
    frame: Frame


class Postgres(DeliveringSink):
    """Store rows in tables of PostgreSQL (or TimescaleDB), one for each input.

        [sinks.warehouse]
        type = "postgres"
        inputs = ["ten_seconds", "overheat"]
        url = "postgresql://headwater@db.example.org/plant"
        password = "${PGPASSWORD}"

    Needs `pip install "headwater[postgres]"`. A table is called as its input ("." becomes "_") and has the key, `time`, and
    a column for each field: double precision, bigint, boolean, text, timestamptz (to the microsecond); missing is null.
    With `create` tables, columns that a changed pipeline adds and an index by key and time are made; whole numbers that get
    fractions (means of thinned rows) become double precision; where TimescaleDB is installed a new table is a hypertable.
    Without `create` they must be there, and so must headwater_batches (key text PRIMARY KEY, at timestamptz DEFAULT now()).
    Delivery: exactly once. A batch is one transaction (by COPY) with its Idempotency-Key in headwater_batches, so one that
    was stored and not answered is not stored again; keys are kept for 30 days. Rows that PostgreSQL refuses (a constraint, a
    trigger, a value that does not fit the column) are dead letters, and cost no other row. Anything else (it is away, a
    password, a missing table) is tried again with growing pauses.
    `replace = ["sensor_id", "start"]`: a row takes the place of one that is equal in these columns, so a window's correction
    replaces the window; for the inputs that have them all. They need a unique index, which `create` makes.
    At the limit (`buffer.when_full`): as for `cloud`.
    """

    def __init__(self, settings: PostgresSettings, context: SinkContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        self.shown_url = self._checked_url(settings.url)
        if settings.tls:
            tls_settings.check(settings.tls, context)
        self.tables = {stream: settings.tables.get(stream, stream.replace(".", "_")) for stream in context.inputs}
        self._check_names()
        has_all = {s for s, schema in context.inputs.items() if set(settings.replace) <= set(schema.names())}
        if settings.replace and not has_all:
            context.problem("replace", "no input has all of these fields")
        self.replace = dict.fromkeys(has_all, settings.replace)
        self._connection: asyncpg.Connection | None = None
        self._known: dict[str, dict[str, str]] = {}  # table -> its columns and their types, as of this connection

    def _checked_url(self, url: str) -> str:
        try:
            parts = urlsplit(url)
            right = parts.scheme in ("postgres", "postgresql") and parts.port != 0
        except ValueError:
            right = False
        if not right:
            self.context.problem("url", 'must be an address such as "postgresql://user@host:5432/database"')
            return ""
        return shown_url(url)

    def _check_names(self) -> None:
        problem = self.context.problem
        for stream in self.settings.tables.keys() - self.context.inputs.keys():
            problem(f"tables.{stream}", "is not an input of this sink")
        for stream, table in self.tables.items():
            if not 0 < len(table.encode()) <= LONGEST_NAME or "\0" in table or table == LEDGER:
                problem(f"tables.{stream}", f'"{table}" cannot be a table; give a name of {LONGEST_NAME} bytes at most')
            for name in self.context.inputs[stream].names():
                if len(name.encode()) > LONGEST_COLUMN or "\0" in name:
                    problem("inputs", f'"{name}" of "{stream}" cannot be a column: PostgreSQL takes 63 bytes at most')
        if len(set(self.tables.values())) < len(self.tables):
            problem("tables", "two inputs have the same table; name another for one of them")
        if not 0 < len(self.settings.schema.encode()) <= LONGEST_COLUMN or "\0" in self.settings.schema:
            problem("schema", "cannot be a schema")

    # --- a batch ---

    async def deliver(self, batch: Batch) -> Outcome:
        try:
            async with asyncio.timeout(self.settings.timeout.seconds):
                connection = await self._connected()
                await self._prepared(connection, batch)
                return Outcome(delivered=True, rejected=await self._stored(connection, batch))
        except TimeoutError:
            reason = f"{self.shown_url} did not answer within {self.settings.timeout}"
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            reason = f"{self.shown_url}: {str(error) or type(error).__name__}"
        await self.close()
        return Outcome(reason=reason)

    async def _stored(self, connection: asyncpg.Connection, batch: Batch) -> dict[int, str]:
        """One transaction; the rows that were refused."""
        rejected: dict[int, str] = {}
        async with connection.transaction():
            once = f"INSERT INTO {self._named(LEDGER)} (key) VALUES ($1) ON CONFLICT DO NOTHING RETURNING key"
            if await connection.fetchval(once, batch.key) is None:
                return {}  # it was stored before, and the answer was lost
            first = 0
            for stream, frame in batch.parts:
                rows = self._rows(stream, frame)
                refused = await self._some(connection, rows)
                rejected |= {first + i: why for i, why in refused.items()}
                first += len(frame)
        return rejected

    def _rows(self, stream: str, frame: Frame) -> _Rows:
        frame, schema = shown(frame, self.context.inputs.get(stream))
        columns = {schema.key: "text"} if schema.key else {}
        columns |= {"time": TYPES["time"], **{name: TYPES[field.kind] for name, field in schema.fields.items()}}
        table = self.tables.get(stream, stream.replace(".", "_")[:LONGEST_NAME])
        return _Rows(table, columns, schema.key, self.replace.get(stream, ()), frame)

    async def _some(self, connection: asyncpg.Connection, rows: _Rows) -> dict[int, str]:
        """The rows of a part into its table; those that were refused."""
        records = self._records(rows)
        names = list(rows.columns)
        by = [names.index(name) for name in rows.replace]

        async def take(some: Sequence[int]) -> str:
            chosen = [records[i] for i in some]
            try:
                async with connection.transaction():  # a savepoint: what it did before it failed is undone
                    if by:
                        await self._replaced(connection, rows, {tuple(r[i] for i in by): r for r in chosen})
                    else:
                        await self._copied(connection, rows.table, names, chosen)
            except asyncpg.DataError as error:  # of asyncpg itself, or of the server
                return _reason(error)
            except (asyncpg.InterfaceError, asyncpg.PostgresError) as error:
                if isinstance(error, ValueError) or (getattr(error, "sqlstate", None) or "")[:2] in ROW_FAULTS:
                    return _reason(error)
                raise
            return ""

        return await guilty(range(len(records)), take)

    async def _copied(
        self, connection: asyncpg.Connection, table: str, names: list[str], records: list[tuple[Any, ...]]
    ) -> None:
        await connection.copy_records_to_table(table, schema_name=self.settings.schema, columns=names, records=records)

    async def _replaced(self, connection: asyncpg.Connection, rows: _Rows, newest: dict[Any, tuple[Any, ...]]) -> None:
        """By way of a table of this transaction. Of rows for one place the last one is there."""
        names = list(rows.columns)
        listed = ", ".join(map(_quoted, names))
        target, stage = self._named(rows.table), "pg_temp.headwater_stage"
        await connection.execute(
            f"CREATE TEMP TABLE headwater_stage ON COMMIT DROP AS SELECT {listed} FROM {target} LIMIT 0"
        )
        await connection.copy_records_to_table("headwater_stage", columns=names, records=list(newest.values()))
        values = [name for name in names if name not in rows.replace]
        change = ", ".join(f"{_quoted(name)} = excluded.{_quoted(name)}" for name in values)
        places = ", ".join(map(_quoted, rows.replace))
        await connection.execute(
            f"INSERT INTO {target} ({listed}) SELECT {listed} FROM {stage} "
            f"ON CONFLICT ({places}) DO " + (f"UPDATE SET {change}" if change else "NOTHING")
        )
        await connection.execute(f"DROP TABLE {stage}")

    def _records(self, rows: _Rows) -> list[tuple[Any, ...]]:
        frame, has = rows.frame, self._known[rows.table]
        columns: list[list[Any]] = []
        for name, kind in rows.columns.items():
            if name == rows.key:
                keys = self.context.keys.names
                columns.append([keys[code] for code in frame.key.tolist()])
            elif kind == TYPES["time"]:
                column = Column(frame.time) if name == "time" else frame[name]
                columns.append(_datetimes(column, aware=has.get(name) != "timestamp without time zone"))
            else:
                columns.append(frame[name].tolist())
        return list(zip(*columns, strict=True))

    # --- tables ---

    async def _prepared(self, connection: asyncpg.Connection, batch: Batch) -> None:
        """The tables and columns that a batch needs are there."""
        for stream, frame in batch.parts:
            rows = self._rows(stream, frame)
            known = self._known.get(rows.table)
            if known is None:
                known = self._known[rows.table] = await self._columns(connection, rows.table)
            if self.settings.create and not known:
                await self._create(connection, rows)
            elif self.settings.create:
                await self._extend(connection, rows, known)
            self._known[rows.table] |= {} if known else rows.columns

    async def _columns(self, connection: asyncpg.Connection, table: str) -> dict[str, str]:
        found = await connection.fetch(
            "SELECT attname, format_type(atttypid, NULL) AS type FROM pg_attribute "
            "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
            self._named(table),
        )
        return {row["attname"]: row["type"] for row in found}

    async def _create(self, connection: asyncpg.Connection, rows: _Rows) -> None:
        table = self._named(rows.table)
        columns = ", ".join(f"{_quoted(name)} {kind}" for name, kind in rows.columns.items())
        async with connection.transaction():
            await connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
            by = [*([rows.key] if rows.key else []), "time"]
            await self._index(connection, rows.table, "by_time", by)
            if rows.replace:
                await self._index(connection, rows.table, "replace", rows.replace, "UNIQUE")
            if await connection.fetchval(
                "SELECT 1 FROM pg_proc WHERE proname = 'create_hypertable' AND pg_function_is_visible(oid)"
            ):
                await connection.execute(
                    "SELECT create_hypertable($1::text::regclass, 'time', if_not_exists => TRUE)", table
                )

    async def _index(
        self, connection: asyncpg.Connection, table: str, name: str, columns: Sequence[str], kind: str = ""
    ) -> None:
        listed = ", ".join(map(_quoted, columns))
        named = _quoted(f"{table}_{name}")
        await connection.execute(f"CREATE {kind} INDEX IF NOT EXISTS {named} ON {self._named(table)} ({listed})")

    async def _extend(self, connection: asyncpg.Connection, rows: _Rows, known: dict[str, str]) -> None:
        """Columns that it lacks; and whole numbers that get fractions."""
        table = self._named(rows.table)
        for name, kind in rows.columns.items():
            if name not in known:
                await connection.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {_quoted(name)} {kind}")
            elif (known[name], kind) == ("bigint", "double precision"):
                await connection.execute(f"ALTER TABLE {table} ALTER COLUMN {_quoted(name)} TYPE {kind}")
            else:
                continue
            known[name] = kind

    def _named(self, table: str) -> str:
        return f"{_quoted(self.settings.schema)}.{_quoted(table)}"

    # --- the connection ---

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        given = self.settings
        more: dict[str, Any] = {"ssl": client_context(given.tls, self.context.folder)} if given.tls else {}
        password = given.password.reveal() if given.password else None
        made = await asyncpg.connect(given.url, password=password, timeout=given.timeout.seconds, **more)
        self._connection, self._known = made, {}
        # What a connection that was lost left open must not hold up the batch for ever.
        await made.execute(f"SET idle_in_transaction_session_timeout = {int(given.timeout) // 1_000_000}")
        await made.execute(f"SET statement_timeout = {int(given.timeout) // 1_000_000}")
        if given.create:
            await made.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(given.schema)}")
            await made.execute(
                f"CREATE TABLE IF NOT EXISTS {self._named(LEDGER)} (key text PRIMARY KEY, at timestamptz DEFAULT now())"
            )
        await made.execute(f"DELETE FROM {self._named(LEDGER)} WHERE at < now() - interval '30 days'")
        return made

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()  # a farewell might wait for a peer that is gone
            self._connection = None


def _quoted(name: str) -> str:
    """An identifier that is nothing but that."""
    return '"' + name.replace('"', '""') + '"'


def _datetimes(column: Column, *, aware: bool) -> list[Any]:
    from datetime import UTC

    times: Ints = column.values
    whole = (times // 1_000).astype("datetime64[us]").tolist()
    made = [t.replace(tzinfo=UTC) for t in whole] if aware else whole
    return (
        made
        if column.present is None
        else [t if p else None for t, p in zip(made, column.present.tolist(), strict=True)]
    )


def _reason(error: Exception) -> str:
    detail = getattr(error, "detail", None)
    return f"{error}: {detail}" if detail else str(error)
