"""`headwater test [FILE]`: runs the file's `[[test]]` blocks on virtual time. Nothing outside is touched."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="pipeline.toml", type=Path, metavar="FILE")
    parser.add_argument("--name", help="only the test of this name")


def main(options: argparse.Namespace) -> int:
    from pipeline.problem import did_you_mean
    from pipeline.trial.compare import differences
    from pipeline.trial.life import run
    from pipeline.trial.tests import checked

    config, _, blocks = checked(options.file)
    if options.name is not None:
        chosen = [block for block in blocks if block.name == options.name]
        if not chosen:
            hint = did_you_mean(options.name, [block.name for block in blocks])
            print(f'{options.file} has no test "{options.name}"{hint}', file=sys.stderr)
            return 2
        blocks = chosen
    if not blocks:
        print(f"{options.file}: no tests; [[test]] blocks are described in docs/test.md")
        return 0
    failed = 0
    started = time.perf_counter()
    for block in blocks:
        lines = differences(run(config, block))
        failed += bool(lines)
        print(f"{'FAIL' if lines else 'pass'}  {block.name}" + (f"  ({options.file}:{block.line})" if lines else ""))
        for line in lines:
            print(f"      {line}")
    tests = f"{len(blocks)} test{'' if len(blocks) == 1 else 's'}"
    told = f"{len(blocks) - failed} passed, {failed} failed" if failed else "all passed"
    print(f"{tests}, {told} ({time.perf_counter() - started:.1f} s)")
    return 1 if failed else 0
