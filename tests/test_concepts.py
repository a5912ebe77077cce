"""The pages of docs/concepts: their pipelines are good and their tests pass; their pictures are what the code draws."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.concepts import draw
from docs.concepts.story import pipelines
from pipeline.trial import life
from pipeline.trial.compare import differences
from pipeline.trial.tests import checked

PAGES = sorted(draw.HERE.glob("*.md"))
PIPELINES = [pytest.param(page, name, id=f"{page.stem}-{name}") for page in PAGES for name in pipelines(page)]


@pytest.mark.parametrize(("page", "name"), PIPELINES)
def test_what_a_page_shows_is_so(page: Path, name: str, tmp_path: Path) -> None:
    """As `headwater test` on the file."""
    file = tmp_path / "pipeline.toml"
    file.write_text(pipelines(page)[name])
    for path, content in draw.FILES.get(name, {}).items():
        (tmp_path / path).write_text(content)
    config, _, blocks = checked(file)
    assert blocks
    for block in blocks:
        assert differences(life.run(config, block)) == []


def test_each_block_of_toml_was_run() -> None:
    for page in PAGES:
        assert len(pipelines(page)) == page.read_text().count("```toml\n"), page


def test_the_pictures_are_what_the_code_draws() -> None:
    """Anew: `python -m docs.concepts.draw`."""
    drawn = draw.drawn()
    assert drawn.keys() == {file.name for file in draw.HERE.glob("*.svg")}
    for name, text in drawn.items():
        assert (draw.HERE / name).read_text() == text, name


def test_each_picture_is_in_a_page_and_says_what_it_shows() -> None:
    shown = [found for page in PAGES for found in re.findall(r"!\[(.{30,})\]\((\w+\.svg)\)", page.read_text())]
    assert {name for _, name in shown} == {file.name for file in draw.HERE.glob("*.svg")}
