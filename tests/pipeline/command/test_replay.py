"""`headwater replay`: what it takes, what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.command.__main__ import main

PIPELINE = """
[pipeline]
name = "oven"
state = "state"

[sources.oven]
type = "file"
path = "in.csv"
format = "csv"
key = "id"
time = "ts"
time_unit = "s"
fields = { temperature = "float" }

[operators.overheat]
type = "alert"
input = "oven"
when = "temperature > 30"
clear = "temperature < 28"

[sinks.local]
type = "query_server"
inputs = ["oven", "overheat"]
"""
START = 1_769_860_800  # 2026-01-31T12:00:00Z
TEMPERATURES = [20, 31, 29, 27, 20, 33, 34, 31, 27, 20]  # one a minute


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "pipeline.toml"
    place.write_text(PIPELINE)
    lines = [f"a,{START + 60 * i},{t}" for i, t in enumerate(TEMPERATURES)]
    (tmp_path / "in.csv").write_text("id,ts,temperature\n" + "\n".join(lines) + "\n")
    return place


@pytest.fixture
def ran(file: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["run", str(file)]) == 0
    capsys.readouterr()
    return file


def told(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> list[str]:
    assert main(["replay", *words]) == status
    out, err = capsys.readouterr()
    return (out or err).splitlines()


def test_the_file_as_it_is(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, str(ran), "--fail-on-difference")
    assert lines[0].startswith("2026-01-31T12:00:00.000Z to the last: readings: 10 of oven (")
    assert lines[1:] == ["2 alerts recorded, 2 replayed: 2 the same"]


def test_what_if(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What would come, go and move; the difference is no failure unless that is asked for."""
    changed = [str(ran), "--set", "operators.overheat.when=temperature > 33"]
    assert told(capsys, *changed)[1:] == [
        "would go:",
        "  overheat  a  warning  2026-01-31T12:01:00.000Z to 2026-01-31T12:03:00.000Z, 2 min",
        "would move:",
        "  overheat  a  firing warning 2026-01-31T12:05:00.000Z -> 2026-01-31T12:06:00.000Z",
        "  overheat  a  cleared 2026-01-31T12:08:00.000Z: since 2026-01-31T12:05:00.000Z -> 2026-01-31T12:06:00.000Z",
        "2 alerts recorded, 1 replayed: 0 the same, 1 would go, 1 would move",
    ]
    told(capsys, *changed, "--fail-on-difference", status=1)
    lower = told(
        capsys, str(ran), "--set", "operators.overheat.when=temperature > 19", "--set=operators.overheat.clear=false"
    )
    assert lower[-1] == "2 alerts recorded, 1 replayed: 0 the same, 1 would move"


def test_a_candidate_of_another_name(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ran.with_name("candidate.toml")
    other.write_text(
        PIPELINE.replace("temperature < 28", "temperature < 30").replace(
            'type = "alert"', 'type = "alert"\nmessage = "hot"'
        )
    )
    lines = told(capsys, str(other))
    assert lines[-2:] == [
        "note: 1 alert would say another message",
        "2 alerts recorded, 2 replayed: 1 the same, 1 would move",
    ]


def test_for_programs(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    span = ["--from", "2026-01-31T12:02:30Z", "--to", "2026-01-31T12:07:30Z"]
    changed = ["--set", "operators.overheat.when=temperature > 33", "--format", "json"]
    found = json.loads(told(capsys, str(ran), *span, *changed)[0])
    assert (found["from"], found["to"]) == ("2026-01-31T12:02:30.000Z", "2026-01-31T12:07:30.000Z")
    assert (found["recorded"], found["replayed"], found["same"]) == (2, 1, 0)
    assert [e["rows"][0]["time"] for e in found["go"]] == ["2026-01-31T12:01:00.000Z"]
    ((move,),) = ([d["rows"] for d in found["move"]],)
    assert [(p["recorded"]["time"], p["replayed"]["time"]) for p in move] == [
        ("2026-01-31T12:05:00.000Z", "2026-01-31T12:06:00.000Z")
    ]


def test_a_sweep(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """How often it would fire, by value."""
    sweep = [str(ran), "--sweep", "operators.overheat.when=temperature > {x}"]
    lines = [line.split() for line in told(capsys, *sweep, "--values", "28..36:2")[1:]]
    assert lines[0] == ["x", "overheat", "alerts", "overheat", "a", "week"]
    assert [line[:2] for line in lines[1:]] == [
        ["28", "2"], ["30", "2"], ["32", "1"], ["34", "0"], ["36", "0"], ["recorded", "2"]
    ]  # fmt: skip
    assert float(lines[1][2]) == pytest.approx(2 * 7 * 24 * 60 / 9, rel=1e-3)
    found = json.loads(told(capsys, *sweep, "--values", "29, 33", "--format", "json")[0])
    assert [(t["x"], t["alerts"]) for t in found["tried"]] == [("29", {"overheat": 2}), ("33", {"overheat": 1})]


def test_files_in_place_of_the_history(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the source's own format or in the one that the ending says; nothing recorded: the alerts that would come."""
    lines = told(capsys, str(file), "--input", f"oven={tmp_path / 'in.csv'}")
    assert lines[1:] == [
        "  overheat  a  warning  2026-01-31T12:01:00.000Z to 2026-01-31T12:03:00.000Z, 2 min",
        "  overheat  a  warning  2026-01-31T12:05:00.000Z to 2026-01-31T12:08:00.000Z, 3 min",
        "2 alerts would come",
    ]
    rows = [{"id": "a", "ts": START + 60 * i, "temperature": t} for i, t in enumerate(TEMPERATURES)]
    other = tmp_path / "given.ndjson"
    other.write_text("\n".join(map(json.dumps, rows)) + '\n{"id": "a"}\n')
    from_json = told(capsys, str(file), "--input", f"oven={other}")
    assert from_json[1:3] == lines[1:3]
    assert from_json[3].startswith(f"note: {other}: 1 readings were refused: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "operators.overheet.when=1"], 'operators.overheet.when: there is no "operators.overheet" (did you mean'),
        (["--set", "when > 3"], "write TABLE.NAME.SETTING=VALUE"),
        (["--set", "operators.overheat.when=temprature > 3"], "pipeline.toml:18: operators.overheat.when: "),
        (["--set", "operators.overheat.wen=1"], 'unknown setting "wen"'),
        (["--sweep", "operators.overheat.when=temperature > {x}"], "--values"),
        (["--sweep", "operators.overheat.when=true", "--values", "1,2"], "write {x} where the values go"),
        (["--sweep", "operators.overheat.when=temperature > {x}", "--values", "1..9:-1"], "goes nowhere"),
        (["--input", "ovn=x.csv"], 'there is no source "ovn" (did you mean "oven"?)'),
        (["--input", "oven=missing.csv"], 'there is no file "missing.csv"'),
        (["--from", "soon"], "--from: a time such as"),
        (["--from", "2027-01-01T00:00:00Z"], "no readings lie in this span: there are some from 2026-01-31T12:00:00"),
        (["--warm-up", "long"], "--warm-up: "),
    ],
)  # fmt: skip
def test_what_cannot_be(ran: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    """Told with its place; nothing is run."""
    assert said in "\n".join(told(capsys, str(ran), *words, status=2))


def test_nothing_has_run(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no history" in told(capsys, str(file), status=3)[0]
    assert not (file.parent / "state").exists()


def test_no_alert(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran.write_text(PIPELINE.replace('type = "alert"', 'type = "alert"\nenabled = false'))
    assert "the file has no alert" in told(capsys, str(ran), status=2)[0]
