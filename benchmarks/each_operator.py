"""What each operator costs: µs of CPU a reading, by the length of the Frames and the number of keys.

    python -m benchmarks.each_operator [ROW ...] [--write]

Without rows: all. A row is the name of an operator, or its kind as it stands in `ROWS` ("window tumbling"). `--write`
puts the tables into operators.md beside this file. Every operator that the registry finds must have a row.

The readings: every key once a second on average, in random order, so that the event time that a Frame spans falls as
keys grow and a window of 10 s always takes ten readings. They are up to 40 ms out of order. Values walk slowly, so
an alert changes seldom. Before measuring, every key has been seen once; Frames are made beforehand. What is shown is the
best of several runs, each from a fresh operator: what is not the operator's work (this machine's other work) only adds.
The reference is what no operator that drops a reading can do without: one boolean mask over all arrays of the same Frame.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pipeline import quantity, registry
from pipeline.component import Operator, OperatorContext
from pipeline.frame import SECOND, Column, Field, Frame, KeyTable, Progress, Schema, Sided, outside_frame

SCHEMA = Schema(
    "sensor",
    {
        "temperature": Field("float"),
        "humidity": Field("float", optional=True),
        "door": Field("bool", optional=True),
    },
)
KEYS = (10, 100, 10_000, 100_000)
MEASURED = {1: 4_000, 64: 128_000, 1_024: 512_000, 8_192: 1_048_576}  # length of a Frame: readings in a run
RUNS = 3
DISORDER = 50_000_000
START = 1_700_000_000 * SECOND


@dataclass(frozen=True)
class Row:
    """One kind of an operator, with settings such that it does its usual work."""

    type: str
    settings: Mapping[str, Any]
    kind: str = ""
    files: Mapping[str, str] = field(default_factory=dict)  # what must lie beside the pipeline file

    @property
    def name(self) -> str:
        return f"{self.type} {self.kind}".strip()


WINDOWS: dict[str, dict[str, Any]] = {
    "day": {"size": "1 day", "timezone": "Europe/Berlin"},
    "hopping": {"window": "hopping", "size": "10 s", "every": "5 s"},
    "sliding": {"window": "sliding", "size": "5 s"},
    "session": {"window": "session", "gap": "30 s"},
    "count": {"window": "count", "size": 100},
}
ROWS = [
    Row("filter", {"where": "temperature >= 15 and temperature <= 25"}),
    Row("derive", {"set": {"fahrenheit": "temperature * 1.8 + 32"}}),
    Row("changes", {"fields": ["door"]}, "fields"),
    Row("changes", {"deadband": {"temperature": 0.2}}, "deadband"),
    Row("changes", {"deadband": {"temperature": 0.2}, "at_least_every": "1 min"}, "at least every"),
    *(Row("sample", {"method": way, "period": "10 s"}, way) for way in ("throttle", "debounce", "first", "last")),
    *(Row("resample", {"every": "10 s", "method": way}, way) for way in ("previous", "linear")),
    Row("calibrate", {"fields": {"temperature": {"gain": 1.02, "offset": -0.5}}}, "gain"),
    Row("calibrate", {"fields": {"temperature": {"points": [[10, 10.5], [20, 20.1], [30, 29.8]]}}}, "points"),
    Row(
        "calibrate",
        {
            "fields": {"temperature": {"offset": 1}},
            "by_key": {f"s{n:06}": {"temperature": {"gain": 2}} for n in range(9)},
        },
        "by key",
    ),
    Row("switch", {"cases": {"hot": "temperature > 22", "cold": "temperature < 18"}}),
    Row(
        "window",
        {
            "size": "10 s",
            "aggregate": {"n": "count()", "m": "mean(temperature)", "lo": "min(temperature)", "hi": "max(temperature)"},
        },
        "tumbling",
    ),
    *(
        Row("window", {"aggregate": {"n": "count()", "m": "mean(temperature)"}} | table, name)
        for name, table in WINDOWS.items()
    ),
    Row("alert", {"when": "temperature > 25", "clear": "temperature < 24"}),
    Row("alert", {"when": "temperature > 25", "clear": "temperature < 24", "for": "5 s"}, "for"),
    Row("alert", {"when": "temperature > 25", "silent_for": "30 s"}, "silent_for"),
    Row("alert", {"when": "temperature_rate > 5", "rate": {"field": "temperature"}}, "rate"),
    Row(
        "pattern",
        {
            "sequence": [
                {"as": "hot", "when": "temperature > 25"},
                {"as": "cold", "when": "temperature < 24", "within": "1 min", "without": "door"},
            ],
            "fields": {"peak": "hot.temperature"},
        },
    ),
    Row("python", {"function": "same.py:same"}, "frames", {"same.py": "def same(source):\n    return source\n"}),
    Row(
        "python",
        {"function": "same.py:same", "items": True},
        "items",
        {"same.py": "def same(source):\n    return source\n"},
    ),
    # Both streams have the same readings; what is counted are those of one.
    Row("join", {"with": "other", "fields": ["temperature"], "prefix": "other_", "tolerance": "1 min"}, "as of"),
    Row(
        "join",
        {"table": "limits.csv", "fields": {"limit": "float"}},
        "table",
        {"limits.csv": "sensor,limit\n" + "".join(f"s{i:06},{i}\n" for i in range(10_000))},
    ),
    Row("anomaly", {"field": "temperature"}),
]


WHY = """\
- **A Frame of one reading** pays for calls of numpy, 0.5 to 2 µs each, not for its row. What lets a reading wait for the
  watermark (join, resample, pattern) does so twice, when it comes and when it leaves, and moves every column each time;
  a join does so for both streams. With few keys each Frame lets something leave; with many, most do not.
