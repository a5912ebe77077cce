"""Settings changed for a replay: `operators.overheat.when=temperature > 32`, one by one or over many values."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Sequence
from datetime import date, time
from typing import Any, NamedTuple

from pipeline.problem import did_you_mean, dotted

PLACE = "{x}"  # where a sweep puts its values
MOST_VALUES = 1_000
_RANGE = re.compile(r"(-?[0-9.eE+-]+)\s*(?:\.\.|:)\s*(-?[0-9.eE+-]+)\s*(?::|step)\s*([0-9.eE+-]+)")


class Mistaken(ValueError):
    """What was asked for cannot be; the text says why."""


class Change(NamedTuple):
    path: tuple[str, ...]
    text: str

    def value(self) -> Any:
        """As TOML reads it; what TOML does not take is text, so that no quotes within quotes are needed."""
        try:
            value = tomllib.loads(f"value = {self.text}")
        except tomllib.TOMLDecodeError:
            return self.text
        found = value["value"]
        return self.text if len(value) > 1 or isinstance(found, date | time) else found

    def at(self, x: str) -> Change:
        return self._replace(text=self.text.replace(PLACE, x))


def parse(text: str) -> Change:
    """`operators.overheat.when=temperature > 32`; the path is written as in TOML."""
    path, equals, value = text.partition("=")
    try:
        table: Any = tomllib.loads(f"{path} = 0")
    except tomllib.TOMLDecodeError:
        table = {}
    found = []
    while isinstance(table, dict) and len(table) == 1:
        ((name, table),) = table.items()
        found.append(name)
    if not equals or table != 0 or len(found) < 2:
        raise Mistaken(f'write TABLE.NAME.SETTING=VALUE, as operators.overheat.when="temperature > 32", not "{text}"')
    return Change(tuple(found), value.strip())


def changing(changes: Sequence[Change]) -> Callable[[dict[str, Any]], None]:
    """Puts them into the tables of a file. Mistaken if there is no such node; of settings the file's own check tells."""

    def change(tables: dict[str, Any]) -> None:
        for one in changes:
            at: Any = tables
            for depth, name in enumerate(one.path[:-1]):
                if not isinstance(at.get(name), dict):
                    if depth > 1 and name not in at:
                        at[name] = {}  # a table of settings that the file leaves out
                    else:
                        hint = did_you_mean(name, at)
                        raise Mistaken(f'{dotted(one.path)}: there is no "{dotted(one.path[: depth + 1])}"{hint}')
                at = at[name]
            _replace(at, one)

    return change


def _replace(table: dict[str, Any], change: Change) -> None:
    name = change.path[-1]
    if name in ("type", "enabled") and change.path[0] == "sources":
        raise Mistaken(f"{dotted(change.path)}: a replay takes the sources as they were")
    if name == "inputs":
        table.pop("input", None)
    if name == "input":
        table.pop("inputs", None)
    value = change.value()
    # Where text stands, `false` or 30 is an expression, too.
    table[name] = change.text if isinstance(table.get(name), str) and isinstance(value, bool | int | float) else value


def values(text: str) -> list[str]:
    """`28,30,32`, or a range with its end: `28..36:2` (`28:36:2`)."""
    if not (match := _RANGE.fullmatch(text.strip())):
        found = [value.strip() for value in text.split(",") if value.strip()]
        if not found:
            raise Mistaken("--values: give some, as 28,30,32 or 28..36:2")
        return found
    try:
        first, last, step = (float(part) for part in match.groups())
    except ValueError:
        raise Mistaken(f'--values: "{text}" is no range; write it as 28..36:2') from None
    if not step or not all(map(math.isfinite, (first, last, step))) or (last - first) / step < 0:
        raise Mistaken(f'--values: "{text}" goes nowhere')
    count = math.floor((last - first) / step + 1e-9) + 1
    if count > MOST_VALUES:
        raise Mistaken(f"--values: {count:,} values are more than {MOST_VALUES:,}")
    return [f"{first + i * step:.12g}" for i in range(count)]
