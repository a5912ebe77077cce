"""A second codec for the same media type."""

from headwater_parts_lines import Lines


class MoreLines(Lines):
    """The same again."""
