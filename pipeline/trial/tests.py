"""A pipeline file with its tests, checked as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.problem import ConfigError
from pipeline.run import look
from pipeline.trial.block import Block
from pipeline.trial.reader import read

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config import Config
    from pipeline.graph import Graph


def checked(path: Path) -> tuple[Config, Graph, list[Block]]:
    """As `pipeline.run.check`, the `[[test]]` blocks included. ConfigError with every problem."""
    config, graph = look(path)
    blocks, wrong = read(config, graph)
    if problems := [*config.problems, *graph.problems, *wrong]:
        raise ConfigError(config.path, problems)
    return config, graph, blocks
