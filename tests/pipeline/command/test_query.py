"""`headwater query` over the state folder that a pipeline has left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import arrow
from pipeline.command.__main__ import main

PIPELINE = """
[pipeline]
name = "asked"
state = "state"

[sources.readings]
type = "file"
path = "in.csv"
format = "csv"
key = "id"
time = "ts"
time_unit = "s"
fields = { value = "float", note = "string?" }

[operators.minutes]
type = "window"
input = "readings"
size = "1 min"
aggregate = { n = "count()" }

[sinks.local]
type = "query_server"
inputs = ["readings", "minutes"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "pipeline.toml"
    place.write_text(PIPELINE)
    lines = [f"{'ab'[i % 2]},{1_769_860_800 + i},{i}.5," for i in range(300)]
    (tmp_path / "in.csv").write_text("id,ts,value,note\n" + "\n".join(lines) + "\n")
    return place


@pytest.fixture
def ran(file: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["run", str(file)]) == 0
    capsys.readouterr()
    return file


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["query", *words]) == 0
    return capsys.readouterr().out


def test_the_newest_rows_as_a_table(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, "readings", str(ran)).splitlines()
    assert len(lines) == 101
    assert lines[0].split() == ["id", "time", "value", "note"]
    assert lines[-1].split() == ["b", "2026-01-31T12:04:59.000Z", "299.5"]


def test_a_span_of_a_key(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    span = ["--from", "2026-01-31T12:00:01Z", "--to", "1769860805", "--key", "b", "--fields", "value"]
    assert told(capsys, "readings", str(ran), *span, "--format", "csv") == (
        "id,time,value\nb,2026-01-31T12:00:01.000Z,1.5\nb,2026-01-31T12:00:03.000Z,3.5\n"
    )


def test_a_span_up_to_now(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A time before now begins like an option, and is none."""
    assert told(capsys, "readings", str(ran), "--to", "-1h", "--from", "-9999d", "--limit", "1000").count("\n") == 301


def test_a_chart(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, "readings", str(ran), "--key", "a", "--points", "8", "--format", "json"))
    assert [row["value"] for row in found["rows"]] == [0.5, 148.5, 150.5, 298.5]


def test_sql(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = "SELECT id, sum(n) AS n FROM minutes GROUP BY id ORDER BY id"
    assert told(capsys, "--sql", question, str(ran)) == "id    n\na   150\nb   150\n"
    assert told(capsys, "--sql", "SELECT 1 AS one WHERE 0", str(ran)) == "one\nno rows\n"
    assert main(["query", "--sql", "SELECT id FROM readings", "--limit", "2", str(ran)]) == 0
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), "more rows" in err) == (3, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a STREAM"),
        (["a", "b", "c"], "give a STREAM"),
        (["reading"], 'did you mean "readings"'),
        (["readings", "--fields", "vale"], 'did you mean "value"'),
        (["readings", "--from", "yesterday"], "--from"),
        (["readings", "--limit", "0"], "--limit"),
        (["--sql", "DROP TABLE readings"], "only questions"),
    ],
)
def test_what_cannot_be_answered(
    words: list[str], said: str, ran: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ran.parent)
    assert main(["query", *words]) == 2
    assert said in capsys.readouterr().err


def test_nothing_has_run_yet(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "readings", str(file)]) == 3
    assert "nothing has run" in capsys.readouterr().err
    assert not (file.parent / "state").exists()


def test_as_arrow(file: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream's rows have the kinds that it says, also where all are missing; an answer to SQL those that are seen."""
    pyarrow = pytest.importorskip("pyarrow")
    assert main(["run", str(file)]) == 0
    capfdbinary.readouterr()
    assert main(["query", "readings", str(file), "--limit", "2", "--format", "arrow"]) == 0
    table = pyarrow.ipc.open_stream(capfdbinary.readouterr().out).read_all()
    assert table["value"].to_pylist() == [298.5, 299.5]
    assert str(table.schema.field("note").type) == "string"
    assert table["note"].to_pylist() == [None, None]
    assert main(["query", "--sql", "SELECT count(*) AS n FROM readings", str(file), "--format", "arrow"]) == 0
    assert pyarrow.ipc.open_stream(capfdbinary.readouterr().out).read_all().to_pylist() == [{"n": 300}]
    monkeypatch.setattr(arrow, "is_there", lambda: False)
    assert main(["query", "readings", str(file), "--format", "arrow"]) == 2
    assert b'pip install "headwater[arrow]"' in capfdbinary.readouterr().err
