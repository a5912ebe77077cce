"""Two pipelines on one machine: what is asked by the port of one's file is not answered by the other."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
import pytest

from pipeline.config import loads
from pipeline.identity import identity, is_meant
from tests.device import Device, free_port

ROOT = Path(__file__).parent.parent
PIPELINE = """
[pipeline]
name = "{name}"

[server]
listen = "127.0.0.1:{port}"

[sources.readings]
type = "http"
key = "id"
fields = {{ value = "float" }}

[sinks.local]
type = "query_server"
inputs = ["readings"]
"""


async def headwater(folder: Path, *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pipeline.command", *words),
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, told.decode()


async def test_another_pipeline_refuses(tmp_path: Path) -> None:
    """Its file was changed to the port of the other, or was copied: neither does what was meant for the other."""
    ports = {"cellar": free_port(), "attic": free_port()}
    for name, port in ports.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "pipeline.toml").write_text(PIPELINE.format(name=name, port=port))
    cellar, attic = (tmp_path / name / "pipeline.toml" for name in ports)
    async with (
        aiohttp.ClientSession() as http,
        Device(cellar, ports["cellar"]) as device,
        Device(attic, ports["attic"]) as other,
    ):
        await device.start(http)
        await other.start(http)
        for one in (device, other):
            async with http.post(one.url + "/data", json={"id": "s1", "value": 1}) as answer:
                assert answer.status == 201
        for words in (("reload", "--plan"), ("forget", "s1"), ("health",)):
            assert (await headwater(attic.parent, *words))[0] == 0, words
        attic.write_text(PIPELINE.format(name="attic", port=ports["cellar"]))
        for words in (("reload",), ("reload", "--plan"), ("forget", "s1"), ("health",), ("graph", "--live")):
            status, told = await headwater(attic.parent, *words)
            assert status == 1, (words, told)
            assert 'answers 409: here runs another pipeline, "cellar": of two on one machine' in told
        attic.write_text(PIPELINE.format(name="cellar", port=ports["cellar"]))  # of the same name, too
        assert (await headwater(attic.parent, "reload"))[0] == 1
        async with http.get(device.url + "/api/streams/readings/latest") as answer:
            assert len((await answer.json())["rows"]) == 1
        async with http.get(device.url + "/health") as answer:
            assert (await answer.json())["reloads"] == 0
        # Its own file has another name now, and so another state folder; and another file is of the same state.
        cellar.write_text(PIPELINE.format(name="basement", port=ports["cellar"]))
        assert (await headwater(cellar.parent, "reload", "--plan"))[0] == 0
        copy = cellar.with_name("copy.toml")
        copy.write_text(PIPELINE.format(name="cellar", port=ports["cellar"]))
        assert (await headwater(cellar.parent, "reload", "copy.toml", "--plan"))[0] == 0


@pytest.mark.parametrize("said", ["", "x", "a b", "a b c d", "- - else where", "1:2 - cellar", "- 1:2 cellar"])
def test_what_says_something_else_is_not_meant(said: str, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(PIPELINE.format(name="cellar", port=1))
    config = loads(file.read_text(), file)
    config.pipeline.state.mkdir(parents=True)
    assert not is_meant(said, config)
    assert is_meant(identity(config), config)
    assert is_meant("- - cellar", config)
