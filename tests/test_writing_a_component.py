"""docs/writing-a-component.md as somebody follows it: its commands run, and its code is that of what they make."""

from __future__ import annotations

import doctest
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.command import skeleton
from tests.venv import ROOT, Venv

PAGE = (ROOT / "docs" / "writing-a-component.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_commands_do_what_is_said(tmp_path: Path) -> None:
    """In their order, in an environment of their own."""
    venv = Venv(tmp_path / "venv")
    here = tmp_path
    (block,) = blocks("sh")
    ran = []
    for line in block.splitlines():
        command, *words = shlex.split(line)
        ran.append(command)
        if command == "cd":
            here /= words[0]
        elif command == "pip":
            assert words == ["install", "--editable", ".[test]"]
            venv.install(here, editable=True)  # what `test` brings is there, and nothing comes from a network
        else:
            module = {"headwater": "pipeline.command", "pytest": "pytest"}[command]
            done = venv.run("-m", module, *words, cwd=here)
            assert done.returncode == 0, line + done.stdout + done.stderr
    assert ran == ["headwater", "cd", "pip", "pytest", "headwater", "headwater"]
    for file in re.findall(r"`(headwater_\w+\.py|test_\w+\.py|\w+\.toml)`", PAGE.partition("## What comes in")[0]):
        assert (here / file).exists()


MADE = [text for kind in skeleton.KINDS for text in skeleton.files(kind, "rate").values()]
EXAMPLE = (ROOT / "examples/degree-days/headwater_degree_days.py").read_text()


@pytest.mark.parametrize("block", [*blocks("python"), *blocks("toml")], ids=lambda block: block.split("\n")[0].strip())
def test_the_code_is_that_of_the_files(block: str) -> None:
    """Which tests/pipeline/command/test_init_component.py and tests/test_plug_in.py run."""
    assert any(block in text for text in [*MADE, EXAMPLE]), "this stands in no file"


def test_what_is_shown_of_frames_is_so() -> None:
    session = "".join(blocks("pycon"))
    test = doctest.DocTestParser().get_doctest(session, {}, "page", None, 0)
    assert len(test.examples) > 8
    result = doctest.DocTestRunner().run(test, out=sys.stderr.write)
    assert result.failed == 0


def test_what_one_may_rely_on_is_what_is_made_of_it() -> None:
    """The modules that the made files and the example import, and each that is named is there."""
    (named,) = re.findall(r"^You may rely on (.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    public = {word.removeprefix("pipeline.") for word in re.findall(r"`([\w.]+)`", named)}
    for module in public:
        assert (ROOT / "pipeline" / f"{module}.py").exists() or (ROOT / "pipeline" / module).is_dir()
    for text in [*MADE, EXAMPLE]:
        used = {name.partition(".")[0] for name in re.findall(r"^from pipeline\.([\w.]+) import", text, re.MULTILINE)}
        assert used <= public


def test_the_entry_point_is_that_of_the_package() -> None:
    made = tomllib.loads(skeleton.files("operator", "rate")["pyproject.toml"])
    (block,) = (block for block in blocks("toml") if "entry-points" in block)
    assert tomllib.loads(block)["project"]["entry-points"] == made["project"]["entry-points"]
