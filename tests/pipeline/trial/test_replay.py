"""`headwater replay`: what the engine has recorded comes out again; what would differ is what differs."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from pipeline.config import Config, load
from pipeline.frame import KeyTable
from pipeline.graph import Graph
from pipeline.trial import life
from pipeline.trial.episodes import Comparison
from pipeline.trial.loop import VirtualLoop
from pipeline.trial.reader import read
from pipeline.trial.recorded import Recorded
from pipeline.trial.replay import Outcome, Wish, replay
from pipeline.trial.result import Result
from pipeline.trial.tests import checked
from pipeline.trial.whatif import changing, parse

START = 1_767_225_600_000_000_000  # 2026-01-01
SECOND = 1_000_000_000

FILE = """
[pipeline]
name = "machine"
disorder = "2 s"
idle = "5 s"

[sources.machine]
type = "http"
key = "id"
time = "ts"
time_unit = "ns"
fields = { value = "float" }

[sources.doors]
type = "http"
path = "/doors"
key = "id"
time = "ts"
time_unit = "ns"
fields = { open = "bool" }

[operators.valid]
type = "filter"
input = "machine"
where = "value > -5"

[operators.high]
type = "alert"
input = "valid"
when = "value > 2"
clear = "value < 0"
for = "3 s"

[operators.levels]
type = "alert"
input = "machine"
levels = { warning = { when = "value > 1" }, critical = { when = "value > 3" } }

[operators.quiet]
type = "alert"
input = "machine"
silent_for = "8 s"

[operators.tens]
type = "window"
input = "machine"
size = "10 s"
aggregate = { n = "count()", mean = "mean(value)" }

[operators.busy]
type = "alert"
input = "tens"
when = "n > 2"

[operators.ajar]
type = "alert"
input = "doors"
when = "open"
for = "6 s"

[operators.both]
type = "alert"
inputs = ["machine", "doors"]
when = "value > 0"
for = "4 s"

[operators.hush]
type = "alert"
inputs = ["machine", "doors"]
silent_for = "7 s"

[operators.together]
type = "window"
inputs = ["machine", "doors"]
size = "4 s"
aggregate = { n = "count()" }

[operators.crowd]
type = "alert"
input = "together"
when = "n > 1"

[sinks.local]
type = "query_server"
inputs = ["machine", "doors", "high", "levels", "quiet", "busy", "ajar", "both", "hush", "crowd"]
"""


def ran(config: Config, rows: dict[str, list[dict[str, Any]]], folder: Path, until: str = "100 s") -> None:
    """The engine itself on virtual time, with its history in this folder."""
    table = {"name": "x", "input": rows, "expect": {}, "until": until}
    graph = Graph(config, KeyTable(), None)  # type: ignore[arg-type]
    config.tests = [table]
    (block,), _ = read(config, graph)
    config.tests = []
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(life._Trial(config, block, loop, folder, Result(block)).run())


def compared(config: Config, folder: Path, changes: tuple[str, ...] = (), **wish: Any) -> tuple[Comparison, Outcome]:
    if changes:
        config = load(config.path, change=changing([parse(text) for text in changes]))
        assert not config.problems
    history = Recorded(folder / "state")
    try:
        outcome = replay([config], Graph(config, KeyTable(), None), history, Wish(**wish), 0)  # type: ignore[arg-type]
    finally:
        history.close()
    return outcome.comparison(outcome.stories[0]), outcome


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("replay") / "pipeline.toml"
    path.write_text(FILE)
    return checked(path)[0]


@st.composite
def arrivals(draw: st.DrawFn) -> dict[str, list[dict[str, Any]]]:
    """Readings that come at their time; one that is older, even late, comes along with a newer one before it."""
    first = {
        "at": "0 s",
        "id": "a",
        "ts": START,
        "value": 0.0,
    }  # a replay cannot know how long nobody had spoken before
    rows: dict[str, list[dict[str, Any]]] = {"machine": [first], "doors": []}
    pauses, backs = st.sampled_from([0, 0, 1, 1, 2, 4, 7, 20]), st.sampled_from([0, 0, 0, 1, 5])
    one = st.tuples(pauses, st.sampled_from(["machine", "machine", "doors"]), backs, st.sampled_from("ab"))
    now, newest = 0, {"machine": 0, "doors": -1}
    for (pause, source, back, key), value in draw(
        st.lists(st.tuples(one, st.integers(-8, 8)), min_size=1, max_size=40)
    ):
        if back and newest[source] == now:
            time = now - back
        else:
            now += pause
            time = newest[source] = now
        fields = {"value": value / 2} if source == "machine" else {"open": value > 0}
        rows[source].append({"at": f"{now} s", "id": key, "ts": START + time * SECOND, **fields})
    return rows


# What tells more than one thing in a silence: reminders, and what stands or falls by the order of what a silence brings.
TICKING = (
    FILE.partition("[operators.valid]")[0]
    + """
