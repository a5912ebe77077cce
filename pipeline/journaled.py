"""A step of the journal, once more: what came from outside is there, and everything else follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

from pipeline.frame import NO_PROGRESS, Frame, Progress, empty
from pipeline.intake import Intake, Tick, numbers_of, payloads_of
from pipeline.journal import state
from pipeline.limits import frame_bytes
from pipeline.packing import unpack_frame

if TYPE_CHECKING:
    from pipeline.engine import Engine


def replay(engine: Engine, step: int, entry: state.Entry, db: apsw.Connection) -> None:
    """Push a step of the journal again. What comes out was committed with it and is thrown away."""
    frames: dict[str, Frame] = {}
    engine.arrivals.last = entry.stamp or engine.arrivals.last
    for name, intake in engine.intakes.items():
        part = entry.parts.get(name) or state.Part(watermark=intake.watermark, quiet=intake.quiet)
        tick = Tick(entry.clock, entry.first_seq, part.watermark, part.quiet, part.ended)
        frames[name] = frame = _again(engine, intake, part, tick, db)
        frames[f"{name}.invalid"] = _refused_again(engine, intake, part, frame.progress, db)
    injected = {node: unpack_frame(state.frame_bytes(db, id_), NO_PROGRESS) for node, id_ in entry.injected}
    reached = engine.graph.push(frames, injected, entry.forgotten)
    engine.show(frames | {stream: frame for _, stream, frame in reached})
    engine.forgetting.drop(entry.forgotten)
    engine.number, engine.next_seq = step, entry.first_seq
    engine.number_behind(reached)
    # A pipeline that is killed again and again must come to its next checkpoint all the same.
    engine.count_step(entry)
    engine.bytes_since += sum(map(frame_bytes, frames.values()))


def _again(engine: Engine, intake: Intake, part: state.Part, tick: Tick, db: apsw.Connection) -> Frame:
    if part.read:
        payloads = payloads_of(intake.source.reread(part.start, part.end))
        arrived = intake.decode(payloads, engine.graph.keys, tick.clock, engine.newest_allowed(tick.clock))
        if part.runs is None:  # written by 0.1.0.dev: a step held the readings of this source alone
            part.runs = [(tick.next_seq - len(arrived.time), len(arrived.time))]
        seq = numbers_of(part.runs)
        if len(seq) != len(arrived.time):
            raise ValueError(f"{intake.name}: {len(arrived.time)} readings where there were {len(seq)}: it was changed")
        return intake.frame(arrived, seq, engine.settings.disorder, tick)
    if part.frame is None:
        return intake.nothing(tick)
    stored = unpack_frame(state.frame_bytes(db, part.frame), NO_PROGRESS)
    return intake.again(stored, engine.settings.disorder, tick)


def _refused_again(engine: Engine, intake: Intake, part: state.Part, progress: Progress, db: apsw.Connection) -> Frame:
    if part.refused is None:
        return empty(engine.graph.streams[f"{intake.name}.invalid"], progress)
    return unpack_frame(state.frame_bytes(db, part.refused), progress)
