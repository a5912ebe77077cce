"""A file pipeline, killed again and again: its outputs are those of an undisturbed run, to the byte."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.reference import PIPELINE, generate

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = ("windows.ndjson", "alerts.ndjson")


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "pipeline.command", "run", str(folder / "pipeline.toml")], cwd=ROOT)


def wait_for_more(file: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the file has grown, or the process has ended."""
    before = file.stat().st_size if file.exists() else 0
    while process.poll() is None and (not file.exists() or file.stat().st_size <= before):
        time.sleep(0.001)


def test_killed_while_it_reads(tmp_path: Path) -> None:
    """No row is missing, none is there twice, none is torn; a file that had other rows keeps them."""
    generate(tmp_path / "readings.ndjson", 300_000, seed=3)
    undisturbed = made(tmp_path, "undisturbed")
    assert start(undisturbed).wait() == 0
    wanted = outputs(undisturbed)
    assert wanted["alerts.ndjson"].startswith(b"what was there before\n{")
    chance, kills = random.Random(5), 0
    for attempt in range(20):  # on a loaded machine it may be through before it is killed often enough
        killed = made(tmp_path, f"killed-{attempt}")
        kills = kill_until_it_ends(killed, chance)
        assert start(killed).wait() == 0
        assert outputs(killed) == wanted
        if kills > 3:
            return
    raise AssertionError(f"it was through after {kills} kills, each time")


def made(folder: Path, name: str) -> Path:
    """A folder with the pipeline."""
    own = folder / name
    own.mkdir()
    text = PIPELINE.replace('path = "readings.ndjson"', f'path = "{folder}/readings.ndjson"')
    (own / "pipeline.toml").write_text(text)
    (own / "alerts.ndjson").write_text("what was there before\n")
    return own


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def kill_until_it_ends(folder: Path, chance: random.Random) -> int:
    """How often it was killed before it came to its end."""
    kills = 0
    while True:
        process = start(folder)
        if chance.random() < 0.7:  # while it reads; otherwise while it starts
            wait_for_more(folder / "windows.ndjson", process)
        time.sleep(chance.uniform(0.0, 0.02))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            return kills
        kills += 1
