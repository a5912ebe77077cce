"""A rollup answers as all rows would, wherever they are by now."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.component import RowsQuery, Unanswerable
from pipeline.frame import NO_PROGRESS, Column, Frame, Schema, column
from pipeline.journal import compaction, history, points, retention, rolled, rollup, sql, sql_tables
from pipeline.journal.rollup import Wanted
from pipeline.journal.schema import TABLES
from tests.pipeline.journal.test_points import NAN, SCHEMA, WINDOWS, Row, naive, shown

FINE, COARSE = 4, 20  # ns: the intervals of two rollups
WANTED = Wanted((FINE, COARSE), corrected=False)

values = st.none() | st.just(NAN) | st.integers(-300, 300).map(lambda n: n / 100)
came = st.lists(st.tuples(st.integers(-50, 300), st.integers(0, 2), values, st.integers(-3, 3)), min_size=1, max_size=9)
rearranged = st.tuples(st.just("rearrange"), st.sampled_from([1, 3]))
wants = st.tuples(st.just("want"), st.sampled_from([(), (FINE,), (COARSE,), (FINE, COARSE)]))
lives = st.lists(st.tuples(st.just("rows"), came) | rearranged | wants, max_size=9)
bounds = st.none() | st.integers(-60, 310)
fields = st.sampled_from([("value",), ("n",), ("value", "n")])


class Device:
    """A history with rollups; `rows` are those that ever came."""

    def __init__(self, wanted: Wanted = WANTED) -> None:
        self.db = apsw.Connection(":memory:")
        self.db.execute(TABLES)
        self.wanted = wanted
        self.rows: list[Row] = []
        self.want(wanted.every)

    def want(self, every: tuple[int, ...]) -> None:
        """As if the pipeline file were changed."""
        self.wanted = Wanted(every, self.wanted.corrected)
        rollup.register(self.db, {"s": self.wanted})

    def live(self, what: str, how: Any) -> None:
        if what == "rows":
            self.came(how)
        elif what == "rearrange":
            self.rearrange(how)
        elif what == "want":
            self.want(how)
        else:
            age, size = (how, None) if what == "drop" else (None, how)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(retention, "MOST_ROWS", 20)  # the rest goes another time
                retention.prune(self.db, ["s"], age, size, {"s": self.wanted})

    def drop_all(self) -> None:
        while history.ends(self.db, "s"):
            self.live("drop", 10**6)

    def came(self, rows: list[Row]) -> None:
        time, key, value, n = zip(*rows, strict=True)
        columns = {"value": column("float", value), "n": column("int", n)}
        self.put(np.array(time, np.int64), np.array(key, np.int32), columns)
        self.rows += rows

    def put(self, time: Any, key: Any, columns: dict[str, Column]) -> None:
        seq = np.arange(len(self.rows), len(self.rows) + len(time))
        history.put(self.db, 1, "s", Frame(time, key, seq, columns, NO_PROGRESS), journal=False, history=True)

    def rearrange(self, least: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (
                ("LEAST_ROWS", 1),
                ("ROWS_A_KEY", least),
                ("MANY_FRAMES", 2),
                ("MANY_PARTS", 2),
                ("MANY_CHUNKS", 2),
                ("MOST_ROWS", 9),
                ("MISSED_CHUNKS", 2),
            ):
                patch.setattr(compaction, name, value)
            for stream in ("s", f"s/{FINE}", f"s/{COARSE}"):
                done = 0
                while piece := compaction.find(self.db, stream, 3, self.wanted if stream == "s" else rollup.NONE):
                    assert compaction.replace(self.db, piece, list(piece.packed()))
                    done += 1
                    assert done < 200, "there is no end to it"

    def chart(self, query: RowsQuery, codes: list[int] | None) -> list[tuple[str, ...]]:
        return shown(points.rows(self.db, query, SCHEMA, codes), query.fields)

    def span(self, query: RowsQuery) -> tuple[int, int]:
        first = min(r[0] for r in self.rows) if query.start is None else query.start
        return first, max(r[0] for r in self.rows) + 1 if query.end is None else query.end

    def interval(self, query: RowsQuery) -> int:
        """Of the rollup that is to answer; 0: of none."""
        if not self.rows:
            return 0
        first, end = self.span(query)
        width = math.ceil((end - first) / max(1, query.points // 4))
        return max((level.every for level in rollup.known(self.db).of("s") if 4 * level.every <= width), default=0)

    def expected(self, query: RowsQuery, codes: list[int] | None) -> list[tuple[str, ...]]:
        """Of all rows that ever came; where a rollup is fine enough, by pixels of whole intervals."""
        if not self.rows:
            return []
        first, end = self.span(query)
        if end <= first:
            return []
        width = math.ceil((end - first) / max(1, query.points // 4))
        every = self.interval(query)
        if not every:
            return naive([self.rows], query, codes)
        first -= first % every
        width = math.ceil(width / every) * every
        pixels = math.ceil((end - first) / width)
        inside = [r for r in self.rows if (query.start is None or r[0] >= query.start) and r[0] < end]
        whole = RowsQuery(
            "s", None, first, first + pixels * width, 1000, query.descending, points=4 * pixels, fields=query.fields
        )
        return naive([inside], whole, codes)


def asked(start: int | None, end: int | None, n: int, names: tuple[str, ...], descending: bool = False) -> RowsQuery:
    return RowsQuery("s", None, start, end, descending=descending, points=n, fields=names)


@given(lives, bounds, bounds, st.integers(1, 60), fields, st.booleans(), st.none() | st.lists(st.integers(0, 2)))
def test_the_same_chart_as_of_all_rows(
    life: list[Any],
    start: int | None,
    end: int | None,
    n: int,
    names: tuple[str, ...],
    descending: bool,
    codes: list[int] | None,
) -> None:
    """Late rows, rearranged or not, with a rollup that came later, whatever the span: as long as the rows are there, to the row."""
    device = Device(Wanted((), corrected=False))
    for event in life:
        device.live(*event)
    query = asked(start, end, n, names, descending)
    assert device.chart(query, codes) == device.expected(query, codes)


dropped = st.tuples(st.just("drop"), st.integers(-50, 320)) | st.tuples(
    st.just("size"), st.sampled_from([1, 700, 2_000])
)


@given(
    st.lists(st.tuples(st.just("rows"), came) | rearranged | dropped, max_size=12),
    st.none() | st.integers(-3, 15).map(lambda i: i * COARSE),
    st.none() | st.integers(-3, 16).map(lambda i: i * COARSE),
    st.integers(1, 40),
    fields,
)
def test_and_when_the_rows_are_gone(
    life: list[Any], start: int | None, end: int | None, n: int, names: tuple[str, ...]
) -> None:
    """Dropped for their age or for room, before or after they were rearranged: a chart of whole intervals is still the same."""
    device = Device()
    for event in life:
        device.live(*event)
    device.drop_all()
    assert history.ends(device.db, "s") is None
    query = asked(start, end, n, names)
    if device.interval(query):
        assert device.chart(query, None) == device.expected(query, None)
    else:
        assert set(device.chart(query, None)) <= set(shown_all(device, names))  # finer than anything that is left


def shown_all(device: Device, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    at = [2 + ("value", "n").index(name) for name in names]
    return [tuple(map(repr, (r[0], r[1], *(r[i] for i in at)))) for r in device.rows]


@given(
    st.lists(st.tuples(st.just("rows"), came) | rearranged | dropped, max_size=12) | lives,
    st.sampled_from([FINE, COARSE]),
)
def test_counts_sums_and_extremes_are_those_of_all_rows(life: list[Any], every: int) -> None:
    """Each row counts once, however often it was moved, and also when it was dropped before it was ever rearranged."""
    device = Device()
    for event in life:
        device.live(*event)
    if device.wanted != WANTED:
        device.want(WANTED.every)
    expected: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in device.rows:
        expected[row[1], row[0] - row[0] % every].append(row)
    found = {}
    for said in rolled.summaries(device.db, level_of(device, every), SCHEMA, None, -100, 400, descending=False):
        for i, (key, start) in enumerate(zip(said.key.tolist(), said.start.tolist(), strict=True)):
            assert (key, start) not in found
            found[key, start] = (said.rows[i], {name: [a[i] for a in of] for name, of in said.fields.items()})
    assert found.keys() == expected.keys()
    for at, rows in expected.items():
        count, by_field = found[at]
        assert count == len(rows)
        for name, index in (("value", 2), ("n", 3)):
            known: list[Any] = [r[index] for r in rows if r[index] is not None and not math.isnan(r[index] or 0)]
            n, total, least, greatest = by_field[name]
            assert n == len(known)
            assert total == pytest.approx(sum(known), abs=1e-9)
            if known:
                assert (least, greatest) == (min(known), max(known))


def test_where_a_span_does_not_begin_with_an_interval_its_first_rows_are_looked_at() -> None:
    """The least of the interval lies before it, and that of the span is not what the rollup keeps of the interval."""
    device = Device(Wanted((COARSE,), corrected=False))
    device.came([(t, 0, float(t % COARSE - (t % COARSE == 9) * 5), 0) for t in range(200)])
    device.rearrange(1)
    for start, end in ((5, 200), (0, 191), (45, 151), (7, 170)):
        query = asked(start, end, 4, ("value",))
        assert device.interval(query)
        assert device.chart(query, None) == device.expected(query, None)


def test_what_a_rollup_has_lost_too_a_coarser_one_still_has() -> None:
    """As if each were kept for longer than the finer one."""
    device = Device()
    device.came([(t, 0, float(t * 37 % 101), 0) for t in range(200)])
    device.rearrange(1)
    device.drop_all()
    retention.prune(device.db, [f"s/{FINE}"], 100, None)
    query = asked(40, 200, 8, ("value",))
    assert device.chart(query, None) == device.expected(query, None)
    fine = asked(40, 200, 40, ("value",))  # of which only the coarse one is left for some
    found = [int(row[0]) for row in device.chart(fine, None)]
    assert {t // COARSE for t in found} == set(range(2, 10))


def test_chunks_of_a_key_that_are_in_other_rollups_are_not_joined() -> None:
    device = Device(Wanted((COARSE,), corrected=False))
    for every, t in (((COARSE,), 0), ((), 1), ((COARSE,), 2)):
        device.want(every)
        device.came([(10 * t, 0, float(t), t)])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compaction, "_to_enter", lambda *_: None)
            patch.setattr(compaction, "_to_join", lambda *_: None)
            device.rearrange(0)
    assert [r for (r,) in device.db.execute("SELECT rolled FROM chunks WHERE stream = 's' ORDER BY first")] == [1, 0, 1]
    device.rearrange(1)
    assert counted(device) == [2, 1]
    assert {r for (r,) in device.db.execute("SELECT rolled FROM chunks WHERE stream = 's'")} == {1}


def counted(device: Device, schema: Schema = SCHEMA) -> list[int]:
    """Rows of each interval of key 0."""
    level = rollup.known(device.db).of("s")[-1]
    said = rolled.summaries(device.db, level, schema, [0], -100, 400, descending=False)
    return [n for some in said for n in some.rows.tolist()]


def level_of(device: Device, every: int) -> rollup.Level:
    return next(level for level in rollup.known(device.db).of("s") if level.every == every)


def test_a_rollup_is_a_table_in_sql() -> None:
    device = Device()
    device.came([(t, t % 2, t / 4 if t % 5 else None, -t) for t in range(100)])
    device.rearrange(1)
    device.came([(3, 0, 99.0, 7)])  # late, and not yet in the rollup
    source = sql_tables.Source(device.db, {"s": SCHEMA}, ["a", "b"], {"a": 0, "b": 1}.get)

    def ask(text: str) -> list[Any]:
        return sql.ask(source, text, (), 1000, 0).rows

    names = sql.ask(source, "SELECT * FROM s_4ns", (), 1, 0).columns
    assert names[:3] == ["id", "time", "rows"]
    assert names[3:] == [f"{f}_{what}" for f in ("value", "n") for what in ("count", "sum", "mean", "min", "max")]
    first = ask(
        "SELECT id, rows, value_count, value_sum, value_mean, value_min, value_max, n_min FROM s_4ns ORDER BY time"
    )
    assert first[0] == ("a", 3, 2, 99.5, 49.75, 0.5, 99.0, -2)
    assert ask("SELECT id, sum(rows), sum(n_sum), max(value_max) FROM s_20ns GROUP BY id") == [
        ("a", 51, 7.0 - sum(range(0, 100, 2)), 99.0),
        ("b", 50, float(-sum(range(1, 100, 2))), 24.75),
    ]
    span = "time >= '1970-01-01T00:00:00.000000020Z' AND time < '1970-01-01T00:00:00.000000080Z'"
    assert ask(f"SELECT count(*), sum(rows) FROM s_20ns WHERE id = 'b' AND {span}") == [(3, 30)]
    times = ask("SELECT time FROM s_20ns WHERE id = 'b' ORDER BY time DESC LIMIT 2")
    assert [t for (t,) in times] == ["1970-01-01T00:00:00.000000080Z", "1970-01-01T00:00:00.000000060Z"]
    with pytest.raises(Unanswerable, match="no such table"):
        ask("SELECT * FROM s_5ns")


# --- corrected windows ----------------------------------------------------------------------------------------------

window = st.tuples(st.integers(0, 1), st.integers(0, 30))  # key, start


@given(
    st.lists(
        st.tuples(st.just("rows"), st.lists(window, min_size=1, max_size=6))
        | rearranged
        | st.tuples(st.just("drop"), st.integers(0, 45))
        | st.tuples(st.just("size"), st.just(1_500)),
        max_size=12,
    ),
    st.sampled_from([FINE, COARSE]),
    st.booleans(),
)
def test_a_corrected_window_counts_once_as_it_holds(life: list[Any], every: int, all_gone: bool) -> None:
    """As long as corrections come before what they correct is dropped."""
    device = Device(Wanted((FINE, COARSE), corrected=True))
    rows: list[tuple[int, int, int]] = []  # key, start, revision
    latest: dict[tuple[int, int], int] = {}
    dropped_before = 0
    for what, how in life:
        if what != "rows":
            device.live(what, how)
            ends = history.ends(device.db, "s")
            gone = 10**6 if ends is None else max((start + 10 for _, start, _ in rows), default=0)
            dropped_before = max(dropped_before, how if what == "drop" else gone + 1 if what == "size" else 0)
            continue
        new = []
        for key, start in how:
            if start + 10 >= dropped_before:
                latest[key, start] = latest.get((key, start), -1) + 1
                new.append((key, start, latest[key, start]))
        if new:
            put_windows(device, new)
            rows += new
    if all_gone:
        device.drop_all()
    held = {(key, start): revision for key, start, revision in rows}
    expected: dict[tuple[int, int], list[int]] = defaultdict(list)
    for (key, start), revision in held.items():
        expected[key, (start + 10) - (start + 10) % every].append(revision * 100 + start)
    found = {}
    for said in rolled.summaries(device.db, level_of(device, every), WINDOWS, None, -100, 400, descending=False):
        _, totals, least, greatest = said.fields["n"]
        for at in zip(said.key, said.start, said.rows, totals, least, greatest, strict=True):
            found[int(at[0]), int(at[1])] = tuple(map(int, at[2:]))
    assert found == {at: (len(of), sum(of), min(of), max(of)) for at, of in expected.items()}
    query = RowsQuery("s", None, -100, 400, corrected=True, points=4, fields=("n",))
    shown_now = points.rows(device.db, query, WINDOWS, None)
    for key in {key for key, _ in held}:
        of_key = [revision * 100 + start for (k, start), revision in held.items() if k == key]
        chart = shown_now.where(shown_now.key == key)["n"].tolist()
        assert (min(chart), max(chart)) == (min(of_key), max(of_key))


def put_windows(device: Device, windows: list[tuple[int, int, int]]) -> None:
    key, start, revision = (np.array(c, np.int64) for c in zip(*windows, strict=True))
    columns = {"start": Column(start), "revision": Column(revision), "n": Column(revision * 100 + start)}
    device.put(start + 10, key.astype(np.int32), columns)
    device.rows += [(0, 0, None, 0)] * len(windows)


def test_a_correction_may_leave_before_what_it_corrects() -> None:
    """What it corrected is dropped later, among younger rows, and does not count again."""
    device = Device(Wanted((COARSE,), corrected=True))
    put_windows(device, [(0, 0, 0), (0, 30, 0)])  # one Frame, whose last row is young
    put_windows(device, [(0, 0, 1)])
    device.live("drop", 20)
    assert counted(device, WINDOWS) == [1, 1]
    device.drop_all()
    assert counted(device, WINDOWS) == [1, 1]


def test_what_is_corrected_may_leave_before_its_correction() -> None:
    device = Device(Wanted((COARSE,), corrected=True))
    put_windows(device, [(0, 0, 0)])
    put_windows(device, [(0, 0, 1), (0, 30, 0)])
    device.live("drop", 20)
    assert counted(device, WINDOWS) == [1, 1]
    device.drop_all()
    assert counted(device, WINDOWS) == [1, 1]


def test_how_a_rollup_is_called() -> None:
    """By a person, and in SQL."""
    level = rollup.Level("valid", 90 * 10**9, 1)
    assert rollup.in_words(level.name) == "valid every 90 s"
    assert rollup.in_words("valid") == "valid"
    assert rolled.called(level) == "valid_90s"
    assert [rollup.age_of(s * 10**9) // 10**9 for s in (60, 86_400)] == [30_000_000, 100 * 365 * 86_400]
