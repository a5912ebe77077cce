"""`headwater check [FILE]`"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="pipeline.toml", type=Path, metavar="FILE")
    parser.add_argument("--format", choices=("text", "json"), default="text")


def main(options: argparse.Namespace) -> int:
    from pipeline.advice import advice
    from pipeline.estimate import estimate
    from pipeline.problem import ConfigError
    from pipeline.trial.tests import checked

    try:
        config, graph, tests = checked(options.file)
    except ConfigError as error:
        if options.format != "json":
            raise
        print(
            json.dumps({"file": str(options.file), "problems": [p.as_dict() for p in error.problems], "warnings": []})
        )
        return 2
    estimated = estimate(config, graph)
    warnings = advice(config, graph, estimated.memory)
    if options.format == "json":
        told = {"problems": [], "warnings": [warning.as_dict() for warning in warnings]}
        print(json.dumps({"file": str(options.file), **told, **estimated.as_dict()}))
    else:
        counts = f"{len(graph.sources)} sources, {len(graph.edges)} operators, {len(graph.sinks)} sinks"
        if tests:
            counts += f", {len(tests)} tests"
        print(f"{options.file}: no problems ({counts})")
        for warning in warnings:
            print(warning.show(options.file, "warning: "))
        print("\n".join(estimated.lines()))
    return 0
