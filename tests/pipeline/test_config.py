"""What reading a pipeline file promises: typed settings from a good one, every mistake of a bad one, in one run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.clock import VirtualClock
from pipeline.config import Config, load, loads
from pipeline.frame import KeyTable
from pipeline.graph import Graph
from pipeline.problem import ConfigError
from pipeline.quantity import Duration, Secret, duration

pytestmark = pytest.mark.usefixtures("plugin")

GOOD = """
[pipeline]
name = "greenhouse"

[sources.house]
type = "made"
url = "made://here"
fields = { value = "float" }

[operators.valid]
type = "sieve"
input = "house"
where = "value > 3"

[sinks.cloud]
type = "upload"
inputs = ["valid", "house.invalid"]
url = "http://there"
"""

AS = 'write it as "500 ms", "10 s", "2 min", "1 h" or "7 d"'
FILE = Path("/garden/pipeline.toml")


def read(text: str, **environ: str) -> Config:
    return loads(text, FILE, environ)


def found(text: str, **environ: str) -> list[str]:
    """`line: path: text` of each problem, the graph's included."""
    config = read(text, **environ)
    graph = Graph(config, KeyTable(), VirtualClock())
    problems = sorted(set(config.problems) | set(graph.problems))
    return [problem.show(FILE).removeprefix(f"{FILE}:") for problem in problems]


def changed(old: str, new: str) -> str:
    """The good file with one thing changed."""
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_a_good_file() -> None:
    """Nodes stand after those that they read; settings are typed, defaults filled in, paths start at the file."""
    config = read(GOOD)
    assert config.problems == []
    assert list(config.nodes) == ["house", "valid", "cloud"]
    assert config.nodes["cloud"].inputs == ("valid", "house.invalid")
    assert config.nodes["cloud"].settings.batch.wait == duration("5 s")
    assert config.nodes["valid"].path == ("operators", "valid")
    assert config.text == GOOD
    assert config.pipeline.state == Path("/garden/var/greenhouse")
    assert config.pipeline.disorder == duration("1 s")
    assert config.server.address() == ("127.0.0.1", 8080)


def test_nodes_may_stand_in_any_order() -> None:
    first = '[operators.last]\ntype = "sieve"\ninput = "valid"\nwhere = "value"\n'
    assert list(read(first + GOOD).nodes) == ["house", "valid", "last", "cloud"]


def test_relative_state_starts_at_the_file_and_an_absolute_one_stays() -> None:
    assert read(changed('name = "greenhouse"', 'name = "g"\nstate = "s"')).pipeline.state == Path("/garden/s")
    assert read(changed('name = "greenhouse"', 'name = "g"\nstate = "/s"')).pipeline.state == Path("/s")


