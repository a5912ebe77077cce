"""`headwater dead [FILE]`: the dead letters of a pipeline, running or not; `headwater dead replay` tries some once more."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command.local import Silent, ask, can_be_asked, no_server
from pipeline.command.usage import add_format

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.graph import Graph

ANSWER_S = 600.0  # all letters there can be take a few seconds, on a slow disk a minute


EXAMPLES = (
    "headwater dead",
    "headwater dead --node cloud --limit 10",
    "headwater dead replay --node cloud",
)
STATUS = {
    1: "replay: some could not be replayed, or no running pipeline answers",
    3: "the state folder cannot be read",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [FILE] [--node N] [--limit N]\n       %(prog)s replay [FILE] (--all | --node N | ID …)"
    parser.add_argument("words", nargs="*", metavar="[replay] [FILE] [ID …]", help="FILE: default pipeline.toml")
    parser.add_argument("--node", help="only those of this source, operator or sink")
    parser.add_argument("--all", action="store_true", help="replay every one")
    parser.add_argument("--limit", type=int, default=100, help="list at most this many, the newest (default 100)")
    add_format(parser, "text", "json")


def main(options: argparse.Namespace) -> int:
    from pipeline.run import check

    replaying = options.words[:1] == ["replay"]
    words: list[str] = options.words[1:] if replaying else options.words
    ids = [int(word) for word in words if word.isascii() and word.isdigit()]
    files = [word for word in words if not (word.isascii() and word.isdigit())] or ["pipeline.toml"]
    chosen = sum([bool(ids), options.all, options.node is not None])
    if len(files) > 1 or (chosen != 1 if replaying else bool(ids) or options.all) or options.limit < 1:
        wanted = "one of --all, --node N and the numbers of letters" if replaying else "one FILE, and --limit from 1"
        print(f"headwater dead: give {wanted} (--help shows how)", file=sys.stderr)
        return 2
    config, graph = check(Path(files[0]))
    if not replaying:
        return _list(config, graph, options)
    asked = {"ids": ids} if ids else {"node": options.node} if options.node is not None else {"all": True}
    return _replay(config, graph, asked, options.format)


# --- listing ---------------------------------------------------------------------------------------------------------


def _list(config: Config, graph: Graph, options: argparse.Namespace) -> int:
    import apsw

    try:
        found = _letters(config.pipeline.state, graph, options.node, options.limit)
    except apsw.Error as error:
        print(f"{config.pipeline.state} cannot be read: {error} (`headwater doctor` looks at it)", file=sys.stderr)
        return 3
    if options.format == "json":
        print(json.dumps({"dead": found}, ensure_ascii=False))
        return 0
    for letter in found:
        note = "" if letter["replayable"] else "  (cannot be replayed)"
        print(f"{letter['id']:>6}  {letter['time']}  {letter['node']}  {letter['reason']}{note}")
        print(f"        {letter['row']}")
    if not found:
        print("no dead letters")
    return 0


def _letters(folder: Path, graph: Graph, node: str | None, limit: int) -> list[dict[str, Any]]:
    """The newest first; none where nothing has run yet."""
    from pipeline.journal import dead, look
    from pipeline.letters import shown

    if not look.database(folder).exists():
        return []
    db = look.connect(folder)
    try:
        return shown(graph, dead.letters(db, limit, node))
    finally:
        db.close()


# --- replaying -------------------------------------------------------------------------------------------------------


def _replay(config: Config, graph: Graph, asked: dict[str, Any], form: str) -> int:
    if not can_be_asked(config):
        print(no_server(config), file=sys.stderr)
        return 2
    try:
        answer = ask(
            config, "/api/dead/replay", asked, why="letters are replayed by the running pipeline", timeout=ANSWER_S
        )
    except Silent as error:
        print(error, file=sys.stderr)
        return 1
    if form == "json":
        print(json.dumps(answer, ensure_ascii=False))
    else:
        print(f"{answer['replayed']} replayed, {len(answer['failed'])} not")
        for failed in answer["failed"]:
            print(f"{failed['id']:>6}  {failed['reason']}")
    return 1 if answer["failed"] else 0
