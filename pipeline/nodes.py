"""The tables of sources, operators and sinks -> nodes, each after those that it reads.

A node with `enabled = false` is as if it were not there: nothing of it is checked, and where it is an input of another
node it is left out. Only its name stays known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pipeline import registry, settings
from pipeline.problem import dotted, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.settings import Where

KINDS = {"sources": "source", "operators": "operator", "sinks": "sink"}
COMMON = ("type", "enabled", "input", "inputs")  # settings that the graph reads; no component has them
_PLACE = {kind: i for i, kind in enumerate(KINDS.values())}  # nothing reads a sink, so they may all stand at the end
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SURE = 0.75  # likeness at which a setting is taken for a misspelled one of COMMON


class Node(NamedTuple):
    """A source, operator or sink as the file declares it."""

    name: str
    kind: str  # source | operator | sink
    type: str
    inputs: tuple[str, ...]
    settings: Any  # an instance of its settings type
    component: Any  # its class
    path: tuple[str, ...]  # of its table
    sides: Mapping[str, tuple[str, ...]] = {}  # setting -> further streams of an operator that it names


class Reader(Protocol):
    """What reading a node needs of the reader of the file."""

    def wrong(self, where: Where, text: str) -> None: ...
    def settings(self, kind: Any, table: Any, where: Where, common: tuple[str, ...] = ()) -> Any: ...
    def substituted(self, value: Any, where: Where) -> Any: ...


@dataclass
class _Declared:
    """A node while it is being read."""

    name: str
    kind: str
    where: tuple[str, str]
    raw: dict[str, Any]
    enabled: bool = True
    type: str = ""
    component: Any = None  # its class
    settings: Any = None  # None: too much is wrong
    inputs: list[str] = field(default_factory=list)
    sides: dict[str, list[str]] = field(default_factory=dict)  # by setting, further streams that it names
    guessed: set[str] = field(default_factory=set)  # those of the streams that are not written so
    sound: bool = True  # False: not all that it reads is known

    @property
    def reads(self) -> list[str]:
        """All streams that come to it."""
        return [*self.inputs, *chain.from_iterable(self.sides.values())]


def read_nodes(tables: Mapping[str, tuple[str, Any]], reader: Reader) -> dict[str, Node]:
    """The nodes of each table (`sources`: how the table is spelled, and what is in it)."""
    return _Nodes(reader).read(tables)


class _Nodes:
    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.wrong = reader.wrong
        self.all: list[_Declared] = []
        self.named: dict[str, _Declared] = {}  # who has the name

    def read(self, tables: Mapping[str, tuple[str, Any]]) -> dict[str, Node]:
        for table, (written, nodes) in tables.items():
            if isinstance(nodes, dict):
                for name, raw in nodes.items():
                    self._declare(name, KINDS[table], (written, name), raw)
            else:
                self.wrong((written,), f"write each of the {table} as a table of its own: [{table}.NAME]")
        enabled = [node for node in self.all if node.enabled]
        if not any(node.kind == "source" for node in enabled):
            disabled = any(node.kind == "source" for node in self.all)
            self.wrong((), "all sources are disabled" if disabled else "there are no sources: add a [sources.NAME]")
        for node in enabled:
            self._understand(node)
        self._report_cycles(_in_order(enabled, self.named, guesses=False))
        return self._finish(_in_order(enabled, self.named, guesses=True))

    def _finish(self, order: list[_Declared]) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for node in sorted(order, key=lambda node: _PLACE[node.kind]):
            if self.named.get(node.name) is not node or not node.sound or node.settings is None:
                continue
            # What reads something that could not be understood would be blamed for fields that are only unknown.
            if node.component is not None and all(_base(stream) in nodes for stream in node.reads):
                sides = {setting: tuple(streams) for setting, streams in node.sides.items()}
                nodes[node.name] = Node(
                    node.name,
                    node.kind,
                    node.type,
                    tuple(node.inputs),
                    node.settings,
                    node.component,
                    node.where,
                    sides,
                )
        return nodes

    # --- one node ---

    def _declare(self, name: str, kind: str, where: tuple[str, str], raw: Any) -> None:
        if not isinstance(raw, dict):
            self.wrong(where, f"write it as a table: [{dotted(where)}]")
            return
        node = _Declared(name, kind, where, raw)
        self.all.append(node)
        if not _NAME.fullmatch(name):
            self.wrong(where, f'"{name}" is not a name: use letters, digits and _, and no digit first')
        if name in self.named:
            self.wrong(where, f'the name "{name}" is taken by {dotted(self.named[name].where)}')
        else:
            self.named[name] = node
        enabled = raw.get("enabled", True)
        if not isinstance(enabled, bool):
            self.wrong((*where, "enabled"), "expected true or false")
        node.enabled = enabled is not False

    def _understand(self, node: _Declared) -> None:
        """Its type, its settings, its inputs."""
        raw = dict(self.reader.substituted(node.raw, node.where))
        written = {name: name for name in COMMON}  # how each is spelled in this table
        if "type" not in raw and (near := self._misspelled("type", raw, COMMON)):
            written["type"] = near
        kind = self._component(node, raw, written["type"])
        if kind is not None:
            for name in ("input", "inputs"):
                if node.kind != "source" and not {"input", "inputs"} & raw.keys():
                    written[name] = self._misspelled(name, raw, (*settings.names(kind), *COMMON)) or name
            own = {name: value for name, value in raw.items() if name not in COMMON and name not in written.values()}
            for name in COMMON:
                if written[name] != name:
                    self.wrong(
                        (*node.where, written[name]), f'unknown setting "{written[name]}" (did you mean "{name}"?)'
                    )
            common = tuple(name for name in COMMON if node.kind != "source" or not name.startswith("input"))
            node.settings = self.reader.settings(kind, own, node.where, common)
        self._inputs(node, raw, written)
        self._sides(node, raw)

    def _misspelled(self, name: str, raw: dict[str, Any], known: Iterable[str]) -> str | None:
        """What stands in the table for a setting that is not there."""
        known = [*known]
        return next((key for key in raw if key not in known and nearest(key, known, _SURE) == name), None)

    def _component(self, node: _Declared, raw: dict[str, Any], written: str) -> Any:
        """Finds the component; gives its kind of settings, or None."""
        where = (*node.where, written)
        given = raw.get(written)
        if given is None:
            self.wrong(node.where, 'the setting "type" is missing')
        elif not isinstance(given, str):
            self.wrong(where, "expected the name of a type")
        else:
            try:
                node.type = given
                node.component, kind = registry.find(node.kind, given)
            except registry.UnknownType as error:
                self.wrong(where, str(error))
                if error.near is None:
                    return None
                return self._meant(node, error.near)
            except registry.Unloadable as error:
                self.wrong(where, str(error))
                return None
            return kind
        return None

    def _meant(self, node: _Declared, near: str) -> Any:
        """As `_component`, of the type that was most likely meant."""
        node.type = near
        try:
            node.component, kind = registry.find(node.kind, near)
        except registry.Unloadable:
            return None
        return kind

    # --- inputs ---

    def _inputs(self, node: _Declared, raw: dict[str, Any], written: dict[str, str]) -> None:
        given = [name for name in ("input", "inputs") if written[name] in raw]
        if node.kind == "source":
            for name in given:
                self.wrong((*node.where, name), "a source has no input")
            return
        if len(given) != 1:
            said = (
                "both input and inputs are given: keep one" if given else 'the setting "input" (or "inputs") is missing'
            )
            self.wrong(node.where, said)
            node.sound = False
            return
        setting = written[given[0]]
        where: Where = (*node.where, setting)
        names = [raw[setting]] if given[0] == "input" else raw[setting]
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            self.wrong(
                where,
                "expected one name; several go into inputs" if given[0] == "input" else "expected a list of names",
            )
            node.sound = False
            return
        for i, name in enumerate(names):
            self._input(node, node.inputs, name, where if given[0] == "input" else (*where, i))
        if node.sound and not node.inputs:
            self.wrong(where, "all that it reads is disabled: disable it as well")
            node.sound = False

    def _sides(self, node: _Declared, raw: dict[str, Any]) -> None:
        """The further streams that an operator's settings name. What is no name was told with the settings."""
        for setting in getattr(node.component, "sides", ()):
            given = raw.get(setting, [])
            where: Where = (*node.where, setting)
            streams = node.sides[setting] = []
            for i, name in enumerate(given if isinstance(given, list) else [given]):
                if isinstance(name, str):
                    self._input(node, streams, name, (*where, i) if isinstance(given, list) else where)

    def _input(self, node: _Declared, reads: list[str], name: str, where: Where) -> None:
        """Adds the stream of that name to `reads`."""
        base, dot, output = name.partition(".")
        read = self.named.get(base)
        if read is None:
            known = [n for n, other in self.named.items() if other.kind != "sink" and other is not node]
            near = nearest(base, known)
            hint = f' (did you mean "{near}{dot}{output}"?)' if near else ""
            self.wrong(where, f'there is no source or operator "{base}"{hint}')
            if near is None:
                node.sound = False
                return
            name, read = f"{near}{dot}{output}", self.named[near]
            node.guessed.add(name)
        if read.kind == "sink":
            self.wrong(where, f'"{base}" is a sink: nothing comes out of it')
            node.sound = False
        elif name in reads:
            if name not in node.guessed:
                self.wrong(where, f'"{name}" is named twice')
        elif read.enabled:
            reads.append(name)

    def _report_cycles(self, order: list[_Declared]) -> None:
        """Those that are not in the order are in a cycle, or behind one."""
        stuck = {node.name: node for node in self.named.values() if node.enabled and node not in order}
        seen: set[str] = set()
        for start in stuck:
            trail: list[str] = []
            name = start
            while name not in seen and name not in trail:
                trail.append(name)
                reads = (_base(stream) for stream in stuck[name].reads if stream not in stuck[name].guessed)
                name = next(base for base in reads if base in stuck)  # it is stuck because of one
            if name in trail:
                around = trail[trail.index(name) :][::-1]  # in the direction in which rows would flow
                first = min(around, key=list(stuck).index)
                at = around.index(first)
                said = " -> ".join([*around[at:], *around[:at], first])
                self.wrong((*stuck[first].where, "inputs"), f"a cycle: {said}")
            seen.update(trail)


def _base(stream: str) -> str:
    return stream.partition(".")[0]


def _in_order(nodes: list[_Declared], named: dict[str, _Declared], *, guesses: bool) -> list[_Declared]:
    """Each node after those that it reads, else as in the file; without those that read themselves in the end."""
    order: list[_Declared] = []
    placed: set[str] = set()
    waiting = nodes
    while waiting:
        ready: list[_Declared] = []
        later: list[_Declared] = []
        for node in waiting:
            reads = [_base(s) for s in node.reads if guesses or s not in node.guessed]
            (ready if all(base in placed for base in reads) else later).append(node)
            if ready and ready[-1] is node and named.get(node.name) is node:
                placed.add(node.name)
        if not ready:
            break
        order += ready
        waiting = later
    return order
