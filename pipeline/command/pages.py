"""docs/reference.md and docs/reference/, from the components themselves: a table of all, and a page for each kind.

Anew: `make reference`, or `python -m pipeline.command.pages docs`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.command.components import cell, markdown, tables
from pipeline.reference import KINDS, Component, all_of

WHAT = {
    "source": "Where readings come from.",
    "codec": "How readings and rows are written: the `format` of a source or a sink.",
    "operator": "What is made of readings.",
    "sink": "Where rows go.",
}


def pages(found: list[Component]) -> dict[str, str]:
    """By their places in docs/: the texts of all pages."""
    own = {kind: [c for c in found if c.kind == kind] for kind in KINDS}
    return {"reference.md": _index(own)} | {_place(kind): _page(kind, of) for kind, of in own.items()}


def _place(kind: str) -> str:
    return f"reference/{kind}s.md"


def _index(by_kind: dict[str, list[Component]]) -> str:
    lines = [
        "# Reference",
        "Every table of a pipeline file, and every component. These pages are generated from the code; `headwater components`",
        "shows the list in a terminal, `headwater components TYPE` all about one.",
        "",
    ]
    for kind, found in by_kind.items():
        lines += [f"## {kind.title()}s", f"{WHAT[kind]} All about them: [{kind}s]({_place(kind)}).", ""]
        lines += ["| type | |", "| --- | --- |"]
        lines += [f"| [`{c.type}`]({_place(kind)}#{c.type}-{kind}) | {cell(c.promise)} |" for c in found]
        lines += [""]
    return "\n".join([*lines, *tables()]).rstrip("\n") + "\n"


def _page(kind: str, found: list[Component]) -> str:
    return f"# {kind.title()}s\n{WHAT[kind]} [All components](../reference.md).\n\n" + "\n".join(map(markdown, found))


def main(folder: Path) -> None:
    """Write them; what else lies in docs/reference/ is of an earlier version."""
    made = pages(all_of())
    (folder / "reference").mkdir(exist_ok=True)
    for old in (folder / "reference").glob("*.md"):
        if f"reference/{old.name}" not in made:
            old.unlink()
    for place, text in made.items():
        (folder / place).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
