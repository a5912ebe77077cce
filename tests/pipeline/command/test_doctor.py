"""`headwater doctor`: what it finds, its exit status, and that it leaves no trace."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import apsw
import pytest

from pipeline.command import doctor
from pipeline.frame import SECOND
from pipeline.journal import dead, look, state
from pipeline.journal.commit import Store
from pipeline.journal.schema import FORMAT
from pipeline.run import check
from tests.device import Device, free_port

PIPELINE = """
[pipeline]
name = "p"
state = "state"
durability = "process"

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
key = "id"
fields = {{ value = "float" }}

[operators.valid]
type = "filter"
input = "readings"
where = "value > 0"

[sinks.local]
type = "query_server"
inputs = ["valid"]
max_size = "1 MB"

[sinks.cloud]
type = "cloud"
inputs = ["valid"]
url = "http://127.0.0.1:1/"
buffer = {{ size = "2 MB" }}
"""
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.toml").write_text(PIPELINE.format(port=free_port()))
    return tmp_path / "pipeline.toml"


def found(file: Path, now: float | None = None) -> dict[str, Any]:
    return doctor.examine(*check(file), now)


def command(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pipeline.command", "doctor", str(file), *words]
    return subprocess.run(
        line, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )


def traces(folder: Path) -> dict[str, str]:
    """Each file with what it holds and when it was written."""
    files = [f for f in folder.rglob("*") if f.is_file()]
    return {str(f): f"{f.stat().st_mtime_ns} {hashlib.sha256(f.read_bytes()).hexdigest()}" for f in files}


def change(file: Path, work: Any) -> None:
    """By a process that then ends well."""
    store = Store(file.parent / "state", "process")
    with store.connection as db:
        work(db)
    store.close()


def test_where_nothing_has_run_all_is_well_and_nothing_is_made(file: Path) -> None:
    done = command(file)
    assert done.returncode == 0
    assert "nothing has run here yet" in done.stdout
    assert [f.name for f in file.parent.iterdir()] == ["pipeline.toml"]


async def test_running_killed_and_ended_without_a_trace(file: Path) -> None:
    port = int(file.read_text().partition("127.0.0.1:")[2].partition('"')[0])
    async with aiohttp.ClientSession() as http, Device(file, port) as device:
        await device.start(http)
        async with http.post(device.url + "/data", json=[{"id": "a", "value": 1.0}, {"id": "b"}]):
            pass
        told = found(file)
        assert told["running"]
        assert await device.end(signal.SIGKILL) == -signal.SIGKILL
        before = traces(file.parent)
        killed = found(file)
        for report in (told, killed):
            assert (report["status"], report["problems"]) == ("ok", [])
            assert [(h["stream"], h["rows"]) for h in report["history"]] == [("valid", 1)]
            assert [(d["sink"], d["waiting"]) for d in report["delivery"]] == [("cloud", 1)]
            assert [(d["node"], d["kind"], d["letters"]) for d in report["dead"]] == [("readings", "refused", 1)]
            assert (report["step"], report["journal"]["steps"], report["checkpoint"]["step"]) == (1, 1, 0)
        assert not killed["running"]
        assert traces(file.parent) == before
        await device.start(http)
        assert await device.end() == 0
    before = traces(file.parent)
    assert "headwater.db-wal" not in {Path(f).name for f in before}
    done = command(file, "--format", "json")
    ended = json.loads(done.stdout)
    assert (done.returncode, ended["journal"]["steps"], ended["last_step"]) == (0, 0, None)
    assert "1 rows wait" in command(file).stdout
    assert traces(file.parent) == before


def test_a_damaged_database_is_3(file: Path) -> None:
    """As a whole, or a page of it."""
    change(file, lambda db: dead.bury(db, [dead.Buried(0, "readings", "why", "x" * 3000)] * 100))
    place = file.parent / "state" / "headwater.db"
    good = place.read_bytes()
    place.write_bytes(good[:-20_000] + b"\xff" * 20_000)
    done = command(file)
    assert done.returncode == 3
    assert "damaged" in done.stdout
    place.write_bytes(b"something else " * 1000)
    assert command(file).returncode == 3
    place.write_bytes(good)
    assert command(file).returncode == 0


def test_what_was_set_aside_is_listed(file: Path) -> None:
    folder = file.parent / "state"
    folder.mkdir()
    (folder / "headwater.db.damaged-20260131T120000Z").write_bytes(b"12345")
    (folder / "headwater.db.damaged-20260131T120000Z-wal").write_bytes(b"")
    report = found(file)
    assert report["set_aside"] == [{"file": "headwater.db.damaged-20260131T120000Z", "bytes": 5}]
    assert command(file).returncode == 1


def test_a_clock_that_was_set_back(file: Path) -> None:
    now = 1_800_000_000
    change(file, lambda db: state.add_entry(db, 1, state.Entry(now * SECOND, 0, {})))
    assert found(file, now + 1.0)["problems"] == []
    assert found(file, now - 1.0)["problems"] == []
    (problem,) = found(file, now - 3600.0)["problems"]
    assert "2027-01-15T08:00:00.000Z, later than now (2027-01-15T07:00:00.000Z)" in problem


@pytest.mark.parametrize(("node", "problems"), [("readings", 0), ("valid", 1), ("cloud", 1), ("gone", 1)])
def test_letters_that_nobody_was_told_of_need_a_person(node: str, problems: int, file: Path) -> None:
    change(file, lambda db: dead.bury(db, [dead.Buried(0, node, "why", "{}")]))
    report = found(file)
    assert (len(report["problems"]), report["status"]) == (problems, "attention" if problems else "ok")


def test_too_little_room(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what the file lets the database grow to: history, buffer, dead letters and the log."""
    usage = shutil.disk_usage(file.parent)
    for free, enough in ((10**9, True), (26_000_000, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        report = found(file)
        assert report["space"] == {"free": free, "allowed": 27_000_000, "bounded": True}
        assert (report["status"] == "ok") is enough


def test_a_database_of_an_earlier_or_a_later_format(file: Path) -> None:
    folder = file.parent / "state"
    folder.mkdir()
    earlier = ROOT / "tests" / "pipeline" / "journal" / "formats" / "1" / "headwater.db"
    shutil.copy(earlier, folder)
    report = found(file, time.time())
    assert report["format"] == {"found": 1, "known": FORMAT}
    assert [(d["node"], d["letters"]) for d in report["dead"]] == [("readings", 1)]
    assert len(dead.letters(look.connect(folder), 10)) == 1
    db = apsw.Connection(str(folder / "headwater.db"))
    db.pragma("journal_mode", "wal")
    db.pragma("user_version", 99)
    db.close()
    assert "later Headwater" in found(file)["problems"][0]


def test_a_wrong_file_is_2(file: Path) -> None:
    file.write_text(file.read_text().replace("value > 0", "valeu > 0"))
    done = command(file)
    assert (done.returncode, done.stdout) == (2, "")
