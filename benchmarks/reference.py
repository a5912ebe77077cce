"""The reference job: how much CPU the whole command takes, as a multiple of `orjson.loads` on each line in a bare loop.

    python benchmarks/reference.py [READINGS] [--runs 3] [--command "headwater"]

A file of readings (100 sensors, 1,000 readings a second of event time, up to 40 ms out of order, 1 % bad lines of several
kinds, 0.3 % out of range) goes through filter -40..85 -> {tumbling 10 s count/mean/min/max by key, alert > 30 / < 28} ->
two files, durability "process". What comes out is compared, row by row, with an oracle that shares no code with Headwater.

The reference is the CPU time (user and system) of the bare loop alone, measured inside a process of its own, without its
start; the command's is that of the whole process, start included. Both run in turn, and the medians are compared. The file
cache is warm. Exit status 1 if a row differs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

SENSORS = 100
START_MS = 1_700_000_000_000
WINDOW_MS = 10_000

PIPELINE = """
[pipeline]
name = "reference_job"
state = "state"
durability = "process"
disorder = "50 ms"

[sources.readings]
type = "file"
path = "readings.ndjson"
key = "sensor_id"
time = "ts"
time_unit = "ms"
fields = { temperature = "float", humidity = "float" }

[operators.valid]
type = "filter"
input = "readings"
where = "temperature >= -40 and temperature <= 85"

[operators.ten_seconds]
type = "window"
input = "valid"
window = "tumbling"
size = "10 s"
aggregate = { n = "count()", average = "mean(temperature)", low = "min(temperature)", high = "max(temperature)" }

[operators.hot]
type = "alert"
input = "valid"
when = "temperature > 30"
clear = "temperature < 28"

[sinks.windows]
type = "file"
input = "ten_seconds"
path = "windows.ndjson"
time_unit = "ms"

[sinks.alerts]
type = "file"
input = "hot"
path = "alerts.ndjson"
time_unit = "ms"
"""

REFERENCE = """
import sys, time, orjson
began = time.process_time()
for line in open(sys.argv[1], "rb"):
    try:
        orjson.loads(line)
    except ValueError:
        pass
