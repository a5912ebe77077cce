"""What came of a `[[test]]` block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.frame import Frame, KeyTable, Schema, rows

if TYPE_CHECKING:
    from pipeline.trial.block import Block
    from pipeline.trial.coverage import Coverage

Row = dict[str, Any]


class Instant(int):
    """A time in a row, ns since 1970."""


class Result:
    """What came of a test: rows by node, and what a person wants to know if they are not those expected."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.came: dict[str, list[Row]] = {name: [] for name in block.expect}
        self.refused: list[tuple[str, str]] = []  # (source, reason)
        self.said: list[str] = []  # by the log
        self.error = ""  # it did not come to its end
        self.coverage: Coverage | None = None

    def add(self, node: str, stream: str | None, frame: Frame, schema: Schema, keys: KeyTable, **more: Any) -> None:
        """Rows of a node that is asked for; `stream`: which of its inputs they are, of a sink."""
        instants = [name for name in ("time", *schema.fields) if name == "time" or schema.fields[name].kind == "time"]
        told = more if stream is None else {"stream": stream, **more}
        for row in rows(frame, schema, keys.names, "ns"):
            for name in instants:
                if row[name] is not None:
                    row[name] = Instant(row[name])
            self.came[node].append({**told, **row})

    def forget(self) -> None:
        """As if nothing had come."""
        self.said.clear()
        for rows_ in self.came.values():
            rows_.clear()