- **window sliding** aggregates, for every reading, all readings of its window. With many keys the store of the last `size` is
  one array in order of key and time, and a reading is put in by copying it: the cost rises with what the store holds.
- **pattern, alert for**: a reading at which something happens is taken in Python, about 7 µs (pattern) and 20 µs (alert) each.
  That does not depend on the number of keys, but here their share does:
  in Frames of 8,192 of 100,000 keys an alert with `for` looks at a key
  for each 33rd reading, of 100 keys for each 280th.
- **sample, resample, window session and count, join** bring rows together by key. Of 100 keys all state stays in the
  processor's cache; of 100,000 each row touches memory of its own. The sort itself is by radix (`by_code`) and costs 12 ns
  a reading rather than 5; the rest is memory.
- **join table**: one look-up for each reading in an array of all keys; at 6 to 12 ns a reading what is seen is again the cache.
"""


class Missing(LookupError):
    """An operator without a row, or a row without an operator."""


def chosen(names: Sequence[str], rows: Sequence[Row] = ROWS) -> list[Row]:
    """The rows that are asked for; all if none is named. Missing where an operator has none, or what is named is none."""
    without = sorted(set(registry.types("operator")) - {row.type for row in rows})
    if without:
        raise Missing(f'no row for {", ".join(without)}: add Row("{without[0]}", {{settings}}) to ROWS in {__file__}')
    unknown = [name for name in names if not any(name in (row.type, row.name) for row in rows)]
    if unknown:
        raise Missing(f"no row {', '.join(unknown)}; there are: {', '.join(row.name for row in rows)}")
    return [row for row in rows if not names or row.type in names or row.name in names]


def make(row: Row, keys: KeyTable, folder: Path) -> Operator:
    for name, text in row.files.items():
        (folder / name).write_text(text)
    cls, kind = registry.find("operator", row.type)
    named = {setting: row.settings.get(setting, ()) for setting in cls.sides}
    sides = {s: dict.fromkeys([of] if isinstance(of, str) else of, SCHEMA) for s, of in named.items()}
    context = OperatorContext("node", SCHEMA, keys, folder=folder, sides=sides)
    operator: Operator = cls(msgspec.convert(row.settings, kind, dec_hook=quantity.convert), context)
    if context.problems:
        raise ValueError(f"{row.name}: {context.problems}")
    return operator


# --- readings -------------------------------------------------------------------------------------------------------


class Readings:
    """Readings of so many keys: each key's first, then `count` more, as Frames of any length."""

    def __init__(self, keys: int, count: int) -> None:
        random = np.random.default_rng(keys)
        self.first = keys
        n = keys + count
        self.key = np.concatenate([np.arange(keys), random.integers(0, keys, count)]).astype(np.int32)
        self.time = START + np.arange(n) * SECOND // keys - random.integers(0, 40_000_000, n)
        # A sine of its own phase for each key: 20 ± 5.2 degrees in 10 minutes, and noise of 0.1.
        phase = self.key * 0.7 + self.time / SECOND * (2 * np.pi / 600)
        temperature = 20 + 5.2 * np.sin(phase) + random.normal(0, 0.1, n)
        self.columns = {
            "temperature": Column(np.round(temperature, 2)),
            "humidity": _with_gaps(np.round(50 + 10 * np.sin(phase / 3), 1), random.random(n) > 0.1),
            "door": _with_gaps(np.sin(phase * 5) > 0, random.random(n) > 0.01),
        }
        reached = np.maximum.accumulate(self.time) - DISORDER
        self.before = np.concatenate([reached[:1] - 1, reached])

    def frames(self, start: int, stop: int, length: int) -> list[Frame]:
        return [self._frame(at, min(at + length, stop)) for at in range(start, stop, length)]

    def _frame(self, start: int, stop: int) -> Frame:
        seq, after = np.arange(start, stop), int(self.before[stop])
        progress = Progress(seq, self.before[start:stop], after, after, after, stop)
        columns = {name: column.take(slice(start, stop)) for name, column in self.columns.items()}
        return Frame(self.time[start:stop], self.key[start:stop], seq, columns, progress)


