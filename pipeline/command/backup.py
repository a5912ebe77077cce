"""`headwater backup [FILE] --to COPY`: all that a pipeline has kept, as one file, while it runs or not.

The copy is of one moment: history, windows, alerts, what waits for a sink, and where each source stands. `headwater restore`
puts it into the state folder of another device, or of the same one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="pipeline.toml", type=Path, metavar="FILE")
    parser.add_argument("--to", required=True, type=Path, metavar="COPY", help="the file to make; it must not be there")


def main(options: argparse.Namespace) -> int:
    import apsw

    from pipeline.journal import look
    from pipeline.run import check

    config, _ = check(options.file)
    folder, copy = config.pipeline.state, options.to
    if not look.database(folder).exists():
        print(f"{folder} has no database: nothing has run here yet", file=sys.stderr)
        return 1
    if copy.exists():
        print(f"{copy} is there already; nothing was written", file=sys.stderr)
        return 2
    half = copy.with_name(copy.name + ".part")
    try:
        half.unlink(missing_ok=True)
        look.connect(folder).execute("VACUUM INTO ?", (str(half),))
        half.rename(copy)
    except (apsw.Error, OSError) as error:
        half.unlink(missing_ok=True)
        print(f"{copy}: {error}", file=sys.stderr)
        return 1
    print(f"{copy}: {copy.stat().st_size:,} bytes, all that {config.pipeline.name} had kept at that moment")
    return 0
