"""A test in which only readings come is run in large steps, and gives what the engine gives step by step."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.trial import life, stretch
from pipeline.trial.block import Block
from pipeline.trial.loop import VirtualLoop
from pipeline.trial.reader import read
from pipeline.trial.result import Result
from pipeline.trial.tests import checked

HEAD = """
[pipeline]
name = "p"
disorder = "2 s"
idle = "5 s"

[sources.in]
type = "http"
key = "id"
time = "ts"
fields = { value = "float?", open = "bool" }
"""
OPERATORS = {
    "valid": 'type = "filter"\ninput = "in"\nwhere = "value > -6 and previous(value) < 6"',
    "new": 'type = "changes"\ninput = "in"\nfields = ["value"]',
    "made": 'type = "derive"\ninput = "valid"\nset = { twice = "value * 2" }',
    "ways": 'type = "switch"\ninput = "in"\ncases = { low = "value < 0", high = "value >= 0" }',
    "tens": 'type = "window"\ninput = "valid"\nsize = "10 s"\naggregate = { n = "count()", mean = "mean(value)" }',
    "late": 'type = "window"\ninput = "in"\nsize = "4 s"\nlateness = "6 s"\naggregate = { n = "count()", s = "sum(value)" }',
    "hops": 'type = "window"\ninput = "in"\nwindow = "hopping"\nsize = "9 s"\nevery = "3 s"\naggregate = { low = "min(value)" }',
    "slides": 'type = "window"\ninput = "in"\nwindow = "sliding"\nsize = "7 s"\naggregate = { n = "count()" }',
    "visits": 'type = "window"\ninput = "in"\nwindow = "session"\ngap = "6 s"\nby = []\naggregate = { n = "count()" }',
    "threes": 'type = "window"\ninput = "in"\nwindow = "count"\nsize = 3\naggregate = { last = "last(value)" }',
    "more": 'type = "window"\ninput = "tens"\nsize = "30 s"\naggregate = { windows = "count()" }',
    "high": 'type = "alert"\ninput = "in"\nwhen = "value > 2"\nclear = "value < 0"\nfor = "3 s"\nkeep = "8 s"\nrepeat = "5 s"',
    "levels": 'type = "alert"\ninput = "in"\n'
    'levels = { warning = { when = "value > 1" }, critical = { when = "value > 3", for = "4 s" } }',
    "quiet": 'type = "alert"\ninput = "in"\nsilent_for = "8 s"',
    "held": 'type = "alert"\ninput = "valid"\nwhen = "value > 0"\nfor = "2 s"\ninhibit = "quiet"',
    "rooms": 'type = "alert"\ninput = "in"\nwhen = "open"\ngroup = { within = "3 s" }',
    "busy": 'type = "alert"\ninput = "tens"\nwhen = "n > 2"\nfor = "15 s"',
    "both": 'type = "alert"\ninputs = ["ways.low", "new"]\nwhen = "value < 0"\nfor = "4 s"',
    "steady": 'type = "resample"\ninput = "in"\nevery = "3 s"',
    "calm": 'type = "sample"\ninput = "in"\nmethod = "debounce"\nperiod = "4 s"',
    "lasts": 'type = "sample"\ninput = "in"\nmethod = "last"\nperiod = "6 s"',
    "asof": 'type = "join"\ninput = "in"\nwith = "tens"\ntolerance = "20 s"\nfields = ["n"]',
    "then": 'type = "pattern"\ninput = "in"\nsequence = [{ when = "value > 2" }, { when = "value < 0", within = "9 s" }]',
    "left": 'type = "pattern"\ninput = "in"\nsequence = [{ when = "open" }, { without = "not open", within = "6 s" }]',
    "odd": 'type = "anomaly"\ninput = "in"\nfield = "value"',
}


def made(tmp_path: Path, operators: dict[str, str] = OPERATORS, head: str = HEAD) -> Config:
    path = tmp_path / "pipeline.toml"
    path.write_text(head + "".join(f"\n[operators.{name}]\n{text}\n" for name, text in operators.items()))
    return checked(path)[0]


NEEDED = {
    "made": ["valid"],
    "tens": ["valid"],
    "more": ["tens", "valid"],
    "held": ["valid", "quiet"],
    "busy": ["tens", "valid"],
    "both": ["ways", "new"],
    "asof": ["tens", "valid"],
}


def block_of(config: Config, rows: list[dict[str, Any]], until: str | None, **more: Any) -> Block:
    from pipeline.frame import KeyTable
    from pipeline.graph import Graph

    graph = Graph(config, KeyTable(), None)  # type: ignore[arg-type]
    expect: dict[str, list[Any]] = {name: [] for name in graph.streams}
    config.tests = [{"name": "x", "input": {"in": rows}, "expect": expect, "until": until, **more}]
    if until is None:
        del config.tests[0]["until"]
    (block,), problems = read(config, graph)
    assert not problems, problems
    return block


def by_engine(config: Config, block: Block) -> Result:
    loop, result = VirtualLoop(), Result(block)
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(life._Trial(config, block, loop, Path(folder), result).run())
    return result


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[dict[str, Any]], str | None]:
    now, rows = 0, []
    pauses = st.sampled_from(draw(st.sampled_from([[0, 1], [1], [6], [1, 20], [0, 0, 1, 1, 2, 3, 5, 6, 7, 20]])))
    backs = st.sampled_from(draw(st.sampled_from([[0], [0, 0, 0, 1], [0, 0, 1, 4], [0, 0, 0, 2, 9]])))
    one = st.tuples(pauses, backs, st.sampled_from("abc"), st.one_of(st.none(), st.integers(-8, 8)), st.booleans())
    for pause, back, key, value, open_ in draw(st.lists(one, max_size=50)):
        now += pause
        rows.append({"at": f"{now} s", "id": key, "open": open_, "ts": f"{max(now - back, 0)} s"})
        if value is not None:
            rows[-1]["value"] = value / 2
    return rows, draw(st.sampled_from([None, f"{now} s", f"{now + 7} s", f"{now + 100} s"]))


@st.composite
def pipelines(draw: st.DrawFn) -> dict[str, str]:
    """Some of the operators, and those that they read."""
    timed = st.sampled_from(
        ["high", "levels", "quiet", "held", "rooms", "calm", "left"]
    )  # what a wrong step would show at
    chosen = set(draw(st.lists(st.one_of(timed, st.sampled_from([*OPERATORS])), min_size=1, max_size=4)))
    chosen |= {needed for name in chosen for needed in NEEDED.get(name, ())}
    return {name: text for name, text in OPERATORS.items() if name in chosen}


def example_of(name: str, until: str, *readings: tuple[int, str, bool, float]) -> Any:
    """Readings at which an operator shows what became of time between them."""
    rows = [{"at": f"{t} s", "ts": f"{t} s", "id": k, "open": o, "value": v} for t, k, o, v in readings]
    chosen = {n: OPERATORS[n] for n in OPERATORS if n == name or n in NEEDED.get(name, ())}
    return example(operators=chosen, came=(rows, until), most=4_096, part=8_192, live=True)


# Each try runs an engine, so an example that fails is not shrunk: that would take minutes.
@settings(
    max_examples=100,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    operators=pipelines(),
    came=arrivals(),
    most=st.sampled_from([2, 4, 4_096]),
    part=st.sampled_from([3, 8_192]),
    live=st.booleans(),
)
@example_of(
    "held",
    "69 s",
    (20, "b", False, -2),
    (21, "b", True, 4),
    (41, "a", True, 1.5),
    (42, "c", False, -3),
    (62, "c", True, 2),
)
@example_of(
    "held",
    "88 s",
    (20, "b", True, -4),
    (40, "a", True, 0),
    (60, "c", False, 2.5),
    (61, "b", False, 1.5),
    (81, "a", True, 4),
)
@example_of("left", "14 s", (1, "a", False, -4), (6, "c", True, 2.5), (7, "a", True, 0.5))
def test_a_stretch_gives_what_the_engine_gives(
    tmp_path: Path, operators: dict[str, str], came: Any, most: int, part: int, live: bool
) -> None:
    """Every row of every node, in the same order and to the last bit; or it leaves the test to the engine."""
    head = HEAD if live else HEAD.replace('"http"', '"file"\npath = "x.ndjson"')
    config = made(tmp_path, operators, head)
    block = block_of(config, *came)
    quick = Result(block)
    assert stretch.fits(config, block)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretch, "MOST", most)
        patch.setattr(stretch, "PART_ROWS", part)
        done = stretch.run(config, block, quick)
    if done:
        slow = by_engine(config, block)
        for node in block.expect:
            assert repr(quick.came[node]) == repr(slow.came[node]), node


PATIENT = HEAD.replace('"5 s"', '"1 min"').replace('"2 s"', '"1 s"')


def test_a_window_that_takes_late_readings_is_taken_back_whole(tmp_path: Path) -> None:
    """A step on trial comes to where the window is past, and is taken back: a late reading still corrects it."""
    config = made(tmp_path, {"late": OPERATORS["late"].replace('"4 s"', '"10 s"').replace('"6 s"', '"8 s"')}, PATIENT)
    came = [(2, 2), (7, 7), (12, 12), (14, 6), (17, 17), (20, 20), (22, 5), (23, 23)]
    rows = [{"at": f"{at} s", "ts": f"{ts} s", "id": "a", "open": True, "value": 1} for at, ts in came]
    block = block_of(config, rows, "25 s")
    quick = Result(block)
    assert stretch.run(config, block, quick)
    assert [(row["n"], row["revision"]) for row in quick.came["late"]] == [(2, 0), (3, 1), (2, 0)]
    assert quick.came == by_engine(config, block).came


MINUTES = [{"at": f"{60 * i} s", "id": "a", "open": False, "value": float(i % 50)} for i in range(2_000)]


def test_many_readings_go_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step for each window that closes, and not for each reading."""
    from pipeline.graph import Graph

    pushed = []
    push = Graph.push

    def counted(graph: Graph, *given_: Any) -> Any:
        pushed.append(1)
        return push(graph, *given_)

    operators = {"hour": 'type = "window"\ninput = "in"\nsize = "1 h"\naggregate = { n = "count()" }'}
    operators["hot"] = 'type = "alert"\ninput = "in"\nwhen = "value > 100"\nfor = "2 min"'
    config = made(tmp_path, operators)
    block = block_of(config, MINUTES, None)
    result = Result(block)
    monkeypatch.setattr(Graph, "push", counted)
    assert stretch.run(config, block, result)
    assert [row["n"] for row in result.came["hour"]] == [60] * 33
    assert len(pushed) < 200