def _with_gaps(values: Any, present: Any) -> Column:
    return Column(np.where(present, values, np.zeros(1, values.dtype)), present)


@cache
def readings(keys: int) -> Readings:
    return Readings(keys, max(MEASURED.values()))


# --- measuring ------------------------------------------------------------------------------------------------------


def mask(frame: Frame) -> None:
    """The reference."""
    keep = frame.columns["temperature"].values > 20
    frame.time[keep], frame.key[keep], frame.seq[keep]
    for values, present in frame.columns.values():
        values[keep]
        if present is not None:
            present[keep]


def per_reading(step: Callable[[Frame], Any], frames: Iterable[Frame], count: int) -> float:
    """µs"""
    began = time.process_time()
    for frame in frames:
        step(frame)
    return (time.process_time() - began) / count * 1e6


def cost(row: Row | None, keys: int, length: int, runs: int = RUNS) -> float:
    """µs a reading; None: of the reference."""
    data, count = readings(keys), MEASURED[length]
    before = data.frames(0, data.first, 8_192)
    frames = data.frames(data.first, data.first + count, length)
    found = []
    for _ in range(runs):
        if row is None:
            found.append(per_reading(mask, frames, count))
            continue
        with tempfile.TemporaryDirectory() as name:
            operator = make(row, KeyTable(f"s{code:06}" for code in range(keys)), Path(name))
            step = stepping(operator)
            for frame in before:
                step(frame)
            found.append(per_reading(step, frames, count))
    return min(found)


def stepping(operator: Operator) -> Callable[[Frame], Any]:
    """A Frame through the operator as the graph runs it, and what it gave to its further outputs taken away."""
    from reactivex.subject import Subject

    inlet: Subject[Frame] = Subject()
    operator(inlet).subscribe(on_error=_raise)
    context = operator.context
    emitted = list(context.emitted.values())
    beside = [stream for streams in context.sides.values() for stream in streams]
    files = {name: outside_frame(file.read(file.path.read_bytes()), 0) for name, file in context.files.items()}
    if not (emitted or beside or files):
        return inlet.on_next

    def step(frame: Frame) -> None:
        sides = {**dict.fromkeys(beside, frame), **files}
        files.clear()
        inlet.on_next(Sided(frame, sides) if sides else frame)
        for output in emitted:
            output.clear()

    return step


