"""`headwater components [TYPE]`: every component, or all about one: what it promises, an example, its settings."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from pipeline.command.usage import add_format

if TYPE_CHECKING:
    from pipeline.reference import Component, Setting


EXAMPLES = (
    "headwater components",
    "headwater components window",
)
STATUS = {
    2: "wrong usage, or there is no such component",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("type", nargs="?", metavar="TYPE", help='such as "window"; absent: a line for each')
    add_format(parser, "text", "json", "markdown")


def main(options: argparse.Namespace) -> int:
    from pipeline.problem import did_you_mean
    from pipeline.reference import KINDS, all_of
    from pipeline.registry import clashes, types

    for told in clashes():
        print(f"warning: {told}", file=sys.stderr)
    found = all_of(options.type)
    if not found:
        known = sorted({name for kind in KINDS for name in types(kind)})
        hint = did_you_mean(options.type, known) or f"; there are: {', '.join(known)}"
        print(f'there is no component "{options.type}"{hint}', file=sys.stderr)
        return 2
    if options.format == "json":
        import orjson

        plain = [c._asdict() | {"settings": [s._asdict() for s in c.settings]} for c in found]
        print(orjson.dumps(plain, option=orjson.OPT_INDENT_2).decode())
    elif options.format == "markdown":
        print("\n".join(markdown(c) for c in found) if options.type else page(found), end="")
    else:
        width = min(shutil.get_terminal_size().columns, 120)
        shown = [whole(c, width) for c in found] if options.type else [overview(found, width)]
        print("\n\n".join(shown))
    return 0


def overview(found: list[Component], width: int) -> str:
    """A line for each, by kind."""
    lines: list[str] = []
    column = max(len(c.type) for c in found) + 2
    for kind in dict.fromkeys(c.kind for c in found):
        lines += [f"{kind}s"]
        for c in found:
            if c.kind == kind:
                told = textwrap.shorten(c.promise or c.missing, max(width - column - 2, 20), placeholder=" …")
                lines.append(f"  {c.type:{column}}{told}")
        lines += [""]
    return "\n".join([*lines, "headwater components TYPE tells all about one"])


def whole(c: Component, width: int) -> str:
    """All about one, for a terminal."""
    if c.missing:
        return f"{c.type} ({_origin(c)})\n\n{c.missing}"
    parts = [f"{c.type} ({_origin(c)}): {c.promise}", c.text]
    if c.settings:
        parts.append("\n".join(["Settings", *(line for s in c.settings for line in _told(s, width))]))
    return "\n\n".join(part for part in parts if part)


def _told(s: Setting, width: int) -> list[str]:
    said = "required" if s.required else f"= {s.default}" if s.default is not None else "optional"
    text = textwrap.wrap(f"{s.description} ({s.takes})".strip(), max(width - 6, 20))
    return [f"  {s.name}  {said}", *(f"      {line}" for line in text)]


def _origin(c: Component) -> str:
    """What it is; and whose, if it is not one of ours."""
    return f"{c.kind}, of {c.distribution}" if c.distribution else c.kind


def page(found: list[Component]) -> str:
    """The whole reference on one page; docs/ has it on several (`pages.py`)."""
    lines = [
        "# Reference",
        "Every table of a pipeline file, and every component with its settings. `headwater components TYPE` shows one.",
        "",
    ]
    return "\n".join([*lines, *tables()]) + "\n" + "\n".join(markdown(c) for c in found)


def tables() -> list[str]:
    """The tables of a file that are of no component."""
    from pipeline.config import PipelineSettings, ServerSettings
    from pipeline.reference import settings_of

    lines = []
    for title, kind in (("[pipeline]", PipelineSettings), ("[server]", ServerSettings)):
        lines += [f"## {title}", "", *_table(tuple(settings_of(kind))), ""]
    return lines


def markdown(c: Component) -> str:
    """All about one, for the documentation."""
    lines = [f"## {c.type} ({_origin(c)})", "", c.promise or c.missing, ""]
    if c.text:
        lines += [_fenced(c.text), ""]
    if c.settings:
        lines += [*_table(c.settings), ""]
    return "\n".join(lines)


def _table(settings: tuple[Setting, ...]) -> list[str]:
    lines = ["| setting | takes | default | |", "| --- | --- | --- | --- |"]
    for s in settings:
        default = "required" if s.required else f"`{cell(s.default)}`" if s.default is not None else ""
        lines.append(f"| `{s.name}` | {cell(s.takes)} | {default} | {cell(s.description)} |")
    return lines


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _fenced(text: str) -> str:
    """A docstring as Markdown: what is indented is an example, the rest is text."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        indented = line.startswith("    ")
        if indented and not inside:
            lines += ["```"]
        if inside and line and not indented:
            while lines[-1] == "":
                lines.pop()
            lines += ["```", ""]
        inside = indented or (inside and not line)
        lines.append(line.removeprefix("    ") if inside else line)
    if inside:
        lines += ["```"]
    return "\n".join(lines)
