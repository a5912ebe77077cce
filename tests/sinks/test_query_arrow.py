"""Answers of `query_server` as Arrow, read by pyarrow."""

from __future__ import annotations

import gzip
import importlib.util
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import aiohttp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import arrow
from pipeline.component import Table
from pipeline.frame import DTYPES, NO_PROGRESS, SECOND, Column, Field, Frame, Schema, column
from pipeline.times import nanoseconds
from sinks.query_server import forms, questions
from tests.sinks.test_query_answers import answering
from tests.sinks.test_query_server import T0

pa = pytest.importorskip("pyarrow")
KIND = arrow.MEDIA_TYPE
ROWS = "/api/streams/valid/rows"


def read(body: bytes) -> Any:
    with pa.ipc.open_stream(body) as stream:
        return stream.read_all()


async def get(http: aiohttp.ClientSession, path: str, **headers: str) -> tuple[bytes, Any]:
    async with http.get(path, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == KIND
        return await response.read(), response.headers


@pytest.mark.parametrize("limit", ["20000", "all"])
async def test_rows_are_columns_with_their_kinds(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In record batches, each of a page: the device holds no more at a time."""
    monkeypatch.setattr(questions, "WALK_ROWS", 1_500)
    monkeypatch.setattr(forms.Arrow, "large", 1_000)
    async with answering(7_001) as (_, http):
        body, _ = await get(http, f"{ROWS}?limit={limit}&format=arrow")
        table = read(body)
        assert table.schema.names == ["id", "time", "value", "n"]
        assert table.schema.types == [pa.string(), pa.timestamp("ns", "UTC"), pa.float64(), pa.int64()]
        assert table["n"].to_pylist() == list(range(7_001))
        assert table["id"].to_pylist() == ["ab"[i % 2] for i in range(7_001)]
        assert table["time"].cast("int64").to_pylist() == [T0 + i * SECOND for i in range(7_001)]
        with pa.ipc.open_stream(body) as stream:
            sizes = [batch.num_rows for batch in stream]
        assert len(sizes) > 7
        assert max(sizes) <= 1_000


async def test_by_the_header_with_pages_an_etag_and_packed() -> None:
    async with answering(3_000) as (_, http):
        body, headers = await get(http, f"{ROWS}?limit=1200&fields=n", Accept=f"{KIND}, */*;q=0.1")
        assert read(body).schema.names == ["id", "time", "n"]
        following = headers["Link"].partition(">")[0].lstrip("<")
        more, _ = await get(http, following, Accept=KIND, **{"Accept-Encoding": "gzip"})
        assert read(gzip.decompress(more))["n"].to_pylist() == list(range(1_200, 2_400))
        async with http.get(
            f"{ROWS}?limit=1200&fields=n", headers={"Accept": KIND, "If-None-Match": headers["ETag"]}
        ) as same:
            assert same.status == 304


async def test_the_latest_rows_no_rows_and_points() -> None:
    async with answering(3_000) as (_, http):
        body, _ = await get(http, "/api/streams/valid/latest?format=arrow")
        assert read(body)["n"].to_pylist() == [2_999]
        for limit in ("5", "all"):
            body, _ = await get(http, f"{ROWS}?key=nobody&format=arrow&limit={limit}")
            assert (read(body).num_rows, read(body).schema.names) == (0, ["id", "time", "value", "n"])
        body, _ = await get(http, f"{ROWS}?key=a&points=100&fields=value&format=arrow")
        assert 50 < read(body).num_rows <= 100


async def test_sql() -> None:
    """A number is one, a time is a time; nothing is null."""
    sql = "SELECT id, time, value, NULL AS no FROM valid ORDER BY time LIMIT 2"
    async with answering(10) as (_, http), http.post("/api/query?format=arrow", json={"sql": sql}) as response:
        assert response.content_type == KIND
        assert response.headers["Headwater-Truncated"] == "false"
        table = read(await response.read())
    assert table.to_pylist() == [
        {"id": "a", "time": datetime(2026, 1, 31, 12, tzinfo=UTC), "value": 0.0, "no": None},
        {"id": "b", "time": datetime(2026, 1, 31, 12, 0, 1, tzinfo=UTC), "value": 0.02, "no": None},
    ]


def test_of_a_table_of_times_some_missing() -> None:
    rows: list[tuple[Any, ...]] = [(None,), ("2026-01-31T12:00:00.5Z",)]
    (missing, at) = read(arrow.of_table(Table(["at"], rows, truncated=False)))["at"].to_pylist()
    assert missing is None
    assert at == datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)


def test_of_a_table_of_what_differs() -> None:
    rows: list[tuple[Any, ...]] = [(1, "a", "2026-01-31T12:00:00Z", 2**62), (2.5, 7, None, None), (None, None, "no", 1)]
    found = read(arrow.of_table(Table(["a", "b", "c", "d"], rows, truncated=False)))
    assert found.to_pydict() == {
        "a": [1.0, 2.5, None],
        "b": ["a", "7", None],
        "c": ["2026-01-31T12:00:00Z", None, "no"],
        "d": [2**62, None, 1],
    }
    assert read(arrow.of_table(Table(["a", "a"], [], truncated=False))).schema.names == ["a", "a"]


VALUES: dict[str, Any] = {
    "float": st.floats(),
    "int": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
    "string": st.text(st.characters(exclude_categories=["Cs"])),
    "time": st.integers(-(2**62), 2**62),
}


@given(st.data())
def test_every_value_comes_back(data: st.DataObject) -> None:
    """Of every kind, the missing ones as null and NaN as NaN; whatever the pieces."""
    kinds = data.draw(st.lists(st.sampled_from(sorted(DTYPES)), max_size=4))
    size = data.draw(st.integers(0, 6))
    schema = Schema("key", {f"f{i}": Field(kind, optional=True, nan=True) for i, kind in enumerate(kinds)})
    values = {
        name: data.draw(st.lists(st.none() | VALUES[field.kind], min_size=size, max_size=size))
        for name, field in schema.fields.items()
    }
    columns = {name: column(schema.fields[name].kind, listed) for name, listed in values.items()}
    frame = Frame(np.arange(size), np.arange(size, dtype=np.int32) % 2, np.arange(size), columns, NO_PROGRESS)
    cut = data.draw(st.integers(0, size))
    stream = arrow.Stream(schema, ["x", "y"])
    pieces = [stream.piece(frame.take(slice(0, cut))), stream.piece(frame.take(slice(cut, None)))]
    found = read(b"".join([stream.header(), *pieces, arrow.END]))
    assert found["key"].to_pylist() == ["xy"[i % 2] for i in range(size)]
    for name, listed in values.items():
        kept = found[name].cast("int64") if schema.fields[name].kind == "time" else found[name]
        assert repr(kept.to_pylist()) == repr(listed)


def test_a_time_is_told_to_the_nanosecond() -> None:
    (at,), _ = nanoseconds(["2026-01-31T12:00:00.123456789Z"], "auto")
    schema = Schema(None, {"v": Field("int")})
    stream = arrow.Stream(schema, [])
    frame = Frame(
        np.array([at]), np.zeros(1, np.int32), np.zeros(1, np.int64), {"v": Column(np.ones(1, np.int64))}, NO_PROGRESS
    )
    found = read(stream.header() + stream.piece(frame) + arrow.END)
    assert found.schema.names == ["time", "v"]
    assert found["time"][0].value == at
    assert str(found.schema.field("time").type) == "timestamp[ns, tz=UTC]"


async def test_without_pyarrow_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """And whoever takes something else, too, gets that."""
    monkeypatch.setattr(arrow, "is_there", lambda: False)
    async with answering(3) as (_, http):
        async with http.get(f"{ROWS}?format=arrow") as response:
            assert response.status == 400
            told = await response.json()
            assert told["parameter"] == "format"
            assert 'pip install "headwater[arrow]"' in told["detail"]
        async with http.get(ROWS, headers={"Accept": KIND}) as response:
            assert response.status == 406
            assert 'pip install "headwater[arrow]"' in (await response.json())["detail"]
        async with http.get(ROWS, headers={"Accept": f"{KIND}, text/csv;q=0.1"}) as response:
            assert (response.status, response.content_type) == (200, "text/csv")


def test_it_is_imported_only_when_asked_for() -> None:
    """It takes 50 MB: a device that is never asked for it does not pay. pandas, where it is installed, is never imported."""
    assert arrow.is_there() == (importlib.util.find_spec("pyarrow") is not None)
    modules = "pipeline.client, pipeline.arrow, pipeline.component, sinks.query_server.routes"
    code = f"""import sys, {modules}
print('pyarrow' in sys.modules or not pipeline.arrow.is_there())
pipeline.arrow.of_table(pipeline.component.Table(['a', 'b'], [(1, 'x'), (None, 'y')], False))
print('pandas' in sys.modules)"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["False", "False"]
