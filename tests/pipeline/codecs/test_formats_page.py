"""docs/formats.md: every codec is there, its examples do what they say, and the table is that of the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pipeline import registry
from pipeline.component import Context, ReadingSettings
from pipeline.frame import KeyTable
from tests.codec import lines, make, piped, rows

PAGE = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
SECTIONS = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def block(type_: str, language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", SECTIONS[type_], re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def test_every_codec_has_its_section() -> None:
    assert list(SECTIONS) == re.findall(r"^\| `(\w+)` ", PAGE, re.MULTILINE)
    assert sorted(SECTIONS) == registry.types("codec")


@pytest.mark.parametrize("type_", SECTIONS)
def test_the_table_is_that_of_the_code(type_: str) -> None:
    made, _ = registry.find("codec", type_)
    row = re.search(rf"^\| `{type_}` \|[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|$", PAGE, re.MULTILINE)
    assert row is not None
    assert tuple(filter(None, row[1].strip().split(", "))) == made.media_types
    assert row[2].strip() == "no" if getattr(made, "alone", False) else row[2].strip() != "no"
    assert row[3].strip() == ("yes" if getattr(made, "writes", True) else "no")


@pytest.mark.parametrize("type_", SECTIONS)
def test_the_example_does_what_it_says(type_: str, tmp_path: Path) -> None:
    settings = block(type_, "toml")
    data = block(type_, "text").encode() or bytes.fromhex(block(type_, "hex"))
    wanted = lines(block(type_, "json").encode())
    if type_ == "sparkplug":
        assert decoded(settings, data) == wanted
        return
    found = lines(piped(tmp_path, settings, data))
    timed = "time" in tomllib.loads(settings)
    assert [{n: v for n, v in row.items() if timed or n != "time"} for row in found] == wanted


def decoded(settings: str, data: bytes) -> list[dict[str, Any]]:
    """What has no place in a file."""
    table = tomllib.loads(settings)
    options = table["format"]
    type_ = options.pop("type")
    codec = make(type_, table["fields"], table["key"], **options)
    return [{table["key"]: row.pop("key"), **row} for row in rows(codec, codec.decode([data]))]


def test_a_format_without_a_place_in_a_file_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="cannot be told apart in a file"):
        piped(tmp_path, 'format = "sparkplug"\nfields = { v = "float" }', b"")


@pytest.mark.parametrize(
    "media_type", ["application/msgpack", "application/cbor", "application/senml+cbor", "text/csv; charset=utf-8"]
)
def test_a_source_of_another_format_takes_it_by_its_content_type(media_type: str) -> None:
    settings = ReadingSettings(format="json", key="id", fields={"value": "float"})
    codec = registry.codec_for(settings, Context("in", KeyTable()), media_type)
    assert codec is not None
    assert media_type.partition(";")[0] in codec.media_types
    codec = registry.codec_for(settings, Context("in", KeyTable()), "application/json")
    assert codec is not None
    assert type(codec).__name__ == "Json"  # and not `path`, which reads JSON too


def test_what_only_reads_cannot_write() -> None:
    context = Context("out", KeyTable())
    assert registry.codec_for(ReadingSettings(format="sparkplug"), context, writing=True) is None
    assert context.problems == [("format", '"sparkplug" can be read, not written; write json or csv')]
