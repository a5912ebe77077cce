"""`switch`: send each reading to a named output, by conditions."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from pipeline.component import Operator, OperatorContext, Settings
from pipeline.frame import Frame

OTHER = "other"  # the output of what no case takes


class SwitchSettings(Settings, frozen=True):
    cases: Annotated[dict[str, str], Meta(description="Name of an output = what must be true of its readings.")]
    take: Annotated[
        Literal["first", "all"],
        Meta(description='"first": a reading goes to the first case that holds. "all": to each that holds.'),
    ] = "first"


class Switch(Operator):
    """Send each reading to the output of the first case that holds: `NAME.case`.

        temperature               21   31   2    (missing)
        .hot  temperature > 30         31
        .cold temperature < 5               2
        .other                    21             (missing)

        [operators.by_heat]
        type = "switch"
        input = "greenhouse"
        cases = { hot = "temperature > 30", cold = "temperature < 5" }

    Others read `by_heat.hot`, `by_heat.cold` and `by_heat.other`; `by_heat` itself gives the readings of all cases, so it
    and `by_heat.other` are the input again. Cases are tried in the order in which they are written; with `take = "all"` a
    reading goes to every case that holds. Unknown is not enough: it is as if the case did not hold. State: none.
    """

    def __init__(self, settings: SwitchSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.cases = []
        for name, text in settings.cases.items():
            where = f"cases.{name}"
            if not name.isidentifier() or name == OTHER:
                why = "is the output of what no case takes" if name == OTHER else "is no name: letters, digits and _"
                context.problem(where, f'"{name}" {why}; choose another name')
            self.cases.append((context.expression(text, where, "bool"), context.output(name, context.schema)))
        if not settings.cases:
            context.problem("cases", 'name at least one: cases = { hot = "temperature > 30" }')
        self.other = context.output(OTHER, context.schema)
        self.first = settings.take == "first"

    def on_frame(self, frame: Frame) -> Frame:
        if not len(frame):
            return frame
        held = [case.holds(frame) for case, _ in self.cases]  # all of them before a row goes out: they may raise
        taken = np.zeros(len(frame), np.bool_)
        for holds, (_, emit) in zip(held, self.cases, strict=True):
            goes = holds & ~taken if self.first else holds
            if goes.any():
                emit(frame.where(goes))
            taken |= holds
        if taken.all():
            return frame
        self.other(frame.where(~taken))
        return frame.where(taken)
