"""`headwater test`: what its blocks may say, what it prints, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pipeline.command.__main__ import main
from tests.device import free_port

ROOT = Path(__file__).resolve().parents[3]

HEAD = """
[pipeline]
name = "p"

[sources.readings]
type = "http"
key = "id"
time = "ts"
fields = { value = "float" }

[operators.ten]
type = "window"
input = "readings"
size = "10 s"
aggregate = { n = "count()" }

[sinks.cloud]
type = "cloud"
input = "ten"
url = "http://127.0.0.1:9/"
"""
GOOD = """
[[test]]
name = "two in a window"
input.readings = [{ at = "1 s", id = "a", value = 1 }, { at = "2 s", id = "a", value = 2 }]
expect.ten = [{ id = "a", n = 2 }]
until = "1 min"
"""
BAD = """
[[test]]
name = "wrong in every way"
input.readings = [
    { at = "1 s", id = "a", value = 1 },
    { at = "2 s", id = "b", value = 1 },
    { at = "3 s", id = "c", value = "one" },
    { at = "12 s", id = "d", value = 1 },
]
expect.ten = [
    { id = "a", n = 1 },
    { id = "a", n = 1.5, end = "2026-01-01T00:00:11Z" },
    { id = "d", n = 1 },
    { id = "e", time = "1 min" },
]
until = "1 min"
"""


def run(tmp_path: Path, text: str, *words: str, command: str = "test") -> int:
    file = tmp_path / "pipeline.toml"
    file.write_text(text)
    return main([command, str(file), *words])


# --- what is printed, and the exit status ---------------------------------------------------------------------------


def test_all_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0, a line for each, and nothing is left behind."""
    assert run(tmp_path, HEAD + GOOD) == 0
    assert re.fullmatch(r"pass  two in a window\n1 test, all passed \([0-9.]+ s\)\n", capsys.readouterr().out)
    assert [file.name for file in tmp_path.iterdir()] == ["pipeline.toml"]


def test_a_difference_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1, and which row, which field, what came instead; then what may be the cause."""
    assert run(tmp_path, HEAD + GOOD + BAD) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[:-1] == [
        "pass  two in a window",
        f"FAIL  wrong in every way  ({tmp_path}/pipeline.toml:28)",
        "      ten: 4 rows expected, 3 came",
        "        = 1 row as expected",
        '        ! row 2, id: expected "a", got "b"',
        "        ! row 2, n: expected 1.5, got 1",
        '        ! row 2, end: expected "2026-01-01T00:00:11Z", got "2026-01-01T00:00:10.000Z"',
        '            the whole row: { id = "b", time = "10 s", start = "0 s", end = "10 s", revision = 0, n = 1 }',
        "        = row 3",
        '        - row 4 is missing: { id = "e", time = "1 min" }',
        '      note: "readings" refused 1 reading: value: expected a number, got text',
    ]
    assert out[-1].startswith("2 tests, 1 passed, 1 failed (")


def test_rows_that_were_not_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`[]` is nothing at all; a test without `until` says when it ended."""
    text = GOOD.replace('[{ id = "a", n = 2 }]', "[]").replace('until = "1 min"', "expect.readings = []")
    assert run(tmp_path, HEAD + text) == 1
    assert capsys.readouterr().out.splitlines()[1:-1] == [
        "      readings: 0 rows expected, 2 came",
        '        + { id = "a", time = "1 s", value = 1.0 } was not expected',
        '        + { id = "a", time = "2 s", value = 2.0 } was not expected',
        "      note: it ended with its last row or step, at 2 s; until = … lets more time pass",
    ]


