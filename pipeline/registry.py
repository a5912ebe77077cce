"""From a `type` to its component. The file name is the type, and nothing is imported that the pipeline does not use.

Components of other distributions come by the entry points `headwater.sources`, `headwater.codecs`,
`headwater.operators` and `headwater.sinks`, looked up only where there is no built-in of that name.
"""

from __future__ import annotations

import importlib
import importlib.util
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.component import Codec, Context, Operator, ReadingSettings, Settings, Sink, Source
from pipeline.problem import did_you_mean

PACKAGES = {"source": "pipeline.sources", "codec": "pipeline.codecs", "operator": "operators", "sink": "sinks"}
BASES: dict[str, type] = {"source": Source, "operator": Operator, "sink": Sink}


class UnknownType(LookupError):
    """There is no component of that kind and type."""


def types(kind: str) -> list[str]:
    """The names of all components of a kind; imports none of them."""
    from importlib.metadata import entry_points

    spec = importlib.util.find_spec(PACKAGES[kind])
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    names = {f.stem for folder in folders for f in folder.iterdir() if _is_component(f)}
    names |= {entry.name for entry in entry_points(group=f"headwater.{kind}s")}
    return sorted(names)


def _is_component(file: Path) -> bool:
    if file.name.startswith(("_", ".")):
        return False
    return file.suffix == ".py" or (file / "__init__.py").exists()


def find(kind: str, type_: str) -> tuple[type[Any], type[Settings]]:
    """The class of a component and that of its settings. UnknownType if there is none; ImportError names an extra."""
    component = _class(kind, _module(kind, type_))
    settings: type[Settings] = typing.get_type_hints(component.__init__)["settings"]
    return component, settings


def _module(kind: str, type_: str) -> ModuleType:
    name = f"{PACKAGES[kind]}.{type_}"
    if type_.isidentifier() and not type_.startswith("_") and importlib.util.find_spec(name) is not None:
        return importlib.import_module(name)
    from importlib.metadata import entry_points

    for entry in entry_points(group=f"headwater.{kind}s", name=type_):
        module: ModuleType = entry.load()
        return module
    known = types(kind)
    listed = ", ".join(known)
    raise UnknownType(f'there is no {kind} "{type_}"{did_you_mean(type_, known)}; there are: {listed}')


def _class(kind: str, module: ModuleType) -> type[Any]:
    """The one component that a module defines."""
    found = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    if kind == "codec":
        made = [c for c in found if hasattr(c, "media_types")]
    else:
        made = [c for c in found if issubclass(c, BASES[kind])]
    public = [c for c in made if not c.__name__.startswith("_")]
    if len(public) != 1:
        raise UnknownType(f"{module.__name__} defines {len(public)} public {kind}s instead of one")
    return public[0]


def codec_for(settings: ReadingSettings, context: Context, media_type: str | None = None) -> Codec | None:
    """The codec of `settings.format`, or of a Content-Type; None: there is none for that media type."""
    options: dict[str, Any] = {}
    name = settings.format
    if isinstance(name, dict):
        options = {k: v for k, v in name.items() if k != "type"}
        name = str(name.get("type", "json"))
    if media_type is not None:
        wanted = media_type.partition(";")[0].strip().lower()
        if wanted not in ANY_MEDIA:
            by_media = _by_media(wanted)
            if by_media is None:
                return None
            if by_media != name:
                name, options = by_media, {}
    try:
        codec: Codec = _class("codec", _module("codec", name))(settings, options, context)
    except UnknownType as error:
        context.problem("format", str(error))
        return None
    return codec


# What a client sends that does not care, or cannot say: the source's own format is meant.
ANY_MEDIA = {"", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain", "*/*"}


def _by_media(media_type: str) -> str | None:
    for name in types("codec"):
        if media_type in _class("codec", _module("codec", name)).media_types:
            return name
    return None
