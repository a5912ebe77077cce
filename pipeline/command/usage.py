"""How a command line is read and explained: argparse, whose errors show the way out, and the exit status of everything."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

FAILED, WRONG, PERSON = 1, 2, 3
INTERRUPTED = 130  # what a shell says of a command that Ctrl-C has ended
UNREAD = 141  # and of one whose output nobody reads any more, as behind `| head`
FINE = "fine"
MISTAKE = "wrong usage, or a pipeline file with problems: nothing was started or written"
_CHOICE = re.compile(r"argument (?P<of>.*): invalid choice: '(?P<given>.*)' \(choose from (?P<there>.*)\)")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, what was likely meant, and where help is."""

    def error(self, message: str) -> NoReturn:
        from pipeline.problem import did_you_mean

        if found := _CHOICE.fullmatch(message):
            there = re.findall(r"[\w-]+", found["there"])
            message = f'{found["of"]}: there is no "{found["given"]}"'
            message += did_you_mean(found["given"], there) or f", only {', '.join(there)}"
        self.exit(WRONG, f"{self.prog}: {message}; `{self.prog} --help` shows what there is\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """argparse's own keeps it to itself that nobody reads."""
        if message and (out := file or sys.stderr) is not None:
            out.write(message)

    def unknown(self, words: Sequence[str]) -> NoReturn:
        """What was given that nobody asked for."""
        from pipeline.problem import did_you_mean

        word = words[0].partition("=")[0]
        if word.startswith("-"):
            known = [option for action in self._actions for option in action.option_strings]
            self.error(f"there is no option {word}{did_you_mean(word, known)}")
        self.error(f'"{word}" is too much')


def with_times(words: list[str]) -> list[str]:
    """`--from -1h` as `--from=-1h`: argparse would take the time for an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("--from", "--to") and word.startswith("-") and word[1:2].isdigit():
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", default="pipeline.toml", type=Path, metavar="FILE", help="the pipeline file (pipeline.toml)"
    )


def add_format(parser: argparse.ArgumentParser, *forms: str) -> None:
    """The first is what is printed unless another is asked for."""
    parser.add_argument("--format", choices=forms, default=forms[0], help=f"how it is printed (default {forms[0]})")


def statuses(of: Mapping[int, str]) -> dict[int, str]:
    """What each exit status of a command means: what it says itself, and what holds for all."""
    return dict(sorted(({0: FINE, WRONG: MISTAKE} | dict(of)).items()))


def epilog(examples: Sequence[str], status: Mapping[int, str]) -> str:
    """What stands below the options of a command's help."""
    width = min(shutil.get_terminal_size().columns, 100) - 2
    lines = ["examples:", *(f"  {line}" for line in examples), "", "exit status:"]
    for code, text in statuses(status).items():
        lines += textwrap.wrap(text, width, initial_indent=f"  {code}  ", subsequent_indent="     ")
    return "\n".join(lines)
