"""`filter`: pass the readings for which a condition holds."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from pipeline.component import Operator, OperatorContext, Settings
from pipeline.frame import Frame


class FilterSettings(Settings, frozen=True):
    where: Annotated[str, Meta(description="What must be true of a reading.")]


class Filter(Operator):
    """Pass each reading for which `where` is true.

        temperature               21.5  -50  (missing)  99
        temperature >= -40        21.5                  99

        [operators.valid]
        type = "filter"
        input = "greenhouse"
        where = "temperature >= -40"

    Unknown is not enough: a reading whose condition meets a missing value does not pass, unless `or` or `is_missing` makes it
    true all the same. State: none, but for what `previous` and the like remember in `where` (docs/expressions.md): 9 bytes for
    each key.
    """

    only_leaves_out = True

    def __init__(self, settings: FilterSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.where = context.expression(settings.where, "where", "bool")

    def on_frame(self, frame: Frame) -> Frame:
        return frame.where(self.where.holds(frame))
