"""`headwater dead [FILE]`: the dead letters of a pipeline, running or not."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import apsw


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="pipeline.toml", type=Path, metavar="FILE")
    parser.add_argument("--node", help="only those of this source, operator or sink")
    parser.add_argument("--limit", type=int, default=100, help="at most this many, the newest (default 100)")
    parser.add_argument("--format", choices=("text", "json"), default="text")


def main(options: argparse.Namespace) -> int:
    from pipeline.problem import ConfigError
    from pipeline.run import check

    try:
        config, _ = check(options.file)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    found = _letters(config.pipeline.state / "headwater.db", options.node, options.limit)
    if options.format == "json":
        print(json.dumps({"dead": found}, ensure_ascii=False))
        return 0
    for letter in found:
        print(f"{letter['time']}  {letter['node']}  {letter['reason']}\n    {letter['row']}")
    if not found:
        print("no dead letters")
    return 0


def _letters(place: Path, node: str | None, limit: int) -> list[dict[str, Any]]:
    """The newest first; none where nothing has run yet."""
    if not place.exists():
        return []
    import apsw

    db = apsw.Connection(str(place), flags=apsw.SQLITE_OPEN_READONLY)
    db.set_busy_timeout(10_000)
    try:
        return _read(db, node, limit)
    finally:
        db.close()


def _read(db: apsw.Connection, node: str | None, limit: int) -> list[dict[str, Any]]:
    import numpy as np

    from pipeline.frame import instants
    from pipeline.journal import state

    letters = state.dead(db, limit, node)
    times = instants(np.array([letter[1] for letter in letters], np.int64), "iso")
    return [
        {"id": number, "time": time, "node": at, "reason": reason, "row": row}
        for (number, _, at, reason, row), time in zip(letters, times, strict=True)
    ]
