"""What rows are given by a join."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.frame import Bools, Column


class Given(NamedTuple):
    """Where there was anything to give, and it."""

    found: Bools
    columns: dict[str, Column]