# --- one mistake each -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("[pipeline]", "[pipelin]", '2: pipelin: unknown table "pipelin" (did you mean "pipeline"?)'),
        ("[pipeline]", "lost = 1\n[pipeline]", '2: lost: unknown setting "lost"'),
        ('name = "greenhouse"', "", '2: pipeline: the setting "name" is missing'),
        ('name = "greenhouse"', 'name = "a/b"', "3: pipeline.name: must match ^[A-Za-z0-9_][A-Za-z0-9_-]*$"),
        ('"greenhouse"', '"g"\nidle = 3', '4: pipeline.idle: expected text such as "10 s", got a whole number'),
        (
            '"greenhouse"',
            '"g"\nidle = "3 m"',
            f'4: pipeline.idle: "3 m" is not a duration; {AS} (did you mean "3 min"?)',
        ),
        ('"greenhouse"', '"g"\nmax_keys = 0', "4: pipeline.max_keys: must be at least 1"),
        ('"greenhouse"', '"g"\nmax_keys = true', "4: pipeline.max_keys: expected a whole number, got true or false"),
        (
            '"greenhouse"',
            '"g"\ndurability = "proces"',
            '4: pipeline.durability: expected "power", "process" or "none", got "proces" (did you mean "process"?)',
        ),
        ('type = "made"', 'type = "mad"', '6: sources.house.type: there is no source "mad" (did you mean "made"?)'),
        ('type = "made"', "", '5: sources.house: the setting "type" is missing'),
        ('type = "made"', 'tpye = "made"', '6: sources.house.tpye: unknown setting "tpye" (did you mean "type"?)'),
        ('type = "made"', "type = 3", "6: sources.house.type: expected the name of a type"),
        ('type = "made"', 'type = "made"\ninput = "x"', "7: sources.house.input: a source has no input"),
        ('url = "made://here"', "", '5: sources.house: the setting "url" is missing'),
        ('url = "made://here"', 'url = ""', "5: sources.house: there is no host in the url"),
        ('"made://here"', '"made://here"\nqos = 3', "8: sources.house.qos: must be at most 2"),
        (
            '"made://here"',
            '"made://here"\nquos = 1',
            '8: sources.house.quos: unknown setting "quos" (did you mean "qos"?)',
        ),
        (
            '"made://here"',
            '"made://here"\nquos = "high"',
            '8: sources.house.quos: unknown setting "quos" (did you mean "qos"?)',
        ),
        ('"float"', "3", "8: sources.house.fields.value: expected text, got a whole number"),
        (
            "[sinks.cloud]",
            '[sinks."a b"]',
            '15: sinks."a b": "a b" is not a name: use letters, digits and _, and no digit first',
        ),
        ('input = "house"', "", '10: operators.valid: the setting "input" (or "inputs") is missing'),
        (
            'input = "house"',
            'input = "house"\ninputs = ["house"]',
            "10: operators.valid: both input and inputs are given: keep one",
        ),
        (
            'input = "house"',
            'inptu = "house"',
            '12: operators.valid.inptu: unknown setting "inptu" (did you mean "input"?)',
        ),
        (
            'input = "house"',
            'input = "hause"',
            '12: operators.valid.input: there is no source or operator "hause" (did you mean "house"?)',
        ),
        (
            'input = "house"',
            'input = ["house"]',
            "12: operators.valid.input: expected one name; several go into inputs",
        ),
        ('input = "house"', "inputs = []", "12: operators.valid.inputs: expected a list of names"),
        (
            'input = "house"',
            'inputs = [\n"house",\n"house"]',
            '14: operators.valid.inputs[1]: "house" is named twice',
        ),
        (
            'input = "house"',
            'input = "cloud"',
            '12: operators.valid.input: "cloud" is a sink: nothing comes out of it',
        ),
        ('input = "house"', 'input = "valid"', "12: operators.valid.input: a cycle: valid -> valid"),
        ("value > 3", "valu > 3", '13: operators.valid.where: "valu > 3" names no field'),
        (
            'type = "sieve"\ninput = "house"',
            'type = "absent"\ninput = "house"',
            (
                '11: operators.valid.type: "absent" of headwater-parts 1 cannot be loaded '
                "(it needs no_such_library): pip install headwater-parts brings what it needs"
            ),
        ),
        ('type = "sieve"', 'type = "sieve"\nenabled = "yes"', "12: operators.valid.enabled: expected true or false"),
        ("[sinks.cloud]", "[sinks.valid]", '15: sinks.valid: the name "valid" is taken by operators.valid'),
        (
            '"http://there"',
            '"x"\nretry = "soon"',
            '19: sinks.cloud.retry: expected "never" or text such as "10 s", got "soon"',
        ),
        ('"http://there"', '"x"\ncodes = [1, "2"]', "19: sinks.cloud.codes[1]: expected a whole number, got text"),
        ('"http://there"', '"x"\nbatch = 3', "19: sinks.cloud.batch: expected a table, got a whole number"),
        ('"http://there"', '"x"\nheaders = { a.b = "c" }', "19: sinks.cloud.headers.a: expected text, got a table"),
        (
            '"http://there"',
            '"x"\n[sinks.cloud.buffer]\nsize = "3"\n',
            '20: sinks.cloud.buffer.size: "3" is not a size; write it as "100 MB" or "64 MiB"',
        ),
        (
            '"http://there"',
            '"x"\nby_level.high = { rows = 0 }',
            "19: sinks.cloud.by_level.high.rows: must be at least 1",
        ),
        ('"http://there"', '"x"\n[test]\nname = "t"', "19: test: write each test as a table of its own: [[test]]"),
        ('"http://there"', '"x"\n[sinks]\nbare = 3', None),
        ('"http://there"', '"x"\n[server]\nlisten = "8080"', None),
        (
            '"http://there"',
            '"x"\n[server]\nlisten = "0.0.0.0:80"',
            "20: server.listen: 0.0.0.0 is open to the network: set token or tls, or insecure = true",
        ),
        (
            '"http://there"',
            '"x"\n[server]\ntls = { certificate = "c" }',
            '20: server.tls: the setting "key" is missing',
        ),
    ],
)
def test_one_mistake_is_one_problem(old: str, new: str, problem: str | None) -> None:
    """With its line, its place and the way out; and nothing else is said because of it."""
    problems = found(changed(old, new))
    assert len(problems) == 1, problems
    if problem is not None:
        assert problems == [problem]


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:8080", "localhost:80", "127.9.9.9:1"])
def test_loopback_needs_no_protection(listen: str) -> None:
    assert found(GOOD + f'[server]\nlisten = "{listen}"') == []