def test_much_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a thousand rows too many, some are shown."""
    rows = ", ".join(f'{{ at = "1 s", id = "a", value = {i} }}' for i in range(1000))
    assert run(tmp_path, f'{HEAD}[[test]]\nname = "many"\ninput.readings = [{rows}]\nexpect.readings = []\n') == 1
    assert len(capsys.readouterr().out.splitlines()) < 25


def test_one_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, HEAD + GOOD + BAD, "--name", "two in a window") == 0
    assert "wrong" not in capsys.readouterr().out
    assert run(tmp_path, HEAD + GOOD + BAD, "--name", "two in a widow") == 2
    assert 'no test "two in a widow" (did you mean "two in a window"?)' in capsys.readouterr().err


def test_no_tests_are_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, HEAD) == 0
    assert "no tests" in capsys.readouterr().out


def test_a_wrong_block_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its line, in `test` and in `check`; nothing is run. `headwater run` does not look at it."""
    text = HEAD + GOOD.replace("value = 2", "vaule = 2")
    for command in ("test", "check"):
        assert run(tmp_path, text, command=command) == 2
        captured = capsys.readouterr()
        assert 'pipeline.toml:24: test[0].input.readings[1].vaule: "vaule" is not a field of "readings"' in captured.err
        assert captured.out == ""
    from pipeline.run import check

    check(tmp_path / "pipeline.toml")


def test_a_pipeline_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the engine fails the test, and the next one is run."""
    from operators.window import Window

    def fails(self: Window) -> dict[str, object]:
        raise ValueError("no state today")

    monkeypatch.setattr(Window, "snapshot", fails)
    assert run(tmp_path, HEAD + GOOD + GOOD.replace("two in", "again two in")) == 1
    assert capsys.readouterr().out.count("it did not come to its end: ValueError: no state today") == 2


# --- examples, docs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", [ROOT / "pipeline.toml", *sorted((ROOT / "examples").glob("*.toml"))], ids=lambda file: file.name
)
def test_an_example_has_tests_that_pass(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(file)]) == 0, capsys.readouterr().out
    assert "all passed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", re.findall(r"^```toml\n(.*?)^```", (ROOT / "docs/test.md").read_text(), re.MULTILINE | re.DOTALL)
)
def test_what_the_docs_show_passes(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each block of docs/test.md, on the pipeline that its page begins with."""
    first = re.search(r"^```toml\n(.*?)^```", (ROOT / "docs/test.md").read_text(), re.MULTILINE | re.DOTALL)
    assert first is not None
    (tmp_path / "morning.ndjson").write_text('{"id": "fan", "ts": "2026-03-01T07:00:00Z", "speed": 900}\n')
    assert run(tmp_path, first[1] if text == first[1] else first[1].partition("[[test]]")[0] + text) == 0, (
        capsys.readouterr().out
    )
    assert "all passed" in capsys.readouterr().out


# --- for machines, again and again, and what was not tried ------------------------------------------------------------


def test_results_for_ci(tmp_path: Path) -> None:
    """JUnit XML: a case for each test, with its line; a failure has what was printed."""
    out = tmp_path / "results.xml"
    assert run(tmp_path, HEAD + GOOD + BAD.replace("wrong in", "wr\\u0007<ong> in"), "--junit", str(out)) == 1
    top = ET.parse(out).getroot()
    assert (top.get("tests"), top.get("failures")) == ("2", "1")
    good, bad = top.iter("testcase")
    assert (good.get("name"), good.get("classname"), list(good)) == ("two in a window", "p", [])
    assert (bad.get("name"), bad.get("line")) == ("wr\ufffd<ong> in every way", "28")
    (failure,) = bad
    assert failure.get("message") == "ten: 4 rows expected, 3 came"
    assert "! row 2, n: expected 1.5, got 1" in (failure.text or "")


CONDITIONS = """
[pipeline]
name = "p"

[sources.readings]
type = "http"
key = "id"
time = "ts"
fields = { value = "float?" }

[operators.good]
type = "filter"
input = "readings"
where = "value < 100"

[operators.hot]
type = "alert"
input = "good"
levels = { warning = { when = "value > 10", clear = "value < 8" }, critical = { when = "value > 20" } }

[operators.cold]
type = "alert"
input = "readings"
when = "value < 3"
for = "1 s"

[operators.ways]
type = "switch"
input = "good"
cases = { low = "value < 5", high = "value >= 5" }

[sinks.out]
type = "file"
inputs = ["hot", "ways.low", "ways.high"]
path = "out.ndjson"

[[test]]
name = "warm"
input.readings = [{ at = "1 s", id = "a", value = 7 }, { at = "2 s", id = "a", value = 11 }]
expect.hot = [{ level = "warning" }]
"""


