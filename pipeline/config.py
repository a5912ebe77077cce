"""pipeline.toml -> typed settings, or every problem that it has.

`load` finds what can be found without constructing a component; the graph adds what only components know (fields,
types of expressions). Positions are looked up only when there is something to report.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
import typing
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from pipeline import quantity, registry
from pipeline.component import Settings
from pipeline.problem import ConfigError, Problem, did_you_mean
from pipeline.quantity import Duration, Secret

KINDS = {"sources": "source", "operators": "operator", "sinks": "sink"}
GRAPH_SETTINGS = {"type", "enabled", "input", "inputs"}  # of every node; not in a component's settings
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")

Where = tuple[str | int, ...]
Found = list[tuple[Where, str]]


class Tls(Settings):
    certificate: str
    key: str


class ServerSettings(Settings):
    """[server]: the one HTTP server, for the sources and sinks that need it."""

    listen: str = "127.0.0.1:8080"
    token: Secret | None = None
    tls: Tls | None = None
    insecure: bool = False

    def address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class PipelineSettings(Settings):
    """[pipeline]"""

    name: str = "pipeline"
    state: Path = Path("var")
    durability: Literal["power", "process", "none"] = "power"
    commit: Duration = Duration(0)
    disorder: Duration = Duration(0)
    idle: Duration = quantity.duration("10 s")
    max_future: Duration = quantity.duration("1 min")
    max_keys: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 100_000


class Node(NamedTuple):
    """A source, operator or sink as the file declares it."""

    name: str
    kind: str  # source | operator | sink
    type: str
    inputs: tuple[str, ...]
    settings: Settings
    component: type[Any]
    path: tuple[str, ...]


class Config(msgspec.Struct, dict=True):
    """A pipeline file, read. With `problems`, `nodes` has only those that could be understood."""

    path: Path
    text: str
    pipeline: PipelineSettings
    server: ServerSettings
    nodes: dict[str, Node]  # each after those that it reads
    tests: list[dict[str, Any]]
    problems: list[Problem]

    @cached_property
    def _lines(self) -> dict[Where, int]:
        from pipeline import positions

        return positions.lines(self.text)

    def problem(self, path: Where, text: str) -> Problem:
        """A problem of the setting at `path`, with its line."""
        from pipeline import positions

        return Problem(positions.line_of(self._lines, path), path, text)


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read a pipeline file. ConfigError if it is not TOML; other problems are in `Config.problems`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(path, [Problem(1, (), f"cannot be read: {reason}")]) from None
    return loads(text, path, environ)


def loads(text: str, path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """The same for a text; `path` says where relative paths start."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        at = int(line[1]) if line else text.count("\n") + 1
        raise ConfigError(path, [Problem(at, (), f"not valid TOML: {error}")]) from None
    reader = _Reader(environ)
    config = reader.read(raw, text, path)
    config.problems = [config.problem(where, what) for where, what in reader.found]
    return config