@pytest.mark.parametrize("listen", ["0.0.0.0:80", ":80", "[::]:80", "box:80"])
@pytest.mark.parametrize("guard", ['token = "t"', 'tls = {certificate = "c", key = "k"}', "insecure = true", ""])
def test_another_address_needs_protection(listen: str, guard: str) -> None:
    assert len(found(GOOD + f'[server]\nlisten = "{listen}"\n{guard}')) == (0 if guard else 1)


@pytest.mark.parametrize(
    "host",
    ["my box", " 127.0.0.1", "127.0.0.1 ", "a\\tb", "256.0.0.1", "1.2.3", "1.2.3.4.5", "[::g]", "[127.0.0.1]", "[]", "[fe80::1%]",
     "-box", "box-", "a..b", ".a", "a/b", "http//a", "a,b", "a*", "a@b", "b" * 64, "a." * 130 + "a", "\u2028"],
)  # fmt: skip
def test_a_host_that_cannot_be(host: str) -> None:
    """It is told with its line, and nothing else is."""
    (told,) = found(GOOD + f'[server]\nlisten = "{host}:80"\ninsecure = true\n')
    assert told.startswith("20: server.listen: ")
    assert "is neither an IP address nor a host name" in told
    assert 'write "127.0.0.1:80"' in told


@pytest.mark.parametrize(
    "host", ["box", "box.local.", "a-b.c1", "x_y", "bücher.example", "[fe80::1%eth0]", "10.0.0.7", "[::]", "", "7a"]
)
def test_a_host_that_can_be(host: str) -> None:
    assert found(GOOD + f'[server]\nlisten = "{host}:80"\ninsecure = true\n') == []


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.0.0.1:", ":port", "::1:80", "a:65536", "a:-1", "a:²"])
def test_not_an_address(listen: str) -> None:
    assert len(found(GOOD + f'[server]\nlisten = "{listen}"\ninsecure = true')) == 1


def test_files_of_tls_start_at_the_file() -> None:
    tls = read(GOOD + '[server]\ntls = { certificate = "c.pem", key = "/k.pem" }').server.tls
    assert tls is not None
    assert (tls.certificate, tls.key) == (Path("/garden/c.pem"), Path("/k.pem"))


# --- many mistakes --------------------------------------------------------------------------------------------------


