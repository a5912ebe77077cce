"""influx reads line protocol as a parser by single characters does, and as a real InfluxDB; and it reads what it writes."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.component import Context, ReadingSettings
from pipeline.frame import KeyTable
from pipeline.registry import codec_for
from tests.codec import make, piped, refusals, rows, taken, tried
from tests.waiting import waited

FIELDS = {"temperature": "float", "rain": "bool?", "count": "int?", "country": "string?", "note": "string?"}
NONE = {"rain": None, "count": None, "country": None, "note": None}


def test_tags_fields_and_the_timestamp() -> None:
    codec = make("influx", FIELDS, "station", "time")
    payload = rb"""# how the roof does
weather,station=roof,country=ch temperature=21.5,rain=f,count=42i,note="a \"b\" \\ c" 1700000000000000000

weather,station=on\ the\ hill temperature=-3e2 1700000000000000001
"""
    assert taken(codec, [payload]) == [
        {
            "key": "roof",
            "time": 1_700_000_000 * 10**9,
            "temperature": 21.5,
            "rain": False,
            "count": 42,
            "country": "ch",
            "note": 'a "b" \\ c',
        },
        {"key": "on the hill", "time": 1_700_000_000 * 10**9 + 1, "temperature": -300.0, **NONE},
    ]


def test_a_text_may_hold_a_line_end() -> None:
    codec = make("influx", {"a": "string", "b": "int"}, None)
    assert taken(codec, [b'm a="x\ny",b=1i\nm a="z",b=2u']) == [{"a": "x\ny", "b": 1}, {"a": "z", "b": 2}]


def test_the_measurement_may_be_the_key_or_a_field() -> None:
    codec = make("influx", {"used": "float", "host": "string"}, "measurement")
    assert taken(codec, [b"cpu,host=a used=1\nmem,host=a used=2"]) == [
        {"key": "cpu", "used": 1.0, "host": "a"},
        {"key": "mem", "used": 2.0, "host": "a"},
    ]
    codec = make("influx", {"used": "float", "measurement": "string"}, "host")
    assert taken(codec, [b"cpu,host=a used=1"]) == [{"key": "a", "used": 1.0, "measurement": "cpu"}]


def test_other_measurements_are_left_out() -> None:
    """They are no readings: the items of those that count go by without them."""
    codec = make("influx", {"used": "float"}, "host", measurement=["cpu", "mem"])
    payload = b'disk free=5\ncpu,host=a used=1\ndisk,host=a free="x"\nmem,host=a free=2\nmem,host=a used=3\n'
    decoded = codec.decode([payload, b"disk free=5"])
    assert rows(codec, decoded) == [{"key": "a", "used": 1.0}, {"key": "a", "used": 3.0}]
    assert [r[:3] for r in decoded.refused] == [(0, 1, "used: missing")]
    assert codec.readings(payload)[1] == b"mem,host=a free=2"
    assert list(decoded.counts) == [2, 0]


@pytest.mark.parametrize(
    ("unit", "options", "stamp", "ns"),
    [
        ("auto", {}, "5", 5),
        ("ms", {}, "5", 5_000_000),
        ("auto", {"precision": "s"}, "5", 5 * 10**9),
        ("ns", {"precision": "us"}, "-5", -5_000),
    ],
)
def test_units_of_time(unit: str, options: dict[str, Any], stamp: str, ns: int) -> None:
    codec = make("influx", {"v": "float"}, None, "time", unit, **options)
    assert taken(codec, [f"m v=1 {stamp}".encode()]) == [{"time": ns, "v": 1.0}]


class At:
    def wall(self) -> int:
        return 7_000_000_000


def test_a_line_without_a_timestamp_is_dated_when_it_is_read() -> None:
    """Unless it may be read once more, as a file after a crash: then it would be dated otherwise."""
    codec = make("influx", {"v": "float"}, None, "time", clock=At(), precision="ms")
    assert [row["time"] for row in taken(codec, [b"m v=1 5\nm v=2"])] == [5_000_000, 7_000_000_000]
    assert refusals(make("influx", {"v": "float"}, None, "time"), b"m v=1 5\nm v=2") == [(1, "time: missing")]


MALFORMED = "not line protocol: "


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("m temperature=1 5", "station: missing"),
        ("m,station=a rain=t 5", "temperature: missing"),
        ("m,station=a temperature=t 5", "temperature: expected a number, got true or false"),
        ('m,station=a temperature="1" 5', "temperature: expected a number, got text"),
        ("m,station=a temperature=1x 5", "temperature: expected a number, got what is none"),
        ("m,station=a temperature=1_0 5", "temperature: expected a number, got what is none"),
        ("m,station=a temperature=nan 5", "temperature: expected a number, got NaN"),
        ("m,station=a temperature=inf 5", "temperature: expected a number, got what is none"),
        ("m,station=a temperature=1e999 5", "temperature: expected a number, got infinity"),
        ("m,station=a temperature=1,count=1 5", "count: expected a whole number, got a number"),
        ("m,station=a temperature=1,count=-1u 5", "count: expected a whole number, got what is none"),
        ("m,station=a temperature=1,count=9223372036854775808u 5", "count: beyond 64 bits"),
        ("m,station=a temperature=1,count=" + "9" * 9_999 + "i 5", "count: expected a whole number, got what is none"),
        ("m,station=a temperature=1,rain=5i 5", "rain: expected true or false, got a whole number"),
        ("m,station=a temperature=1 99999999999999999999", "time: not a time in range"),
        ("m,station=a temperature=1", "time: missing"),
        ("m,station=a temperature=1 x", MALFORMED + "x is no timestamp"),
        ("m,station=a temperature=1 " + "5" * 5_000, MALFORMED + "5" * 30 + " is no timestamp"),
        ("m,station=a temperature=1 5 6", MALFORMED + "5 6 is neither a field nor a timestamp"),
        ("m,station=a", MALFORMED + "a field is written name=value"),
        ("m,station=a temperature 5", MALFORMED + "a field is written name=value"),
        ("m,station=a temperature=1=2 5", MALFORMED + "a field is written name=value"),
        ('m,station=a temperature=1,note="x 5', MALFORMED + "a field is written name=value"),
        ("m,station temperature=1 5", MALFORMED + "a tag is written ,name=text"),
        (",station=a temperature=1 5", MALFORMED + "it begins with a measurement"),
        ("# nothing", "empty: there is no reading in it"),
        ("", "empty: there is no reading in it"),
    ],
)
def test_a_reason_says_what_was_wanted(line: str, reason: str) -> None:
    codec = make("influx", FIELDS, "station", "time")
    good = "m,station=a temperature=1 5"
    found = refusals(codec, line.encode())
    assert len(found) == 1
    if reason.startswith("not line") and "=1=2" in line:
        assert found[0][1].startswith(MALFORMED)
    else:
        assert found == [(0, reason)]
    if not reason.startswith("empty"):
        assert [item for item, _ in refusals(codec, f"{good}\n{line}\n{good}".encode())] == [1]


# --- against a parser that goes by single characters -----------------------------------------------------------------


class Wrong(Exception):
    pass


class Reference:
    """What the text says, from the protocol's own description: one character after the other."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def name(self, ends: str) -> str:
        found = ""
        while (c := self.peek()) and c not in ends and c != "\n":
            following = self.text[self.at + 1 : self.at + 2]
            if c == "\\" and following and following in ends:
                found += following
                self.at += 2
            else:
                found += c
                self.at += 1
        if not found:
            raise Wrong
        return found

    def take(self, c: str) -> None:
        if self.peek() != c:
            raise Wrong
        self.at += 1

    def value(self) -> Any:
        if self.peek() != '"':
            found = ""
            while (c := self.peek()) and c not in ', \n"':
                found += c
                self.at += 1
            if not found:
                raise Wrong
            return ("raw", found)
        self.at += 1
        found = ""
        while (c := self.peek()) != '"':
            if not c:
                raise Wrong
            if c == "\\":
                following = self.text[self.at + 1 : self.at + 2]
                found += following if following in ('"', "\\") else c + following
                self.at += 2
            else:
                found += c
                self.at += 1
        self.at += 1
        return ("text", found)

    def line(self) -> dict[str, Any]:
        line: dict[str, Any] = {"measurement": self.name(", "), "tags": {}, "fields": {}, "stamp": None}
        while self.peek() == ",":
            self.at += 1
            name = self.name(",= ")
            self.take("=")
            line["tags"][name] = self.name(",= ")
        self.take(" ")
        while self.peek() == " ":
            self.at += 1
        while True:
            name = self.name(",= ")
            self.take("=")
            line["fields"][name] = self.value()
            if self.peek() != ",":
                break
            self.at += 1
        self.blanks()
        if self.peek() not in ("", "\n"):
            if self.text[self.at - 1] != " ":
                raise Wrong
            digits = self.text[self.at :].split("\n")[0].split(" ")[0]
            if not (digits.removeprefix("-").isdigit() and digits.isascii()):
                raise Wrong
            line["stamp"] = int(digits)
            self.at += len(digits)
            self.blanks()
        if self.peek() not in ("", "\n"):
            raise Wrong
        return line

    def blanks(self) -> None:
        while self.peek() == " ":
            self.at += 1

    def all(self) -> Iterator[dict[str, Any] | None]:
        """None: a line that is none."""
        while self.at < len(self.text):
            self.blanks()
            if self.peek() == "#":
                yield from ()
            elif self.peek() not in ("", "\n"):
                start = self.at
                try:
                    yield self.line()
                except Wrong:
                    self.at = start
                    yield None
                else:
                    self.at += 1
                    continue
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end + 1


