"""`derive`: new fields computed from those there are."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from pipeline.component import Operator, OperatorContext, Settings
from pipeline.expression import Expression
from pipeline.frame import Field, Frame, Schema
from pipeline.problem import did_you_mean


class DeriveSettings(Settings, frozen=True):
    set: Annotated[dict[str, str], Meta(description="Name of a field = the expression that gives it.")] = {}
    drop: Annotated[tuple[str, ...], Meta(description="Fields that do not go on.")] = ()
    keep: Annotated[tuple[str, ...], Meta(description="The only fields that go on. Absent: all.")] = ()


class Derive(Operator):
    """Add fields, or put others in their place.

        celsius                          21.5   (missing)
        fahrenheit = celsius * 1.8 + 32  70.7   (missing)

        [operators.units]
        type = "derive"
        input = "greenhouse"
        set = { fahrenheit = "celsius * 1.8 + 32" }
        drop = ["celsius"]

    Fields are computed in the order in which they are written, so a later one may read an earlier one. `drop` or `keep`
    comes last; the key and the time always stay. A result that is not defined (x / 0) is missing. State: none, but for what
    `previous` and the like remember (docs/expressions.md): 9 bytes for each key and call.
    """

    def __init__(self, settings: DeriveSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.expressions: dict[str, Expression] = {}
        fields = dict(context.fields)
        for name, text in settings.set.items():
            if name in ("time", context.schema.key) or not name.isidentifier():
                context.problem(f"set.{name}", f'"{name}" cannot be the name of a field that is set')
                continue
            made = context.expression(text, f"set.{name}", schema=context.schema._replace(fields=fields))
            self.expressions[name] = made
            fields = {**fields, name: Field(made.kind, made.optional, made.nan)}
        kept = {name: fields[name] for name in _chosen(settings, fields, context)}
        self.schema = Schema(context.schema.key, kept, context.schema.role)

    def on_frame(self, frame: Frame) -> Frame:
        columns = dict(frame.columns)
        so_far = Frame(frame.time, frame.key, frame.seq, columns, frame.progress)
        for name, expression in self.expressions.items():
            columns[name] = expression(so_far)
        kept = {name: columns[name] for name in self.schema.fields}
        return Frame(frame.time, frame.key, frame.seq, kept, frame.progress)


def _chosen(settings: DeriveSettings, fields: dict[str, Field], context: OperatorContext) -> list[str]:
    """The names of the fields that go on."""
    if settings.drop and settings.keep:
        context.problem("keep", 'either "drop" or "keep"')
    for setting, names in (("drop", settings.drop), ("keep", settings.keep)):
        for name in names:
            if name not in fields:
                context.problem(setting, f'"{name}" is not a field{did_you_mean(name, fields)}')
    if settings.keep:
        return [name for name in fields if name in settings.keep]
    return [name for name in fields if name not in settings.drop]
