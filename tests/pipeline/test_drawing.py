"""The graph as a picture: every node and every way between two is in it, whatever draws it."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pipeline.drawing import GAP_Y, HEIGHT, WIDTH, Drawing, dot, drawing, mermaid, svg
from pipeline.run import check

FILE = """
[pipeline]
name = "p"

[sources.in]
type = "file"
path = "in.ndjson"
key = "id"
fields = { value = "float" }

[operators.end]
type = "window"
input = "in"
size = "10 s"
aggregate = { n = "count()" }

[operators.hot]
type = "alert"
input = "in"
when = "value > 1"

[operators.quiet]
type = "alert"
input = "in"
when = "value < -1"
inhibit = "hot"

[sinks.out]
type = "file"
inputs = ["end", "end.late", "hot", "quiet"]
path = "out.ndjson"
"""


@pytest.fixture
def drawn(tmp_path: Path) -> Drawing:
    file = tmp_path / "p.toml"
    file.write_text(FILE)
    return drawing(check(file)[1])


def test_the_arrows_are_inputs_outputs_and_sides(drawn: Drawing) -> None:
    assert set(drawn.arrows) == {
        ("in", "end", ""),
        ("in", "hot", ""),
        ("in", "quiet", ""),
        ("hot", "quiet", "inhibit"),
        ("end", "out", ""),
        ("end", "out", "late"),
        ("hot", "out", ""),
        ("quiet", "out", ""),
    }


def test_a_node_stands_behind_all_that_it_reads(drawn: Drawing) -> None:
    assert {box.name: box.rank for box in drawn.boxes} == {"in": 0, "end": 1, "hot": 1, "quiet": 2, "out": 3}


def test_mermaid(drawn: Drawing) -> None:
    lines = mermaid(drawn).splitlines()
    assert lines[0] == "flowchart LR"
    assert '    n_end["end<br/>window"]' in lines  # "end" alone would mean something to Mermaid
    assert "    n_end -->|late| n_out" in lines
    assert len(lines) == 1 + len(drawn.boxes) + len(drawn.arrows)


def test_dot(drawn: Drawing) -> None:
    text = dot(drawn)
    assert text.startswith("digraph pipeline {")
    assert text.endswith("}")
    assert '"hot" -> "quiet" [label="inhibit"];' in text
    assert len(re.findall(r" -> ", text)) == len(drawn.arrows)


def test_the_picture_has_every_box_and_no_two_overlap(drawn: Drawing) -> None:
    root = ET.fromstring(svg(drawn))
    of = "{http://www.w3.org/2000/svg}"
    names = [text.text for text in root.iter(f"{of}text") if text.get("font-weight")]
    assert sorted(map(str, names)) == ["end", "hot", "in", "out", "quiet"]
    boxes = [
        (int(box.get("x", 0)), int(box.get("y", 0))) for group in root.iter(f"{of}g") for box in group.iter(f"{of}rect")
    ]
    for i, (x, y) in enumerate(boxes):
        for other_x, other_y in boxes[:i]:
            assert abs(x - other_x) >= WIDTH or abs(y - other_y) >= HEIGHT + GAP_Y
    assert len([path for path in root.iter(f"{of}path") if path.get("marker-end")]) == len(drawn.arrows)
