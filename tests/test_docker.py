"""examples/docker: the image, the compose file and the package fit together. What needs no engine; the README tells the rest."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fnmatch
import importlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from pipeline.command import __main__ as command
from pipeline.config import load
from tests.device import free_port

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "examples" / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, in order; lines that go on are joined."""
    text = re.sub(r"^\s*#.*\n", "", (HERE / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]


DOCKERFILE = instructions()
SERVICE: dict[str, Any] = yaml.safe_load((HERE / "compose.yaml").read_text())["services"]["headwater"]


def said(word: str) -> str:
    """What the last instruction of this kind says: of what runs in the end."""
    return [rest for kind, rest in DOCKERFILE if kind == word][-1]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in shlex.split(said("ENV")))


def run(*words: str, **more: str) -> tuple[list[str], dict[str, str]]:
    """A command of the image, by this interpreter."""
    assert words[0] == "headwater"
    return [sys.executable, "-m", "pipeline.command", *words[1:]], os.environ | {"PYTHONPATH": str(ROOT)} | more


def test_all_of_the_package_gets_in() -> None:
    copied = [
        word.rstrip("/")
        for kind, rest in DOCKERFILE
        if kind == "COPY" and "--from" not in rest
        for word in rest.split()[:-1]
    ]
    wanted = [pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
    wanted += ["pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]
    assert sorted(copied) == sorted(wanted)
    for name in copied:
        assert (ROOT / name).exists()

    ignored = [line for line in (HERE / "Dockerfile.dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(copied)
    assert not any(fnmatch.fnmatch(name, line) for line in ignored[1:] for name in copied if not line.startswith("!"))


def test_its_extras_and_its_python_are_those_of_the_package() -> None:
    known = PROJECT["project"]["optional-dependencies"].keys()
    named = re.findall(r'EXTRAS(?:=|: "| are those of pyproject.toml: ")([a-z,]+)', _texts())
    assert len(named) == 4
    assert {extra for list_ in named for extra in list_.split(",")} <= known
    base = dict(rest.split("=", 1) for kind, rest in DOCKERFILE if kind == "ARG")["BASE"]
    version = re.fullmatch(r"python:3\.(\d+)-slim-\w+", base)
    assert version
    assert int(version[1]) >= int(PROJECT["project"]["requires-python"].rpartition(".")[2])
    assert [rest.split(" AS ")[0] for kind, rest in DOCKERFILE if kind == "FROM"] == ["${BASE}", "${BASE}"]


def _texts() -> str:
    return "".join((HERE / name).read_text() for name in ("Dockerfile", "compose.yaml", "README.md"))


def test_folders_user_and_port_are_the_same_on_each_side() -> None:
    folder = PurePosixPath(said("WORKDIR"))
    volume = PurePosixPath(said("VOLUME"))
    user = said("USER")
    assert all(part.isdigit() and int(part) > 0 for part in user.split(":"))
    assert f"chown {user} {volume}" in said("RUN")

    file, state = (entry.split(":") for entry in SERVICE["volumes"])
    assert file[1:] == [str(folder / "pipeline.toml"), "ro"]  # what `headwater run` takes where nothing is given
    assert (HERE / file[0]).exists()
    assert state[1] == str(volume)
    kept = tomllib.loads((HERE / "pipeline.toml").read_text())["pipeline"]["state"]
    assert (folder / kept).is_relative_to(volume)

    port = environment()["HEADWATER_LISTEN"].rpartition(":")[2]
    assert [said("EXPOSE"), *(entry.split(":")[-1] for entry in SERVICE["ports"])] == [port, port]
    assert set(re.findall(r"\$\{(HEADWATER_\w+)", (HERE / "pipeline.toml").read_text())) == {
        *(name for name in environment() if name.startswith("HEADWATER")),
        *SERVICE["environment"],
    }


def test_what_a_container_may_do_is_little() -> None:
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in SERVICE
    assert {"mem_limit", "pids_limit", "stop_grace_period", "logging", "init"} <= SERVICE.keys()
    build = SERVICE["build"]
    assert (HERE / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == HERE / "Dockerfile"


def commands() -> list[list[str]]:
    start = [*json.loads(said("ENTRYPOINT")), *json.loads(said("CMD"))]
    return [start, json.loads(said("HEALTHCHECK").partition("CMD ")[2])]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_its_commands_are_commands(words: list[str]) -> None:
    assert words[0] in PROJECT["project"]["scripts"]
    assert words[1] in command.COMMANDS
    parser = argparse.ArgumentParser(exit_on_error=True)
    importlib.import_module(f"pipeline.command.{words[1]}").add_arguments(parser)
    with contextlib.redirect_stderr(io.StringIO()):
        assert str(parser.parse_args(words[2:]).file) == "pipeline.toml"


async def test_the_health_check_and_the_stop(tmp_path: Path) -> None:
    """The very commands of the image, in a folder of which only var may be written."""
    shutil.copy(HERE / "pipeline.toml", tmp_path)
    start, look = commands()
    settings = {"HEADWATER_LISTEN": f"127.0.0.1:{free_port()}", "HEADWATER_TOKEN": "hush"}
    words, environ = run(*start, **settings)
    process = await asyncio.create_subprocess_exec(*words, env=environ, cwd=tmp_path, stderr=asyncio.subprocess.PIPE)
    words, environ = run(*look, **settings)

    async def well() -> bool:
        looking = await asyncio.create_subprocess_exec(
            *words, env=environ, cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        return await looking.wait() == 0

    try:
        while not await well():
            assert process.returncode is None
        assert sorted(file.name for file in tmp_path.iterdir()) == ["pipeline.toml", "var"]
        process.terminate()
        assert process.stderr is not None
        assert await process.stderr.read() == b""
        assert await process.wait() == 0
        assert not await well()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(("token", "status"), [("hush", 0), ("", 2)])
def test_open_to_the_network_it_takes_a_token(token: str, status: int) -> None:
    """And nothing else is wrong with the file."""
    listen = environment()["HEADWATER_LISTEN"]
    words, environ = run(
        "headwater", "check", str(HERE / "pipeline.toml"), HEADWATER_LISTEN=listen, HEADWATER_TOKEN=token
    )
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("open to the network: set token" in done.stdout + done.stderr) == bool(status)


def test_outside_a_container_it_listens_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADWATER_LISTEN", "HEADWATER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    config = load(HERE / "pipeline.toml")
    assert config.problems == []
    assert config.server.address()[0] == "127.0.0.1"


def composing() -> list[str] | None:
    """Docker Compose, of whichever age; reading a file needs no engine."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(words[0])
            and not subprocess.run([*words, "version"], capture_output=True, check=False).returncode
        ):
            return words
    return None


@pytest.mark.skipif(composing() is None, reason="needs Docker Compose")
@pytest.mark.parametrize("token", ["hush", ""])
def test_compose_reads_it(token: str) -> None:
    words = [*(composing() or ()), "-f", str(HERE / "compose.yaml"), "config"]
    environ = os.environ | {"HEADWATER_TOKEN": token}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False, cwd=HERE)
    assert (done.returncode == 0) == bool(token), done.stderr
    assert token in done.stdout if token else "put HEADWATER_TOKEN" in done.stderr
