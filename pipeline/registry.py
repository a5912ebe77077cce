"""From a `type` to its component. The file name is the type, and nothing is imported that the pipeline does not use.

Components of other distributions come by the entry points `headwater.sources`, `headwater.codecs`,
`headwater.operators` and `headwater.sinks` (each names a module with one component, or the component itself). They are
looked up only where there is no built-in of that name.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.component import Codec, Context, Operator, ReadingSettings, Settings, Sink, Source
from pipeline.kinds import alternatives, is_struct
from pipeline.problem import nearest

if TYPE_CHECKING:
    from types import ModuleType

PACKAGES = {"source": "pipeline.sources", "codec": "pipeline.codecs", "operator": "operators", "sink": "sinks"}
BASES: dict[str, type] = {"source": Source, "operator": Operator, "sink": Sink}

# What a client says that does not care, or cannot say: the source's own format is meant. Browsers send text/plain.
ANY_MEDIA = {"", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain"}


class UnknownType(LookupError):
    """There is no component of that kind and type; `near` is the one most likely meant."""

    def __init__(self, text: str, near: str | None = None) -> None:
        super().__init__(text)
        self.near = near


class Unloadable(ImportError):
    """A component that is listed and cannot be loaded: a library is missing, or somebody else's package is broken. The text
    says which, and the way out. It costs nobody but the pipelines that name it."""


def types(kind: str) -> list[str]:
    """The names of all components of a kind; imports none of them."""
    spec = importlib.util.find_spec(PACKAGES[kind])
    # An editable install adds a place to the package's path that is no folder.
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    folders = [place for place in places if place.is_dir()]
    names = {file.stem for folder in folders for file in folder.iterdir() if _is_component(file)}
    return sorted(names | {entry.name for entry in _entry_points(kind)})


def _is_component(file: Path) -> bool:
    if file.name.startswith(("_", ".")):
        return False
    return file.suffix == ".py" or (file / "__init__.py").exists()


def _entry_points(kind: str) -> Any:
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    return entry_points(group=f"headwater.{kind}s")


def is_built_in(kind: str, type_: str) -> bool:
    name = f"{PACKAGES[kind]}.{type_}"
    return type_.isidentifier() and not type_.startswith("_") and importlib.util.find_spec(name) is not None


def distribution(kind: str, type_: str) -> str:
    """The distribution that brings a component, with its version; "": it is built in, or there is none."""
    if is_built_in(kind, type_):
        return ""
    return next((_brought_by(entry) for entry in _entry_points(kind) if entry.name == type_), "")


def find(kind: str, type_: str) -> tuple[type[Any], type[Settings]]:
    """The class of a component and that of its settings. UnknownType if there is none; Unloadable if it cannot be had."""
    if is_built_in(kind, type_):
        try:
            component = _class(kind, importlib.import_module(f"{PACKAGES[kind]}.{type_}"))
        except ImportError as error:
            raise Unloadable(f'"{type_}" needs {error.name}: pip install "headwater[{type_}]"') from error
        return component, _settings(kind, component)
    if entries := [entry for entry in _entry_points(kind) if entry.name == type_]:
        return _loaded(kind, type_, entries)
    known = types(kind)
    near = nearest(type_, known)
    hint = f' (did you mean "{near}"?)' if near else f"; there are: {', '.join(known) or 'none'}"
    elsewhere = "" if near else ". One of another distribution has to be installed first: pip install …"
    raise UnknownType(f'there is no {kind} "{type_}"{hint}{elsewhere}', near)


# --- of other distributions ---


def passed_over(kind: str, type_: str) -> str:
    """What to tell of plug-ins that are never used, since a built-in component has their name; "": there is none."""
    if not is_built_in(kind, type_):
        return ""
    entries = [entry for entry in _entry_points(kind) if entry.name == type_]
    if not entries:
        return ""
    listed = " and ".join(sorted(_brought_by(entry) for entry in entries))
    name = entries[0].dist.name if entries[0].dist else "it"
    return (
        f'the {kind} "{type_}" of {listed} is never used, since Headwater has one of that name: it needs another name from '
        f"its author, or pip uninstall {name}"
    )


def clashes() -> list[str]:
    """Of all plug-ins those that are never used, or cannot be: their names are those of others."""
    found = []
    for kind in PACKAGES:
        entries = [*_entry_points(kind)]
        for name in sorted({entry.name for entry in entries}):
            own = [entry for entry in entries if entry.name == name]
            if told := passed_over(kind, name):
                found.append(told)
            elif len(own) > 1:
                found.append(f"the {kind} {_twice(name, own)}")
    return found


def _twice(type_: str, entries: list[Any]) -> str:
    listed = " and ".join(sorted(_brought_by(one) for one in entries))
    return f'"{type_}" comes by {listed}: pip uninstall one of them'


def _brought_by(entry: Any) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _loaded(kind: str, type_: str, entries: list[Any]) -> tuple[type[Any], type[Settings]]:
    """The component of an entry point. Whatever goes wrong in it is its distribution's."""
    entry, *others = entries
    if others:
        raise Unloadable(_twice(type_, entries))
    name = entry.dist.name if entry.dist else "its distribution"
    try:
        loaded = entry.load()
        component = loaded if isinstance(loaded, type) else _class(kind, loaded)
        return component, _settings(kind, component)
    except ModuleNotFoundError as error:
        wrong, way = f"it needs {error.name}", f"pip install {name} brings what it needs"
    except Exception as error:  # noqa: BLE001 - other people's modules may raise anything
        wrong, way = f"{type(error).__name__}: {error}", f"get another version of it, or pip uninstall {name}"
    raise Unloadable(f'"{type_}" of {_brought_by(entry)} cannot be loaded ({wrong}): {way}')


