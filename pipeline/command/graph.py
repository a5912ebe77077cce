"""`headwater graph [FILE]`: the graph as a text tree, from the sources down."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.graph import Graph


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="pipeline.toml", type=Path, metavar="FILE")


def main(options: argparse.Namespace) -> int:
    from pipeline.run import check

    _, graph = check(options.file)
    print("\n".join(tree(graph)))
    return 0


def tree(graph: Graph) -> list[str]:
    """A line for each node under each stream that it reads; what was shown before is not unfolded again."""
    lines: list[str] = []
    shown: set[str] = set()
    for name in graph.sources:
        _node(graph, name, "", "", shown, lines)
    return lines


def _node(graph: Graph, name: str, lead: str, via: str, shown: set[str], lines: list[str]) -> None:
    node = graph.config.nodes[name]
    again = name in shown
    shown.add(name)
    lines.append(f"{lead}{via}{name} ({node.type}){' …' if again else ''}")
    if again:
        return
    consumers = [
        (other, stream)
        for other, inputs in graph.inputs.items()
        for stream in inputs
        if stream.partition(".")[0] == name
    ]
    inner = lead.replace("├─ ", "│  ").replace("└─ ", "   ")
    for i, (other, stream) in enumerate(consumers):
        branch = "└─ " if i == len(consumers) - 1 else "├─ "
        output = stream.partition(".")[2]
        _node(graph, other, inner + branch, f"[{output}] " if output else "", shown, lines)