[operators.hot]
type = "alert"
input = "machine"
when = "value > 1"
clear = "value < -1"
repeat = "3 s"

[operators.quiet]
type = "alert"
input = "machine"
silent_for = "6 s"
repeat = "4 s"

[operators.held]
type = "alert"
input = "machine"
when = "value > 0"
for = "9 s"
inhibit = "quiet"

[operators.all]
type = "alert"
input = "machine"
when = "value > 2"
for = "7 s"
group = { by = [], within = "5 s" }
repeat = "20 s"

[operators.settled]
type = "sample"
input = "machine"
method = "debounce"
period = "6 s"

[operators.still]
type = "alert"
input = "settled"
when = "value > 0"
repeat = "10 s"

[operators.either]
type = "alert"
inputs = ["machine", "doors"]
silent_for = "7 s"
repeat = "5 s"

[sinks.local]
type = "query_server"
inputs = ["machine", "doors", "hot", "quiet", "held", "all", "still", "either"]
"""
)


@pytest.fixture(scope="module")
def ticking(tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("replay") / "pipeline.toml"
    path.write_text(TICKING)
    return checked(path)[0]


def told(**rows: list[tuple[int, str, int, float | bool]]) -> dict[str, list[dict[str, Any]]]:
    """When, of which key, dated when, what."""
    fields = {"machine": "value", "doors": "open"}
    return {
        source: [
            {"at": f"{at} s", "id": key, "ts": START + ts * SECOND, fields[source]: value} for at, key, ts, value in of
        ]
        for source, of in rows.items()
    }


# Each try runs an engine, so an example that fails is not shrunk: that would take minutes.
@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(arrivals())
def test_a_real_run_replayed_gives_its_alerts_bit_for_bit(config: Config, rows: Any) -> None:
    """Whatever came, with idle times, late readings and several sources: no alert comes, goes or moves."""
    with tempfile.TemporaryDirectory() as folder:
        ran(config, rows, Path(folder), "300 s")
        comparison, outcome = compared(config, Path(folder))
    assert outcome.notes == []
    assert comparison.differences == []
    assert comparison.same == comparison.recorded == comparison.replayed


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@example(  # two of one moment, which is a reading's, too: `quiet` does not inhibit what fires along with it
    told(
        machine=[(0, "a", 0, 0.0), (1, "b", 1, 2.5), (4, "b", 4, 1.0), (12, "b", 12, 0.0)],
        doors=[(1, "a", 1, False), (3, "a", 3, True), (5, "a", 5, False)],
    )
)
@example(  # one is silent while the other speaks
    told(
        machine=[(0, "a", 0, 0.0), (0, "b", -1, -1.0), (20, "a", 20, 2.0), (21, "b", 21, 4.0)],
        doors=[(28, "b", 28, True), (28, "a", 27, True), (32, "a", 32, False)],
    )
)
@given(arrivals())
def test_a_silence_is_gone_through_tick_by_tick(ticking: Config, rows: Any) -> None:
    """Reminders, inhibition, groups and a debounce in silences: told as the engine told them."""
    with tempfile.TemporaryDirectory() as folder:
        ran(ticking, rows, Path(folder), "300 s")
        comparison, outcome = compared(ticking, Path(folder))
    assert outcome.notes == []
    assert comparison.differences == []
    assert comparison.same == comparison.recorded == comparison.replayed


# --- what is different ------------------------------------------------------------------------------------------------


def episodes_above(rows: list[dict[str, Any]], limit: float) -> list[tuple[str, int, int | None]]:
    """The oracle: (key, fires, cleared) of `value > limit`, one reading at a time."""
    firing: dict[str, int] = {}
    found = []
    for row in rows:
        key, time = row["id"], row["ts"]
        if row["value"] > limit and key not in firing:
            firing[key] = time
        elif row["value"] <= limit and key in firing:
            found.append((key, firing.pop(key), time))
    return sorted([*found, *((key, time, None) for key, time in firing.items())], key=lambda e: (e[1], e[0]))


def waves(n: int = 200) -> dict[str, list[dict[str, Any]]]:
    values = [((i * 7919) % 13) - 4 for i in range(n)]
    return {
        "machine": [
            {"at": f"{i} s", "id": "ab"[i % 2], "ts": START + i * SECOND, "value": v} for i, v in enumerate(values)
        ]
    }


LEVEL = FILE.replace(
    "[operators.levels]",
    '[operators.above]\ntype = "alert"\ninput = "machine"\nwhen = "value > 4"\n\n[operators.levels]',
)
LEVEL = LEVEL.replace('"levels", ', '"levels", "above", ')


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path, dict[str, list[dict[str, Any]]]]:
    """A pipeline that has run for 200 s."""
    folder = tmp_path_factory.mktemp("past")
    path = folder / "pipeline.toml"
    path.write_text(LEVEL)
    config = checked(path)[0]
    rows = waves()
    ran(config, rows, folder, "210 s")
    return config, folder, rows


def spans(differences: Any, which: str) -> list[tuple[str, int, int | None]]:
    return [
        (e.key, e.rows[0].time, e.rows[-1].time if e.rows[-1].state != "firing" else None)
        for d in differences
        for e in getattr(d, which)
    ]


@pytest.mark.parametrize("limit", [0, 2, 4, 5, 7, 100])
def test_a_changed_threshold_gives_the_difference_that_an_oracle_computes(past: Any, limit: int) -> None:
    config, folder, rows = past
    comparison, _ = compared(config, folder, (f"operators.above.when=value > {limit}",))
    before, after = (episodes_above(rows["machine"], x) for x in (4, limit))

    def overlaps(a: Any, all_: Any) -> bool:
        return any(k == a[0] and s < (a[2] or 2**63) and a[1] < (e or 2**63) for k, s, e in all_)

    assert {d.alert for d in comparison.differences} <= {"above"}
    come = [d for d in comparison.differences if d.kind == "come"]
    go = [d for d in comparison.differences if d.kind == "go"]
    move = [d for d in comparison.differences if d.kind == "move"]
    assert spans(come, "replayed") == [e for e in after if not overlaps(e, before)]
    assert spans(go, "recorded") == [e for e in before if not overlaps(e, after)]
    moved = {e for e in after if overlaps(e, before)} - set(before)
    assert moved <= set(spans(move, "replayed"))
    assert (limit == 4) == (not comparison.differences)


def test_a_span_behind_a_warm_up(past: Any) -> None:
    """State from before --from comes of the warm-up; without one an alert that was firing then is unknown."""
    config, folder, _ = past
    for start in range(START, START + 200 * SECOND, 17 * SECOND):
        comparison, outcome = compared(config, folder, start=start, end=start + 30 * SECOND, warm_up=200 * SECOND)
        assert (comparison.differences, outcome.notes) == ([], [])
    bare = [compared(config, folder, start=START + s * SECOND)[0] for s in range(5, 100, 5)]
    assert any(comparison.differences for comparison in bare)


def test_in_parts_it_is_the_same(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little of the history is held at once, however it is cut into steps, and in whatever order readings came."""
    from pipeline.trial import pace, recorded

    rows = waves()
    for i, row in enumerate(rows["machine"]):
        row["ts"] -= (0, 2, 0, 1, 2)[i % 5] * SECOND
    ran(config, rows, tmp_path, "210 s")
    monkeypatch.setattr(recorded, "PART_ROWS", 10)
    monkeypatch.setattr(recorded, "SHORTEST", 3 * SECOND)
    monkeypatch.setattr(pace, "STEP_ROWS", 3)
    history = Recorded(tmp_path / "state")
    streams = {"machine": Graph(config, KeyTable(), None).streams["machine"]}  # type: ignore[arg-type]
    parts = [part["machine"].seq.tolist() for part in history.parts(streams, START, START + 300 * SECOND)]
    history.close()
    assert len(parts) > 10
    assert [seq for part in parts for seq in part] == sorted(seq for part in parts for seq in part)
    comparison, outcome = compared(config, tmp_path)
    assert comparison.differences == []
    assert outcome.readings == {"machine": 200, "doors": 0}


