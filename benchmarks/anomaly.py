"""How well `anomaly` finds what people marked, by the Numenta Anomaly Benchmark (NAB).

    python -m benchmarks.anomaly NAB [--results FOLDER] [--files]

NAB is a folder with `data/FOLDER/NAME.csv`, `windows.json` and the scorer `score.py`. Each file goes through the operator
as one key, in Frames of 1,000, with the settings it has by default: one setting for all files. Its `score` is what is judged.

The scorer picks one threshold for all files, as NAB does. Shown too, since that threshold has seen these files: the score
of what the operator itself calls an anomaly (above 0.5); each category judged by the threshold that is best for the others;
and how far the score moves when one file is left out, or when files are drawn again with replacement.
`--results` writes the scores as tables, `FOLDER/NAME.csv`, for `score.py score`. `--files` shows each file.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from operators.anomaly import Anomaly
from pipeline.frame import NO_PROGRESS, Column, Field, Frame, Schema
from pipeline.testing import make

SCHEMA = Schema("file", {"value": Field("float")})
READINGS = 1_000  # in a Frame
WEEK = 7 * 86_400 * 10**9
OWN = np.nextafter(0.5, 1)  # the least score that is called an anomaly
DRAWS = 200  # of the bootstrap


class Series(NamedTuple):
    stamps: list[str]
    times: Any  # ns
    values: Any


def read(file: Path) -> Series:
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    stamps = [row["timestamp"] for row in rows]
    times = [int(datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp()) for stamp in stamps]
    return Series(stamps, np.array(times) * 10**9, np.array([float(row["value"]) for row in rows]))


def scores(series: Series) -> tuple[Any, float]:
    """What the operator says of each reading, and the CPU seconds it took."""
    operator, problems = make(Anomaly, {}, SCHEMA)
    assert not problems
    operator.context.keys.codes(["file"])
    for state in operator.context.states.values():
        state.grow(1)
    said, took = [], 0.0
    for start in range(0, len(series.times), READINGS):
        part = slice(start, start + READINGS)
        times, values = series.times[part], series.values[part]
        seq = np.arange(start, start + len(times))
        frame = Frame(times, np.zeros(len(times), np.int32), seq, {"value": Column(values)}, NO_PROGRESS)
        began = time.process_time()
        said.append(operator.on_frame(frame)["score"].values)
        took += time.process_time() - began
    return np.concatenate(said), took


def write(folder: Path, name: str, series: Series, said: Any) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["timestamp", "value", "anomaly_score"])
        table.writerows(zip(series.stamps, series.values.tolist(), said.tolist(), strict=True))


def scorer_of(nab: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("nab_score", nab / "score.py")
    if spec is None or spec.loader is None or not (nab / "score.py").exists():
        raise SystemExit(f"{nab}: no score.py; expected the benchmark's folder with data/, windows.json and score.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def across(scorer: ModuleType, files: list[Any], profile: str = "standard") -> float:
    """Each category at the threshold that is best for the others."""
    total = 0.0
    for category in {file.name.partition("/")[0] for file in files}:
        of_it = [file for file in files if file.name.startswith(category + "/")]
        threshold, _ = scorer.best_threshold([file for file in files if file not in of_it], profile)
        total += sum(scorer.at_threshold(file, threshold, profile)["score"] for file in of_it)
    return float(scorer.normalised(total, files, profile))


def spread(scorer: ModuleType, files: list[Any]) -> tuple[list[float], list[float]]:
    """The standard score without one file, for each; and of files drawn again."""

    def score(chosen: list[Any]) -> float:
        return float(scorer.normalised(scorer.best_threshold(chosen, "standard")[1], chosen, "standard"))

    drawn = np.random.default_rng(0).integers(len(files), size=(DRAWS, len(files))).tolist()
    without = [score([f for f in files if f is not left_out]) for left_out in files]
    return without, [score([files[i] for i in draw]) for draw in drawn]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nab", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--files", action="store_true")
    args = parser.parse_args()
    scorer = scorer_of(args.nab)
    files, took, readings, weeks = [], 0.0, 0, 0.0
    for name, windows in sorted(scorer.read_windows(args.nab / "windows.json").items()):
        series = read(args.nab / "data" / name)
        said, seconds = scores(series)
        took, readings = took + seconds, readings + len(said)
        weeks += (series.times.max() - series.times.min()) / WEEK
        files.append(scorer.weigh(name, [scorer.stamp(stamp) for stamp in series.stamps], said, windows))
        if args.results:
            write(args.results, name, series, said)
    print(
        f"{len(files)} files, {readings:,} readings, {took / readings * 1e6:.2f} µs a reading (CPU, Frames of {READINGS:,})"
    )
    for profile, result in scorer.evaluate(files).items():
        of_own = [scorer.at_threshold(file, OWN, profile) for file in files]
        own = scorer.normalised(sum(file["score"] for file in of_own), files, profile)
        best = f"{result['score']:5.1f} at {result['threshold']:.3f}"
        others = across(scorer, files, profile)
        print(f"{profile:20} {best}; its own alarms {own:5.1f}; by the others' threshold {others:5.1f}")
        for file in files if args.files else []:
            of_it = scorer.at_threshold(file, result["threshold"], profile)
            found = f"{of_it['found']}/{of_it['windows']} windows, {of_it['false']} false"
            print(f"    {file.name:55} {of_it['score']:6.2f}  {found}")
    found, windows, false = (sum(file[name] for file in of_own) for name in ("found", "windows", "false"))
    print(f"its own alarms, once a week as promised: {found} of {windows} windows, {false} false in {weeks:.0f} weeks")
    without, drawn = spread(scorer, files)
    print(f"standard, one file left out: {min(without):.1f} to {max(without):.1f}")
    low, high = np.percentile(drawn, [5, 95])
    print(f"standard, files drawn again: {np.mean(drawn):.1f}, nine in ten from {low:.1f} to {high:.1f}")


if __name__ == "__main__":
    main()
