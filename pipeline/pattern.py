"""Patterns for `matches()`: regular expressions whose search takes time that grows with the text's length, no faster.

Python's own `re` goes back and tries again, so that one reading with a text made for it could hold the pipeline up for
years. Here a pattern becomes an automaton that reads each character once (Glushkov's construction), its moves worked out
as they are first needed. Taken: characters, `.`, `[…]`, `\\d \\w \\s \\D \\W \\S`, `( )`, `(?: )`, `|`, `* + ? {m,n}`, and
`^` and `$` at the ends. Refused: what no such automaton can do (back references, looking ahead), `\\b` and flags.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

MAX_PATTERN = 200  # characters
MAX_ATOMS = 500  # characters and classes, counted as often as {m,n} repeats them: bounds the automaton
MAX_GROUPS = 20  # groups within groups
MAX_MOVES = 4_000  # moves remembered at once, about 1 MB; the texts of sensors need some dozens

_K = TypeVar("_K")
_COUNTS = re.compile(r"\{([0-9]{0,4})(,?)([0-9]{0,4})\}")
_CLASS = re.compile(r"\[\^?\]?(?:[^\]\\]|\\.)*\]", re.DOTALL)


class PatternError(ValueError):
    """A text that is not a pattern, and why."""


class Pattern:
    """A compiled pattern; `search` tells whether it is found anywhere in a text."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise PatternError(f"it has more than {MAX_PATTERN} characters")
        automaton = _Reader(pattern).read()
        self._follow = automaton.follow
        self._classes = automaton.classes
        self._start = 1 << len(automaton.classes)  # the state before the first character
        self._again = 0 if automaton.from_start else self._start  # a match may begin at any character
        self._accept = automaton.last | (self._start if automaton.nullable else 0)
        self._to_end = automaton.to_end
        self._fits: dict[str, int] = {}
        self._moves: dict[tuple[int, str], int] = {}

    def search(self, text: str) -> bool:
        state, accept, again, moves = self._start, self._accept, self._again, self._moves
        if not self._to_end and state & accept:
            return True
        for character in text:
            move = moves.get((state, character))
            state = (self._move(state, character) if move is None else move) | again
            if not state:
                return False
            if state & accept and not self._to_end:
                return True
        return bool(state & accept)

    def _move(self, state: int, character: str) -> int:
        """The positions that this character leads to. A state is a set of positions, as the bits of a number."""
        fits = self._fits.get(character)
        if fits is None:
            fits = sum(1 << i for i, one in enumerate(self._classes) if one.match(character))
            _remember(self._fits, character, fits)
        reached = 0
        for position in _bits(state):
            reached |= self._follow[position]
        _remember(self._moves, (state, character), reached & fits)
        return reached & fits


def _remember(known: dict[_K, int], what: _K, value: int) -> None:
    if len(known) >= MAX_MOVES:
        known.clear()
    known[what] = value


def _bits(number: int) -> Iterator[int]:
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low


class _Piece(NamedTuple):
    """A part of the pattern: may it be empty, and the positions at which it can begin and end, as bits."""

    nullable: bool
    first: int
    last: int


_EMPTY = _Piece(True, 0, 0)


class _Automaton(NamedTuple):
    classes: list[re.Pattern[str]]  # what each position takes
    follow: list[int]  # which positions may come after each, and last: after the start
    last: int
    nullable: bool
    from_start: bool
    to_end: bool


