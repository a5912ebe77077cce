"""`inhibit`: for which keys another alert fires."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from operators.alert.watch import Watch
    from pipeline.component import OperatorContext
    from pipeline.frame import Frame


class Event(NamedTuple):
    """Another alert begins or ends to fire for a key. In the order of the first two fields, among the key's readings (1):
    what one reading has caused holds back before that reading is taken here, and lets go after it."""

    seq: int
    place: int  # 0: begins; 2: ends
    stream: str
    time: int


class Inhibit:
    """The other alerts, by key. State: 1 byte for each key and alert."""

    def __init__(self, context: OperatorContext) -> None:
        self.schemas = context.sides.get("inhibit", {})
        self.state = context.per_key("inhibit", [(name, "?") for name in self.schemas])
        for name, schema in self.schemas.items():
            if schema.role != "alerts" or "state" not in schema.fields:
                context.problem("inhibit", f'"{name}" is not an alert')
            elif schema.key != context.schema.key:
                theirs, ours = (f'by "{key}"' if key else "without a key" for key in (schema.key, context.schema.key))
                context.problem("inhibit", f'"{name}" is {theirs}, and the input is {ours}: no key is the same')

    def events(self, sides: Mapping[str, Frame]) -> dict[int, list[Event]]:
        """By key and in order. Of several that one reading has caused the last one counts."""
        last: dict[tuple[int, int, str], Event] = {}
        for name, frame in sides.items():
            if not len(frame) or name not in self.schemas:
                continue
            firing = frame.columns["state"].values == "firing"
            columns = (frame.key, frame.seq, frame.time, np.where(firing, 0, 2))
            for key, seq, time, place in zip(*(column.tolist() for column in columns), strict=True):
                last[key, seq, name] = Event(seq, place, name, time)
        found: dict[int, list[Event]] = {}
        for (key, _, _), event in sorted(last.items(), key=lambda item: item[1][:2]):
            found.setdefault(key, []).append(event)
        return found

    def take(self, key: int, event: Event) -> bool:
        """Does any fire for the key now?"""
        self.state.data[event.stream][key] = event.place == 0
        return any(self.state.data[key].item())

    def load(self, watch: Watch) -> None:
        inhibited = any(self.state.data[watch.key].item())
        if inhibited != watch.inhibited:
            watch.inhibited = inhibited
            watch.plan()