def by_hand(text: str) -> list[dict[str, Any] | None]:
    """The readings of a stream with the tag t as key and a field f, text; None for each that must be refused."""
    found: list[dict[str, Any] | None] = []
    for line in Reference(text).all():
        if line is None:
            found.append(None)
            continue
        kind, value = line["fields"].get("f", ("text", line["tags"].get("f", line["measurement"] * 0)))
        key = line["tags"].get("t")
        own = line["fields"].get("t")
        if own is not None:
            key = own[1] if own[0] == "text" else {"5i": "5"}.get(own[1])  # a whole number is a key, too
        good = kind == "text" and key and ("f" in line["fields"] or "f" in line["tags"]) and len(key) <= 500
        found.append({"key": key, "f": value} if good else None)
    return found


names = st.sampled_from(["f", "t", "g", "a\\,b", "x\\ y", "e\\=", 'q"', "\\w", "\\\\"])
some_values = st.sampled_from(['"x"', '"a\\"b"', '"a\\\\"', '"l\nm"', '"', "1", "t", "5i", "1\\ 2", '""', '"# , ="'])
tag_texts = st.sampled_from(["a", "b\\ c", "d\\,e", '"q"', "f\\=g", "h\\i", "\\\\", "é"])
pairs = st.tuples(names, some_values).map("=".join)
made_lines = st.builds(
    lambda m, tags, fields, end: f"{m}{''.join(',' + t for t in tags)} {','.join(fields)}{end}",
    st.sampled_from(["m", "m\\ n", "m\\,n", "m=n", 'm"']),
    st.lists(st.tuples(names | st.just("t"), tag_texts).map("=".join), max_size=3),
    st.lists(pairs | st.just('f="y"'), min_size=1, max_size=3),
    st.sampled_from(["", " 5", " -7 ", "  9", " x"]),
)
noise = st.text('mft=, "\\1\n#é', max_size=12)


