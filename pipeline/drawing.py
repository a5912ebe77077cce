"""The graph as text for other programs to draw (Mermaid, Graphviz), and as an SVG picture of its own."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pipeline.graph import Graph

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 176, 46, 74, 20, 16  # of a box and around it, in pixels
LONGEST = 22  # characters of a name that fit into a box
_FILLS = {"source": "#d7ecdd", "operator": "#dfe8f7", "sink": "#f7e6d4"}


class Box(NamedTuple):
    name: str
    kind: str
    type: str
    rank: int  # how many nodes lie before it, on the longest way


class Arrow(NamedTuple):
    start: str
    end: str
    label: str  # the further output of `start`, or the setting of `end` that names it; "": an input as usual


class Drawing(NamedTuple):
    boxes: list[Box]
    arrows: list[Arrow]


def drawing(graph: Graph) -> Drawing:
    """What is to be drawn, in the order of the file."""
    arrows = []
    for name, node in graph.config.nodes.items():
        for setting, streams in {"": node.inputs, **node.sides}.items():
            for base, _, output in (stream.partition(".") for stream in streams):
                arrows.append(Arrow(base, name, setting or output))
    ranks: dict[str, int] = {}
    for name in graph.config.nodes:  # each comes after those that it reads
        ranks[name] = 1 + max((ranks.get(a.start, -1) for a in arrows if a.end == name), default=-1)
    boxes = [Box(name, node.kind, node.type, ranks[name]) for name, node in graph.config.nodes.items()]
    return Drawing(boxes, arrows)


def mermaid(drawn: Drawing) -> str:
    """For a Markdown page: a `mermaid` block."""
    shapes = {"source": ("([", "])"), "operator": ("[", "]"), "sink": ("[(", ")]")}
    lines = ["flowchart LR"]
    for box in drawn.boxes:
        before, after = shapes[box.kind]
        lines.append(f'    {_id(box.name)}{before}"{box.name}<br/>{box.type}"{after}')
    for arrow in drawn.arrows:
        label = f"|{arrow.label}|" if arrow.label else ""
        lines.append(f"    {_id(arrow.start)} -->{label} {_id(arrow.end)}")
    return "\n".join(lines)


def _id(name: str) -> str:
    return f"n_{name}"  # some words, as `end`, mean something to Mermaid


def dot(drawn: Drawing) -> str:
    """For Graphviz."""
    shapes = {"source": "ellipse", "operator": "box", "sink": "cylinder"}
    lines = ["digraph pipeline {", "    rankdir=LR;", '    node [fontname="sans-serif"];']
    lines += [f'    "{b.name}" [label="{b.name}\\n{b.type}", shape={shapes[b.kind]}];' for b in drawn.boxes]
    for arrow in drawn.arrows:
        label = f' [label="{arrow.label}"]' if arrow.label else ""
        lines.append(f'    "{arrow.start}" -> "{arrow.end}"{label};')
    return "\n".join([*lines, "}"])


def svg(drawn: Drawing) -> str:
    """A picture: what comes first is on the left; a column holds the nodes with as many before them."""
    places = _places(drawn)
    wide = max(x for x, _ in places.values()) + WIDTH + MARGIN
    high = max(y for _, y in places.values()) + HEIGHT + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img">'
    )
    mark = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#667"/></marker></defs>'
    )
    parts = [head, "<title>The pipeline</title>", mark, f'<rect width="{wide}" height="{high}" fill="#fff"/>']
    parts += [_line(arrow, places) for arrow in drawn.arrows]
    parts += [_box(box, places[box.name]) for box in drawn.boxes]
    return "\n".join([*parts, "</svg>"])


def _places(drawn: Drawing) -> dict[str, tuple[int, int]]:
    """Where each box lies: within its column at the mean height of those that it reads, as near as there is room."""
    places: dict[str, tuple[int, int]] = {}
    for rank in range(max(box.rank for box in drawn.boxes) + 1):
        x, free = MARGIN + rank * (WIDTH + GAP_X), MARGIN
        column = [box for box in drawn.boxes if box.rank == rank]
        wanted = {box.name: _mean([places[a.start][1] for a in drawn.arrows if a.end == box.name]) for box in column}
        for box in sorted(column, key=lambda box: wanted[box.name]):
            y = max(free, wanted[box.name])
            places[box.name] = (x, y)
            free = y + HEIGHT + GAP_Y
    return places


def _mean(heights: list[int]) -> int:
    return sum(heights) // len(heights) if heights else 0


def _box(box: Box, at: tuple[int, int]) -> str:
    x, y = at
    round_ = HEIGHT // 2 if box.kind == "source" else 5
    name = box.name if len(box.name) <= LONGEST else box.name[: LONGEST - 1] + "…"
    middle = x + WIDTH // 2
    return (
        f'<g><title>{escape(box.name)}: {box.kind} {escape(box.type)}</title><rect x="{x}" y="{y}" width="{WIDTH}" '
        f'height="{HEIGHT}" rx="{round_}" fill="{_FILLS[box.kind]}" stroke="#667"/>'
        f'<text x="{middle}" y="{y + 20}" text-anchor="middle" font-weight="600" fill="#16202b">{escape(name)}</text>'
        f'<text x="{middle}" y="{y + 37}" text-anchor="middle" fill="#52606d">{escape(box.type)}</text></g>'
    )


def _line(arrow: Arrow, places: dict[str, tuple[int, int]]) -> str:
    (x1, y1), (x2, y2) = places[arrow.start], places[arrow.end]
    x1, y1, y2 = x1 + WIDTH, y1 + HEIGHT // 2, y2 + HEIGHT // 2
    bend = GAP_X // 2
    path = f'<path d="M{x1} {y1} C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}" fill="none" stroke="#667" marker-end="url(#tip)"/>'
    if not arrow.label:
        return path
    return f'{path}<text x="{x2 - bend}" y="{(y1 + y2) // 2 - 4}" text-anchor="middle" fill="#52606d">{escape(arrow.label)}</text>'