def _raise(error: Exception) -> None:
    raise error


Costs = dict[tuple[str, int, int], float]  # row, length of a Frame, keys
REFERENCE = "numpy mask (reference)"


def measure(rows: Sequence[Row], runs: int = RUNS) -> Costs:
    costs: Costs = {}
    for keys in KEYS:
        for row in (None, *rows):
            for length in MEASURED:
                costs[row.name if row else REFERENCE, length, keys] = cost(row, keys, length, runs)
        readings.cache_clear()
    return costs


# --- tables ---------------------------------------------------------------------------------------------------------

GOAL_ROWS = ("filter", "derive", "window tumbling", "alert")  # that have a goal of their own
GOAL = 0.3  # µs a reading of these in Frames of 8,192 with 100 keys
GOAL_ONE = 40.0  # µs of a Frame with one reading
GOAL_KEYS = 2.0  # how much more a reading may cost with 100,000 keys than with 100, in Frames of 8,192


def tables(costs: Costs) -> str:
    names = list(dict.fromkeys(name for name, _, _ in costs))
    parts = []
    for length in MEASURED:
        head = " | ".join(f"{keys:,} keys" for keys in KEYS)
        lines = [f"| Frames of {length:,} | {head} |", "| --- |" + " ---: |" * len(KEYS)]
        for name in names:
            shown = " | ".join(_shown(costs[name, length, keys]) for keys in KEYS)
            lines.append(f"| {name} | {shown} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _shown(cost: float) -> str:
    return f"{cost:.1f}" if cost >= 10 else f"{cost:.2f}" if cost >= 1 else f"{cost:.3f}"


def missed(costs: Costs) -> list[str]:
    """Each goal that was not reached, in words."""
    found = []
    for name in dict.fromkeys(name for name, _, _ in costs if name != REFERENCE):
        at_100, at_most = costs[name, 8_192, 100], costs[name, 8_192, KEYS[-1]]
        if name in GOAL_ROWS and at_100 > GOAL:
            found.append(f"{name}: {_shown(at_100)} µs in Frames of 8,192 with 100 keys (goal {GOAL})")
        if at_most > GOAL_KEYS * at_100:
            found.append(f"{name}: {at_most / at_100:.1f} x as much with 100,000 keys as with 100 (goal {GOAL_KEYS:g})")
        one = max(costs[name, 1, keys] for keys in KEYS)
        if one > GOAL_ONE:
            found.append(f"{name}: {_shown(one)} µs for a Frame of one reading (goal {GOAL_ONE:g})")
    return found


def report(costs: Costs) -> str:
    lacks = missed(costs)
    goals = "\n".join(f"- {one}" for one in lacks) if lacks else "All are."
    return f"""# What each operator costs
µs of CPU a reading, by `make bench-operators` (how it is measured: benchmarks/each_operator.py).
Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}.

{tables(costs)}

## Goals that are not reached
In Frames of 8,192 with 100 keys at most {GOAL} µs for {", ".join(GOAL_ROWS)}; with 100,000 keys at most
{GOAL_KEYS:g} x as much as with 100; for a Frame of one reading at most {GOAL_ONE:g} µs.

{goals}

## Where a goal is not reached, and why
{WHY}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--write", action="store_true", help="into operators.md")
    options = parser.parse_args()
    try:
        rows = chosen(options.rows)
    except Missing as error:
        parser.error(str(error))
    text = report(measure(rows, options.runs))
    print(text)
    if options.write:
        Path(__file__).with_name("operators.md").write_text(text)


if __name__ == "__main__":
    main()