def test_all_mistakes_in_one_run() -> None:
    """None hides another: neither within a table nor along the graph, nor what only components know."""
    text = """
[pipeline]
name = "greenhouse"
disorder = "one second"

[sources.house]
type = "made"
urll = "made://here"
qos = "high"
fields = { value = "float" }

[operators.valid]
type = "seive"
input = "huose"
where = "valeu > 3"
wait = 3

[operators.round]
type = "shapes"
input = "valid"
shape = "rond"
radius = "wide"

[sinks.cloud]
type = "upload"
inputs = ["valid", "nowhere"]
buffer = { when_full = "explode", size = "1 acre" }

[[tests]]
"""
    assert found(text) == [
        '4: pipeline.disorder: "one second" is not a duration; write it as "500 ms", "10 s", "2 min", "1 h" or "7 d"',
        '8: sources.house.urll: unknown setting "urll" (did you mean "url"?)',
        "9: sources.house.qos: expected a whole number, got text",
        '13: operators.valid.type: there is no operator "seive" (did you mean "sieve"?)',
        '14: operators.valid.input: there is no source or operator "huose" (did you mean "house"?)',
        '15: operators.valid.where: "valeu > 3" names no field',
        '16: operators.valid.wait: expected text such as "10 s", got a whole number',
        '21: operators.round.shape: expected "round" or "square", got "rond" (did you mean "round"?)',
        "22: operators.round.radius: expected a number, got text",
        '24: sinks.cloud: the setting "url" is missing',
        '26: sinks.cloud.inputs[1]: there is no source or operator "nowhere"',
        '27: sinks.cloud.buffer.size: "1 acre" is not a size; write it as "100 MB" or "64 MiB"',
        '27: sinks.cloud.buffer.when_full: expected "thin", "drop_oldest" or "block", got "explode"',
        '29: tests: unknown table "tests" (did you mean "test"?)',
    ]


def test_a_cycle_is_named_once_and_hides_nothing() -> None:
    operators = "".join(
        f'[operators.{name}]\ntype = "sieve"\ninputs = {reads}\nwhere = "value"\nwait = 1\n'
        for name, reads in [("a", ["c"]), ("b", ["a", "house"]), ("c", ["b"]), ("after", ["c"]), ("d", ["d"])]
    )
    problems = found(GOOD + operators)
    assert [p.partition(": ")[2] for p in problems if "cycle" in p] == [
        "operators.a.inputs: a cycle: a -> b -> c -> a",
        "operators.d.inputs: a cycle: d -> d",
    ]
    assert len(problems) == 2 + 5
    assert len(read(GOOD + operators).problems) == len(problems)


def test_a_guess_makes_no_cycle() -> None:
    """What was most likely meant is taken to find more, and never blamed."""
    operators = "".join(
        f'[operators.{name}]\ntype = "sieve"\ninput = "{read}"\nwhere = "value"\n'
        for name, read in [("alpha", "betta"), ("beta", "alpha")]
    )
    assert found(GOOD + operators) == [
        '21: operators.alpha.input: there is no source or operator "betta" (did you mean "beta"?)'
    ]


def test_a_long_chain() -> None:
    """As deep as one likes, and declared from the last to the first."""
    chain = [f'[operators.n{i}]\ntype = "sieve"\ninput = "n{i - 1}"\nwhere = "value"\n' for i in range(1, 1200)]
    chain[0] = chain[0].replace("n0", "house")
    config = read(GOOD + "".join(reversed(chain)))
    assert config.problems == []
    assert [n for n in config.nodes if n.startswith("n")] == [f"n{i}" for i in range(1, 1200)]


def test_what_could_not_be_understood_blames_nobody_else() -> None:
    """A source without known fields: those that read it are not told that their fields are unknown."""
    assert len(found(changed('fields = { value = "float" }', "fields = 3"))) == 1
    assert len(found(changed('type = "made"', 'type = "zzzz"'))) == 1
    both = '[sources.other]\ntype = "made"\nurl = "x"\nfields = 3\n[operators.both]\ntype = "sieve"\n'
    assert len(found(GOOD + both + 'inputs = ["other", "house"]\nwhere = "only_in_other"\n')) == 1


def test_of_two_nodes_of_a_name_the_first_has_it() -> None:
    nodes = read(changed("[sinks.cloud]", "[sinks.valid]")).nodes
    assert {name: node.kind for name, node in nodes.items()} == {"house": "source", "valid": "operator"}