def test_coverage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which conditions no test has seen to hold, or not to hold, with their lines; unknown is not holding."""
    assert run(tmp_path, CONDITIONS, "--coverage") == 0
    file = tmp_path / "pipeline.toml"
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"{file}:14: operators.good.where: value < 100: never failed to hold in any test",
        f"{file}:19: operators.hot.levels.critical.when: value > 20: never held in any test",
        f"{file}:24: operators.cold.when: value < 3: never held in any test",
        f"{file}:30: operators.ways.cases.high: value >= 5: never failed to hold in any test",
        f"{file}:30: operators.ways.cases.low: value < 5: never held in any test",
        "2 of 7 conditions seen to hold and not to hold",
    ]
    more = """
[[test]]
name = "the rest"
input.readings = [{ at = "1 s", id = "a", value = 3 }, { at = "2 s", id = "a", value = 21 }, { at = "3 s", id = "a" }]
expect.readings = [{}, {}, {}]
"""
    assert run(tmp_path, CONDITIONS + more, "--coverage") == 0
    assert capsys.readouterr().out.splitlines()[3:] == [
        f"{file}:24: operators.cold.when: value < 3: never held in any test",
        "6 of 7 conditions seen to hold and not to hold",
    ]


def test_watching(tmp_path: Path) -> None:
    """Run again when the file has changed, or one that it names; SIGINT ends it."""
    file, rows = tmp_path / "pipeline.toml", tmp_path / "rows.ndjson"
    rows.write_text('{"id": "a", "ts": 1767225601000, "value": 1}\n')
    text = GOOD.replace('[{ at = "1 s", id = "a", value = 1 }, { at = "2 s", id = "a", value = 2 }]', '"rows.ndjson"')
    file.write_text(HEAD + text.replace("n = 2", "n = 1"))
    words = [sys.executable, "-m", "pipeline.command", "test", str(file), "--watch"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    assert process.stdout is not None

    def until(said: str) -> str:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(said):
                return line
        raise AssertionError(f"it ended without {said}")

    try:
        until("1 test, all passed")
        rows.write_text('{"id": "a", "ts": 1767225601000, "value": 1}\n' * 2)
        until("FAIL")
        until("1 test, 0 passed, 1 failed")
        file.write_text(HEAD + text)
        until("1 test, all passed")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stdout.close()


# --- what was recorded ------------------------------------------------------------------------------------------------

RECORDED = """
[pipeline]
name = "oven"
state = "state"

[sources.oven]
type = "file"
path = "in.csv"
format = "csv"
key = "id"
time = "ts"
time_unit = "s"
fields = { temperature = "float", note = "string?" }

[operators.overheat]
type = "alert"
input = "oven"
when = "temperature > 30"
clear = "temperature < 28"
for = "2 s"

[sinks.local]
type = "query_server"
inputs = ["oven", "overheat"]
"""


@pytest.fixture
def oven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A pipeline that has run: `a` was too hot from 5 to 9, `b` never."""
    file = tmp_path / "pipeline.toml"
    file.write_text(RECORDED + f'\n[server]\nlisten = "127.0.0.1:{free_port()}"\n')
    notes = {4: 'open "x'}
    warm = [f"a,{1_769_860_800 + i},{33 if 5 <= i < 9 else 20},{notes.get(i, '')}" for i in range(20)]
    cool = [f"b,{1_769_860_800 + i - 1},21.5," for i in range(20)]
    lines = [line for both in zip(warm, cool, strict=True) for line in both]
    (tmp_path / "in.csv").write_text("id,ts,temperature,note\n" + "\n".join(lines) + "\n")
    assert main(["run", str(file)]) == 0
    capsys.readouterr()
    return file


