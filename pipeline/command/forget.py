"""`headwater forget KEY [FILE]`: the running pipeline keeps nothing of a key that is gone for good but its history."""

from __future__ import annotations

import argparse
import sys

from pipeline.command.usage import add_file

WHY = "a key is forgotten by the running pipeline"

EXAMPLES = (
    "headwater forget greenhouse-7",
    "headwater forget s1 --stream cellar",
)
STATUS = {
    0: "nothing but its history is kept of the key",
    1: "no running pipeline answers or it refuses, as where there is no such key",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", help="a key, as a reading names it")
    add_file(parser)
    parser.add_argument("--stream", metavar="NAME", help="only in this stream and in what comes of it")


def main(options: argparse.Namespace) -> int:
    from pipeline.command.local import Silent, ask
    from pipeline.run import check

    config, _ = check(options.file)
    asked = {"key": options.key} | ({"stream": options.stream} if options.stream is not None else {})
    try:
        streams = ask(config, "/api/keys/forget", asked, why=WHY)["streams"]
    except Silent as error:
        print(error, file=sys.stderr)
        return 1
    where = f"no longer shown in {', '.join(streams)}" if streams else "no stream showed it"
    print(f"{options.key} is forgotten: {where}; its history stays")
    return 0
