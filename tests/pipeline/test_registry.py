"""Finding components: the file name is the type, others come by entry points, and only what is used is imported."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import registry
from pipeline.component import Context, Operator, ReadingSettings, Settings
from pipeline.frame import KeyTable

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("plugin")


def codec(
    format_: str | dict[str, Any], media_type: str | None = None, context: Context | None = None
) -> Any:  # the codec has attributes of its own
    settings = ReadingSettings(format=format_, fields={"value": "float"})
    return registry.codec_for(settings, context or Context("test", KeyTable()), media_type)


def name(found: Any) -> str | None:
    return None if found is None else type(found).__name__


def test_a_built_in_component() -> None:
    component, settings = registry.find("operator", "filter")
    assert (component.__name__, settings.__name__) == ("Filter", "FilterSettings")


def test_every_component_is_found_with_its_settings() -> None:
    for kind in ("source", "operator", "sink"):
        for type_ in registry.types(kind):
            if type_ != "absent":
                component, settings = registry.find(kind, type_)
                assert issubclass(component, registry.BASES[kind])
                assert settings is not Settings


def test_a_component_of_somebody_else() -> None:
    component, settings = registry.find("sink", "upload")
    assert (component.__module__, settings.__name__) == ("headwater_parts", "UploadSettings")


def test_names_are_listed_without_importing() -> None:
    """Built-in ones and others; what begins with _ is none."""
    sys.modules.pop("headwater_parts_extra", None)
    assert {"filter", "window", "alert", "sieve", "absent"} <= set(registry.types("operator"))
    assert "headwater_parts_extra" not in sys.modules


@pytest.mark.parametrize("type_", ["fliter", "../filter", "_private", "a.b", "", "1"])
def test_an_unknown_type(type_: str) -> None:
    with pytest.raises(registry.UnknownType, match="there is no operator"):
        registry.find("operator", type_)


def test_an_unknown_type_says_what_was_meant() -> None:
    with pytest.raises(registry.UnknownType, match=r'did you mean "filter"\?') as raised:
        registry.find("operator", "fliter")
    assert raised.value.near == "filter"
    with pytest.raises(registry.UnknownType, match="there are: absent, alert, "):
        registry.find("operator", "qqqq")


def test_the_parameter_settings_may_be_any_of_several_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the hints beside it need not exist when it runs."""
    (tmp_path / "headwater_odd.py").write_text(
        "from __future__ import annotations\n"
        "from pipeline.component import Operator, Settings\n"
        "class Base(Operator): pass\n"
        "class Odd(Base):\n"
        "    def __init__(self, settings: Mine, context: OnlyForTypeCheckers) -> None: ...\n"
        "class _Hidden(Operator): pass\n"
        "class Mine(Settings): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    headwater_odd = importlib.import_module("headwater_odd")

    assert registry._class("operator", headwater_odd) is headwater_odd.Odd
    assert registry._settings(headwater_odd.Odd) is headwater_odd.Mine
    assert registry._settings(Operator) is Settings


# --- codecs ---------------------------------------------------------------------------------------------------------


def test_the_codec_of_a_format() -> None:
    assert name(codec("json")) == "Json"
    assert codec({"type": "lines", "comment": "#"}).options == {"comment": "#"}


@pytest.mark.parametrize(
    "media_type",
    [None, "", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain; charset=utf-8"],
)
def test_a_sender_that_does_not_say_means_the_format_of_the_source(media_type: str | None) -> None:
    assert codec({"type": "lines", "comment": "#"}, media_type).options == {"comment": "#"}


def test_a_content_type_chooses() -> None:
    """Case and parameters do not matter; options are those of the source's own format only."""
    assert name(codec("lines", "Application/JSON; charset=utf-8")) == "Json"
    assert name(codec("lines", "application/x-ndjson")) == "Json"
    assert codec("json", "text/x-lines").options == {}
    assert codec({"type": "json", "lines": False}, "text/x-lines").options == {}
    assert codec({"type": "lines", "comment": "#"}, "text/x-lines").options == {"comment": "#"}


def test_of_two_codecs_for_a_content_type_the_format_of_the_source_wins() -> None:
    assert name(codec("lines", "text/x-lines")) == "Lines"
    assert name(codec("more_lines", "text/x-lines")) == "MoreLines"


@pytest.mark.parametrize("media_type", ["image/png", "text/unfinished", "json"])
def test_a_content_type_that_nobody_reads(media_type: str) -> None:
    """Is no problem of the pipeline file."""
    context = Context("test", KeyTable())
    assert codec("json", media_type, context) is None
    assert context.problems == []


@pytest.mark.parametrize(
    ("format_", "text"),
    [
        ("jsn", 'there is no codec "jsn" (did you mean "json"?)'),
        ({"comment": "#"}, 'a table needs a type: { type = "csv", … }'),
        ({"type": "lines", "x": 1}, "unknown option x"),
        ({"type": "lines", "comment": ""}, "comment is empty"),
    ],
)
def test_a_wrong_format_is_a_problem_of_the_setting(format_: str | dict[str, Any], text: str) -> None:
    context = Context("test", KeyTable())
    codec(format_, context=context)
    assert context.problems == [("format", text)]
