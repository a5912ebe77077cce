"""What `by` makes of readings: groups, each with a code, an order and the fields that show it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.frame import Column, Field, Frame, Ints, KeyTable, column
from pipeline.problem import did_you_mean

if TYPE_CHECKING:
    from pipeline.component import OperatorContext

OWN_FIELDS = {"start": Field("time"), "end": Field("time"), "revision": Field("int")}


class Groups:
    """What `by` makes of readings: the code of each one's group, and the fields that show a group."""

    def __init__(self, by: tuple[str, ...] | None, context: OperatorContext) -> None:
        schema = context.schema
        self.keys = context.keys
        self.key_name = schema.key
        self.by_key = by is None or by == (schema.key,)
        self.by = () if self.by_key or by is None else self._known(by, context)
        self.fields: dict[str, Field] = {}
        self.key = schema.key if self.by_key else None
        self.ranks = Ranks(context.keys)
        if len(self.by) == 1 and schema.fields.get(self.by[0]) == Field("string"):
            self.key = self.by[0]
        else:
            self.fields = {name: schema.fields.get(name, Field("string")) for name in self.by}
        self._seen: dict[tuple[Any, ...], int] = {}  # what spares making JSON of each reading; no part of the state

    @staticmethod
    def _known(by: tuple[str, ...], context: OperatorContext) -> tuple[str, ...]:
        known = [*([context.schema.key] if context.schema.key else []), *context.fields]
        for i, name in enumerate(by):
            if name not in known:
                context.problem("by", f'"{name}" is not a field of the input{did_you_mean(name, known)}')
            elif name in by[:i]:
                context.problem("by", f'"{name}" is named twice')
            elif name in context.fields and context.fields[name].nan:
                context.problem("by", f'"{name}" may be NaN, which equals nothing and makes no group')
            elif name in context.fields and context.fields[name].kind == "float":
                context.warn(
                    "by", f'each different "{name}" is a group of its own: round it first, or group by something else'
                )
            elif name in OWN_FIELDS:
                context.problem("by", f'the rows of a window have a "{name}" of their own; rename that of the input')
        return tuple(dict.fromkeys(name for name in by if name in known))

    def codes(self, frame: Frame) -> Ints:
        """The group of each row. ValueError where there can be no more groups."""
        if self.by_key or not len(frame):
            return frame.key.astype(np.int64)
        if not self.by:
            return np.full(len(frame), self.keys.whole(), np.int64)
        parts = [self._texts(frame) if n == self.key_name else frame[n].tolist() for n in self.by]
        codes = self._of_text(parts[0]) if self.key is not None else self._of_several(list(zip(*parts, strict=True)))
        if int(codes.min()) < 0:
            raise ValueError(f"too many groups (max_keys = {self.keys.limit:,}), or the text of one is too long")
        return codes

    def _texts(self, frame: Frame) -> list[str]:
        names = self.keys.names
        return [names[code] for code in frame.key.tolist()]

    def _of_text(self, texts: list[str]) -> Ints:
        whole = self.keys.whole() if "" in texts else -1
        return np.fromiter((self.keys[t] if t else whole for t in texts), np.int64, len(texts))

    def _of_several(self, groups: list[tuple[Any, ...]]) -> Ints:
        for group in set(groups).difference(self._seen):
            code = self.keys[json.dumps(group, ensure_ascii=False)]
            if code >= 0:
                self._seen[group] = code
        return np.fromiter((self._seen.get(g, -1) for g in groups), np.int64, len(groups))

    def columns(self, group: Ints) -> dict[str, Column]:
        """The fields of these groups, where they are not shown as the key."""
        if not self.fields:
            return {}
        groups = [json.loads(self.keys.names[code]) for code in group.tolist()]
        return {name: column(f.kind, [g[i] for g in groups]) for i, (name, f) in enumerate(self.fields.items())}


class Ranks:
    """Numbers in the order of the groups' texts. All keys are put in order only once as many were sorted singly."""

    def __init__(self, keys: KeyTable) -> None:
        self._keys = keys
        self._ordered = 0  # keys that there were when all were put in order
        self._sorted = 0  # groups sorted singly since

    def __call__(self, group: Ints) -> Ints:
        self._sorted += len(group)
        if len(self._keys) == self._ordered or self._sorted >= len(self._keys):
            self._ordered, self._sorted = len(self._keys), 0
            return self._keys.ranks()[group]
        distinct, which = np.unique(group, return_inverse=True)
        order = sorted(range(len(distinct)), key=[self._keys.names[code] for code in distinct.tolist()].__getitem__)
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        found: Ints = ranks[which]
        return found