@settings(max_examples=400, deadline=None)
@given(st.lists(made_lines | noise, max_size=6))
def test_as_a_parser_by_single_characters_reads_it(some: list[str]) -> None:
    text = "\n".join(some)
    codec = make("influx", {"f": "string"}, "t")
    decoded = codec.decode([text.encode()])
    wanted = by_hand(text)
    assert rows(codec, decoded) == [row for row in wanted if row is not None]
    refused = {r.item for r in decoded.refused if not r.reason.startswith("empty")}
    assert refused == {i for i, row in enumerate(wanted) if row is None}


plain_lines = st.builds(
    lambda tag, fields, end: f"m{tag} {','.join(fields)}{end}",
    st.sampled_from(["", ",t=a", ",t=b,u=c"]),
    st.just(["f=1", "g=t"])
    | st.lists(st.sampled_from(["f=1", "g=f", "f=2.5", "h=5i", "f", "f=t"]), min_size=1, max_size=3),
    st.sampled_from(["", " 5", " -7", " x", "\r"]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(plain_lines, min_size=1, max_size=4), min_size=1, max_size=4))
def test_lines_that_are_alike_and_others_give_the_same(payloads: list[list[str]]) -> None:
    """A search over all lines, and each line by itself."""
    fields = {"f": "float?", "g": "bool?", "t": "string?"}
    texts = ["\n".join(each) for each in payloads]
    together = make("influx", fields, None)
    apart = make("influx", fields, None)
    whole = together.decode([text.encode() for text in texts])
    pieces = apart._one_by_one([text.replace("\r\n", "\n") for text in texts])
    assert rows(together, whole) == rows(apart, pieces)
    assert (list(whole.counts), whole.refused) == (list(pieces.counts), pieces.refused)


