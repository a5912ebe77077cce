"""`headwater reload [FILE]`: the running pipeline takes over its changed file; what that changes is shown before."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from pipeline.command.usage import add_file

if TYPE_CHECKING:
    from pipeline.config import Config

PATIENCE_S = 60.0  # a pipeline that stops lets deliveries under way end first
LOOK_S = 0.05
WHY = "a reload is asked of the running pipeline"


EXAMPLES = (
    "headwater reload --plan",
    "headwater reload",
)
STATUS = {
    0: "the changed file has taken over; with --plan: it could",
    1: "no running pipeline answers or it refuses, or the changed file has failed and the one before runs",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    parser.add_argument("--plan", action="store_true", help="only show what it would change")


def main(options: argparse.Namespace) -> int:
    from pipeline.command.local import Silent, ask
    from pipeline.run import check

    config, _ = check(options.file)
    try:
        plan = ask(config, "/api/reload", {"only_plan": True}, why=WHY)["plan"]
        print("\n".join(plan) or "no node changes")
        if options.plan:
            return 0
        began = time.monotonic()
        count = ask(config, "/api/reload", {}, why=WHY)["reloads"]
    except Silent as error:
        print(error, file=sys.stderr)
        return 1
    return _followed(config, count, began)


def _followed(config: Config, count: int, began: float) -> int:
    """Until the file has taken over, or has not."""
    while time.monotonic() - began < PATIENCE_S:
        time.sleep(LOOK_S)
        health = _health(config)
        if health.get("ready") and health["reloads"] > count:
            print(f"taken over after {time.monotonic() - began:.1f} s")
            return 0
        failed = [reason for reason in health.get("reasons", ()) if "was not taken over" in reason]
        if health.get("ready") and failed:
            print(failed[0], file=sys.stderr)
            return 1
    print(f"nothing has taken over within {PATIENCE_S:.0f} s; its log tells why", file=sys.stderr)
    return 1


def _health(config: Config) -> Any:
    """What it says of itself; nothing while it is between the two."""
    from pipeline.command.local import Silent, ask

    try:
        return ask(config, "/health", why=WHY, refused=True)
    except Silent:
        return {}
