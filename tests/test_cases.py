"""Pipelines as users would run them, each with its input and the rows that must come out. A case is data.

    cases/NAME.toml                          the pipeline; its first comment says what it shows
    cases/NAME.in.ndjson                     what it reads (any file whose name begins with NAME.)
    cases/NAME.SINK.expect.ndjson            the rows of a file sink: only the fields that are named are compared

null stands for what is missing; `start`, `end`, `time` and `since` are instants (numbers are ms), other numbers are
compared to 9 digits. Comments in the pipeline file:

    # order SINK: exact        these rows in this order, and no others: so unless it says
    # order SINK: keys FIELD   the same within each value of FIELD
    # order SINK: any          in any order
    # order SINK: first FIELD  as keys, and further rows of each value may follow
    # status 2                 it is refused, and nothing is written
    # break: OLD => NEW        of a file with [[test]] blocks: with this in its place they must fail

A folder `shared/cases` beside the checkout, or beside the folder that it lies in, holds more of the same kind.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from pipeline.command.__main__ import main
from pipeline.problem import ConfigError
from pipeline.run import Pipeline, check
from pipeline.times import instant

ROOT = Path(__file__).parent.parent
FOLDERS = [ROOT / "tests" / "cases", *(above / "shared" / "cases" for above in (ROOT.parent, ROOT.parent.parent))]
INSTANTS = ("start", "end", "time", "since")
Row = dict[str, Any]


def found() -> list[Any]:
    files = {file.stem: file for folder in reversed(FOLDERS) for file in sorted(folder.glob("*.toml"))}
    return [pytest.param(file, id=name) for name, file in files.items()]


@pytest.mark.parametrize("file", found())
def test_case(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the case says must come out does come out."""
    text = file.read_text()
    for other in file.parent.glob(f"{file.stem}.*"):
        if ".expect." not in other.name:
            shutil.copyfile(other, tmp_path / other.name)
    if "test" in tomllib.loads(text):
        monkeypatch.chdir(tmp_path)
        _blocks(tmp_path / file.name, text)
    elif re.search(r"^# status 2", text, re.MULTILINE):
        with pytest.raises(ConfigError):
            check(tmp_path / file.name)
    else:
        asyncio.run(Pipeline(*check(tmp_path / file.name)).run())
        _written(file, text, tmp_path)


def _blocks(copy: Path, text: str) -> None:
    assert main(["test", copy.name]) == 0
    body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for old, new in re.findall(r"^# break: (.*?) => (.*)$", text, re.MULTILINE):
        assert old in body, f"nothing to break: {old}"
        copy.write_text(body.replace(old, new))
        assert main(["test", copy.name]) == 1, f"not noticed: {new} for {old}"


def _written(file: Path, text: str, folder: Path) -> None:
    for name, sink in tomllib.loads(text)["sinks"].items():
        expected = file.with_name(f"{file.stem}.{name}.expect.ndjson")
        if expected.exists():
            order = re.search(rf"^# order {re.escape(name)}: (\w+) ?(\w*)", text, re.MULTILINE)
            _compare(_rows(expected), _rows(folder / sink["path"]), *(order.groups() if order else ("exact", "")))


def _rows(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines() if line] if file.exists() else []


def _compare(want: list[Row], got: list[Row], order: str, field: str) -> None:
    if order == "any":
        left = list(got)
        for row in want:
            match = next((g for g in left if _fits(row, g)), None)
            assert match is not None, f"{row} is not among {left}"
            left.remove(match)
        assert left == [], "rows that nobody expects"
    elif order in ("keys", "first"):
        wanted, came = _by(field, want), _by(field, got)
        assert order == "first" or came.keys() <= wanted.keys()
        for value, rows in wanted.items():
            _in_order(rows, came[value][: len(rows)] if order == "first" else came[value])
    else:
        assert order == "exact", f"no such order: {order}"
        _in_order(want, got)


def _by(field: str, rows: list[Row]) -> dict[Any, list[Row]]:
    parts = defaultdict(list)
    for row in rows:
        parts[row.get(field)].append(row)
    return parts


def _in_order(want: list[Row], got: list[Row]) -> None:
    for place, (row, came) in enumerate(zip(want, got, strict=False)):
        assert _fits(row, came), f"row {place}: {came} instead of {row}"
    assert len(got) == len(want), f"{len(got)} rows instead of {len(want)}: {got[len(want) :] or want[len(got) :]}"


def _fits(want: Row, got: Row) -> bool:
    return all(_same(field, value, got.get(field)) for field, value in want.items())


def _same(field: str, want: Any, got: Any) -> bool:
    if field in INSTANTS:
        want, got = _ms(want), _ms(got)
    if isinstance(want, bool) or isinstance(got, bool):
        return want is got
    if isinstance(want, int | float) and isinstance(got, int | float):
        return math.isclose(want, got, rel_tol=1e-9, abs_tol=1e-9)
    return bool(want == got)


def _ms(value: Any) -> Any:
    ns = instant(value) if isinstance(value, str) else None
    return value if ns is None else ns / 1_000_000
