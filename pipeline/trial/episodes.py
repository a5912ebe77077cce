"""Alerts as people speak of them: an episode is from the row that raised an alert for a key to the one that cleared it.

Two tellings of the same time are compared episode by episode: those that overlap are the same alert, told alike or moved.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

from pipeline.frame import Frame, Schema, rows

FOREVER = 2**63 - 1
WORDS = ("message", "alert")  # what is said, and by whom, is not what has happened


class Row(NamedTuple):
    """A row of an alert. Times in ns."""

    time: int
    state: str
    level: str | None
    values: dict[str, Any]  # all that it has, as it is named


@dataclass
class Episode:
    """The rows of an alert of a key, from the first that fires to the one that clears."""

    alert: str
    key: str
    rows: list[Row]

    @property
    def start(self) -> int:
        return min(int(self.rows[0].values["since"]), self.rows[0].time)

    @property
    def end(self) -> int:
        """When it was over; it fires still: FOREVER."""
        last = self.rows[-1]
        return FOREVER if last.state == "firing" else max(last.time, self.start + 1)

    @property
    def level(self) -> str | None:
        """The newest that it had."""
        return next((row.level for row in reversed(self.rows) if row.level), self.rows[0].values.get("previous"))


def episodes(alert: str, frames: Iterable[Frame], schema: Schema, keys: Sequence[str]) -> list[Episode]:
    """What the rows of an alert tell, in order of arrival."""
    current: dict[str, Episode] = {}
    found = []
    for frame in frames:
        for key, row in zip(frame.key.tolist(), rows(frame, schema, keys, "ns"), strict=True):
            name = keys[key]
            episode = current.get(name)
            if episode is None:
                episode = current[name] = Episode(alert, name, [])
                found.append(episode)
            episode.rows.append(Row(row["time"], row["state"], row["level"], row))
            if row["state"] != "firing":
                del current[name]
    return found


class Pair(NamedTuple):
    """Rows that say the same of an alert in both tellings; None: there only in the other."""

    recorded: Row | None
    replayed: Row | None


@dataclass
class Difference:
    """What a replay tells otherwise."""

    kind: str  # come | go | move
    recorded: list[Episode]
    replayed: list[Episode]
    pairs: list[Pair]  # of `move`: the rows that differ

    @property
    def alert(self) -> str:
        return (self.recorded or self.replayed)[0].alert

    @property
    def key(self) -> str:
        return (self.recorded or self.replayed)[0].key

    @property
    def time(self) -> int:
        return min(episode.rows[0].time for episode in (*self.recorded, *self.replayed))


@dataclass
class Comparison:
    recorded: int  # episodes in the span
    replayed: int
    same: int
    reworded: int  # of these: told in other words
    differences: list[Difference]  # by time

    def count(self, kind: str) -> int:
        return sum(d.kind == kind for d in self.differences)


def compare(recorded: Sequence[Episode], replayed: Sequence[Episode], start: int, end: int) -> Comparison:
    """The difference from `start` to before `end`. What lies outside only says what was firing then."""
    one, two = ([e for e in told if any(start <= row.time < end for row in e.rows)] for told in (recorded, replayed))
    result = Comparison(len(one), len(two), 0, 0, [])
    for a, b in _overlapping(recorded, replayed):
        rows_a, rows_b = ([row for e in told for row in e.rows if start <= row.time < end] for told in (a, b))
        if not rows_a and not rows_b:
            continue
        if not a or not b:
            result.differences.append(Difference("go" if a else "come", a, b, []))
        elif pairs := list(_differing(rows_a, rows_b)):
            result.differences.append(Difference("move", a, b, pairs))
        else:
            result.same += len(a)
            both = zip(rows_a, rows_b, strict=True)
            result.reworded += any(x.values.get("message") != y.values.get("message") for x, y in both)
    result.differences.sort(key=lambda d: (d.time, d.alert, d.key))
    return result


def _overlapping(recorded: Sequence[Episode], replayed: Sequence[Episode]) -> Iterator[tuple[list[Episode], ...]]:
    """Episodes of an alert and key that overlap, of both tellings."""
    told: dict[tuple[str, str], list[tuple[int, int, int, Episode]]] = defaultdict(list)
    for side, found in enumerate((recorded, replayed)):
        for i, e in enumerate(found):
            told[e.alert, e.key].append((e.start, side, i, e))
    for all_ in told.values():
        group: tuple[list[Episode], list[Episode]] = ([], [])
        until = -FOREVER
        for start, side, _, episode in sorted(all_, key=lambda item: item[:3]):
            if start >= until and any(group):
                yield group
                group = ([], [])
            group[side].append(episode)
            until = max(until, episode.end)
        yield group


def _differing(recorded: Sequence[Row], replayed: Sequence[Row]) -> Iterator[Pair]:
    """Rows that say another time or another value, paired by state and level. A field that one telling does not have says
    nothing; the others are compared to the last bit."""
    if not recorded or not replayed:
        yield from (Pair(a, b) for a, b in zip_longest(recorded, replayed))
        return
    compared = [n for n in recorded[0].values if n in replayed[0].values and n not in WORDS]
    texts = [[repr([row.values[n] for n in compared]) for row in told] for told in (recorded, replayed)]
    both = Counter(texts[0]) & Counter(texts[1])
    left: dict[tuple[str, str | None], tuple[list[Row], list[Row]]] = {}
    for side, told in enumerate((recorded, replayed)):
        alike = both.copy()
        for row, text in zip(told, texts[side], strict=True):
            if alike[text]:
                alike[text] -= 1
            else:
                left.setdefault((row.state, row.level), ([], []))[side].append(row)
    for a, b in left.values():
        yield from (Pair(x, y) for x, y in zip_longest(a, b))


def changed(a: Row, b: Row) -> list[str]:
    """The fields that both have and that differ."""
    return [n for n in a.values if n in b.values and n not in WORDS and repr(a.values[n]) != repr(b.values[n])]


def starts(found: Iterable[Episode], start: int, end: int) -> int:
    """How many begin to fire from `start` to before `end`."""
    return sum(start <= e.rows[0].time < end and e.rows[0].state == "firing" for e in found)
