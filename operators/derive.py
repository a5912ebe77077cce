"""`derive`: new fields computed from those there are."""

from __future__ import annotations

from pipeline.component import Operator, OperatorContext, Settings
from pipeline.expression import Expression
from pipeline.frame import Field, Frame, Schema
from pipeline.problem import did_you_mean


class DeriveSettings(Settings, frozen=True):
    set: dict[str, str] = {}
    drop: tuple[str, ...] = ()


class Derive(Operator):
    """Add fields, or put others in their place.

        celsius                        21.5           (missing)
        fahrenheit = celsius * 1.8+32  21.5, 70.7     (missing), (missing)

        [operators.units]
        type = "derive"
        input = "greenhouse"
        set = { fahrenheit = "celsius * 1.8 + 32" }
        drop = ["celsius"]

    Fields are computed in the order in which they are written, so a later one may read an earlier one. `drop` comes last.
    A result that is not defined (x / 0) is missing. State: none.
    """

    def __init__(self, settings: DeriveSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.expressions: dict[str, Expression] = {}
        reserved = {"time", context.schema.key}
        for name, text in settings.set.items():
            if name in reserved or not name.isidentifier():
                context.problem(f"set.{name}", f'"{name}" cannot be the name of a field that is set')
                continue
            made = self.expressions[name] = context.expression(text, f"set.{name}")
            fields = {**context.schema.fields, name: Field(made.kind, made.optional, made.nan)}
            context.schema = context.schema._replace(fields=fields)
        for name in settings.drop:
            if name not in context.schema.fields:
                hint = did_you_mean(name, context.schema.fields)
                context.problem("drop", f'"{name}" is not a field of the input{hint}')
        kept = {n: f for n, f in context.schema.fields.items() if n not in settings.drop}
        self.schema = Schema(context.schema.key, kept, context.schema.role)

    def on_frame(self, frame: Frame) -> Frame:
        for name, expression in self.expressions.items():
            frame = frame.with_columns({name: expression(frame)})
        columns = {name: frame.columns[name] for name in self.schema.fields}
        return Frame(frame.time, frame.key, frame.seq, columns, frame.progress)
