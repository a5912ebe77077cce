"""What an operator of one's own costs, by columns and reading by reading: µs of CPU a reading, with 100 keys.

    python -m benchmarks.own_operator

The same work twice: the operator that `headwater init --component operator rate` makes, and a `python` operator with
`items = true`. How it is measured: each_operator.py.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.each_operator import MEASURED, Row, cost
from pipeline.command import skeleton

KEYS = 100
ITEMS = """
from reactivex import operators as ops


def rate(readings):
    last = {}

    def told(reading):
        key, time, value = reading["sensor"], reading["time"], reading["temperature"]
        rate = None
        if value is not None:
            if key in last and time > last[key][0]:
                rate = (value - last[key][1]) / (time - last[key][0]) * 1_000_000_000
            last[key] = time, value
        return {**reading, "temperature_rate": rate}

    return readings.pipe(ops.map(told))
"""
FIELDS = {"temperature": "float", "humidity": "float?", "door": "bool?", "temperature_rate": "float?"}
COLUMNS = Row("rate", {"field": "temperature"}, "by columns")
BY_ITEMS = Row(
    "python", {"function": "rate.py:rate", "items": True, "fields": FIELDS}, "by readings", {"rate.py": ITEMS}
)


@contextmanager
def installed() -> Iterator[None]:
    """The operator `rate` is there, as if it had been installed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "headwater_rate.py").write_text(skeleton.files("operator", "rate")["headwater_rate.py"])
        info = folder / "headwater_rate-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: headwater-rate\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text("[headwater.operators]\nrate = headwater_rate\n")
        sys.path.insert(0, name)
        try:
            yield
        finally:
            sys.path.remove(name)


def main() -> None:
    with installed():
        print("| readings in a Frame | by columns | reading by reading |\n| ---: | ---: | ---: |")
        for length in MEASURED:
            columns, items = cost(COLUMNS, KEYS, length), cost(BY_ITEMS, KEYS, length)
            print(f"| {length:,} | {columns:.3g} | {items:.3g} |")


if __name__ == "__main__":
    main()
