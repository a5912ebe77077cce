"""A page of the docs as a test sees it: its blocks, the files that they make, and a shell that types its commands.

    ```toml   a whole pipeline ([pipeline] stands in it), tests for the one before, or a part of it
    ```sh     commands, one after the other in one shell; `headwater run FILE &` is waited for until it is ready
    ```text   what the commands before it print, among other things; … stands for whatever may stand there
    ```       what a test cannot do: needs root, another machine, a browser
A block whose first line is a comment with a file's name alone (`# hub.toml`) is that file; a pipeline without one is pipeline.toml.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import ssl
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.device import free_port

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("bash", "curl", "sed")
PATIENCE_S = float(os.environ.get("PATIENCE", "90"))  # for a loaded machine; nothing waits for it that has come

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"^# ([\w./-]+\.\w+)\n")
_OPTION = re.compile(r"(?<= -p )(\d{4,5})\b")
_ADDRESS = re.compile(r"\b(127\.0\.0\.1|0\.0\.0\.0|192\.168\.\d+\.\d+|localhost):(\d{2,5})\b")
_ASKS = re.compile(r"curl|mosquitto_sub|headwater (query|dead)\b")  # what may say something else a moment later
_TABLE = re.compile(r"^\[([^\[\]]+)\]", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int

    @property
    def names(self) -> str | None:
        """The file that it is, if it says so."""
        found = _NAMED.match(self.text)
        return found[1] if found else None


@dataclass
class Pipeline:
    """A whole one, with the tests that stand further down on its page."""

    file: str
    text: str
    parts: list[Block] = field(default_factory=list)

    def with_part(self, part: Block) -> str:
        """The pipeline as it is with that part: in the place of the tables of the same name, or beside the others."""
        text = self.text
        for name in _TABLE.findall(part.text):
            text = re.sub(rf"^\[{re.escape(name)}\]\n(?:(?!\[).*\n?)*", "", text, flags=re.MULTILINE)
        return text + "\n" + part.text


class Page:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text("utf-8")
        self.blocks = [Block(m[1], m[2], self.text.count("\n", 0, m.start()) + 1) for m in _BLOCK.finditer(self.text)]

    def pipelines(self) -> list[Pipeline]:
        found: list[Pipeline] = []
        for block in self.blocks:
            if block.language != "toml" or not (block.names or "x.toml").endswith(".toml"):
                continue
            made = tomllib.loads(block.text)
            if "pipeline" in made:
                found.append(Pipeline(block.names or "pipeline.toml", block.text))
            elif set(made) == {"test"}:
                found[-1].text += "\n" + block.text
            else:
                found[-1].parts.append(block)
        return found

    def files(self) -> dict[str, str]:
        """All that it says are files, and its pipelines."""
        named = {b.names: b.text for b in self.blocks if b.names is not None and b.language != "sh"}
        return named | {pipeline.file: pipeline.text for pipeline in self.pipelines()}

    def links(self) -> list[str]:
        """Those to other files and to places on them."""
        prose = _BLOCK.sub("", self.text)
        return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in link]

    def typed(self) -> list[tuple[list[str], str]]:
        """The commands of each shell block, and what the block behind it says that they print."""
        steps = []
        for at, block in enumerate(self.blocks):
            if block.language == "sh":
                follows = self.blocks[at + 1] if at + 1 < len(self.blocks) else None
                told = follows.text if follows is not None and follows.language == "text" else ""
                steps.append((commands(block.text), told))
        return steps


def commands(text: str) -> list[str]:
    """Whole ones, without their remarks."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in (re.split(r"(?:^|\s+)# ", line)[0].rstrip() for line in lines) if line]


