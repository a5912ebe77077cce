"""`value`: a bare number, truth value or text, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta

from pipeline.component import Context, Decoded, ReadingSettings, Refused, Settings
from pipeline.reading import options_of
from pipeline.texts import Texts
from pipeline.typed import EMPTY, RAW


class ValueOptions(Settings, frozen=True):
    field: Annotated[str, Meta(description="What is written of a row. Absent: its only field beside key and time.")] = (
        ""
    )


class Value(Texts):
    """Each line is the value of the one declared field.

        21.5

        format = "value"
        fields = { temperature = "float" }

    A truth value is true or false, yes or no, on or off, 1 or 0. Text is taken as it stands, without the blanks around it.
    Who sent it must be told by something else, as the topic of an MQTT message, and its time is that of arrival.
    Written, a row is the value of one field; a missing one is an empty line.
    """

    Options = ValueOptions
    media_types = ()

    def __init__(self, settings: ReadingSettings, options: dict[str, Any], context: Context) -> None:
        super().__init__(settings, context)
        self.context = context
        self.field = options_of(ValueOptions, options, context).field
        if not settings.fields:
            return  # it is to write, or the source reports it
        if len(self.fields) != 1:
            context.problem("fields", f"a bare value is one field, and there are {len(self.fields)}")
        for name, what in (("key", "does not say whose it is"), ("time", "does not say when it was")):
            if getattr(settings, name) is not None:
                context.problem(name, f"a bare value {what}; leave {name} out")

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        refused: list[Refused] = []
        records: list[tuple[str]] = []
        places: list[tuple[int, int]] = []
        for i, payload in enumerate(payloads):
            lines = self._lines(payload)
            records += [(line,) for line in lines]
            places += [(i, item) for item in range(len(lines))]
            if not lines:
                refused.append(Refused(i, 0, EMPTY, ""))
        return self.records(records, places, refused, len(payloads), lambda row: records[row][0][:RAW])

    def _lines(self, payload: bytes) -> list[str]:
        text = payload.decode(errors="replace").strip()
        return [line for line in map(str.strip, text.split("\n")) if line] if "\n" in text else [text] if text else []

    def readings(self, payload: bytes) -> list[bytes]:
        """Each reading of a payload as one of its own."""
        return [line.encode() for line in self._lines(payload)]

    # --- rows to bytes ---

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        beside = {self.settings.key, "time", "stream"}
        lines = []
        for row in rows:
            name = self.field or next((n for n in row if n not in beside), "")
            lines.append(_shown(row.get(name)) + "\n")
        return "".join(lines).encode()

    def header(self, names: Sequence[str]) -> bytes:
        fields = [name for name in names if name not in (self.settings.key, "time", "stream")]
        if self.field and self.field not in names:
            self.context.problem("format.field", f'"{self.field}" is none of the fields: {", ".join(names)}')
        elif not self.field and len(fields) != 1:
            self.context.problem("format", f"a bare value is one field; say which: field = one of {', '.join(fields)}")
        return b""


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    # A line is a value, so a text stays on one.
    return " ".join(value.split("\n")) if isinstance(value, str) else repr(value)
