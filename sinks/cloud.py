"""`cloud`: rows by HTTP, buffered for as long as the network is away."""

from __future__ import annotations

import asyncio
import gzip
import time
from typing import Annotated, Any, Literal

from msgspec import Meta

from pipeline.component import Batch, Outcome, Settings, SinkContext
from pipeline.delivering import DeliveringSink
from pipeline.http_peer import HttpDeliveringSettings, HttpPeer, check_url
from pipeline.json_template import JsonTemplate

LARGE = 2_000  # rows from which on a body is made beside the loop
RETURN_S = 300.0  # after so long with another address the first one is asked first again


class TemplateSettings(Settings, frozen=True, kw_only=True):
    row: Annotated[dict[str, Any] | None, Meta(description="How a row is shown. Absent: with all that it has.")] = None
    body: Annotated[
        dict[str, Any] | None, Meta(description='What stands around the rows, with "{rows}" where they go.')
    ] = None


class CloudSettings(HttpDeliveringSettings, frozen=True, kw_only=True):
    url: Annotated[str, Meta(description="Where rows are sent by POST.")]
    fallback: Annotated[tuple[str, ...], Meta(description="Asked in turn where `url` takes nothing.")] = ()
    format: Annotated[Literal["ndjson", "json"], Meta(description="A JSON object a line, or an array of objects.")] = (
        "ndjson"
    )
    template: Annotated[TemplateSettings | None, Meta(description="Another form of the rows, and of the body.")] = None
    gzip: Annotated[bool, Meta(description="Compress the body.")] = True


class Cloud(DeliveringSink):
    """Send rows to an HTTP server, in batches, until it has them.

        [sinks.cloud]
        type = "cloud"
        inputs = ["ten_seconds", "overheat"]
        url = "https://example.org/api/sync"
        where = "average > 50"
        batch = { rows = 500, wait = "5 s" }
        buffer = { size = "100 MB", when_full = "thin" }

    A request: POST, one row a line (or an array, with format = "json"), each an object with `stream`, the key, `time` and
    its fields; missing values are left out. `where` holds for the inputs that have its fields; the others go up whole.
    Another form: `template.row` names what a row shows, `template.body` what stands around the rows:

        template.row = { sensor = "{sensor_id}", at = "{time}", note = "{sensor_id} is at {average:.1f}" }
        template.body = { site = "greenhouse 7", batch = "{batch}", count = "{count}", readings = "{rows}" }

    A text that is one {field} alone becomes its value, a number stays one; a member whose field is missing is left out.
    Who it is: `token`, or `oauth` (a token by client credentials, renewed before its end and when it is turned down); `tls`
    with a `certificate`; `sign` adds Headwater-Timestamp (s since 1970), Headwater-Key and Headwater-Signature: "v1=" and the
    HMAC-SHA256, in hex, over timestamp "." Idempotency-Key "." body as sent. Timestamp and signature are new on each try.
    Delivery: at least once, under an Idempotency-Key that stays the same on every try, and so does the body. 2xx is taken; 401,
    403, 407, 408, 425, 429, 5xx, redirects and a silent network are tried again with growing pauses (Retry-After is honoured);
    any other answer is a refusal for good: the rows become dead letters and the next ones go on. Where `url` takes nothing
    the addresses of `fallback` are asked in turn, under the same key; the one that took the last batch stays the first, for
    five minutes. If they do not share what they have seen, a batch may be in two of them.
    After an outage: alerts go first, the newest before the older; then what comes now and what was left behind take turns,
    the latter oldest first, at most `rate` rows a second, and its rows say `"recovered": true`.
    At the limit (`when_full`): no more input is taken (`block`); or the oldest rows are dropped (`drop_oldest`); or they are
    thinned (`thin`): those of a key and interval become one, with `thinned` (how many it stands for), `until`, and for each
    number its mean under its own name, `_first`, `_last`, `_min`, `_max` and `_count`; of other fields the last value stays.
    Intervals grow from 10 s to a day as need be, the oldest first; what is still too much is dropped. A name that the stream
    has itself stays its own, the added one is `thinned_NAME`. Alerts stay whole and are never dropped: if they alone are more
    than the buffer's size, that is told. What became of how many rows is counted and shown.
    """

    def __init__(self, settings: CloudSettings, context: SinkContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        self.peer = HttpPeer(settings, context)
        self.urls = [(settings.url, check_url(settings.url, context))]
        self.urls += [(url, check_url(url, context, f"fallback.{i}")) for i, url in enumerate(settings.fallback)]
        self._first = 0  # of the addresses: the one that took the last batch
        self._first_since = 0.0
        template = settings.template or TemplateSettings()
        self.row = self._template("row", template.row, self.kinds()) if template.row is not None else None
        self.envelope: JsonTemplate | None = None
        if template.body is not None:
            self.envelope = self._template("body", template.body, {"rows": "rows", "count": "int", "batch": "string"})
            if "rows" not in self.envelope.names and not self.envelope.problems:
                context.problem("template.body", 'has no place for the rows: give one member the text "{rows}"')
        as_json = settings.format == "json" or self.envelope is not None
        self.headers = {"Content-Type": "application/json" if as_json else "application/x-ndjson"}
        if settings.gzip:
            self.headers["Content-Encoding"] = "gzip"

    def _template(self, setting: str, document: dict[str, Any], kinds: dict[str, str]) -> JsonTemplate:
        made = JsonTemplate(document, kinds)
        for where, text in made.problems:
            self.context.problem(f"template.{setting}.{where}", text)
        return made

    async def deliver(self, batch: Batch) -> Outcome:
        body = self._body(batch) if len(batch) < LARGE else await asyncio.to_thread(self._body, batch)
        if self._first and time.monotonic() - self._first_since > RETURN_S:
            self._first = 0
        failed: list[Outcome] = []
        for turn in range(len(self.urls)):
            at = (self._first + turn) % len(self.urls)
            url, shown = self.urls[at]
            outcome = await self.peer.deliver("POST", url, body, self.headers, shown, batch.key)
            if outcome.delivered or outcome.refused:
                if at != self._first:
                    self._first, self._first_since = at, time.monotonic()
                return outcome
            failed.append(outcome)
        asked = [outcome.retry_after for outcome in failed if outcome.retry_after is not None]
        reason = "; ".join(outcome.reason for outcome in failed)
        return Outcome(reason=reason, retry_after=min(asked) if len(asked) == len(failed) else None)

    def _body(self, batch: Batch) -> bytes:
        """The same rows are the same bytes: no time, no chance."""
        import orjson

        told = self.told(batch)
        if self.row:
            told = [self.row.fill(row) for row in told]
        if self.envelope:
            body: bytes = orjson.dumps(self.envelope.fill({"rows": told, "count": len(told), "batch": batch.key}))
        elif self.settings.format == "json":
            body = orjson.dumps(told)
        else:
            body = b"\n".join(map(orjson.dumps, told)) + b"\n"
        return gzip.compress(body, 6, mtime=0) if self.settings.gzip else body

    async def close(self) -> None:
        await self.peer.close()