# --- writing ---------------------------------------------------------------------------------------------------------


def writer(**options: Any) -> Any:
    context = Context("out", KeyTable())
    made = ReadingSettings(format={"type": "influx", **options}, key="id", time="time", time_unit="ns")
    codec = codec_for(made, context, writing=True)
    assert context.problems == []
    return codec


texts = st.text('ab ,="\\né', min_size=1, max_size=6)
readings = st.fixed_dictionaries(
    {
        "id": texts.filter(lambda t: "\n" not in t and not t.endswith("\\")),
        "time": st.integers(-(2**62), 2**62),
        "v ,=x": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "n": st.none() | st.integers(-(2**63), 2**63 - 1),
        "b": st.none() | st.booleans(),
        "s": st.none() | texts,
    }
)


@settings(max_examples=150, deadline=None)
@given(st.lists(readings, max_size=5))
def test_what_is_written_is_read(written: list[dict[str, Any]]) -> None:
    """A row without a single field cannot be written; all others are the same again, to the last bit."""
    data = writer(measurement="m n").encode(written)
    fields = {"v ,=x": "float?", "n": "int?", "b": "bool?", "s": "string?"}
    codec = make("influx", fields, "id", "time", measurement="m n")
    kept = [row for row in written if any(row[name] is not None for name in fields)]
    if kept:
        assert taken(codec, [data]) == [{"key": row.pop("id"), **row} for row in kept]
    else:
        assert data == b""


def test_what_cannot_be_written_is_left_out() -> None:
    rows_ = [
        {"stream": "w", "id": "a", "time": 0, "v": float("nan"), "w": 1},
        {"stream": "w", "id": None, "time": 1, "v": None, "w": None},
        {"stream": "x", "id": "b\\", "time": 2, "v": 1.0, "w": True},
    ]
    assert writer().encode(rows_) == b"w,id=a w=1i 0\nx,id=b v=1.0,w=true 2\n"
    assert writer(tags=["w"], precision="us").encode(rows_[2:]) == b"x,id=b,w=true v=1.0 0\n"


def test_wrong_settings_are_told() -> None:
    _, problems = tried("influx", {"v": "float"}, time="ts", time_unit="iso", precision="h", tag=["a"])
    assert [where for where, _ in problems] == ["format.precision", "format.tag", "time", "time_unit"]