def test_what_lies_behind_a_source_that_is_not_recorded_stands_for_it(tmp_path: Path) -> None:
    """`valid` is recorded and `machine` is not: `high` is replayed from `valid`, and what cannot be is told."""
    path = tmp_path / "pipeline.toml"
    path.write_text(
        FILE.replace('inputs = ["machine", "doors", "high", "levels"', 'inputs = ["valid", "high", "levels"')
    )
    config = checked(path)[0]
    ran(config, waves(), tmp_path, "210 s")
    comparison, outcome = compared(config, tmp_path)
    assert [*outcome.stories[0].alerts] == ["high"]
    assert comparison.recorded == comparison.same > 0
    told = "\n".join(outcome.notes)
    for alert in ("levels", "quiet", "busy", "both"):
        assert f'"{alert}" is left out: "' in told
    assert '"valid" is taken as it was recorded' in told
    assert compared(config, tmp_path, ("operators.valid.where=value > 100",))[0].differences == []


def test_the_state_folder_is_only_read(past: Any) -> None:
    _, folder, _ = past
    before = {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in sorted((folder / "state").rglob("*"))}
    compared(past[0], folder, ("operators.above.when=value > 2",))
    assert {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in sorted((folder / "state").rglob("*"))} == before


def test_history_that_was_dropped_is_told(past: Any, tmp_path: Path) -> None:
    import apsw

    config, folder, _ = past
    copy = tmp_path / "state"
    copy.mkdir()
    (copy / "headwater.db").write_bytes((folder / "state" / "headwater.db").read_bytes())
    db = apsw.Connection(str(copy / "headwater.db"))
    db.execute("DELETE FROM frames WHERE stream = 'machine' AND id < 100")
    db.close()
    _, outcome = compared(config, tmp_path)
    assert any("is no longer kept: windows and alerts begin anew there" in note for note in outcome.notes)
