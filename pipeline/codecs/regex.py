"""`regex`: what named groups find in each line, as in the log of a program."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn

from msgspec import Meta

from pipeline.component import Context, Decoded, ReadingSettings, Refused, Settings
from pipeline.reading import options_of
from pipeline.texts import Texts
from pipeline.typed import EMPTY, RAW

_REPEATS = ("MAX_REPEAT", "MIN_REPEAT")  # those that give back what they took; possessive ones do not


class RegexOptions(Settings, frozen=True):
    pattern: Annotated[str, Meta(description="A regular expression of Python with a named group for each field.")] = ""
    unmatched: Annotated[
        Literal["refuse", "skip"], Meta(description="What becomes of a line in which the pattern finds nothing.")
    ] = "refuse"
    longest: Annotated[int, Meta(ge=1, le=100_000, description="Characters of a line; a longer one is refused.")] = (
        1_000
    )


class Regex(Texts):
    r"""Each line is searched for the pattern; its named groups are the key, the time and the fields.

        2026-03-01T10:00:00Z boiler-2 temp=71.5 ok

        format = { type = "regex", pattern = '^(?P<ts>\S+) (?P<id>\S+) temp=(?P<temperature>[\d.]+)' }
        key = "id"
        time = "ts"
        fields = { temperature = "float" }

    A group that takes no part, or is empty, is missing. `unmatched = "skip"` leaves out the lines of other kinds, which
    are refused otherwise.
    At the limit: a search can take very long on a line that was made for it. So a line is at most `longest` characters, and
    a repeat within a repeat, as `(\w+\s*)*`, is not taken: write the inner one as possessive, `(\w++\s*+)*`. What is left,
    several `.*` in a row or a repeated choice of like beginnings, is up to the pattern: say `[^ ]*` rather than `.*`.
    """

    Options = RegexOptions
    media_types = ()
    writes = False

    def __init__(self, settings: ReadingSettings, options: dict[str, Any], context: Context) -> None:
        super().__init__(settings, context)
        self.options = options_of(RegexOptions, options, context)
        pattern = self.options.pattern
        try:
            if not pattern:
                raise re.error("write one, with a named group for each field: pattern = '(?P<value>[\\d.]+)'")
            self.search = re.compile(pattern).search
            if _nested(pattern):
                raise re.error("a repeat within a repeat can take forever; make the inner one possessive: (a++)*")
        except re.error as error:
            context.problem("format.pattern", f"{error}")
            pattern = "".join(f"(?P<{name}>)" for name in self.wanted() if name.isidentifier())
            self.search = re.compile(pattern).search
        groups = re.compile(pattern).groupindex
        for name in self.wanted():
            if name not in groups and not (name in self.fields and self.fields[name].optional):
                context.problem("format.pattern", f"has no group for {name}: (?P<{name}>…)")
        # Of a field that is never there, the group 0 stands in.
        self._groups = [groups.get(name, 0) for name in self.wanted()]
        self._all_there = 0 not in self._groups

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        refused: list[Refused] = []
        records: list[Sequence[str]] = []
        places: list[tuple[int, int]] = []
        for i, payload in enumerate(payloads):
            before = len(records) + len(refused)
            found = list(self._found(payload))
            for item, (line, record) in enumerate(found):
                if record is not None:
                    records.append(record)
                    places.append((i, item))
                else:
                    refused.append(Refused(i, item, self._why(line), line[:RAW]))
            if len(records) + len(refused) == before and not payload.strip():
                refused.append(Refused(i, 0, EMPTY, ""))
        names = self.wanted()
        return self.records(
            records, places, refused, len(payloads), lambda row: str(dict(zip(names, records[row], strict=True)))
        )

    def _found(self, payload: bytes) -> Iterator[tuple[str, Sequence[str] | None]]:
        """Each line that counts, with its cells; None: it is to be refused."""
        groups, longest, search = self._groups, self.options.longest, self.search
        skip = self.options.unmatched == "skip"
        for line in payload.decode(errors="replace").replace("\r\n", "\n").split("\n"):
            match = search(line) if len(line) <= longest else None
            if match is not None:
                found = match.group(0, *groups)[1:]
                if not self._all_there or None in found:
                    found = tuple((text or "") if group else "" for group, text in zip(groups, found, strict=True))
                yield line, found
            elif not line.isspace() and line and not (skip and len(line) <= longest):
                yield line, None

    def _why(self, line: str) -> str:
        if len(line) > self.options.longest:
            return f"longer than {self.options.longest} characters"
        return "the pattern finds nothing in it"

    def readings(self, payload: bytes) -> list[bytes]:
        """Each reading of a payload as one of its own."""
        return [line.encode() for line, _ in self._found(payload)]

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> NoReturn:
        raise TypeError("regex can be read, not written")

    def header(self, names: Sequence[str]) -> NoReturn:
        raise TypeError("regex can be read, not written")


def _nested(pattern: str) -> bool:
    """Whether there is a repeat without an end, of something that holds another and may be gone back into."""
    from re import _constants, _parser  # type: ignore[attr-defined]  # what re itself parses with

    def walk(part: Any, *, inside: bool) -> bool:
        for operator, argument in part if isinstance(part, _parser.SubPattern) else ():
            kind = str(operator)
            endless = kind in _REPEATS and argument[1] is _constants.MAXREPEAT
            if inside and endless:
                return True
            if kind in ("POSSESSIVE_REPEAT", "ATOMIC_GROUP"):
                inner = False
            else:
                inner = inside or endless
            if any(walk(each, inside=inner) for each in _parts(argument)):
                return True
        return False

    return walk(_parser.parse(pattern), inside=False)


def _parts(argument: Any) -> Iterator[Any]:
    """All patterns within what a part of a pattern was given, however deep in lists."""
    from re import _parser  # type: ignore[attr-defined]

    if isinstance(argument, _parser.SubPattern):
        yield argument
    elif isinstance(argument, list | tuple):
        for each in argument:
            yield from _parts(each)
