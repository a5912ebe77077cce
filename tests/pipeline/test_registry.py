"""Finding components: the file name is the type, others come by entry points, and only what is used is imported."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import registry
from pipeline.command.__main__ import main
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
    with pytest.raises(
        registry.UnknownType, match=r"there are: absent, alert, .* has to be installed first: pip install"
    ):
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
    assert registry._settings("operator", headwater_odd.Odd) is headwater_odd.Mine
    assert registry._settings("operator", Operator) is Settings


# --- what somebody else has broken ---

GOOD = """
from pipeline.component import Operator, Settings
class Mine(Operator):
    def __init__(self, settings: Settings, context):
        super().__init__(settings, context)
"""


def installed(folder: Path, name: str, *types: str) -> None:
    """A distribution whose operators are the modules `NAME_TYPE`."""
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    lines = "".join(f"{type_} = {name}_{type_}\n" for type_ in types)
    (info / "entry_points.txt").write_text(f"[headwater.operators]\n{lines}")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_library", "(it needs no_such_library): pip install other brings what it needs"),
        ("from pipeline.frame import nothing_such", "(ImportError: cannot import name 'nothing_such'"),
        ("def f(:", "(SyntaxError: "),
        ("1 / 0", "(ZeroDivisionError: division by zero): get another version of it, or pip uninstall other"),
        ("", "(UnknownType: other_torn defines 0 operators instead of one)"),
        (GOOD.replace("settings: Settings", "settings: 'Setings'"), "(NameError: name 'Setings' is not defined)"),
        (GOOD.replace("settings: Settings", "settings: int"), "(TypeError: the settings of Mine are <class 'int'>"),
        (None, "(it needs other_torn)"),
    ],
)
def test_a_broken_one_costs_only_itself(
    code: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names whose it is, wherever it is met; all others are listed, documented and checked."""
    installed(tmp_path, "other", "torn", "whole")
    (tmp_path / "other_whole.py").write_text(GOOD.replace("(Operator):", '(Operator):\n    """Whole."""'))
    if code is not None:
        (tmp_path / "other_torn.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("other_torn", "other_whole"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    said = f'"torn" of other 1.2 cannot be loaded {said}'
    with pytest.raises(registry.Unloadable) as raised:
        registry.find("operator", "torn")
    assert said in str(raised.value)
    assert main(["components"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["whole", "Whole."] in lines
    assert ["torn", '"torn"', "of", "other", "1.2"] in [line[:5] for line in lines]
    assert main(["components", "torn"]) == 0
    assert said in capsys.readouterr().out
    assert main(["schema"]) == 0
    assert '"torn"' in capsys.readouterr().out
    file = tmp_path / "pipeline.toml"
    file.write_text(
        '[pipeline]\nname = "x"\n[sources.in]\ntype = "host"\n[operators.t]\ntype = "whole"\ninput = "in"\n'
    )
    assert main(["check", str(file)]) == 0
    for type_ in ("torn", "tron"):  # the misspelt one is told as such, and what it means is not made
        file.write_text(file.read_text().replace("whole", type_).replace("torn", type_))
        capsys.readouterr()
        assert main(["check", str(file)]) == 2
        told = capsys.readouterr().err
        assert f"{file}:6: operators.t.type: " in told
        assert (said in told) == (type_ == "torn")
        assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("super().__init__(settings, context)", "Mine.__init__ does not call super().__init__(settings, context)"),
        ("self.context = context", "Mine.__init__ does not set self.schema"),
        ("raise RuntimeError('a bug')", "a bug"),
    ],
)
def test_what_an_author_forgets_is_said(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(tmp_path, "other", "whole")
    code = GOOD.replace("super().__init__(settings, context)", "pass" if line.startswith("super") else line)
    (tmp_path / "other_whole.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "other_whole", raising=False)
    file = tmp_path / "pipeline.toml"
    file.write_text(
        '[pipeline]\nname = "x"\n[sources.in]\ntype = "host"\n[operators.t]\ntype = "whole"\ninput = "in"\n'
    )
    assert main(["check", str(file)]) == 2
    assert f"{file}:5: operators.t: {said}" in capsys.readouterr().err


def test_of_two_with_one_name_neither_is_taken_by_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        installed(tmp_path, name, "rate")
        (tmp_path / f"{name}_rate.py").write_text(GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(registry.Unloadable, match=r'"rate" comes by one 1.2 and two 1.2: pip uninstall one of them'):
        registry.find("operator", "rate")
    assert registry.types("operator").count("rate") == 1


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
