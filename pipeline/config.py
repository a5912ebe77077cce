"""pipeline.toml -> typed settings and nodes, or every problem that it has.

`load` finds what can be found without constructing a component; the graph adds what only components know (fields and
types of expressions). Both are shown together, so a Config comes back even where there are problems: its nodes are then
those that the graph can ask, mended where it was clear what was meant. It must not be run.

Text may hold `${NAME}` or `${NAME:-default}`, an environment variable; `$${NAME}` stands for the text `${NAME}` itself.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pipeline import settings
from pipeline.component import Settings
from pipeline.loopback import is_host, is_loopback
from pipeline.nodes import COMMON, KINDS, Node, read_nodes
from pipeline.problem import ConfigError, Problem, nearest
from pipeline.quantity import Duration, Secret, Size, duration, size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.settings import Found, Where

__all__ = ["Config", "Node", "PipelineSettings", "ServerSettings", "Tls", "load", "loads"]

_VARIABLE = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_ORIGIN = re.compile(r"https?://[^\s/?#@*\"'<>]+")
_LAST_PORT = 65535
_SHORTEST_SECRET = 4  # characters; hiding shorter values would only make messages unreadable


# What a card of 32 GB may be expected to take: 500 times its size, two thirds of it lost to erasing for small writes.
ENDURANCE = size("5 TB")


class PipelineSettings(Settings, frozen=True):
    """[pipeline]: what holds for all of it."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_][A-Za-z0-9_-]*$", description="What it is called.")]
    state: Annotated[
        Path,
        Meta(description="Folder for all that must survive, relative to the file. Absent: var/NAME."),
    ] = Path("var")
    durability: Annotated[
        Literal["power", "process", "none"],
        Meta(description="What an acknowledged reading survives: a power cut, a kill of the process, nothing."),
    ] = "power"
    on_damage: Annotated[
        Literal["set_aside", "stop"],
        Meta(description="A damaged database: give it a name with the time and start with a new one, or exit with 3."),
    ] = "set_aside"
    commit: Annotated[
        Duration, Meta(description="Least time between commits. Longer saves flash; acknowledgements wait for it.")
    ] = Duration(0)
    # A default of zero would call the second of two readings late that a network has swapped, and set it aside.
    disorder: Annotated[
        Duration, Meta(description="How far out of order event times may be: watermark = newest - disorder.")
    ] = duration("1 s")
    idle: Annotated[
        Duration, Meta(description="After this long without readings a live source's watermark runs on by the clock.")
    ] = duration("10 s")
    max_future: Annotated[
        Duration, Meta(description="A reading dated further ahead of the clock than this is refused.")
    ] = duration("1 min")
    max_keys: Annotated[
        int, Meta(ge=1, le=10_000_000, description="Most distinct keys; readings of further ones are refused.")
    ] = 100_000
    endurance: Annotated[
        Size,
        Meta(gt=0, description="How many bytes may be written to the flash before it is used up, as its maker says."),
    ] = ENDURANCE


class Tls(Settings, frozen=True):
    """Files in PEM form, relative to the pipeline file."""

    certificate: Annotated[Path, Meta(description="The chain of certificates.")]
    key: Annotated[Path, Meta(description="The key of the first of them.")]


class ServerSettings(Settings, frozen=True):
    """[server]: the one HTTP server, for the sources and sinks that need it."""

    listen: Annotated[str, Meta(description="HOST:PORT. Open to the network only with token, tls or insecure.")] = (
        "127.0.0.1:8080"
    )
    token: Annotated[Secret | None, Meta(description="Bearer token that every request must carry.")] = None
    read_token: Annotated[Secret | None, Meta(description="Bearer token that may only ask; `token` may do all.")] = None
    tls: Annotated[
        Tls | None, Meta(description="Certificate and key; read again when they change. Absent: plain HTTP.")
    ] = None
    insecure: Annotated[bool, Meta(description="Open to the network without token and tls all the same.")] = False
    cors: Annotated[
        tuple[str, ...], Meta(description="Origins whose pages may use it, as https://grafana.example. Absent: none.")
    ] = ()
    max_rate: Annotated[
        float | None, Meta(gt=0, description="Requests a second from one address; more are answered 429. Absent: any.")
    ] = None

    def address(self) -> tuple[str, int]:
        """Host and port; ValueError if `listen` is not that."""
        host, _, port = self.listen.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not port.isascii() or not port.isdigit() or int(port) > _LAST_PORT or (":" in bare and bare == host):
            raise ValueError(f'"{self.listen}" is not an address; write it as "127.0.0.1:8080"')
        if not is_host(host):
            raise ValueError(
                f'"{host}" is neither an IP address nor a host name (letters, digits and hyphens, with dots between); write '
                f'"127.0.0.1:{port}", or "0.0.0.0:{port}" for all addresses of this machine'
            )
        return bare, int(port)


