"""`http_poll`: what an address on the web says, asked every so often."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from pipeline import tls
from pipeline.component import Inbox, Payload, ReadingSettings, SourceContext
from pipeline.http_peer import LONGEST_REASON, check_url, seconds, short
from pipeline.quantity import Duration, Secret, Size, duration
from pipeline.reading import CodecSource
from pipeline.reconnect import Connection

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

LONGEST_START_S = 5.0  # a device that starts asks within this: a hundred that start together do not ask together
LONGEST_ASKED_S = 3_600.0  # a peer that asks for more with Retry-After is asked again all the same


class HttpPollSettings(ReadingSettings, frozen=True, kw_only=True):
    url: Annotated[str, Meta(description="What is asked for, by GET.")]
    every: Annotated[Duration, Meta(description="How often.")] = duration("10 s")
    timeout: Annotated[Duration, Meta(description="How long an answer may take.")] = duration("10 s")
    max_body: Annotated[Size, Meta(description="Largest answer, unpacked.")] = Size(1_000_000)
    token: Annotated[Secret | None, Meta(description="Sent as `Authorization: Bearer`.")] = None
    headers: Annotated[dict[str, Secret], Meta(description="Further headers.")] = {}
    tls: Annotated[tls.TlsSettings | None, Meta(description="Whom to trust, and the certificate to show.")] = None


class HttpPoll(CodecSource):
    """Ask an HTTP server every so often, and take its answer as readings.

        [sources.weather]
        type = "http_poll"
        url = "https://api.example.org/stations/7/now"
        every = "1 min"
        token = "${WEATHER_TOKEN}"
        format = { type = "path", paths = { station = "station.id", temperature = "air.temperature" } }
        key = "station"
        fields = { temperature = "float" }

    The answer is read in the source's format, whatever it says it is. A server that names a version of its answer (ETag,
    Last-Modified) is asked for what is new: where it says 304 there is no reading, also over a restart. Others give a reading
    at each answer, changed or not; the operator `changes` drops what repeats. An empty answer (204) gives none.
    Without `time` a reading is dated when it arrives: the answer's Date says when it was sent, not when it was measured.
    After a failure it is asked again with growing pauses, at most a minute, or when Retry-After says; redirects are not followed.
    Delivery: the newest value. What the server said between two questions is not seen; an answer that was read and not
    committed when this process is killed is asked for again.
    At the limit: while the inbox is full nothing is asked; an answer beyond `max_body` is a failure.
    """

    def __init__(self, settings: HttpPollSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        self.shown = check_url(settings.url, context, such_as="https://example.org/now")
        self.max_body = int(settings.max_body)
        self.seen: dict[str, str] = {}  # of the newest answer: its ETag, when it was changed
        self.random = random.Random()
        if settings.tls is not None:
            tls.check(settings.tls, context)
        for name, given in (("every", settings.every), ("timeout", settings.timeout)):
            if given < 10_000_000:
                context.problem(name, 'must be at least "10 ms"')
        if self.max_body < 1:
            context.problem("max_body", "must be at least 1 B")

    async def run(self, inbox: Inbox, position: Any) -> None:
        if position is not None and position["url"] == self.shown:
            self.seen = position["seen"]
        await asyncio.sleep(self.random.uniform(0, min(self.settings.every.seconds, LONGEST_START_S)))
        connection = Connection(self, self.shown)
        await connection.keep(partial(self._ask_often, inbox, connection))

    async def _ask_often(self, inbox: Inbox, connection: Connection) -> None:
        import aiohttp

        loop = asyncio.get_running_loop()
        due = loop.time()
        async with self._session() as session:
            while True:
                try:
                    await self._ask(session, inbox)
                except TimeoutError:
                    raise TimeoutError(f"it did not answer within {self.settings.timeout}") from None
                except aiohttp.ClientError as error:
                    raise OSError(short(error)) from None
                connection.up()
                due = max(due + self.settings.every.seconds, loop.time())  # after a pause: no rush to make up
                await asyncio.sleep(due - loop.time())

    def _session(self) -> ClientSession:
        import aiohttp

        headers = {name: value.reveal() for name, value in self.settings.headers.items()}
        if self.settings.token:
            headers["Authorization"] = f"Bearer {self.settings.token.reveal()}"
        secure = self.settings.url.startswith("https:")
        trusted = tls.client_context(self.settings.tls, self.context.folder) if secure else True
        return aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self.settings.timeout.seconds),
            connector=aiohttp.TCPConnector(ssl=trusted),
        )

    async def _ask(self, session: ClientSession, inbox: Inbox) -> None:
        """One question. OSError: what was answered is none."""
        since = {"etag": "If-None-Match", "modified": "If-Modified-Since"}
        asked = {since[name]: value for name, value in self.seen.items()}
        async with session.get(self.settings.url, headers=asked, allow_redirects=False) as response:
            if response.status == 304:
                return
            if not 200 <= response.status < 300:
                raise OSError(await self._refusal(response))
            body = await self._body(response)
            said = {"etag": response.headers.get("ETag"), "modified": response.headers.get("Last-Modified")}
        self.seen = {name: value for name, value in said.items() if value is not None}
        if body:
            await inbox.put(Payload(body, len(body), {"url": self.shown, "seen": self.seen}))

    async def _body(self, response: ClientResponse) -> bytes:
        parts = []
        size = 0
        async for part in response.content.iter_any():
            size += len(part)
            if size > self.max_body:
                raise OSError(f"it answered with more than max_body ({self.settings.max_body})")
            parts.append(part)
        return b"".join(parts)

    async def _refusal(self, response: ClientResponse) -> str:
        """In words, after the time that the server wants to be left alone."""
        text = " ".join((await response.content.read(2 * LONGEST_REASON)).decode(errors="replace").split())
        said = f"HTTP {response.status}" + (f": {text[:LONGEST_REASON]}" if text else "")
        if 300 <= response.status < 400:
            said = f"HTTP {response.status}: it is elsewhere; redirects are not followed, so name that address in url"
        wait = seconds(response.headers.get("Retry-After"))
        if wait:
            self.trouble = f"{self.shown}: {said}"
            await asyncio.sleep(min(wait, LONGEST_ASKED_S))
        return said
