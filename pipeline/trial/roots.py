"""Where a replay begins: at sources of which there are readings; else at what was recorded behind them, and stands for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipeline.component import Source, SourceContext
from pipeline.nodes import Node

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.frame import Schema
    from pipeline.graph import Graph


class StandIn(Source):
    """In the place of an operator: its rows as they were recorded."""

    def __init__(self, settings: tuple[Schema, bool], context: SourceContext) -> None:
        super().__init__(settings, context)
        self.schema, self.live = settings


@dataclass
class Roots:
    """What is replayed of a pipeline file."""

    config: Config  # of these nodes alone
    streams: dict[str, Schema]  # that come from outside, in the order of the file
    alerts: list[str]  # operators whose rows are compared
    standing: list[str]  # of the streams: operators whose recorded rows are taken
    missing: dict[str, list[str]] = field(
        default_factory=dict
    )  # alert that cannot be replayed -> sources that it lacks


def find(config: Config, graph: Graph, there: Collection[str]) -> Roots:
    """`there`: the streams of which rows can be had."""
    return _Finder(config, graph, there).roots()


class _Finder:
    def __init__(self, config: Config, graph: Graph, there: Collection[str]) -> None:
        self.nodes = config.nodes
        self.config = config
        self.graph = graph
        self.there = there
        self.known: dict[str, set[str] | None] = {}  # node -> the nodes that give its rows; None: they cannot be had

    def roots(self) -> Roots:
        alerts = [name for name in self.graph.edges if self.graph.streams[name].role == "alerts"]
        needed: set[str] = set()
        told, missing = [], {}
        for name in alerts:
            reads = self._all(self._reads(self.nodes[name]))
            if reads is None:
                missing[name] = sorted(s for s in self._sources(name) if s not in self.there)
            else:
                told.append(name)
                needed |= reads | {name}
        standing = [n for n in self.nodes if n in needed and self.nodes[n].kind == "operator" and self._stands(n)]
        standing = [n for n in standing if n not in told]
        nodes = {n: self._stand_in(n) if n in standing else node for n, node in self.nodes.items() if n in needed}
        # What reads nothing comes first: the graph is built in this order.
        ordered = dict(sorted(nodes.items(), key=lambda item: item[1].kind != "source"))
        streams = {n: self.graph.streams[n] for n, node in ordered.items() if node.kind == "source"}
        return Roots(replace(self.config, nodes=ordered), streams, told, standing, missing)

    def _reads(self, node: Node) -> list[str]:
        return [*node.inputs, *(stream for streams in node.sides.values() for stream in streams)]

    def _all(self, streams: Iterable[str]) -> set[str] | None:
        found: set[str] = set()
        for stream in streams:
            nodes = self._giving(stream)
            if nodes is None:
                return None
            found |= nodes
        return found

    def _giving(self, stream: str) -> set[str] | None:
        """The nodes that it takes for a stream's rows."""
        name, _, output = stream.partition(".")
        if name not in self.known:
            self.known[name] = self._found(name)
        found = self.known[name]
        return None if output and found is not None and self._stands(name) else found

    def _found(self, name: str) -> set[str] | None:
        node = self.nodes[name]
        if node.kind == "source":
            return {name} if name in self.there else None
        reads = self._all(self._reads(node))
        if reads is not None:
            return reads | {name}
        return {name} if name in self.there else None

    def _stands(self, name: str) -> bool:
        return self.nodes[name].kind == "operator" and self._all(self._reads(self.nodes[name])) is None

    def _sources(self, name: str) -> set[str]:
        node = self.nodes[name]
        if node.kind == "source":
            return {name}
        return {s for stream in self._reads(node) for s in self._sources(stream.partition(".")[0])}

    def _stand_in(self, name: str) -> Node:
        live = any(self.graph.sources[source].live for source in self._sources(name))
        given: Any = (self.graph.streams[name], live)
        return Node(name, "source", "recorded", (), given, StandIn, self.nodes[name].path)
