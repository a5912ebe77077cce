"""How much history is kept: of each input what its sink says, and of rollups for how long."""

from __future__ import annotations

from typing import Any

import apsw
import numpy as np

from pipeline.component import RowsQuery, SinkContext
from pipeline.frame import NO_PROGRESS, SECOND, Column, Field, Frame, KeyTable, Schema
from pipeline.journal import history, points, rollup
from pipeline.journal.schema import TABLES
from pipeline.limits import PRUNE_NS, HistoryLimits
from pipeline.quantity import Duration, duration
from sinks.query_server import QueryServer, QueryServerSettings, Rollup

SCHEMA = Schema("id", {"value": Field("float")})
HOUR = 3_600 * SECOND
NOW = 500_000 * HOUR


def limits(**settings: Any) -> HistoryLimits:
    context = SinkContext("local", {"valid": SCHEMA, "seconds": SCHEMA}, KeyTable())
    sink = QueryServer(QueryServerSettings(**settings), context)
    assert context.problems == []
    return HistoryLimits([sink], 0)


def database() -> apsw.Connection:
    """A reading each minute of the last hundred hours, in both; a Frame an hour."""
    db = apsw.Connection(":memory:")
    db.execute(TABLES)
    for stream in ("valid", "seconds"):
        for hour in range(100):
            time = NOW - (100 - hour) * HOUR + np.arange(60) * 60 * SECOND
            value = Column(np.arange(60.0) + hour)
            frame = Frame(time, np.zeros(60, np.int32), hour * 60 + np.arange(60), {"value": value}, NO_PROGRESS)
            history.put(db, hour, stream, frame, journal=False, history=True)
    return db


def hours(db: apsw.Connection, stream: str) -> int:
    ends = history.ends(db, stream)
    return 0 if ends is None else round((NOW - ends[0]) / HOUR)


def test_each_input_is_kept_for_its_own_time() -> None:
    db = database()
    limits(retention={"valid": duration("10 h"), "default": duration("2 d")}).cut(db, NOW)
    assert (hours(db, "valid"), hours(db, "seconds")) == (10, 48)


def test_a_rollup_outlives_the_rows_and_has_an_age_of_its_own() -> None:
    """What was dropped before it was ever rearranged is in it; a chart and SQL's table are answered from it."""
    db = database()
    wanted = limits(
        retention=duration("10 h"),
        rollup={"valid": (Rollup(Duration(HOUR), duration("50 h")), Duration(10 * HOUR))},
    )
    wanted.cut(db, NOW)
    wanted.cut(db, NOW)  # what has just entered a rollup is older than it is kept
    assert (hours(db, "valid"), hours(db, "seconds")) == (10, 10)
    assert [level.every // HOUR for level in rollup.known(db).of("valid")] == [1, 10]
    assert rollup.known(db).of("seconds") == []
    wide = RowsQuery("valid", None, NOW - 100 * HOUR, NOW, points=8, fields=("value",))
    chart = points.rows(db, wide, SCHEMA, None)
    assert chart.time[0] == NOW - 100 * HOUR  # of the rollup of ten hours, which is kept for longer
    assert (chart["value"].values.min(), chart["value"].values.max()) == (0.0, 158.0)
    assert len(history.rows(db, RowsQuery("valid"), SCHEMA, None)) == 600


def test_a_rollup_that_the_file_no_longer_names_goes_when_it_is_old() -> None:
    db = database()
    limits(retention=duration("10 h"), rollup=(Duration(HOUR),)).cut(db, NOW)
    without = limits(retention=duration("10 h"))
    without.cut(db, NOW)
    level = rollup.known(db).of("valid")[0]
    assert history.ends(db, level.name) is not None
    without.cut(db, NOW + rollup.age_of(level.every))
    assert history.ends(db, level.name) is None


def test_it_is_time_to_cut_where_anything_has_a_limit() -> None:
    assert not limits().due(PRUNE_NS)
    assert limits(rollup=(Duration(HOUR),)).due(PRUNE_NS)
    assert limits(retention={"valid": duration("1 d")}).due(PRUNE_NS)
    assert not limits(retention=duration("1 d")).due(PRUNE_NS - 1)


def test_of_two_sinks_with_one_input_the_shorter_time_counts() -> None:
    contexts = [SinkContext(name, {"valid": SCHEMA}, KeyTable()) for name in "ab"]
    settings = [QueryServerSettings(rollup=(Rollup(Duration(HOUR), Duration(age)),)) for age in (9 * HOUR, 7 * HOUR)]
    both = HistoryLimits([QueryServer(*of) for of in zip(settings, contexts, strict=True)], 0)
    assert both.ages == {"valid": {HOUR: 7 * HOUR}}
