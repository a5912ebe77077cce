"""Where each connection begins: small bodies that are posted to a source are taken here, and all else is aiohttp's.

    POST of a path with `quick`, a plain head, at most `SMALL_BODY` bytes   to the source; answered with bytes that are ready
    anything else, well made or not                                        to aiohttp, with the connection and for good

A request costs aiohttp 70 µs and two changes of tasks, more than everything that is done with one reading. A plain head says
nothing that would have to be understood: each of its headers is one of `_PLAIN`, once, in printable ASCII. So there is nothing
here that could be understood in another way than elsewhere, and the same guard is asked as for every other request. Clients
send the same head again and again: what one was found to be is remembered.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from multidict import CIMultiDict

from pipeline.guard import Guard
from pipeline.web import SMALL_BODY, HttpProblem, problem_body

if TYPE_CHECKING:
    from pipeline.component import TakesBody

log = logging.getLogger("headwater")

# Bytes: clients of sensors send 150 to 400, a proxy adds some.
LONGEST_HEAD = 2_000
HEADS = 256  # that are remembered; each Content-Length makes another
READ = 65_536  # bytes at once. asyncio's own 256 kB are taken from the system and given back each time: 12 µs
MOST_AHEAD = 65_536  # bytes of requests that came before the one under way was answered; then it is not read on
PATIENCE_S = 1.0  # for the rest of a body, then aiohttp waits for it, which knows when to give up

# What a request may say and still be nothing but its body. The guard looks at Host and Authorization, the source at
# Content-Type; the others mean nothing to anybody here.
_PLAIN = {
    *(
        "host",
        "content-length",
        "content-type",
        "authorization",
        "connection",
        "user-agent",
        "accept",
        "accept-encoding",
    ),
    *("accept-language", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"),
}
_HEADER = re.compile(r"([A-Za-z-]+): ?([!-~](?:[ -~]*[!-~])?)")
_LENGTH = re.compile(r"[1-9][0-9]{0,6}")


@dataclass(frozen=True, slots=True, eq=False)
class Quick:
    """What takes the small bodies of a path."""

    handler: Any  # of the route, that the guard knows it by
    takes: Callable[[str], TakesBody | None]
    status: int
    body: bytes  # of the answer, JSON
    max_body: int


class Plain(NamedTuple):
    """What a head comes to."""

    length: int  # of the body
    take: TakesBody
    quick: Quick


class _Asked:
    """A request as the guard looks at it."""

    method = "POST"

    def __init__(self, headers: Mapping[str, str], handler: Any) -> None:
        self.headers = headers
        self.handler = handler
        self.remote = ""

    @property
    def match_info(self) -> _Asked:
        return self


class Front:
    """What the connections of a server share. `other` makes aiohttp's end of one that must have sent its first head within
    so many seconds; `headers` are those of every answer."""

    def __init__(
        self,
        guard: Guard,
        other: Callable[[float], asyncio.Protocol],
        headers: Mapping[str, str],
        *,
        silent_s: float,
        keep_alive_s: float,
    ) -> None:
        self.guard = guard
        self.other = other
        self.silent_s = silent_s
        self.keep_alive_s = keep_alive_s
        self.connections: set[Connection] = set()
        self.closing = False
        self.room = memoryview(bytearray(READ))  # what is read is copied at once: one for all
        self._quick: dict[str, Quick] = {}
        self._heads: dict[bytes, Plain] = {}
        self._headers = dict(headers)
        self._ready: dict[Quick, bytes] = {}
        self._second = 0.0  # that the ready ones are dated

    def add(self, path: str, quick: Quick) -> None:
        self._quick[f"POST {path} HTTP/1.1"] = quick

    def __bool__(self) -> bool:
        return bool(self._quick)

    # --- what a head is ---

    def plain(self, head: bytes) -> Plain | None:
        """None: it is not for here. It may still be a good one."""
        found = self._heads.get(head)
        if found is None:
            found = self._look_at(head)
            if found is not None:
                if len(self._heads) >= HEADS:
                    self._heads.clear()
                self._heads[head] = found
        return found

    def _look_at(self, head: bytes) -> Plain | None:
        if not head.isascii():
            return None
        line, *lines = head.decode("ascii").split("\r\n")
        quick = self._quick.get(line)
        if quick is None:
            return None
        headers: CIMultiDict[str] = CIMultiDict()
        for one in lines:
            header = _HEADER.fullmatch(one)
            if header is None or header[1].lower() not in _PLAIN or header[1] in headers:
                return None
            headers[header[1]] = header[2]
        length = headers.get("Content-Length", "")
        if _LENGTH.fullmatch(length) is None or int(length) > min(quick.max_body, SMALL_BODY):
            return None
        if "Host" not in headers or headers.get("Connection", "keep-alive").lower() != "keep-alive":
            return None
        try:
            self.guard.permit(cast("Any", _Asked(headers, quick.handler)))
        except HttpProblem:
            return None  # aiohttp's end finds the same, and says it
        take = quick.takes(headers.get("Content-Type", ""))
        return None if take is None else Plain(int(length), take, quick)

    # --- answers ---

    def ready(self, quick: Quick) -> bytes:
        """The answer to what was taken. Its date is as old as a second."""
        now = time.monotonic()
        if now - self._second >= 1:
            self._ready.clear()
            self._second = now
        try:
            return self._ready[quick]
        except KeyError:
            kind = {"Content-Type": "application/json"} if quick.body else {}
            made = self._ready[quick] = self._answer(quick.status, quick.body, kind)
            return made

    def told(self, problem: HttpProblem) -> bytes:
        body = problem_body(problem.status, problem.detail, **problem.more)
        return self._answer(
            problem.status, body, {"Content-Type": "application/problem+json", **(problem.headers or {})}
        )

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> bytes:
        shown = {**headers, **self._headers, "Content-Length": str(len(body)), "Date": formatdate(usegmt=True)}
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {said}" for name, said in shown.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    # --- the end ---

    async def close(self, grace_s: float) -> None:
        """Take nothing more; what is under way gets a moment to be answered."""
        self.closing = True
        for connection in list(self.connections):
            connection.end()
        until = time.monotonic() + grace_s
        while self.connections and time.monotonic() < until:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()


class Connection(asyncio.BufferedProtocol):
    """One request after the other, as long as they are plain."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._data = b""  # that has come and is not taken
        self._plain: Plain | None = None  # of the request under way
        self._full = False  # the client does not read its answers
        self._paused = False  # it is not read on
        self._unsent = 0  # bytes, at the last look
        self._patience: asyncio.TimerHandle | None = None
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        front = self._front
        self._transport = cast("asyncio.Transport", transport)
        self._remote = str((transport.get_extra_info("peername") or ("",))[0])
        if (s := transport.get_extra_info("socket")) is not None:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        front.connections.add(self)
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + front.silent_s
        self._silence = self._loop.call_at(self._until, self._close_if_silent)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._let_go()
        self._data = b""

    def _let_go(self) -> None:
        self._lost = True
        self._silence.cancel()
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._front.connections.discard(self)

    # --- what comes ---

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._front.room

    def buffer_updated(self, nbytes: int) -> None:
        came = bytes(self._front.room[:nbytes])
        self._data = self._data + came if self._data else came
        self._go_on()

    def _go_on(self) -> None:
        """Take the next request, unless one is under way."""
        if self._plain is not None or self._full:
            if len(self._data) > MOST_AHEAD and not self._paused:
                self._paused = True
                self._transport.pause_reading()
            return
        front, data = self._front, self._data
        at = data.find(b"\r\n\r\n", 0, LONGEST_HEAD)
        plain = front.plain(data[:at]) if at > 0 else None
        if plain is None:
            self._hand_over()
            return
        end = at + 4 + plain.length
        if len(data) < end:
            if self._patience is None:
                self._patience = self._loop.call_later(PATIENCE_S, self._hand_over)
            return
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if front.guard.hurries(self._remote):
            self._hand_over()
            return
        self._plain = plain
        self._data = data[end:]
        try:
            plain.take(data[at + 4 : end], self._answer)
        except HttpProblem as problem:
            self._loop.call_soon(self._answer, problem)
        except Exception:
            log.exception("a body could not be taken")
            self._loop.call_soon(self._answer, HttpProblem(500, "an error in the server; its log has the details"))

    # --- what goes ---

    def _answer(self, problem: HttpProblem | None) -> None:
        plain, self._plain = self._plain, None
        if plain is None or self._transport.is_closing():
            return  # the client is gone
        front = self._front
        self._transport.write(front.ready(plain.quick) if problem is None else front.told(problem))
        self._until = self._loop.time() + front.keep_alive_s
        if front.closing:
            self._transport.close()
        elif self._data:
            self._go_on()
            self._read_on()

    def _read_on(self) -> None:
        if self._paused and len(self._data) <= MOST_AHEAD and not self._lost:
            self._paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._unsent = 0
        if self._data and self._plain is None:
            self._go_on()
            self._read_on()

    # --- what is not for here, and what has been here for too long ---

    def _hand_over(self) -> None:
        """The connection, with what has come of the request, to aiohttp."""
        if self._lost:
            return
        left = max(self._until - self._loop.time(), 0.0)
        self._let_go()
        transport = self._transport
        other = self._front.other(left)
        # Both kinds of loop choose at the start of reading how a protocol is given what is read.
        if not self._paused:
            transport.pause_reading()
        transport.set_protocol(other)
        other.connection_made(transport)
        if self._full:
            other.pause_writing()
        transport.resume_reading()
        data, self._data = self._data, b""
        other.data_received(data)

    def _close_if_silent(self) -> None:
        """Nothing has come for as long as a connection may say nothing. A timer that is moved now and then costs less than
        one for each request."""
        now = self._loop.time()
        if self._plain is not None:
            self._until = now + self._front.keep_alive_s
        if now < self._until:
            self._silence = self._loop.call_at(self._until, self._close_if_silent)
        else:
            self._transport.close()

    def close_if_unread(self) -> None:
        unsent = self._transport.get_write_buffer_size()
        if 0 < self._unsent <= unsent:
            self._transport.abort()
        self._unsent = unsent

    def end(self) -> None:
        """The server stops."""
        if self._plain is None:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()
