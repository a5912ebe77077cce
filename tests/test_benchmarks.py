"""The benchmark of operators knows every operator, and what it pushes through them is good input; that of the history runs.
No time is asserted."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from reactivex.subject import Subject

from benchmarks import history, own_operator, startup
from benchmarks.each_operator import (
    GOAL_ROWS,
    KEYS,
    MEASURED,
    ROWS,
    Missing,
    Readings,
    Row,
    chosen,
    make,
    missed,
    readings,
    stepping,
    tables,
)
from pipeline import registry
from pipeline.component import Operator
from pipeline.frame import Frame, KeyTable


def test_every_operator_has_a_row() -> None:
    """What has none is an error that names it: add a Row to ROWS in benchmarks/each_operator.py."""
    assert {row.type for row in chosen([])} == set(registry.types("operator"))
    with pytest.raises(Missing, match="no row for filter"):
        chosen([], [row for row in ROWS if row.type != "filter"])


def test_rows_are_asked_for_by_operator_or_kind() -> None:
    assert [row.name for row in chosen(["alert for"])] == ["alert for"]
    assert {row.type for row in chosen(["window"])} == {"window"}
    with pytest.raises(Missing, match="no row filtre"):
        chosen(["filtre"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_its_settings_are_right_and_it_runs(row: Row, tmp_path: Path) -> None:
    readings = Readings(10, 1_000)
    step = stepping(make(row, KeyTable(f"s{code}" for code in range(10)), tmp_path))
    for frame in readings.frames(0, 1_000, 300):
        step(frame)


def test_each_key_speaks_once_a_second_and_frames_follow_each_other() -> None:
    readings = Readings(10, 1_000)
    frames = readings.frames(0, 1_010, 64)
    assert [len(frame) for frame in frames] == [64] * 15 + [50]
    assert set(frames[0].key[:10].tolist()) == set(range(10))
    assert round(int(frames[-1].time[-1] - frames[0].time[0]) / 1e9) == 101
    marks = np.concatenate([frame.watermark_before() for frame in frames])
    assert (np.diff(marks) >= 0).all()
    assert all(a.watermark == b.watermark_before()[0] for a, b in pairwise(frames))


def test_the_tables_show_every_cost_and_each_goal_that_is_missed() -> None:
    costs = {(name, n, keys): 0.1 for name in GOAL_ROWS for n in MEASURED for keys in KEYS}
    assert missed(costs) == []
    costs["filter", 8_192, 100] = 0.31
    costs["derive", 8_192, 100_000] = 0.21
    costs["alert", 1, 10] = 41
    assert [text.partition(":")[0] for text in missed(costs)] == ["filter", "derive", "alert"]
    shown = tables(costs)
    assert [shown.count(text) for text in ("0.310", "0.210", "41.0")] == [1, 1, 1]
    assert shown.count("\n| ") == 4 * (len(GOAL_ROWS) + 1) + 3


async def test_the_benchmark_of_the_history_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Small: every table is filled and asked, and gives an answer; the pipeline's own count of bytes is the kernel's."""
    await history.main(history.SMALL._replace(seconds=1.0), [])
    lines = capsys.readouterr().out.splitlines()
    asked = [line for line in lines if "p50" in line]
    assert [line.split(",")[0] for line in asked] == ["history"] * 4 + ["SQLite"] * 2 + ["DuckDB"] * 2
    assert all(int(found) > 50 for line in asked for found in re.findall(r"\((\d+) rows in the answer\)", line))
    assert re.search(r"^history +85,695 rows", "\n".join(lines), re.MULTILINE)
    (told,) = [
        re.search(r"([\d.]+) bytes written a reading as /health says \(([\d.]+) as /proc", line) for line in lines[-1:]
    ]
    assert told is not None
    assert float(told[1]) == pytest.approx(float(told[2]), rel=0.05)


def test_its_readings_are_the_same_each_time_and_in_order() -> None:
    one, other = history.Readings(), history.Readings()
    for _ in range(3):
        minute, again = one.next(), other.next()
        assert all((a == b).all() for a, b in zip(minute, again, strict=True))
        assert len(minute.time) == history.A_MINUTE
        assert (np.diff(minute.time) >= 0).all()
        assert (np.bincount(minute.key) == [60] * history.FAST + [1] * history.SLOW).all()


def test_an_operator_of_ones_own_is_measured_doing_the_same_work(tmp_path: Path) -> None:
    """By columns and reading by reading it gives the same rates."""
    frames = readings(10).frames(0, 2_000, 64)
    told = []
    with own_operator.installed():
        for row in (own_operator.COLUMNS, own_operator.BY_ITEMS):
            operator = make(row, KeyTable(f"s{code:06}" for code in range(10)), tmp_path)
            told.append([rate for frame in frames for rate in _through(operator, frame)["temperature_rate"].tolist()])
    assert len(told[0]) == 2_000
    assert [rate is None for rate in told[0]] == [rate is None for rate in told[1]]
    assert sum(rate is None for rate in told[0]) < 200
    assert [rate for rate in told[0] if rate is not None] == pytest.approx([r for r in told[1] if r is not None])


def _through(operator: Operator, frame: Frame) -> Frame:
    came: list[Frame] = []
    inlet: Subject[Frame] = Subject()
    operator(inlet).subscribe(came.append)
    inlet.on_next(frame)
    return came[0]


@pytest.mark.parametrize("name", startup.STARTED)
def test_a_start_is_measured(name: str) -> None:
    """Each of what is compared starts, answers and takes its readings."""
    found = startup.start(startup.STARTED[name])
    assert min(found.ready, found.loaded) > 5
    assert found.cpu > 0


def test_imports_are_counted_by_package() -> None:
    took = startup.imports(startup.MINIMAL)
    assert {"headwater", "standard library", "aiohttp", "numpy"} <= took.keys()
    assert startup.package("operators.window") == startup.package("pipeline") == "headwater"