@dataclass
class Config:
    """A pipeline file, read."""

    path: Path
    text: str  # as it stands in the file
    pipeline: PipelineSettings
    server: ServerSettings
    nodes: dict[str, Node]  # each after those that it reads
    tests: list[dict[str, Any]]  # the [[test]] tables, as they are
    problems: list[Problem] = field(default_factory=list)  # not empty: for finding more problems only
    variables: dict[str, str] = field(default_factory=dict, repr=False)  # what was taken from the environment

    @cached_property
    def raw(self) -> dict[str, Any]:
        """The tables of the text, as they are."""
        return tomllib.loads(self.text)

    @cached_property
    def kept_text(self) -> str:
        """The text as the journal keeps it: without secrets that are written out."""
        from pipeline.masked import masked

        return masked(self)

    @cached_property
    def _lines(self) -> dict[Where, int]:
        from pipeline import positions

        return positions.lines(self.text)

    def problem(self, path: Where, text: str) -> Problem:
        """A problem of the setting at `path`, with its line.

        Where this place was found wrong before, that Problem comes back: what is said of a stand-in is no news.
        """
        known = next((p for p in self.problems if path and _hides(p.path, path)), None)
        if known is not None:
            return known
        from pipeline import positions

        path = self._as_written(path)
        return Problem(positions.line_of(self._lines, path), path, self._masked(text))

    def _as_written(self, path: Where) -> Where:
        """As it stands in the file: `inputs` may be written `input`; a component says `steps.0.when` of a list."""
        written: Where = ()
        for part in path:
            index = int(part) if isinstance(part, str) and part.isascii() and part.isdigit() else part
            forms = [(*written, form) for form in (part, index, *(["input"] if part == "inputs" else []))]
            written = next((form for form in forms if form in self._lines), forms[0])
        return written

    def _masked(self, text: str) -> str:
        """What came from the environment may be secret wherever a message quotes it."""
        for name, value in self.variables.items():
            if len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, f"${{{name}}}").replace(repr(value)[1:-1], f"${{{name}}}")
        return text


