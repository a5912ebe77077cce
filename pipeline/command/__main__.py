"""`headwater`: the command. Each subcommand is a file of its own, imported when it is the one that runs.

Exit status: 0 fine, 1 failed at run time, 2 wrong usage or invalid pipeline file (nothing was started or written),
3 state folder in use or damaged; what that means for each is its `STATUS`, and docs/commands.md shows all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import sys
from typing import Any

from pipeline.command.usage import FAILED, INTERRUPTED, UNREAD, WRONG, Parser, epilog, with_times

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
    "forget": "have the running pipeline forget a key that is gone for good",
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


def module(command: str) -> Any:
    return importlib.import_module(f"pipeline.command.{command.replace('-', '_')}")


def main(arguments: list[str] | None = None) -> int:
    """The exit status. What the outside does to a command is no bug of ours, and shows no traceback."""
    # OpenBLAS would start a thread a core at import: CPU and memory for a library that we do not use.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Imports make many objects and no garbage: looking for some took a tenth of a start. Later, Frames and rows are freed by
    # reference counts.
    gc.set_threshold(100_000, 50, 100)
    _speak_any_language()
    words = with_times(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where an error can still be told
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _say_no_more()
        return UNREAD
    except OSError as error:
        _say_no_more()
        print(f"headwater{_of(words)}: {_failure(error)}", file=sys.stderr)
        return FAILED
    return status


def _run(words: list[str]) -> int:
    from pipeline.problem import ConfigError

    chosen = next((word for word in words if word in COMMANDS), None)
    try:
        parser, own = parsers(chosen)
        if not words:
            parser.print_help(sys.stderr)
            return WRONG
        options, more = parser.parse_known_args(words)
        if more:
            (own or parser).unknown(more)
        if options.command is None:
            parser.error("a COMMAND is missing")
    except SystemExit as end:  # argparse has said all: help, a version, or what is wrong
        return int(end.code or 0)
    try:
        status: int = module(options.command).main(options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return WRONG
    return status


def parsers(chosen: str | None) -> tuple[Parser, Parser | None]:
    """Of the whole command, and of the subcommand that is chosen: the only one whose options are known."""
    parser = Parser(
        prog="headwater",
        description="Stream processing for one small computer at the edge.",
        epilog="`headwater COMMAND --help` tells all about one.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    own = None
    for name, summary in COMMANDS.items():
        sub = subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == chosen:
            own, told = sub, module(name)
            told.add_arguments(sub)
            sub.epilog = epilog(told.EXAMPLES, told.STATUS)
    return parser, own


# --- what the outside does --------------------------------------------------------------------------------------------


def _speak_any_language() -> None:
    """A terminal that has no µ or … gets an escape in its place, and no traceback."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # closed, or somebody's own
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _say_no_more() -> None:
    """What is still to be written can't be: without this Python would try once more at its end, and say so."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _failure(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename is not None else ""
    hint = " (ask as the user that the pipeline runs as)" if isinstance(error, PermissionError) else ""
    return f"{place}{error.strerror or error}{hint}"


def _of(words: list[str]) -> str:
    return next((f" {word}" for word in words if word in COMMANDS), "")


if __name__ == "__main__":
    sys.exit(main())