@pytest.mark.parametrize(
    ("head", "operator", "rows", "more"),
    [
        (HEAD, 'type = "filter"\ninput = "in"\nwhere = "age(time) < 5"', [], {}),
        (HEAD, OPERATORS["new"], [], {"steps": [{"at": "1 s", "do": "restart"}]}),
        (HEAD + '[sources.b]\ntype = "http"\npath = "/b"\nfields = { x = "int" }\n', OPERATORS["new"], [], {}),
        (HEAD, 'type = "alert"\ninput = "in"\nsilent_for = "9 s"\nexpect = ["a"]', [], {}),
        (HEAD, OPERATORS["new"], [{"at": "1 s", "id": "a", "open": 7}], {}),
        (HEAD, OPERATORS["new"], [{"at": "1 s", "id": "a", "open": True, "ts": "9 min"}], {}),
        (HEAD, OPERATORS["new"], [{"at": t, "id": "a", "open": True, "ts": "0 s"} for t in ("0 s", "9 s")], {}),
    ],
)
def test_what_is_left_to_the_engine(
    tmp_path: Path, head: str, operator: str, rows: list[dict[str, Any]], more: dict[str, Any]
) -> None:
    """And then comes out as it would without any of this."""
    config = made(tmp_path, {"node": operator}, head)
    block = block_of(config, rows, "20 s", **more)
    quick = Result(block)
    assert not (stretch.fits(config, block) and stretch.run(config, block, quick))
    assert repr(life.run(config, block).came) == repr(by_engine(config, block).came)
