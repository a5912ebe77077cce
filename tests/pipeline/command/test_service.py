"""As a service: what systemd is told, the unit that it is given, and what a process says when it is looked at."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.device import free_port

PIPELINE = """
[pipeline]
name = "served"
state = "state"
durability = "process"

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
key = "id"
fields = {{ value = "float" }}

[sinks.local]
type = "query_server"
inputs = ["readings"]
retention = "1 d"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "pipeline.toml"
    made.write_text(PIPELINE.format(port=free_port()))
    return made


class Manager:
    """The end of $NOTIFY_SOCKET that systemd has."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)

    async def hears(self, wanted: str) -> None:
        async with asyncio.timeout(60):
            while (await asyncio.get_running_loop().sock_recv(self.socket, 100)).decode() != wanted:
                pass


@pytest.mark.parametrize("abstract", [False, True])
async def test_systemd_is_told(file: Path, abstract: bool) -> None:
    address = f"@headwater-{os.getpid()}" if abstract else str(file.parent / "notify")
    manager = Manager(address)
    environment = os.environ | {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
    command = [sys.executable, "-m", "pipeline.command", "run", str(file)]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
    try:
        await manager.hears("READY=1")
        for _ in range(3):
            await manager.hears("WATCHDOG=1")
        process.send_signal(signal.SIGSTOP)  # what hangs says nothing: systemd would kill it
        await asyncio.sleep(0.3)
        while True:
            try:
                manager.socket.recv(100)
            except BlockingIOError:
                break
        await asyncio.sleep(0.5)
        with pytest.raises(BlockingIOError):
            manager.socket.recv(100)
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGUSR1)
        await manager.hears("WATCHDOG=1")
        process.terminate()
        await manager.hears("STOPPING=1")
        assert process.stderr is not None
        said = (await process.stderr.read()).decode()
        assert await process.wait() == 0
        assert "memory " in said
        assert "source readings: 0 bytes in 0 payloads wait" in said
        assert "task source readings" in said
    finally:
        manager.socket.close()
        if process.returncode is None:
            process.kill()
            await process.wait()


def service(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.command", "install-service", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_unit(file: Path) -> None:
    done = service(str(file), "--print", "--user", "pi", "--memory", "256M")
    assert done.returncode == 0
    for line in (
        "Type=notify",
        "User=pi",
        "MemoryMax=256M",
        f"WorkingDirectory={file.parent}",
        "RestartPreventExitStatus=2 3",
    ):
        assert line in done.stdout.splitlines()
    assert f"run {file}" in done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_it(file: Path) -> None:
    unit = file.parent / "headwater-served.service"
    unit.write_text(service(str(file), "--print", "--user", "root").stdout)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False, timeout=60
    )
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []


def test_a_wrong_file_installs_nothing(file: Path) -> None:
    file.write_text(file.read_text().replace('"http"', '"htp"'))
    done = service(str(file), "--print")
    assert (done.returncode, done.stdout) == (2, "")
