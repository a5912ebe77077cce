"""A test block runs what `headwater run` runs, in virtual time, and touches nothing outside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.trial.compare import differences
from pipeline.trial.life import run
from pipeline.trial.result import Result
from pipeline.trial.tests import checked

PIPELINE = """
[pipeline]
name = "p"
durability = "{durability}"
commit = "{commit}"
disorder = "1 s"

[sources.readings]
type = "http"
key = "id"
{time}
fields = {{ value = "float" }}

[operators.ten]
type = "window"
input = "readings"
size = "10 s"
aggregate = {{ n = "count()", total = "sum(value)" }}

[operators.high]
type = "alert"
input = "readings"
when = "value > 75"
clear = "value < 25"
for = "3 s"

[sinks.local]
type = "query_server"
inputs = ["readings", "ten", "ten.late"]

[sinks.archive]
type = "file"
inputs = ["ten"]
path = "{path}"

[sinks.cloud]
type = "cloud"
inputs = ["ten", "high"]
url = "http://127.0.0.1:9/"
"""
EVERYTHING = "\n".join(
    f'expect."{n}" = []' for n in ("readings", "ten", "ten.late", "high", "local", "archive", "cloud")
)


def result(folder: Path, block: str, **more: str) -> Result:
    """What came of the one block."""
    values = {"durability": "power", "commit": "0 s", "time": 'time = "ts"', "path": "archive.ndjson"} | more
    file = folder / "pipeline.toml"
    file.write_text(PIPELINE.format(**values) + f'\n[[test]]\nname = "it"\n{block}\n')
    config, _, (made,) = checked(file)
    return run(config, made)


def rows(readings: Sequence[tuple[float, float]]) -> str:
    given = ", ".join(f'{{ at = "{at} s", id = "a", value = {value} }}' for at, value in readings)
    return f"input.readings = [{given}]"


# --- nothing but a temporary folder is touched ----------------------------------------------------------------------


def test_files_and_state_go_elsewhere(tmp_path: Path) -> None:
    """Also those of an absolute path; and nothing listens."""
    elsewhere = tmp_path / "elsewhere" / "archive.ndjson"
    for path in ("archive.ndjson", "../archive.ndjson", str(elsewhere)):
        (tmp_path / "p").mkdir(exist_ok=True)
        came = result(tmp_path / "p", rows([(0, 1)]) + '\nexpect.archive = []\nuntil = "1 min"', path=path)
        assert [row["n"] for row in came.came["archive"]] == [1]
    assert sorted(f.name for f in tmp_path.rglob("*")) == ["p", "pipeline.toml"]


# --- restarts and kills change nothing ------------------------------------------------------------------------------

moments = st.integers(0, 400).map(lambda tenths: tenths / 10)
readings = st.lists(st.tuples(moments, st.sampled_from([0.0, 50.0, 100.0])), min_size=1, max_size=12).map(sorted)
steps = st.lists(st.tuples(moments, st.sampled_from(["restart", "crash"])), max_size=4)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(readings, steps, st.sampled_from(["power", "process"]), st.sampled_from(["0 s", "2 s"]))
def test_stops_and_kills_change_no_row(
    tmp_path: Path, given: list[tuple[float, float]], happens: list[tuple[float, str]], durability: str, commit: str
) -> None:
    """Wherever they fall, each reading counts once, and what comes out of each node and sink is what an undisturbed run
    gives; only the batches of the cloud, and with them the order of its rows, may be others."""
    block = f'{rows(given)}\n{EVERYTHING}\nuntil = "3 min"\n'
    whole = result(tmp_path, block)
    what = ", ".join(f'{{ at = "{at} s", do = "{do}" }}' for at, do in happens)
    other = result(tmp_path, f"{block}steps = [{what}]\n", durability=durability, commit=commit)
    assert other.error == whole.error == ""
    assert len(other.came["readings"]) == len(given)
    for node in whole.came:
        a, b = whole.came[node], other.came[node]
        assert (sorted(map(str, a)) == sorted(map(str, b))) if node in ("cloud", "local") else a == b, node


@pytest.mark.parametrize("do", ["restart", "crash"])
def test_a_finite_source_goes_on_after_a_kill(tmp_path: Path, do: str) -> None:
    """What it had brought is not read again, and its end comes behind its last row."""
    file = tmp_path / "pipeline.toml"
    file.write_text(
        PIPELINE.format(durability="power", commit="0 s", time='time = "ts"', path="a").replace(
            'type = "http"', 'type = "file"\npath = "none.ndjson"'
        )
        + f'[[test]]\nname = "it"\n{rows([(1, 1), (2, 2), (3, 4), (11, 8)])}\nexpect.ten = []\nexpect.readings = []\n'
        f'steps = [{{ at = "2500 ms", do = "{do}" }}, {{ at = "20 s", do = "{do}" }}]\nuntil = "1 min"'
    )
    config, _, (block,) = checked(file)
    came = run(config, block)
    assert came.error == ""
    assert [row["value"] for row in came.came["readings"]] == [1, 2, 4, 8]
    assert [row["total"] for row in came.came["ten"]] == [7, 8]


def test_what_memory_alone_held_is_gone_after_a_restart(tmp_path: Path) -> None:
    """`durability = "none"` means that here, too."""
    block = rows([(1, 1), (2, 2)]) + '\nsteps = [{ at = "1500 ms", do = "restart" }]\nexpect.ten = []\nuntil = "1 min"'
    assert [row["n"] for row in result(tmp_path, block, durability="none").came["ten"]] == [1]
    assert [row["n"] for row in result(tmp_path, block, durability="process").came["ten"]] == [2]


def test_while_it_is_down_senders_wait(tmp_path: Path) -> None:
    """A reading that arrives then is taken when it is up again, and gets the time of that if it has none."""
    for do in ("crash", "restart"):
        block = rows([(1, 1), (5, 2)]) + f'\nsteps = [{{ at = "2 s", do = "{do}", for = "1 min" }}]\n'
        came = result(tmp_path, block + "expect.readings = []", time="").came["readings"]
        start = came[0]["time"] - 1_000_000_000
        assert [(row["time"] - start) / 1e9 for row in came] == [1, 62]


def test_a_pause_makes_nothing_late(tmp_path: Path) -> None:
    """What was sent while the process stood still is taken afterwards; an hour of it is no silence of the source."""
    block = rows([(1, 1), (15, 2)]) + '\nsteps = [{ at = "12 s", do = "pause", for = "1 h" }]\nuntil = "2 h"\n'
    came = result(tmp_path, block + EVERYTHING).came
    assert [row["n"] for row in came["ten"]] == [1, 1]
    assert came["ten.late"] == []
    block = (
        'input.readings = [{ at = "1 s", id = "a", value = 1 }, { at = "3603 s", ts = "3 s", id = "a", value = 2 }]\n'
    )
    block += 'steps = [{ at = "2 s", do = "pause", for = "1 h" }]\nuntil = "2 h"\n'
    assert [row["n"] for row in result(tmp_path, block + EVERYTHING).came["ten"]] == [2]


def test_a_tick_waits_for_its_commit(tmp_path: Path) -> None:
    """With `commit = "30 s"` a window whose time has come leaves with the next commit; until then the loop sleeps (if it
    spun, no time would pass, and this would not end)."""
    block = rows([(1, 1), (25, 1), (28, 2)]) + '\nexpect.ten = []\nuntil = "2 min"'
    assert [row["n"] for row in result(tmp_path, block, commit="30 s").came["ten"]] == [1, 2]


# --- how readings are given -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "given"),
    [("s", 1767225605), ("ms", 1767225605000), ("iso", '"2026-01-01T00:00:05Z"'), ("auto", 1767225605.0)],
)
def test_the_time_of_a_row(tmp_path: Path, unit: str, given: object) -> None:
    """As the source gets it, or as tests write times; without one it is that of its arrival."""
    block = f"""input.readings = [
        {{ at = "5 s", id = "a", value = 1 }}, {{ id = "a", value = 1, ts = {given} }},
        {{ id = "a", value = 1, ts = "5 s" }}, {{ id = "a", value = 1, ts = 2026-01-01T00:00:05Z }},
        {{ at = 2026-01-01T00:00:05Z, id = "a", value = 1 }}]
        expect.readings = []"""
    came = result(tmp_path, block, time=f'time = "ts"\ntime_unit = "{unit}"')
    assert [int(row["time"]) for row in came.came["readings"]] == [1767225605_000_000_000] * 5


def test_a_row_before_the_others_of_its_moment_comes_first(tmp_path: Path) -> None:
    """Rows are sorted by `at`; those of one moment arrive in the order in which they are written."""
    came = result(tmp_path, rows([(3, 1), (1, 2), (3, 3), (1, 4)]) + "\nexpect.readings = []").came["readings"]
    assert [row["value"] for row in came] == [2, 4, 1, 3]


def test_a_full_inbox_makes_senders_wait(tmp_path: Path) -> None:
    """A sink that blocks holds its sources back; once it has room, everything comes, in order."""
    file = tmp_path / "pipeline.toml"
    file.write_text(
        PIPELINE.format(durability="power", commit="0 s", time='time = "ts"', path="a")
        + 'buffer = { size = "1 kB", when_full = "block" }\nbatch = { rows = 1, wait = "0 s" }\n[[test]]\nname = "it"\n'
        + rows([(10 * i, i) for i in range(20)])
        + '\nexpect.readings = []\nexpect.ten = []\nuntil = "1 h"\nsteps = ['
        + '{ at = "0 s", do = "offline" }, { at = "5 min", do = "crash" }, { at = "10 min", do = "online" }]'
    )
    config, _, (block,) = checked(file)
    came = run(config, block).came
    assert [row["value"] for row in came["readings"]] == list(range(20))
    assert sum(row["n"] for row in came["ten"]) == 20


# --- what is compared -----------------------------------------------------------------------------------------------


def compared(tmp_path: Path, want: str) -> list[str]:
    block = f'{rows([(1, 0.1), (2, 0.2)])}\nuntil = "1 min"\nexpect.ten = [{{ {want} }}]'
    return differences(result(tmp_path, block))


@pytest.mark.parametrize(
    ("fits", "does_not"),
    [
        ("total = 0.3", "total = 0.30000001"),
        ("n = 2.0", "n = 3"),
        ('end = "10 s"', 'end = "10.001 s"'),
        ("end = 1767225610", "end = 1767225611"),
        ("end = 1767225610000", "end = 1767225610001"),
        ("end = 2026-01-01T01:00:10+01:00", "end = 2026-01-01T01:00:10Z"),
        ('end = "2026-01-01T00:00:10Z"', 'end = "2026-01-01T00:00:10.000000001Z"'),
        ('id = "a"', 'id = "A"'),
        ("", "n = { missing = true }"),
    ],
)
def test_values(tmp_path: Path, fits: str, does_not: str) -> None:
    """Numbers to nine digits, times as instants in whatever form."""
    assert compared(tmp_path, fits) == []
    assert compared(tmp_path, does_not) != []


def test_a_year_is_exact(tmp_path: Path) -> None:
    """Time is counted in whole microseconds: after a year of waits "1 s" is still 1 s."""
    day = 86_400
    given = [(day * i + 1, float(i)) for i in range(0, 365, 13)]
    came = result(tmp_path, rows(given) + "\nexpect.readings = []", time="").came["readings"]
    start = came[0]["time"] - 1_000_000_000
    assert [(row["time"] - start) / 1e9 for row in came] == [at for at, _ in given]


def test_two_runs_are_alike(tmp_path: Path) -> None:
    block = rows([(i, 100.0 if i % 20 < 10 else 0.0) for i in range(60)])
    block += (
        f'\nsteps = [{{ at = "5 s", do = "offline" }}, {{ at = "2 min", do = "online" }}]\nuntil = "1 h"\n{EVERYTHING}'
    )
    one, other = result(tmp_path, block), result(tmp_path, block)
    assert one.came == other.came
    assert len(one.came["cloud"]) == 12


def test_nan_is_nan(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(
        '[pipeline]\nname = "p"\n[sources.readings]\ntype = "http"\nfields = { value = "float nan" }\n[[test]]\n'
        'name = "it"\ninput.readings = [{ value = nan }]\nexpect.readings = [{ value = nan }]'
    )
    config, _, (block,) = checked(file)
    came = run(config, block)
    assert differences(came) == []
    (row,) = came.came["readings"]
    assert math.isnan(row["value"])


def test_a_machine(tmp_path: Path) -> None:
    """A row of `host` names what matters; the rest is 0, the temperature missing. No machine is asked."""
    file = tmp_path / "pipeline.toml"
    file.write_text(
        '[pipeline]\nname = "p"\n[sources.machine]\ntype = "host"\nname = "pi"\n[[test]]\nname = "it"\n'
        'input.machine = [{ cpu = 5 }, { host = "b", temperature = 60 }]\nuntil = "10 s"\n'
        'expect.machine = [{ host = "pi", cpu = 5, load = 0, temperature = { missing = true } }, { host = "b", temperature = 60 }]'
    )
    config, _, (block,) = checked(file)
    assert differences(run(config, block)) == []
