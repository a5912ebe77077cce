"""`headwater backup [FILE] --to COPY`: all that a pipeline has kept, as one file, while it runs or not.

The copy is of one moment: history, windows, alerts, what waits for a sink, and where each source stands. `headwater restore`
puts it into the state folder of another device, or of the same one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.command.usage import FAILED, PERSON, WRONG, add_file

EXAMPLES = ("headwater backup --to /media/stick/plant.db",)
STATUS = {
    1: "the copy cannot be written",
    2: "wrong usage, a pipeline file with problems, or a COPY that is there already or cannot be",
    3: "there is nothing to copy yet, or the database is damaged",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    parser.add_argument("--to", required=True, type=Path, metavar="COPY", help="the file to make; it must not be there")


def main(options: argparse.Namespace) -> int:
    import apsw

    from pipeline.command.copies import keep
    from pipeline.journal import look
    from pipeline.journal.commit import DAMAGED
    from pipeline.run import check

    config, _ = check(options.file)
    folder, copy = config.pipeline.state, options.to
    if wrong := _wrong(copy):
        print(f"{copy} {wrong}; nothing was written", file=sys.stderr)
        return WRONG
    if not look.database(folder).exists():
        print(f"{folder} has no database: nothing has run here yet", file=sys.stderr)
        return PERSON
    half = copy.with_name(copy.name + ".part")
    try:
        half.unlink(missing_ok=True)
        look.connect(folder).execute("VACUUM INTO ?", (str(half),))
        keep(half, copy)
    except DAMAGED as error:
        half.unlink(missing_ok=True)
        print(f"{folder}: the database is damaged: {error} (`headwater doctor` looks at it)", file=sys.stderr)
        return PERSON
    except (apsw.Error, OSError) as error:
        half.unlink(missing_ok=True)
        print(f"{copy}: {error}", file=sys.stderr)
        return FAILED
    print(f"{copy}: {copy.stat().st_size:,} bytes, all that {config.pipeline.name} had kept at that moment")
    return 0


def _wrong(copy: Path) -> str:
    """Why no copy can be made there; nothing if one can."""
    if copy.is_dir():
        return "is a folder: name the file to make in it"
    if copy.exists():
        return "is there already"
    return "" if copy.parent.is_dir() else f"lies in {copy.parent}, which is no folder"
