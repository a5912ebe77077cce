"""`[[test]]` blocks read and checked against the graph; every mistake is a Problem with its line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import settings, times
from pipeline.component import Payload, Source
from pipeline.frame import Field, instants
from pipeline.problem import Problem, did_you_mean
from pipeline.quantity import Duration
from pipeline.trial.block import Block, Forget, Given, Offline, Online, TestBlock, moment

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.graph import Graph
    from pipeline.settings import Where

START = "2026-01-01T00:00:00Z"  # of a test that names none; windows are aligned to it whatever their size
OWN = ("at", "raw")  # names in a row that are the test's and not a field's
ADDED = ("stream", "recovered", "thinned", "until")  # what rows have beside their fields at a sink
THINNED = ("_first", "_last", "_min", "_max", "_count")


def read(config: Config, graph: Graph) -> tuple[list[Block], list[Problem]]:
    """The blocks of a pipeline file, and what is wrong with them. `graph` is that of `config`, and may have problems."""
    reader = _Reader(config, graph)
    blocks = [reader.block(i, table) for i, table in enumerate(config.tests)]
    return [block for block in blocks if block is not None], reader.problems


class _Reader:
    def __init__(self, config: Config, graph: Graph) -> None:
        self.config = config
        self.graph = graph
        self.problems: list[Problem] = []
        self.names: dict[str, int] = {}
        self.start = 0
        self.until: Duration | None = None

    def wrong(self, where: Where, text: str) -> None:
        self.problems.append(self.config.problem(where, text))

    def block(self, index: int, table: dict[str, Any]) -> Block | None:
        where: Where = ("test", index)
        found = settings.read(TestBlock, table, where)
        for place, text in found.found:
            self.wrong(place, text)
        if found.settings is None:
            return None
        told: TestBlock = found.settings
        line = self.config.problem(where, "").line
        if told.name in self.names:
            self.wrong((*where, "name"), f"the test of line {self.names[told.name]} has this name already")
        self.names[told.name] = line
        self.start, self.until = self._start(told, where), told.until
        rows = [row for name, given in told.input.items() for row in self._input(name, given, (*where, "input", name))]
        misread = any(place[2:3] == ("steps",) for place, _ in found.found)  # then their places are not known
        if not misread:
            self._steps(told, where)
        expect = dict(self._expect(told.expect, (*where, "expect")))
        if not told.expect and "expect" in table:
            self.wrong((*where, "expect"), "nothing is expected: write expect.NODE = [ … ]; [] stands for no rows")
        elif not told.expect:
            self.wrong(where, "nothing is expected: add expect.NODE = [ … ]; [] stands for no rows")
        last = max([row.at for row in rows] + [step.at + getattr(step, "down", 0) for step in told.steps], default=0)
        end = last if told.until is None else int(told.until)
        for i, step in enumerate([] if misread else told.steps):
            if step.at > end:
                self._after_the_end((*where, "steps", i, "at"))
        return Block(told.name, line, self.start, end, told.until is None, rows, told.steps, expect)

    def _start(self, told: TestBlock, where: Where) -> int:
        value = told.start
        if value is None:
            first = [at for name, path in told.input.items() if (at := self._first(name, path)) is not None]
            value = min(first) // 1_000_000_000 * 1_000_000_000 if first else START
        at = moment(value, 0) if not isinstance(value, str) else times.instant(value)
        if at is None:
            self.wrong((*where, "start"), f'expected a time such as "{START}"')
            return 0
        return at

    # --- input ---

    def _input(self, name: str, given: Any, where: Where) -> Iterator[Given]:
        source = self._source(name, where)
        if source is None:
            return
        if isinstance(given, str):
            yield from self._file(name, source, given, where)
        elif isinstance(given, list) and all(isinstance(row, dict) for row in given):
            at = 0
            for i, row in enumerate(given):
                at = self._at(row, at, (*where, i))
                reading = self._reading(name, source, row, at, (*where, i))
                if reading is not None:
                    yield Given(at, name, reading)
        else:
            self.wrong(where, 'expected rows, [{ at = "0 s", … }, …], or the name of a file')

    def _source(self, name: str, where: Where) -> Source | None:
        if name in self.graph.sources:
            return self.graph.sources[name]
        if self._unknown(name, where):
            if name in self.config.nodes:
                self.wrong(where, f'"{name}" is not a source: readings come in by {self._listed(self.graph.sources)}')
            else:
                self.wrong(where, f'there is no source "{name}"{did_you_mean(name, self.graph.sources)}')
        return None

    def _at(self, row: dict[str, Any], before: int, where: Where) -> int:
        """When it arrives, after the start; a row without it arrives with the one before."""
        if "at" not in row:
            return before
        at = moment(row["at"], self.start) if not isinstance(row["at"], int | float) else None
        if at is None:
            self.wrong((*where, "at"), 'expected a duration after the start, such as "10 s", or a time')
            return before
        if at < self.start:
            self.wrong((*where, "at"), "lies before the start")
        if self.until is not None and at - self.start > self.until:
            self._after_the_end((*where, "at"))
        return at - self.start

    def _after_the_end(self, where: Where) -> None:
        self.wrong(where, f'comes after the test has ended (until = "{self.until}")')

    def _raw(self, name: str, source: Source, row: dict[str, Any], where: Where) -> bytes | None:
        """What the source gets, in its own format."""
        for other in row.keys() - set(OWN):
            self.wrong((*where, other), "a row with raw has no fields beside it")
        if not isinstance(row["raw"], str):
            self.wrong((*where, "raw"), "expected text: what the source gets, in its own format")
        elif source.again(b"", "") is None:
            self.wrong((*where, "raw"), f'"{name}" gets no bytes: give its fields')
        else:
            return row["raw"].encode()
        return None

    def _reading(self, name: str, source: Source, row: dict[str, Any], at: int, where: Where) -> Any:
        if "raw" in row:
            return self._raw(name, source, row, where)
        time = getattr(self.config.nodes[name].settings, "time", None)
        known = [n for n in (source.schema.key, time, *source.schema.fields) if n]
        reading = {}
        for field_, value in row.items():
            if field_ == "at":
                continue
            if field_ not in known:
                hint = did_you_mean(field_, known) or f"; it has {', '.join(known)}"
                self.wrong((*where, field_), f'"{field_}" is not a field of "{name}"{hint}')
            elif field_ == time:
                reading[field_] = self._time(name, value, (*where, field_))
            elif isinstance(value, date):
                self.wrong((*where, field_), "a field holds no date: write it as text")
            else:
                reading[field_] = value
        if time is not None and (time == "at" or time not in row):  # a time called "at" is both
            reading[time] = self._in_unit(name, self.start + at)
        if source.given(reading) is None:
            self.wrong(where, f'"{name}" cannot be given readings by a test')
        return reading

    def _in_unit(self, name: str, ns: int) -> Any:
        unit = self.config.nodes[name].settings.time_unit
        return instants(np.array([ns], np.int64), "ms" if unit == "auto" else unit)[0]

    def _time(self, name: str, value: Any, where: Where) -> Any:
        """The time of a reading: a number is in the unit of the source, what else a test may write is put into it."""
        if isinstance(value, int | float):
            return value
        at = moment(value, self.start)
        if at is None:
            self.wrong(where, 'expected a time: "10 s" after the start, RFC 3339, or a number as the source gets it')
            return value
        return self._in_unit(name, at)

    # --- files ---

    def _first(self, name: str, given: Any) -> int | None:
        """The earliest time in a file: where a test begins that names no start."""
        if not isinstance(given, str) or name not in self.graph.sources:
            return None
        source = self.graph.sources[name]
        payloads = _lines(source, self.config.path.parent / given)
        found = source.decode(payloads).times if payloads else None
        return None if found is None or not len(found) else int(found.min())

    def _file(self, name: str, source: Source, given: str, where: Where) -> Iterator[Given]:
        """Each line when its time has come; one without a time along with the one before it."""
        path = self.config.path.parent / given
        if not path.is_file():
            near = did_you_mean(path.name, [f.name for f in path.parent.glob("*")]) if path.parent.is_dir() else ""
            self.wrong(where, f'there is no file "{given}"{near}')
        elif source.again(b"", "") is None:
            self.wrong(where, f'"{name}" gets no bytes: give rows with its fields')
        else:
            payloads = _lines(source, path)
            at = 0
            for payload, time in zip(payloads, _times(source, payloads), strict=True):
                at = at if time is None else max(at, time - self.start)
                yield Given(at, name, payload.data)

    # --- steps ---

    def _steps(self, told: TestBlock, where: Where) -> None:
        delivering = [name for name, sink in self.graph.sinks.items() if sink.buffer is not None]
        for i, step in enumerate(told.steps):
            place: Where = (*where, "steps", i)
            if isinstance(step, Forget) and step.stream is not None and step.stream not in self.graph.streams:
                hint = did_you_mean(step.stream, self.graph.streams)
                self.wrong((*place, "stream"), f'there is no stream "{step.stream}"{hint}')
            if not isinstance(step, Offline | Online):
                continue
            if step.sink is None and not delivering and not self._troubled:
                self.wrong((*place, "do"), "there is no sink that delivers to anyone")
            elif step.sink is not None and step.sink not in delivering and self._unknown(step.sink, (*place, "sink")):
                known = f"; there are: {self._listed(delivering)}"
                self.wrong(
                    (*place, "sink"),
                    f'"{step.sink}" is not a sink that delivers{did_you_mean(step.sink, delivering) or known}',
                )

    # --- what is expected ---

    def _expect(self, told: Mapping[str, Any], where: Where) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for name, given in told.items():
            if isinstance(given, dict):  # expect.NODE.late = [ … ]
                for output, rows in given.items():
                    yield from self._of_node(f"{name}.{output}", rows, (*where, name, output))
            else:
                yield from self._of_node(name, given, (*where, name))

    def _of_node(self, name: str, given: Any, where: Where) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        graph = self.graph
        at_sink = name in graph.sinks
        if not at_sink and name not in graph.streams:
            base, _, output = name.partition(".")
            outputs = [s.partition(".")[2] for s in graph.streams if s.startswith(f"{base}.")]
            if base in graph.streams and output:
                hint = did_you_mean(output, outputs) or f"; it has: {self._listed(outputs)}"
                self.wrong(where, f'"{base}" has no output "{output}"{hint}')
            elif self._unknown(base, where):
                hint = did_you_mean(name, [*graph.streams, *graph.sinks])
                self.wrong(where, f'nothing is called "{name}": name a node, NODE.OUTPUT or a sink{hint}')
            return
        if not isinstance(given, list) or not all(isinstance(row, dict) for row in given):
            self.wrong(where, "expected rows, [{ … }, …]; [] stands for no rows")
            return
        schemas = [graph.streams[s] for s in graph.inputs[name]] if at_sink else [graph.streams[name]]
        kinds: dict[str, set[str]] = {"time": {"time"}}
        for schema in schemas:
            for field_, of in {**({schema.key: Field("string")} if schema.key else {}), **schema.fields}.items():
                kinds.setdefault(field_, set()).add(of.kind)
        if at_sink:
            for field_, kind in zip(ADDED, ("string", "bool", "int", "time"), strict=True):
                kinds.setdefault(field_, {kind})
        rows = []
        for i, row in enumerate(given):
            rows.append({f: self._wanted(name, f, v, kinds, at_sink, (*where, i, f)) for f, v in row.items()})
        yield name, rows

    def _wanted(self, node: str, name: str, value: Any, kinds: dict[str, set[str]], at_sink: bool, where: Where) -> Any:
        """A value that is expected, as it is compared; None: it must be missing."""
        if name not in kinds:
            of = next((name.removesuffix(ending) for ending in THINNED if name.endswith(ending)), None)
            if not (at_sink and of in kinds):
                hint = did_you_mean(name, kinds) or f"; there are: {', '.join(kinds)}"
                self.wrong(where, f'"{name}" is not a field of "{node}"{hint}')
                return value
        kind = kinds.get(name, {"float"})
        if value == {"missing": True}:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and kind == {"string"}:
            return str(value)  # a key: its digits
        fits = any(_fits(value, k, self.start) for k in kind)
        if not fits:
            wanted = " or ".join(sorted(_SAID[k] for k in kind))
            self.wrong(where, f"expected {wanted} (or {{ missing = true }})")
        return value

    # --- names ---

    @property
    def _troubled(self) -> bool:
        return bool(self.config.problems or self.graph.problems)

    def _unknown(self, name: str, where: Where) -> bool:
        """True if a name is to be reported; a node that has problems of its own is there all the same."""
        if name in self._declared and name not in self.config.nodes:
            if not self._declared[name]:
                self.wrong(where, f'"{name}" is disabled')
            return False
        return not (self._troubled and name in self._declared)

    @cached_property
    def _declared(self) -> dict[str, bool]:
        """Every node of the file: is it enabled."""
        tables = tomllib.loads(self.config.text)
        nodes = [n for of in ("sources", "operators", "sinks") for n in tables.get(of, {}).items()]
        return {name: not isinstance(table, dict) or table.get("enabled", True) is not False for name, table in nodes}

    def _listed(self, names: Any) -> str:
        return ", ".join(f'"{name}"' for name in names) or "none"


_SAID = {
    "float": "a number",
    "int": "a number",
    "bool": "true or false",
    "string": "text",
    "time": 'a time ("10 s" after the start, RFC 3339, or a number)',
}


def _fits(value: Any, kind: str, start: int) -> bool:
    if kind == "time":
        return moment(value, start) is not None
    if kind in ("float", "int"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, bool if kind == "bool" else str)


def _lines(source: Source, path: Path) -> list[Payload]:
    """The lines of a file as payloads, each with the header of a format that has one."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    codec: Any = getattr(source, "codec", None)
    if hasattr(codec, "whole"):  # of a binary format
        lines = codec.readings(data)
    else:
        lines = [line for line in data.splitlines(keepends=True) if line.strip()]
    header = b""
    if lines and getattr(codec, "has_header", False):
        header, *lines = lines
    made = [source.again(header + line if header else line, "") for line in lines]
    return [payload for payload in made if payload is not None]


def _times(source: Source, payloads: Sequence[Payload]) -> Iterator[int | None]:
    """The newest time in each payload."""
    decoded = source.decode(payloads) if payloads else None
    if decoded is None or decoded.times is None:
        yield from (None for _ in payloads)
        return
    stamps = decoded.times.tolist()
    at = 0
    for count in decoded.counts:
        yield max(stamps[at : at + count]) if count else None
        at += count
