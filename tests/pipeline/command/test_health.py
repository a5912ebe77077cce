"""`headwater health` against a pipeline that runs, that is not quite well, that is not there."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from tests.device import Device, free_port
from tests.pipeline.command.test_service import PIPELINE

TOKEN = "hush-health"


async def health(*words: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "pipeline.command", "health", *words]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_one_that_is_well_and_one_that_is_not(tmp_path: Path) -> None:
    """Its token is taken from the file; a sink that cannot deliver is told, and keeps nothing from being taken."""
    file, port = tmp_path / "pipeline.toml", free_port()
    text = PIPELINE.format(port=port).replace("[sources.readings]", f'token = "{TOKEN}"\n\n[sources.readings]')
    file.write_text(text)
    async with Device(file, port) as device:
        await device.spawn()
        while (told := await health(str(file)))[0]:
            assert "nothing answers" in told[2] or "takes no readings yet" in told[1]
        assert told[1].startswith("served: ok; up ")
        (tmp_path / "state" / "headwater.db.damaged-20260131T120000Z").write_bytes(b"")  # a person is to look at it
        assert await device.end() == 0

        await device.spawn()
        while (await health(str(file), "--ready"))[0]:
            pass
        status, out, _ = await health(str(file))
        assert (status, out.splitlines()[0][:16]) == (1, "served: degraded")
        assert "- a damaged database was set aside as" in out
        status, out, _ = await health(str(file), "--ready", "--format", "json")
        assert (status, json.loads(out)["status"]) == (0, "degraded")

        file.write_text(text.replace('"served"', '"another"'))
        status, _, err = await health(str(file))
        assert status == 1
        assert "is of another pipeline, served" in err
        file.write_text(text.replace(TOKEN, "another-one"))
        status, _, err = await health(str(file))
        assert status == 1
        assert "401" in err
        await device.end(signal.SIGKILL)
    status, _, err = await health(str(file))
    assert status == 1
    assert "nothing answers at http://127.0.0.1:" in err


async def test_only_the_server_of_the_file_matters(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(PIPELINE.format(port=free_port()).replace('"http"', '"nonsense"'))
    assert (await health(str(file)))[0] == 1
    file.write_text(file.read_text().replace("listen", "listn"))
    status, _, err = await health(str(file))
    assert status == 2
    assert "pipeline.toml:8: server" in err
