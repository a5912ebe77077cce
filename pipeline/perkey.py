"""State of an operator for each key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.frame import DTYPES, Array


class PerKey:
    """One value for each key and name, that the engine saves and restores: an array by key code, grown as keys come.

    `kinds` names values and their kinds; a kind alone makes it a plain array of one value for each key.
    """

    def __init__(self, kinds: Sequence[tuple[str, str]] | str) -> None:
        dtype = DTYPES[kinds] if isinstance(kinds, str) else [(name, DTYPES.get(kind, kind)) for name, kind in kinds]
        self.data: Array = np.zeros(0, dtype)

    def grow(self, keys: int) -> None:
        """Room for this many keys; new ones start as zeros."""
        if keys > len(self.data):
            more = np.zeros(max(keys, 2 * len(self.data), 16), self.data.dtype)
            more[: len(self.data)] = self.data
            self.data = more

    def forget(self, keys: Array) -> None:
        """These keys are as new ones."""
        self.data[keys] = np.zeros((), self.data.dtype)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    def __getitem__(self, at: Any) -> Any:
        return self.data[at]

    def __setitem__(self, at: Any, values: Any) -> None:
        self.data[at] = values
