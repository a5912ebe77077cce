"""A running pipeline, asked from Python: rows as numpy columns, or as a frame of pandas or polars.

    from pipeline.client import Client

    device = Client("http://127.0.0.1:8080")
    table = device.rows("valid", key="s1", start="-1h")
    table["temperature"].mean(), table.pandas()

Nothing of the engine is needed here, and nothing beyond what Headwater needs itself: a notebook in the office may have it.
Where pyarrow is present, here and on the device, rows come as Arrow: a tenth of the work for both, or less (`headwater[arrow]`).

Exception
  Unanswered      the device refused, or could not be reached; `status` and `detail` are those of its problem
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import msgspec
import numpy as np
import orjson

from pipeline import api, arrow

if TYPE_CHECKING:
    import ssl

Moment = str | int | float | datetime  # "2026-01-31T12:00:00Z", "-1h", a number since 1970, or a datetime with its zone
Params = Sequence[str | int | float | None] | Mapping[str, str | int | float | None]

SILENT_S = 60.0  # a live answer says something every 15 s
AGAIN_S = 1.0  # before a live answer that broke off is asked for again
_KINDS: dict[str, str] = {"float": "f8", "int": "i8", "bool": "?"}


class Unanswered(Exception):
    """`status` is that of HTTP; 0: there was no answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}" if status else detail)
        self.status = status
        self.detail = detail


class Table(Mapping[str, np.ndarray[Any, Any]]):
    """Rows as columns, by name and in order. What is missing is NaN in a column of floats, NaT in one of times, None in one
    of texts, and masked in one of whole numbers or truths."""

    def __init__(self, columns: dict[str, np.ndarray[Any, Any]], rows: int) -> None:
        self.columns = columns
        self.rows = rows

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        """Columns, as of any Mapping; `rows` are the rows."""
        return len(self.columns)

    def __repr__(self) -> str:
        return f"<Table of {self.rows:,} rows: {', '.join(self.columns)}>"

    def pandas(self) -> Any:
        """A DataFrame; needs pandas. Whole numbers and truths of which some are missing are of its nullable types."""
        import pandas as pd

        nullable = {"i": "Int64", "b": "boolean"}
        made = {
            name: pd.array(column.tolist(), dtype=nullable[column.dtype.kind])
            if isinstance(column, np.ma.MaskedArray)
            else column
            for name, column in self.columns.items()
        }
        return pd.DataFrame(made)

    def polars(self) -> Any:
        """A DataFrame; needs polars. NaN is one of its values, so a missing float becomes null."""
        import polars as pl

        made = {name: column if column.dtype.kind == "M" else column.tolist() for name, column in self.columns.items()}
        frame = pl.DataFrame(made, strict=False)
        return frame.with_columns(pl.selectors.float().fill_nan(None))


class News(NamedTuple):
    """Of a live answer: rows of a stream; or `missed`, how many there was no time for."""

    stream: str
    rows: list[dict[str, Any]]
    missed: int = 0


