"""The test kit, for our tests and for those of other people's operators.

    rows = run(Alert, {"when": "value > 30"}, "a31 b12 a- a29")

pushes these readings through the operator cut every way (whole; singly; in two at every place, with an empty Frame
between; with and without a restart at each cut) and fails if any two ways differ in one bit. On the way it holds the
operator to what the graph relies on: it does not write to what it is given, its rows fit its schema and leave in order
of arrival, its snapshot is a copy that can be saved, and it says beforehand when time alone would make rows leave.

Readings are dicts `{"key": "a", "time": 3, "value": 21.5}` (times in seconds, or ns from 10**10 on; None: missing),
with `tick(20)`, `file("…")`, `forget("a")` and `end()` among them; or text: `"a31 b-4@2.5 a- tick@20 forget@a end"`, where
a reading comes each second unless `@` gives its time, and `-` alone is a missing value. Hypothesis makes them by `streams()`.

Of an operator whose settings name further streams (`Operator.sides`), a reading with `"input": "doors"` comes by the stream
`doors`, in text `doors:a1`. Each stream is then as if it had a source of its own; ticks are for all.
"""

from pipeline.testing.operators import make, run
from pipeline.testing.readings import READINGS, Mark, Reading, Stream, compact, end, file, forget, frames, parse, tick
from pipeline.testing.strategies import streams

__all__ = [
    "READINGS",
    "Mark",
    "Reading",
    "Stream",
    "compact",
    "end",
    "file",
    "forget",
    "frames",
    "make",
    "parse",
    "run",
    "streams",
    "tick",
]
