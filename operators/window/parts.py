"""What the kinds of windows have in common: readings in, rows out, the windows that are open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from pipeline.frame import Column, Ints, Progress
from pipeline.quantity import Duration, duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.component import OperatorContext, State

NEVER_DUE = 2**63 - 1


class Readings(NamedTuple):
    """The readings of a Frame: the group of each, and the values of every argument of the aggregates."""

    time: Ints
    seq: Ints
    group: Ints
    values: Sequence[Column]

    def take(self, rows: Ints) -> Readings:
        return Readings(self.time[rows], self.seq[rows], self.group[rows], [c.take(rows) for c in self.values])


class Rows(NamedTuple):
    """Rows that leave."""

    seq: Ints
    group: Ints
    start: Ints
    end: Ints
    revision: Ints
    aggregates: dict[str, Column]

    def take(self, rows: Ints) -> Rows:
        seq, group, start, end, revision = (a[rows] for a in self[:5])
        return Rows(seq, group, start, end, revision, {n: c.take(rows) for n, c in self.aggregates.items()})


class Windows(Protocol):
    """A kind of windows. Of rows of one reading those leave first that it gives first."""

    def push(self, readings: Readings, progress: Progress) -> tuple[list[Rows], Ints | None]:
        """The readings and the time of one Frame -> rows that leave; which readings came too late (None: none)."""
        ...

    def early(self, seq: int) -> Rows | None:
        """A row of each window that has readings which no row has shown, by end, then key."""
        ...

    def forget(self, groups: Ints) -> None:
        """Drop what these groups have open, without a row."""
        ...

    def due(self) -> int | None: ...
    def snapshot(self) -> State: ...
    def restore(self, state: State) -> None: ...


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, one after the other. At least one part."""
    if len(parts) == 1:
        return parts[0]
    seq, group, start, end, revision = (np.concatenate(arrays) for arrays in zip(*(p[:5] for p in parts), strict=True))
    aggregates = {name: _join([p.aggregates[name] for p in parts]) for name in parts[0].aggregates}
    return Rows(seq, group, start, end, revision, aggregates)


def _join(parts: list[Column]) -> Column:
    return Column(np.concatenate([c.values for c in parts]), np.concatenate([c.known() for c in parts]))


def length(text: Any, setting: str, context: OperatorContext) -> Duration:
    """A duration that must be there and longer than nothing. A wrong one is reported, and 1 s stands for it."""
    try:
        found = duration(text) if isinstance(text, str) else text
    except ValueError as error:
        context.problem(setting, str(error))
        return Duration(10**9)
    if found is None:
        context.problem(setting, f'the setting "{setting}" is missing: how long, as in {setting} = "10 s"')
    elif not isinstance(found, Duration):
        context.problem(setting, f'how long? Write it with a unit, as in {setting} = "{found} s"')
    elif found <= 0:
        context.problem(setting, "a window must be longer than nothing")
    else:
        return found
    return Duration(10**9)
