"""What `exec` promises, with real commands."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.component import SourceContext
from pipeline.frame import KeyTable
from pipeline.quantity import Secret, Size, duration
from pipeline.sources.exec import Exec, ExecSettings
from tests.small_engine import SmallEngine

HELLO = """
import json, os, sys, time
def say(value): print(json.dumps({"id": "a", "value": value}), flush=True)
"""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reconnect.FIRST_S", 0.02)
    monkeypatch.setattr("pipeline.reconnect.LONGEST_S", 0.05)
    monkeypatch.setattr("pipeline.running.GRACE_S", 0.2)


def source(script: str, folder: Path = Path(), **settings: Any) -> Exec:
    context = SourceContext("command", KeyTable(), folder=folder)
    command = (sys.executable, "-c", HELLO + script)
    made = Exec(ExecSettings(command=command, key="id", fields={"value": "float"}, **settings), context)
    assert context.problems == []
    return made


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


async def test_lines_of_a_command_that_goes_on() -> None:
    engine = SmallEngine(source("say(1); print('no reading', flush=True); say(2); time.sleep(60)"))
    async with engine.running():
        assert [row["value"] for row in await engine.have(2)] == [1, 2]
        assert len(engine.refused) == 1
        assert engine.source.trouble == ""


async def test_one_that_ends_is_started_again_and_its_last_words_are_told(tmp_path: Path) -> None:
    """In the folder of the pipeline file; a last line without an end counts."""
    script = (
        "open('runs', 'a').write('x'); sys.stdout.write('{\"id\": \"a\", \"value\": %d}' % os.path.getsize('runs'))"
    )
    engine = SmallEngine(source(script + "; sys.exit('the radio is\\ngone')", tmp_path))
    async with engine.running():
        assert [row["value"] for row in await engine.have(3)][:3] == [1, 2, 3]
        await engine.until(lambda: engine.source.trouble)
        assert engine.source.trouble == f"{sys.executable}: it ended with status 1: the radio is gone"
    assert (tmp_path / "runs").exists()


async def test_one_that_runs_steadily_is_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pipeline.sources.exec.STEADY_S", 0.1)
    script = "first = not os.path.exists('ran'); open('ran', 'w'); first and sys.exit(3); time.sleep(60)"
    engine = SmallEngine(source(script, tmp_path))
    async with engine.running():
        await engine.until(lambda: "status 3" in engine.source.trouble)
        await engine.until(lambda: not engine.source.trouble)


async def test_a_program_that_is_not_there_is_told() -> None:
    context = SourceContext("command", KeyTable())
    settings = ExecSettings(command=("/nowhere/at-all", "--password", "x"), key="id", fields={"value": "float"})
    engine = SmallEngine(Exec(settings, context))
    async with engine.running():
        await engine.until(lambda: "No such file" in engine.source.trouble)
        assert "--password" not in engine.source.trouble


@pytest.mark.parametrize("stubborn", [False, True])
async def test_it_goes_with_the_pipeline_and_so_does_what_it_started(stubborn: bool) -> None:
    """First asked, then forced."""
    script = "import signal, subprocess\n"
    script += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if stubborn else ""
    script += "say(subprocess.Popen(['sleep', '60']).pid); say(os.getpid()); time.sleep(60)"
    engine = SmallEngine(source(script))
    async with engine.running():
        pids = [int(row["value"]) for row in await engine.have(2)]
        assert all(map(alive, pids))
    await engine.until(lambda: not any(map(alive, pids)))


async def test_a_flood_waits_and_long_lines_are_refused() -> None:
    """The pipe is not read while the inbox is full: the command stands still."""
    script = "print('x' * 10_000_000, flush=True)\nfor i in range(200_000): say(i)\ntime.sleep(60)"
    engine = SmallEngine(source(script, max_message=Size(100)), room=100)
    engine.held = True
    async with engine.running():
        await engine.until(lambda: len(engine.payloads) == 100)
        await asyncio.sleep(0.1)
        assert len(engine.payloads) == 100
        engine.go_on()
        await engine.have(5_000)
        assert [r.reason for r in engine.refused] == ["longer than max_message (100 bytes)"]
        assert engine.values()[:5_000] == list(range(5_000))


async def test_a_silence_that_lasts_ends_it() -> None:
    engine = SmallEngine(source("say(1); time.sleep(60)", timeout=duration("2 s")))
    async with engine.running():
        await engine.have(2)
        assert engine.source.trouble.endswith("it wrote nothing for 2 s")


async def test_every_so_often_to_its_end() -> None:
    """Standard error of one that does well is nobody's business."""
    engine = SmallEngine(source("say(1); sys.stderr.write('chatter')", every=duration("50 ms")))
    async with engine.running():
        await engine.have(3)
        assert engine.source.trouble == ""


async def test_every_so_often_a_failure_is_told_and_what_it_wrote_counts() -> None:
    engine = SmallEngine(source("say(1); sys.exit(2)", every=duration("10 min")))
    async with engine.running():
        await engine.have(2)  # long before it is due again
        await engine.until(lambda: "it ended with status 2" in engine.source.trouble)


async def test_every_so_often_one_that_does_not_end_is_killed() -> None:
    engine = SmallEngine(source("say(os.getpid()); time.sleep(60)", every=duration("1 h"), timeout=duration("2 s")))
    async with engine.running():
        await engine.have(2)
        assert engine.source.trouble.endswith("it did not end within 2 s")
        assert not alive(int(engine.values()[0]))


async def test_the_environment_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTER", "40")
    made = source(
        "say(int(os.environ['OUTER']) + int(os.environ['INNER'])); time.sleep(60)", environment={"INNER": Secret("2")}
    )
    engine = SmallEngine(made)
    async with engine.running():
        assert (await engine.have(1))[0]["value"] == 42
    assert "INNER" not in os.environ


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"command": ()}, "command"),
        ({"command": ("",)}, "command"),
        ({"command": ("x",), "every": duration("0 s")}, "every"),
        ({"command": ("x",), "timeout": duration("1 ms")}, "timeout"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], wrong: str) -> None:
    context = SourceContext("command", KeyTable())
    Exec(ExecSettings(key="id", fields={"value": "float"}, **settings), context)
    assert [setting for setting, _ in context.problems] == [wrong]
