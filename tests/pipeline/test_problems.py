"""Each wrong file of tests/problems, checked as the command checks it, gives the problems beside it, and no others.

`…` in an expected line stands for anything.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.problem import ConfigError, Problem, did_you_mean, dotted, nearest
from pipeline.trial.tests import checked as check

FOLDER = Path(__file__).parents[1] / "problems"


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.toml")))
def test_a_wrong_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    before = sorted(FOLDER.iterdir())
    with pytest.raises(ConfigError) as raised:
        check(Path(f"{name}.toml"))
    shown = str(raised.value).splitlines()
    expected = (FOLDER / f"{name}.expect").read_text(encoding="utf-8").splitlines()
    patterns = [".*".join(map(re.escape, line.split("…"))) for line in expected]
    for problem in shown:
        assert any(re.fullmatch(pattern, problem) for pattern in patterns), f"not expected: {problem}"
    for line, pattern in zip(expected, patterns, strict=True):
        assert sum(re.fullmatch(pattern, problem) is not None for problem in shown) == 1, f"missing: {line}"
    assert len(shown) == len(expected)
    assert sorted(FOLDER.iterdir()) == before, "a file that is wrong leaves nothing behind"


def test_problems_sort_by_line() -> None:
    """Whatever the paths are made of; the same one is shown once."""
    problems = [Problem(3, ("a", 0), "x"), Problem(3, ("a", "b"), "x"), Problem(1, (), "y"), Problem(3, ("a", 0), "x")]
    error = ConfigError(Path("p.toml"), problems)
    assert str(error) == "p.toml:1: y\np.toml:3: a[0]: x\np.toml:3: a.b: x"
    assert min(problems) == Problem(1, (), "y")


def test_a_path_is_shown_as_it_is_written() -> None:
    assert dotted(("operators", "a b", "levels", 0, "when")) == 'operators."a b".levels[0].when'


def test_a_word_that_is_near() -> None:
    """Case does not count; what is far is not suggested."""
    assert nearest("Temprature", ["humidity", "temperature"]) == "temperature"
    assert nearest("kb", ["kB"]) == "kB"
    assert did_you_mean("qqq", ["humidity", "temperature"]) == ""
    assert did_you_mean("filtr", ["filter"]) == ' (did you mean "filter"?)'
