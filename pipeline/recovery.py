"""The start: from the checkpoint, through the journal, to where the last commit was. A crash is a rollback.

The journal keeps the text of the pipeline file that it was written with. If the file has changed since, the tail is
replayed by the old graph, and state moves to the new one node by node: what has the same name, type, inputs and settings
keeps its state, what has not starts anew.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import apsw
import msgspec

from pipeline.component import Receipt, Refused
from pipeline.engine import IN_FLIGHT
from pipeline.graph import Graph
from pipeline.journal import state
from pipeline.journal.commit import StateInUse

if TYPE_CHECKING:
    from pipeline.engine import Engine

log = logging.getLogger("headwater")


def recover(engine: Engine, make_old: Any) -> list[str]:
    """Bring a new engine to where the state folder is. `make_old(text)` makes an engine of an earlier pipeline file.

    The answer is the plan: a line for each node whose state is not simply kept. StateInUse if the journal cannot be read.
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
    _begin(engine, moved)
    return plan


def _begin(engine: Engine, moved: dict[str, Any] | None) -> None:
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
            engine.replay(number, entry, db)
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
    prints, new_prints = fingerprints(old.graph), fingerprints(engine.graph)
    states = old.snapshot()
    plan = _not_understood(old)
    for node in sorted(prints.keys() | new_prints.keys()):
        if prints.get(node) == new_prints.get(node):
            continue
        states.pop(node, None)
        states.pop(f"{node}.merge", None)
        states.pop(f"{node}.latest", None)
        states.pop(f"{node}.alerts", None)
        what = "gone" if node not in new_prints else "new" if node not in prints else "changed: starts anew"
        plan.append(f"{node}: {what}")
    engine.restore(states)
    engine.number = old.number
    for name, intake in engine.intakes.items():
        intake.position = state.positions(db).get(name)
    return plan


def fingerprints(graph: Graph) -> dict[str, tuple[Any, ...]]:
    """What the state of each node depends on."""
    prints = {}
    for name, node in graph.config.nodes.items():
        settings = msgspec.to_builtins(node.settings, enc_hook=str)
        for shown_only in getattr(node.component, "presentation", ()):
            settings.pop(shown_only, None)
        beside = [stream for streams in node.sides.values() for stream in streams]
        inputs = tuple((i, repr(graph.streams.get(i))) for i in (*node.inputs, *beside))
        prints[name] = (node.kind, node.type, repr(settings), inputs)
    return prints


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