class _Reader:
    """Collects what is found on the way."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.found: Found = []

    def read(self, raw: dict[str, Any], text: str, path: Path) -> Config:
        tables = {"pipeline", "server", "test", *KINDS}
        for name in raw:
            if name not in tables:
                self.found.append(((name,), f'unknown table "{name}"{did_you_mean(name, tables)}'))
        raw = self._variables(raw, ())
        pipeline = self._settings(PipelineSettings, raw.get("pipeline", {}), ("pipeline",)) or PipelineSettings()
        if "state" not in raw.get("pipeline", {}):
            pipeline = msgspec.structs.replace(pipeline, state=Path("var") / pipeline.name)
        pipeline = msgspec.structs.replace(pipeline, state=path.parent / pipeline.state)
        server = self._settings(ServerSettings, raw.get("server", {}), ("server",)) or ServerSettings()
        self._check_server(server)
        nodes = self._nodes(raw)
        return Config(path, text, pipeline, server, nodes, raw.get("test", []), [])

    # --- values ---

    def _variables(self, value: Any, where: Where) -> Any:
        """`${NAME}` and `${NAME:-default}` in every text."""
        if isinstance(value, dict):
            return {k: self._variables(v, (*where, k)) for k, v in value.items()}
        if isinstance(value, list):
            return [self._variables(v, (*where, i)) for i, v in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value

        def put(match: re.Match[str]) -> str:
            name, default = match[1], match[2]
            if name in self.environ:
                return self.environ[name]
            if default is None:
                hint = f"set it, or give a default: ${{{name}:-…}}"
                self.found.append((where, f"the environment variable {name} is not set; {hint}"))
                return ""
            return default

        return _VARIABLE.sub(put, value)

    def _settings(self, kind: type[Any], raw: Any, where: Where) -> Any:
        """`raw` as settings of that kind; None, with each problem noted, if it is not that."""
        before = len(self.found)
        self._check(kind, raw, where)
        if len(self.found) > before:
            return None
        try:
            return msgspec.convert(raw, kind, dec_hook=_dec)
        except msgspec.ValidationError as error:
            self.found.append((where, _said(error)))
            return None

    def _check(self, kind: type[Any], raw: Any, where: Where) -> None:
        """Field by field, so that one mistake hides no other."""
        if not isinstance(raw, dict):
            self.found.append((where, f"Expected a table, got `{type(raw).__name__}`"))
            return
        fields = {f.encode_name: f for f in msgspec.structs.fields(kind)}
        for name in raw:
            if name not in fields:
                known = [*fields, *(GRAPH_SETTINGS if where[0] in KINDS and len(where) == 2 else ())]
                self.found.append(((*where, name), f'unknown setting "{name}"{did_you_mean(name, known)}'))
        for name, field in fields.items():
            if name in raw:
                self._value(field.type, raw[name], (*where, name))
            elif field.required:
                self.found.append((where, f'the setting "{name}" is missing'))

    def _value(self, kind: Any, value: Any, where: Where) -> None:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            self._check(kind, value, where)
            return
        if origin is dict and isinstance(value, dict):
            for name, item in value.items():
                self._value(arguments[1], item, (*where, name))
            return
        if origin in (list, tuple) and isinstance(value, list):
            for i, item in enumerate(value):
                self._value(arguments[0], item, (*where, i))
            return
        tables = [a for a in arguments if isinstance(a, type) and issubclass(a, msgspec.Struct)]
        if origin is not Annotated and tables and isinstance(value, dict):
            self._check(tables[0], value, where)
            return
        if origin is Literal and value not in arguments:
            words = ", ".join(f'"{a}"' for a in arguments)
            near = did_you_mean(value, arguments) if isinstance(value, str) else ""
            self.found.append((where, f"must be one of {words}{near}"))
            return
        try:
            msgspec.convert(value, kind, dec_hook=_dec)
        except msgspec.ValidationError as error:
            self.found.append((where, _said(error)))

    def _check_server(self, server: ServerSettings) -> None:
        where = ("server", "listen")
        try:
            host, port = server.address()
        except ValueError:
            host, port = "", -1
        if not host or not 0 <= port < 65536:
            self.found.append((where, f'"{server.listen}" is not an address; write it as "127.0.0.1:8080"'))
        elif not (_loopback(host) or server.token or server.tls or server.insecure):
            self.found.append((where, f"{host} is open to the network: set token or tls, or insecure = true"))

    # --- nodes ---

    def _nodes(self, raw: dict[str, Any]) -> dict[str, Node]:
        declared: dict[str, tuple[str, dict[str, Any]]] = {}
        disabled: set[str] = set()
        for table in KINDS:
            if not isinstance(raw.get(table, {}), dict):
                self.found.append(((table,), f"write each of the {table} as a table: [{table}.NAME]"))
                continue
            for name, settings in raw.get(table, {}).items():
                self._declare(table, name, settings, declared, disabled)
        if not any(table == "sources" for table, _ in declared.values()):
            self.found.append(((), "there are no sources: add a [sources.NAME]"))
        inputs = {
            name: self._inputs(table, name, settings, declared, disabled)
            for name, (table, settings) in declared.items()
        }
        nodes = {}
        for name in self._in_order(declared, inputs):
            table, settings = declared[name]
            if node := self._node(table, name, settings, inputs[name]):
                nodes[name] = node
        return nodes

    def _declare(
        self, table: str, name: str, settings: Any, declared: dict[str, tuple[str, dict[str, Any]]], disabled: set[str]
    ) -> None:
        where = (table, name)
        if not isinstance(settings, dict):
            self.found.append((where, f"Expected a table, got `{type(settings).__name__}`"))
        elif not _NAME.fullmatch(name):
            self.found.append((where, f'"{name}" is not a name: use letters, digits and _, not beginning with a digit'))
        elif name in declared:
            self.found.append((where, f'the name "{name}" is taken by {declared[name][0]}.{name}'))
        elif settings.get("enabled", True) is False:
            disabled.add(name)
        elif settings.get("enabled", True) is not True:
            self.found.append(((*where, "enabled"), "Expected `bool`"))
        else:
            declared[name] = (table, settings)

    def _inputs(
        self,
        table: str,
        name: str,
        settings: dict[str, Any],
        declared: dict[str, tuple[str, dict[str, Any]]],
        disabled: set[str],
    ) -> tuple[str, ...]:
        where = (table, name)
        given = [s for s in ("input", "inputs") if s in settings]
        if table == "sources":
            for setting in given:
                self.found.append(((*where, setting), "a source has no input"))
            return ()
        if len(given) != 1:
            what = "both input and inputs are given: keep one" if given else 'the setting "input" (or "inputs") is missing'
            self.found.append((where, what))
            return ()
        setting = given[0]
        names = [settings["input"]] if setting == "input" else settings["inputs"]
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            wanted = "a name" if setting == "input" else "a list of names"
            self.found.append(((*where, setting), f"must be {wanted}"))
            return ()
        kept = []
        for i, wanted in enumerate(names):
            at = (*where, setting) if setting == "input" else (*where, setting, i)
            base = wanted.partition(".")[0]
            if base in disabled:
                continue
            if base not in declared:
                known = [n for n, (t, _) in declared.items() if t != "sinks" and n != name]
                self.found.append((at, f'there is no "{base}" to read from{did_you_mean(base, known)}'))
            elif declared[base][0] == "sinks":
                self.found.append((at, f'"{base}" is a sink: nothing comes out of it'))
            elif wanted in kept:
                self.found.append((at, f'"{wanted}" is named twice'))
            else:
                kept.append(wanted)
        if not kept and all(n.partition(".")[0] in disabled for n in names):
            self.found.append(((*where, setting), "all that it reads is disabled: disable it as well"))
        return tuple(kept)

    def _in_order(self, declared: Mapping[str, Any], inputs: Mapping[str, tuple[str, ...]]) -> list[str]:
        """Each node after those that it reads; a cycle is a problem, and those on it are left out."""
        order: list[str] = []
        state: dict[str, bool] = {}  # False: being visited

        def visit(name: str, trail: tuple[str, ...]) -> None:
            if state.get(name):
                return
            if name in state:
                cycle = " -> ".join([*trail[trail.index(name) :], name])
                self.found.append(((declared[name][0], name), f"the inputs go round in a circle: {cycle}"))
                return
            state[name] = False
            for one in inputs[name]:
                visit(one.partition(".")[0], (*trail, name))
            state[name] = True
            order.append(name)

        for name in declared:
            visit(name, ())
        return order

    def _node(self, table: str, name: str, settings: dict[str, Any], inputs: tuple[str, ...]) -> Node | None:
        where = (table, name)
        kind = KINDS[table]
        type_ = settings.get("type")
        if not isinstance(type_, str):
            what = 'the setting "type" is missing' if type_ is None else "must be the name of a type"
            self.found.append(((*where, "type") if type_ is not None else where, what))
            return None
        try:
            component, settings_type = registry.find(kind, type_)
        except registry.UnknownType as error:
            self.found.append(((*where, "type"), str(error)))
            return None
        except ImportError as error:
            self.found.append(((*where, "type"), f'needs {error.name}: pip install "headwater[{type_}]"'))
            return None
        own = {k: v for k, v in settings.items() if k not in GRAPH_SETTINGS}
        made = self._settings(settings_type, own, where)
        return None if made is None else Node(name, kind, type_, inputs, made, component, where)


def _dec(kind: type, value: Any) -> Any:
    if kind is Path:
        if not isinstance(value, str):
            raise ValueError(f"Expected `str`, got `{type(value).__name__}`")
        return Path(value)
    return quantity.convert(kind, value)


def _said(error: msgspec.ValidationError) -> str:
    """What msgspec says, with its way to the place in words."""
    text, _, at = str(error).partition(" - at `$")
    return f"{text} (at {at.rstrip('`').lstrip('.')})" if at.rstrip("`") else text


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
