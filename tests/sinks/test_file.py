"""The file sink's rows, as they stand in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.component import SinkContext
from pipeline.frame import NO_PROGRESS, Column, Field, Frame, KeyTable, Schema, column
from sinks.file import File, FileSettings

WINDOWS = Schema("id", {"end": Field("time"), "mean": Field("float", True)}, "windows")
OTHER = Schema(None, {"reason": Field("string")})


class Writes:
    def __init__(self) -> None:
        self.data: dict[Path, bytes] = {}

    def append(self, path: Path, data: bytes, header: bytes = b"") -> None:
        self.data[path] = self.data.get(path, header) + data

    def record(self, stream: str, frame: Frame) -> None: ...
    def enqueue(self, sink: str, stream: str, frame: Frame, *, keep: bool) -> None: ...


def written(inputs: dict[str, Schema], frames: list[tuple[str, Frame]], **settings: Any) -> str:
    context = SinkContext("out", inputs, KeyTable(["s1"]), folder=Path("/data"))
    sink = File(FileSettings(**({"path": "out"} | settings)), context)
    assert context.problems == []
    writes = Writes()
    for stream, frame in frames:
        sink.write(stream, frame, writes)
    assert list(writes.data) == [Path("/data/out")]
    return writes.data[Path("/data/out")].decode()


def windows(*means: float | None) -> Frame:
    n = np.arange(len(means), dtype=np.int64)
    columns = {"end": Column(n * 10**9), "mean": column("float", means)}
    return Frame(n * 10**9, np.zeros(len(n), np.int32), n, columns, NO_PROGRESS)


def reasons() -> Frame:
    n = np.zeros(1, np.int64)
    return Frame(n, np.zeros(1, np.int32), n, {"reason": column("string", ["late"])}, NO_PROGRESS)


def test_a_row_a_line() -> None:
    """Times as RFC 3339 unless set; a missing value is null."""
    text = written({"w": WINDOWS}, [("w", windows(1.5, None))])
    assert text.splitlines() == [
        '{"id":"s1","time":"1970-01-01T00:00:00.000Z","end":"1970-01-01T00:00:00.000Z","mean":1.5}',
        '{"id":"s1","time":"1970-01-01T00:00:01.000Z","end":"1970-01-01T00:00:01.000Z","mean":null}',
    ]


def test_times_as_numbers() -> None:
    text = written({"w": WINDOWS}, [("w", windows(1.5, 2))], time_unit="ms")
    assert text.splitlines()[1] == '{"id":"s1","time":1000,"end":1000,"mean":2.0}'


def test_csv_has_its_header_once() -> None:
    text = written({"w": WINDOWS}, [("w", windows(1.5)), ("w", windows(2.5, None))], format="csv", time_unit="s")
    assert text == "id,time,end,mean\ns1,0,0,1.5\ns1,0,0,2.5\ns1,1,1,\n"


def test_several_inputs_are_told_apart() -> None:
    text = written({"w": WINDOWS, "r": OTHER}, [("w", windows(1)), ("r", reasons())], time_unit="s")
    assert text == '{"stream":"w","id":"s1","time":0,"end":0,"mean":1.0}\n{"stream":"r","time":0,"reason":"late"}\n'


def test_several_inputs_share_the_columns_of_a_csv() -> None:
    text = written({"w": WINDOWS, "r": OTHER}, [("w", windows(1)), ("r", reasons())], time_unit="s", format="csv")
    assert text == "stream,id,time,end,mean,reason\nw,s1,0,0,1.0,\nr,,0,,,late\n"


def test_no_such_format() -> None:
    context = SinkContext("out", {"w": WINDOWS}, KeyTable())
    File(FileSettings(path="out", format="jsn"), context)
    assert context.problems[0][0] == "format"
    assert 'did you mean "json"' in context.problems[0][1]
