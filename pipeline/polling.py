"""What sources share that ask their devices at a steady pace: when the next poll is due, and readings by device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.component import Decoded, Payload, Refused, Source
from pipeline.frame import column

READING_BYTES = 200  # what a reading counts for in the inbox

Value = float | int | bool | str | None


class Reading(NamedTuple):
    """What a poll of one device gave."""

    device: str
    values: Mapping[str, Value] | None  # None: nothing
    trouble: str = ""  # what has begun to go wrong

    def payload(self) -> Payload:
        return Payload(self, READING_BYTES)


class PolledSource(Source):
    """A source whose payloads are `Reading`s; the device is the key. What has begun to go wrong with one is a dead letter."""

    def given(self, reading: Mapping[str, Any]) -> Payload | None:
        values = {name: reading[name] for name in self.schema.fields if name in reading}
        return Reading(str(reading.get(self.schema.key or "", self.devices()[0])), values).payload()

    def devices(self) -> Sequence[str]:
        """Their names; at least one."""
        raise NotImplementedError

    def decode(self, payloads: Sequence[Payload]) -> Decoded:
        readings: list[Reading] = [p.data for p in payloads]
        good = [r for r in readings if r.values is not None]
        columns = {
            name: column(field.kind, [r.values.get(name) if r.values else None for r in good])
            for name, field in self.schema.fields.items()
        }
        counts = [int(r.values is not None) for r in readings]
        refused = [Refused(i, counts[i], r.trouble, r.device) for i, r in enumerate(readings) if r.trouble]
        return Decoded([r.device for r in good], None, columns, counts, refused)


def due_after(due: float, now: float, every: float) -> float:
    """When the next poll is due. The grid stays what it was: a slow poll makes the next ones neither late nor close."""
    return due + every * max(1, math.floor((now - due) / every) + 1)