def test_from_file_to_file(tmp_path: Path) -> None:
    """The end of the time that the sink writes as text is in ns again."""
    source = 'format = "influx"\nkey = "id"\ntime = "time"\nfields = { v = "float" }'
    data = b"m,id=a v=1.5 1700000000000000001\nm,id=b v=2 1700000000000000002\n"
    out = piped(tmp_path, source, data, 'format = { type = "influx", measurement = "m" }')
    assert out == b"m,id=a v=1.5 1700000000000000001\nm,id=b v=2.0 1700000000000000002\n"


def test_a_file_has_no_now(tmp_path: Path) -> None:
    """A part of it may be read again after a crash: a line without a timestamp would then be another reading."""
    source = 'format = "influx"\ntime = "time"\nfields = { v = "float" }'
    assert (
        piped(tmp_path, source, b"m v=1\nm v=2 5\n", 'format = { type = "influx", measurement = "m" }')
        == b"m v=2.0 5\n"
    )


# --- and against InfluxDB itself -------------------------------------------------------------------------------------


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[str]:
    command = shutil.which("influxd")
    if command is None:
        pytest.skip("there is no influxd")
    ports = []
    for _ in range(2):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            ports.append(s.getsockname()[1])
    config = tmp_path / "influx.conf"
    config.write_text(
        f"""reporting-disabled = true
bind-address = "127.0.0.1:{ports[0]}"
[meta]
dir = "{tmp_path}/meta"
[data]
dir = "{tmp_path}/data"
wal-dir = "{tmp_path}/wal"
[http]
bind-address = "127.0.0.1:{ports[1]}"
[monitor]
store-enabled = false
"""
    )
    with subprocess.Popen(
        [command, "-config", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        url = f"http://127.0.0.1:{ports[1]}"
        try:
            waited(lambda: answers(url + "/ping"))
            yield url
        finally:
            run.terminate()
            run.wait(60)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=60).close()
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


def ask(url: str, query: str) -> Any:
    parameters = urllib.parse.urlencode({"q": query, "db": "d", "epoch": "ns"})
    with urllib.request.urlopen(f"{url}/query?{parameters}", data=b"", timeout=60) as answer:
        return json.load(answer)["results"][0]


def test_influxdb_reads_the_same(influxd: str) -> None:
    """Names and texts with all that must be escaped, written by the codec and read by both."""
    ask(influxd, "CREATE DATABASE d")
    written = [
        {"id": 'a b,c=d"é', "time": 1, "v": 0.1, "n": -5, "b": True, "s": 'x "y" \\ z, = \n end'},
        {"id": "plain", "time": 2, "v": 1e300, "n": 2**63 - 1, "b": False, "s": ""},
        {"id": "c:\\path", "time": 3, "v": -2.5, "n": 0, "b": None, "s": "\\"},
    ]
    data = writer(measurement="m ,n").encode(written)
    with urllib.request.urlopen(f"{influxd}/write?db=d&precision=ns", data=data, timeout=60) as answer:
        assert answer.status == 204
    series = ask(influxd, 'SELECT "id", v, n, b, s FROM "m ,n"')["series"][0]
    assert [dict(zip(series["columns"], row, strict=True)) for row in series["values"]] == written
    codec = make("influx", {"v": "float", "n": "int", "b": "bool?", "s": "string"}, "id", "time")
    assert taken(codec, [data]) == [
        {"key": row["id"], **{n: v for n, v in row.items() if n != "id"}} for row in written
    ]


def test_a_field_without_a_name_is_refused_alike_alone_and_beside_others() -> None:
    made = make("influx", {"value": "float"}, "id", None)
    alone = made.decode([b"w =1,value=2"]).refused
    assert [r.reason for r in alone] == ["not line protocol: a field is written name=value"]
    assert made.decode([b"", b"w =1,value=2"]).refused[1][1:] == alone[0][1:]
