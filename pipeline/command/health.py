"""`headwater health [FILE]`: is the running pipeline well? For cron, a container's health check, and people.

Of the file only [server] is read: a check that comes every minute must cost little.

Exit status: 0 all is well, 1 it is not, or nothing answers; 2 the file's [server] is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command.usage import add_file, add_format

if TYPE_CHECKING:
    from pipeline.config import Config

ANSWER_S = 10.0
WHY = "the pipeline itself tells how it is"


EXAMPLES = (
    "headwater health",
    "headwater health /home/pi/plant/pipeline.toml --ready",
)
STATUS = {
    0: "all is well",
    1: "it is not, or nothing answers",
    2: "wrong usage, or [server] of the pipeline file is wrong",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    parser.add_argument(
        "--ready",
        action="store_true",
        help="well is what takes readings, whatever else is wrong: a restart mends no cable",
    )
    add_format(parser, "text", "json")


def main(options: argparse.Namespace) -> int:
    from pipeline.command.local import Silent, ask, url

    config = _server_of(options.file)
    try:
        told = ask(config, "/health", why=WHY, timeout=ANSWER_S, refused=True)
    except Silent as error:
        print(error, file=sys.stderr)
        return 1
    if told["pipeline"] != config.pipeline.name:
        print(f"{url(config)} is of another pipeline, {told['pipeline']}", file=sys.stderr)
        return 1
    print(json.dumps(told, ensure_ascii=False) if options.format == "json" else "\n".join(_text(told)))
    well = told["ready"] if options.ready else told["ready"] and told["status"] == "ok"
    return 0 if well else 1


def _server_of(file: Path) -> Config:
    """ConfigError if [server] is wrong; what else is does not matter here."""
    from pipeline.config import load
    from pipeline.problem import ConfigError

    config = load(file, change=_without_nodes)
    if problems := [problem for problem in config.problems if problem.path[:1] == ("server",)]:
        raise ConfigError(file, problems)
    return config


def _without_nodes(tables: dict[str, Any]) -> None:
    for name in tables.keys() - {"pipeline", "server"}:
        del tables[name]


def _text(told: dict[str, Any]) -> list[str]:
    since = f"up {told['uptime_seconds']:,.0f} s, step {told['step']}"
    ready = "" if told["ready"] else ", and takes no readings yet"
    return [f"{told['pipeline']}: {told['status']}{ready}; {since}", *(f"- {reason}" for reason in told["reasons"])]
