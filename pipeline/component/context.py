"""What every component has and is given: settings, and a `Context`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pipeline.frame import KeyTable
from pipeline.pictures import Pictures

if TYPE_CHECKING:
    from pipeline.clock import Clock


State = dict[str, Any]  # what `snapshot` gives: numpy arrays, numbers, text, lists and dicts of these


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every component's settings; `type`, `enabled`, `input` and `inputs` are the graph's and not listed here."""


class Context:
    """What every component is given at construction."""

    def __init__(
        self,
        name: str,
        keys: KeyTable,
        *,
        folder: Path = Path(),
        clock: Clock | None = None,
        pipeline: str = "",
        pictures: Pictures | None = None,
    ) -> None:
        self.name = name
        self.pipeline = pipeline  # the name of the pipeline: for what must be called the same at each start, outside
        self.keys = keys
        self.folder = folder  # where the pipeline file lies: relative paths start here
        self.clock = clock
        self.pictures = pictures or Pictures()  # of the last moments, of all sources that see
        self.problems: list[tuple[str, str]] = []
        self.warnings: list[tuple[str, str]] = []

    def problem(self, setting: str, text: str) -> None:
        """Report what is wrong with a setting (`levels.warning.when`); all problems are shown together."""
        self.problems.append((setting, text))

    def warn(self, setting: str, text: str) -> None:
        """Report what may be set and will yet hurt, with the way out: `headwater check` shows it, and a run goes on."""
        self.warnings.append((setting, text))
