"""What settings are made of beyond TOML's own types: "10 s", "64 MiB", secrets."""

from __future__ import annotations

import re
from typing import Any

_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]+)\s*")

_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_BYTES = {
    "B": 1,
    "kB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}


class Duration(int):
    """A length of time in ns, written "500 ms", "10 s", "2 min", "1 h", "7 d"."""

    def __repr__(self) -> str:
        return f"Duration({str(self)!r})"

    def __str__(self) -> str:
        """In the largest unit that gives a whole number."""
        unit = next(
            (u for u in ("d", "h", "min", "s", "ms", "us") if self and self % _NS[u] == 0), "ns" if self else "s"
        )
        return f"{int(self) // _NS[unit]} {unit}"

    @property
    def seconds(self) -> float:
        return int(self) / 1e9


class Size(int):
    """A number of bytes, written "100 MB", "64 MiB"."""


class Secret(str):
    """Text that is never shown: `repr` and `str` hide it; `reveal` gives it to the one who needs it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def reveal(self) -> str:
        return str.__str__(self)


def duration(text: str) -> Duration:
    """`Duration` of a text such as "10 s". ValueError otherwise."""
    return Duration(_parse(text, _NS, "a duration", '"500 ms", "10 s", "2 min", "1 h" or "7 d"'))


def size(text: str) -> Size:
    """`Size` of a text such as "100 MB". ValueError otherwise."""
    return Size(_parse(text, _BYTES, "a size", '"100 MB" or "64 MiB"'))


def _parse(text: str, units: dict[str, int], what: str, such_as: str) -> int:
    match = _NUMBER.fullmatch(text)
    unit = match and next((u for u in units if u.lower() == match[2].lower()), None)
    if not match or not unit:
        raise ValueError(f"{text!r} is not {what}; write it as {such_as}")
    value = round(float(match[1]) * units[unit])
    if value >= 2**62:
        raise ValueError(f"{text!r} is too much for {what}")
    return value


def convert(kind: type, value: Any) -> Any:
    """The `dec_hook` of msgspec for these types."""
    if kind in (Duration, Size):
        if not isinstance(value, str):
            example = '"10 s"' if kind is Duration else '"100 MB"'
            raise ValueError(f"Expected text such as {example}, got `{type(value).__name__}`")
        return duration(value) if kind is Duration else size(value)
    if kind is Secret:
        if not isinstance(value, str):
            raise ValueError(f"Expected `str`, got `{type(value).__name__}`")
        return Secret(value)
    raise NotImplementedError(kind)
