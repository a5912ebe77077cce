"""docs/commands.md, from the command itself: what each does, its options, its exit status. Anew: `make reference`."""

from __future__ import annotations

import argparse

from pipeline.command.__main__ import COMMANDS, module, parsers
from pipeline.command.usage import statuses

HEAD = """\
# The command
`headwater COMMAND --help` shows in a terminal what stands here; this page is generated from the same code.

Data goes to standard output, all else (the log, problems, questions) to standard error; `--format json` is for programs. A
pipeline file that is not named is `pipeline.toml`. Times are RFC 3339 (`2026-01-31T12:00:00Z`), a number since 1970, or `-2h`.

## Exit status
"""
FOOT = """
Every command but `run`, `graph --live` and `test --watch`, which Ctrl-C ends well, ends with 130 by Ctrl-C; with 141 when nobody
reads its output any more (as behind `| head`), and with 1 when that cannot be written. For a service: 2 and 3 do not get better
by starting again ([running.md](running.md)).
"""

MORE = {
    "check": (
        "`--format json` prints one object, for editors and CI; `memory` and `flash` only of a good file:",
        "",
        "| | |",
        "| --- | --- |",
        "| `file` | the file, as it was named |",
        "| `problems` | each with `line`, `path` (of the setting, as `operators.hot.when`) and `text`; none: the file is good |",
        "| `warnings` | the same, of what is allowed and will yet hurt |",
        "| `memory` | `bytes` at most at `max_keys` keys, `base` without; `nodes`: `node`, `per_key`, `per`, `most`, `beyond` |",
        "| `flash` | `commit_bytes`, `bytes_a_day_at_1_s`, `endurance_bytes`, `days_at_1_s` |",
        "",
    ),
}


def page() -> str:
    return "\n".join([HEAD + _table() + FOOT, *map(_command, COMMANDS)])


def _table() -> str:
    lines = ["| | 0 | 1 | 2 | 3 |", "| --- | --- | --- | --- | --- |"]
    for command in COMMANDS:
        said = statuses(module(command).STATUS)
        lines.append(
            f"| [{command}](#headwater-{command}) | " + " | ".join(said.get(code, "") for code in range(4)) + " |"
        )
    return "\n".join(lines) + "\n"


def _command(command: str) -> str:
    _, parser = parsers(command)
    assert parser is not None
    lines = [f"## headwater {command}", "", parser.description or "", "", "```", *module(command).EXAMPLES, "```"]
    lines += ["", "| | |", "| --- | --- |"]
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            lines.append(f"| `{_name(action)}` | {_cell(action.help or '')}{_choices(action)} |")
    return "\n".join([*lines, "", *MORE.get(command, ())])


def _name(action: argparse.Action) -> str:
    """As it is written: `--to T`, `FILE`."""
    value = action.metavar or action.dest.upper()
    if not isinstance(value, str):
        value = " ".join(value)
    if not action.option_strings:
        return value
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 or action.choices else f"{names} {value}"


def _choices(action: argparse.Action) -> str:
    return ": " + ", ".join(f"`{choice}`" for choice in action.choices) if action.choices else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("%%", "%")


if __name__ == "__main__":
    print(page(), end="")
