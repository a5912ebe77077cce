"""Several inputs become one: rows in order of arrival, the watermark the lowest of theirs.

A quiet input (idle, or a file at its end) holds nothing back. The answer depends only on the order in which readings
arrived over all sources, never on how they were cut into Frames. Further streams that an operator's settings name (its
sides) are not mixed with its inputs; but their time is one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.frame import (
    DTYPES,
    NEVER,
    Array,
    Column,
    Field,
    Frame,
    Ints,
    Progress,
    Schema,
    Sided,
    concatenate,
    in_order,
)

FAR = 2**63 - 1  # above every watermark: what an input that holds nothing back would say


def merged_schema(schemas: Sequence[Schema]) -> tuple[Schema, list[str]]:
    """The fields of all; one that not all have may be missing. Second: the fields whose kinds clash."""
    if all(s == schemas[0] for s in schemas):
        return schemas[0], []
    fields: dict[str, Field] = {}
    clashes = []
    for schema in schemas:
        for name, field in schema.fields.items():
            known = fields.setdefault(name, field)
            if known.kind != field.kind:
                clashes.append(name)
            fields[name] = Field(known.kind, known.optional or field.optional, known.nan or field.nan)
    for name, field in fields.items():
        if any(name not in s.fields for s in schemas):
            fields[name] = field._replace(optional=True)
    keys = {s.key for s in schemas}
    roles = {s.role for s in schemas}
    key = keys.pop() if len(keys) == 1 else "key"
    return Schema(key, fields, roles.pop() if len(roles) == 1 else "readings"), clashes


class Merge:
    """The Frames of one step, one from each input and then from each side -> one Frame. State: the watermark reached."""

    def __init__(self, schema: Schema, sides: Sequence[str] = ()) -> None:
        self.schema = schema
        self.sides = sides  # the streams of the last Frames
        self.reached = NEVER

    def __call__(self, frames: Sequence[Frame]) -> Frame:
        progress = self._progress([f.progress for f in frames])
        self.reached = progress.watermark
        inputs = len(frames) - len(self.sides)
        fitted = [self.fit(f) for f in frames[:inputs]]
        rows = in_order(concatenate(fitted, progress))
        if not self.sides:
            return rows
        beside = zip(self.sides, frames[inputs:], strict=True)
        return Sided(rows, {stream: frame.with_progress(progress) for stream, frame in beside})

    def fit(self, frame: Frame) -> Frame:
        """All fields of the merged schema; those that this input lacks are missing."""
        if frame.columns.keys() == self.schema.fields.keys():
            return frame
        n = len(frame)
        columns = {
            name: frame.columns.get(name) or Column(_zeros(field.kind, n), np.zeros(n, np.bool_))
            for name, field in self.schema.fields.items()
        }
        return Frame(frame.time, frame.key, frame.seq, columns, frame.progress)

    def _progress(self, parts: Sequence[Progress]) -> Progress:
        first = parts[0]
        if all(p is first for p in parts):
            return first
        seq: Ints = np.unique(np.concatenate([p.seq for p in parts]))
        marks = _lowest([_before(p, seq) for p in parts], [_before(p, seq, quiet=False) for p in parts], self.reached)
        marks = np.maximum.accumulate(marks)
        # After the last reading those that spoke in this step are no longer quiet.
        last = np.array([first.next_seq])
        after = _lowest([_before(p, last) for p in parts], [_before(p, last, quiet=False) for p in parts], self.reached)
        after_rows = max(int(after[0]), int(marks[-1]) if len(marks) else self.reached)
        ended = all(p.ended for p in parts)
        held = [p.watermark for p in parts if not p.quiet] or [max(p.watermark for p in parts)]
        return Progress(
            seq=seq,
            before=marks,
            after=after_rows,
            watermark=max(min(held), after_rows),
            clock=first.clock,
            next_seq=first.next_seq,
            quiet_before=all(p.quiet_before for p in parts),
            quiet=all(p.quiet for p in parts),
            ended=ended,
        )


def _before(p: Progress, seq: Ints, *, quiet: bool = True) -> Ints:
    """An input's watermark just before each arrival; with `quiet`, FAR as long as it had not spoken since it fell quiet."""
    marks: Ints = np.append(p.before, p.after)[np.searchsorted(p.seq, seq)]
    if quiet and p.quiet_before:
        spoke = p.seq[0] if len(p.seq) else FAR
        marks = np.where(seq > spoke, marks, FAR)
    return marks


def _lowest(marks: Sequence[Ints], plain: Sequence[Ints], floor: int) -> Ints:
    """The lowest of all; where every input is quiet, the highest of their own; never below the floor."""
    lowest = np.minimum.reduce(list(marks))
    highest = np.maximum.reduce(list(plain))
    result: Ints = np.maximum(np.where(lowest == FAR, highest, lowest), floor)
    return result


def _zeros(kind: str, n: int) -> Array:
    if kind == "string":
        return np.full(n, "", object)
    return np.zeros(n, DTYPES[kind])
