"""A test in which nothing happens but readings of one source, without engine, loop and disk: a year of a reading a minute
takes seconds.

The graph gets what the engine would push: readings, and ticks when something is due. Where nothing is, many readings go in
one step, on trial: if a node that acts by time has told anything, the step is taken back and made of smaller ones. For a
row that leaves because time passes would have left by the next reading, too; so where none left, no tick was missed.

What needs more is left to the engine: `age()`, several sources, steps, sinks of which rows are expected, functions of
one's own, readings that are refused, and those that are late or not by when the engine last looked at the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.clock import ArrivalClock, VirtualClock
from pipeline.component import Operator, Payload
from pipeline.frame import NEVER, NO_PROGRESS, Frame, Ints, KeyTable, empty
from pipeline.graph import REFUSED, Graph
from pipeline.inbox import BoundedInbox, Order
from pipeline.intake import Arrived, Intake, Tick, payloads_of
from pipeline.outside import Outside

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.trial.block import Block
    from pipeline.trial.result import Result

PART_ROWS = 8_192  # readings that are decoded at once
MOST = 4_096  # readings of a step
MICROSECOND = 1_000  # in which the time of a trial is counted; a tick at the very moment of a reading comes after it
FAR = 2**63 - 1
_AGE = re.compile(r"\bage\s*\(")


class _Odd(Exception):
    """Something that only the engine does justice to."""


def fits(config: Config, block: Block) -> bool:
    """Whether nothing in the test rules it out; what readings are like shows only on the way."""
    nodes = config.nodes.values()
    sinks = {node.name for node in nodes if node.kind == "sink"}
    told = any(node.type == "python" or getattr(node.settings, "expect", ()) for node in nodes)
    several = sum(node.kind == "source" for node in nodes) > 1
    return not (block.steps or several or told or sinks & block.expect.keys() or _AGE.search(_nodes_text(config)))


def _nodes_text(config: Config) -> str:
    return repr([node.settings for node in config.nodes.values()])


def run(config: Config, block: Block, result: Result) -> bool:
    """Fill in the result; False if the engine must do it, and nothing of this counts."""
    try:
        _Stretch(config, block, result).run()
    except _Odd:
        return False
    return True


class _Stretch:
    def __init__(self, config: Config, block: Block, result: Result) -> None:
        self.block = block
        self.result = result
        self.pipeline = config.pipeline
        nodes = {name: node for name, node in config.nodes.items() if node.kind != "sink"}
        self.clock = VirtualClock(block.start)
        self.graph = Graph(replace(config, nodes=nodes), KeyTable(limit=config.pipeline.max_keys), self.clock)
        if result.coverage is not None:
            result.coverage.watch(self.graph)
        ((self.name, source),) = self.graph.sources.items()
        self.arrivals = ArrivalClock(self.clock)
        self.intake = Intake(self.name, source, BoundedInbox(Order(), self.arrivals, lambda: None))
        self.outside = Outside({name: edge.context for name, edge in self.graph.edges.items()}, lambda: None)
        self.heard = 0  # when the last reading came, after the start
        self.next_seq = 0
        self.ran = NEVER  # how far silence may have brought the watermark
        self.size = MOST  # of the next step on trial
        self.came: list[tuple[str, Frame]] = []  # of the nodes that are asked for, in this step
        self.acted = False  # a node that acts by time has told something in this step
        for node in block.expect:
            self.graph.watch(node, partial(self._emitted, node))
        for name, edge in self.graph.edges.items():
            if type(edge.operator).due is not Operator.due:
                for stream in (name, *(f"{name}.{output}" for output in edge.context.outputs)):
                    self.graph.watch(stream, self._acted)

    def _emitted(self, node: str, frame: Frame) -> None:
        if len(frame):
            self.came.append((node, frame))

    def _acted(self, frame: Frame) -> None:
        self.acted = self.acted or len(frame) > 0

    # --- its course ---

    def run(self) -> None:
        self.outside.begin()
        if self.outside:
            self._push(self.intake.nothing(Tick(self.block.start, 0)))
        for at, payloads in self._parts():
            self._part(at, self._decoded(at, payloads))
        if self.intake.source.live:
            self._ticks(self.block.end // MICROSECOND * MICROSECOND + MICROSECOND)
        else:
            self._push(self.intake.nothing(Tick(self.block.start + self.heard, self.next_seq, NEVER, True, True)))

    def _parts(self) -> Iterator[tuple[Ints, list[Payload]]]:
        """Some thousand readings at a time, and when each came."""
        rows = sorted(self.block.rows, key=lambda row: row.at)
        for first in range(0, len(rows), PART_ROWS):
            part = rows[first : first + PART_ROWS]
            at = np.array([row.at for row in part], np.int64) // MICROSECOND * MICROSECOND
            yield at, [self._payload(row.reading, when) for row, when in zip(part, at.tolist(), strict=True)]

    def _payload(self, reading: Any, at: int) -> Payload:
        source = self.intake.source
        made = source.again(reading, "") if isinstance(reading, bytes) else source.given(reading)
        assert made is not None  # the block was checked
        self.clock.advance(at - self.clock.monotonic())
        made.arrival = self.arrivals.stamp()
        return made

    def _decoded(self, at: Ints, payloads: Sequence[Payload]) -> Arrived:
        arrived = self.intake.decode(payloads_of(payloads), self.graph.keys, self.block.start, FAR)
        ahead = self.block.start + at + self.pipeline.max_future
        if arrived.refused or (arrived.counts != 1).any() or (arrived.time > ahead).any():
            raise _Odd
        return arrived

    def _part(self, at: Ints, arrived: Arrived) -> None:
        intake, disorder = self.intake, self.pipeline.disorder
        n = len(at)
        seq = np.arange(self.next_seq, self.next_seq + n)
        newest = np.maximum(np.maximum.accumulate(arrived.time), intake.newest)
        before = np.append(intake.newest, newest[:-1])
        silence = np.diff(at, prepend=self.heard)
        idle = intake.source.live & (silence >= self.pipeline.idle) & (before > NEVER)
        ran = np.maximum(np.maximum.accumulate(np.where(idle, before - disorder + silence, NEVER)), self.ran)
        self.ran = int(ran[-1])
        if (arrived.time < ran).any():
            raise _Odd
        reach = np.maximum(newest - disorder, ran)  # what time may have come to by each reading
        frame = Frame(arrived.time, arrived.key, seq, arrived.columns, NO_PROGRESS)
        first = 0
        while first < n:
            self._ticks(int(at[first]))
            due = self.graph.due()
            end = min(first + self.size, n)
            if due is not None:
                end = min(end, first + int(np.searchsorted(reach[first:end], due)))
            first = self._several(frame, at, first, max(end, first + 1))

    def _several(self, frame: Frame, at: Ints, first: int, end: int) -> int:
        """A step of these readings, or of fewer; where it ends."""
        while end - first > 1:
            kept = self.graph.snapshot(), self.intake.newest, self.intake.watermark, self.intake.quiet
            self._readings(frame, at, first, end)
            if not self.acted:
                self.size = min(2 * self.size, MOST)
                self._tell()
                return end
            states, self.intake.newest, self.intake.watermark, self.intake.quiet = kept
            self.graph.restore(states)
            self.came.clear()
            end = first + (end - first) // 2
            self.size = max(end - first, 1)
        self._readings(frame, at, first, end)
        self.size = 2 * self.size if not self.acted else self.size
        self._tell()
        return end

    def _readings(self, frame: Frame, at: Ints, first: int, end: int) -> None:
        self.heard = int(at[end - 1])
        self.next_seq = int(frame.seq[end - 1]) + 1
        tick = Tick(self.block.start + self.heard, self.next_seq)
        self._step(self.intake.again(frame.take(slice(first, end)), self.pipeline.disorder, tick))

    def _ticks(self, until: int) -> None:
        """The ticks that the engine makes before this moment: when the source falls idle, and when something is due."""
        intake = self.intake
        while intake.source.live and intake.newest > NEVER and (due := self.graph.due()) is not None:
            if intake.quiet and intake.watermark >= due:
                return
            start = intake.newest - self.pipeline.disorder
            silence = max(due - start, self.pipeline.idle) if intake.quiet else self.pipeline.idle
            when = -(-(self.heard + silence) // MICROSECOND) * MICROSECOND
            if when >= until:
                return
            self._push(intake.nothing(Tick(self.block.start + when, self.next_seq, start + when - self.heard, True)))

    # --- one step ---

    def _push(self, frame: Frame) -> None:
        self._step(frame)
        self._tell()

    def _step(self, frame: Frame) -> None:
        self.acted = False
        brought, _ = self.outside.take(self.next_seq)
        self.graph.push({self.name: frame, f"{self.name}.invalid": empty(REFUSED, frame.progress)}, brought)

    def _tell(self) -> None:
        """What came in this step counts."""
        for node, frame in self.came:
            self.result.add(node, None, frame, self.graph.streams[node], self.graph.keys)
        self.came.clear()
