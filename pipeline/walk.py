"""An answer of any length, page by page: each is a question of its own, so nothing is held between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from pipeline.component import RowsQuery
from pipeline.frame import Frame


class Walk:
    """The rows of `query`, at most `size` at a time: ask `next`, hand what was found to `take`, until it is `done`."""

    def __init__(self, query: RowsQuery, size: int, skip: int = 0) -> None:
        self.query = query
        self.size = size
        self.left = query.limit
        self.skip = skip  # so many rows of the first time have been given
        self.done = False

    def next(self) -> RowsQuery:
        return replace(self.query, limit=min(self.size, self.left) + self.skip)

    def take(self, found: Frame) -> Frame:
        """The rows of `found` that were not given yet."""
        wanted = min(self.size, self.left)
        page = found.take(slice(self.skip, None))
        self.left -= len(page)
        self.done = len(page) < wanted or self.left <= 0
        if not self.done:
            last = int(found.time[-1])
            self.skip = int(np.count_nonzero(found.time == last))
            if self.query.descending:
                self.query = replace(self.query, end=last + 1)
            else:
                self.query = replace(self.query, start=last)
        return page


def pages(query: RowsQuery, size: int, ask: Callable[[RowsQuery], Frame]) -> Iterator[Frame]:
    walk = Walk(query, size)
    while not walk.done:
        yield walk.take(ask(walk.next()))
