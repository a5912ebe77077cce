r"""`influx`: the line protocol of InfluxDB and Telegraf.

line         = measurement {"," tag "=" text} " " field "=" value {"," field "=" value} [" " timestamp]
value        = 1.5 | 42i | 42u | true | t | "text"
what escapes = \, and \space in all names, \= in those of tags and fields; \" and \\ in a quoted text
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from msgspec import Meta

from pipeline.component import Context, Decoded, ReadingSettings, Refused, Settings
from pipeline.reading import options_of
from pipeline.times import PER_UNIT, nanoseconds
from pipeline.typed import EMPTY, RAW, Nonsense, Typed, Unhurried

SERIES = 10_000  # measurements with their tags that are remembered; most lines begin as an earlier one
SHAPES = 100  # orders of fields that are remembered

# Each piece of a line; possessive, so that no line makes them go back.
_HEAD = re.compile(r"(?:\\ |[^ \n])++")
_FIELD = re.compile(r'((?:\\[,= ]|[^,= \n])++)=("(?:\\[\s\S]|[^"\\])*+"|[^", \n]++)')
_STAMP = re.compile(r" +(-?\d{1,20})(?= *(?:\n|$))")
_BLANK = re.compile(r" *(?:\n|$)")
_TAG = re.compile(r",((?:\\[,= ]|[^,= ])++)=((?:\\[,= ]|[^,= ])++)")
_MEASUREMENT = re.compile(r"(?:\\[, ]|[^, ])++")
_INTEGER = re.compile(r"[-+]?\d{1,20}")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4})?")
_TRUTH = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True) | dict.fromkeys(
    ("f", "F", "false", "False", "FALSE"), False
)
_MEASURED = "measurement"  # the name under which a line's measurement is the key or a field


class InfluxOptions(Settings, frozen=True):
    measurement: Annotated[
        str | list[str] | None,
        Meta(
            description="Lines of other measurements are left out. Written: its name; absent, that of the stream or the sink."
        ),
    ] = None
    precision: Annotated[
        Literal["ns", "us", "ms", "s"] | None,
        Meta(description="The unit of timestamps. Absent: `time_unit`, or ns where that is auto; written always ns."),
    ] = None
    tags: Annotated[list[str], Meta(description="When writing: the fields that are tags, beside the key.")] = []


class _Series(NamedTuple):
    """How a line begins."""

    wanted: bool  # it is not of a measurement that is left out
    why: str = ""  # it is no beginning
    texts: Mapping[str, str] = {}  # the tags and the measurement, by name


class _Line(NamedTuple):
    series: _Series
    fields: Mapping[str, str]  # their values as they stand
    stamp: str | None


class Influx(Typed):
    """Lines of the line protocol; each is a reading, and all of its fields are of the same time.

        weather,station=roof,country=ch temperature=21.5,rain=false,count=42i 1700000000000000000

        format = { type = "influx", measurement = "weather" }
        key = "station"
        time = "time"
        fields = { temperature = "float", rain = "bool?", country = "string?" }

    `key` names a tag (or a field of text), or "measurement"; `fields` names fields, tags (text), or "measurement".
    `time = "time"` takes the timestamps, in ns unless `precision` or `time_unit` says otherwise; a line without one has the
    time at which it is read. Without `time` all have the time of their arrival.
    42i and 42u are whole numbers, 42 is not. Comments are left out, and so are the lines of other measurements if
    `measurement` (one, or a list) says which are meant; a line without a field that must be there is refused.
    Written, the key and `tags` are tags; what is missing is left out, and so is a row of which no field is left.
    """

    Options = InfluxOptions
    media_types = ("application/x-influx-line-protocol",)

    def __init__(self, settings: ReadingSettings, options: dict[str, Any], context: Context) -> None:
        self.options = options_of(InfluxOptions, options, context)
        if settings.time not in (None, "time"):
            context.problem("time", 'a line of the line protocol has one timestamp; write time = "time"')
        if settings.time_unit == "iso" and settings.fields:
            context.problem("time_unit", "the line protocol has numbers: ns, us, ms or s")
        super().__init__(settings, context)
        self.name = context.name
        only = self.options.measurement
        self._only = None if only is None else {only} if isinstance(only, str) else set(only)
        auto = settings.time_unit in ("auto", "iso")
        self._unit = self.options.precision or ("ns" if auto else settings.time_unit)
        self._names = [*([settings.key] if settings.key is not None else []), *self.fields]
        self._series: dict[str, _Series] = {}
        self._shapes: dict[tuple[str, ...], re.Pattern[str]] = {}

    # --- bytes to readings ---

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        texts = [payload.decode(errors="replace").replace("\r\n", "\n") for payload in payloads]
        with Unhurried():
            return self._alike(texts) or self._one_by_one(texts)

    def readings(self, payload: bytes) -> list[bytes]:
        """Each reading of a payload as one of its own."""
        return [text.encode() for text, _ in self._lines(payload.decode(errors="replace").replace("\r\n", "\n"))]

    def _alike(self, texts: list[str]) -> Decoded | None:
        """Lines that all have the fields of the first, in its order, are one search over all of them: half of what they cost
        one by one. None: they are not alike, or one of them must be looked at closely."""
        whole = "\n".join(texts).strip("\n") if len(texts) > 1 else texts[0].strip("\n") if texts else ""
        if not whole or '"' in whole or "\\" in whole:
            return None
        first = whole[: whole.find("\n")] if "\n" in whole else whole
        try:
            names = tuple(pair.split("=")[0] for pair in first.split(" ")[1].split(","))
        except IndexError:
            return None
        found = self._shape(names).findall(whole)
        counts = [text.strip("\n").count("\n") + 1 if text.strip("\n") else 0 for text in texts]
        if len(found) != sum(counts) or 0 in counts or "" in names:
            return None
        heads, *cells, stamps = zip(*found, strict=True)
        begun = {head: self._series.get(head) or self._begun(head) for head in set(heads)}
        if not all(series.wanted and not series.why for series in begun.values()):
            return None
        columns: dict[str, Sequence[str | None]] = dict(zip([n for n in names if n in self._names], cells, strict=True))
        for name in self._names:
            if name not in columns:
                texts_of = {head: series.texts.get(name) for head, series in begun.items()}
                columns[name] = [texts_of[head] for head in heads]
        values = {name: self._values(name, columns[name]) for name in self._names}
        lines = whole.split("\n")
        return self._decoded(values, [stamp or None for stamp in stamps], counts, [], lines)

    def _shape(self, names: tuple[str, ...]) -> re.Pattern[str]:
        """What finds lines with these fields: their beginning, the values that are wanted, the timestamp."""
        if names not in self._shapes:
            if len(self._shapes) >= SHAPES:
                self._shapes.clear()
            value = "[^,= \n]++"
            fields = (f"{re.escape(n)}=" + (f"({value})" if n in self._names else value) for n in names)
            pattern = rf"^([^# \n][^ \n]*+) {','.join(fields)}(?: (-?\d{{1,20}}))?$"
            self._shapes[names] = re.compile(pattern, re.MULTILINE)
        return self._shapes[names]

    def _one_by_one(self, texts: list[str]) -> Decoded:
        refused: list[Refused] = []
        lines: list[str] = []
        stamps: list[str | None] = []
        counts: list[int] = []
        cells: dict[str, list[str | None]] = {name: [] for name in self._names}
        for i, text in enumerate(texts):
            item, before = -1, len(lines)
            for item, (line, found) in enumerate(self._lines(text)):
                if isinstance(found, str):
                    refused.append(Refused(i, item, found, line[:RAW]))
                    continue
                lines.append(line)
                stamps.append(found.stamp)
                for name in self._names:
                    own = found.fields.get(name)
                    cells[name].append(own if own is not None else found.series.texts.get(name))
            counts.append(len(lines) - before)
            if item < 0 and not any(line.strip() and not line.startswith("#") for line in text.split("\n")):
                refused.append(Refused(i, 0, EMPTY, ""))
        values = {name: self._values(name, found) for name, found in cells.items()}
        return self._decoded(values, stamps, counts, refused, lines)

    def _decoded(
        self,
        values: dict[str, list[Any]],
        texts: list[str | None],
        counts: list[int],
        refused: list[Refused],
        lines: list[str],
    ) -> Decoded:
        keys = values.get(self.settings.key, []) if self.settings.key is not None else []
        stamps: list[Any] = []
        if self.settings.time is not None:
            now = self.now(self._unit) if None in texts else None
            stamps = [now if text is None else int(text) for text in texts]
        return self.lists(keys, stamps, values, counts, refused, lines.__getitem__, unit=self._unit)

    # --- a line ---

    def _lines(self, text: str) -> Iterator[tuple[str, _Line | str]]:
        """Each line that counts, with what it says, or why it says nothing."""
        if '"' in text:
            yield from self._quoted(text)
            return
        for line in text.split("\n"):
            if (stripped := line.strip(" ")) and stripped[0] != "#":
                parts = None if "\\" in stripped else stripped.split(" ")
                if parts is None or not 2 <= len(parts) <= 3 or "" in parts:
                    found, _ = self._scanned(stripped, 0)
                else:
                    found = self._split(*parts)
                if found is not None:
                    yield stripped, found

    def _quoted(self, text: str) -> Iterator[tuple[str, _Line | str]]:
        """Where there are quotes, a line can go on behind a line end."""
        at = 0
        while at < len(text):
            start = at
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            if (blank := _BLANK.match(text, at)) is not None:
                at = max(blank.end(), at + 1)
                continue
            if text[at:end].lstrip(" ").startswith("#"):
                at = end + 1
                continue
            found, stop = self._scanned(text, at)
            at = end + 1 if isinstance(found, str) else stop
            if found is not None:
                yield text[start:at].strip("\n "), found

    def _split(self, head: str, fields: str, stamp: str | None = None) -> _Line | str | None:
        """A line without quotes and backslashes; None: it is of another measurement."""
        series = self._series.get(head) or self._begun(head)
        if not series.wanted or series.why:
            return series.why or None
        try:
            found = dict([pair.split("=") for pair in fields.split(",")])
        except ValueError:
            return "not line protocol: a field is written name=value"
        if "" in found or "" in found.values():
            return "not line protocol: a field is written name=value"
        if stamp is not None and not (stamp.lstrip("-").isdigit() and stamp.isascii() and len(stamp) <= 20):
            return f"not line protocol: {stamp[:30]} is no timestamp"
        return _Line(series, found, stamp)

    def _scanned(self, text: str, at: int) -> tuple[_Line | str | None, int]:
        """Any line, and where it ends."""
        while text[at : at + 1] == " ":
            at += 1
        head = _HEAD.match(text, at)
        if head is None:
            return "not line protocol: it begins with a measurement", at
        series = self._series.get(head[0]) or self._begun(head[0])
        if series.why:
            return series.why, at
        at = head.end()
        while text[at : at + 1] == " ":
            at += 1
        fields: dict[str, str] = {}
        while True:
            field = _FIELD.match(text, at)
            if field is None:
                return "not line protocol: a field is written name=value", at
            fields[_unescaped(field[1], ",= ")] = field[2]
            at = field.end()
            if text[at : at + 1] != ",":
                break
            at += 1
        stamp = _STAMP.match(text, at)
        at = at if stamp is None else stamp.end()
        blank = _BLANK.match(text, at)
        if blank is None:
            rest = text[at : at + 30].partition("\n")[0].strip()
            return f"not line protocol: {rest} is neither a field nor a timestamp", at
        return (_Line(series, fields, stamp and stamp[1]) if series.wanted else None), blank.end()

    def _begun(self, head: str) -> _Series:
        """What the beginning of a line says; remembered."""
        if len(self._series) >= SERIES:
            self._series.clear()
        series = self._series[head] = self._read(head)
        return series

    def _read(self, head: str) -> _Series:
        measurement = _MEASUREMENT.match(head)
        if measurement is None:
            return _Series(True, "not line protocol: it begins with a measurement")
        name = _unescaped(measurement[0], ", ")
        texts = {_MEASURED: name}
        at = measurement.end()
        while at < len(head):
            tag = _TAG.match(head, at)
            if tag is None:
                return _Series(True, "not line protocol: a tag is written ,name=text")
            texts[_unescaped(tag[1], ",= ")] = _unescaped(tag[2], ",= ")
            at = tag.end()
        if self._only is not None and name not in self._only:
            return _Series(False)
        # In quotes, as a text among the values of fields is: a field and a tag are read alike.
        return _Series(True, "", {n: _quoted(text) for n, text in texts.items() if n in self._names})

    # --- values ---

    def _values(self, name: str, texts: Sequence[str | None]) -> list[Any]:
        """The values of a field (or of tags), as Python has them."""
        field = self.fields.get(name)
        if field is not None and field.kind == "float":
            try:
                found = np.array(texts, object).astype(np.float64)
            except (ValueError, TypeError):
                pass
            else:  # nan and inf are numbers to numpy, and none here
                if np.isfinite(found).all() and "_" not in "".join(texts):  # type: ignore[arg-type]
                    return found.tolist()  # type: ignore[no-any-return]
        # Texts and truth values repeat themselves.
        known = {text: None if text is None else _value(text) for text in set(texts)}
        return [known[text] for text in texts]

    # --- rows to bytes ---

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """A line for each row that has a field left."""
        times: list[Any] = []
        if rows and "time" in rows[0]:
            ns, _ = nanoseconds([row["time"] for row in rows], self.settings.time_unit)
            times = (ns // PER_UNIT[self.options.precision or "ns"]).tolist()
        only = self.options.measurement
        name = only if isinstance(only, str) else None
        tags = [*([self.settings.key] if self.settings.key else []), *self.options.tags]
        aside = {*tags, "time", "stream"} if name is None else {*tags, "time"}
        names = {n: _escaped(n, ",= ") for n in {n for row in rows for n in row}}
        heads: dict[tuple[Any, ...], str] = {}  # most rows are of few series
        lines = []
        for i, row in enumerate(rows):
            series = (name or row.get("stream") or self.name, *map(row.get, tags))
            if (head := heads.get(series)) is None or True in series or False in series:  # 1 == True
                head = heads[series] = _head(series, tags)
            fields = [f"{names[n]}={w}" for n, v in row.items() if n not in aside and (w := _written(v)) is not None]
            if fields:
                lines.append(f"{head} {','.join(fields)} {times[i]}\n" if times else f"{head} {','.join(fields)}\n")
        return "".join(lines).encode()

    def header(self, names: Sequence[str]) -> bytes:
        return b""


def _value(text: str) -> Any:
    """What a value says, by how it is written."""
    if text[0] == '"':
        return _unescaped(text[1:-1], '"\\')
    if text in _TRUTH:
        return _TRUTH[text]
    if text[-1] in "iu":
        whole = _INTEGER.fullmatch(text, 0, len(text) - 1)
        return Nonsense() if whole is None or (text[-1] == "u" and text[0] == "-") else int(whole[0])
    if _NUMBER.fullmatch(text):
        return float(text)
    return {"nan": float("nan")}.get(text.lower(), Nonsense())


def _unescaped(text: str, what: str) -> str:
    if "\\" not in text:
        return text
    return re.sub(rf"\\([{re.escape(what)}])", r"\1", text)


def _escaped(text: str, what: str) -> str:
    """A name or the text of a tag: it has no line ends, and nothing can escape a backslash at its end."""
    flat = text.replace("\n", " ").rstrip("\\")
    return re.sub(rf"([{re.escape(what)}])", r"\\\1", flat)


def _head(series: tuple[Any, ...], tags: Sequence[str]) -> str:
    """The measurement, and the tags that are there."""
    head = _escaped(str(series[0]), ", ")
    for tag, value in zip(tags, series[1:], strict=True):
        text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        if text := _escaped(text, ",= "):
            head += f",{_escaped(tag, ',= ')}={text}"
    return head


def _written(value: Any) -> str | None:
    """A value as a field has it; None: it cannot be one."""
    if isinstance(value, float):
        return repr(value) if isfinite(value) else None
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value}i" if isinstance(value, int) else _quoted(str(value))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
