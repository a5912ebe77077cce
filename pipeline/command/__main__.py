"""`headwater`: the command. Each subcommand is a file of its own, imported when it is the one that runs.

Exit status: 0 fine, 1 failed at run time, 2 wrong usage or invalid pipeline file (nothing was started or written),
3 state folder in use or damaged.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Any

COMMANDS = {
    "init": "write a commented pipeline file to start from, with its tests",
    "run": "run a pipeline until it is stopped or its finite sources end",
    "check": "find every problem of a pipeline file without starting it",
    "test": "run the [[test]] blocks of a pipeline file on virtual time",
    "replay": "run a pipeline file over what was recorded: which alerts would come, go or move",
    "graph": "show the graph of a pipeline file",
    "query": "look into the history that a pipeline keeps, running or not",
    "dead": "list dead letters (what was refused or failed, and why), or replay them",
    "reload": "have the running pipeline take over its changed file, and show what that changes",
    "components": "tell what sources, codecs, operators and sinks there are, and their settings",
    "schema": "print the JSON Schema of pipeline files, for an editor",
    "install-service": "have systemd run a pipeline at every start of the machine",
    "bench": "measure what this device can do, and what the running pipeline uses of that",
    "backup": "copy all that a pipeline has kept into one file, while it runs or not",
    "restore": "make such a copy the state of a pipeline, on this device or another",
    "health": "ask the running pipeline whether all is well",
    "doctor": "look at the state folder of a pipeline, running or not",
}


def version() -> str:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("headwater")
    except PackageNotFoundError:
        return "0+unknown"


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"headwater {version()}")
        parser.exit()


def _with_times(words: list[str]) -> list[str]:
    """`--from -1h` as `--from=-1h`: argparse would take the time for an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("--from", "--to") and word.startswith("-") and word[1:2].isdigit():
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _module(command: str) -> Any:
    return importlib.import_module(f"pipeline.command.{command.replace('-', '_')}")


def main(arguments: list[str] | None = None) -> int:
    # OpenBLAS would start a thread a core at import: CPU and memory for a library that we do not use.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    words = _with_times(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="headwater", description="Stream processing for one small computer at the edge."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in words if word in COMMANDS), None)
    for name, summary in COMMANDS.items():
        sub = subparsers.add_parser(name, help=summary, description=summary.capitalize() + ".")
        if name == chosen:
            _module(name).add_arguments(sub)
    options = parser.parse_args(words)
    from pipeline.problem import ConfigError

    try:
        status: int = _module(options.command).main(options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
