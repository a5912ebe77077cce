"""Which conditions of a pipeline tests have seen to hold and not to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.problem import Problem

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.frame import Array
    from pipeline.graph import Graph


class _Condition:
    def __init__(self, text: str) -> None:
        self.text = text
        self.held = self.failed = False

    def saw(self, holds: Array) -> None:
        if len(holds):
            self.held = self.held or bool(holds.any())
            self.failed = self.failed or not holds.all()


class Coverage:
    """What the conditions of operators (alert levels, filters, cases of a switch …) came to, over any number of tests.

    Unknown counts as not holding: it lets nothing pass and raises nothing.
    """

    def __init__(self) -> None:
        self.conditions: dict[tuple[str, str], _Condition] = {}  # by node and setting

    def watch(self, graph: Graph) -> None:
        """From now on, in this graph."""
        for name, edge in graph.edges.items():
            for setting, expression in edge.context.conditions.items():
                condition = self.conditions.setdefault((name, setting), _Condition(expression.text))
                expression.watch(condition.saw)

    def both(self) -> int:
        """How many were seen to hold and not to hold."""
        return sum(c.held and c.failed for c in self.conditions.values())

    def gaps(self, config: Config) -> list[Problem]:
        """The others, with their lines."""
        found = []
        for (node, setting), condition in self.conditions.items():
            if condition.held and condition.failed:
                continue
            said = "never failed to hold" if condition.held else "never held" if condition.failed else "was never asked"
            path = (*config.nodes[node].path, *(int(p) if p.isdigit() else p for p in setting.split(".")))
            found.append(config.problem(path, f"{condition.text}: {said} in any test"))
        return sorted(found)
