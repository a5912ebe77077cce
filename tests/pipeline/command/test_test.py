"""`headwater test`: what its blocks may say, what it prints, and how it ends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.command.__main__ import main

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
