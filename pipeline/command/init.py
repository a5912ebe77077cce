"""`headwater init [FOLDER]`: a commented pipeline file with its tests, to start from; or a component of one's own."""

from __future__ import annotations

import argparse
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.command import vscode

if TYPE_CHECKING:
    from collections.abc import Callable

TEMPLATES = {
    "blank": "one source, one window, nothing else",
    "machine": "heat, vibration, silence",
    "greenhouse": "climate by bed, frost, dry days",
    "health": "heart rate and oxygen of wearables",
    "traffic": "vehicles by approach, jams",
    "surveillance": "motion at night, blind cameras",
}
LOOPBACK = "127.0.0.1:8080"
_ZONES = "/zoneinfo/"
_FOLDER = Path(__file__).with_name("templates")


class Answers(NamedTuple):
    template: str
    name: str
    listen: str


EXAMPLES = (
    "headwater init greenhouse --template greenhouse",
    "headwater init . --name plant --listen 0.0.0.0:8080",
    "headwater init --component operator mine",
)
STATUS = {
    1: "a file cannot be written",
    2: "wrong usage, or what is to be made is there already; nothing was written",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="where (default: here)")
    parser.add_argument("--template", choices=tuple(TEMPLATES), help="what to start from")
    parser.add_argument("--name", help="what the pipeline is called; default: the folder's name")
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help=f"where it answers; default {LOOPBACK}: this machine alone"
    )
    parser.add_argument(
        "--vscode",
        action="store_true",
        help="also tasks for Visual Studio Code; these alone where there is a pipeline.toml",
    )
    parser.add_argument(
        "--component",
        nargs=2,
        metavar=("KIND", "NAME"),
        help="instead: a package with a source, codec, operator or sink of one's own; default folder: headwater-NAME",
    )


def main(options: argparse.Namespace) -> int:
    if options.component:
        if options.template or options.name or options.listen or options.vscode:
            print("headwater init: --component takes a FOLDER, and nothing else", file=sys.stderr)
            return 2
        from pipeline.command import skeleton

        kind, name = options.component
        return skeleton.make(kind, name, options.folder)
    options.folder = options.folder or Path()
    file = options.folder / "pipeline.toml"
    there = vscode.there_already(options.folder) if options.vscode else []
    if file.exists() and not options.vscode:
        there = [file]
    if there:
        print(f"{there[0]} is there already; nothing was written", file=sys.stderr)
        return 2
    if file.exists():
        return _told(partial(vscode.write, options.folder))
    try:
        answers = _answers(options)
    except (EOFError, KeyboardInterrupt):
        print("\nnothing was written", file=sys.stderr)
        return 2
    if wrong := _wrong(answers):
        print(wrong, file=sys.stderr)
        return 2
    status = _told(partial(_write, file, answers))
    return _told(partial(vscode.write, options.folder)) if options.vscode and status == 0 else status


def _told(write: Callable[[], list[str]]) -> int:
    """Writes, and prints what is told of it; the exit status."""
    try:
        told = write()
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print("\n".join(told))
    return 0


# --- what is wanted ---


def _answers(options: argparse.Namespace) -> Answers:
    """What was given; the rest is asked at a terminal, and else as if one had only pressed Enter."""
    ask = _ask if sys.stdin.isatty() and sys.stdout.isatty() and options.template is None else _default
    default_name = re.sub(r"[^A-Za-z0-9_-]+", "-", options.folder.resolve().name).strip("-") or "pipeline"
    listed = "\n".join(f"  {name:14}{what}" for name, what in TEMPLATES.items())
    return Answers(
        options.template or ask(f"What is watched?\n{listed}\n", "blank"),
        options.name or ask("What is the pipeline called?", default_name),
        options.listen or ask("Where does it answer? (0.0.0.0:8080: to the whole network, with a token)", LOOPBACK),
    )


def _ask(question: str, default: str) -> str:
    return input(f"{question} [{default}] ").strip() or default


def _default(_: str, default: str) -> str:
    return default


def _wrong(answers: Answers) -> str:
    """What is wrong with the answers; nothing if nothing is."""
    from pipeline.config import ServerSettings
    from pipeline.problem import did_you_mean

    if answers.template not in TEMPLATES:
        hint = did_you_mean(answers.template, TEMPLATES) or f"; there are: {', '.join(TEMPLATES)}"
        return f'there is no template "{answers.template}"{hint}'
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", answers.name):
        return f'"{answers.name}" is not a name: use letters, digits, _ and -'
    try:
        ServerSettings(listen=answers.listen).address()
    except ValueError as error:
        return str(error)
    return ""


# --- what is written ---


def _write(file: Path, answers: Answers) -> list[str]:
    """The pipeline file and its schema; what was made, and what to do with it."""
    from pipeline.command.schema import schema_text

    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("x", encoding="utf-8") as out:
        out.write(_filled(answers))
    (file.parent / "pipeline.schema.json").write_text(schema_text() + "\n", encoding="utf-8")
    return _next(file, answers)


def _filled(answers: Answers) -> str:
    """The template with the answers in their places."""
    text = (_FOLDER / f"{answers.template}.toml").read_text(encoding="utf-8")
    guarded = 'token = "${HEADWATER_TOKEN}"       # whoever asks must show it: Authorization: Bearer …\n'
    text = text.replace("TOKEN\n", guarded if _open(answers) else "", 1)
    host, _, port = answers.listen.rpartition(":")
    reached = f"127.0.0.1:{port}" if host in ("", "0.0.0.0", "[::]") else answers.listen
    text = text.replace('listen = "LISTEN"', f'listen = "{answers.listen}"').replace("LISTEN", reached)
    return text.replace("NAME", answers.name).replace("TIMEZONE", _zone())


def _open(answers: Answers) -> bool:
    """Is it open to the network?"""
    from pipeline.loopback import is_loopback

    return not is_loopback(answers.listen.rpartition(":")[0].strip("[]"))


def _zone() -> str:
    """This machine's time zone, as IANA calls it."""
    place = os.path.realpath("/etc/localtime")
    return place.partition(_ZONES)[2] or "UTC"


def _next(file: Path, answers: Answers) -> list[str]:
    """What was made, and what to do with it."""
    shown = "" if file.parent == Path() else f" {file}"
    told = [
        f"{file}: written, with pipeline.schema.json for your editor",
        f"  headwater check{shown}   finds mistakes",
        f"  headwater test{shown}    runs its tests",
        f"  headwater run{shown}     starts it",
    ]
    if _open(answers):
        import secrets

        token = secrets.token_urlsafe(24)
        told.append(
            f"It is open to the network and needs a token; set one first, such as\n  export HEADWATER_TOKEN={token}"
        )
    return told
