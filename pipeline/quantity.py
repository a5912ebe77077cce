"""What settings are made of beyond TOML's own types: "10 s", "64 MiB", secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_NUMBER = re.compile(r"\s*([0-9]+)(?:\.([0-9]+))?\s*([A-Za-zµμ]*)\s*")  # both signs that people type for micro
_LARGEST = 2**62  # sums of two still fit into 64 bits
MASK = "***"  # what a secret is shown as, and begins with where the pipeline's text is kept (masked.py)
_LONGEST = 100  # characters; nobody means more, and Python refuses to read very long numbers

TIME_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "y": 365 * 86_400_000_000_000,
}
BYTE_UNITS = {
    "B": 1,
    "kB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
    "TB": 1_000_000_000_000,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
# What people write instead, and what they most likely mean.
_MEANT = {
    **dict.fromkeys(("m", "minute", "minutes", "mins"), "min"),
    **dict.fromkeys(("sec", "secs", "second", "seconds", ""), "s"),
    **dict.fromkeys(("hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("day", "days"), "d"),
    **dict.fromkeys(("yr", "year", "years"), "y"),
    **dict.fromkeys(("msec", "millis", "milliseconds"), "ms"),
    **dict.fromkeys(("byte", "bytes"), "B"),
    **dict.fromkeys(("k", "kbyte"), "kB"),
    **dict.fromkeys(("mbyte", "megabytes"), "MB"),
    **dict.fromkeys(("g", "gigabytes"), "GB"),
}


class Duration(int):
    """A length of time in ns, written "500 ms", "10 s", "2 min", "1 h", "7 d"."""

    def __repr__(self) -> str:
        return f"Duration({str(self)!r})"

    def __str__(self) -> str:
        """In the largest unit that gives a whole number."""
        return _in_units(self, TIME_UNITS, ("d", "h", "min", "s", "ms", "us", "ns"), "s")

    @property
    def seconds(self) -> float:
        return int(self) / 1e9


class Size(int):
    """A number of bytes, written "100 MB", "64 MiB"."""

    def __repr__(self) -> str:
        return f"Size({str(self)!r})"

    def __str__(self) -> str:
        """In the largest unit that gives a whole number; decimal where both kinds do."""
        return _in_units(self, BYTE_UNITS, ("TB", "GB", "MB", "kB", "TiB", "GiB", "MiB", "KiB", "B"), "B")


class Secret:
    """Text that is never shown: `repr`, `str` and formatting hide it; `reveal` gives it to the one who needs it.

    It is no `str`, so that neither `json` nor `+` nor `join` can give it away by accident.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))


def duration(text: str) -> Duration:
    """`Duration` of a text such as "10 s". ValueError otherwise."""
    return Duration(_parse(text, TIME_UNITS, "a duration", '"500 ms", "10 s", "2 min", "1 h" or "7 d"'))


def size(text: str) -> Size:
    """`Size` of a text such as "100 MB". ValueError otherwise."""
    return Size(_parse(text, BYTE_UNITS, "a size", '"100 MB" or "64 MiB"'))


def _parse(text: str, units: dict[str, int], what: str, such_as: str) -> int:
    match = _NUMBER.fullmatch(text)
    if not match:
        raise ValueError(f'"{text}" is not {what}; write it as {such_as}')
    whole, fraction, unit = match[1], match[2] or "", match[3].replace("μ", "µ").lower()
    per = next((ns for name, ns in units.items() if name.lower() == unit), None)
    if per is None:
        meant = _MEANT.get(unit)
        hint = f' (did you mean "{text.strip().removesuffix(match[3]).strip()} {meant}"?)' if meant in units else ""
        raise ValueError(f'"{text}" is not {what}; write it as {such_as}{hint}')
    # In whole numbers throughout: "0.1 s" is exact, and so is a year in ns.
    divisor: int = 10 ** len(fraction)
    value = (int(whole + fraction) * per * 2 + divisor) // (2 * divisor) if len(match[0]) < _LONGEST else _LARGEST
    if value >= _LARGEST:
        raise ValueError(f'"{text}" is too much for {what}')
    return value


def _in_units(value: int, units: dict[str, int], names: tuple[str, ...], of_zero: str) -> str:
    count = int(value)
    name = next((n for n in names if count and count % units[n] == 0), of_zero)
    return f"{count // units[name]} {name}"


def convert(kind: type, value: Any) -> Any:
    """The `dec_hook` of msgspec for these types. What is refused is never echoed where it may be a secret."""
    if kind is Duration or kind is Size:
        if not isinstance(value, str):
            raise ValueError('expected text such as "10 s"' if kind is Duration else 'expected text such as "100 MB"')
        return duration(value) if kind is Duration else size(value)
    if kind is Secret:
        if not isinstance(value, str):
            raise ValueError("expected text")
        return Secret(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(kind)
