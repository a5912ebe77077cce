"""`alert` beside a plain loop: one reading at a time, objects by key, no columns and no numpy.

The loop knows nothing of Frames. After each reading it lets time pass for every key, moment by moment.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.alert import Alert
from pipeline.frame import BEGUN, NEVER, SECOND, Field, KeyTable, Schema, rows
from pipeline.testing import Mark, Stream, frames, make, run, streams

SCHEMA = Schema("key", {"value": Field("float", optional=True), "room": Field("string", optional=True)})
FAR = 2**63

Row = dict[str, Any]


@dataclass(frozen=True)
class Level:
    name: str
    above: float  # when subject > above
    below: float | None  # clear: subject < below
    hold: int  # s
    keep: int  # s
    of_rate: bool = False  # the subject is not the value but its rate

    def table(self) -> Row:
        subject = "value_rate" if self.of_rate else "value"
        found = {"when": f"{subject} > {self.above}", "for": f"{self.hold} s", "keep": f"{self.keep} s"}
        return found if self.below is None else found | {"clear": f"{subject} < {self.below}"}


@dataclass(frozen=True)
class Plan:
    """The settings of an alert, in seconds; 0: not set."""

    levels: tuple[Level, ...] = ()
    silent_for: int = 0
    expect: tuple[str, ...] = ()
    repeat: int = 0
    changes: int = 0
    within: int = 0
    group: int = 0
    by: tuple[str, ...] = ()
    inhibit: tuple[str, ...] = ()

    def table(self) -> Row:
        table: Row = {}
        if self.levels:
            table["levels"] = {level.name: level.table() for level in self.levels}
            table["rate"] = {"field": "value", "per": "2 s"}
        if self.silent_for:
            table |= {"silent_for": f"{self.silent_for} s", "expect": list(self.expect)}
        if self.repeat:
            table["repeat"] = f"{self.repeat} s"
        if self.changes:
            table["flapping"] = {"changes": self.changes, "within": f"{self.within} s"}
        if self.inhibit:
            table["inhibit"] = list(self.inhibit)
        if self.group:
            table["group"] = {"by": list(self.by), "within": f"{self.group} s"}
        return table

    def names(self) -> list[str]:
        names = [level.name for level in self.levels]
        return [*names, "silent" if names else "warning"] if self.silent_for else names


class Latch:
    """One level of one key. `phase`: no, pending, yes, ending."""

    def __init__(self, hold: int, keep: int) -> None:
        self.hold, self.keep = hold * SECOND, keep * SECOND
        self.phase = "no"
        self.since = self.fired = 0
        self.shows: Row = {}

    def due(self) -> int:
        if self.phase == "pending":
            return self.since + self.hold
        return self.fired + self.keep if self.phase == "ending" else FAR

    def fire(self, time: int) -> None:
        self.phase, self.fired = "yes", time

    def hear(self, time: int, when: bool | None, clear: bool | None, shows: Row) -> None:
        clear = clear and when is not True
        if when and self.phase == "no":
            self.phase, self.since, self.shows = "pending", time, shows
            if not self.hold:
                self.fire(time)
        elif self.phase == "pending":
            if when:
                self.shows = shows
            elif when is False:
                self.phase = "no"
        elif self.phase == "yes" and clear:
            early = self.keep and time < self.fired + self.keep
            self.phase, self.shows = ("ending" if early else "no"), shows
        elif self.phase == "ending":
            if when:
                self.phase = "yes"
            elif clear:
                self.shows = shows


@dataclass
class Key:
    latches: list[Latch]
    heard: int | None = None  # the time from which on silence counts
    spoke: bool = False
    silent: bool = False
    silent_since: int = 0
    rate: tuple[int, float] | None = None  # the last reading that counts
    actual: int = -1
    shows: Row = field(default_factory=dict)
    told: int = -1
    told_at: int = 0
    told_since: int = 0
    newest: Row = field(default_factory=dict)
    changes: list[int] = field(default_factory=list)
    changed_at: int = 0
    by: set[str] = field(default_factory=set)  # the alerts that inhibit it


class Oracle:
    def __init__(self, plan: Plan, disorder: int) -> None:
        self.plan = plan
        self.disorder = disorder * SECOND
        self.watermark = NEVER
        self.marks = dict.fromkeys(("", *plan.inhibit), NEVER)  # of each input
        self.keys: dict[str, Key] = {}
        self.began = False
        self.rows: list[Row] = []
        self.at_once: list[Row] = []  # of the reading that is being taken

    def key(self, name: str) -> Key:
        if name not in self.keys:
            self.keys[name] = Key([Latch(level.hold, level.keep) for level in self.plan.levels])
        return self.keys[name]

    # --- what comes ---

    def hear(self, item: Row | Mark) -> list[Row]:
        """The rows that one reading, or a tick, causes."""
        self.at_once = []
        if isinstance(item, Mark):
            to = NEVER if item.watermark is None else item.watermark
            self.marks = {name: max(mark, to) for name, mark in self.marks.items()}
        else:
            name = item.get("input", "")
            if not name:
                self.read(item)
            elif item["state"] == "firing":
                self.let_go(item)
            self.marks[name] = max(self.marks[name], item["time"] * SECOND - self.disorder)
        ended = isinstance(item, Mark) and item.ended  # an input that has ended holds no other back
        self.watermark = max(self.watermark, (max if ended else min)(self.marks.values()))
        if not self.began and self.watermark > BEGUN:
            self.began = True
            for name in self.plan.expect:
                if self.key(name).heard is None:
                    self.key(name).heard = self.watermark
        for name in sorted(self.keys):
            self.let_pass(name, self.watermark)
        if isinstance(item, dict) and item.get("input") and item["state"] != "firing":
            self.let_go(item)
        latest: dict[str, int] = {}
        for row in self.at_once:  # by time, then key; the rows of a key keep their order
            latest[row["key"]] = row["order"] = max(row["time"], latest.get(row["key"], row["time"]))
        return sorted(self.at_once, key=lambda row: (row["order"], row["key"]))

    def let_go(self, item: Row) -> None:
        """Another alert begins to fire for a key, or no longer does."""
        key = self.key(item["key"])
        (key.by.add if item["state"] == "firing" else key.by.discard)(item["input"])
        self.tell(item["key"], max(item["time"] * SECOND, key.changed_at))

    def read(self, item: Row) -> None:
        name, time = item["key"], item["time"] * SECOND
        key = self.key(name)
        self.let_pass(name, time)
        shows = {
            "reading": time,
            "value": item["value"],
            "room": item["room"],
            "value_rate": self.rate(key, time, item),
        }
        self.listen(key, time)
        for level, latch in zip(self.plan.levels, key.latches, strict=True):
            subject = shows["value_rate" if level.of_rate else "value"]
            when = None if subject is None else subject > level.above
            clear = (
                (None if when is None else not when)
                if level.below is None
                else (None if subject is None else subject < level.below)
            )
            latch.hear(time, when, clear, shows)
        self.judge(name, time, shows)
        key.newest = shows

    def rate(self, key: Key, time: int, item: Row) -> float | None:
        if item["value"] is None or (key.rate and time <= key.rate[0]):
            return None
        before, key.rate = key.rate, (time, item["value"])
        return None if before is None else (item["value"] - before[1]) / ((time - before[0]) / 1e9) * 2.0

    def listen(self, key: Key, time: int) -> None:
        if not self.plan.silent_for or (key.spoke and key.heard is not None and time <= key.heard):
            return
        key.heard, key.spoke = time, True
        if key.silent and time + self.plan.silent_for * SECOND > self.watermark:
            key.silent = False

    # --- time ---

    def moments(self, key: Key) -> list[int]:
        """When time alone would change something, but for reminders."""
        found = [latch.due() for latch in key.latches]
        if self.plan.silent_for and key.heard is not None and not key.silent:
            found.append(key.heard + self.plan.silent_for * SECOND)
        held = key.actual != key.told and not (key.by and key.actual > key.told)
        if held and self.plan.changes and key.changes:
            found.append(key.changes[0] + self.plan.within * SECOND)
        return found

    def let_pass(self, name: str, until: int) -> None:
        key = self.keys[name]
        repeat = 0 if self.plan.group else self.plan.repeat * SECOND
        while True:
            now = min(self.moments(key), default=FAR)
            reminder = key.told_at + repeat if repeat and key.told >= 0 else FAR
            if min(now, reminder) > until:
                return
            if now <= reminder:
                self.turn(name, now)
            else:
                while reminder + repeat < now and reminder + repeat <= until:
                    reminder += repeat
                self.remind(name, reminder)

    def remind(self, name: str, time: int) -> None:
        key = self.keys[name]
        key.told_at = time
        if key.actual == key.told and not key.by:
            self.put(name, time, key.told, key.told_since, key.newest)

    def turn(self, name: str, now: int) -> None:
        """What is due at one moment."""
        key = self.keys[name]
        shows: Row | None = None
        for latch in key.latches:
            if latch.due() <= now:
                shows = latch.shows
                if latch.phase == "pending":
                    latch.fire(now)
                else:
                    latch.phase = "no"
        silent_for = self.plan.silent_for * SECOND
        if silent_for and key.heard is not None and not key.silent and key.heard + silent_for <= now:
            key.silent, key.silent_since = True, key.heard
            shows = {"reading": key.heard if key.spoke else None}
        self.judge(name, now, shows)
        self.tell(name, now)

    # --- what is told ---

    def judge(self, name: str, time: int, shows: Row | None) -> None:
        key = self.keys[name]
        held = [i for i, latch in enumerate(key.latches) if latch.phase in ("yes", "ending")]
        actual = len(key.latches) if key.silent else max(held, default=-1)
        if actual != key.actual:
            assert shows is not None
            key.actual, key.shows, key.changed_at = actual, shows, time
            self.tell(name, time)

    def tell(self, name: str, time: int) -> None:
        key = self.keys[name]
        if key.actual == key.told or (key.by and key.actual > key.told):
            return
        plan = self.plan
        if plan.changes and len(key.changes) == plan.changes and time < key.changes[0] + plan.within * SECOND:
            return
        if key.actual == len(key.latches):
            since = key.silent_since
        else:
            since = key.latches[key.actual].since if key.actual >= 0 else key.told_since
        self.put(name, time, key.actual, since, key.shows)
        key.told, key.told_at, key.told_since, key.newest = key.actual, time, since, key.shows
        if plan.changes:
            key.changes = [*key.changes, time][-plan.changes :]

    def put(self, name: str, time: int, level: int, since: int, shows: Row) -> None:
        names = [*self.plan.names(), None]
        row = {
            "key": name,
            "time": time,
            "level": names[level],
            "previous": names[self.keys[name].told],
            "since": since,
        }
        nothing = {"reading": None, "value": None, "room": None, "value_rate": None}
        self.at_once.append(row | nothing | shows)


class Grouping:
    """The rows of keys -> those of groups. Only the watermark is their time."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.firing: dict[str, dict[str, Row]] = {}  # group -> key -> its newest row
        self.told: dict[str, dict[str, str]] = {}
        self.times: dict[str, tuple[int, int]] = {}  # of the last row: since, time
        self.newest: dict[str, Row] = {}
        self.until: dict[str, int] = {}

    def of(self, row: Row) -> str:
        if not self.plan.by:
            return ""
        return "[null]" if row["room"] is None else str(row["room"])

    def take(self, rows: list[Row], watermark: int) -> list[Row]:
        made: list[Row] = []
        for row in rows:
            at = next((g for g, members in self.firing.items() if row["key"] in members), None)
            silent = self.plan.silent_for and row["level"] == self.plan.names()[-1]
            group = self.of(row) if at is None or (row["level"] and not silent) else at
            for changed in sorted({group} if at is None else {group, at}, key=lambda g: g == group):
                made += self.let_pass(changed, min(row["time"] - 1, watermark))
                self.firing.setdefault(changed, {}).pop(row["key"], None)
                if row["level"] and changed == group:
                    self.firing[group][row["key"]] = row
                self.until.setdefault(changed, row["time"] + self.plan.group * SECOND)
                self.newest[changed] = row
        made += [row for group in [*self.firing] for row in self.let_pass(group, watermark)]
        return sorted(made, key=lambda row: (row["time"], row["key"]))

    def let_pass(self, group: str, watermark: int) -> list[Row]:
        rows: list[Row] = []
        repeat = self.plan.repeat * SECOND
        while True:
            now = self.until.get(group, FAR)
            reminder = self.times[group][1] + repeat if repeat and self.told.get(group) else FAR
            if min(now, reminder) > watermark:
                return rows
            if now <= reminder:
                del self.until[group]
                is_ = {key: row["level"] for key, row in self.firing[group].items()}
                if is_ != self.told.get(group, {}):
                    since = min(
                        (row["since"] for row in self.firing[group].values()), default=self.times.get(group, (0, 0))[0]
                    )
                    rows.append(self.put(group, now, since, is_))
            else:
                while reminder + repeat < now and reminder + repeat <= watermark:
                    reminder += repeat
                rows.append(self.put(group, reminder, self.times[group][0], self.told[group]))

    def put(self, group: str, time: int, since: int, is_: dict[str, str]) -> Row:
        names = self.plan.names()
        before, after = (
            max(levels, key=names.index, default=None) for levels in (self.told.get(group, {}).values(), is_.values())
        )
        self.told[group], self.times[group] = is_, (since, time)
        shown = {name: self.newest[group][name] for name in ("reading", "value")}
        row = {"key": group, "time": time, "level": after, "previous": before, "since": since, **shown}
        return row | {"firing": len(is_), "keys": ", ".join(sorted(is_))}


