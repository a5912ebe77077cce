"""What is wrong with a pipeline file: where, what, and the way out.

Exception
  ConfigError     a pipeline file that cannot be run; carries every Problem found
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Problem(NamedTuple):
    """One mistake. Sorts by line."""

    line: int
    path: tuple[str | int, ...]  # of the setting: ("operators", "hot", "when"); (): of the whole file
    text: str

    def show(self, file: Path, mark: str = "") -> str:
        """`pipeline.toml:31: operators.hot.when: what is wrong`"""
        return f"{file}:{self.line}: {mark}{dotted(self.path) + ': ' if self.path else ''}{self.text}"

    def as_dict(self) -> dict[str, object]:
        """For programs."""
        return {"line": self.line, "path": dotted(self.path), "text": self.text}

    def __lt__(self, other: tuple[object, ...]) -> bool:
        # Keys and indices do not compare with each other; as text they do.
        if not isinstance(other, Problem):
            return NotImplemented
        return (self.line, [*map(str, self.path)], self.text) < (other.line, [*map(str, other.path)], other.text)


class ConfigError(Exception):
    """A pipeline file that cannot be run, with every problem that could be found."""

    def __init__(self, file: Path, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = sorted(set(problems))
        super().__init__("\n".join(problem.show(file) for problem in self.problems))


def dotted(path: Iterable[str | int]) -> str:
    """A path as people write it: `operators.hot.levels[0].when`; a key that needs quotes gets them."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += ("." if shown else "") + (part if _BARE.fullmatch(part) else f'"{part}"')
    return shown


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that was most likely meant, whatever its case; None if none is near."""
    import difflib  # only needed where something is wrong

    by_lower = {k.lower(): k for k in sorted(known, reverse=True)}
    near = difflib.get_close_matches(word.lower(), list(by_lower), 1, cutoff)
    return by_lower[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean "…"?)`, or nothing if no known word is near."""
    near = nearest(word, known)
    return f' (did you mean "{near}"?)' if near else ""