print(time.process_time() - began)
"""


def generate(path: Path, readings: int, seed: int = 1) -> None:
    """Slow walks around 26 degrees, so that every sensor crosses 30 and 28 now and then."""
    chance = random.Random(seed)
    value = [chance.uniform(22, 28) for _ in range(SENSORS)]
    with path.open("w") as out:
        for i in range(readings):
            sensor = chance.randrange(SENSORS)
            value[sensor] += chance.gauss(0, 0.12) + (26 - value[sensor]) * 0.002
            ts = START_MS + i - chance.randrange(41)
            luck = chance.random()
            if luck < 0.01:
                out.write(bad_line(chance, sensor, ts) + "\n")
                continue
            temperature = value[sensor] if luck > 0.013 else chance.choice((-99.0, 150.0))
            humidity = 40 + 10 * math.sin(i / 50_000)
            out.write(
                f'{{"sensor_id":"s{sensor:03d}","ts":{ts},"temperature":{temperature:.2f},"humidity":{humidity:.1f}}}\n'
            )


def bad_line(chance: random.Random, sensor: int, ts: int) -> str:
    return chance.choice(
        (
            f'{{"sensor_id":"s{sensor:03d}","ts":{ts},"temp',
            "# not a reading",
            f'{{"sensor_id":"s{sensor:03d}","ts":{ts},"humidity":40.5}}',
            f'{{"sensor_id":"s{sensor:03d}","ts":{ts},"temperature":"hot","humidity":40.5}}',
            f'{{"ts":{ts},"temperature":21.5,"humidity":40.5}}',
            f'{{"sensor_id":"s{sensor:03d}","ts":null,"temperature":21.5,"humidity":40.5}}',
            "{}",
            "[]",
        )
    )


class Outcome(NamedTuple):
    windows: list[tuple[Any, ...]]  # key, start, n, mean, low, high; in the order in which they must leave
    alerts: list[tuple[Any, ...]]  # key, time, state


def oracle(path: Path) -> Outcome:
    """The answer, by the standard library and plain loops, from the definitions alone."""
    groups: dict[tuple[int, str], list[float]] = {}
    hot: set[str] = set()
    alerts = []
    with path.open() as lines:
        for line in lines:
            try:
                row = json.loads(line)
                key, ts, temperature, humidity = (row[n] for n in ("sensor_id", "ts", "temperature", "humidity"))
            except (ValueError, KeyError, TypeError):
                continue
            if not all(isinstance(v, int | float) for v in (ts, temperature, humidity)) or not -40 <= temperature <= 85:
                continue
            groups.setdefault((ts // WINDOW_MS * WINDOW_MS, key), []).append(temperature)
            if key not in hot and temperature > 30:
                hot.add(key)
                alerts.append((key, ts, "firing"))
            elif key in hot and temperature < 28:
                hot.discard(key)
                alerts.append((key, ts, "cleared"))
    windows = [(k, s, len(v), math.fsum(v) / len(v), min(v), max(v)) for (s, k), v in sorted(groups.items())]
    return Outcome(windows, alerts)


def produced(folder: Path) -> Outcome:
    def rows(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / name).read_text().splitlines()]

    windows = [
        tuple(r[n] for n in ("sensor_id", "start", "n", "average", "low", "high")) for r in rows("windows.ndjson")
    ]
    alerts = [(r["sensor_id"], r["time"], r["state"]) for r in rows("alerts.ndjson")]
    return Outcome(windows, alerts)


def difference(want: Outcome, got: Outcome) -> str:
    """The first row that differs; nothing if all are equal (means to nine digits)."""
    for what, wanted, came in (("windows", want.windows, got.windows), ("alerts", want.alerts, got.alerts)):
        if len(wanted) != len(came):
            return f"{what}: {len(came)} rows instead of {len(wanted)}"
        for a, b in zip(wanted, came, strict=True):
            same = all(
                math.isclose(x, y, rel_tol=1e-9) if isinstance(x, float) else x == y for x, y in zip(a, b, strict=True)
            )
            if not same:
                return f"{what}: {b} instead of {a}"
    return ""


def measured(command: list[str], folder: Path) -> tuple[float, float]:
    """CPU seconds and peak MB of a child process, as the operating system counts them."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # as installed: with bytecode
    child = subprocess.Popen(command, cwd=folder, env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with status {child.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def run_command(command: list[str], folder: Path) -> tuple[float, float]:
    for name in ("windows.ndjson", "alerts.ndjson"):
        (folder / name).unlink(missing_ok=True)
    for old in (folder / "state").glob("*"):
        old.unlink()
    return measured([*command, "run", "pipeline.toml"], folder)


def run_reference(path: Path) -> float:
    done = subprocess.run([sys.executable, "-c", REFERENCE, str(path)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readings", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--command", default=f"{sys.executable} -m pipeline.command")
    options = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory(prefix="reference-") as name:
        folder = Path(name)
        readings = folder / "readings.ndjson"
        generate(readings, options.readings)
        (folder / "pipeline.toml").write_text(PIPELINE)
        command = shlex.split(options.command)
        run_command(command, folder)  # once, so that bytecode and the file are in the cache
        runs = [(run_reference(readings), *run_command(command, folder)) for _ in range(options.runs)]
        want, got = oracle(readings), produced(folder)
    wrong = difference(want, got)
    report(options.readings, runs, want, wrong)
    return int(bool(wrong))


def report(readings: int, runs: list[tuple[float, float, float]], want: Outcome, wrong: str) -> None:
    reference, cpu = (statistics.median(r[i] for r in runs) for i in (0, 1))
    ratios = sorted(r[1] / r[0] for r in runs)
    print(f"readings            {readings:,}")
    print(
        f"reference           {reference:.3f} s CPU   (orjson.loads on each line, {reference / readings * 1e6:.3f} us a line)"
    )
    print(f"headwater run       {cpu:.3f} s CPU   ({cpu / readings * 1e6:.3f} us a reading, start included)")
    print(
        f"ratio               {statistics.median(ratios):.2f}   ({ratios[0]:.2f} to {ratios[-1]:.2f} in {len(runs)} runs)"
    )
    print(f"peak memory         {max(r[2] for r in runs):.0f} MB")
    print(f"rows compared       {len(want.windows):,} windows, {len(want.alerts):,} alerts")
    print(f"equal to the oracle {'no: ' + wrong if wrong else 'yes'}")


if __name__ == "__main__":
    sys.exit(main())