# --- settings of all kinds ------------------------------------------------------------------------------------------


def level(name: str, thresholds: list[float]) -> st.SearchStrategy[Level]:
    return st.builds(
        Level,
        st.just(name),
        st.sampled_from(thresholds),
        st.none() | st.sampled_from([-1.0, 0.0, 1.0, 2.5]),
        st.sampled_from([0, 0, 1, 3]),
        st.sampled_from([0, 0, 2, 5]),
        st.sampled_from([False, False, False, True]),
    )


levels = st.one_of(
    st.tuples(level("only", [0.0, 1.0])),
    st.tuples(level("low", [0.0]), level("high", [1.0, -1.0])),
    st.tuples(level("low", [0.0]), level("middle", [1.0]), level("high", [2.0])),
)
maybe = {
    "repeat": st.sampled_from([0, 0, 2, 3]),
    "changes": st.sampled_from([0, 0, 1, 2, 3]),
    "within": st.integers(1, 6),
}
plans = st.one_of(
    st.builds(Plan, levels, **maybe),
    st.builds(Plan, levels, st.sampled_from([2, 3, 5]), st.sampled_from([(), ("a", "z"), ("y",)]), **maybe),
    st.builds(Plan, st.just(()), st.sampled_from([2, 3, 5]), st.sampled_from([(), ("a", "z")]), **maybe),
)
groups = st.tuples(plans, st.integers(1, 3), st.sampled_from([(), ("room",)]))


