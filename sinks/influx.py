"""`influx`: rows into an InfluxDB, by line protocol."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from msgspec import Meta

from pipeline.component import Batch, Codec, Outcome, ReadingSettings, SinkContext
from pipeline.delivering import BatchSettings, DeliveringSink, in_parts
from pipeline.http_peer import HttpDeliveringSettings, HttpPeer, Unanswered, check_url
from pipeline.quantity import Secret
from pipeline.registry import codec_for

LARGE = 2_000  # rows from which on lines are made beside the loop


class InfluxSettings(HttpDeliveringSettings, frozen=True, kw_only=True):
    url: Annotated[str, Meta(description="The address of InfluxDB, without /write.")]
    database: Annotated[str | None, Meta(description="InfluxDB 1: the database.")] = None
    retention: Annotated[str | None, Meta(description="InfluxDB 1: the retention policy. Absent: the default.")] = None
    user: Annotated[str | None, Meta(description="InfluxDB 1: who writes.")] = None
    password: Annotated[Secret | None, Meta(description="InfluxDB 1: the password.")] = None
    bucket: Annotated[str | None, Meta(description="InfluxDB 2 and later: the bucket.")] = None
    org: Annotated[str | None, Meta(description="InfluxDB 2 and later: the organization.")] = None
    measurements: Annotated[
        dict[str, str], Meta(description="The measurement of an input. Absent: as the input is called.")
    ] = {}
    tags: Annotated[tuple[str, ...], Meta(description="Fields that are tags, beside the key.")] = ()
    integers: Annotated[
        bool, Meta(description="Write whole numbers as integers; without, as floats, which thinned rows have.")
    ] = True
    spread: Annotated[
        bool, Meta(description="Add up to 999 ns to times, by order of arrival: readings at one time are all kept.")
    ] = False
    gzip: Annotated[bool, Meta(description="Compress the body.")] = True
    batch: Annotated[BatchSettings, Meta(description="How rows are put together.")] = BatchSettings(rows=5_000)


class Influx(DeliveringSink):
    """Write rows to InfluxDB: 1 with `database`, 2 and later with `bucket` and `org`.

        [sinks.history]
        type = "influx"
        inputs = ["ten_seconds"]
        url = "https://influx.example.org:8086"
        database = "plant"

    The measurement is the input's name, the key a tag, the time in ns. `tags` names fields that are tags, too: those with few
    values. Whole numbers are integers, and with `integers = false` floats: a field keeps the kind that came first, and the
    means of thinned rows have fractions. What is missing is left out, and so is what InfluxDB cannot hold (NaN, infinity); a row
    of which nothing is left is not written.
    `token` is for InfluxDB 2, `user` and `password` for 1; `oauth`, `headers` and `tls` as for `cloud`.
    Delivery: at least once, and the same row once: InfluxDB puts a point with the same measurement, tags and time in the
    place of the one before. So of readings of a key at one time the last one stays (those without a time of their own that
    came in one request are such), unless `spread` keeps them apart. Where it refuses a batch
    (400, 413, 422) halves are tried until the guilty rows are alone, and these become dead letters: fields of another type
    than before, times beyond its retention. All else, a database that is not there among it, is tried again.
    At the limit (`buffer.when_full`): as for `cloud`.
    """

    def __init__(self, settings: InfluxSettings, context: SinkContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        self.shown_url = check_url(settings.url, context, such_as="http://127.0.0.1:8086")
        self.address = settings.url.rstrip("/") + self._path()
        self.peer = HttpPeer(settings, context, scheme="Token", user=settings.user, password=settings.password)
        self.codecs: dict[str, Codec] = {}
        for stream in context.inputs:
            self._codec(stream)
        for stream in settings.measurements.keys() - context.inputs.keys():
            context.problem(f"measurements.{stream}", "is not an input of this sink")
        fields = {name for schema in context.inputs.values() for name in schema.fields}
        for tag in settings.tags:
            if tag not in fields:
                context.problem("tags", f'"{tag}" is not a field of any input')
        kinds = {field.kind for schema in context.inputs.values() for field in schema.fields.values()}
        if settings.buffer.when_full == "thin" and settings.integers and "int" in kinds:
            context.problem("integers", 'must be false with when_full = "thin": means of whole numbers have fractions')
        self.headers = {"Content-Type": "text/plain; charset=utf-8"}
        if settings.gzip:
            self.headers["Content-Encoding"] = "gzip"

    def _path(self) -> str:
        """The way to write, and what goes where."""
        given = self.settings
        if (given.database is None) == (given.bucket is None):
            self.context.problem(
                "database", "InfluxDB 1 has a database, InfluxDB 2 and later a bucket: name one of them"
            )
        if given.bucket is not None:
            if given.org is None:
                self.context.problem("org", "is missing: to whom the bucket belongs")
            if given.user is not None:
                self.context.problem("user", "is for InfluxDB 1; a bucket is written to with a token")
            return "/api/v2/write?" + urlencode({"org": given.org or "", "bucket": given.bucket, "precision": "ns"})
        if given.token is not None:
            self.context.problem("token", "is for InfluxDB 2 and later; a database is written to by user and password")
        policy = {"rp": given.retention} if given.retention else {}
        return "/write?" + urlencode({"db": given.database or "", "precision": "ns", **policy})

    def _codec(self, stream: str) -> Codec:
        """What writes the lines of a stream."""
        if stream not in self.codecs:
            schema = self.context.inputs.get(stream)
            form = {
                "type": "influx",
                "measurement": self.settings.measurements.get(stream, stream),
                "tags": list(self.settings.tags),
            }
            key = schema.key if schema else "key"
            made = codec_for(ReadingSettings(format=form, key=key, time="time", time_unit="ns"), self.context)
            assert made is not None  # it is one of ours
            self.codecs[stream] = made
        return self.codecs[stream]

    async def deliver(self, batch: Batch) -> Outcome:
        told = self.told(batch)
        for row, at in zip(told, self._times(batch), strict=True):
            row["time"] = at

        async def offer(rows: Sequence[int]) -> Outcome:
            some = [told[i] for i in rows]
            body = self._body(some) if len(some) < LARGE else await asyncio.to_thread(self._body, some)
            if not body:
                return Outcome(delivered=True)  # nothing of them can be a field
            try:
                answer = await self.peer.ask("POST", self.address, body, self.headers, self.shown_url, batch.key)
            except Unanswered as error:
                return error.outcome
            return answer.verdict

        return await in_parts(len(told), offer)

    def _times(self, batch: Batch) -> list[int]:
        made: list[int] = []
        for _, frame in batch.parts:
            made += (frame.time + frame.seq % 1_000 if self.settings.spread else frame.time).tolist()
        return made

    def _body(self, told: list[dict[str, Any]]) -> bytes:
        by_stream: dict[str, list[dict[str, Any]]] = {}
        for row in told:
            fields = {name: value for name, value in row.items() if name not in ("stream", "recovered")}
            if not self.settings.integers:
                fields = {name: float(value) if type(value) is int else value for name, value in fields.items()}
            by_stream.setdefault(row["stream"], []).append(fields)
        lines = b"".join(self._codec(stream).encode(rows) for stream, rows in by_stream.items())
        return gzip.compress(lines, 6, mtime=0) if lines and self.settings.gzip else lines

    async def close(self) -> None:
        await self.peer.close()
