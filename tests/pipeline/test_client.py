"""The client, asking a running pipeline over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from pipeline import arrow
from pipeline.client import Client, News, Unanswered, _column, _guessed
from tests.device import free_port
from tests.test_http import PIPELINE, Running

T0 = 1_700_000_000_000
ROWS = [
    {"id": "a", "ts": T0, "a": 1.5, "b": 7},
    {"id": "b", "ts": T0 + 1000, "a": 2},
    {"id": "a", "ts": T0 + 2000, "a": 3, "b": 9},
]


@pytest.fixture(params=["arrow", "text"], autouse=True)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How rows come: what is asked for is answered alike, with pyarrow and without."""
    if request.param == "arrow":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr(arrow, "is_there", lambda: request.param == "arrow")
    return str(request.param)


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(tmp_path)
    await made.start()
    assert (await made.post("/dated", ROWS))[0] == 201
    assert (await made.post("/data", [{"id": "a", "value": 80}, {"id": "b", "value": 10}]))[0] == 201
    yield made
    await made.stop()


async def ask(running: Running, question: Callable[[Client], Any]) -> Any:
    """In a thread, as the pipeline runs in this one."""
    return await asyncio.to_thread(question, Client(running.pipeline.server.url))


async def test_the_streams(running: Running) -> None:
    streams = await ask(running, lambda device: device.streams())
    assert list(streams) == ["readings", "dated", "high", "seconds"]
    assert (streams["dated"].rows, streams["dated"].fields) == (3, {"a": "float", "b": "int?"})


async def test_rows_are_columns(running: Running) -> None:
    """Of the kinds that the stream says; a missing whole number is masked and not a 0."""
    table = await ask(running, lambda device: device.rows("dated"))
    assert list(table) == ["id", "time", "a", "b"]
    assert table.rows == 3
    assert table["id"].tolist() == ["a", "b", "a"]
    assert table["time"].dtype == "M8[ns]"
    assert table["time"].tolist() == [(T0 + i * 1000) * 1_000_000 for i in range(3)]
    assert (table["a"].dtype, table["a"].tolist()) == (np.float64, [1.5, 2, 3])
    assert (table["b"].dtype, table["b"].tolist()) == (np.int64, [7, None, 9])
    assert repr(table) == "<Table of 3 rows: id, time, a, b>"


@pytest.mark.parametrize(
    ("asked", "values"),
    [
        ({"key": "b"}, [2]),
        ({"key": ["a", "b"]}, [1.5, 2, 3]),
        ({"start": T0 / 1000 + 1}, [2, 3]),
        ({"end": "2023-11-14T22:13:21Z"}, [1.5]),
        ({"start": datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC), "order": "desc"}, [3, 2]),
        ({"limit": 2}, [1.5, 2]),
        ({"limit": 2, "order": "desc"}, [3, 2]),
        ({"points": 100}, [1.5, 2, 3]),
        ({"start": "-1h"}, []),
    ],
)
async def test_a_part_of_the_rows(asked: dict[str, Any], values: list[float], running: Running) -> None:
    table = await ask(running, lambda device: device.rows("dated", fields=["a"], **asked))
    assert list(table) == ["id", "time", "a"]
    assert table["a"].tolist() == values


async def test_the_newest_of_each_key(running: Running) -> None:
    table = await ask(running, lambda device: device.latest("dated"))
    assert dict(zip(table["id"], table["a"].tolist(), strict=True)) == {"a": 3, "b": 2}
    one = await ask(running, lambda device: device.latest("dated", key="b", fields=["a"]))
    assert {name: column.tolist() for name, column in one.items() if name != "time"} == {"id": ["b"], "a": [2]}


async def test_alerts(running: Running) -> None:
    (alert,) = await ask(running, lambda device: device.alerts(state="firing"))
    assert (alert["key"], alert["alert"], alert["state"]) == ("a", "high", "firing")
    assert await ask(running, lambda device: device.alerts(key="b")) == []


async def test_sql(running: Running) -> None:
    """Columns in the order of the SELECT; what stands for ? is no part of the text."""
    question = "SELECT id, max(a) AS most, count(*) AS n FROM dated WHERE a > ? GROUP BY id ORDER BY id"
    table = await ask(running, lambda device: device.sql(question, [1.75]))
    assert {name: column.tolist() for name, column in table.items()} == {"id": ["a", "b"], "most": [3, 2], "n": [1, 1]}
    assert table["n"].dtype == np.int64
    with pytest.raises(Unanswered, match="nothing") as refused:
        await ask(running, lambda device: device.sql("SELECT nothing FROM dated"))
    assert refused.value.status == 400