ALERTS = Schema("key", {"state": Field("string")}, "alerts")
NAMES = ("key", "time", "level", "previous", "since", "reading", "value", "value_rate")


def named(rows: list[Row], names: tuple[str, ...]) -> list[Row]:
    return [{name: row[name] for name in names if name in row} for row in rows]


def once(plan: Plan, stream: Stream, disorder: int) -> list[Row]:
    """What leaves if nothing is cut: `run` tries each way, and takes its time."""
    keys = KeyTable()
    operator, problems = make(Alert, plan.table(), SCHEMA, keys=keys)
    assert not problems
    found = []
    for frame in frames(stream, SCHEMA, keys, disorder=disorder):
        for state in operator.context.states.values():
            state.grow(len(keys))
        found += rows(operator.on_frame(frame), operator.schema, keys.names, "ns")
    return found


def agree(found: list[Row], expected: list[Row]) -> None:
    shown = tuple(found[0]) if found else ()
    assert named(found, NAMES) == [{n: v for n, v in row.items() if n in shown} for row in named(expected, NAMES)]


def oracle_of(plan: Plan, stream: Stream, disorder: int) -> list[Row]:
    oracle = Oracle(plan, disorder)
    return [row for item in stream for row in oracle.hear(item)]


@settings(max_examples=300, deadline=None)
@given(streams(SCHEMA, keys="ab", max_size=30), plans, st.integers(0, 4))
def test_the_columns_agree_with_a_plain_loop(stream: Stream, plan: Plan, disorder: int) -> None:
    """Whatever the levels, waits, silences, reminders, rates, gaps, late readings and ticks, and all of it at once."""
    agree(once(plan, stream, disorder), oracle_of(plan, stream, disorder))


