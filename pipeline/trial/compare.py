"""The rows that came beside those that were expected, and the difference in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import zip_longest
from typing import Any

from pipeline import times
from pipeline.frame import instant_text
from pipeline.trial.block import Block, moment
from pipeline.trial.result import Instant, Result, Row
from pipeline.trial.written import after, written, written_value

DIGITS = 1e-9  # numbers are compared to nine digits
ALIGNED = 100  # rows, from the first difference on, in which the best fit is looked for
SHOWN = 8  # rows of a node that are shown


def differences(result: Result) -> list[str]:
    """Lines that say what is not as expected; none: the test has passed."""
    lines = []
    for node, wanted in result.block.expect.items():
        lines += _Comparison(result.block, node, wanted, result.came[node]).lines()
    if result.error:
        lines.insert(0, f"it did not come to its end: {result.error}")
    if not lines:
        return []
    return [*lines, *_hints(result)]


def _hints(result: Result) -> Iterator[str]:
    """What may be the cause."""
    reasons = list(dict.fromkeys(result.refused))
    for source, reason in reasons[:3]:
        count = result.refused.count((source, reason))
        yield f'note: "{source}" refused {count} reading{"" if count == 1 else "s"}: {reason}'
    for said in list(dict.fromkeys(result.said))[:3]:
        yield f"note: {said}"
    if result.block.open and not result.error:
        yield f"note: it ended with its last row or step, at {after(result.block.end)}; until = … lets more time pass"


class _Comparison:
    def __init__(self, block: Block, node: str, wanted: Sequence[Row], came: Sequence[Row]) -> None:
        self.block = block
        self.node = node
        self.wanted = wanted
        self.came = came

    def lines(self) -> list[str]:
        wanted, came = self.wanted, self.came
        same = 0
        while same < min(len(wanted), len(came)) and self._fits(wanted[same], came[same]):
            same += 1
        if same == len(wanted) == len(came):
            return []
        lines = [f"{self.node}: {_rows(len(wanted))} expected, {len(came)} came"]
        if same:
            lines.append(f"  = {_rows(same)} as expected")
        told = list(self._told(same))
        lines += [f"  {line}" for line in told[: 2 * SHOWN]]
        if len(told) > 2 * SHOWN:
            lines.append("  …")
        return lines

    # --- which belongs to which ---

    def _told(self, start: int) -> Iterator[str]:
        pairs = self._paired(start, min(len(self.wanted), start + ALIGNED), min(len(self.came), start + ALIGNED))
        for want, got in pairs:
            if want is None and got is not None:
                yield f"+ {self._row(self.came[got])} was not expected"
            elif got is None and want is not None:
                yield f"- row {want + 1} is missing: {self._row(self.wanted[want])}"
            elif want is not None and got is not None:
                if self._fits(self.wanted[want], self.came[got]):
                    yield f"= row {want + 1}"
                else:
                    yield from self._differing(want, self.wanted[want], self.came[got])
        rest = len(self.wanted) - start - ALIGNED, len(self.came) - start - ALIGNED
        if max(rest) > 0:
            yield f"… and {max(rest[0], 0)} more expected, {max(rest[1], 0)} more that came"

    def _paired(self, start: int, end: int, end_came: int) -> Iterator[tuple[int | None, int | None]]:
        """The longest run of rows that fit, in order; between them what differs, pair by pair."""
        fits = [[self._fits(want, got) for got in self.came[start:end_came]] for want in self.wanted[start:end]]
        i, j = start, start
        for k, m in [*((start + a, start + b) for a, b in _longest_run(fits)), (end, end_came)]:
            yield from zip_longest(range(i, k), range(j, m))
            if k < end:
                yield k, m
            i, j = k + 1, m + 1

    def _differing(self, index: int, want: Row, got: Row) -> Iterator[str]:
        for name, value in want.items():
            if not self._same(value, got.get(name)):
                yield f"! row {index + 1}, {name}: expected {self._value(value)}, got {self._got(value, got.get(name))}"
        yield f"    the whole row: {self._row(got)}"

    # --- rows and values ---

    def _fits(self, want: Row, got: Row) -> bool:
        return all(self._same(value, got.get(name)) for name, value in want.items())

    def _same(self, want: Any, got: Any) -> bool:
        if want is None or got is None:
            return want is got
        if isinstance(got, Instant):
            return moment(want, self.block.start) == got
        if isinstance(want, bool) or isinstance(got, bool):
            return want is got
        if isinstance(want, int | float) and isinstance(got, int | float):
            both_nan = want != want and got != got
            return both_nan or want == got or math.isclose(want, got, rel_tol=DIGITS, abs_tol=DIGITS)
        return bool(want == got)

    def _row(self, row: Row) -> str:
        return written(row, self.block.start)

    def _value(self, value: Any) -> str:
        return written_value(value, self.block.start)

    def _got(self, want: Any, got: Any) -> str:
        """A time in the form in which the one expected is written."""
        in_full = isinstance(want, date) or (isinstance(want, str) and times.instant(want) is not None)
        if isinstance(got, Instant) and in_full:
            return f'"{instant_text(got)}"'
        return self._value(got)


def _longest_run(fits: Sequence[Sequence[bool]]) -> list[tuple[int, int]]:
    """The longest common subsequence: positions that fit, rising in both."""
    n, m = len(fits), len(fits[0]) if fits else 0
    best = [[0] * (m + 1) for _ in range(n + 1)]  # from these positions on
    for i in reversed(range(n)):
        for j in reversed(range(m)):
            best[i][j] = max(best[i + 1][j], best[i][j + 1], fits[i][j] + best[i + 1][j + 1])
    found = []
    i = j = 0
    while i < n and j < m:
        if fits[i][j] and best[i][j] == 1 + best[i + 1][j + 1]:
            found.append((i, j))
            i, j = i + 1, j + 1
        elif best[i + 1][j] >= best[i][j + 1]:
            i += 1
        else:
            j += 1
    return found


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
