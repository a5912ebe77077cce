"""Parts of expressions that remember: `previous`, `latest`, `elapsed`. What they keep of each key is state of their operator.

A part gives its answer for a Frame from what it remembered before it, and only notes what it will remember. That counts
once the operator is through with the Frame (`settle`): if it fails, the rows come again in smaller Frames, and find
what the first try found. So an expression may be worked out twice for the same rows, or for a Frame in parts, one after
the other; but a reading that it is not shown, it does not know of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.frame import DTYPES, Array, Bools, Column, Frame, Ints, by_code
from pipeline.parts import Part, known, spread, zeros

if TYPE_CHECKING:
    from pipeline.perkey import PerKey

PerKeys = Callable[[str, Sequence[tuple[str, str]] | str], "PerKey"]  # state by key of a new name


class Past:
    """What one expression remembers. `settle` is called when its operator is through with a Frame, or has failed."""

    def __init__(self, name: str, per_key: PerKeys) -> None:
        self._name = name
        self._per_key = per_key
        self._memories: list[_Memory] = []
        self._turns: _Turns | None = None

    def __bool__(self) -> bool:
        return bool(self._memories)

    def settle(self, *, done: bool) -> None:
        """Remember what was noted of the last Frame, or forget it."""
        for memory in self._memories:
            memory.settle(done=done)
        self._turns = None

    def previous(self, part: Part) -> Part:
        """Its value in the key's reading before this one; missing if it was missing there, or if there was none."""
        return self._remembering(part, _Memory.previous, optional=True)

    def latest(self, part: Part) -> Part:
        """Its value; where that is missing, the key's last one that was not."""
        return self._remembering(part, _Memory.latest, optional=part.optional)

    def _remembering(self, part: Part, answer: Callable[[_Memory, Frame], Column], *, optional: bool) -> Part:
        name = f"{self._name}: {len(self._memories)}"
        value, has = self._per_key(f"{name} value", part.kind), self._per_key(f"{name} known", "bool")
        memory = _Memory(spread(part), value, has, self)
        self._memories.append(memory)
        return part._replace(optional=optional, evaluate=lambda frame: answer(memory, frame), literal=None, holds=None)

    def turns(self, frame: Frame) -> _Turns:
        """The order of a Frame's rows by key: several parts need it."""
        if self._turns is None or self._turns.key is not frame.key:
            self._turns = _Turns(frame.key)
        return self._turns


class _Turns:
    """The rows of a Frame key by key, those of a key in order of arrival; the first and the last row of each."""

    def __init__(self, key: Array) -> None:
        self.key = key
        self.order = by_code(key)
        ordered = key[self.order]
        new = np.empty(len(key), np.bool_)
        new[0] = True
        np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
        self.first = np.flatnonzero(new)
        self.last = np.append(self.first[1:], len(key)) - 1
        self.keys = ordered[self.first]


class _Noted(NamedTuple):
    """What is to be remembered after the reading with this arrival number."""

    seq: int
    keys: Ints
    values: Array
    known: Any


class _Memory:
    """One value of each key, and whether there is one yet."""

    def __init__(self, part: Part, value: PerKey, has: PerKey, past: Past) -> None:
        self._evaluate = part.evaluate
        self._past = past
        self._value = value
        self._known = has
        self._kind = part.kind
        self._zero = zeros(part.kind, 1)
        self._noted: _Noted | None = None  # of the rows that were seen last
        self._before: list[_Noted] = []  # what was there before the earlier parts of a Frame were taken for granted

    def settle(self, *, done: bool) -> None:
        if done and self._noted:
            self._put(self._noted)
        elif not done:
            for noted in reversed(self._before):
                self._put(noted)
        self._noted = None
        self._before.clear()

    def _put(self, noted: _Noted) -> None:
        self._value[noted.keys], self._known[noted.keys] = noted.values, noted.known

    def _follow(self, frame: Frame) -> None:
        """Rows behind those that were seen last are the next part of a Frame: for them those are earlier readings."""
        noted = self._noted
        if noted and frame.seq[0] > noted.seq:
            self._before.append(_Noted(noted.seq, noted.keys, self._value[noted.keys], self._known[noted.keys]))
            self._put(noted)

    def _remembered(self, keys: Array) -> tuple[Array, Bools]:
        values, has = self._value[keys], self._known[keys]
        if self._kind == "string":
            values = np.where(has, values, self._zero)  # of a key that has said nothing yet: no text
        return values, has

    def previous(self, frame: Frame) -> Column:
        column = self._evaluate(frame)
        if not len(frame):
            return Column(column.values, column.known())
        self._follow(frame)
        if len(frame) == 1:
            self._noted = _Noted(frame.seq[-1], frame.key, column.values, known(column))
            return Column(*self._remembered(frame.key))
        turns = self._past.turns(frame)
        values, has = column.values[turns.order], column.known()[turns.order]
        self._noted = _Noted(frame.seq[-1], turns.keys, values[turns.last], has[turns.last])
        before, had = self._remembered(turns.keys)
        values[1:], has[1:] = values[:-1].copy(), has[:-1].copy()
        values[turns.first], has[turns.first] = before, had
        return _back(values, has, turns.order)

    def latest(self, frame: Frame) -> Column:
        column = self._evaluate(frame)
        if not len(frame):
            return column
        self._follow(frame)
        if len(frame) == 1:
            before, had = self._remembered(frame.key)
            values, has = np.where(known(column), column.values, before), known(column) | had
            values = values.astype(DTYPES[self._kind], copy=False)
            self._noted = _Noted(frame.seq[-1], frame.key, values, has)
            return Column(values, has)
        turns = self._past.turns(frame)
        values, has = column.values[turns.order], column.known()[turns.order]
        unsaid = turns.first[~has[turns.first]]
        values[unsaid], has[unsaid] = self._remembered(frame.key[turns.order[unsaid]])
        said = has.copy()
        said[turns.first] = True  # nothing is taken over from another key
        source = np.maximum.accumulate(np.where(said, np.arange(len(said)), 0))
        values, has = values[source], has[source]
        self._noted = _Noted(frame.seq[-1], turns.keys, values[turns.last], has[turns.last])
        return _back(values, has, turns.order)


def _back(values: Array, has: Bools, order: Ints) -> Column:
    """In the order of the Frame again."""
    column = Column(np.empty_like(values), np.empty_like(has))
    column.values[order] = values
    assert column.present is not None
    column.present[order] = has
    return column
