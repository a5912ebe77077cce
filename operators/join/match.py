"""What must be equal for two readings to belong together, as a code for each."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from pipeline.component import OperatorContext
from pipeline.frame import Frame, Ints, Schema
from pipeline.problem import did_you_mean

KINDS = ("string", "int", "bool")  # that may be compared; equal floats are an accident
On = str | tuple[str, ...] | dict[str, str] | None


def pairs(on: On, key: str | None) -> dict[str, str]:
    """Name here = name there; `key` is the default."""
    if on is None:
        return {key: key} if key else {}
    if isinstance(on, dict):
        return on
    return {name: name for name in ((on,) if isinstance(on, str) else on)}


def kind_of(name: str, schema: Schema) -> str | None:
    """The kind of a field, or of the key under its name; None: there is no such."""
    if name == schema.key:
        return "string"
    return schema.fields[name].kind if name in schema.fields else None


class Match:
    """`on` between the input (here) and another stream (there)."""

    def __init__(self, on: On, context: OperatorContext, there: Schema, stream: str) -> None:
        here = context.schema
        self.keys = context.keys
        if on is None and (here.key is None) != (there.key is None):
            without = f'"{stream}"' if there.key is None else "the input"
            context.problem("on", f"{without} has no key: name fields that both have, or [] to match every reading")
        by_key = on is None or (len(pairs(on, None)) == 1 and [*pairs(on, None).items()] == [(here.key, there.key)])
        self.pairs = {} if by_key else self._checked(pairs(on, None), context, there, stream)
        self.there = [*self.pairs.values()]
        self.by_key = by_key
        self.schemas = here, there
        self._codes: dict[tuple[Any, ...], int] = {}  # what spares making JSON of each reading; no part of the state

    def _checked(self, named: dict[str, str], context: OperatorContext, there: Schema, stream: str) -> dict[str, str]:
        found = {}
        for name, other in named.items():
            kinds = []
            for field, schema, where in ((name, context.schema, "the input"), (other, there, f'"{stream}"')):
                kind = kind_of(field, schema)
                if kind is None:
                    known = schema.names()
                    context.problem("on", f'"{field}" is not a field of {where}{did_you_mean(field, known)}')
                elif kind not in KINDS:
                    context.problem(
                        "on", f'"{field}" of {where} is a {kind}; text, whole numbers and truths can be matched'
                    )
                else:
                    kinds.append(kind)
            if len(kinds) == 2 and kinds[0] != kinds[1]:
                context.problem(
                    "on", f'"{name}" is {kinds[0]} here and {kinds[1]} in "{stream}"; convert one with a derive'
                )
            elif len(kinds) == 2:
                found[name] = other
        return found

    def here_groups(self, frame: Frame) -> Ints:
        return self._groups(frame, [*self.pairs], self.schemas[0])

    def there_groups(self, frame: Frame) -> Ints:
        return self._groups(frame, self.there, self.schemas[1])

    def _groups(self, frame: Frame, names: list[str], schema: Schema) -> Ints:
        """The group of each row; -1 where a value is missing. ValueError where there can be no more groups."""
        if self.by_key:
            return frame.key.astype(np.int64)
        if not names:
            return np.full(len(frame), self.keys.whole(), np.int64)
        texts = self.keys.names
        parts = [
            [texts[code] for code in frame.key.tolist()] if name == schema.key else frame[name].tolist()
            for name in names
        ]
        rows = list(zip(*parts, strict=True))
        for values in set(rows).difference(self._codes):
            if None not in values:
                code = self.keys[json.dumps(values, ensure_ascii=False)]
                if code < 0:
                    raise ValueError(self.keys.why(code))
                self._codes[values] = code
        return np.fromiter((self._codes.get(values, -1) for values in rows), np.int64, len(rows))
