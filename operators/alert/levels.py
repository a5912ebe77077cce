"""The levels of an alert: their conditions, and what each reading says to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from operators.alert.watch import BITS, BROKEN, CLEARS, ENDING, HOLDS, OFF, PENDING, SET
from pipeline.frame import Array, Bools, Frame, Ints

if TYPE_CHECKING:
    from pipeline.expression import Expression
    from pipeline.frame import Schema

MOST_LEVELS = 20  # so that the codes of all fit into 64 bits


class Said(NamedTuple):
    """What each reading says to a level."""

    holds: Bools
    known: Bools | None  # is there an answer to `when`; None: to all
    clears: Bools

    def take(self, rows: slice) -> Said:
        return Said(self.holds[rows], None if self.known is None else self.known[rows], self.clears[rows])

    def broken(self) -> Bools:
        """`when` is known to be false."""
        return _false(self.holds, self.known)


def _false(holds: Bools, known: Bools | None) -> Bools:
    result: Bools = ~holds if known is None else known > holds
    return result


def codes(said: list[Said], rows: Ints) -> Ints:
    """What these readings say to all levels, in one number each."""
    code = np.zeros(len(rows), np.int64)
    for level, one in enumerate(said):
        own = one.holds[rows] * HOLDS + one.broken()[rows] * BROKEN + one.clears[rows] * CLEARS
        code |= own.astype(np.int64) << BITS * level
    return code


class Level(NamedTuple):
    number: int  # from the lowest
    name: str
    when: Expression
    clear: Expression | None  # None: as soon as `when` is known to be false
    hold: int  # `for`, ns
    keep: int  # ns

    def says(self, frame: Frame) -> Said:
        holds, known = self.when(frame)
        # Of truth values, a > b is `a and not b`, in one step: a Frame of one reading pays by the step.
        clears = _false(holds, known) if self.clear is None else self.clear.holds(frame) > holds
        return Said(holds, known, clears)

    def news(self, state: Array, said: Said) -> Bools:
        """Where a reading says other than its key's latch."""
        if not state.any():
            return said.holds
        if not (self.hold or self.keep):
            return np.where(state == SET, said.clears, said.holds)
        held = np.where(state == PENDING, said.broken(), said.holds)
        return np.where(state == SET, said.clears, held)

    def kept(self, state: Array, said: Said) -> Bools | None:
        """Where a reading says once more what its key waits for: it is then the one to show."""
        if not (self.hold or self.keep) or not state.any():
            return None
        again: Bools = ((state == PENDING) & said.holds) | ((state == ENDING) & said.clears)
        return again


def levels_of(settings: Any, context: Any, schema: Any) -> list[Level]:
    """Those of the settings; none where only silence is watched. What is wrong is told."""
    if settings.levels is not None and settings.when is not None:
        context.problem("levels", 'an alert needs either "when" or "levels"; both are given')
    if not settings.levels and settings.when is None:
        if settings.silent_for is None:
            context.problem("when", 'an alert needs either "when" or "levels" (or "silent_for")')
        for setting in ("clear", "for_", "keep"):
            if getattr(settings, setting):
                name = setting.removesuffix("_")
                context.problem(name, f'"{name}" goes with a condition: add "when"')
        return []
    if settings.levels:
        for setting, own in (("clear", '"clear"'), ("level", "name")):
            if getattr(settings, setting) is not None:
                context.problem(setting, f'with "levels", each level has its own {own}')
        declared = [(f"levels.{name}.", name, level) for name, level in settings.levels.items()]
    else:
        declared = [("", settings.level or DEFAULT_LEVEL, settings)]
    if len(declared) > MOST_LEVELS:
        context.problem("levels", f"there may be at most {MOST_LEVELS} levels")
        declared = declared[:MOST_LEVELS]
    levels = []
    for index, (at, name, level) in enumerate(declared):
        when = context.expression(level.when, at + "when", "bool", schema)
        clear = None if level.clear is None else context.expression(level.clear, at + "clear", "bool", schema)
        if level.clear is None and not (level.for_ or settings.for_) and _measured(when, schema):
            context.warn(
                at + "when", 'a value around the limit raises it again and again: add "clear" below it, or "for"'
            )
        hold = settings.for_ if level.for_ is None else level.for_
        keep = settings.keep if level.keep is None else level.keep
        levels.append(Level(index, name, when, clear, int(hold), int(keep)))
    return levels


def _measured(when: Expression, schema: Schema) -> bool:
    """Does it look at what a sensor measures, with noise?"""
    return any(schema.fields[name].kind == "float" for name in when.names if name in schema.fields)


DEFAULT_LEVEL = "warning"
assert OFF == 0  # so that `any` tells whether a latch is in use
