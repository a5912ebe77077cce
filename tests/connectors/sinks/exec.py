"""`exec`: a script of the shell's that appends to a file."""

from __future__ import annotations

import json

from tests.connectors.rig import SinkRig, program_version

SCRIPT = """
[ -e away ] && exit 75
rows=$(cat)
[ -n "$rows" ] && [ "$(printf '%s\\n' "$rows" | wc -l)" = "$HEADWATER_ROWS" ] || exit 75
[ -e refused ] && printf '%s\\n' "$rows" | grep -qFf refused && { echo "it is not wanted" >&2; exit 1; }
printf '%s\\n' "$rows" >> received
"""


class ExecRig(SinkRig):
    peer = "bash"
    promise = "at least once"
    limit = "buffer, then 429"
    without = {
        "half-open": "there is no connection: tests/sinks/test_exec.py has a command that does not end",
        "credentials": "a command asks for none",
    }

    def version(self) -> str | None:
        return program_version("bash", "--version", word=3)

    async def start(self) -> None:
        (self.folder / "away").unlink(missing_ok=True)

    async def stop(self) -> None:
        (self.folder / "away").touch()

    def settings_with(self, port: int | None, password: str) -> str:
        (self.folder / "script").write_text(SCRIPT)
        return 'type = "exec"\ncommand = ["bash", "script"]'

    async def received(self) -> list[int]:
        file = self.folder / "received"
        return [json.loads(line)["n"] for line in file.read_text().splitlines()] if file.exists() else []

    def refuse(self, number: int) -> None:
        (self.folder / "refused").write_text(f'"n":{number}}}\n"n":{number},\n')
