"""What the README shows works as it stands there, and every TOML of the docs is a good pipeline."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import aiohttp
import pytest

from pipeline.run import check
from tests.device import Device, free_port
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The shell lines, without their comments."""
    return [
        re.split(r"\s+# ", line)[0].rstrip() for block in blocks(README, "sh") for line in block.splitlines() if line
    ]


def test_every_shell_line_is_of_a_known_kind() -> None:
    kinds = ("make ", "curl ", ".venv/bin/headwater ")
    assert [line for line in commands() if not line.startswith(kinds)] == []


@pytest.mark.parametrize("target", sorted({line.split()[1] for line in commands() if line.startswith("make ")}))
def test_each_make_target_is_there(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "link", re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r"`((?:pipeline|operators)/[\w/.]+)`", README)
)
def test_each_file_that_is_named_is_there(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("text", blocks(README, "toml"))
def test_each_pipeline_is_a_good_one(text: str, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text('[pipeline]\nname = "readme"\n' + text if "[pipeline]" not in text else text)
    check(file)


@pytest.mark.parametrize(
    "file",
    [
        ROOT / "pipeline.toml",
        # Those of a package of its own need it: tests/test_plug_in.py.
        *(f for f in sorted((ROOT / "examples").rglob("*.toml")) if not (f.parent / "pyproject.toml").exists()),
    ],
    ids=lambda f: str(f.relative_to(ROOT)),
)
def test_each_example_is_a_good_one(file: Path) -> None:
    check(file)


def test_the_components_listed_are_those_there_are() -> None:
    from pipeline.registry import types

    listed: dict[str, list[str]] = {}
    for kind, row in re.findall(r"^\| (sources|operators|sinks|… [\w ]+) \| (.*) \|$", README, re.MULTILINE):
        listed.setdefault("operators" if kind.startswith("…") else kind, []).extend(re.findall(r"`(\w+)`", row))

    for kind, names in listed.items():
        assert set(types(kind.removesuffix("s"))) == {n for n in names if n != "for"}, kind


def test_the_readme_in_chinese_says_the_same() -> None:
    """Its commands, but for what stands behind them as a remark, and its pipeline."""
    chinese = (ROOT / "docs" / "README.zh.md").read_text()
    said = [line.partition(" #")[0].strip() for block in blocks(chinese, "sh") for line in block.splitlines()]
    english = [line.partition(" #")[0].strip() for block in blocks(README, "sh") for line in block.splitlines()]
    assert [line for line in said if line not in english] == []
    assert blocks(chinese, "toml") == blocks(README, "toml")[:1]
    for link in re.findall(r"\]\(([^)#]+)\)", chinese):
        assert (ROOT / "docs" / link).exists(), link


def test_the_reference_is_what_the_code_says() -> None:
    """Anew: `make reference`."""
    from pipeline.command.components import markdown, page
    from pipeline.command.pages import pages
    from pipeline.reference import all_of

    docs = ROOT / "docs"
    assert not [component.type for component in all_of() if component.missing]
    wanted = pages(all_of())
    files = [docs / "reference.md", *(docs / "reference").iterdir()]
    assert {file.relative_to(docs).as_posix(): file.read_text() for file in files} == wanted
    # On one page or on several, all is there, and the table leads to each.
    whole = page(all_of())
    for c in all_of():
        assert markdown(c) in whole
        assert markdown(c) in wanted[f"reference/{c.kind}s.md"]
        assert f"(reference/{c.kind}s.md#{c.type}-{c.kind})" in wanted["reference.md"]


def test_every_connector_is_held_to_the_contract_and_in_its_table() -> None:
    """Or it is said where it is tested instead; the page says what is run. Anew: `python -m benchmarks.connectors`."""
    from benchmarks.connectors import FILE, page, rows_of
    from pipeline.registry import types
    from tests.connectors import contract
    from tests.connectors.world import names

    rows = rows_of(FILE.read_text())
    for kind in contract.CHECKS:
        assert set(names(kind)) == {name for of, name in rows if of == kind}
        assert set(names(kind)) ^ contract.OTHERWISE[kind].keys() == set(types(kind.removesuffix("s")))
        for where in contract.OTHERWISE[kind].values():
            assert all((ROOT / file).exists() for file in re.findall(r"tests/\S+\.py", where))
    for (kind, name), row in rows.items():
        assert row.split(" | ")[3] == ", ".join(contract.of(kind, name)), name
    assert page(rows) == FILE.read_text()


async def test_the_first_steps(tmp_path: Path) -> None:
    """The README's commands, in their order, against the reference pipeline and the hub, on ports of their own."""
    ports = {"8080": free_port(), "9000": free_port()}

    def here(text: str) -> str:
        for port, own in ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{own}")
        return text

    (tmp_path / "examples").mkdir()
    for name in ("pipeline.toml", "examples/hub.toml"):
        (tmp_path / name).write_text(here((ROOT / name).read_text()).replace('wait = "5 s"', 'wait = "100 ms"'))
    answers = []
    async with aiohttp.ClientSession() as http:
        device, hub = (
            Device(tmp_path / "pipeline.toml", ports["8080"]),
            Device(tmp_path / "examples/hub.toml", ports["9000"]),
        )
        await device.start(http)
        for line in commands():
            if "headwater run examples/hub.toml" in line:
                await hub.start(http)
                await arrived(http, hub)
            if line.startswith("curl "):
                done = await asyncio.create_subprocess_exec(
                    *shlex.split(here(line)), "-s", "--fail", stdout=asyncio.subprocess.PIPE
                )
                out, _ = await done.communicate()
                assert done.returncode == 0, line
                answers.append(out.decode())
        assert await device.end() == 0
        assert await hub.end(signal.SIGINT) == 0
    assert answers[0] == '{"status":"success","message":"Data received!"}'
    assert answers[1] == '{"s1":81.5}'
    assert '"state":"firing"' in answers[2]
    assert '"sink":"cloud"' in answers[4]
    assert '"because":"it fires, since ' in answers[5]
    assert '"averages"' in answers[6]


async def arrived(http: aiohttp.ClientSession, hub: Device) -> None:
    """The alert that waited for the cloud is in the hub's history."""
    rows = await eventually(lambda: hub.rows(http, "alerts"), lambda: "nothing arrived")
    assert rows[0]["state"] == "firing"


def test_the_settings_of_the_reference_pipeline_are_those_that_are_promised() -> None:
    """Loopback, the port, what alerts, what goes up and where."""
    made = tomllib.loads((ROOT / "pipeline.toml").read_text())
    assert made["server"]["listen"] == "127.0.0.1:8080"
    assert "> 75" in made["operators"]["too_high"]["when"]
    assert "> 50" in made["sinks"]["cloud"]["where"]
    assert made["sinks"]["cloud"]["url"] == "${CLOUD_URL:-http://127.0.0.1:9000/api/sync}"


def test_the_command_starts_with_little() -> None:
    """`headwater --version` imports none of the libraries."""
    code = """if True:
        import sys
        import pipeline.command.__main__ as command
        try:
            command.main(["--version"])
        except SystemExit:
            pass
        print([m for m in ("numpy", "aiohttp", "reactivex", "msgspec", "apsw", "orjson") if m in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