async def test_sql_of_times_of_what_differs_and_of_nothing(running: Running) -> None:
    question = "SELECT time, b, CASE WHEN b IS NULL THEN 'none' ELSE b END AS odd, NULL AS no FROM dated ORDER BY time"
    table = await ask(running, lambda device: device.sql(question))
    assert table["time"].tolist() == [(T0 + i * 1000) * 1_000_000 for i in range(3)]
    assert table["b"].tolist() == [7, None, 9]
    assert table["odd"].tolist() == ["7", "none", "9"]
    assert table["no"].tolist() == [None] * 3
    table = await ask(running, lambda device: device.sql("SELECT id, a FROM dated WHERE a > 100"))
    assert (list(table), table.rows, table["a"].tolist()) == (["id", "a"], 0, [])


async def test_what_is_refused_says_why(running: Running) -> None:
    with pytest.raises(Unanswered, match='did you mean "dated"') as refused:
        await ask(running, lambda device: device.rows("datde"))
    assert refused.value.status == 404
    with pytest.raises(ValueError, match="no time zone"):
        await ask(running, lambda device: device.rows("dated", start=datetime(2026, 1, 1)))  # noqa: DTZ001


def test_nobody_there() -> None:
    with pytest.raises(Unanswered, match="cannot be reached") as refused:
        Client("http://127.0.0.1:9").streams()
    assert refused.value.status == 0
    with pytest.raises(Unanswered):
        next(Client("http://127.0.0.1:9").live())
    with pytest.raises(ValueError, match="is not a URL"):
        Client("127.0.0.1:8080")


async def test_with_a_token(tmp_path: Path) -> None:
    listen = 'listen = "127.0.0.1:0"'
    running = Running(tmp_path, PIPELINE.replace(listen, f'{listen}\ntoken = "all"\nread_token = "read"'))
    await running.start()
    url = running.pipeline.server.url
    assert len(await asyncio.to_thread(Client(url, "read").streams)) == 4
    table = await asyncio.to_thread(Client(url, "read").sql, "SELECT count(*) AS n FROM dated")  # a POST that only asks
    assert table["n"].tolist() == [0]
    with pytest.raises(Unanswered, match="a bearer token is needed"):
        await asyncio.to_thread(Client(url).streams)
    assert "read" not in repr(Client(url, "read"))
    await running.stop()


async def test_live_rows_go_on_after_a_restart(tmp_path: Path) -> None:
    """Those that came while the connection was broken are told, too, and each once."""
    port = free_port()
    text = PIPELINE.replace("127.0.0.1:0", f"127.0.0.1:{port}")
    running = Running(tmp_path, text)
    await running.start()
    heard: asyncio.Queue[News] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()

    def listen() -> None:
        live = Client(f"http://127.0.0.1:{port}").live("dated", where="a > 1")
        for news in live:
            loop.call_soon_threadsafe(heard.put_nowait, news)
            loop.call_soon_threadsafe(begun.set)
            if news.rows[-1]["a"] == 9:
                return

    listening = asyncio.create_task(asyncio.to_thread(listen))
    first = 0
    while not begun.is_set():  # until it listens, what is posted goes by
        first += 1
        await running.post("/dated", {"id": "a", "ts": T0 + first, "a": 2})
        await asyncio.sleep(0.05)
    await running.stop()
    again = Running(tmp_path, text)
    await again.start()
    for value in (1, 5, 9):
        await again.post("/dated", {"id": "a", "ts": T0 + 1000 + value, "a": value})
    await listening
    told = [row["a"] for news in [heard.get_nowait() for _ in range(heard.qsize())] for row in news.rows]
    assert set(told[:-2]) == {2}
    assert told[-2:] == [5, 9]
    await again.stop()


def test_the_kinds_of_an_answer_to_sql() -> None:
    assert _guessed([1, 2]).dtype == np.int64
    assert _guessed([1, 2.5, None]).tolist()[:2] == [1, 2.5]
    assert _guessed([True, None]).tolist() == [True, None]
    assert _guessed(["a", 1, None]).tolist() == ["a", "1", None]
    assert _guessed(["2026-01-31T12:00:00.5Z", None]).dtype == "M8[ns]"
    assert _guessed(["2026-01-31T12:00:00.5Z", "a"]).dtype == object
    assert _guessed([]).tolist() == []


def table_of_all_kinds() -> Any:
    from pipeline.client import Table

    values: dict[str, tuple[list[Any], str]] = {
        "id": (["a", None], "string"),
        "time": (["2026-01-31T12:00:00.000Z", None], "time"),
        "f": ([1.5, None], "float"),
        "i": ([2**53 + 1, None], "int"),
        "b": ([True, None], "bool"),
    }
    return Table({name: _column(*one) for name, one in values.items()}, 2)


def test_a_frame_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    frame = table_of_all_kinds().pandas()
    assert frame["i"].iloc[0] == 2**53 + 1
    assert str(frame["time"].iloc[0]) == "2026-01-31 12:00:00"
    assert [pandas.isna(frame[name].iloc[1]) for name in frame] == [True] * 5


def test_a_frame_of_polars() -> None:
    pytest.importorskip("polars")
    frame = table_of_all_kinds().polars()
    assert frame["i"][0] == 2**53 + 1
    assert frame["time"][0] == datetime(2026, 1, 31, 12)  # noqa: DTZ001
    assert frame.row(1) == (None,) * 5
