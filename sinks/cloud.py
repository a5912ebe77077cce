"""`cloud`: rows by HTTP, buffered for as long as the network is away."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from pipeline.component import Batch, Outcome, SinkContext
from pipeline.delivering import DeliveringSettings, DeliveringSink
from pipeline.http_peer import answered, check_url, short
from pipeline.quantity import Duration, Secret, duration

if TYPE_CHECKING:
    from aiohttp import ClientSession

LARGE = 2_000  # rows from which on a body is made beside the loop


class CloudSettings(DeliveringSettings, frozen=True, kw_only=True):
    url: Annotated[str, Meta(description="Where rows are sent by POST.")]
    format: Annotated[Literal["ndjson", "json"], Meta(description="A JSON object a line, or an array of objects.")] = (
        "ndjson"
    )
    gzip: Annotated[bool, Meta(description="Compress the body.")] = True
    token: Annotated[Secret | None, Meta(description="Sent as `Authorization: Bearer`.")] = None
    headers: Annotated[dict[str, Secret], Meta(description="Further headers.")] = {}
    timeout: Annotated[Duration, Meta(description="How long an answer may take.")] = duration("30 s")


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
    Delivery: at least once, under an Idempotency-Key that stays the same on every try. 2xx is taken; 408, 425, 429, 5xx and
    a silent network are tried again with growing pauses (Retry-After is honoured); any other answer is a refusal for good:
    the rows become dead letters and the next ones go on.
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
        self.shown_url = check_url(settings.url, context)
        self._session: ClientSession | None = None

    async def deliver(self, batch: Batch) -> Outcome:
        import aiohttp

        body = self._body(batch) if len(batch) < LARGE else await asyncio.to_thread(self._body, batch)
        session = self._open()
        headers = {"Idempotency-Key": batch.key}
        try:
            async with session.post(self.settings.url, data=body, headers=headers, allow_redirects=False) as response:
                return await answered(response)
        except TimeoutError:
            return Outcome(reason=f"{self.shown_url} did not answer within {self.settings.timeout}")
        except aiohttp.ClientError as error:
            return Outcome(reason=f"{self.shown_url}: {short(error)}")

    def _open(self) -> ClientSession:
        import aiohttp

        if self._session is None:
            headers = {"Content-Type": "application/json" if self.settings.format == "json" else "application/x-ndjson"}
            if self.settings.gzip:
                headers["Content-Encoding"] = "gzip"
            if self.settings.token:
                headers["Authorization"] = f"Bearer {self.settings.token.reveal()}"
            headers |= {name: value.reveal() for name, value in self.settings.headers.items()}
            timeout = aiohttp.ClientTimeout(total=self.settings.timeout.seconds)
            self._session = aiohttp.ClientSession(headers=headers, timeout=timeout)
        return self._session

    def _body(self, batch: Batch) -> bytes:
        """The same rows are the same bytes: no time, no chance."""
        import orjson

        told = self.told(batch)
        if self.settings.format == "json":
            body: bytes = orjson.dumps(told)
        else:
            body = b"\n".join(map(orjson.dumps, told)) + b"\n"
        return gzip.compress(body, 6, mtime=0) if self.settings.gzip else body

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
