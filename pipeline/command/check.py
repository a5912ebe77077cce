"""`headwater check [FILE]`"""

from __future__ import annotations

import argparse
import json

from pipeline.command.usage import add_file, add_format

EXAMPLES = (
    "headwater check",
    "headwater check pipeline.toml --format json",
)
STATUS = {
    0: "no problems; there may be warnings",
    2: "wrong usage, or a pipeline file with problems",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    add_format(parser, "text", "json")


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
        found = {"problems": [], "warnings": [warning.as_dict() for warning in warnings]}
        print(json.dumps({"file": str(options.file), **found, **estimated.as_dict()}))
    else:
        counts = [("source", len(graph.sources)), ("operator", len(graph.edges)), ("sink", len(graph.sinks))]
        counts += [("test", len(tests))] if tests else []
        told = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for word, count in counts)
        print(f"{options.file}: no problems ({told})")
        for warning in warnings:
            print(warning.show(options.file, "warning: "))
        print("\n".join(estimated.lines()))
    return 0
