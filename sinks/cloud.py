"""`cloud`: rows by HTTP, buffered for as long as the network is away."""

from __future__ import annotations

import asyncio
import gzip
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from msgspec import Meta

from pipeline.component import Batch, Buffer, Outcome, Settings, Sink, SinkContext, StepWrites
from pipeline.expression import Expression
from pipeline.frame import Frame, rows
from pipeline.quantity import Duration, Secret, Size, duration
from pipeline.thin import shown

if TYPE_CHECKING:
    from aiohttp import ClientSession

LARGE = 2_000  # rows from which on a body is made beside the loop
AGAIN = {408, 425, 429}  # refusals that pass
LONGEST_REASON = 200  # characters of a peer's answer that are kept


class BatchSettings(Settings, frozen=True):
    rows: Annotated[int, Meta(ge=1, le=100_000, description="Rows in a request at most.")] = 500
    wait: Annotated[Duration, Meta(description="How long a row waits at most for its batch to fill.")] = duration("5 s")


class BufferSettings(Settings, frozen=True):
    size: Annotated[Size, Meta(description="What rows that wait may take of the database.")] = Size(100_000_000)
    when_full: Annotated[
        Literal["thin", "drop_oldest", "block"],
        Meta(description="The oldest rows are thinned, or dropped, or no more input is taken."),
    ] = "drop_oldest"
    rate: Annotated[int, Meta(ge=1, description="Rows a second at most of what an outage left behind.")] = 1_000


class CloudSettings(Settings, frozen=True, kw_only=True):
    url: Annotated[str, Meta(description="Where rows are sent by POST.")]
    where: Annotated[str | None, Meta(description="What must be true of a row to be sent. Absent: all are.")] = None
    batch: Annotated[BatchSettings, Meta(description="How rows are put together in requests.")] = BatchSettings()
    buffer: Annotated[BufferSettings, Meta(description="Where rows wait while the network is away.")] = BufferSettings()
    format: Annotated[Literal["ndjson", "json"], Meta(description="A JSON object a line, or an array of objects.")] = (
        "ndjson"
    )
    gzip: Annotated[bool, Meta(description="Compress the body.")] = True
    token: Annotated[Secret | None, Meta(description="Sent as `Authorization: Bearer`.")] = None
    headers: Annotated[dict[str, Secret], Meta(description="Further headers.")] = {}
    timeout: Annotated[Duration, Meta(description="How long an answer may take.")] = duration("30 s")


class Cloud(Sink):
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
        wait = int(settings.batch.wait)
        self.buffer = Buffer(
            settings.buffer.size, settings.buffer.when_full, settings.buffer.rate, settings.batch.rows, wait
        )
        parts = urlsplit(settings.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            context.problem("url", 'must be an address such as "https://example.org/api/sync"')
        self.shown_url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
        self.where = self._conditions(settings.where) if settings.where else {}
        self._session: ClientSession | None = None

    def _conditions(self, text: str) -> dict[str, Expression]:
        """The condition for each input that has all of its fields. In none of them: a problem."""
        from pipeline.expression import ExpressionError, compile_expression

        found: dict[str, Expression] = {}
        errors: list[str] = []
        for stream, schema in self.context.inputs.items():
            try:
                found[stream] = compile_expression(text, schema, "bool", self.context.keys)
            except ExpressionError as error:
                errors.append(str(error))
        if not found:
            self.context.problem("where", errors[0])
        return found

    # --- into the outbox ---

    def write(self, stream: str, frame: Frame, writes: StepWrites) -> None:
        if stream in self.where:
            frame = frame.where(self.where[stream].holds(frame))
        if len(frame):
            keep = self.context.inputs[stream].role == "alerts"
            writes.enqueue(self.context.name, stream, frame, keep=keep)

    # --- out of it ---

    async def deliver(self, batch: Batch) -> Outcome:
        import aiohttp

        body = self._body(batch) if len(batch) < LARGE else await asyncio.to_thread(self._body, batch)
        session = self._open()
        headers = {"Idempotency-Key": batch.key}
        try:
            async with session.post(self.settings.url, data=body, headers=headers, allow_redirects=False) as response:
                text = (await response.content.read(2 * LONGEST_REASON)).decode(errors="replace")
                return _outcome(response.status, response.headers.get("Retry-After"), text)
        except TimeoutError:
            return Outcome(reason=f"{self.shown_url} did not answer within {self.settings.timeout}")
        except aiohttp.ClientError as error:
            return Outcome(reason=f"{self.shown_url}: {_said(error)}")

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

        told: list[dict[str, Any]] = []
        flags = {"recovered": True} if batch.recovered else {}
        for stream, frame in batch.parts:
            made = rows(*shown(frame, self.context.inputs.get(stream)), self.context.keys.names)
            told += [{"stream": stream, **flags, **{k: v for k, v in row.items() if v is not None}} for row in made]
        if self.settings.format == "json":
            body: bytes = orjson.dumps(told)
        else:
            body = b"\n".join(map(orjson.dumps, told)) + b"\n"
        return gzip.compress(body, 6, mtime=0) if self.settings.gzip else body

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _outcome(status: int, retry_after: str | None, text: str) -> Outcome:
    if 200 <= status < 300:
        return Outcome(delivered=True)
    said = " ".join(text.split())[:LONGEST_REASON]
    reason = f"HTTP {status}" + (f": {said}" if said else "")
    if status in AGAIN or status >= 500:
        return Outcome(reason=reason, retry_after=_seconds(retry_after))
    # A redirect is a fault of the settings that a person mends: the rows are kept until then.
    return Outcome(refused=status >= 400, reason=reason)


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After: seconds, or a date."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        from datetime import UTC, datetime

        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _said(error: Exception) -> str:
    """A network error in short; some have no text, and some repeat the address."""
    os_error = getattr(error, "os_error", None)
    return str(getattr(os_error, "strerror", None) or error or type(error).__name__)[:LONGEST_REASON]