class _Reader:
    """Reads a pattern from left to right. Parts that {m,n} repeats are read again: each has positions of its own."""

    def __init__(self, pattern: str) -> None:
        self.from_start = pattern.startswith("^")
        self.to_end = pattern.endswith("$") and not _escaped(pattern, len(pattern) - 1)
        self.text = pattern[self.from_start : len(pattern) - self.to_end]
        self.at = 0
        self.atoms = 0
        self.groups = 0
        self.classes: list[re.Pattern[str]] = []
        self.follow: list[int] = []

    def read(self) -> _Automaton:
        whole = self._either()
        if self.at < len(self.text):
            raise PatternError('there is a ")" too many')
        return _Automaton(
            self.classes, [*self.follow, whole.first], whole.last, whole.nullable, self.from_start, self.to_end
        )

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _either(self) -> _Piece:
        result = self._sequence()
        while self._peek() == "|":
            if not self.groups and (self.from_start or self.to_end):
                raise PatternError('beside "^" and "$" alternatives need brackets: ^(a|b)$')
            self.at += 1
            other = self._sequence()
            result = _Piece(result.nullable or other.nullable, result.first | other.first, result.last | other.last)
        return result

    def _sequence(self) -> _Piece:
        result = _EMPTY
        while self._peek() not in ("", "|", ")"):
            result = self._then(result, self._repeated())
        return result

    def _then(self, a: _Piece, b: _Piece) -> _Piece:
        self._link(a.last, b.first)
        first = a.first | b.first if a.nullable else a.first
        last = a.last | b.last if b.nullable else b.last
        return _Piece(a.nullable and b.nullable, first, last)

    def _link(self, last: int, first: int) -> None:
        for position in _bits(last):
            self.follow[position] |= first

    def _repeated(self) -> _Piece:
        begin = self.at
        piece = self._atom()
        end = self.at
        least, most = self._counts()
        if (least, most) == (1, 1):
            return piece
        after = self.at

        def again() -> _Piece:
            self.at = begin
            copy = self._atom()
            assert self.at == end
            return copy

        pieces = [piece, *(again() for _ in range((max(least, 1) if most is None else most) - 1))]
        self.at = after
        if most is None:
            self._link(pieces[-1].last, pieces[-1].first)
        result = _EMPTY
        for i, one in enumerate(pieces if most != 0 else []):
            result = self._then(result, one if i < least else one._replace(nullable=True))
        return result

    def _counts(self) -> tuple[int, int | None]:
        """How often the atom just read is repeated: at least, and at most (None: as often as you like)."""
        sign = self._peek()
        if sign in ("*", "+", "?"):
            self.at += 1
            counts: tuple[int, int | None] = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        elif sign == "{":
            found = _COUNTS.match(self.text, self.at)
            if not found or not (found[1] or found[3]):
                raise PatternError(r'a "{" that counts nothing is written "\{"')
            self.at = found.end()
            least = int(found[1] or 0)
            most = least if not found[2] else int(found[3]) if found[3] else None
            if most is not None and most < least:
                raise PatternError(f'"{found[0]}" has its least and its most the wrong way round')
            counts = (least, most)
        else:
            return 1, 1
        if self._peek() == "?":
            self.at += 1  # "as few as will do" finds the same texts
        if self._peek() in ("*", "+", "?", "{"):
            raise PatternError(f'nothing stands before "{self._peek()}" that could repeat')
        return counts

    def _atom(self) -> _Piece:
        self.atoms += 1
        if self.atoms > MAX_ATOMS:
            raise PatternError(f"it comes to more than {MAX_ATOMS} characters and classes, repeats written out")
        sign = self._peek()
        if sign == "(":
            return self._group()
        if sign in ("*", "+", "?", "{"):
            raise PatternError(f'nothing stands before "{sign}" that could repeat')
        if sign in ("^", "$"):
            raise PatternError(f'"{sign}" may only stand at the {"start" if sign == "^" else "end"}')
        begin = self.at
        if sign == "[":
            found = _CLASS.match(self.text, begin)
            if not found:
                raise PatternError('a "[" is never closed')
            self.at = found.end()
        elif sign == "\\":
            self.at += 2
            letter = self.text[begin + 1 : self.at]
            if not letter or (letter.isalnum() and letter not in "dDwWsSntrfv"):
                raise PatternError(f'"\\{letter}" is not known here')
        else:
            self.at += 1
        return self._position(self.text[begin : self.at])

    def _group(self) -> _Piece:
        self.groups += 1
        if self.groups > MAX_GROUPS:
            raise PatternError(f"groups may be nested at most {MAX_GROUPS} deep")
        self.at += 1
        if self._peek() == "?":
            if self.text[self.at : self.at + 2] != "?:":
                raise PatternError('of "(?" only "(?:" is known here')
            self.at += 2
        piece = self._either()
        if self._peek() != ")":
            raise PatternError('a "(" is never closed')
        self.at += 1
        self.groups -= 1
        return piece

    def _position(self, source: str) -> _Piece:
        """A new position, which takes the characters that this class of one character does."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # `[[` may mean more in a later Python
                self.classes.append(re.compile(source if len(source) > 1 or source == "." else re.escape(source)))
        except re.error as error:
            raise PatternError(f'"{source}": {error}') from None
        self.follow.append(0)
        bit = 1 << (len(self.classes) - 1)
        return _Piece(False, bit, bit)


def _escaped(text: str, at: int) -> bool:
    """Whether an odd number of backslashes stands before this place."""
    before = text[:at]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1
