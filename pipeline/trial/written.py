"""Rows as they stand in a `[[test]]` block."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date
from typing import Any

from pipeline.trial.result import Instant

MISSING = "{ missing = true }"


def written(row: Mapping[str, Any], start: int) -> str:
    """What is missing is left out; times are told after `start`."""
    return "{ " + ", ".join(f"{key(n)} = {written_value(v, start)}" for n, v in row.items() if v is not None) + " }"


def written_value(value: Any, start: int) -> str:
    if value is None:
        return MISSING
    if isinstance(value, Instant):
        return f'"{after(value - start)}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.isoformat() if isinstance(value, date) else f"{value}"


def text(value: str) -> str:
    """As a basic string of TOML, which is one of JSON, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def key(name: str) -> str:
    return name if name.replace("-", "_").isidentifier() and name.isascii() else text(name)


def after(ns: int) -> str:
    """`10 s`, `-2.5 s`, `3661 s`: after the start."""
    sign = "-" if ns < 0 else ""
    whole, rest = divmod(abs(ns), 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{sign}{whole}{fraction} s"
