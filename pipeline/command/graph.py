"""`headwater graph [FILE]`: the graph as a text tree, from the sources down; as a picture; or with the rates of a running one."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from pipeline.command.usage import add_file, add_format

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config import Config
    from pipeline.graph import Graph

BETWEEN_S = 2.0  # that a rate is measured over


EXAMPLES = (
    "headwater graph",
    "headwater graph --format svg > graph.svg",
    "headwater graph --live",
)
STATUS = {
    1: "--live: no running pipeline answers",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    add_format(parser, "text", "mermaid", "dot", "svg")
    parser.add_argument(
        "--live", action="store_true", help="ask the running pipeline, and show the rows a second of each node"
    )


def main(options: argparse.Namespace) -> int:
    from pipeline.run import check

    config, graph = check(options.file)
    if options.live:
        return _live(config, graph)
    if options.format == "text":
        print("\n".join(tree(graph)))
    else:
        from pipeline import drawing

        print(getattr(drawing, options.format)(drawing.drawing(graph)))
    return 0


def tree(graph: Graph, notes: Mapping[str, str] = {}) -> list[str]:
    """A line for each node under each stream that it reads; what was shown before is not unfolded again.

    `notes`: what stands behind a node's name.
    """
    lines: list[str] = []
    shown: set[str] = set()
    for name in graph.sources:
        _node(graph, name, "", "", shown, lines, notes)
    return lines


def _node(
    graph: Graph, name: str, lead: str, via: str, shown: set[str], lines: list[str], notes: Mapping[str, str]
) -> None:
    node = graph.config.nodes[name]
    again = name in shown
    shown.add(name)
    note = "" if again else notes.get(name, "")
    lines.append(f"{lead}{via}{name} ({node.type}){' …' if again else ''}{note and '  ' + note}")
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
        _node(graph, other, inner + branch, f"[{output}] " if output else "", shown, lines, notes)


# --- of a running pipeline ---


def _live(config: Config, graph: Graph) -> int:
    """Again and again at a terminal, until Ctrl-C; else once."""
    from pipeline.command.local import Silent

    try:
        while True:
            lines = tree(graph, _rates(config))
            if not sys.stdout.isatty():
                print("\n".join(lines))
                return 0
            print("\x1b[2J\x1b[H" + "\n".join([*lines, "", "Ctrl-C ends"]), flush=True)
    except Silent as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _rates(config: Config) -> dict[str, str]:
    """Rows a second of each node, what it refused and what is wrong with it."""
    before, began = _asked(config), time.monotonic()
    time.sleep(BETWEEN_S)
    after, took = _asked(config), time.monotonic() - began
    return {name: _note(before.get(name, node), node, took) for name, node in after.items()}


def _asked(config: Config) -> dict[str, dict[str, Any]]:
    from pipeline.command.local import ask

    answer = ask(config, "/api/graph", why="rates are those of the running pipeline")
    return {node["name"]: node for node in answer["nodes"]}


def _note(before: dict[str, Any], now: dict[str, Any], took: float) -> str:
    parts = [
        f"{(now[name] - before[name]) / took:,.1f}/s {said}"
        for name, said in (("rows_in", "in"), ("rows_out", "out"))
        if isinstance(now.get(name), int) and isinstance(before.get(name), int)
    ]
    if now.get("refused"):
        parts.append(f"{now['refused']:,} refused")
    if now.get("error"):
        parts.append(f"! {now['error']}")
    return ", ".join(parts)