def test_what_was_recorded_becomes_a_test_that_passes(oven: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the readings of the span, their own times where they are not those of arrival, and the alerts of that span."""
    span = ["--from", "2026-01-31T12:00:04Z", "--to", "2026-01-31T12:00:15Z"]
    assert main(["test", str(oven), "--record", "false alarm", *span, "--keys", "a"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[:5] == [
        "[[test]]",
        'name = "false alarm"',
        'start = "2026-01-31T12:00:04.000Z"',
        "input.oven = [",
        '    { at = "0 s", id = "a", temperature = 20.0, note = "open \\"x" },',
    ]
    assert out.splitlines()[-5:] == [
        "expect.overheat = [",
        '    { id = "a", time = "3 s", state = "firing", level = "warning", since = "1 s" },',
        '    { id = "a", time = "5 s", state = "cleared", since = "1 s" },',
        "]",
        'until = "12 s"',
    ]
    assert main(["test", str(oven), "--record", "all of it", *span, "--append"]) == 0
    assert capsys.readouterr().err == ""
    assert 'at = "2 s", ts = "1 s", id = "b"' in oven.read_text()
    assert main(["test", str(oven)]) == 0
    oven.write_text(oven.read_text().replace("temperature > 30", "temperature > 40"))
    assert main(["test", str(oven)]) == 1


def recorded_behind_a_filter(oven: Path, operator: str) -> list[str]:
    """The words by which a test is made of what has come through this operator; what the source gave is not recorded."""
    text = oven.read_text().replace('state = "state"', 'state = "other"').replace('input = "oven"', 'input = "valid"')
    text = text.replace('inputs = ["oven", "overheat"]', 'inputs = ["valid", "overheat"]')
    oven.write_text(f"{text}\n[operators.valid]\ninput = 'oven'\n{operator}\n")
    assert main(["run", str(oven)]) == 0
    span = ["--from", "2026-01-31T12:00:04Z", "--to", "2026-01-31T12:00:15Z"]
    return ["test", str(oven), "--record", "false alarm", *span, "--append"]


def test_what_a_filter_let_through_stands_for_what_came(oven: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = recorded_behind_a_filter(oven, 'type = "filter"\nwhere = "temperature < 25 or temperature > 30"')
    assert main(words) == 0
    assert "# what valid has let through: oven is not recorded\ninput.oven = [\n" in oven.read_text()
    assert 'state = "firing"' in oven.read_text()
    assert main(["test", str(oven)]) == 0


def test_what_is_not_recorded_is_told_with_the_way_out(oven: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = recorded_behind_a_filter(oven, 'type = "derive"\nset = { temperature = "temperature + 1" }')
    capsys.readouterr()
    assert main(words) == 2
    said = 'no readings are recorded there: "oven" must be among the inputs of a query_server'
    assert said in capsys.readouterr().err


def test_what_the_test_does_not_know_is_told(oven: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It begins when the alert was firing already."""
    span = ["--from", "2026-01-31T12:00:08Z", "--to", "2026-01-31T12:00:15Z"]
    assert main(["test", str(oven), "--record", "too late", *span]) == 0
    assert "it does not pass as it stands; what was before --from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--record", "x"], "--record takes --from"),
        (["--record", "x", "--from", "2030-01-01T00:00:00Z"], "no readings are recorded there"),
        (["--record", "x", "--from", "2026-01-31T12:00:00Z", "--keys", "c"], "no readings are recorded there"),
        (["--append"], "--append goes with --record"),
        (["--keys", "a"], "--keys goes with --record"),
    ],
)
def test_what_cannot_be_recorded(oven: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    before = oven.read_text()
    assert main(["test", str(oven), *words]) == 2
    assert said in capsys.readouterr().err
    assert oven.read_text() == before
