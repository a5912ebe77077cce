"""`group`: one row for many keys, once what happened to them has been gathered for a while."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from operators.alert.watch import FAR, Row, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_KEYS = 20  # that are named in a row; of more it is said how many


class Member(NamedTuple):
    """A key that fires."""

    level: int
    since: int


class Told(NamedTuple):
    """A row of a group that leaves."""

    seq: int
    time: int
    group: int  # code of its key
    before: int
    after: int
    since: int
    members: tuple[int, ...]  # the keys that fire
    shows: Any  # of the latest change of a key


class Group:
    """What fires in it, what has been told of it, and what waits to be told."""

    __slots__ = ("began", "members", "shows", "told", "told_at", "told_since", "until")

    def __init__(self) -> None:
        self.members: dict[int, Member] = {}
        self.told: dict[int, int] = {}  # key -> level, as the last row had it
        self.told_since = 0
        self.told_at = 0
        self.until = FAR
        self.began = -1  # arrival number of the change with which gathering began; -1: in an earlier step
        self.shows: Any = None


class Groups:
    """All groups. Their time is the watermark's alone: no key's reading speaks for the others."""

    def __init__(self, within: int, repeat: int, by: Sequence[int], code: Callable[[tuple[Any, ...]], int]) -> None:
        self.within = within
        self.repeat = repeat  # 0: no reminders
        self.first = FAR  # not later than the first moment of all
        self.by = by  # places of the fields of `by` in what a row shows
        self.code = code  # of the key of the group with these values
        self.groups: dict[int, Group] = {}
        self.of_key: dict[int, int] = {}  # the group of each key that fires, or that did when it was last told

    def take(self, step: Step, rows: list[Row]) -> list[Told]:
        """The rows of keys, in order -> those of groups."""
        told: list[Told] = []
        for group in self.groups.values():
            group.began = -1
        for row in rows:
            before, after = step.around(row.seq)
            self._pass(step, before, row.seq, told)
            for code in self._groups_of(row):
                group = self.groups.setdefault(code, Group())
                self._pass_one(step, code, min(row.time - 1, after), told)
                self.groups[code] = group  # what it tells may have emptied it
                self._change(row, code, group)
        self._pass(step, step.progress.watermark, FAR, told)
        return told

    def _groups_of(self, row: Row) -> list[int]:
        """The group that a key's row belongs to, and the one that the key leaves for it."""
        left = self.of_key.get(row.key)
        _, *shown = row.shows
        if left is not None and (row.after < 0 or not shown):
            return [left]  # it is over, or the key fell silent while it fired: both are told where it was
        code = self.code(tuple(shown[at] if shown else None for at in self.by))
        self.of_key[row.key] = code
        return [code] if left in (None, code) else [left, code]

    def _change(self, row: Row, code: int, group: Group) -> None:
        """One key begins or ends to fire, changes its level, or leaves for another group."""
        if row.after >= 0 and self.of_key[row.key] == code:
            group.members[row.key] = Member(row.after, row.since)
        else:
            group.members.pop(row.key, None)
        if row.after < 0:
            self.of_key.pop(row.key, None)
        self._wait(group, row)

    def _wait(self, group: Group, row: Row) -> None:
        group.shows = row.shows
        if group.until == FAR:
            group.until, group.began = row.time + self.within, row.seq
            self.first = min(self.first, group.until)

    def _pass(self, step: Step, mark: int, seq: int, told: list[Told]) -> None:
        """Time passes for all groups but those of which reading `seq` has more to say."""
        if self.first > mark:
            return
        for code, group in [*self.groups.items()]:
            if group.began < seq:
                self._pass_one(step, code, mark, told)
        self.first = self.due()

    def _pass_one(self, step: Step, code: int, mark: int, told: list[Told]) -> None:
        while (group := self.groups.get(code)) and self._next(group) <= mark:
            self._tell(step, code, self._next(group), mark, told)

    def _tell(self, step: Step, code: int, now: int, mark: int, told: list[Told]) -> None:
        """Tell what has been gathered long enough, or remind."""
        group = self.groups[code]
        seq, reach = step.moved(now, group.began)
        before = group.told
        if group.until <= now:
            group.until = FAR
            group.told = {key: member.level for key, member in group.members.items()}
            remind = False
        else:  # where time jumped over several reminders the last of them stands for all
            last = min(reach, mark, group.until - 1)
            now += (last - now) // self.repeat * self.repeat
            remind = True
        was, is_ = (max(levels.values(), default=-1) for levels in (before, group.told))
        if group.told and group.told != before:
            group.told_since = min(member.since for member in group.members.values())
        if remind or before != group.told:
            group.told_at = now
            told.append(Told(seq, now, code, was, is_, group.told_since, tuple(sorted(group.told)), group.shows))
        if not group.told and group.until == FAR:
            del self.groups[code]

    def _next(self, group: Group) -> int:
        return min(group.until, group.told_at + self.repeat) if self.repeat and group.told else group.until

    def due(self) -> int:
        return min(map(self._next, self.groups.values()), default=FAR)

    # --- as plain values ---

    def pack(self) -> list[Any]:
        return [
            [
                code,
                [[key, *member] for key, member in g.members.items()],
                [list(told) for told in g.told.items()],
                [g.told_since, g.told_at, g.until],
                g.shows,
            ]
            for code, g in self.groups.items()
        ]

    def unpack(self, packed: list[Any]) -> None:
        self.groups, self.of_key = {}, {}
        for code, members, told, times, shows in packed:
            group = self.groups[code] = Group()
            group.members = {key: Member(level, since) for key, level, since in members}
            group.told = {key: level for key, level in told}  # noqa: C416 - pairs come as lists
            group.told_since, group.told_at, group.until = times
            group.shows = tuple(shows)
            self.of_key |= dict.fromkeys(group.members, code)
        self.first = self.due()


def names_of(values: tuple[Any, ...]) -> str:
    """The key of the group with these values."""
    if len(values) == 1 and isinstance(values[0], str):
        return values[0]
    return json.dumps(values, ensure_ascii=False)


def listed(names: list[str]) -> str:
    """Some keys, as text."""
    names = sorted(names)
    more = len(names) - MOST_KEYS
    return ", ".join(names[:MOST_KEYS]) + (f" and {more} more" if more > 0 else "")
