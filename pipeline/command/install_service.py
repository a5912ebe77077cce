"""`headwater install-service [FILE]`: a systemd unit that runs the pipeline at every start of the machine."""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.command.usage import add_file

UNITS = Path("/etc/systemd/system")

UNIT = """\
[Unit]
Description=Headwater pipeline {name}
Documentation=https://pypi.org/project/headwater/
After=network-online.target time-sync.target
Wants=network-online.target

[Service]
Type=notify
User={user}
WorkingDirectory={folder}
ExecStart={command} run {file}
ExecReload={command} reload {file}
EnvironmentFile=-{folder}/{name}.env
Restart=on-failure
RestartSec=5
# A wrong file (2) and a state folder that a person must look at (3) do not get better by starting again.
RestartPreventExitStatus=2 3
# A loop that hangs for a minute is killed and started again; what was acknowledged is on the disk.
WatchdogSec=60
TimeoutStopSec=60
MemoryMax={memory}
# What has no level of its own, such as a traceback, is an error.
SyslogLevel=err
NoNewPrivileges=true
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={writes}
PrivateTmp=true
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectControlGroups=true
RestrictSUIDSGID=true
RestrictRealtime=true
LockPersonality=true
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""


EXAMPLES = (
    "headwater install-service --print",
    "sudo headwater install-service /home/pi/plant/pipeline.toml --user pi",
)
STATUS = {
    1: "the unit cannot be written, or systemd refuses it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    parser.add_argument(
        "--user", default="", help="who it runs as; default: whoever asks, or with sudo who that is for"
    )
    parser.add_argument("--memory", default="512M", help="what it may take before it is started again (default 512M)")
    parser.add_argument("--print", action="store_true", help="print the unit, and install nothing")


def main(options: argparse.Namespace) -> int:
    from pipeline.run import check

    config, _ = check(options.file)
    file = options.file.resolve()
    unit = UNIT.format(
        name=config.pipeline.name,
        user=options.user or os.environ.get("SUDO_USER") or getpass.getuser(),
        folder=file.parent,
        file=file,
        command=_command(),
        memory=options.memory,
        writes=" ".join(dict.fromkeys([str(file.parent), str(config.pipeline.state)])),
    )
    if options.print:
        print(unit, end="")
        return 0
    return _install(UNITS / f"headwater-{config.pipeline.name}.service", unit)


def _command() -> str:
    """The program that runs now, by its whole path."""
    program = Path(sys.argv[0]).resolve()
    if program.name == "headwater":
        return str(program)
    beside = Path(sys.executable).with_name("headwater")
    return str(beside) if beside.exists() else f"{sys.executable} -m pipeline.command"


def _install(path: Path, unit: str) -> int:
    try:
        path.write_text(unit)
    except OSError as error:
        hint = ": ask with sudo, or look at it with --print" if isinstance(error, PermissionError) else ""
        print(f"{path}: {error.strerror}{hint}", file=sys.stderr)
        return 1
    print(f"{path}: written")
    if shutil.which("systemctl") is None or not Path("/run/systemd/system").exists():
        print(f"systemd does not run here; where it does: systemctl enable --now {path.name}")
        return 0
    for command in (["daemon-reload"], ["enable", "--now", path.name]):
        done = subprocess.run(["systemctl", *command], check=False)
        if done.returncode:
            return 1
    print(f"it runs; journalctl -u {path.stem} shows its log")
    return 0
