"""The key table of a pipeline: a number for each key, by which Frames and states know it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_KEY = 500  # characters
MOST_CODES = 2**24 - 2  # of keys, those that were forgotten included: windows put a code into 24 bits
FULL, UNFIT = -1, -2  # what stands for the code of a key that is refused


class KeyTable(dict[Any, int]):
    """Key -> code, in the order in which keys were first seen. A whole number is the key of its digits.

    At `limit` a new key gets the code `FULL`; one that is empty or longer than `MAX_KEY` gets `UNFIT`. Neither is kept.
    A key that was forgotten keeps its code, since the history knows it by that, and takes no room until it is heard again.
    """

    def __init__(self, names: Iterable[str] = (), limit: int = 100_000) -> None:
        super().__init__()
        self.names: list[str] = []
        self.limit = limit
        self.forgotten: set[int] = set()
        self._whole: int | None = None
        self._ranks = np.empty(0, np.int64)
        self.load(names)

    def __missing__(self, name: str | int) -> int:
        if not isinstance(name, str):
            code = self[str(name)]
            if code >= 0:
                self[name] = code
            return code
        if not 0 < len(name) <= MAX_KEY:
            return UNFIT
        return self._add(name) if self.has_room() else FULL

    def has_room(self) -> bool:
        """For one more. Of those that were forgotten there may be as many again: their names are still needed."""
        names = len(self.names) - (self._whole is not None)
        return names - len(self.forgotten) < self.limit and names < min(2 * self.limit, MOST_CODES)

    def heard(self, codes: NDArray[np.int32]) -> None:
        """Those of these that were forgotten are keys like any other again."""
        if self.forgotten:
            self.forgotten.difference_update(codes.tolist())

    def _add(self, name: str) -> int:
        code = self[name] = len(self.names)
        self.names.append(name)
        return code

    def __len__(self) -> int:
        return len(self.names)

    def why(self, code: int) -> str:
        """Why a key was refused, by what stands for its code."""
        if code == FULL:
            return f"too many keys (limit {self.limit})"
        return f"the key is empty or longer than {MAX_KEY} characters"

    def whole(self) -> int:
        """The code of the one group of a stream without a key. Its text is empty, and cannot be looked up: no reading has it."""
        if self._whole is None:
            self._whole = len(self.names)
            self.names.append("")
        return self._whole

    def load(self, names: Iterable[str]) -> None:
        """Take in a saved table; only into an empty one, so that codes stay what they were."""
        if self.names:
            raise ValueError("this key table has keys already")
        for name in names:
            if name:
                self._add(name)
            else:
                self.whole()

    def codes(self, names: Sequence[str | int] | NDArray[np.int32]) -> NDArray[np.int32]:
        """The code of each name; new names are added while there is room. What has been looked up already is left as it is."""
        if isinstance(names, np.ndarray):
            return names
        return np.fromiter(map(self.__getitem__, names), np.int32, len(names))

    def ranks(self) -> NDArray[np.int64]:
        """The place of each code's key in the order of the keys' text."""
        if len(self._ranks) != len(self.names):
            order = sorted(range(len(self.names)), key=self.names.__getitem__)
            self._ranks = np.empty(len(order), np.int64)
            self._ranks[order] = np.arange(len(order))
        return self._ranks