def load(
    path: Path, environ: Mapping[str, str] = os.environ, change: Callable[[dict[str, Any]], None] | None = None
) -> Config:
    """Read a pipeline file. ConfigError if it is not TOML; all other problems are in `Config.problems`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(path, [Problem(1, (), f"cannot be read: {error.strerror}{_other_file(path)}")]) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(path, [Problem(line, (), "is not UTF-8 text")]) from None
    return loads(text, path, environ, change)


def loads(
    text: str,
    path: Path,
    environ: Mapping[str, str] = os.environ,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Config:
    """The same for a text; relative paths in it start where `path` lies. `change`: to its tables, before they are read."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said, _, place = str(error).partition(" (at ")
        line = re.match(r"line (\d+), column (\d+)", place)
        at, column = (int(line[1]), f", column {line[2]}") if line else (max(len(text.splitlines()), 1), "")
        raise ConfigError(path, [Problem(at, (), f"not valid TOML{column}: {said}")]) from None
    except RecursionError:
        raise ConfigError(path, [Problem(1, (), "not valid TOML: nested too deeply")]) from None
    if change is not None:
        change(raw)
    return _Reader(environ).read(raw, text, path)


def _other_file(path: Path) -> str:
    """Which file was most likely meant."""
    if path.exists() or not path.parent.is_dir():
        return ""
    near = nearest(path.name, [file.name for file in path.parent.glob("*.toml")])
    return f' (did you mean "{path.with_name(near)}"?)' if near else " (`headwater init` writes one to start from)"


class _Reader:
    """Reads the tables of one file; `found` collects what is wrong."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.variables: dict[str, str] = {}
        self.unset: set[Where] = set()
        self.found: Found = []

    def wrong(self, where: Where, text: str) -> None:
        """Note a mistake; what is said of a text whose variable is not set would mislead."""
        if where not in self.unset:
            self.found.append((where, text))

    def read(self, raw: dict[str, Any], text: str, path: Path) -> Config:
        written = self._tables(raw)
        folder = path.parent.absolute()
        config = Config(
            path,
            text,
            self._pipeline(raw.get(written["pipeline"], {}), written["pipeline"], folder),
            self._server(raw.get(written["server"], {}), written["server"], folder),
            read_nodes({table: (written[table], raw.get(written[table], {})) for table in KINDS}, self),
            self._tests(raw),
        )
        config.variables = self.variables
        config.problems = [config.problem(where, what) for where, what in self.found]
        return config

    def _tables(self, raw: dict[str, Any]) -> dict[str, str]:
        """How each table is spelled in this file."""
        known = ("pipeline", "server", *KINDS, "test")
        written = {name: name for name in known}
        for name, value in raw.items():
            if name in known:
                continue
            near = nearest(name, known) if isinstance(value, dict | list) else None
            hint = f' (did you mean "{near}"?)' if near else ""
            if not hint and name in settings.names(PipelineSettings):
                hint = "; it belongs into [pipeline]"
            what = "table" if isinstance(value, dict | list) else "setting"
            self.wrong((name,), f'unknown {what} "{name}"{hint}')
            if near is not None and near not in raw:
                written[near] = name
        return written

    def _pipeline(self, raw: Any, table: str, folder: Path) -> PipelineSettings:
        read = self.settings(PipelineSettings, self.substituted(raw, (table,)), (table,))
        made: PipelineSettings = read or PipelineSettings(name="")
        given = isinstance(raw, dict) and "state" in raw
        return msgspec.structs.replace(made, state=folder / (made.state if given else Path("var") / made.name))

    def _server(self, raw: Any, table: str, folder: Path) -> ServerSettings:
        read = self.settings(ServerSettings, self.substituted(raw, (table,)), (table,))
        made: ServerSettings = read or ServerSettings()
        if made.tls is not None:
            tls = Tls(certificate=folder / made.tls.certificate, key=folder / made.tls.key)
            made = msgspec.structs.replace(made, tls=tls)
        # `token = "${TOKEN:-}"` with nothing there means none, and not that an empty one opens the door.
        made = msgspec.structs.replace(made, token=made.token or None, read_token=made.read_token or None)
        self._check_listen(made, (table, "listen"))
        self._check_access(made, table)
        return made

    def _check_listen(self, server: ServerSettings, where: Where) -> None:
        try:
            host, _ = server.address()
        except ValueError as error:
            self.wrong(where, str(error))
            return
        guarded = server.token or server.tls or server.insecure or (where[0], "token") in self.unset
        if not guarded and not is_loopback(host) and not {"tls", "token"} & _mistaken(self.found, where):
            shown = host or "every address"
            self.wrong(where, f"{shown} is open to the network: set token or tls, or insecure = true")

    def _check_access(self, server: ServerSettings, table: str) -> None:
        if server.read_token and not server.token and (table, "token") not in self.unset:
            self.wrong((table, "read_token"), "only protects beside a token that may do all: set token, too")
        elif server.read_token and server.read_token == server.token:
            self.wrong((table, "read_token"), "is the same as token, which may do all: take another one")
        for index, origin in enumerate(server.cors):
            if not _ORIGIN.fullmatch(origin):
                text = f'"{origin}" is not an origin; name each one, as "https://grafana.example"'
                self.wrong((table, "cors", index), text)

    def _tests(self, raw: dict[str, Any]) -> list[dict[str, Any]]:
        tests: Any = raw.get("test", [])
        if isinstance(tests, list) and all(isinstance(test, dict) for test in tests):
            return tests
        self.wrong(("test",), "write each test as a table of its own: [[test]]")
        return []

    def settings(self, kind: Any, table: Any, where: Where, common: tuple[str, ...] = ()) -> Any:
        """`table` as settings of that kind; None if too much is wrong with it."""
        read = settings.read(kind, table, where, common)
        for place, text in read.found:
            self.wrong(place, text)
        return read.settings

    def substituted(self, value: Any, where: Where) -> Any:
        """The value with the environment's variables in all its texts."""
        if isinstance(value, dict):
            return {name: self.substituted(item, (*where, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [self.substituted(item, (*where, i)) for i, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        missing: list[str] = []
        text = _VARIABLE.sub(lambda match: self._variable(match, missing), value)
        if missing:
            said = f"variable {missing[0]} is" if len(missing) == 1 else f"variables {', '.join(missing)} are"
            hint = f"set it, or write ${{{missing[0]}:-default}}; $${{{missing[0]}}} is the text itself"
            self.wrong(where, f"the environment {said} not set: {hint}")
            self.unset.add(where)
        return text

    def _variable(self, match: re.Match[str], missing: list[str]) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return match[0][1:]
        if name in self.environ:
            self.variables[name] = self.environ[name]
            return self.environ[name]
        if default is None:
            missing.append(name)
        return default or ""


def _hides(earlier: Where, path: Where) -> bool:
    """Is what a component says of `path` due to the stand-in for what was wrong there, or within it?

    What the graph reads is mended or the node left out: a component that fails all the same says something of its own.
    """
    within = earlier[len(path) : len(path) + 1]
    return earlier[: len(path)] == path and not (within and within[0] in COMMON)


def _mistaken(found: Found, beside: Where) -> set[str | int]:
    """The settings of the same table that are given, but wrong."""
    return {where[1] for where, _ in found if where[:1] == beside[:1] and len(where) > 1}
