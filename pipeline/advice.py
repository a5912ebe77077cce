"""What a pipeline file may be allowed to say and will yet hurt: for `headwater check`, with the way out. Nothing here stops a run.

What a component knows of itself it tells (`Context.warn`); here is what only the whole file shows.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING

from pipeline import masked, registry
from pipeline.loopback import is_loopback
from pipeline.problem import Problem
from pipeline.quantity import Duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config import Config
    from pipeline.graph import Graph
    from pipeline.settings import Where

_PASSWORD = re.compile(r"://[^/\s]*:[^/\s]*@")
_FORGETFUL = ("/tmp/", "/dev/shm/", "/run/")
MUCH = 0.5  # of this machine's memory


def advice(config: Config, graph: Graph, memory: int) -> list[Problem]:
    """Of a graph without problems; `memory`: the bytes it may take at most."""
    found = [*_server(config), *_secrets(config), *_unread(config, graph), *_memory(config, memory)]
    found += [*_silence(config), *_state(config), *plug_ins(config)]
    return sorted([*graph.warnings, *(config.problem(where, text) for where, text in found)])


def _server(config: Config) -> Iterator[tuple[Where, str]]:
    server = config.server
    if is_loopback(server.address()[0]) or "server" not in config.raw:
        return
    if server.insecure and not server.token:
        yield ("server", "insecure"), "anyone in the network may read and send: set a token"
    elif server.tls is None:
        yield (
            ("server", "listen"),
            "the token crosses the network in plain text: add tls, or put a proxy with it in front",
        )


def _secrets(config: Config) -> Iterator[tuple[Where, str]]:
    for where in masked.written_out(config):
        value = masked.value(config, where)
        # An address is kept like a secret, since it may hold one; a variable with a default is a choice that was made.
        if "${" in value or value.startswith("/") or ("://" in value and not _PASSWORD.search(value)):
            continue
        name = next(part for part in reversed(where) if isinstance(part, str)).upper()
        text = f"the secret stands in the file, and in every copy of it: write ${{{name}}}, and set that in the environment"
        yield where, text


def _unread(config: Config, graph: Graph) -> Iterator[tuple[Where, str]]:
    """Operators whose rows go nowhere."""
    read = {stream.partition(".")[0] for stream in chain.from_iterable(graph.inputs.values())}
    for name in graph.edges:
        if name not in read:
            yield config.nodes[name].path, "nothing reads its rows: name it in the inputs of a sink, or take it out"


def _silence(config: Config) -> Iterator[tuple[Where, str]]:
    """A deadman that is quicker than what it waits for: where nothing comes at all, time runs on only after `idle`."""
    idle = config.pipeline.idle
    for node in config.nodes.values():
        silent_for = getattr(node.settings, "silent_for", None)
        if silent_for and silent_for < idle:
            text = f"if nothing comes at all it is told only after {Duration(idle)} ([pipeline] idle): make that shorter, too"
            yield (*node.path, "silent_for"), text


def plug_ins(config: Config) -> Iterator[tuple[Where, str]]:
    """What the file names and an installed plug-in has the name of, too."""
    for node in config.nodes.values():
        if told := registry.passed_over(node.kind, node.type):
            yield (*node.path, "type"), told
        format_ = getattr(node.settings, "format", None)
        name = format_.get("type") if isinstance(format_, dict) else format_
        if isinstance(name, str) and (told := registry.passed_over("codec", name)):
            yield (*node.path, "format"), told


def _state(config: Config) -> Iterator[tuple[Where, str]]:
    """Only where it is written out: a file that lies there may be on trial."""
    written = str(config.raw.get("pipeline", {}).get("state", ""))
    if written.startswith(_FORGETFUL) and config.pipeline.durability != "none":
        yield ("pipeline", "state"), "all that was kept is gone at the next start of the machine: name another folder"


def _memory(config: Config, memory: int) -> Iterator[tuple[Where, str]]:
    import psutil

    there = psutil.virtual_memory().total
    if memory > MUCH * there:
        text = f"with so many keys it may take {memory / 1e6:,.0f} MB of the {there / 1e6:,.0f} MB here: lower max_keys"
        yield ("pipeline", "max_keys"), text
