"""`headwater init --component KIND NAME`: a package with one component that works as it comes, its tests and an example."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

KINDS = ("source", "codec", "operator", "sink")
LONGEST = 30  # of a name: it is part of lines that are to stay short
PROMISES = {
    "source": "how much lies in a folder.",
    "codec": "named values on a line, with a checksum.",
    "operator": "how fast a value rises or falls.",
    "sink": "rows as files in a folder, for a program that takes them away.",
}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FOLDER = Path(__file__).with_name("templates") / "component"


def make(kind: str, name: str, folder: Path | None) -> int:
    """Writes it into a new folder; the exit status."""
    if wrong := _wrong(kind, name):
        print(wrong, file=sys.stderr)
        return 2
    into = folder or Path(distribution(name))
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        print(f"{into} is there already; nothing was written", file=sys.stderr)
        return 2
    try:
        into.mkdir(parents=True, exist_ok=True)
        for file, text in files(kind, name).items():
            (into / file).write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print("\n".join(_next(kind, name, into)))
    return 0


def distribution(name: str) -> str:
    """What its package is called."""
    return f"headwater-{name.replace('_', '-')}"


def files(kind: str, name: str) -> dict[str, str]:
    """The files of the package, by name."""
    made = {
        f"headwater_{name}.py": f"{kind}/component.py",
        f"test_{name}.py": f"{kind}/test.py",
        "example.toml": f"{kind}/example.toml",
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
    }
    said = {
        "@name@": name,
        "@Name@": "".join(part.capitalize() for part in name.split("_")),
        "@kind@": kind,
        "@distribution@": distribution(name),
        "@promise@": PROMISES[kind],
    }
    found = {}
    for file, template in made.items():
        text = (_FOLDER / f"{template}.txt").read_text(encoding="utf-8")
        for place, word in said.items():
            text = text.replace(place, word)
        found[file] = text
    return found


def _wrong(kind: str, name: str) -> str:
    """What is wrong with the kind or the name; nothing if nothing is."""
    from pipeline import registry
    from pipeline.problem import did_you_mean

    if kind not in KINDS:
        return f'"{kind}" is no kind of component{did_you_mean(kind, KINDS)}; there are: {", ".join(KINDS)}'
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or len(name) > LONGEST:
        return (
            f'"{name}" is not a name of a component: use small letters, digits and _, a letter first, '
            f"no word of Python, {LONGEST} characters at most"
        )
    if registry.is_built_in(kind, name):
        return f'there is a built-in {kind} "{name}" already, which would be found first: choose another name'
    if brought_by := registry.distribution(kind, name):
        return f'the {kind} "{name}" comes by {brought_by} already: choose another name'
    return ""


def _next(kind: str, name: str, folder: Path) -> list[str]:
    """What was made, and what to do with it."""
    return [
        f"{folder}: the {kind} {name} with its test, an example and its packaging",
        f"  cd {folder}",
        '  pip install --editable ".[test]"   installs it, beside headwater',
        "  pytest                             runs its tests",
        f"  headwater components {name:14}tells what it is, from its code",
        "  headwater test example.toml        uses it",
    ]
