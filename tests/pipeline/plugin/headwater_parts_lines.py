"""A codec as somebody else would bring it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pipeline.component import Context, ReadingSettings


class _Unfinished:
    media_types: ClassVar[tuple[str, ...]] = ("text/unfinished",)


class Lines:
    """One value a line."""

    media_types: ClassVar[tuple[str, ...]] = ("text/x-lines",)

    def __init__(self, settings: ReadingSettings, options: dict[str, Any], context: Context) -> None:
        self.settings = settings
        self.options = options
        if unknown := options.keys() - {"comment"}:
            context.problem("format", f"unknown option {min(unknown)}")
        if options.get("comment") == "":
            raise ValueError("comment is empty")
