"""From single named values to readings: what senml and sparkplug share.

A name is all key, all field, or, by a separator, a key and a field. Values of one key and time are one reading.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, NamedTuple


class Row(NamedTuple):
    key: str | None
    time: Any
    values: dict[str, Any]


class Gathering:
    """The readings of one payload, in the order of their first values."""

    def __init__(self, fields: Container[str], separator: str, *, keyed: bool) -> None:
        self.fields = fields  # others are left out
        self.separator = separator
        self.keyed = keyed
        self.rows: list[Row] = []
        self._found: dict[tuple[str | None, Any], Row] = {}

    def take(self, name: str, time: Any, value: Any) -> str:
        """Why it cannot be taken, if it cannot."""
        key: str | None = None
        field = name
        if self.separator:
            key, parted, field = name.rpartition(self.separator)
            if not parted and self.keyed:
                return f'the name "{name[:50]}" has no "{self.separator}" between key and field'
        if field not in self.fields or value is None:
            return ""
        row = self._found.get((key, time))
        if row is None or field in row.values:  # said twice, it is another reading
            row = self._found[key, time] = Row(key, time, {})
            self.rows.append(row)
        row.values[field] = value
        return ""
