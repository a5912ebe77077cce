"""`http`: a request for each row, to tell somebody or to make something move."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

import numpy as np
from msgspec import Meta

from pipeline.component import Batch, Outcome, SinkContext
from pipeline.delivering import BatchSettings, DeliveringSink
from pipeline.http_peer import HttpDeliveringSettings, HttpPeer, check_url
from pipeline.json_template import JsonTemplate
from pipeline.quantity import Duration, duration
from pipeline.template import Template

BODILESS = {"GET", "DELETE"}  # unless the settings give a body
MAYBE = "it may have been sent before, and is sent once at most"


class HttpSettings(HttpDeliveringSettings, frozen=True, kw_only=True):
    url: Annotated[str, Meta(description="Where a row is sent; {field} behind the host is filled in and escaped.")]
    method: Annotated[Literal["POST", "PUT", "PATCH", "GET", "DELETE"], Meta(description="The method.")] = "POST"
    body: Annotated[
        dict[str, Any] | str | None,
        Meta(description="JSON or text with {field}. Absent: the row as JSON; none with GET."),
    ] = None
    expires: Annotated[
        Duration | None, Meta(description="A row that is older is not sent any more. Absent: it is, however old.")
    ] = None
    once: Annotated[bool, Meta(description="Try each row once at most, rather than until it is taken.")] = False
    parallel: Annotated[int, Meta(ge=1, le=64, description="Keys whose rows are on their way at the same time.")] = 1
    batch: Annotated[BatchSettings, Meta(description="How many rows are taken from the buffer in one go.")] = (
        BatchSettings(rows=100, wait=duration("0 s"))
    )


class Http(DeliveringSink):
    """Send a request for each row: a webhook, a command to a device.

        [sinks.valves]
        type = "http"
        inputs = ["overheat"]
        url = "https://valves.example.org/valve/{sensor_id}?site=7"
        body = { open = "{state}", reason = "{message}", at = "{time}" }
        expires = "1 min"
        once = true

    A table as `body` is JSON: a text that is one {field} alone becomes its value, a member whose field is missing is left
    out. A text as `body` is sent as text/plain. In `url` a field is escaped, and stands behind the host; a row without that
    field, or with one that would change the path (".."), is refused.
    Delivery: at least once, a row at a time, in order for each key; each row has an Idempotency-Key that stays the same on
    every try; nothing overtakes what an outage left behind. 2xx is taken; 401, 403, 407, 408, 425, 429, 5xx, redirects and
    a silent network are tried again with growing pauses, and the key's later rows wait; any other answer makes the row a
    dead letter.
    With `once` at most once: a row is tried once, and is a dead letter with the reason if it is not taken; one that was on
    its way when the process ended is not sent again, and is one too. With `expires` a row older than that (by its time and
    this device's clock) is not sent but becomes a dead letter: no command of before an outage comes after it.
    `token`, `oauth`, `sign`, `headers` and `tls` as for `cloud`. At the limit (`buffer.when_full`): as for `cloud`.
    """

    def __init__(self, settings: HttpSettings, context: SinkContext) -> None:
        super().__init__(settings, context)
        self.settings = settings
        assert self.buffer
        self.buffer.in_order = True
        if settings.once:
            self.buffer.rows = 1  # what is written down as begun is this row and no other
        self.peer = HttpPeer(settings, context)
        kinds = self.kinds()
        self.url = Template(settings.url, kinds, lambda text: quote(text, safe=""))
        for problem in self.url.problems:
            context.problem("url", problem)
        self.shown_url = self._checked_url()
        self.body, self.media_type = self._body(kinds)
        self._batch = ""  # that is under way, and what became of each of its rows; "" is taken
        self._fates: dict[int, str] = {}

    def _checked_url(self) -> str:
        url = self.settings.url
        found = check_url(url, self.context, such_as="https://example.org/valve/{id}")
        if found and "{" in urlsplit(url).netloc:
            self.context.problem(
                "url", "a field may stand behind the host only: else a reading could choose whom to ask"
            )
        return found

    def _body(self, kinds: dict[str, str]) -> tuple[JsonTemplate | Template | None, str]:
        given = self.settings.body
        if isinstance(given, str):
            text = Template(given, kinds)
            for problem in text.problems:
                self.context.problem("body", problem)
            return text, "text/plain; charset=utf-8"
        document = JsonTemplate(given, kinds) if given is not None else None
        for where, problem in document.problems if document else ():
            self.context.problem(f"body.{where}", problem)
        return document, "application/json"

    async def deliver(self, batch: Batch) -> Outcome:
        if self.settings.once and (batch.resumed or batch.attempt > 1):
            return Outcome(refused=True, reason=MAYBE)
        if self._batch != batch.key:
            self._batch, self._fates = batch.key, {}
        told = self.told(batch)
        times = np.concatenate([frame.time for _, frame in batch.parts]).tolist()
        by_key: dict[int, list[int]] = {}
        for i, code in enumerate(np.concatenate([frame.key for _, frame in batch.parts]).tolist()):
            by_key.setdefault(code, []).append(i)
        free = asyncio.Semaphore(self.settings.parallel)

        async def of_key(rows: list[int]) -> Outcome | None:
            async with free:
                for i in rows:
                    if i not in self._fates and (failed := await self._row(i, told[i], times[i], batch.key)):
                        return failed
            return None

        failed = [outcome for outcome in await asyncio.gather(*map(of_key, by_key.values())) if outcome]
        if failed:
            return failed[0]
        return Outcome(delivered=True, rejected={i: reason for i, reason in self._fates.items() if reason})

    async def _row(self, i: int, row: dict[str, Any], time_ns: int, key: str) -> Outcome | None:
        """One request; None: it is known what became of the row."""
        if reason := self._unfit(row, time_ns):
            self._fates[i] = reason
            return None
        body, headers = self._sent(row)
        url = self.url.fill(row)
        outcome = await self.peer.deliver(self.settings.method, url, body, headers, self.shown_url, f"{key}-{i}")
        if outcome.delivered:
            self._fates[i] = ""
        elif outcome.refused or self.settings.once:
            self._fates[i] = outcome.reason
        else:
            return outcome
        return None

    def _unfit(self, row: dict[str, Any], time_ns: int) -> str:
        """Why a row is not sent."""
        expires, clock = self.settings.expires, self.context.clock
        if expires is not None:
            age = (clock.wall() if clock else time.time_ns()) - time_ns
            if age > expires:
                return f"expired: it is {age / 1e9:.0f} s old, and {expires} at most is sent"
        if missing := [name for name in self.url.names if name not in row]:
            return f'the address names "{missing[0]}", which is missing'
        if {".", ".."} & set(urlsplit(self.url.fill(row)).path.split("/")) - set(self.settings.url.split("/")):
            return "a value would change the path of the address"
        return ""

    def _sent(self, row: dict[str, Any]) -> tuple[bytes | None, dict[str, str]]:
        """Body and headers."""
        import orjson

        if isinstance(self.body, Template):
            missing: dict[str, Any] = dict.fromkeys(self.body.names)
            return self.body.fill(missing | row).encode(), {"Content-Type": self.media_type}
        if self.body is None and self.settings.method in BODILESS:
            return None, {}
        return orjson.dumps(self.body.fill(row) if self.body else row), {"Content-Type": self.media_type}

    async def close(self) -> None:
        await self.peer.close()
