"""`notify`: alerts as messages to people, by mail, chat or SMS."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from contextvars import ContextVar
from typing import Annotated, Any
from urllib.parse import unquote

import apprise
from msgspec import Meta

from pipeline.component import Batch, Outcome, SinkContext, StepWrites
from pipeline.delivering import BatchSettings, DeliveringSettings, DeliveringSink
from pipeline.frame import Frame
from pipeline.quantity import MASK, Secret, duration
from pipeline.template import Template

HOUR_S = 3_600.0
MASKED_FROM = 4  # characters of a part of an address that may be secret
LONGEST_REASON = 200

_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)  # by the message that is being sent


class _Heard(logging.Handler):
    """apprise logs addresses, which hold tokens and passwords: nothing of it is logged, but a message hears what it logs."""

    def emit(self, record: logging.LogRecord) -> None:
        if (heard := _heard.get()) is not None:
            heard.append(_one_line(record.getMessage()))


logging.getLogger("apprise").addHandler(_Heard(logging.WARNING))
logging.getLogger("apprise").propagate = False


class NotifySettings(DeliveringSettings, frozen=True, kw_only=True):
    urls: Annotated[
        tuple[Secret, ...],
        Meta(min_length=1, description="Who is told: addresses of apprise, such as mailto://… or tgram://…."),
    ]
    title: Annotated[str, Meta(description="The title, of {count}.")] = "Headwater: {count} new"
    line: Annotated[
        str | None,
        Meta(description="How a row is told, of its fields. Absent: an alert's message, of others all fields."),
    ] = None
    lines: Annotated[
        int, Meta(ge=1, le=1_000, description="Rows that a message tells at most; of others how many.")
    ] = 20
    cleared: Annotated[bool, Meta(description="Tell also that an alert is over.")] = True
    per_hour: Annotated[int, Meta(ge=1, description="Messages in an hour at most; what comes beyond waits.")] = 20
    batch: Annotated[BatchSettings, Meta(description="What comes within `wait` is told in one message.")] = (
        BatchSettings(rows=1_000, wait=duration("10 s"))
    )


class Notify(DeliveringSink):
    """Tell people: by mail, chat, SMS, or any other of the services that apprise knows.

        [sinks.people]
        type = "notify"
        inputs = ["overheat"]
        urls = ["mailto://${MAIL_USER}:${MAIL_PASSWORD}@example.org", "tgram://${BOT_TOKEN}/${CHAT}"]
        title = "Greenhouse: {count} alerts"
        batch = { wait = "30 s" }
        per_hour = 10

    Needs `pip install "headwater[notify]"`; the addresses are listed at https://github.com/caronc/apprise/wiki.
    A message has a line for each row that came within `batch.wait`: `lines` of them, then "and 7 more". A line is what `line`
    says, a template of the row's fields ("{sensor_id}: {message}"); without it the alert's message, with "over: " before it
    for one that is cleared. `cleared = false` leaves those out.
    Delivery: at least once to each service, in order; one that has a message is not told it again because another failed.
    At the limit: after `per_hour` messages within an hour rows wait, and are told in one message with what has come
    meanwhile; none is lost. `buffer.when_full` as for `cloud`.
    """

    def __init__(self, settings: NotifySettings, context: SinkContext) -> None:
        super().__init__(settings, context)
        assert self.buffer
        self.buffer.in_order = True  # that it is over is not told before what it was
        self.settings = settings
        self.services = [_Service(i, url.reveal()) for i, url in enumerate(settings.urls)]
        for service in self.services:
            # A file that was kept without its secrets must make the same graph.
            if not service.known and not settings.urls[service.number].reveal().startswith(MASK):
                context.problem(
                    f"urls.{service.number}", "apprise knows no such service, or the address lacks something"
                )
        self.title = Template(settings.title, {"count": "int"})
        for problem in self.title.problems:
            context.problem("title", problem)
        self.line = Template(settings.line, self.kinds()) if settings.line is not None else None
        for problem in self.line.problems if self.line else ():
            context.problem("line", problem)
        self._sent: deque[float] = deque(maxlen=settings.per_hour)  # when the last messages were
        self._batch = ""  # that is under way, and who has its message
        self._told: set[int] = set()

    def write(self, stream: str, frame: Frame, writes: StepWrites) -> None:
        if not self.settings.cleared and self.context.inputs[stream].role == "alerts":
            frame = frame.where(frame["state"].values != "cleared")
        super().write(stream, frame, writes)

    async def deliver(self, batch: Batch) -> Outcome:
        if self._batch != batch.key:
            await self._allowed()
            self._batch, self._told = batch.key, set()
        told = self.told(batch)
        title, body = self.title.fill({"count": len(told)}), self._body(told)
        waiting = [service for service in self.services if service.number not in self._told]
        reasons = await asyncio.gather(*(asyncio.to_thread(service.tell, title, body) for service in waiting))
        self._told |= {service.number for service, reason in zip(waiting, reasons, strict=True) if not reason}
        failed = [reason for reason in reasons if reason]
        return Outcome(reason="; ".join(failed)) if failed else Outcome(delivered=True)

    async def _allowed(self) -> None:
        """Wait until an hour has fewer messages than it may. A message counts from its first try."""
        if len(self._sent) == self.settings.per_hour:
            await asyncio.sleep(max(0.0, self._sent[0] + HOUR_S - time.monotonic()))
        self._sent.append(time.monotonic())

    def _body(self, told: list[dict[str, Any]]) -> str:
        lines = [_one_line(self._line(row)) for row in told[: self.settings.lines]]
        if len(told) > len(lines):
            lines.append(f"and {len(told) - len(lines)} more")
        return "\n".join(lines)

    def _line(self, row: dict[str, Any]) -> str:
        if self.line:
            missing: dict[str, Any] = dict.fromkeys(self.line.names)
            return self.line.fill(missing | row)
        schema = self.context.inputs.get(row["stream"])
        if schema and schema.role == "alerts" and "message" in row:
            return f"over: {row['message']}" if row.get("state") == "cleared" else str(row["message"])
        return ", ".join(f"{name} {value}" for name, value in row.items())


class _Service:
    """One of those who are told; its address is never shown."""

    def __init__(self, number: int, url: str) -> None:
        self.number = number
        self._apprise = apprise.Apprise()  # it makes HTML of the text where the service wants that
        self.known = bool(self._apprise.add(url))
        self.name = str(self._apprise[0].service_name) if self.known else ""
        parts = {part for text in (url, unquote(url)) for part in re.split(r"[/:@?&=,;#]+", text.partition("://")[2])}
        self._secret = sorted((part for part in parts if len(part) >= MASKED_FROM), key=len, reverse=True)

    def tell(self, title: str, body: str) -> str:
        """In a thread, and a context, of its own. Why it was not told; "": it was."""
        said: list[str] = []
        _heard.set(said)
        try:
            done = bool(self._apprise.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT))
        except Exception as error:  # noqa: BLE001 - a plugin of apprise may raise anything, and must not be shown as it is
            done, said = False, [type(error).__name__]
        if done:
            return ""
        return f"{self.name} (urls.{self.number}): {self._masked(said[0] if said else 'not taken')}"

    def _masked(self, text: str) -> str:
        for part in self._secret:
            text = text.replace(part, "***")
        return text[:LONGEST_REASON]


def _one_line(text: str) -> str:
    return " ".join(text.split())