def test_text_that_is_not_toml() -> None:
    """The line, and nothing more: what the rest would mean is anybody's guess."""
    with pytest.raises(ConfigError) as raised:
        read("[pipeline]\nname = greenhouse\n")
    assert str(raised.value) == f"{FILE}:2: not valid TOML, column 8: Invalid value"
    with pytest.raises(ConfigError) as raised:
        read('[pipeline]\nname = "greenhouse"\n\ntitle = """unfinished\n')
    assert [problem.line for problem in raised.value.problems] == [4]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_bytes(b"[pipeline]\n# gr\xfcn\n")
    with pytest.raises(ConfigError, match=r"pipeline\.toml:2: is not UTF-8 text"):
        load(tmp_path / "pipeline.toml")
    with pytest.raises(ConfigError, match=r"cannot be read: No such file .* \(did you mean .*pipeline\.toml"):
        load(tmp_path / "pipline.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_byte_order_mark_and_other_line_ends(tmp_path: Path) -> None:
    """Editors on Windows leave both."""
    file = tmp_path / "pipeline.toml"
    file.write_bytes(b"\xef\xbb\xbf" + changed("value > 3", "valu > 3").replace("\n", "\r\n").encode())
    config = load(file)
    assert [p.line for p in Graph(config, KeyTable(), VirtualClock()).problems] == [13]


def test_a_place_as_the_component_names_it() -> None:
    """Its settings by dots, elements by number; `inputs` also where it is written `input`."""
    config = read(changed('"http://there"', '"x"\nanything = [\n  1,\n  { 0 = "a" },\n]\n'))
    places = [config.problem(("sinks", "cloud", "anything", *more), "x") for more in ((), ("1",), ("1", "0"), ("7",))]
    assert [place.line for place in places] == [19, 21, 21, 19]
    assert places[2].path == ("sinks", "cloud", "anything", 1, "0")
    assert config.problem(("operators", "valid", "inputs"), "x")[:2] == (12, ("operators", "valid", "input"))


# --- disabled nodes -------------------------------------------------------------------------------------------------


def test_a_disabled_node_is_not_there() -> None:
    """Nothing of it is checked, and inputs that name it are left out."""
    config = read(GOOD + '[sinks.other]\nenabled = false\ntype = "nonsense"\ninput = "nothing"\nkey = "${UNSET}"\n')
    assert config.problems == []
    assert "other" not in config.nodes
    config = read(changed("[operators.valid]", "[operators.valid]\nenabled = false"))
    assert config.nodes["cloud"].inputs == ("house.invalid",)


def test_a_node_that_loses_all_its_inputs_is_a_problem() -> None:
    """It would do nothing, silently."""
    text = GOOD.replace('inputs = ["valid", "house.invalid"]', 'inputs = ["valid"]')
    text = text.replace("[operators.valid]", "[operators.valid]\nenabled = false")
    assert found(text) == ["18: sinks.cloud.inputs: all that it reads is disabled: disable it as well"]


def test_without_a_source_there_is_nothing_to_do() -> None:
    assert found('[pipeline]\nname = "p"\n') == ["1: there are no sources: add a [sources.NAME]"]


# --- the environment ------------------------------------------------------------------------------------------------


def test_variables() -> None:
    """In texts at any depth, with a default, several in one; `$$` keeps the text."""
    text = changed('"http://there"', '"${HOST:-http://there}/${PATH_}"\nheaders = {a = "$${HOST}", b = "${E:-}$5 {x}"}')
    settings = read(text, HOST="http://here", PATH_="api", E="").nodes["cloud"].settings
    assert settings.url == "http://here/api"
    assert settings.headers == {"a": "${HOST}", "b": "$5 {x}"}
    assert read(text, PATH_="api").nodes["cloud"].settings.url == "http://there/api"


def test_an_unset_variable_is_named() -> None:
    """And what is put in its place is not complained about."""
    retry, wait = found(changed('"http://there"', '"x"\nretry = "${RETRY}"\nbatch = {wait = "${A} ${B}"}'))
    assert "19: sinks.cloud.retry: the environment variable RETRY is not set" in retry
    assert "20: sinks.cloud.batch.wait: the environment variables A, B are not set" in wait


def test_an_unset_token_opens_no_second_problem() -> None:
    problems = found(GOOD + '[server]\nlisten = "0.0.0.0:80"\ntoken = "${UNSET}"')
    assert len(problems) == 1
    assert "variable UNSET is not set" in problems[0]


def test_an_empty_token_is_none() -> None:
    """An empty bearer token would be a lock that opens to everybody."""
    assert read(GOOD + '[server]\ntoken = "${T:-}"').server.token is None
    assert len(found(GOOD + '[server]\nlisten = "0.0.0.0:80"\ntoken = "${T:-}"')) == 1


def test_a_secret_is_never_shown() -> None:
    """Neither in settings as shown, nor in any message, be it mistyped, misplaced or quoted from the environment."""
    config = read(changed('"http://there"', '"http://there"\ntoken = "${T}"'), T="hush-hush")
    token = config.nodes["cloud"].settings.token
    assert token == Secret("hush-hush")
    assert token.reveal() == "hush-hush"
    assert "hush" not in repr(config.nodes) + repr(config)
    for setting in ('token = ["hush-hush"]', 'tokn = "hush-hush"', 'batch = {wait = "${T}"}', 'retry = "${T}"'):
        problems = found(changed('"http://there"', f'"x"\n{setting}'), T="hush-hush")
        assert len(problems) == 1
        assert "hush" not in problems[0]
    (problem,) = found(changed("value > 3", "${T} > 3"), T="hush-hush")
    assert '"${T} > 3" names no field' in problem


# --- what it costs --------------------------------------------------------------------------------------------------


def test_a_good_file_pays_nothing_for_messages(tmp_path: Path) -> None:
    """Neither the position scanner nor difflib is imported."""
    (tmp_path / "pipeline.toml").write_text(GOOD)
    code = (
        "import sys, pathlib; from pipeline.config import load;"
        f"config = load(pathlib.Path({str(tmp_path / 'pipeline.toml')!r}));"
        "assert config.nodes and not config.problems;"
        "print(sorted({'difflib', 'pipeline.positions', 'aiohttp', 'reactivex'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    paths = f"{root}:{Path(__file__).parent / 'plugin'}"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": paths}, check=False
    )
    assert (run.stdout, run.stderr) == ("[]\n", "")


