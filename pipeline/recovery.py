"""The start: from the checkpoint, through the journal, to where the last commit was. A crash is a rollback.

The journal keeps the text of the pipeline file that it was written with. If the file has changed since, the tail is
replayed by the old graph, and state moves to the new one node by node: what has the same name, type, inputs and settings
keeps its state, what has not starts anew.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw
import msgspec

from pipeline.component import Receipt, Refused
from pipeline.engine import IN_FLIGHT
from pipeline.graph import Graph
from pipeline.journal import state
from pipeline.journal.commit import StateInUse
from pipeline.journaled import replay

if TYPE_CHECKING:
    from pipeline.engine import Engine

log = logging.getLogger("headwater")


class Recovered(NamedTuple):
    plan: list[str]  # a line for each node whose state is not simply kept
    moved: dict[str, Any] | None  # the state after a change of the file, which nothing on the disk has yet


def recover(engine: Engine, make_old: Any) -> Recovered:
    """Bring a new engine to where the state folder is; nothing is written. `make_old(text)` makes an engine of an earlier
    pipeline file. StateInUse if the journal cannot be read.
    """
    db = engine.store.connection
    moved: dict[str, Any] | None = None
    with db:
        engine.graph.keys.load(state.keys(db))
        engine.known_keys = len(engine.graph.keys)
        step, states = state.load_checkpoint(db)
        journal = state.entries(db)
        text = engine.config.kept_text
        ((before,),) = list(db.execute("SELECT max(value) FROM meta WHERE name = 'pipeline'"))
        plan: list[str] = []
        if before is None or before == text:
            _replay(engine, step, states, journal, db)
            plan = _not_understood(engine)
        else:
            plan = _move(engine, make_old, before, step, states, journal, db)
            moved = engine.snapshot()
        _settle(engine, db)
    return Recovered(plan, moved)


def begin(engine: Engine, moved: dict[str, Any] | None) -> None:
    """What a start writes, by the writer: a full disk holds it up like any other commit.

    In two transactions before that of the first step: only what the database knows of a file can be cut off, so how long
    it was is durable before its header is written.
    """

    number = engine.number

    def known(db: apsw.Connection) -> None:
        if moved is not None:
            state.checkpoint(db, number, moved)
        db.execute("REPLACE INTO meta VALUES ('pipeline', ?)", (engine.config.kept_text,))
        for path, _ in engine.paths():
            engine.files.cut(db, path)

    def headed(db: apsw.Connection) -> None:
        for path, header in engine.paths():
            engine.files.append(db, path, b"", header)

    def then_headed(_: Any, error: BaseException | None) -> None:
        if error is None and any(header for _, header in engine.paths()):
            engine.store.submit(headed, done)
        else:
            done(None, error)

    def done(_: Any, error: BaseException | None) -> None:
        engine.in_flight -= IN_FLIGHT
        engine.failed = engine.failed or error
        engine.wake()

    engine.in_flight += IN_FLIGHT  # no step before it is done
    engine.store.submit(known, then_headed)


def _replay(
    engine: Engine, step: int, states: dict[str, Any], journal: list[tuple[int, state.Entry]], db: apsw.Connection
) -> None:
    engine.restore(states)
    engine.number = step
    for name, intake in engine.intakes.items():
        intake.position = state.positions(db).get(name)
    try:
        for number, entry in journal:
            replay(engine, number, entry, db)
    except (OSError, ValueError, LookupError) as error:
        raise StateInUse(f"the journal cannot be replayed: {error}") from error


def _not_understood(engine: Engine) -> list[str]:
    return [f"{node}: its state is of another version: starts anew" for node in engine.not_understood]


def _move(
    engine: Engine,
    make_old: Any,
    text: str,
    step: int,
    states: dict[str, Any],
    journal: list[tuple[int, state.Entry]],
    db: apsw.Connection,
) -> list[str]:
    """Replay with the old file, then hand over the state of the nodes that are the same in the new one."""
    old: Engine | None = make_old(text)
    if old is None:
        if journal:
            raise StateInUse(
                "the pipeline file was changed after a crash, and the one before it cannot be loaded to finish its journal; "
                "start once with the earlier file"
            )
        _replay(engine, step, {".engine": states[".engine"]} if states else {}, [], db)
        return ["the pipeline file has changed and the one before it cannot be loaded: all operators start anew"]
    _replay(old, step, states, journal, db)
    states = old.snapshot()
    plan = _not_understood(old)
    for change in changes(old.graph, engine.graph):
        plan.append(str(change))
        if not change.keeps:
            for part in ("", ".merge", ".latest", ".alerts"):
                states.pop(change.node + part, None)
    engine.restore(states)
    engine.number = old.number
    for name, intake in engine.intakes.items():
        intake.position = state.positions(db).get(name)
    return plan


class Change(NamedTuple):
    """What becomes of a node when the file is exchanged."""

    node: str
    what: str
    keeps: bool = False  # its state stays

    def __str__(self) -> str:
        return f"{self.node}: {self.what}"


def changes(old: Graph, new: Graph) -> list[Change]:
    """Each node that is not as it was; of all others the state is kept."""
    before, after = fingerprints(old), fingerprints(new)
    found = []
    for node in sorted(before.keys() | after.keys()):
        if node not in after:
            found.append(Change(node, "gone"))
        elif node not in before:
            found.append(Change(node, "new"))
        elif before[node] != after[node]:
            stateless = new.config.nodes[node].kind == "sink"  # what waits in its buffer is no state of the graph
            found.append(Change(node, "changed" if stateless else "changed: starts anew", stateless))
        elif _settings(old, node) != _settings(new, node):
            found.append(Change(node, "changed: keeps its state", keeps=True))
    return found


def fingerprints(graph: Graph) -> dict[str, tuple[Any, ...]]:
    """What the state of each node depends on."""
    prints = {}
    for name, node in graph.config.nodes.items():
        settings = _settings(graph, name)
        for setting in (*getattr(node.component, "presentation", ()), *getattr(node.component, "adapts", ())):
            _leave_out(settings, setting.split("."))
        beside = [stream for streams in node.sides.values() for stream in streams]
        streams = tuple((i, repr(graph.streams.get(i))) for i in (*node.inputs, *beside, name))
        prints[name] = (node.kind, node.type, repr(settings), streams)
    return prints


def _settings(graph: Graph, node: str) -> Any:
    return msgspec.to_builtins(graph.config.nodes[node].settings, enc_hook=str)


def _leave_out(settings: Any, path: list[str]) -> None:
    """Of `levels.*.when` the star stands for every name."""
    first, *rest = path
    if not isinstance(settings, dict):
        return
    for name in list(settings) if first == "*" else [first]:
        if rest:
            _leave_out(settings.get(name), rest)
        else:
            settings.pop(name, None)


def _settle(engine: Engine, db: apsw.Connection) -> None:
    """What holds for every start: sources that can still bring something, and answers that were given before."""
    for intake in engine.intakes.values():
        # A file that was at its end may have grown since: it is at its end only when it says so again.
        intake.ended, intake.quiet = False, intake.quiet and intake.source.live
    for source, request, packed in state.remembered(db):
        if asked := engine.intakes.get(source):
            taken, refused, failed, repeated = state.unpack(packed)
            receipt = Receipt(taken, [Refused(*r) for r in refused], failed, repeated)
            asked.inbox.requests.remember(request, receipt)
