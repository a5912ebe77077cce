"""The same readings in other tables, for benchmarks/history.py: SQLite with a row a reading, DuckDB over a Parquet file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import apsw

ROW_GROUP = 122_880  # rows: what DuckDB itself would write
_EXTREMES = (
    "SELECT (time - {start}) / {width}, min(time), max(time), min(temperature), max(temperature) FROM {table}"
    " WHERE key = {key} AND time >= {start} AND time < {end} GROUP BY 1"
)


class Table(Protocol):
    name: str
    held: int  # bytes
    counted: bool  # what it writes goes through the counting VFS

    def extremes(self, key: int, start: int, end: int, width: int) -> list[Any]: ...

    def close(self) -> None: ...


Make = Callable[[Path, Iterable[Any]], Table | None]


class SQLite:
    name = "SQLite"
    counted = True

    def __init__(self, folder: Path, minutes: Iterable[Any]) -> None:
        self.db = apsw.Connection(str(folder / "rows.db"), vfs="counted")
        self.db.pragma("journal_mode", "wal")
        self.db.pragma("synchronous", "full")
        self.db.execute("CREATE TABLE r (key INTEGER, time INTEGER, temperature REAL, humidity REAL)")
        self.db.execute("CREATE INDEX r_by_key ON r (key, time)")
        insert = "INSERT INTO r (time, key, temperature, humidity) VALUES (?, ?, ?, ?)"
        for minute in minutes:
            with self.db:
                self.db.executemany(insert, zip(*(column.tolist() for column in minute), strict=True))
        self.held = int(self.db.pragma("page_count") * self.db.pragma("page_size"))

    def extremes(self, key: int, start: int, end: int, width: int) -> list[Any]:
        return list(self.db.execute(_EXTREMES.format(table="r", key=key, start=start, end=end, width=width)))

    def close(self) -> None:
        self.db.close()


def duckdb_over_parquet(folder: Path, minutes: Iterable[Any]) -> Table | None:
    """None: it is not installed here."""
    if not all(importlib.util.find_spec(name) for name in ("duckdb", "pyarrow")):
        print("DuckDB: pip install duckdb pyarrow")
        return None
    return DuckDB(folder, minutes)


class DuckDB:
    name = "DuckDB"
    counted = False

    def __init__(self, folder: Path, minutes: Iterable[Any]) -> None:
        import duckdb
        import pyarrow as pa
        from pyarrow import parquet

        file = folder / "rows.parquet"
        names = ("time", "key", "temperature", "humidity")
        writer: Any = None
        waiting: list[Any] = []
        for minute in minutes:
            waiting.append(pa.record_batch(list(minute), names=list(names)))
            writer = writer or parquet.ParquetWriter(file, waiting[0].schema, compression="zstd")
            if sum(batch.num_rows for batch in waiting) >= ROW_GROUP:
                writer.write_table(pa.Table.from_batches(waiting), row_group_size=2 * ROW_GROUP)
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting), row_group_size=2 * ROW_GROUP)
        writer.close()
        self.held = file.stat().st_size
        self.table = f"read_parquet('{file}')"
        self.db: Any = duckdb.connect()
        self.db.execute("SET enable_object_cache = true")

    def extremes(self, key: int, start: int, end: int, width: int) -> list[Any]:
        sql = _EXTREMES.replace("}) / {", "}) // {").format(
            table=self.table, key=key, start=start, end=end, width=width
        )
        return list(self.db.execute(sql).fetchall())

    def close(self) -> None:
        self.db.close()
