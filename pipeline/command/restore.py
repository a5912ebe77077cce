"""`headwater restore [FILE] --from COPY`: what `headwater backup` has made becomes the state of a pipeline that does not run."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from pipeline.command.usage import PERSON, WRONG, add_file

EXAMPLES = ("headwater restore --from /media/stick/plant.db",)
STATUS = {
    1: "the state folder cannot be written to",
    2: "wrong usage, a pipeline file with problems, no good copy, or a state that is there already; nothing was written",
    3: "the state folder is in use",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    parser.add_argument(
        "--from", required=True, type=Path, metavar="COPY", dest="copy", help="made by headwater backup"
    )


def main(options: argparse.Namespace) -> int:
    from pipeline.command.copies import NoCopy, keep, look_at
    from pipeline.journal import look
    from pipeline.journal.commit import StateInUse, lock
    from pipeline.run import check

    config, _ = check(options.file)
    folder = config.pipeline.state
    try:
        copied = look_at(options.copy)
    except NoCopy as error:
        print(f"{options.copy}: {error}", file=sys.stderr)
        return WRONG
    if look.database(folder).exists():
        print(f"{folder} has a database already: move it away first; nothing was written", file=sys.stderr)
        return WRONG
    try:
        held = lock(folder)
    except StateInUse as error:
        print(error, file=sys.stderr)
        return PERSON
    database = look.database(folder)
    half = database.with_name(database.name + ".part")
    try:
        shutil.copyfile(options.copy, half)
        keep(half, database)
    except OSError:
        half.unlink(missing_ok=True)
        raise
    finally:
        os.close(held)
    print(f"{folder}: restored; `headwater run {options.file}` goes on where the copy was made")
    if copied != config.pipeline.name:
        print(f'note: the copy was made of "{copied}", {options.file} is "{config.pipeline.name}"')
    return 0