class Client:
    """One device. Each question opens a connection of its own, so threads may share a Client."""

    def __init__(
        self, url: str, token: str | None = None, *, timeout: float = 30.0, tls: ssl.SSLContext | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f'"{url}" is not a URL; write it as "http://127.0.0.1:8080"')
        self._host, self._port, self._secure = parts.hostname, parts.port, parts.scheme == "https"
        self._base = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout
        self._tls = tls

    def __repr__(self) -> str:
        return f"<Client of {self._host}:{self._port}>"  # not the token

    # --- questions ---

    def streams(self) -> dict[str, api.Stream]:
        """The streams that are kept, by name."""
        found = self._typed("GET", "/api/streams", api.Streams)
        return {stream.name: stream for stream in found.streams}

    def latest(self, stream: str, *, key: str | Sequence[str] = (), fields: Sequence[str] = ()) -> Table:
        """The newest row of each key."""
        asked = _query(key=_list(key), fields=",".join(fields))
        found = self._typed("GET", f"/api/streams/{quote(stream, safe='')}/latest{asked}", api.Latest)
        return self._table(stream, found.rows, fields)

    def rows(
        self,
        stream: str,
        *,
        key: str | Sequence[str] = (),
        start: Moment | None = None,
        end: Moment | None = None,
        fields: Sequence[str] = (),
        limit: int | None = None,
        points: int | None = None,
        order: str = "asc",
    ) -> Table:
        """The history: from `start` on, before `end`. All of it unless there is a `limit`; with `points`, what a chart so wide
        needs."""
        size: dict[str, Any] = (
            {"points": points} if points is not None else {"limit": "all" if limit is None else limit}
        )
        asked = _query(key=_list(key), fields=",".join(fields), order=order, **size, **_between(start, end))
        path, liked = f"/api/streams/{quote(stream, safe='')}/rows{asked}", _liked("application/x-ndjson")
        with self._answer("GET", path, None, liked) as answer:
            if answer.headers.get_content_type() == arrow.MEDIA_TYPE:
                return _of_arrow(answer)
            found = [orjson.loads(line) for line in answer if line.strip()]
        return self._table(stream, found, fields)

    def alerts(self, *, state: str = "all", key: str | Sequence[str] = ()) -> list[dict[str, Any]]:
        """How each alert stands for each key, the newest first. `state`: firing, cleared or all."""
        found: list[dict[str, Any]] = []
        path: str | None = f"/api/alerts{_query(state=state, key=_list(key))}"
        while path is not None:
            page: api.Alerts = self._typed("GET", path, api.Alerts)
            found += page.alerts
            path = page.next
        return found

    def sql(self, question: str, parameters: Params = (), *, limit: int | None = None) -> Table:
        """A SELECT over the history: each stream is a table. `parameters` stand for ? or :name in it."""
        body: dict[str, Any] = {"sql": question} | ({"limit": limit} if limit is not None else {})
        if parameters:
            body["parameters"] = dict(parameters) if isinstance(parameters, Mapping) else list(parameters)
        with self._answer("POST", "/api/query", orjson.dumps(body), _liked("application/json")) as answer:
            if answer.headers.get_content_type() == arrow.MEDIA_TYPE:
                return _of_arrow(answer)
            found = orjson.loads(answer.read())
        columns = {name: _guessed([row[name] for row in found["rows"]]) for name in found["columns"]}
        return Table(columns, len(found["rows"]))

    def live(self, *streams: str, key: str | Sequence[str] = (), where: str | None = None) -> Iterator[News]:
        """Rows as they become durable, for ever: after a break it goes on where it was. No streams: all."""
        asked = _query(streams=",".join(streams), key=_list(key), where=where)
        last: str | None = None
        while True:
            more = {"Last-Event-ID": last} if last else {}
            try:
                with self._answer("GET", f"/api/live{asked}", None, more, SILENT_S) as answer:
                    for id_, news in _events(answer):
                        last = id_ or last
                        if news is not None:
                            yield news
            except Unanswered as error:
                if last is None or (400 <= error.status < 500 and error.status != 429):
                    raise  # it never began, or it is of no use to ask again
            except (OSError, http.client.HTTPException):
                pass  # it broke off
            time.sleep(AGAIN_S)

    # --- how it is asked ---

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = {},
        timeout: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        limit = timeout or self._timeout
        connection: http.client.HTTPConnection
        if self._secure:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=limit, context=self._tls)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=limit)
        kind = {"Content-Type": "application/json"} if body is not None else {}
        try:
            try:
                connection.request(method, self._base + path, body, {**self._headers, **kind, **headers})
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise Unanswered(0, f"{self._host}:{self._port} cannot be reached: {error}") from error
            if answer.status >= 300:
                raise Unanswered(answer.status, _detail(answer))
            yield answer
        finally:
            connection.close()

    def _typed(self, method: str, path: str, kind: type[Any]) -> Any:
        with self._answer(method, path) as answer:
            return msgspec.json.decode(answer.read(), type=kind)

    def _table(self, stream: str, found: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> Table:
        """Columns of the kinds that the stream says; those asked for, where some were."""
        told = self.streams()[stream]
        names = [*([told.key] if told.key else []), "time", *(n for n in told.fields if not fields or n in fields)]
        kinds = {name: kind.rstrip("?").removesuffix(" nan") for name, kind in told.fields.items()} | {"time": "time"}
        columns = {name: _column([row.get(name) for row in found], kinds.get(name, "string")) for name in names}
        return Table(columns, len(found))


def _liked(other: str) -> dict[str, str]:
    """The device decides: it may have no pyarrow, or be of an earlier version."""
    return {"Accept": f"{arrow.MEDIA_TYPE}, {other};q=0.5" if arrow.is_there() else other}


def _of_arrow(answer: http.client.HTTPResponse) -> Table:
    import pyarrow as pa

    with pa.ipc.open_stream(answer) as stream:
        found = stream.read_all()
    answer.read()  # an answer that broke off says so at its end
    return Table({name: _plain(found.column(name)) for name in found.column_names}, found.num_rows)


def _plain(column: Any) -> np.ndarray[Any, Any]:
    """A column of Arrow as an array of numpy."""
    if column.null_count and column.type in ("int64", "bool"):
        return np.ma.MaskedArray(
            column.fill_null(False if column.type == "bool" else 0).to_numpy(), column.is_null().to_numpy()
        )
    made: np.ndarray[Any, Any] = column.to_numpy()
    return made.astype(object) if column.type == "null" else made


def _column(values: list[Any], kind: str) -> np.ndarray[Any, Any]:
    """Values of JSON as an array of that kind."""
    if kind == "time":
        # Without its Z: numpy knows no zones, and all are UTC.
        return np.array([value and value.rstrip("Z") for value in values], "M8[ns]")
    if kind == "float":
        return np.array([np.nan if value is None else value for value in values], np.float64)
    if kind in _KINDS:
        missing = [value is None for value in values]
        filled = np.array([0 if value is None else value for value in values], _KINDS[kind])
        return np.ma.MaskedArray(filled, missing) if any(missing) else filled
    made = np.empty(len(values), object)
    made[:] = values
    return made


def _guessed(values: list[Any]) -> np.ndarray[Any, Any]:
    """Of an answer to SQL nobody knows the kinds: they are guessed as `arrow.of_table` does."""
    kinds = {type(value) for value in values if value is not None}
    for kind, name in (({bool}, "bool"), ({int}, "int"), ({float}, "float"), ({int, float}, "float")):
        if kinds == kind:
            return _column(values, name)
    if kinds == {str} and arrow.are_instants(values):
        return _column(values, "time")
    return _column([None if value is None else str(value) for value in values], "string")


def _events(answer: http.client.HTTPResponse) -> Iterator[tuple[str | None, News | None]]:
    """Server-Sent Events: the id, once what came with it was told, and what it was."""
    kind, data, id_ = "", b"", None
    while line := answer.readline():
        name, _, value = line.rstrip(b"\r\n").partition(b": ")
        if name == b"data":
            data += value
        elif name == b"event":
            kind = value.decode()
        elif name == b"id":
            id_ = value.decode()
        elif not line.strip():
            yield id_, _news(kind, orjson.loads(data)) if data else None
            kind, data, id_ = "", b"", None


def _news(kind: str, told: dict[str, Any]) -> News:
    return News("", [], told["rows"] or 0) if kind == "missed" else News(told["stream"], told["rows"])


def _detail(answer: http.client.HTTPResponse) -> str:
    try:
        return msgspec.json.decode(answer.read(), type=api.Problem).detail
    except msgspec.DecodeError:
        return answer.reason


def _query(**asked: Any) -> str:
    given = {name: value for name, value in asked.items() if value not in (None, "", [])}
    return f"?{urlencode(given, doseq=True)}" if given else ""


def _between(start: Moment | None, end: Moment | None) -> dict[str, Any]:
    return {name: _moment(value) for name, value in (("from", start), ("to", end)) if value is not None}


def _moment(value: Moment) -> str | int | float:
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        raise ValueError(f"{value} has no time zone: which one is meant?")
    return value.isoformat()


def _list(key: str | Sequence[str]) -> list[str]:
    return [key] if isinstance(key, str) else list(key)