@settings(max_examples=40, deadline=None)
@given(streams(SCHEMA, keys="ab", max_size=14), plans, st.integers(0, 4))
def test_however_the_readings_are_cut(stream: Stream, plan: Plan, disorder: int) -> None:
    agree(run(Alert, plan.table(), stream, schema=SCHEMA, disorder=disorder), oracle_of(plan, stream, disorder))


@settings(max_examples=40, deadline=None)
@given(streams(SCHEMA, keys="ab", max_size=16, sides={"one": ALERTS, "two": ALERTS}), plans, st.integers(0, 2))
def test_beside_other_alerts(stream: Stream, plan: Plan, disorder: int) -> None:
    """While one of them fires for a key, this one is not raised."""
    stream = [
        item | {"state": "firing" if item["state"] else "cleared"}
        if isinstance(item, dict) and "state" in item
        else item
        for item in stream
    ]
    plan = replace(plan, inhibit=("one", "two"))
    sides = {"one": ALERTS, "two": ALERTS}
    found = run(Alert, plan.table(), stream, schema=SCHEMA, sides=sides, disorder=disorder)
    agree(found, oracle_of(plan, stream, disorder))


@settings(max_examples=30, deadline=None)
@given(streams(SCHEMA, keys="abc", max_size=16), groups, st.integers(0, 2))
def test_groups_agree_with_a_plain_loop(
    stream: Stream, grouped: tuple[Plan, int, tuple[str, ...]], disorder: int
) -> None:
    plan = replace(grouped[0], group=grouped[1], by=grouped[2])
    oracle, grouping = Oracle(plan, disorder), Grouping(plan)
    expected = [row for item in stream for row in grouping.take(oracle.hear(item), oracle.watermark)]
    found = run(Alert, plan.table() | {"message": "{value}"}, stream, schema=SCHEMA, disorder=disorder)
    for row in found:
        row["key"] = row["room"] if plan.by else ""
    names = ("key", "time", "level", "previous", "since", "reading", "firing", "keys")
    assert named(found, names) == named(expected, names)
