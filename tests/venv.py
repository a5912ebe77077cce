"""A virtual environment in which this checkout is installed, and other people's distributions are put in and taken out."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Venv:
    """Made anew; what is installed where the tests run is there as well. Nothing comes from a network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
        self.python = folder / "bin" / "python"
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "here.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")

    def run(self, *words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """`python WORDS` in it."""
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
        command = [str(self.python), *words]
        return subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def headwater(self, *words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "pipeline.command", *words, cwd=cwd, **environment)

    def install(self, *folders: Path, editable: bool = False) -> None:
        """Builds and installs distributions for real; `folders` are written to meanwhile."""
        named = [word for folder in folders for word in (["--editable"] if editable else []) + [str(folder)]]
        self._pip("install", "--no-build-isolation", "--no-deps", "--no-index", *named)

    def uninstall(self, name: str) -> None:
        self._pip("uninstall", "--yes", name)

    def _pip(self, command: str, *words: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check"]
        done = subprocess.run([*pip, command, *words], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
