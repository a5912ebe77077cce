"""The tutorial, line by line as it stands there, in an empty folder, by a shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.device import free_port

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = [ROOT / "docs" / "tutorial.md", ROOT / "docs" / "tutorial.zh.md"]
NEEDED = ("bash", "curl", "sed")


def commands(text: str) -> list[str]:
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines() if line]


def run(folder: Path, lines: list[str]) -> list[tuple[str, int, str]]:
    """Each line with its exit status and what it printed, as one shell session. The port is of this test alone."""
    port = free_port()
    bin_ = folder / "bin"
    bin_.mkdir()
    program = bin_ / "headwater"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipeline.command "$@"\n')
    program.chmod(0o755)
    script = []
    for number, line in enumerate(lines):
        own = line.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
        if own.startswith("headwater init"):
            own += f" --listen 127.0.0.1:{port}"
        script.append(own)
        script.append(f'echo "=== {number} $?"')
    environment = os.environ | {"PATH": f"{bin_}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    done = subprocess.run(
        ["bash"],
        input="\n".join(script),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    parts = re.split(r"=== (\d+) (\d+)\n", done.stdout)
    return [(lines[int(parts[i + 1])], int(parts[i + 2]), parts[i]) for i in range(0, len(parts) - 1, 3)]


@pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason="needs a shell with curl")
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda file: file.name)
def test_the_tutorial_as_it_stands(tutorial: Path, tmp_path: Path) -> None:
    lines = commands(tutorial.read_text())
    told = run(tmp_path, lines)
    assert [line for line, _, _ in told] == lines
    assert [(line, status) for line, status, _ in told if status] == [
        (line, 2) for line in lines if "# exit status 2" in line
    ]

    def said(start: str, at: int = 0) -> str:
        return [out for line, _, out in told if line.startswith(start)][at]

    assert "climate (alert)" in said("headwater graph")
    assert "no problems" in said("headwater check")
    assert "2 tests, all passed" in said("headwater test")
    assert '"Data received!"' in said("curl -sw '\\n' -d")
    assert '"north":{"temperature":34.0' in said("curl -sw '\\n' http://127.0.0.1:8080/data")
    assert said("curl -sw '\\n' http://127.0.0.1:8080/api/streams/valid/rows").count('"bed"') == 3
    assert "it fires at" in said("curl -sw '\\n' 'http://127.0.0.1:8080/api/alerts/why-not")
    assert "taken over after" in said("headwater reload")
    assert '"state":"firing"' in said("curl -sw '\\n' 'http://127.0.0.1:8080/api/alerts?state=firing'")
    assert "climate" in said("headwater replay")
