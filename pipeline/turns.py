"""The rows of a Frame key by key, and what depends on the row that passed last: found by columns, in no loop over readings.

"A reading passes if it is far enough from the last that passed" is a chain: each link depends on the one before. But which
row would be next can be said for every row at once, as if that row had passed (`beyond`); then the chain is followed from
each key's first link in as many goes as doubling needs (`linked`).
"""

from __future__ import annotations

import numpy as np

from pipeline.component import State
from pipeline.frame import DTYPES, Array, Bools, Column, Field, Frame, Ints, KeyTable, Progress, by_code
from pipeline.parts import zeros


class Turns:
    """Rows put key by key, those of a key in order of arrival."""

    def __init__(self, key: Array, order: Ints) -> None:
        self.order = order  # the rows, so ordered
        ordered = key[order]
        self.begins = np.empty(len(order), np.bool_)  # the first of its key
        self.begins[:1] = True
        np.not_equal(ordered[1:], ordered[:-1], out=self.begins[1:])
        self.first = np.flatnonzero(self.begins)
        self.keys = ordered[self.first]

    def __len__(self) -> int:
        return len(self.order)

    @property
    def last(self) -> Ints:
        """The place of the last row of each key."""
        return np.flatnonzero(np.append(self.begins[1:], True)[: len(self)])

    @property
    def longest(self) -> int:
        """The most rows of one key."""
        return int(np.diff(self.first, append=len(self)).max(initial=0))


def by_key(key: Array, rows: Ints | None = None) -> Turns:
    """All rows, or these (in order of arrival)."""
    if rows is None:
        return Turns(key, by_code(key))
    return Turns(key, rows[by_code(key[rows])])


def from_news(key: Array, new: Bools) -> Turns:
    """Of each key the rows from the first that is news on; keys without news are left out."""
    turns = by_key(key)
    place = np.arange(len(turns))
    newest = np.maximum.accumulate(np.where(new[turns.order], place, -1))
    begin = np.maximum.accumulate(np.where(turns.begins, place, 0))
    return Turns(key, turns.order[newest >= begin])


def after(changes: Bools) -> Ints:
    """For each place the next one where `changes` is true, after it; the number of places (at least one) if there is none."""
    n = len(changes)
    at = np.where(changes, np.arange(n), n)
    following = np.append(at[1:], n)
    found: Ints = np.minimum.accumulate(following[::-1])[::-1]
    return found


def beyond(values: Array, low: Array | None, high: Array, within: int) -> Ints:
    """For each place the next one, after it, whose value lies below its `low` (None: is not asked) or above its `high`.

    It is looked for at fewer than `within` places; where there is none, what comes back is farther away than these.
    """
    n = len(values)
    highest, lowest = [values], [values]
    reach = 1
    while 2 * reach < within:  # the extremes of 1, 2, 4, … values that begin at each place; the last ones have fewer
        highest.append(_widened(highest[-1], reach, np.maximum))
        if low is not None:
            lowest.append(_widened(lowest[-1], reach, np.minimum))
        reach *= 2
    place = np.arange(1, n + 1)
    for level in range(len(highest) - 1, -1, -1):
        at = np.minimum(place, n - 1)
        none = highest[level][at] <= high
        if low is not None:
            none &= lowest[level][at] >= low
        place = np.where(none, place + (1 << level), place)
    return np.minimum(place, n)


def _widened(values: Array, by: int, extreme: np.ufunc) -> Array:
    wider = values.copy()
    extreme(values[:-by], values[by:], out=wider[:-by])
    return wider


def linked(first: Ints, following: Ints) -> Bools:
    """The places that are reached from `first` by going on to `following` again and again; len(following) ends a way."""
    n = len(following)
    reached = np.zeros(n + 1, np.bool_)
    reached[first] = True
    jump = np.append(following, n)
    while True:
        on = jump[np.flatnonzero(reached)]
        reached[on] = True
        if int(on.min(initial=n)) >= n:
            return reached[:n]
        jump = jump[jump]


def by_text(codes: Array, keys: KeyTable) -> Ints:
    """Numbers in the order of the keys' texts. Only these are sorted: a few, of many keys, in most Frames."""
    distinct, which = np.unique(codes, return_inverse=True)
    order = sorted(range(len(distinct)), key=[keys.names[code] for code in distinct.tolist()].__getitem__)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    found: Ints = ranks[which]
    return found


class RowOfKey:
    """One row of each key, that is kept: its time and some fields. State of an operator, and as such saved by it."""

    def __init__(self, fields: dict[str, Field]) -> None:
        self.fields = fields
        self.has = np.zeros(0, np.bool_)
        self.time = np.zeros(0, np.int64)
        self.columns = {name: Column(zeros(f.kind, 0), _mask(f)) for name, f in fields.items()}

    @property
    def width(self) -> int:
        """Bytes for each key; text counts for a pointer."""
        return 9 + width_of(self.fields)

    def grow(self, keys: int) -> None:
        """Room for this many keys."""
        if keys <= len(self.has):
            return
        more = max(keys, 2 * len(self.has), 16) - len(self.has)
        self.has = np.append(self.has, np.zeros(more, np.bool_))
        self.time = np.append(self.time, np.zeros(more, np.int64))
        for name, (values, present) in self.columns.items():
            wider = np.append(values, zeros(self.fields[name].kind, more))
            self.columns[name] = Column(
                wider, None if present is None else np.append(present, np.zeros(more, np.bool_))
            )

    def put(self, keys: Array, time: Ints, columns: dict[str, Column]) -> None:
        """These rows, in the place of those that the keys had."""
        self.has[keys] = True
        self.time[keys] = time
        for name, (values, present) in self.columns.items():
            values[keys] = columns[name].values
            if present is not None:
                present[keys] = columns[name].known()

    def put_last(self, frame: Frame, rows: Ints) -> None:
        """The last of these rows (in order of arrival) for each key. Each key is written once: numpy does not say which of
        several writes to one place stays."""
        if len(rows) == 1:
            alone = frame.take(rows)
            self.put(alone.key, alone.time, dict(alone.columns))
            return
        turns = by_key(frame.key, rows)
        last = turns.order[turns.last]
        self.put(turns.keys, frame.time[last], {name: frame.columns[name].take(last) for name in self.fields})

    def take(self, keys: Array, seq: Ints, progress: Progress) -> Frame:
        """The rows of these keys, as a Frame."""
        columns = {name: column.take(keys) for name, column in self.columns.items()}
        return Frame(self.time[keys], keys.astype(np.int32), seq, columns, progress)

    def forget(self, keys: Array) -> None:
        self.has[keys[keys < len(self.has)]] = False

    def snapshot(self, keys: KeyTable) -> State:
        n = min(len(keys), len(self.has))
        arrays = {name: [a[:n].copy() for a in column if a is not None] for name, column in self.columns.items()}
        return {"has": self.has[:n].copy(), "time": self.time[:n].copy(), "fields": arrays}

    def restore(self, state: State) -> None:
        self.has, self.time = state["has"].copy(), state["time"].copy()
        self.columns = {name: Column(*(a.copy() for a in arrays)) for name, arrays in state["fields"].items()}


def width_of(fields: dict[str, Field]) -> int:
    """Bytes of a row's values; text counts for a pointer."""
    return sum(np.dtype(DTYPES[f.kind]).itemsize + f.optional for f in fields.values())


def _mask(field: Field) -> Bools | None:
    return np.zeros(0, np.bool_) if field.optional else None
