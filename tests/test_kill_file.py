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
    wanted = {}
    for name in ("undisturbed", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        text = PIPELINE.replace('path = "readings.ndjson"', f'path = "{tmp_path}/readings.ndjson"')
        (folder / "pipeline.toml").write_text(text)
        (folder / "alerts.ndjson").write_text("what was there before\n")
    assert start(tmp_path / "undisturbed").wait(60) == 0
    wanted = {name: (tmp_path / "undisturbed" / name).read_bytes() for name in OUTPUTS}
    assert wanted["alerts.ndjson"].startswith(b"what was there before\n{")
    chance, kills = random.Random(5), 0
    while True:
        process = start(tmp_path / "killed")
        if chance.random() < 0.7:  # while it reads; otherwise while it starts
            wait_for_more(tmp_path / "killed" / "windows.ndjson", process)
        time.sleep(chance.uniform(0.0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        if process.returncode == 0:
            break
        kills += 1
    assert start(tmp_path / "killed").wait(60) == 0
    assert kills > 3
    assert {name: (tmp_path / "killed" / name).read_bytes() for name in OUTPUTS} == wanted
