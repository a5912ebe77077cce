"""`headwater query STREAM [FILE]` and `headwater query --sql "SELECT …" [FILE]`: the history of a pipeline, running or not."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.command.usage import add_format

if TYPE_CHECKING:
    from collections.abc import Callable

    import apsw

    from pipeline.component import Table
    from pipeline.config import Config
    from pipeline.graph import Graph

WIDEST = 60  # characters of a column of the table


EXAMPLES = (
    "headwater query ten_seconds --key s1 --from -1h",
    "headwater query ten_seconds --from -1d --format csv > day.csv",
    'headwater query --sql "SELECT id, max(most) FROM ten_seconds GROUP BY id"',
)
STATUS = {
    2: "wrong usage, a pipeline file with problems, or a question that cannot be answered",
    3: "there is no history, or it cannot be read",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = '%(prog)s STREAM [FILE] [--key K] [--from T] [--to T] …\n       %(prog)s --sql "SELECT …" [FILE]'
    parser.add_argument("words", nargs="*", metavar="[STREAM] [FILE]", help="FILE: default pipeline.toml")
    parser.add_argument("--sql", metavar="SELECT", help="a question in SQL; each stream is a table")
    parser.add_argument("--key", action="append", help="only this key; may be repeated")
    parser.add_argument("--from", dest="start", metavar="T", help="from this time on: 2026-01-31T12:00:00Z, -1h")
    parser.add_argument("--to", dest="end", metavar="T", help="before this time")
    parser.add_argument("--fields", help="only these, with commas")
    parser.add_argument("--limit", type=int, help="at most so many rows (default: the 100 newest; with --sql 10,000)")
    parser.add_argument("--points", type=int, help="instead of --limit: the rows that a chart so wide needs")
    parser.add_argument("--revisions", choices=("newest", "all"), default="newest", help="of corrected windows")
    add_format(parser, "table", "csv", "json", "arrow")


def main(options: argparse.Namespace) -> int:
    from pipeline import arrow
    from pipeline.component import Unanswerable
    from pipeline.run import check
    from pipeline.web import HttpProblem

    words: list[str] = options.words
    if len(words) > 2 or (options.sql is not None and len(words) > 1) or (options.sql is None and not words):
        print("headwater query: give a STREAM or --sql, then at most one FILE (--help shows how)", file=sys.stderr)
        return 2
    for name in ("limit", "points"):
        if (value := getattr(options, name)) is not None and value < 1:
            print(f"headwater query: --{name} is at least 1", file=sys.stderr)
            return 2
    file = words[-1] if len(words) == 2 or (options.sql is not None and words) else "pipeline.toml"
    if options.format == "arrow" and not arrow.is_there():
        print(f"headwater query: --format arrow {arrow.MISSING}", file=sys.stderr)
        return 2
    config, graph = check(Path(file))
    try:
        found = _answer(config, graph, options)
    except (Unanswerable, HttpProblem) as error:
        print(f"headwater query: {error}", file=sys.stderr)
        return 2
    except _Unreadable as error:
        print(error, file=sys.stderr)
        return 3
    _show(found, options.format)
    if found.table.truncated:
        print("there are more rows: --limit, or a shorter time", file=sys.stderr)
    return 0


class _Unreadable(Exception):
    pass


class _Found(NamedTuple):
    table: Table
    as_arrow: Callable[[], bytes]


def _answer(config: Config, graph: Graph, options: argparse.Namespace) -> _Found:
    import apsw

    from pipeline.frame import KeyTable
    from pipeline.journal import look, state

    folder = config.pipeline.state
    if not look.database(folder).exists():
        raise _Unreadable(f"{folder} holds no history: nothing has run there yet")
    try:
        db = look.connect(folder)
        try:
            keys = KeyTable()
            keys.load(state.keys(db))
            return _by_sql(db, graph, keys, options) if options.sql is not None else _rows(db, graph, keys, options)
        finally:
            db.close()
    except apsw.Error as error:
        raise _Unreadable(f"{folder} cannot be read: {error} (`headwater doctor` looks at it)") from error


def _by_sql(db: apsw.Connection, graph: Graph, keys: Any, options: argparse.Namespace) -> _Found:
    from pipeline import arrow
    from pipeline.clock import RealClock
    from pipeline.journal import sql, sql_tables

    source = sql_tables.Source(db, graph.streams, keys.names, keys.get)
    table = sql.ask(source, options.sql, (), options.limit or sql.MOST_ROWS, RealClock().wall())
    return _Found(table, lambda: arrow.of_table(table))


def _rows(db: apsw.Connection, graph: Graph, keys: Any, options: argparse.Namespace) -> _Found:
    """The newest where no span and no chart is asked for; by time."""
    from pipeline import arrow
    from pipeline.clock import RealClock
    from pipeline.component import RowsQuery, Table, Unanswerable
    from pipeline.frame import rows
    from pipeline.journal import history, points
    from pipeline.problem import did_you_mean
    from sinks.query_server.questions import parse_time

    stream = options.words[0]
    if stream not in graph.streams:
        raise Unanswerable(f'there is no stream "{stream}"{did_you_mean(stream, graph.streams)}')
    schema = graph.streams[stream]
    chosen = [name for name in (options.fields or "").split(",") if name]
    for name in chosen:
        if name not in schema.names():
            raise Unanswerable(f'"{stream}" has no field "{name}"{did_you_mean(name, schema.names())}')
    shown = schema._replace(fields={n: schema.fields[n] for n in chosen if n in schema.fields}) if chosen else schema
    start, end = (
        None if text is None else parse_time(name, text, RealClock())
        for name, text in (("--from", options.start), ("--to", options.end))
    )
    codes = None if options.key is None else [code for key in options.key if (code := keys.get(key)) is not None]
    limit = options.limit or 100
    windows = schema.role == "windows" and {"start", "revision"} <= schema.fields.keys()
    corrected = windows and options.revisions == "newest"
    newest = start is None
    query = RowsQuery(stream, None, start, end, limit + 1, newest, corrected, options.points or 0, tuple(shown.fields))
    if query.points:
        frame, more = points.rows(db, query, schema, codes), False
    else:
        frame = history.rows(db, query, schema, codes)
        more = len(frame) > limit
        frame = frame.take(slice(0, limit))
    if newest:
        frame = frame.take(slice(None, None, -1))
    columns = [*([schema.key] if schema.key else []), "time", *shown.fields]
    told = [tuple(row.values()) for row in rows(frame, shown, keys.names)]
    table = Table(columns, told, more and options.limit is not None)
    return _Found(table, lambda: arrow.of_frame(frame, shown, keys.names))


# --- how it is shown ------------------------------------------------------------------------------------------------


def _show(found: _Found, form: str) -> None:
    import orjson

    table = found.table
    if form == "arrow":
        sys.stdout.buffer.write(found.as_arrow())
        return
    if form == "json":
        shown = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        print(orjson.dumps({"columns": table.columns, "rows": shown, "truncated": table.truncated}).decode())
        return
    if form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows([_text(value) for value in row] for row in table.rows)
        return
    lines = [table.columns, *([_fit(_text(value)) for value in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [_is_number(column) for column in zip(*table.rows, strict=True)] or [False] * len(widths)
    for line in lines:
        cells = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        print("  ".join(cells).rstrip())
    if not table.rows:
        print("no rows")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _fit(text: str) -> str:
    """On one line, and not so long that it pushes all others away."""
    text = "".join(c if c.isprintable() else "·" for c in text)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _is_number(column: tuple[Any, ...]) -> bool:
    return all(isinstance(value, (int, float, type(None))) and not isinstance(value, bool) for value in column)
