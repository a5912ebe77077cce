"""Every subcommand: what its help says, what a mistake is answered with, and each exit status that it promises.

Taken from the command itself, so that a new one is held to all of this; docs/commands.md is the same table.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from pipeline.command import bench, install_service, manual
from pipeline.command.__main__ import COMMANDS, main, module, parsers
from pipeline.command.usage import statuses, with_times
from pipeline.journal.commit import lock
from tests.device import Device, free_port

ROOT = Path(__file__).resolve().parent.parent
PIPELINE = """
[pipeline]
name = "p"
state = "state"
durability = "process"

[server]
listen = "127.0.0.1:{port}"
token = "${{TEST_TOKEN:-may do all}}"

[sources.in]
type = "file"
path = "in.ndjson"
key = "id"
time = "ts"
fields = {{ value = "float" }}

[operators.high]
type = "alert"
input = "in"
when = "value > 2"
clear = "value < 1"

[sinks.local]
type = "query_server"
inputs = ["in", "high"]
"""
TEST = """
[[test]]
name = "one"
input.in = [{ at = "1 s", id = "a", value = 1 }]
expect.in = [{ id = "a", value = 1 }]
"""


# --- help -----------------------------------------------------------------------------------------------------------


def test_each_file_that_takes_arguments_is_a_command() -> None:
    """None is forgotten in the list."""
    there = {
        file.stem
        for file in (ROOT / "pipeline" / "command").glob("*.py")
        if "add_arguments"
        in [node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
    }
    assert there == {name.replace("-", "_") for name in COMMANDS}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is for, each option, an example, and its exit status; no line is wider than 100."""
    monkeypatch.setenv("COLUMNS", "100")
    assert main([*command.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 100
    parser = parsers(command or None)[1] or parsers(None)[0]
    for action in parser._actions:
        assert action.help or action.metavar == "COMMAND", action.dest
    if command:
        purpose = COMMANDS[command]
        assert f"\n{purpose[0].upper()}{purpose[1:]}.\n" in out
        assert "\nexamples:\n  headwater " in out
        assert "\nexit status:\n  0  " in out


@pytest.mark.parametrize("example", [line for name in COMMANDS for line in module(name).EXAMPLES])
def test_each_example_of_the_help_is_a_command_line(example: str) -> None:
    words = shlex.split(re.sub(r" > \S+\.\w+$", "", example.removeprefix("sudo ")))
    assert words[0] == "headwater"
    parser, _ = parsers(words[1])
    options, more = parser.parse_known_args(with_times(words[1:]))
    assert (options.command, more) == (words[1], [])


def test_help_needs_nothing_but_the_standard_library() -> None:
    """Of all commands together; and to list them, not even what speaks to a network."""
    code = """if True:
        import contextlib, io, sys
        from pipeline.command.__main__ import COMMANDS, main
        with contextlib.redirect_stdout(io.StringIO()):
            main(["--help"])
            first = set(sys.modules)
            for command in COMMANDS:
                main([command, "--help"])
        own = sys.stdlib_module_names | {"pipeline", "__main__"}
        print(sorted({name.partition(".")[0] for name in sys.modules} - own))
        print(sorted(first & {"asyncio", "ssl", "http", "json", "sqlite3", "subprocess"}))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    others, heavy = (set(ast.literal_eval(line)) for line in done.stdout.splitlines())
    # What an installation puts into every process of its Python (as .pth files do) is not ours.
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(sorted({n.partition('.')[0] for n in sys.modules}))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert others - set(ast.literal_eval(bare.stdout)) == set()
    assert heavy == set()


def test_the_page_is_what_the_code_says() -> None:
    """Anew: `make reference`."""
    assert (ROOT / "docs" / "commands.md").read_text() == manual.page()


@pytest.mark.parametrize("good", [True, False])
def test_what_check_prints_for_programs_is_described(
    good: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every name of it stands in docs/commands.md, and none that is not there."""
    if not good:
        wrong_file(folder)
    else:
        file = folder / "pipeline.toml"
        file.write_text(file.read_text().replace('clear = "value < 1"', ""))
    assert main(["check", "--format", "json"]) == (0 if good else 2)
    told = json.loads(capsys.readouterr().out)
    rows = re.findall(r"^\| `(file|problems|warnings|memory|flash)` \| (.*) \|$", manual.page(), re.MULTILINE)
    described = {name: {word for word in re.findall(r"`(\w+)`", text) if word != "max_keys"} for name, text in rows}
    assert described["problems"] == {"line", "path", "text"}
    assert told.keys() == (described.keys() if good else {"file", "problems", "warnings"})
    found = told["warnings" if good else "problems"]
    assert found
    assert all(problem.keys() == {"line", "path", "text"} for problem in found)
    if good:
        assert told["flash"].keys() == described["flash"]
        nodes = {name for node in told["memory"]["nodes"] for name in node}
        assert told["memory"].keys() - {"max_keys"} | nodes == described["memory"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "headwater 0.1.0\n"


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("runn", 'headwater: COMMAND: there is no "runn" (did you mean "run"?); `headwater --help` shows'),
        ("xyz", 'there is no "xyz", only init, run, check'),
        ("--verison", 'headwater: there is no option --verison (did you mean "--version"?)'),
        ("check --fromat=json", 'headwater check: there is no option --fromat (did you mean "--format"?)'),
        ("check --format jsn", 'headwater check: --format: there is no "jsn" (did you mean "json"?)'),
        ("check a b", 'headwater check: "b" is too much; `headwater check --help`'),
        ("query --limit few x", "headwater query: argument --limit: invalid int value: 'few'"),
        ("backup", "headwater backup: the following arguments are required: --to"),
        ("test --nam x", "x"),  # a beginning that fits one option alone is that option
    ],
)
def test_a_mistake_is_2_with_a_way_out(line: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_2(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    needed = {"backup": ["--to", "x"], "restore": ["--from", "x"], "forget": ["s1"]}.get(command, [])
    assert main([command, *needed, "--no-such-option"]) == 2
    assert f"headwater {command}: there is no option --no-such-option; " in capsys.readouterr().err


def test_no_command_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(f"\n    {name}" in err for name in COMMANDS)


READ_A_FILE = {
    "run": "{}",
    "check": "{}",
    "test": "{}",
    "replay": "{}",
    "graph": "{}",
    "query": "in {}",
    "dead": "{}",
    "reload": "{}",
    "forget": "s1 {}",
    "install-service": "--print {}",
    "bench": "{}",
    "backup": "{} --to copy",
    "restore": "{} --from copy",
    "doctor": "{}",
    "health": "{}",
}


def test_every_command_with_a_pipeline_file_is_tried_with_wrong_ones() -> None:
    assert READ_A_FILE.keys() == COMMANDS.keys() - {"init", "components", "schema"}


@pytest.mark.parametrize("command", READ_A_FILE)
def test_a_file_that_is_none(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is 2, names the file, says why, and leaves nothing behind."""
    (folder / "latin.toml").write_bytes(b'[pipeline]\nname = "Gew\xe4chshaus"\n')
    (folder / "loop.toml").symlink_to("loop.toml")  # what cannot be read, by root either
    (folder / "wrong.toml").write_text("[server]\nlisten = 80\n")
    before = sorted(folder.rglob("*"))
    for name, said in {
        "pipelin.toml": 'No such file or directory (did you mean "pipeline.toml"?)',
        "other/none.toml": "No such file or directory",
        "state": "Is a directory",
        "latin.toml": "is not UTF-8 text",
        "loop.toml": "Too many levels of symbolic links",
        "wrong.toml": "server.listen",
    }.items():
        assert main([command, *READ_A_FILE[command].format(name).split()]) == 2, name
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(name + ":")
        assert said in err
    assert sorted(folder.rglob("*")) == before


def test_where_there_is_no_file_at_all_init_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run"]) == 2
    expected = (
        "pipeline.toml:1: cannot be read: No such file or directory (`headwater init` writes one to start from)\n"
    )
    assert capsys.readouterr().err == expected


# --- exit status ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that has run: its file, its input, and its state."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "pipeline.toml").write_text(PIPELINE.format(port=free_port()) + TEST)
    lines = [json.dumps({"id": "a", "ts": 1_700_000_000_000 + 1000 * i, "value": i % 5}) for i in range(20)]
    (folder / "in.ndjson").write_text("\n".join(lines))
    assert subprocess.run([*HEADWATER, "run"], cwd=folder, env=ENVIRONMENT, check=False).returncode == 0
    return folder


HEADWATER = [sys.executable, "-m", "pipeline.command"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def folder(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which we are."""
    place = tmp_path / "here"
    shutil.copytree(kept, place)
    monkeypatch.chdir(place)
    monkeypatch.setattr(bench, "LINES", 1000)
    monkeypatch.setattr(bench, "COMMITS", 3)
    monkeypatch.setattr(bench, "BETWEEN_S", 0.01)
    return place


def nothing(folder: Path) -> None:
    pass


def no_state(folder: Path) -> None:
    shutil.rmtree(folder / "state")


def no_input(folder: Path) -> None:
    (folder / "in.ndjson").unlink()
    no_state(folder)


def wrong_file(folder: Path) -> None:
    file = folder / "pipeline.toml"
    file.write_text(file.read_text().replace('"value > 2"', '"valeu > 2"'))


def wrong_server(folder: Path) -> None:
    file = folder / "pipeline.toml"
    file.write_text(file.read_text().replace('listen = "127', 'listne = "127'))


def failing_test(folder: Path) -> None:
    file = folder / "pipeline.toml"
    file.write_text(file.read_text().replace("expect.in = [{ id", "expect.high = [{ id"))


def state_nowhere(folder: Path) -> None:
    """Where nobody may write, root neither."""
    file = folder / "pipeline.toml"
    file.write_text(file.read_text().replace('"state"', '"/proc/headwater"'))


def damaged(folder: Path) -> None:
    (folder / "state" / "headwater.db").write_bytes(b"no database " * 1000)
    file = folder / "pipeline.toml"
    file.write_text(file.read_text().replace('"process"', '"process"\non_damage = "stop"'))


def set_aside(folder: Path) -> None:
    (folder / "state" / "headwater.db.damaged-20260101T000000Z").touch()


def no_units(folder: Path) -> None:
    install_service.UNITS = folder / "nowhere"


def units(folder: Path) -> None:
    install_service.UNITS = folder


def copied(folder: Path) -> None:
    assert main(["backup", "--to", "copy"]) == 0


def copied_and_gone(folder: Path) -> None:
    copied(folder)
    no_state(folder)


def copied_and_nowhere(folder: Path) -> None:
    copied(folder)
    state_nowhere(folder)


def in_use(folder: Path) -> None:
    """By this process, until the test has ended."""
    HELD.append(lock(folder / "state"))


def copied_and_in_use(folder: Path) -> None:
    copied_and_gone(folder)
    in_use(folder)


HELD: list[int] = []


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = install_service.UNITS
    yield
    install_service.UNITS = before
    while HELD:
        os.close(HELD.pop())


# What provokes each status: what has happened before, and the command line.
PROVOKED: dict[tuple[str, int], tuple[Callable[[Path], None], str]] = {
    ("init", 0): (nothing, "init new --template blank"),
    ("init", 1): (nothing, "init in.ndjson/new --template blank"),
    ("init", 2): (nothing, "init . --template blank"),
    ("run", 0): (nothing, "run"),
    ("run", 1): (no_input, "run"),
    ("run", 2): (wrong_file, "run"),
    ("run", 3): (in_use, "run"),
    ("check", 0): (nothing, "check"),
    ("check", 2): (wrong_file, "check"),
    ("test", 0): (nothing, "test"),
    ("test", 1): (failing_test, "test"),
    ("test", 2): (nothing, "test --name none"),
    ("test", 3): (no_state, "test --record x --from -1h"),
    ("replay", 0): (nothing, "replay"),
    ("replay", 1): (nothing, 'replay --fail-on-difference --set operators.high.when="value>9"'),
    ("replay", 2): (nothing, "replay --set nonsense"),
    ("replay", 3): (no_state, "replay"),
    ("graph", 0): (nothing, "graph"),
    ("graph", 1): (nothing, "graph --live"),
    ("graph", 2): (wrong_file, "graph"),
    ("query", 0): (nothing, "query in"),
    ("query", 2): (nothing, "query int"),
    ("query", 3): (no_state, "query in"),
    ("dead", 0): (nothing, "dead"),
    ("dead", 1): (nothing, "dead replay --all"),
    ("dead", 2): (nothing, "dead replay"),
    ("dead", 3): (damaged, "dead"),
    ("forget", 1): (nothing, "forget a"),
    ("forget", 2): (wrong_file, "forget a"),
    ("reload", 1): (nothing, "reload"),
    ("reload", 2): (wrong_file, "reload"),
    ("components", 0): (nothing, "components window"),
    ("components", 2): (nothing, "components windoww"),
    ("schema", 0): (nothing, "schema"),
    ("schema", 1): (nothing, "schema -o nowhere/at/all"),
    ("schema", 2): (nothing, "schema twice"),
    ("install-service", 0): (units, "install-service"),
    ("install-service", 1): (no_units, "install-service"),
    ("install-service", 2): (wrong_file, "install-service"),
    ("bench", 0): (nothing, "bench"),
    ("bench", 1): (state_nowhere, "bench"),
    ("bench", 2): (wrong_file, "bench"),
    ("backup", 0): (nothing, "backup --to copy"),
    ("backup", 1): (nothing, "backup --to /proc/headwater.db"),
    ("backup", 2): (copied, "backup --to copy"),
    ("backup", 3): (damaged, "backup --to copy"),
    ("restore", 0): (copied_and_gone, "restore --from copy"),
    ("restore", 1): (copied_and_nowhere, "restore --from copy"),
    ("restore", 2): (no_state, "restore --from in.ndjson"),
    ("restore", 3): (copied_and_in_use, "restore --from copy"),
    ("health", 1): (nothing, "health"),
    ("health", 2): (wrong_server, "health"),
    ("doctor", 0): (nothing, "doctor"),
    ("doctor", 1): (set_aside, "doctor"),
    ("doctor", 2): (wrong_file, "doctor"),
    ("doctor", 3): (damaged, "doctor"),
}
FINDINGS = {("test", 1), ("replay", 1), ("doctor", 1), ("doctor", 3)}  # what was asked for, and so on standard output


def test_every_status_that_is_promised_is_provoked() -> None:
    """These need a running pipeline: see test_of_a_running_pipeline."""
    promised = {(name, code) for name in COMMANDS for code in statuses(module(name).STATUS)}
    assert promised == PROVOKED.keys() | {("reload", 0), ("health", 0), ("forget", 0)}


@pytest.mark.parametrize(("command", "status"), PROVOKED)
def test_exit_status(command: str, status: int, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As it is promised; data on standard output, talk on standard error."""
    before, line = PROVOKED[command, status]
    before(folder)
    capfd.readouterr()
    words = [word.replace('"', "") for word in line.split()]
    # `run` changes its process for good (signals, garbage collection): it gets one of its own.
    done = (
        subprocess.run([*HEADWATER, *words], env=ENVIRONMENT, check=False).returncode
        if command == "run"
        else main(words)
    )
    out, err = capfd.readouterr()
    assert done == status, err
    assert "Traceback" not in err
    if status == 0 or (command, status) in FINDINGS:
        assert err == ""
    else:
        assert out == ""
        assert err.strip()


# --- what the outside does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["components", "schema", "graph --format svg", "query in", "check", "--help", "run --help"]
)
def test_whoever_reads_may_leave(line: str, folder: Path) -> None:
    """`headwater components | head -1`: no traceback, and the status that the shell has for it."""
    process = subprocess.Popen(
        [*HEADWATER, *line.split()], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == b""
    assert process.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full is Linux's /dev/full")
def test_output_that_cannot_be_written_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*HEADWATER, "schema"], env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "headwater schema: No space left on device\n")


def test_a_terminal_without_our_letters() -> None:
    environment = ENVIRONMENT | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([*HEADWATER, "query", "--help"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "SELECT \\u2026" in done.stdout


def test_ctrl_c_says_nothing_more(tmp_path: Path) -> None:
    """While it waits for its file, which is a pipe that nobody writes to yet."""
    os.mkfifo(tmp_path / "pipeline.toml")
    process = subprocess.Popen(
        [*HEADWATER, "check"], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while True:  # it can be opened for writing once the command reads
        try:
            held = os.open(tmp_path / "pipeline.toml", os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError:
            assert process.poll() is None
            time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    os.close(held)
    assert (process.returncode, out, err) == (130, b"", b"")


# --- with a running pipeline ----------------------------------------------------------------------------------------


async def headwater(*words: str) -> tuple[int, str, str]:
    pipe = asyncio.subprocess.PIPE
    done = await asyncio.create_subprocess_exec(*HEADWATER, *words, env=ENVIRONMENT, stdout=pipe, stderr=pipe)
    out, err = await done.communicate()
    assert done.returncode is not None
    return done.returncode, out.decode(), err.decode()


LIVE = """
[pipeline]
name = "p"
state = "state"

[server]
listen = "127.0.0.1:{port}"
token = "${{TEST_TOKEN:-may do all}}"

[sources.in]
type = "http"
key = "id"
fields = {{ value = "float" }}

[sinks.local]
type = "query_server"
inputs = ["in"]
"""
BEARER = {"Authorization": "Bearer may do all"}
ASKING = ("reload", "reload --plan", "graph --live", "health", "dead replay --all", "forget a")


async def test_of_a_running_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What asks it is 0, and so is what looks at its state beside it; a wrong token is 1, and said to be that."""
    monkeypatch.chdir(tmp_path)
    port = free_port()
    file = tmp_path / "pipeline.toml"
    file.write_text(LIVE.format(port=port))
    async with aiohttp.ClientSession(headers=BEARER) as http, Device(file, port) as device:
        await device.start(http)
        async with http.post(device.url + "/data", json={"id": "a", "value": 1}) as answer:
            assert answer.status == 201
        for line in (*ASKING, "query in", "dead", "doctor", "backup --to copy", "test", "check"):
            status, out, err = await headwater(*line.split())
            assert (status, err) == (0, ""), line
            assert out, line
        assert (await headwater("restore", "--from", "copy"))[0] == 2
        assert (await headwater("run"))[0] == 3
        (tmp_path / "other.toml").write_text(LIVE.format(port=port).replace("may do all", "may do nothing"))
        for line in ASKING:
            if line != "health":  # which is open to all
                first, *rest = line.split()
                given = {"dead": ["replay", "other.toml", "--all"], "forget": [*rest, "other.toml"]}
                words = [first, *given.get(first, ["other.toml", *rest])]
                status, out, err = await headwater(*words)
                assert (status, out) == (1, ""), line
                assert "answers 401" in err
                assert "the token that other.toml gives under [server] is not the one" in err
                assert "may do" not in err
        assert await device.end() == 0


async def test_live_rates_at_a_terminal_go_on_until_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    port = free_port()
    file = tmp_path / "pipeline.toml"
    file.write_text(LIVE.format(port=port))
    async with aiohttp.ClientSession(headers=BEARER) as http, Device(file, port) as device:
        await device.start(http)
        ours, theirs = os.openpty()
        process = await asyncio.create_subprocess_exec(
            *HEADWATER, "graph", "--live", env=ENVIRONMENT, stdout=theirs, stderr=asyncio.subprocess.PIPE
        )
        os.close(theirs)
        seen = b""
        while b"Ctrl-C ends" not in seen:
            seen += await asyncio.to_thread(os.read, ours, 1000)
        process.send_signal(signal.SIGINT)
        assert (await process.communicate())[1] == b""
        assert process.returncode == 0
        os.close(ours)
        assert await device.end() == 0


async def test_what_has_no_server_is_told_so(folder: Path) -> None:
    """Nothing could ever answer: that is no matter of starting it."""
    file = folder / "pipeline.toml"
    file.write_text(file.read_text().replace('type = "query_server"', 'type = "file"\npath = "out.ndjson"'))
    for line in ("reload", "graph --live"):
        status, _, err = await headwater(*line.split())
        assert status == 1
        assert "pipeline.toml has no query_server" in err
        assert "Start it with" not in err