def test_durations_are_nanoseconds() -> None:
    assert read(changed('"greenhouse"', '"g"\ncommit = "1.5 s"')).pipeline.commit == Duration(1_500_000_000)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('read_token = "r"', "set token, too"),
        ('token = "t"\nread_token = "t"', "is the same as token"),
        ('cors = ["*"]', "is not an origin"),
        ('cors = ["https://a.example/"]', "is not an origin"),
        ('cors = ["a.example"]', "is not an origin"),
        ("max_rate = 0", "must be more than 0"),
    ],
)
def test_who_may_use_the_server(setting: str, said: str) -> None:
    (problem,) = found(GOOD + f"[server]\n{setting}")
    assert said in str(problem)


def test_what_opens_the_server_to_others() -> None:
    server = read(GOOD + '[server]\ntoken = "t"\nread_token = "r"\ncors = ["https://a.example:1"]\nmax_rate = 5').server
    assert (server.read_token, server.cors, server.max_rate) == (Secret("r"), ("https://a.example:1",), 5)


SECRETIVE = """
[pipeline]
name = "p"
[server]
token = "id"  # as short as a name
read_token = '${READ:-hush-read}'
[sources.s]
type = "http"
key = "id"
fields = { v = "float" }
[sinks.cloud]
type = "cloud"
input = "s"
url = "http://me:hush-url@there"
token = "${T}"
headers = { "X-Key" = "hush-\\u0041", Other = '''hush-other''' }
[sinks.off]
type = "cloud"
enabled = false
input = "s"
url = "http://there"
token = "hush-off"
"""


def test_the_journal_keeps_the_text_without_what_is_secret() -> None:
    """And yet the text makes the same graph; what stands in the environment stays a name."""
    config = read(SECRETIVE, T="hush-env")
    assert config.problems == []
    kept = config.kept_text
    assert "hush" not in kept
    assert 'token = "*** token"  # as short as a name' in kept
    assert 'key = "id"' in kept
    assert "${T}" in kept
    assert "http://me:***@there" in kept
    again = read(kept, T="x")
    assert again.problems == []
    assert again.kept_text == kept
    assert kept.count("\n") == SECRETIVE.count("\n")
    assert read(GOOD).kept_text == GOOD
