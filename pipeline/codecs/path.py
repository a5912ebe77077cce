"""`path`: fields picked out of nested JSON documents by their paths; a list of measurements gives a reading for each."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, NoReturn

import msgspec
from msgspec import Meta

from pipeline.component import Context, Decoded, ReadingSettings, Refused, Settings
from pipeline.problem import did_you_mean
from pipeline.reading import options_of
from pipeline.typed import EMPTY, RAW, UNREADABLE, Typed, Unhurried, expected, shown

EACH = "*"  # the step of a path that takes every element of a list; a name is ("*",), a place an int
_STEP = re.compile(r'\.?([^.\[\]"*]+)|\[(-?\d{1,9})\]|\["([^"]*)"\]|\[(\*)\]')

Name = tuple[str]
Step = Name | int | str
Steps = tuple[Step, ...]


class PathOptions(Settings, frozen=True):
    paths: Annotated[
        dict[str, str],
        Meta(
            description="Where the key, the time and the fields are, by their names. Of one not listed its name is the path."
        ),
    ] = {}


class Path(Typed):
    """Values out of nested JSON documents, one document or one a line.

        {"gateway": {"id": "g1"}, "sensors": [{"id": "s1", "values": [21.5, 40]}, {"id": "s2", "values": [19.0, 55]}]}

        format = { type = "path", paths = { id = "sensors[*].id", temperature = "sensors[*].values[0]", gateway = "gateway.id" } }
        key = "id"
        fields = { temperature = "float", gateway = "string" }

    A path goes from the top of the document: `a.b` by name, `a[0]` by place (`a[-1]` is the last), `a["b.c"]` by a name with
    dots in it, `a[*].b` into each element of a list. Every element is a reading; what lies beside the list is the same in
    each. A list within a list works the same way (`a[*].id` and `a[*].b[*].v`), two lists side by side do not.
    What is not there, or null, is missing. A wrong reading costs only itself, a list that is none all of its document.
    """

    Options = PathOptions
    media_types = ("application/json", "application/x-ndjson", "application/jsonl", "application/ndjson")
    writes = False

    def __init__(self, settings: ReadingSettings, options: dict[str, Any], context: Context) -> None:
        super().__init__(settings, context)
        paths = options_of(PathOptions, options, context).paths
        names = [name for name in (settings.key, settings.time, *self.fields) if name is not None]
        for name in paths:
            if name not in names and settings.fields:
                context.problem(
                    f"format.paths.{name}", f"is neither the key, the time nor a field{did_you_mean(name, names)}"
                )
        self._steps: dict[str, Steps] = {}
        for name in names:
            try:
                self._steps[name] = _parsed(paths[name]) if name in paths else ((name,),)
            except ValueError as error:
                context.problem(f"format.paths.{name}", str(error))
                self._steps[name] = ((name,),)
        # The lists that are spread, outermost first: each lies within the one before, or there would be no telling which
        # element of one belongs to which of the other.
        spread = {s[: at + 1]: None for s in self._steps.values() for at, step in enumerate(s) if step == EACH}
        self._levels: list[Steps] = [(), *sorted(spread, key=len)]
        for outer, inner in zip(self._levels, self._levels[1:], strict=False):
            if inner[: len(outer)] != outer:
                both = f"{_shown(outer)} and {_shown(inner)}"
                context.problem("format.paths", f"only one list can be spread, or lists within it; here are {both}")
        self._json = msgspec.json.Decoder().decode
        self._nan = any(field.nan for field in self.fields.values())

    # --- bytes to documents ---

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        with Unhurried():
            documents = [self._documents(payload) for payload in payloads]
            table = self._table([d for each in documents for d in each])
            of = [i for i, each in enumerate(documents) for _ in each]
            return self._decoded(table, [of[row] for row in table.document], len(payloads))

    def _documents(self, payload: bytes) -> list[Any]:
        """All documents of a payload; what is none is a `_Wrong`."""
        texts = self._texts(payload)
        return [self._document(payload)] if texts is None else [self._document(t) for t in texts if t.strip()]

    def _texts(self, payload: bytes) -> list[bytes] | None:
        """Its lines, each a document; None: it is a single one."""
        if b"\n" not in payload.strip():
            return None
        try:
            self._json(payload)
        except UNREADABLE:
            return payload.split(b"\n")
        return None

    def _document(self, text: bytes) -> Any:
        try:
            found = self._json(text)
        except UNREADABLE as error:
            found = self._with_nan(text)
            if found is None:
                shown = text[: 4 * RAW].decode(errors="replace")
                return _Wrong(self.reason(error), shown) if text.strip() else _Wrong(EMPTY, "")
        if isinstance(found, dict | list):
            return found
        return _Wrong(expected("reading", ["object"], found), text[:RAW].decode(errors="replace"))

    def _with_nan(self, text: bytes) -> Any:
        """A document with NaN in it, which JSON does not know but many programs write; only for `float nan` fields."""
        if not self._nan or b"NaN" not in text:
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None

    def readings(self, payload: bytes) -> list[bytes]:
        """Each document of a payload, if it is one reading; an element of a list cannot be told without what is beside it."""
        if len(self._levels) > 1:
            return []
        return [text for text in self._texts(payload) or [payload] if text.strip()]

    # --- documents to readings ---

    def _table(self, documents: list[Any]) -> _Table:
        """A row for each element of the innermost list. All lists of a level are spread at once: a call of Python for each
        step of a path, not for each value."""
        levels: list[list[Any]] = [documents]
        document = list(range(len(documents)))
        for outer, inner in zip(self._levels, self._levels[1:], strict=False):
            arrays = _follow(levels[-1], inner[len(outer) : -1])
            for row, array in enumerate(arrays):
                if type(array) is not list:
                    arrays[row] = [self._no_list(levels[-1][row], inner, array)]
            counts = list(map(len, arrays))
            levels = [[v for v, n in zip(values, counts, strict=True) for _ in range(n)] for values in levels]
            document = [d for d, n in zip(document, counts, strict=True) for _ in range(n)]
            levels.append([element for array in arrays for element in array])
        columns = {name: self._values(levels, steps) for name, steps in self._steps.items()}
        return _Table(levels[-1], document, columns)

    def _no_list(self, parent: Any, path: Steps, found: Any) -> _Wrong:
        if isinstance(parent, _Wrong):
            return parent
        name = _shown(path[:-1]) or "reading"
        return _Wrong(f"{name}: missing" if found is None else expected(name, ["array"], found), shown(found))

    def _values(self, levels: list[list[Any]], steps: Steps) -> list[Any]:
        level = max(i for i, prefix in enumerate(self._levels) if steps[: len(prefix)] == prefix)
        return _follow(levels[level], steps[len(self._levels[level]) :])

    def _decoded(self, table: _Table, of: list[int], payloads: int) -> Decoded:
        refused: list[Refused] = []
        counts, items = [0] * payloads, [0] * payloads
        wrong = False
        for element, payload in zip(table.elements, of, strict=True):
            if type(element) is _Wrong:
                refused.append(Refused(payload, items[payload], element.reason, element.raw[:RAW]))
                wrong = True
            else:
                counts[payload] += 1
            items[payload] += 1
        refused += [Refused(i, 0, EMPTY, "") for i, n in enumerate(items) if not n]
        columns = table.columns
        if wrong:
            good = [type(element) is not _Wrong for element in table.elements]
            columns = {n: [v for v, g in zip(values, good, strict=True) if g] for n, values in columns.items()}
        keys = columns.get(self.settings.key, []) if self.settings.key is not None else []
        stamps = columns.get(self.settings.time, []) if self.settings.time is not None else []

        def raw(row: int) -> str:
            return shown({name: values[row] for name, values in columns.items()})

        return self.lists(keys, stamps, columns, counts, refused, raw)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> NoReturn:
        raise TypeError("path can be read, not written")

    def header(self, names: Sequence[str]) -> NoReturn:
        raise TypeError("path can be read, not written")


class _Wrong(NamedTuple):
    """Stands where a document or a list should be."""

    reason: str
    raw: str


class _Table(NamedTuple):
    elements: list[Any]  # of the innermost list, or documents
    document: list[int]  # which document each is of
    columns: dict[str, list[Any]]


def _follow(values: list[Any], steps: Steps) -> list[Any]:
    """What lies at the end of a path without `[*]`, from each value; None where there is nothing."""
    for step in steps:
        if isinstance(step, int):
            values = [v[step] if type(v) is list and -len(v) <= step < len(v) else None for v in values]
        else:
            name = step[0]
            values = [v.get(name) if type(v) is dict else None for v in values]
    return list(values)


def _parsed(text: str) -> Steps:
    """The steps of a path; ValueError says where it is wrong."""
    steps: list[Step] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None or (text[at] == "." and not at) or (at and found[1] and text[at] != "."):
            raise ValueError(f'"{text}" is not a path: it is wrong from "{text[at:]}"; write a.b, a[0] or a[*].b')
        if found[2]:
            steps.append(int(found[2]))
        else:
            steps.append(EACH if found[4] else (found[1] if found[1] is not None else found[3],))
        at = found.end()
    if not steps:
        raise ValueError("a path has one step at least, as a.b")
    return tuple(steps)


def _shown(steps: Steps) -> str:
    shown = "".join(f"[{s}]" if isinstance(s, int) else "[*]" if s == EACH else f".{s[0]}" for s in steps)
    return shown.removeprefix(".")
