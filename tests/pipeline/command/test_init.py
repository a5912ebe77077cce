"""`headwater init`: each template is checked, passes its own tests, runs, and takes what its comment says to send."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import aiohttp
import pytest

from pipeline.command.init import TEMPLATES
from tests.device import Device, free_port

ROOT = Path(__file__).resolve().parents[3]


def headwater(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.command", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("template", TEMPLATES)
async def test_from_init_to_a_running_pipeline(tmp_path: Path, template: str) -> None:
    port = free_port()
    made = headwater("init", "--template", template, "--name", "mine", "--listen", f"127.0.0.1:{port}", folder=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    assert "headwater check" in made.stdout
    text = (tmp_path / "pipeline.toml").read_text()
    assert not {"NAME", "LISTEN", "TOKEN", "TIMEZONE"} & set(re.findall(r"[A-Z]{4,}", text))
    checked = headwater("check", folder=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    tested = headwater("test", folder=tmp_path)
    assert (tested.returncode, tested.stderr) == (0, "")
    assert "all passed" in tested.stdout
    command = re.search(r"# curl -d '([^']+)' (\S+)", text)
    assert command is not None
    async with aiohttp.ClientSession() as http, Device(tmp_path / "pipeline.toml", port) as device:
        await device.start(http)
        async with http.post(command[2], data=command[1]) as answer:
            assert answer.status == 201, await answer.text()
        async with http.get(device.url + "/api/streams") as answer:
            assert any(stream["rows"] for stream in (await answer.json())["streams"])
        assert await device.end() == 0


def test_an_editor_is_helped(tmp_path: Path) -> None:
    headwater("init", folder=tmp_path)
    assert (tmp_path / "pipeline.toml").read_text().startswith("#:schema ./pipeline.schema.json\n")
    assert json.loads((tmp_path / "pipeline.schema.json").read_text())["title"] == "A Headwater pipeline"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text("mine")
    done = headwater("init", folder=tmp_path)
    assert done.returncode == 2
    assert "is there already" in done.stderr
    assert (tmp_path / "pipeline.toml").read_text() == "mine"
    assert not (tmp_path / "pipeline.schema.json").exists()


def test_the_name_is_the_folder_s(tmp_path: Path) -> None:
    assert headwater("init", "my green house", folder=tmp_path).returncode == 0
    made = tomllib.loads((tmp_path / "my green house" / "pipeline.toml").read_text())
    assert made["pipeline"]["name"] == "my-green-house"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--name", "no name"], "is not a name"),
        (["--listen", "nowhere"], "is not an address"),
        (["--template", "grenhouse"], 'did you mean "greenhouse"'),
    ],
)
def test_wrong_answers_write_nothing(tmp_path: Path, words: list[str], said: str) -> None:
    done = headwater("init", *words, folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_open_to_the_network_it_asks_for_a_token(tmp_path: Path) -> None:
    """Which stands in the environment and in no file."""
    done = headwater("init", "--listen", "0.0.0.0:8080", folder=tmp_path)
    assert done.returncode == 0
    token = re.search(r"export HEADWATER_TOKEN=(\S{20,})", done.stdout)
    assert token is not None
    text = (tmp_path / "pipeline.toml").read_text()
    assert 'token = "${HEADWATER_TOKEN}"' in text
    assert token[1] not in text
    assert "curl -d" in text
    assert "http://127.0.0.1:8080/data" in text
    missing = headwater("check", folder=tmp_path)
    assert missing.returncode == 2
    assert "HEADWATER_TOKEN is not set" in missing.stderr
    assert headwater("check", folder=tmp_path, HEADWATER_TOKEN=token[1]).returncode == 0


async def test_three_questions_at_a_terminal(tmp_path: Path) -> None:
    here, there = pty.openpty()
    asking = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pipeline.command", "init", cwd=tmp_path, stdin=there, stdout=there, stderr=there,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(there)
    os.write(here, b"health\nward-3\n\n")
    assert await asking.wait() == 0
    os.close(here)
    made = tomllib.loads((tmp_path / "pipeline.toml").read_text())
    assert made["pipeline"]["name"] == "ward-3"
    assert "wearables" in made["sources"]
    assert made["server"]["listen"] == "127.0.0.1:8080"
