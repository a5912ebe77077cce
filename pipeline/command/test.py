"""`headwater test [FILE]`: runs the file's `[[test]]` blocks on virtual time. Nothing outside is touched."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command.usage import add_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config import Config
    from pipeline.trial.block import Block
    from pipeline.trial.coverage import Coverage

LOOK_S = 0.3  # --watch looks at the files this often


EXAMPLES = (
    "headwater test",
    'headwater test --name "a fan that stops" --coverage',
    'headwater test --record "this morning" --from -2h --keys fan --append',
)
STATUS = {
    0: "all tests have passed",
    1: "a test has failed, or the results cannot be written",
    2: "wrong usage, or a pipeline file or a test with problems",
    3: "--record: there is no history, or it cannot be read",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_file(parser)
    add("--name", help="only the test of this name")
    add("--watch", action="store_true", help="again whenever the file, or one that it names, has changed")
    add("--junit", type=Path, metavar="PATH", help="write the results as JUnit XML, too")
    add("--coverage", action="store_true", help="tell which conditions never held, or never failed to, in any test")
    add("--record", metavar="NAME", help="make a test of what was recorded --from … --to …, and print it")
    add("--from", dest="start", metavar="T", help="from this time on: 2026-01-31T12:00:00Z, -2h")
    add("--to", dest="end", metavar="T", help="before this time (now)")
    add("--keys", help="only these, with commas")
    add("--append", action="store_true", help="put the recorded test at the end of the file instead")


def main(options: argparse.Namespace) -> int:
    if options.record is not None:
        return _record(options)
    for name, word in (("start", "--from"), ("end", "--to"), ("keys", "--keys"), ("append", "--append")):
        if getattr(options, name):
            print(f"headwater test: {word} goes with --record NAME", file=sys.stderr)
            return 2
    return _watch(options) if options.watch else _run(options)


def _run(options: argparse.Namespace) -> int:
    from pipeline.command.junit import Ran, write
    from pipeline.problem import did_you_mean
    from pipeline.trial.compare import differences
    from pipeline.trial.coverage import Coverage
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
    coverage = Coverage() if options.coverage else None
    done = []
    for block in blocks:
        started = time.perf_counter()
        lines = differences(run(config, block, coverage))
        done.append(Ran(block.name, block.line, time.perf_counter() - started, lines))
        print(f"{'FAIL' if lines else 'pass'}  {block.name}" + (f"  ({options.file}:{block.line})" if lines else ""))
        for line in lines:
            print(f"      {line}")
    failed = sum(bool(test.lines) for test in done)
    tests = f"{len(blocks)} test{'' if len(blocks) == 1 else 's'}"
    told = f"{len(blocks) - failed} passed, {failed} failed" if failed else "all passed"
    print(f"{tests}, {told} ({sum(test.seconds for test in done):.1f} s)")
    if coverage is not None:
        _tell(coverage, config)
    if options.junit is not None:
        write(options.junit, options.file, config.pipeline.name, done)
    return 1 if failed else 0


def _tell(coverage: Coverage, config: Config) -> None:
    for gap in coverage.gaps(config):
        print(gap.show(config.path))
    count = len(coverage.conditions)
    print(f"{coverage.both()} of {count} condition{'' if count == 1 else 's'} seen to hold and not to hold")


# --- again and again --------------------------------------------------------------------------------------------------


def _watch(options: argparse.Namespace) -> int:
    """Until it is interrupted. Each run is a process of its own, so that functions of one's own are those of now."""
    import subprocess

    words = [sys.executable, "-m", "pipeline.command", "test", str(options.file)]
    words += ["--name", options.name] if options.name is not None else []
    words += ["--coverage"] if options.coverage else []
    words += ["--junit", str(options.junit)] if options.junit is not None else []
    seen = None
    try:
        while True:
            now = _signs(options.file)
            if now != seen:
                print(f"{'' if seen is None else chr(10)}{time.strftime('%H:%M:%S')}  {options.file}", flush=True)
                subprocess.run(words, check=False)
                seen = now
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        return 0


def _signs(file: Path) -> dict[Path, tuple[int, int]]:
    """The file, and all that it names, as they are now."""
    import tomllib

    paths = {file}
    try:
        paths |= {file.parent / name for name in _texts(tomllib.loads(file.read_text("utf-8")))}
    except (OSError, ValueError):  # it is being written, or wrong: the run says what
        pass
    found = {}
    for path in paths:
        try:
            if path.is_file():
                found[path] = (path.stat().st_mtime_ns, path.stat().st_size)
        except (OSError, ValueError):
            continue
    return found


def _texts(value: Any) -> Iterator[str]:
    """All texts that may name a file; of "smooth.py:smooth" the file."""
    if isinstance(value, str):
        yield value.partition(":")[0]
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


# --- a test of what was recorded ------------------------------------------------------------------------------------


def _record(options: argparse.Namespace) -> int:
    import apsw

    from pipeline.clock import RealClock
    from pipeline.journal import look
    from pipeline.trial import record
    from pipeline.trial.recorded import Recorded
    from pipeline.trial.tests import checked
    from pipeline.web import HttpProblem
    from sinks.query_server.questions import parse_time

    config, graph, blocks = checked(options.file)
    if options.start is None:
        print("headwater test: --record takes --from (and --to), as --from -2h", file=sys.stderr)
        return 2
    if options.record in [block.name for block in blocks]:
        print(f'headwater test: {options.file} has a test "{options.record}" already', file=sys.stderr)
        return 2
    if not look.database(config.pipeline.state).exists():
        print(f"{config.pipeline.state} holds no history: nothing has run there yet", file=sys.stderr)
        return 3
    clock = RealClock()
    try:
        start = parse_time("--from", options.start, clock)
        history = Recorded(config.pipeline.state)
        try:
            ran = history.seen(clock.wall())  # nothing is expected of a time in which nobody ran
            end = ran if options.end is None else min(ran, parse_time("--to", options.end, clock))
            keys = [key for key in (options.keys or "").split(",") if key]
            made = record.block(config, graph, history, options.record, start, end, keys)
        finally:
            history.close()
    except (HttpProblem, record.Unrecordable) as error:
        print(f"headwater test: {error}", file=sys.stderr)
        return 2
    except apsw.Error as error:
        print(f"the history cannot be read: {error} (`headwater doctor` looks at it)", file=sys.stderr)
        return 3
    if options.append:
        with options.file.open("a", encoding="utf-8") as file:
            file.write("\n" + made)
        print(f"{options.file} has the test now")
    else:
        print(made, end="")
    _try(config, made, options.record)
    return 0


def _try(config: Config, made: str, name: str) -> None:
    """Whether the test passes, and if not, why that may be."""
    from pipeline.config import loads
    from pipeline.frame import KeyTable
    from pipeline.graph import Graph
    from pipeline.trial.compare import differences
    from pipeline.trial.life import run
    from pipeline.trial.reader import read

    whole = loads(config.text + "\n" + made, config.path)
    blocks, problems = read(whole, Graph(whole, KeyTable(), None))  # type: ignore[arg-type]
    found: list[Block] = [block for block in blocks if block.name == name]
    lines = [problem.show(config.path) for problem in problems] or differences(run(whole, found[0]))
    if lines:
        print(
            "it does not pass as it stands; what was before --from, or by keys that were left out, is not in it:",
            file=sys.stderr,
        )
    for line in lines:
        print(f"  {line}", file=sys.stderr)