def _class(kind: str, module: ModuleType) -> type[Any]:
    """The one component that a module, or a package with its modules, defines."""
    inside = module.__name__ + "."
    public = [c for name, c in vars(module).items() if isinstance(c, type) and not name.startswith("_")]
    own = [c for c in public if f"{c.__module__}.".startswith(inside)]
    if kind == "codec":
        found = [c for c in own if hasattr(c, "media_types")]
    else:
        found = [c for c in own if issubclass(c, BASES[kind])]
    # A component may be built on another class of the same module: that one is not meant.
    found = [c for c in found if not any(other is not c and issubclass(other, c) for other in found)]
    if len(found) != 1:
        raise UnknownType(f"{module.__name__} defines {len(found)} {kind}s instead of one")
    return found[0]


def _settings(kind: str, component: type[Any]) -> type[Settings]:
    """The type of the parameter `settings`; what stands beside it may be imported for type checkers alone."""
    if kind == "codec":
        return ReadingSettings  # a codec is given those of its source
    made = component.__init__
    hint: Any = made.__annotations__.get("settings", Any)
    if isinstance(hint, str):
        hint = eval(hint, vars(sys.modules[made.__module__]))  # the component's own source
    if hint is Any:
        return Settings
    if not all(is_struct(one) for one in alternatives(hint)):
        raise TypeError(f"the settings of {component.__name__} are {hint}, and no subclass of Settings")
    found: type[Settings] = hint
    return found


# --- codecs ---------------------------------------------------------------------------------------------------------


def codec_for(
    settings: ReadingSettings, context: Context, media_type: str | None = None, *, writing: bool = False
) -> Codec | None:
    """The codec of `settings.format`, or that of a Content-Type. `writing`: it must be one that writes.

    None: there is none. What is wrong with the format has then been reported; a Content-Type that nobody reads has not.
    """
    name, options = _format(settings)
    if not isinstance(name, str):
        context.problem("format", 'a table needs a type: { type = "csv", … }')
        return None
    wanted = (media_type or "").partition(";")[0].strip().lower()
    if wanted in ANY_MEDIA:
        codec = _make(name, options, settings, context)
        if writing and codec is not None and not getattr(codec, "writes", True):
            context.problem("format", f'"{name}" can be read, not written; write json or csv')
            return None
        return codec
    meant = _by_media_type(wanted, first=name)
    if meant is None:
        return None
    # A sender's choice is no mistake in the pipeline file: problems of such a codec are kept apart.
    apart = Context(context.name, context.keys, folder=context.folder, clock=context.clock)
    chosen = _make(meant, options if meant == name else {}, settings, apart)
    return None if apart.problems else chosen


def _format(settings: ReadingSettings) -> tuple[Any, dict[str, Any]]:
    if isinstance(settings.format, str):
        return settings.format, {}
    options = dict(settings.format)
    return options.pop("type", None), options


def _make(name: str, options: dict[str, Any], settings: ReadingSettings, context: Context) -> Codec | None:
    try:
        codec: Codec = find("codec", name)[0](settings, options, context)
    except (UnknownType, Unloadable, ValueError) as error:
        context.problem("format", str(error))
    else:
        return codec
    return None


def _by_media_type(media_type: str, first: str) -> str | None:
    """The codec that reads a media type; the source's own is asked first, so that its options hold."""
    known = types("codec")
    for name in sorted(known, key=lambda n: n != first):
        try:
            if media_type in find("codec", name)[0].media_types:
                return name
        except (UnknownType, Unloadable):
            continue  # an extra that is not installed reads nothing
    return None