def slugs(text: str) -> set[str]:
    """The names by which headings are linked to."""
    heads = re.findall(r"^#+ (.+)$", _BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def matches(told: str, printed: str) -> bool:
    """Each line of `told` stands in a line of `printed`, in this order."""
    rest = iter(printed.splitlines())
    for line in filter(None, map(str.strip, told.splitlines())):
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        if not any(pattern.search(other) for other in rest):
            return False
    return True


class Here:
    """The addresses of a page, each with a port of this test's own; `given`: those that somebody answers at already."""

    def __init__(self, given: dict[str, str] | None = None) -> None:
        self.own = dict(given or {})

    def __call__(self, text: str) -> str:
        text = _ADDRESS.sub(self._one, text)
        return _OPTION.sub(lambda found: self._port(found[1]), text)

    def _one(self, found: re.Match[str]) -> str:
        return f"{found[1] if found[1] == '0.0.0.0' else '127.0.0.1'}:{self._port(found[2])}"

    def _port(self, port: str) -> str:
        if port not in self.own:
            self.own[port] = str(free_port())
        return self.own[port]


class Shell:
    """One bash in a folder, as a person sits before it."""

    def __init__(self, folder: Path, here: Here) -> None:
        self.folder = folder
        self.here = here
        bin_ = folder / ".bin"
        bin_.mkdir()
        self._program(bin_ / "headwater", f'exec {sys.executable} -m pipeline.command "$@"')
        self._program(bin_ / "python", f'exec {sys.executable} "$@"')
        for name in ("mosquitto_pub", "mosquitto_sub"):
            if shutil.which(name) is None:
                self._program(bin_ / name, f'exec {sys.executable} -m tests.peers.mosquitto_clients {name} "$@"')
        environment = os.environ | {"PATH": f"{bin_}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        self.bash = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment | {"HOME": str(folder), "COLUMNS": "200"},
            start_new_session=True,
        )

    @staticmethod
    def _program(path: Path, line: str) -> None:
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing that it started goes on."""
        os.killpg(self.bash.pid, signal.SIGKILL)
        self.bash.wait()
        for pipe in (self.bash.stdin, self.bash.stdout):
            assert pipe is not None
            pipe.close()

    def type(self, line: str) -> tuple[int, str]:
        """Its exit status, and what it printed. What runs in the background has begun."""
        line = self.here(line)
        runs = re.fullmatch(r"((?:\w+=\S+ )*headwater run(?: ([\w./-]+))?) &", line)
        if runs is None:
            return self._type(line)
        answer = self._type(f"{runs[1]} >> .log 2>&1 &")
        self._ready(self.folder / (runs[2] or "pipeline.toml"))
        return answer

    def _type(self, line: str) -> tuple[int, str]:
        assert self.bash.stdin is not None
        assert self.bash.stdout is not None
        self.bash.stdin.write(f"{line}\nprintf '\\n=== %d ===\\n' $?\n".encode())
        self.bash.stdin.flush()
        got, until = b"", time.monotonic() + PATIENCE_S
        while (end := re.search(rb"\n=== (\d+) ===\n", got)) is None:
            ready, _, _ = select.select([self.bash.stdout], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"{line}: no end\n{got.decode(errors='replace')}"
            more = os.read(self.bash.stdout.fileno(), 65_536)
            assert more, f"{line}: the shell is gone"
            got += more
        return int(end[1]), got[: end.start()].decode(errors="replace")

    def _ready(self, file: Path) -> None:
        server = tomllib.loads(file.read_text()).get("server", {})
        port = server.get("listen", "127.0.0.1:8080").rpartition(":")[2]
        scheme = "https" if "tls" in server else "http"
        trusting = ssl._create_unverified_context()
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{scheme}://127.0.0.1:{port}/ready", context=trusting, timeout=5):
                    return
            except urllib.error.HTTPError as error:
                if error.code == 401:  # it asks for a token: it is there
                    return
                time.sleep(0.05)
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise AssertionError(f"{file.name} did not get ready: {(self.folder / '.log').read_text()}")

    def act(self, lines: list[str], told: str) -> None:
        """Types them. Where something is told of what they print, the last, if it asks, is typed again until it does."""
        printed = ""
        for line in lines[:-1]:
            status, out = self.type(line)
            assert status == 0, f"{line}: {status}\n{out}\n{self.log()}"
            printed += out + "\n"
        until = time.monotonic() + PATIENCE_S
        while True:
            status, out = self.type(lines[-1])
            if not told:
                assert status == 0, f"{lines[-1]}: {status}\n{out}\n{self.log()}"
                return
            if matches(told, printed + out):
                return
            waits = _ASKS.match(lines[-1]) and time.monotonic() < until
            assert waits, f"{lines[-1]} printed\n{printed}{out}\nand not\n{told}\n{self.log()}"
            time.sleep(0.1)

    def log(self) -> str:
        file = self.folder / ".log"
        return file.read_text()[-4000:] if file.exists() else ""
