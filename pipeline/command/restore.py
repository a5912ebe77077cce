"""`headwater restore [FILE] --from COPY`: what `headwater backup` has made becomes the state of a pipeline that does not run."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="pipeline.toml", type=Path, metavar="FILE")
    parser.add_argument(
        "--from", required=True, type=Path, metavar="COPY", dest="copy", help="made by headwater backup"
    )


def main(options: argparse.Namespace) -> int:
    from pipeline.journal import look
    from pipeline.journal.commit import StateInUse, lock
    from pipeline.run import check

    config, _ = check(options.file)
    folder = config.pipeline.state
    if wrong := _wrong(options.copy):
        print(f"{options.copy}: {wrong}", file=sys.stderr)
        return 2
    if look.database(folder).exists():
        print(f"{folder} has a database already: move it away first; nothing was written", file=sys.stderr)
        return 2
    try:
        held = lock(folder)
    except StateInUse as error:
        print(error, file=sys.stderr)
        return 3
    try:
        _place(options.copy, look.database(folder))
    finally:
        os.close(held)
    print(f"{folder}: restored; `headwater run {options.file}` goes on where the copy was made")
    return 0


def _wrong(copy: Path) -> str:
    """Why it is no copy that could be used; nothing if it is."""
    import apsw

    if not copy.is_file():
        return "there is no such file"
    try:
        db = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READONLY)
        ((found,),) = db.execute("PRAGMA quick_check(1)")
        db.execute("SELECT 1 FROM meta WHERE name = 'pipeline'")
    except apsw.Error as error:
        return f"no backup of a pipeline ({error})"
    return "" if found == "ok" else f"damaged: {found}"


def _place(copy: Path, database: Path) -> None:
    """All of it or nothing, also at a power cut."""
    half = database.with_name(database.name + ".part")
    shutil.copyfile(copy, half)
    with half.open("rb") as data:
        os.fsync(data.fileno())
    half.rename(database)
    folder = os.open(database.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
