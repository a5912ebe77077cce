"""What each codec costs: µs of CPU a reading, decoded into columns and encoded from rows, beside `orjson.loads` of each line.

    python -m benchmarks.codecs [CODEC ...] [--readings 100000]

The readings: 100 keys, an event time, two numbers, one of which may be missing. They come in two ways: `many` is one payload
with all of them (a file, a batch over HTTP), `one` is a payload each, all that wait decoded together (messages of a broker).
Each figure is the best of several runs; the reference is measured anew beside each codec, so that both meet the same machine.
"""

from __future__ import annotations

import argparse
import gc
import platform
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from pipeline.component import Context, ReadingSettings
from pipeline.frame import KeyTable
from pipeline.registry import codec_for, types

RUNS = 5
START_MS = 1_700_000_000_000
FIELDS = {"temperature": "float", "humidity": "float?"}
LINE = r"^(?P<time>\d+) (?P<id>\S+) temperature=(?P<temperature>\S+) humidity=(?P<humidity>\S+)"

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """How a codec is set, and the bytes that another program would send."""

    name: str
    many: Callable[[Rows], bytes]
    options: dict[str, Any]
    key: str | None = "id"
    time: str | None = "time"
    unit: str = "ms"
    fields: tuple[str, ...] = tuple(FIELDS)

    @property
    def type(self) -> str:
        return self.name.partition(" ")[0]

    def settings(self) -> ReadingSettings:
        fields = {name: kind for name, kind in FIELDS.items() if name in self.fields}
        format_ = {"type": self.type, **self.options}
        return ReadingSettings(format=format_, key=self.key, time=self.time, time_unit=self.unit, fields=fields)


def rows(n: int) -> Rows:
    return [
        {"id": f"s{i % 100}", "time": START_MS + i, "temperature": (i % 300) / 10, "humidity": 30.5 + i % 50}
        for i in range(n)
    ]


def ndjson(some: Rows) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in some)


def lines(form: str) -> Callable[[Rows], bytes]:
    return lambda some: "".join(form.format(**row) + "\n" for row in some).encode()


def influx(some: Rows) -> bytes:
    form = "weather,id={id} temperature={temperature},humidity={humidity} {time}"
    return lines(form)(some)


def mixed(some: Rows) -> bytes:
    """Every other line has one field only: they are not alike."""
    part = "weather,id={id} temperature={temperature} {time}\n"
    whole = "weather,id={id} temperature={temperature},humidity={humidity} {time}\n"
    return "".join((part if i % 2 else whole).format(**row) for i, row in enumerate(some)).encode()


def senml(some: Rows) -> bytes:
    records = []
    for row in some:
        records.append({"bn": row["id"] + ":", "bt": row["time"] / 1000, "n": "temperature", "v": row["temperature"]})
        records.append({"n": "humidity", "v": row["humidity"]})
    return orjson.dumps(records)


def nested(some: Rows) -> bytes:
    sensors = [
        {"id": row["id"], "at": row["time"], "now": {"t": row["temperature"], "h": row["humidity"]}} for row in some
    ]
    return orjson.dumps({"gateway": "g1", "sensors": sensors})


def cbor(some: Rows) -> bytes:
    import cbor2

    return b"".join(map(cbor2.dumps, some))


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def sparkplug(some: Rows) -> bytes:
    out = []
    for row in some:
        for name in FIELDS:
            metric = b"\x0a" + varint(len(name)) + name.encode() + b"\x18" + varint(row["time"])
            metric += b"\x69" + struct.pack("<d", row[name])
            out.append(b"\x12" + varint(len(metric)) + metric)
    return b"".join(out)


PATHS = {
    "id": "sensors[*].id",
    "time": "sensors[*].at",
    "temperature": "sensors[*].now.t",
    "humidity": "sensors[*].now.h",
}
CASES = [
    Case("json", ndjson, {}),
    Case("csv", lines("{id},{time},{temperature},{humidity}"), {"header": ["id", "time", "temperature", "humidity"]}),
    Case("influx", influx, {}),
    Case("influx mixed", mixed, {}),
    Case("senml", senml, {"separator": ":"}, unit="auto"),
    Case("msgpack", lambda some: b"".join(map(msgspec.msgpack.encode, some)), {}),
    Case("cbor", cbor, {}),
    Case("sparkplug", sparkplug, {}, key=None),
    Case("path", nested, {"paths": PATHS}),
    Case("regex", lines("{time} {id} temperature={temperature} humidity={humidity}"), {"pattern": LINE}),
    Case("value", lines("{temperature}"), {}, key=None, time=None, fields=("temperature",)),
]


@dataclass(frozen=True)
class Cost:
    """µs a reading."""

    many: float
    one: float
    encode: float | None  # None: it is read only
    reference: float


def best(n: int, runs: int, work: Callable[[], Any]) -> float:
    """µs of CPU for each of n, in the best run."""
    least = float("inf")
    for _ in range(runs):
        gc.collect()
        start = time.process_time()
        work()
        least = min(least, time.process_time() - start)
    return least / n * 1e6


def measure(case: Case, n: int, runs: int = RUNS) -> Cost:
    some = rows(n)
    together, apart = [case.many(some)], [case.many([row]) for row in some]
    reader = codec_for(case.settings(), Context("in", KeyTable()))
    assert reader is not None, case.name

    def decode(payloads: Sequence[bytes]) -> None:
        decoded = reader.decode(payloads)
        assert sum(decoded.counts) == n, (case.name, decoded.refused[:3])

    json_lines = ndjson(some).splitlines()
    return Cost(
        best(n, runs, lambda: decode(together)),
        best(n, runs, lambda: decode(apart)),
        encoded(case, some, runs),
        best(n, runs, lambda: [orjson.loads(line) for line in json_lines]),
    )


def encoded(case: Case, some: Rows, runs: int) -> float | None:
    context = Context("out", KeyTable())
    writer = codec_for(
        msgspec.structs.replace(case.settings(), key="id", time="time", time_unit="ms"), context, writing=True
    )
    if writer is None:
        return None
    if case.type == "value":
        some = [{"temperature": row["temperature"]} for row in some]
    writer.header(list(some[0]))
    return best(len(some), runs, lambda: writer.encode(some))


def table(costs: dict[str, Cost]) -> Iterator[str]:
    yield "| codec | many | one | encode | orjson.loads | many / orjson |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name, cost in costs.items():
        encode = "" if cost.encode is None else f"{cost.encode:.2f}"
        ratio = cost.many / cost.reference
        yield f"| {name} | {cost.many:.2f} | {cost.one:.2f} | {encode} | {cost.reference:.2f} | {ratio:.1f} |"


def chosen(names: Sequence[str]) -> list[Case]:
    """The cases of these codecs; SystemExit names a codec that has none."""
    if missing := set(types("codec")) - {case.type for case in CASES}:
        raise SystemExit(f"no case for {', '.join(sorted(missing))}: add one to CASES")
    if unknown := set(names) - {case.type for case in CASES}:
        raise SystemExit(f"there is no codec {', '.join(sorted(unknown))}")
    return [case for case in CASES if not names or case.type in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("codecs", nargs="*")
    parser.add_argument("--readings", type=int, default=100_000)
    options = parser.parse_args()
    print(
        f"µs of CPU a reading; {options.readings:,} readings, Python {platform.python_version()}, {platform.machine()}\n"
    )
    for line in table({case.name: measure(case, options.readings) for case in chosen(options.codecs)}):
        print(line)


if __name__ == "__main__":
    main()
