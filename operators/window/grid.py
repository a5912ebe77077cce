"""Where windows lie: numbers for them, and their starts and ends."""

from __future__ import annotations

from typing import Any, Protocol


class Grid(Protocol):
    """Numbered windows, the same for all groups; later ones have later starts and ends. Takes numbers and arrays."""

    single: bool  # each time is in exactly one window

    def first(self, time: Any) -> Any:
        """The first window that a time is in; it is also the first that does not end before or at this time."""
        ...

    def last(self, time: Any) -> Any: ...
    def start(self, window: Any) -> Any: ...
    def end(self, window: Any) -> Any: ...


class Even:
    """Window w is [offset + w * every, offset + w * every + size)."""

    def __init__(self, size: int, every: int, offset: int) -> None:
        self.size, self.every, self.offset = size, every, offset
        self.single = size == every

    def first(self, time: Any) -> Any:
        return (time - self.offset - self.size) // self.every + 1

    def last(self, time: Any) -> Any:
        return (time - self.offset) // self.every

    def start(self, window: Any) -> Any:
        return window * self.every + self.offset

    def end(self, window: Any) -> Any:
        return window * self.every + (self.offset + self.size)
